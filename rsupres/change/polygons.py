"""Change masks out of polygons: fire scars, floods, new buildings, each with a class.

Pixels whose centre lies in a polygon changed, all others did not. Where polygons of
different classes overlap, the later one in the file wins, and the log says so. Reading
and repairing are those of vector maps.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from rsupres.errors import ConditionError
from rsupres.grid import Grid, PixelWindow
from rsupres.legends.class_table import (
    CHANGED,
    NODATA,
    UNCHANGED,
    ClassTable,
    shipped_class_tables,
)
from rsupres.raster.files import footprint
from rsupres.vector.burn import Burner
from rsupres.vector.features import Features
from rsupres.vector.files import read_features
from rsupres.vector.geometry import (
    Box,
    PixelPlane,
    Shapes,
    clip,
    cut,
    parse,
    snap,
    split_kinds,
)
from rsupres.vector.map import hash_file

logger = logging.getLogger(__name__)

MARGIN = 64  # SR pixels around the grid that are drawn too
SUFFIXES = (
    *(".gpkg", ".geojson", ".geojsonl", ".geojsons", ".json", ".shp", ".fgb"),
    *(".parquet", ".geoparquet", ".pq", ".kml", ".gml", ".osm", ".pbf", ".osm.bz2"),
)
OVERLAP = 0.5  # SR pixels of area that two classes may share untold


@dataclass
class _Found:
    """What was read."""

    polygons: list[Shapes] = field(default_factory=list)
    values: list[NDArray[np.uint8]] = field(default_factory=list)
    extents: list[tuple[Box, pyproj.CRS]] = field(default_factory=list)
    n_repaired: int = 0
    n_dropped: int = 0
    n_other: int = 0
    n_unnamed: int = 0
    n_read: int = 0


class PolygonMask:
    """Polygons burned on an SR grid: a `change_rasters.MaskPixels`.

    Attributes:
        grid: SR grid.
        path: the file.
        n_polygons: features that touch the grid.
        repaired: broken geometries that were repaired.
        dropped: geometries that could not be.
    """

    def __init__(
        self,
        path: str,
        grid: Grid,
        table: ClassTable | None,
        attribute: str | None,
    ) -> None:
        self.path = path
        self.grid = grid
        frame = PixelPlane(grid, MARGIN)
        found = _Found()
        keys: Collection[str] = () if attribute is None else (attribute,)
        for features in read_features(path, keys, (), frame.boxes_in):
            _take(features, frame, table, attribute, path, found)
        _check_place(path, grid, frame, found)
        polygons = np.concatenate([np.empty(0, object), *found.polygons])
        values = np.concatenate([np.empty(0, np.uint8), *found.values])
        self.n_polygons = len(polygons)
        self.repaired, self.dropped = found.n_repaired, found.n_dropped
        _report(path, found, attribute)
        _warn_of_overlaps(path, polygons, values)
        pieces, index = cut(polygons)
        self._burner = Burner(snap(pieces), values[index].astype(np.uint16))

    def read(self, window: PixelWindow) -> NDArray[np.uint8]:
        """Return (1, h, w) for any window; 0 outside the polygons."""
        inks = self._burner.burn(window).astype(np.int16)
        values = np.where(inks == 0, UNCHANGED, inks - 1)
        return values.astype(np.uint8)[np.newaxis]

    def marks(self) -> dict[str, object]:
        """Return name and hash of the file."""
        return {
            "file": os.path.basename(self.path),
            "date": None,
            "sha256": hash_file(self.path),
        }


def is_vector(path: str) -> bool:
    """Return whether a file holds vectors, by its name."""
    plain = path.lower().removesuffix(".gz").removesuffix(".zip").removesuffix(".bz2")
    return plain.endswith(SUFFIXES) or path.lower().endswith(SUFFIXES)


def _take(
    features: Features,
    frame: PixelPlane,
    table: ClassTable | None,
    attribute: str | None,
    path: str,
    found: _Found,
) -> None:
    """Add the polygons of one layer, in its order."""
    found.n_read += len(features.wkb)
    if features.extent is not None:
        found.extents.append((features.extent, features.crs))
    if not len(features.wkb):
        return
    shapes, n_repaired, n_dropped = parse(features.wkb)
    found.n_repaired += n_repaired
    found.n_dropped += n_dropped
    usable = np.flatnonzero(~shapely.is_missing(shapes))
    shapes = shapes[usable]
    if not len(shapes):
        return
    if features.extent is None:
        west, south, east, north = (float(v) for v in shapely.total_bounds(shapes))
        found.extents.append(((west, south, east, north), features.crs))
    values = np.full(len(usable), CHANGED, np.uint8)
    if attribute is not None:
        texts = features.tags[attribute][usable]
        values = _values(texts, table, attribute, path, found)
    shapes = clip(frame.to_pixels(shapes, features.crs), frame.box)
    kept = np.flatnonzero(~shapely.is_missing(shapes))
    areas, of_area = split_kinds(shapes[kept])[:2]
    found.n_other += len(kept) - len(np.unique(of_area)) if len(kept) else 0
    parts, of_part = shapely.get_parts(areas, return_index=True)
    found.polygons.append(parts)
    found.values.append(values[kept][of_area][of_part])


def _values(
    texts: NDArray[np.object_],
    table: ClassTable | None,
    attribute: str,
    path: str,
    found: _Found,
) -> NDArray[np.uint8]:
    """Return the mask value of each feature's class.

    Raises:
        ConditionError: no feature has the attribute, or a class is in no table.
    """
    absent = np.array([text is None for text in texts])
    if absent.all():
        raise ConditionError(
            f"{path}: no feature has a {attribute!r}; its attributes are "
            f"{_attributes(path)}."
        )
    found.n_unnamed += int(absent.sum())
    known: dict[object, int] = {None: CHANGED if table is None else table.unknown}
    for text in sorted(set(texts.tolist()) - {None}):
        value = _plain(text) if table is None else table.find(str(text))
        if value is None:
            raise ConditionError(f"{path}: {attribute} {text!r} {_expected(table)}.")
        known[text] = value
    return np.array([known[text] for text in texts], np.uint8)


def _plain(text: object) -> int | None:
    """Return a class that is a number in 0 to 254."""
    try:
        number = float(str(text))
    except ValueError:
        return None
    return int(number) if number.is_integer() and 0 <= number < NODATA else None


def _expected(table: ClassTable | None) -> str:
    if table is None:
        return (
            "is no class of 0 to 254; name the table of the classes with --class-table "
            f"({', '.join(shipped_class_tables())} or a file)"
        )
    names = ", ".join(f"{entry.code} {entry.name}" for entry in table.classes)
    return f"is neither a code nor a name of class table {table.name} ({names})"


def _attributes(path: str) -> str:
    try:
        names = [str(field) for field in pyogrio.read_info(path)["fields"]]
    except (DataSourceError, DataLayerError):
        names = []
    return ", ".join(names) or "none"


def _check_place(path: str, grid: Grid, frame: PixelPlane, found: _Found) -> None:
    """Refuse polygons of another place.

    Raises:
        ConditionError: nothing was found near the grid; names both footprints, and
            tells swapped coordinates from another place.
    """
    if found.polygons or not found.extents:
        if not found.n_read and not found.extents:
            raise ConditionError(f"{path}: there are no polygons in it.")
        return
    box, crs = found.extents[0]
    named = " ".join(f"{value:.6g}" for value in box)
    swapped = shapely.box(box[1], box[0], box[3], box[2])
    wanted = shapely.box(*frame.boxes_in(crs)[0])
    if swapped.intersects(wanted) and not shapely.box(*box).intersects(wanted):
        raise ConditionError(
            f"{path}: its coordinates look swapped, latitude before longitude "
            f"({named}); swap them, for example with ogr2ogr -swapxy OUT IN."
        )
    if shapely.box(*box).intersects(wanted):
        return
    raise ConditionError(
        f"{path}: covers {named} in {crs.to_string()[:40]}, the scene "
        f"{footprint(grid)} (longitude, latitude); they do not touch."
    )


def _report(path: str, found: _Found, attribute: str | None) -> None:
    if found.n_repaired or found.n_dropped:
        logger.warning(
            "%s: %d broken geometries were repaired, %d could not be used.",
            path,
            found.n_repaired,
            found.n_dropped,
        )
    if found.n_other:
        logger.warning("%s: %d features are no polygons.", path, found.n_other)
    if found.n_unnamed:
        logger.warning(
            "%s: %d features have no %s; their class is not known.",
            path,
            found.n_unnamed,
            attribute,
        )
    if not sum(len(part) for part in found.polygons):
        logger.warning("%s: no polygon lies in the scene; nothing changed.", path)


def _warn_of_overlaps(path: str, polygons: Shapes, values: NDArray[np.uint8]) -> None:
    if len(np.unique(values)) < 2:
        return
    tree = shapely.STRtree(polygons)
    one, other = tree.query(polygons, predicate="intersects")
    differ = (one < other) & (values[one] != values[other])
    one, other = one[differ], other[differ]
    shared = shapely.area(shapely.intersection(polygons[one], polygons[other]))
    n_pairs = int((shared > OVERLAP).sum())
    if n_pairs:
        logger.warning(
            "%s: %d pairs of polygons of different classes overlap; the later one in "
            "the file wins.",
            path,
            n_pairs,
        )
