"""Describe the files that are made of an output, and check that they can be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsupres.errors import InputError, RunConflictError
from rsupres.output.atomic import check_writable
from rsupres.output.protect import check_apart
from rsupres.output.tiff.geotiff import read_tags

COLOURS = ("red", "green", "blue")  # of a picture
PICTURES = {".tif": "COG", ".tiff": "COG", ".png": "PNG"}  # formats by name
_MARK = "rsupres"  # in the text of every file that is written here


@dataclass(frozen=True)
class Companions:
    """Files beside an output.

    Attributes:
        output: the upscaled scene.
        scenes: the files that it was made of.
        stac: write a STAC item, named as the output.
        rgb8: picture in true colours to write, None = none.
        qml: write a style for QGIS, named as the output.
        replaces: existing files may be replaced, also those of other programs.
    """

    output: Path
    scenes: tuple[str, ...]
    stac: bool = False
    rgb8: Path | None = None
    qml: bool = False
    replaces: bool = False

    @property
    def paths(self) -> Mapping[str, Path]:
        """The files, by the argument that asks for each."""
        found = {}
        if self.stac:
            found["stac"] = self.output.with_suffix(".json")
        if self.rgb8 is not None:
            found["rgb8"] = self.rgb8
        if self.qml:
            found["qml"] = self.output.with_suffix(".qml")
        return found

    @property
    def due(self) -> Mapping[str, Path]:
        """The files that are missing or no newer than what they show, by argument.

        All of them where `replaces` is set.
        """
        picture = () if self.rgb8 is None else (self.rgb8,)
        shown = {name: (self.output,) for name in self.paths}
        shown["stac"] = (self.output, *picture)  # an item names the picture
        return {
            name: path
            for name, path in self.paths.items()
            if self.replaces or not is_current(path, shown[name])
        }

    def check(
        self,
        outputs: Mapping[str, Path],
        inputs: Mapping[str, Sequence[str]],
        *,
        is_kept: bool = False,
    ) -> None:
        """Check that the files can be written and replace nothing unasked.

        Args:
            outputs: argument -> other files that are written.
            inputs: argument -> names of files that are read.
            is_kept: the output stays as it is, so that only files that are due are
                written.

        Raises:
            ArgumentError: a file is an input, or another output.
            InputError: a folder cannot be written, or the picture's format is none.
            RunConflictError: a file exists that is not of an earlier run.
        """
        check_apart(self.paths, inputs)
        if self.rgb8 is not None and self.rgb8.suffix.lower() not in PICTURES:
            raise InputError(
                f"{self.rgb8}: give a name with .tif or .png.", argument="rgb8"
            )
        for name, path in self.paths.items():
            check_apart({name: path}, {key: [str(p)] for key, p in outputs.items()})
            if not is_kept or name in self.due:
                check_writable(path, name)
            if path.exists() and not self.replaces and not _is_ours(path):
                raise RunConflictError(
                    f"{path} exists and was not written by this command.",
                    argument=name,
                    remedies=("overwrite",),
                )


def is_current(path: Path, shown: Sequence[Path]) -> bool:
    """Return whether a file is there and newer than the files that it shows.

    Args:
        path: made of other files.
        shown: these files.
    """
    try:
        made = path.stat().st_mtime_ns
        return all(made > file.stat().st_mtime_ns for file in shown)
    except OSError:
        return False


def _is_ours(path: Path) -> bool:
    """Return whether a file was written here: it names this program, or is tagged."""
    with path.open("rb") as opened:
        start = opened.read(1 << 20)
    return _MARK.encode() in start.lower() or "RSUPRES_JOB" in read_tags(path)
