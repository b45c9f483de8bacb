"""Find image files in folders, date and hash them, and say where they lie.

Nothing heavy is imported before it is used, so that modules which only need a hash can
import this one. Pixels are read by `rsupres.raster.dataset`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rsupres.errors import InputError

if TYPE_CHECKING:
    from rsupres.grid import Grid
    from rsupres.raster.dataset import Raster

StrPath = str | os.PathLike[str]

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt")

_DATE_TAGS = (
    "ACQUISITION_DATE",
    "ACQUISITION_DATETIME",
    "ACQUISITIONDATETIME",
    "ACQUISITIONDATE",
    "DATE_ACQUIRED",
    "PRODUCT_START_TIME",
    "SENSING_TIME",
)
_FILE_TAG = "TIFFTAG_DATETIME"  # usually when the file was written
DATETIME_SOURCE = "DateTime tag"
_YEAR = r"(?:19|20)\d\d"
# Year, month and day with one separator or none: 198012_2022 is no date.
_DATE = re.compile(rf"(?<!\d)({_YEAR})([-_:. ]?)(0[1-9]|1[0-2])\2([0-2]\d|3[01])")
# Year and day of the year, as HLS (2020123T184921) and MODIS (A2020123) have them.
_DAY_OF_YEAR = re.compile(
    rf"(?<!\d)({_YEAR})([0-3]\d\d)(?=T\d{{6}})|(?<=[._]A)({_YEAR})([0-3]\d\d)(?!\d)"
)
_YEAR_ONLY = re.compile(rf"(?<!\d)({_YEAR})(?!\d)")


def as_names(paths: StrPath | Sequence[StrPath]) -> tuple[str, ...]:
    """Return one path or several as names.

    >>> as_names(Path("a.tif")), as_names(["a.tif", "b.tif"])
    (('a.tif',), ('a.tif', 'b.tif'))
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    return tuple(os.fspath(path) for path in several)


def as_name(path: StrPath | None) -> str | None:
    """Return a path as a name; None stays None."""
    return None if path is None else os.fspath(path)


def find_images(
    inputs: Sequence[Path], glob: str = "*", exclude: Sequence[str] = ()
) -> list[Path]:
    """Return image files, sorted by path, each once.

    Args:
        inputs: files, which are taken as given, and folders, searched with `glob`.
        glob: pattern inside folders; "**/" searches subfolders too. Only files with a
            suffix of `SUFFIXES` count.
        exclude: patterns of file names to leave out, also of files given by name.

    Raises:
        InputError: an input does not exist, or nothing is left.
    """
    found: set[Path] = set()
    for path in inputs:
        if path.is_dir():
            found |= {p for p in path.glob(glob) if p.suffix.lower() in SUFFIXES}
        elif path.is_file():
            found.add(path)
        else:
            raise InputError(f"{path}: no such file or folder.")
    kept = [p for p in found if not any(fnmatch.fnmatch(p.name, e) for e in exclude)]
    if not kept:
        places = ", ".join(str(path) for path in inputs)
        raise InputError(f"{places}: no image matches {glob!r} after exclusions.")
    return sorted(kept)


def date_of(scene: Raster) -> tuple[datetime, str]:
    """Return the date of a picture (UTC) and the source of that date, as text.

    A tag of the acquisition counts first, then a date or a year in the name. The
    DateTime tag of TIFF usually tells when the file was written, so it counts only for
    a name without a date; then the time of the file.
    """
    for tag in _DATE_TAGS:
        date = _parse(scene.tags.get(tag, ""))
        if date is not None:
            return date, f"tag {tag}"
    name = os.path.basename(scene.path.rstrip("/"))
    date = date_in(name)
    if date is None and (year := _YEAR_ONLY.search(name)):
        date = datetime(int(year.group(1)), 1, 1, tzinfo=UTC)
    if date is not None:
        return date, "name"
    date = _parse(scene.tags.get(_FILE_TAG, ""))
    if date is not None:
        return date, DATETIME_SOURCE
    if os.path.exists(scene.path):
        return datetime.fromtimestamp(os.path.getmtime(scene.path), UTC), "file time"
    return datetime.fromtimestamp(0, UTC), "file time"


def date_in(name: str) -> datetime | None:
    """Return the first date in a name, None without one.

    >>> date_in("HLS.S30.T32TQM.2020123T101559.v2.0.B04.tif").date().isoformat()
    '2020-05-02'
    >>> date_in("LC08_L1TP_198011_20200314_B4.TIF").date().isoformat()
    '2020-03-14'
    """
    if (date := _parse(name)) is not None or not (found := _DAY_OF_YEAR.search(name)):
        return date
    year, day = (int(part) for part in found.groups() if part)
    try:
        date = datetime.strptime(f"{year} {day}", "%Y %j").replace(tzinfo=UTC)
    except ValueError:
        return None
    return date


def footprint(grid: Grid) -> str:
    """Return west, south, east and north of a frame as text, in degrees.

    Without a CRS that leads to degrees they are in the frame's own units.
    """
    from rasterio.errors import RasterioError
    from rasterio.warp import transform_bounds

    bounds = grid.bounds
    try:
        bounds = transform_bounds(grid.crs, "EPSG:4326", *bounds)
    except RasterioError:
        return f"{' '.join(f'{value:.10g}' for value in bounds)} ({grid.crs})"
    return " ".join(f"{value:.4f}" for value in bounds)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as hexadecimal text.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_file(name: str | None) -> str | None:
    """Return the hash of a local file; other names, as of URLs, and None unchanged."""
    if name is None or not Path(name).is_file():
        return name
    return file_sha256(name)


def _parse(text: str) -> datetime | None:
    for found in _DATE.finditer(text):
        try:
            year, month, day = (int(found[group]) for group in (1, 3, 4))
            return datetime(year, month, day, tzinfo=UTC)
        except ValueError:
            continue
    return None
