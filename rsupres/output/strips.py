"""Make a raster strip by strip, resumably, and write the output in one step.

Memory does not grow with a raster's height. Finished strips are kept in a run
directory, where the same call resumes. This is separate from
`rsupres.upscaling.pipeline`, so that commands without a network load none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError, RunConflictError
from rsupres.execution import (
    LAST_STEPS,
    Interrupted,
    OnProgress,
    Progress,
    run_interruptible,
)
from rsupres.grid import Grid, PixelWindow
from rsupres.output.atomic import check_folder, check_writable, publishing
from rsupres.output.damage.repair import drop_damaged
from rsupres.output.damage.seals import sealed
from rsupres.output.protect import check_apart
from rsupres.output.run_dir import Run
from rsupres.output.run_state import drop_published
from rsupres.output.temporary import clear
from rsupres.output.tiff.geotiff import assemble, read_tags, write_strip
from rsupres.output.tiff.packets import Packets
from rsupres.output.tiff.profile import (
    OutputFormat,
    OutputMeta,
    check_extension,
    is_lossy,
)
from rsupres.raster.files import StrPath
from rsupres.version import __version__

Rows = tuple[NDArray[np.generic], NDArray[np.bool_] | None]


class WritingOptions(TypedDict, total=False):
    """Options of all functions that write a raster, and their defaults.

    Attributes:
        driver: "COG" (default) or "GTiff".
        co: creation options of the driver, a mapping or pairs.
        overwrite: replace an output that exists.
        run_dir: folder of the unfinished run; default: the output's name with `.run`.
        keep_run: keep it after success.
        restart: drop an unfinished run of another job; `overwrite` implies it.
    """

    driver: str
    co: Mapping[str, str] | Sequence[tuple[str, str]]
    overwrite: bool
    run_dir: StrPath | None
    keep_run: bool
    restart: bool


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Place and form of a raster that is written.

    Attributes:
        output: the file to write.
        driver: COG or GTiff, in any case.
        creation: creation options of the driver.
        overwrite: replace an output that exists.
        run_dir: folder of finished strips; None = the output's name with `.run`.
        keep_run: keep it after success.
        restart: drop an unfinished run of another job; `overwrite` implies it.
    """

    remedies_where_one_exists: ClassVar[tuple[str, ...]] = ("overwrite",)

    output: Path
    driver: str = "COG"
    creation: tuple[tuple[str, str], ...] = ()
    overwrite: bool = False
    run_dir: Path | None = None
    keep_run: bool = False
    restart: bool = False

    @property
    def takes_over(self) -> bool:
        """Whether an unfinished run of another job is dropped."""
        return self.restart or self.overwrite

    @property
    def may_replace(self) -> bool:
        """Whether an output that exists may be replaced."""
        return self.overwrite

    @property
    def run_path(self) -> Path:
        """The run directory."""
        return self.run_dir or self.output.with_name(self.output.name + ".run")

    @property
    def outputs(self) -> Mapping[str, Path]:
        """Files that are written, by the argument that names each."""
        return {"output": self.output}

    @property
    def inputs(self) -> Mapping[str, Sequence[str]]:
        """Files that are read, by the argument that names them; no output is one."""
        return {}

    def check(self, inputs: Mapping[str, Sequence[str]] | None = None) -> None:
        """Check that the outputs can be made and replace nothing unasked.

        What a killed process left of the run that made an output is removed.

        Args:
            inputs: argument -> names of more files that are read.

        Raises:
            ArgumentError: an output is an input.
            InputError: as `check_files`.
            RunConflictError: as `check_vacant`.
        """
        check_apart(self.outputs, inputs or {})
        self.check_files()
        try:
            self.check_vacant()
        except RunConflictError:
            if not self.keep_run and "RSUPRES_VERSION" in read_tags(self.output):
                drop_published(self.run_path, self.output)
            raise

    def check_files(self) -> None:
        """Check that the outputs can be made, and are no inputs and different files.

        Raises:
            ArgumentError: an output is an input, or a device, a pipe or a socket.
            InputError: as `check_writable`, two are the same file, or a name has the
                extension of another format.
        """
        self.check_names()
        if self.run_dir is not None:
            check_folder(self.run_dir, "run_dir")
        for name, path in self.outputs.items():
            check_writable(path, name)

    def check_names(self) -> None:
        """Check that the outputs are no inputs and different files.

        Raises:
            ArgumentError: an output is an input, or a device, a pipe or a socket.
            InputError: two are the same file, or a name has the extension of another
                format.
        """
        check_apart(self.outputs, self.inputs)
        seen: dict[Path, str] = {}
        for name, path in self.outputs.items():
            check_extension(path, name)
            other = seen.setdefault(path.absolute(), name)
            if other != name:
                raise InputError(
                    f"and {other} are the same file, {path}.", argument=name
                )

    def check_vacant(self) -> None:
        """Check that no output exists, unless it may be replaced.

        Raises:
            RunConflictError: one exists, without `overwrite`.
        """
        for path in self.outputs.values():
            if path.exists() and not self.may_replace:
                is_ours = "RSUPRES_VERSION" in read_tags(path)
                doubt = (
                    "" if is_ours else " and is no output of a run; is a name missing?"
                )
                raise RunConflictError(
                    f"{path} exists{doubt or '.'}",
                    remedies=self.remedies_where_one_exists,
                )

    def format(self, dtype: str, nodata: float | None) -> OutputFormat:
        """Return how pixels of a type are stored there.

        Args:
            dtype: numpy name.
            nodata: value of invalid pixels, None = a mask marks them. Compression with
                losses would change it, so that a mask takes its place.
        """
        if nodata is not None and is_lossy(dict(self.creation)):
            nodata = None
        return OutputFormat(
            driver="COG" if self.driver.upper() == "COG" else "GTiff",
            creation=dict(self.creation),
            dtype=dtype,
            nodata=nodata,
        )


def make_destination(output: StrPath, options: WritingOptions) -> Destination:
    """Return where and how a raster is written.

    Args:
        output: the file to write.
        options: keyword arguments of the public function, named as its command's
            options.

    Raises:
        TypeError: a name is none of `WritingOptions`.
    """
    if unknown := options.keys() - WritingOptions.__annotations__.keys():
        raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")
    run_dir = options.get("run_dir")
    return Destination(
        output=Path(output),
        driver=options.get("driver", "COG"),
        creation=tuple(dict(options.get("co", ())).items()),
        overwrite=options.get("overwrite", False),
        run_dir=None if run_dir is None else Path(run_dir),
        keep_run=options.get("keep_run", False),
        restart=options.get("restart", False),
    )


@dataclass(frozen=True)
class StripRaster:
    """A raster that can be made strip by strip, from top to bottom.

    Attributes:
        grid: its frame.
        form: how it is stored.
        n_bands: number of bands.
        strip_values: pixels times bands of one strip, about.
        identity: JSON-able; what must be equal for an earlier run to be continued.
        phase: name of the work for progress, such as "Burning".
        make: returns the rows of a window: pixels (c, h, w) in the type of `form`,
            and the valid mask (1, h, w), None when all are valid.
        meta: returns the description of the file; called when all rows are written.
        skip: called with each window that an earlier call wrote, and its file.
        has_packets: a large COG is made of packets, which averages its overviews and
            empties the files that `skip` would read.
    """

    grid: Grid
    form: OutputFormat
    n_bands: int
    strip_values: int
    identity: Mapping[str, object]
    phase: str
    make: Callable[[PixelWindow], Rows]
    meta: Callable[[], OutputMeta]
    skip: Callable[[PixelWindow, Path], None] = lambda window, path: None
    has_packets: bool = False

    def packets(self, run: Run) -> Packets:
        """Return the packets of the raster's strips in a run."""
        windows = self.windows()
        edges = [*(window.row for window in windows), self.grid.height]
        return Packets(run, self.grid, self.n_bands, self.form, edges)

    def windows(self) -> list[PixelWindow]:
        """Return the window of every strip, from top to bottom."""
        grid = self.grid
        height = max(1, self.strip_values // (grid.width * self.n_bands))
        return [
            PixelWindow(row, 0, min(height, grid.height - row), grid.width)
            for row in range(0, grid.height, height)
        ]


def frame_identity(grid: Grid) -> dict[str, object]:
    """Return a frame as part of a run's identity, JSON-able."""
    return {
        "crs": grid.crs.to_wkt() if grid.crs else None,
        "transform": [repr(value) for value in grid.transform[:6]],
        "shape": [grid.height, grid.width],
    }


def write_strips(raster: StripRaster, into: Destination, show: OnProgress) -> None:
    """Make a raster; resume where an earlier call stopped.

    Args:
        raster: the raster.
        into: where it is written; `Destination.check` was called.
        show: called after each strip.

    Raises:
        RunConflictError: another process or another job works in the run directory.
        ResourceError: the disk is full.
    """
    windows = raster.windows()
    job = {**raster.identity, "version": __version__}
    manifest = {"job": job, "n_strips": len(windows)}
    with Run.open(into.run_path, manifest, restart=into.takes_over) as run:
        packets = raster.packets(run)
        try:
            drop_damaged(packets, ())
            done = run.done_strips()
            for index, window in enumerate(windows):
                path = run.strip_path(index)
                if index in done:
                    raster.skip(window, path)
                else:
                    pixels, valid = raster.make(window)
                    rows, nodata = raster.grid.crop(window), raster.form.nodata
                    with sealed(path) as part:
                        write_strip(part, pixels, rows, valid, nodata)
                    if raster.has_packets:
                        packets.pack(range(index + 1))
                show(Progress(raster.phase, index + 1, len(windows), "strips"))
            write_finished(packets, raster.meta(), into, packed=raster.has_packets)
        except Interrupted as stop:
            stop.advise("The same command continues.")
            raise
        if not into.keep_run:
            run.remove()


def write_output(
    strips: Sequence[Path], meta: OutputMeta, form: OutputFormat, output: Path
) -> None:
    """Assemble strips into an output, which appears when it is complete.

    Args:
        strips: files of `write_strip`, from top to bottom.
        meta: description of the output.
        form: how it is stored.
        output: the file to write; replaced if it exists.

    Raises:
        InputError: a strip is missing or damaged, or the folder cannot be written.
        ResourceError: the disk is full.
    """
    try:
        with publishing(output) as part:
            run_interruptible(lambda: assemble(strips, meta, form, part))
    except KeyboardInterrupt:
        _clear_now_and_last(output)
        raise


def _clear_now_and_last(output: Path) -> None:
    """Remove the files of an abandoned thread, and again those that it makes later."""
    clear([output], all_of_them=True)
    LAST_STEPS.append(lambda: clear([output], all_of_them=True))


def write_finished(
    packets: Packets, meta: OutputMeta, into: Destination, *, packed: bool = True
) -> None:
    """Make an output of strips that are all done; it appears when it is complete.

    Args:
        packets: those of the strips.
        meta: description of the output.
        into: where it is written, and whether the run is kept.
        packed: packets may be made, and some may have been.

    Raises:
        InputError: a strip is damaged, or the folder cannot be written.
        ResourceError: the disk is full.
    """
    if not packed or not (packets.serve or packets.folder.exists()):
        write_output(packets.strips, meta, packets.form, into.output)
        return
    clear([into.output])
    try:
        run_interruptible(
            lambda: packets.write_output(meta, into.output, keep=into.keep_run)
        )
    except KeyboardInterrupt:
        _clear_now_and_last(into.output)
        raise
