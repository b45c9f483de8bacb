"""Find the scenes of a batch in folders, and log the files that are skipped.

In a folder, rasters, Sentinel-2 products (`.SAFE`, zips of them), zips of one raster
and folders of tiles are inputs, and STAC items where no raster lies beside them. Names,
the contents of zips and STAC documents are read; no raster is opened.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rsupres.errors import InputError
from rsupres.output.protect import SIDECARS
from rsupres.products.catalogs import is_item_file, is_stac_name, item_names
from rsupres.raster.files import SUFFIXES
from rsupres.raster.open import locate
from rsupres.tiles.batches.journal import JOURNAL, read_batch
from rsupres.tiles.index import INDEX

logger = logging.getLogger(__name__)

_RASTERS = (*SUFFIXES, ".img")
_SHOWN = 5  # names that a message lists


@dataclass(frozen=True)
class Found:
    """An input of a batch.

    Attributes:
        name: what is opened.
        below: folders between the searched one and this, part of its output's path.
        is_tiles: it is a folder of `rsupres tile`.
        files: that make one scene, when there are several; `name` is for them all.
    """

    name: str
    below: Path = Path()
    is_tiles: bool = False
    files: tuple[str, ...] = ()


@dataclass
class _Search:
    """A search in one folder."""

    out: Path  # folder of the outputs, which holds no inputs
    made: frozenset[Path]  # outputs of an earlier batch
    recursive: bool
    passed: list[str] = field(default_factory=list)  # names that were passed over
    folders: list[str] = field(default_factory=list)  # that were not searched

    def look(self, folder: Path, below: Path) -> Iterator[Found]:
        """Yield the inputs in a folder."""
        paths = sorted(folder.iterdir())
        has_rasters = any(path.suffix.lower() in _RASTERS for path in paths)
        for path in paths:
            if path.is_dir():
                yield from self._look_at_folder(path, below)
            elif path.suffix.lower() in _RASTERS:
                if path.resolve() not in self.made:
                    yield Found(str(path), below)
            elif path.suffix.lower() == ".zip":
                try:
                    locate(str(path))
                except InputError as error:
                    self.passed.append(str(error))
                else:
                    yield Found(str(path), below)
            elif not has_rasters and _is_items(path):
                yield from (Found(name, below) for name in item_names(str(path)))
            elif not _is_silent(path):
                self.passed.append(str(path))

    def _look_at_folder(self, path: Path, below: Path) -> Iterator[Found]:
        if (path / INDEX).is_file():
            yield Found(str(path), below, is_tiles=True)
        elif is_product(path):
            yield Found(str(path), below)
        elif path.suffix == ".run" or path.resolve() == self.out:
            return
        elif self.recursive and not path.is_symlink():
            yield from self.look(path, below / path.name)
        else:
            self.folders.append(str(path))


def find_inputs(name: str, out: Path, *, recursive: bool) -> list[Found]:
    """Return the scenes that one input of a batch stands for.

    Args:
        name: a raster, product, zip, folder of tiles, a folder of such, a pattern
            ("scenes/**/*.tif"), or a STAC item, collection or catalog.
        out: folder of the outputs.
        recursive: search subfolders, too.

    Raises:
        InputError: a folder holds no input, or nothing matches a pattern.
    """
    path = Path(name)
    if glob.has_magic(name) and "://" not in name and not path.exists():
        return _find_matching(name, out, recursive=recursive)
    if (path / INDEX).is_file():
        return [Found(name, is_tiles=True)]
    if not path.is_dir() or is_product(path):
        return [Found(one) for one in _items_of(name)]
    search = _Search(out.resolve(), _outputs_of(out), recursive)
    found = list(search.look(path, Path()))
    if search.passed:
        logger.warning("%s: passed over %s.", name, _list(search.passed))
    if search.folders:
        logger.warning(
            "%s: not searched: %s.",
            name,
            _list(search.folders),
            extra={"remedies": ("recursive",)},
        )
    if not found:
        raise InputError(
            f"{name}: holds no raster, product, STAC item or folder of tiles."
        )
    return found


def _find_matching(pattern: str, out: Path, *, recursive: bool) -> list[Found]:
    """Return the inputs that match a pattern; outputs of the batch are none."""
    made = _outputs_of(out)
    found: list[Found] = []
    for name in sorted(glob.glob(pattern, recursive=True)):
        path = Path(name)
        is_input = is_product(path) or (path / INDEX).is_file()
        if path.resolve() in made or path.resolve() == out.resolve():
            continue
        if path.is_dir() and not is_input and "**" in pattern:
            continue  # what it holds matches, too
        if is_input or path.is_dir() or _is_named_as_input(path):
            found += find_inputs(name, out, recursive=recursive)
    if not found:
        raise InputError(f"{pattern}: matches no raster, product or folder.")
    return found


def _is_named_as_input(path: Path) -> bool:
    return path.suffix.lower() in (*_RASTERS, ".zip", ".json", ".geojson")


def _is_items(path: Path) -> bool:
    return path.suffix.lower() in (".json", ".geojson") and is_item_file(str(path))


def _items_of(name: str) -> list[str]:
    """Return the items of a STAC document that can be read, other names as they are."""
    if not is_stac_name(name) or "#" in name:
        return [name]
    try:
        return item_names(name)
    except InputError as error:
        logger.warning("%s", error)
        return [name]


def is_product(path: Path) -> bool:
    """Return whether a folder is a Sentinel-2 product."""
    if path.suffix.lower() == ".safe":
        return True
    return any(path.glob("MTD_MSIL*.xml"))


def _is_silent(path: Path) -> bool:
    """Return whether a file belongs to another one, or is hidden or ours."""
    name = path.name.lower()
    is_ours = path.name.startswith(JOURNAL) or name.endswith(".tmp")
    is_ours = is_ours or (name.startswith("batch.") and name.endswith(".lock"))
    return is_ours or name.startswith(".") or name.endswith(SIDECARS)


def _outputs_of(out: Path) -> frozenset[Path]:
    """Return the outputs of an earlier batch into a folder."""
    try:
        return frozenset(
            item.output.resolve() for item in read_batch(out) if item.figures
        )
    except InputError:
        return frozenset()


def _list(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    shown = ", ".join(name.rstrip(".") for name in names[:_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
