"""Read change masks from polygons: fire scars, floods, new buildings, with classes.

A pixel changed when its centre lies in a polygon. Where polygons of different classes
overlap, the later one in the file is used, and a warning says so. Files are read and
geometries repaired as for vector maps.
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
from rsupres.vector.files import read_features, source_sha256
from rsupres.vector.geometry import (
    Box,
    PixelPlane,
    clip,
    cut,
    enlarged,
    snap,
    split_kinds,
)
from rsupres.vector.wkb import Shapes, parse

logger = logging.getLogger(__name__)

MARGIN = 64  # SR pixels around the grid that are drawn too
SUFFIXES = (
    *(".gpkg", ".geojson", ".geojsonl", ".geojsons", ".json", ".shp", ".fgb"),
    *(".parquet", ".geoparquet", ".pq", ".kml", ".gml", ".osm", ".pbf", ".osm.bz2"),
)
WARN_OVERLAP = 0.5  # SR pixels of area that two classes share


@dataclass
class _Found:
    """Polygons with their values, and counts of all features that were read."""

    polygons: list[Shapes] = field(default_factory=list)
    values: list[NDArray[np.uint8]] = field(default_factory=list)
    extents: list[tuple[Box, pyproj.CRS]] = field(default_factory=list)
    n_repaired: int = 0
    n_dropped: int = 0
    n_other: int = 0
    n_unnamed: int = 0


class PolygonMask:
    """Polygons burned on an SR grid: a `on_grid.MaskPixels`.

    Attributes:
        grid: SR grid.
        path: the file.
        repaired: broken geometries that were repaired.
        dropped: geometries that could not be repaired.
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

    def fingerprint(self) -> dict[str, object]:
        """Return name and hash of the file; polygons have no date."""
        return {
            "file": os.path.basename(self.path),
            "date": None,
            "sha256": source_sha256(self.path),
        }


def is_vector(path: str) -> bool:
    """Return whether a file is a vector file, by its suffix."""
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
    # Parts far away may lie outside the area of the projection.
    shapes = clip(shapes, enlarged(features.boxes[0]))
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
    """Return each feature's mask value; refuse classes that no table has."""
    absent = np.array([text is None for text in texts])
    if absent.all():
        raise ConditionError(
            f"{attribute!r}: no feature of {path} has it; its attributes are "
            f"{_attributes(path)}.",
            argument="class_attribute",
        )
    found.n_unnamed += int(absent.sum())
    known: dict[object, int] = {None: CHANGED if table is None else table.unknown}
    for text in sorted(set(texts.tolist()) - {None}):
        value = _as_code(text) if table is None else table.find(str(text))
        if value is None:
            raise _unknown_class(f"{path}: {attribute} {text!r}", table)
        known[text] = value
    return np.array([known[text] for text in texts], np.uint8)


def _as_code(text: object) -> int | None:
    """Return a class that is a whole number from 0 to 254, None for others."""
    try:
        number = float(str(text))
    except ValueError:
        return None
    return int(number) if number.is_integer() and 0 <= number < NODATA else None


def _unknown_class(where: str, table: ClassTable | None) -> ConditionError:
    if table is None:
        return ConditionError(
            f"{where} is not a code of 0 to 254; name the table of the classes "
            f"({', '.join(shipped_class_tables())} or a file).",
            remedies=("class_table",),
        )
    names = ", ".join(f"{entry.code} {entry.name}" for entry in table.classes)
    return ConditionError(
        f"{where} is neither a code nor a name of class table {table.name} ({names})."
    )


def _attributes(path: str) -> str:
    try:
        names = [str(field) for field in pyogrio.read_info(path)["fields"]]
    except (DataSourceError, DataLayerError):
        names = []
    return ", ".join(names) or "none"


def _check_place(path: str, grid: Grid, frame: PixelPlane, found: _Found) -> None:
    """Refuse polygons that do not touch the grid; recognise swapped coordinates."""
    if found.polygons or not found.extents:
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
        logger.warning("%s: %d features are not polygons.", path, found.n_other)
    if found.n_unnamed:
        logger.warning(
            "%s: %d features have no %s; their class is unknown.",
            path,
            found.n_unnamed,
            attribute,
        )
    if not sum(len(part) for part in found.polygons):
        logger.warning(
            "%s: no polygon lies in the scene; the mask marks no change.", path
        )


def _warn_of_overlaps(path: str, polygons: Shapes, values: NDArray[np.uint8]) -> None:
    if len(np.unique(values)) < 2:
        return
    tree = shapely.STRtree(polygons)
    one, other = tree.query(polygons, predicate="intersects")
    differ = (one < other) & (values[one] != values[other])
    one, other = one[differ], other[differ]
    shared = shapely.area(shapely.intersection(polygons[one], polygons[other]))
    n_pairs = int((shared > WARN_OVERLAP).sum())
    if n_pairs:
        logger.warning(
            "%s: %d pairs of polygons of different classes overlap; the later one in "
            "the file is used.",
            path,
            n_pairs,
        )
