"""Read GeoParquet in batches, only inside the bounds that are needed; needs pyarrow."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely

from rsupres.errors import InputError
from rsupres.vector.osm.tags import TagReader

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

    from rsupres.vector.features import BoxesIn, Features
    from rsupres.vector.geometry import Box

BATCH_ROWS = 65_536

logger = logging.getLogger(__name__)


def _open(name: str, path: str) -> ParquetFile:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{path}: reading GeoParquet needs pyarrow; install it with "
            "pip install rsupres[parquet], or convert the file to GeoPackage."
        ) from error
    try:
        return parquet.ParquetFile(name)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file ({error}).") from error


def read_parquet(
    name: str,
    path: str,
    keys: Collection[str],
    boxes_in: BoxesIn,
) -> Features:
    """Return the features of a GeoParquet file that touch the bounds.

    Args:
        name: that opens the file.
        path: as the user named it.
        keys: the tags to read.
        boxes_in: returns the bounds to read, in the file's CRS.

    Raises:
        InputError: pyarrow is missing, or the file is not GeoParquet with WKB
            geometries, or has no CRS.
    """
    from rsupres.vector.features import Features

    source = _open(name, path)
    import pyarrow

    with source:
        column, geometry = _geometry_column(source.schema_arrow.metadata or {}, path)
        crs = _crs(geometry, path)
        boxes = list(boxes_in(crs))
        fields = list(source.schema_arrow.names)
        reader = TagReader(keys, fields, path, path)
        wanted = [*reader.columns, column]
        try:
            parts, extent = _read_batches(source, wanted, boxes)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(
                f"{path}: cannot be read, it may be truncated or damaged ({error})."
            ) from error
    columns = [np.concatenate(c) for c in zip(*parts, strict=True)]
    wkb = columns.pop() if columns else np.empty(0, object)
    columns = columns or [wkb] * len(wanted[:-1])
    tags = reader.tags(wanted[:-1], columns, len(wkb))
    is_way = reader.closed_ways(wanted[:-1], columns, len(wkb))
    west, south, east, north = (float(value) for value in extent)
    whole = (west, south, east, north) if np.isfinite(extent).all() else None
    return Features(path, crs, wkb, tags, whole, boxes, is_way)


def _read_batches(
    source: Any, wanted: Sequence[str], boxes: Sequence[Box]
) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """Return the columns of each batch inside the boxes, and the bounds of all rows."""
    parts: list[list[np.ndarray]] = []
    extent = np.array([np.inf, np.inf, -np.inf, -np.inf])
    for batch in source.iter_batches(BATCH_ROWS, columns=wanted):
        part, bounds = _take(batch, wanted, boxes)
        parts.append(part)
        low, high = np.fmin(extent[:2], bounds[:2]), np.fmax(extent[2:], bounds[2:])
        extent = np.array([*low, *high])  # NaN counts for nothing
    return parts, extent


def _geometry_column(
    metadata: Mapping[bytes, bytes], path: str
) -> tuple[str, Mapping[str, Any]]:
    try:
        geo = json.loads(metadata[b"geo"])
        name = str(geo["primary_column"])
        column: Mapping[str, Any] = geo["columns"][name]
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: a Parquet file without geometries; write it as GeoParquet, for "
            "example with geopandas."
        ) from error
    if column.get("encoding") != "WKB":
        raise InputError(
            f"{path}: geometry encoding {column.get('encoding')!r} is not read; write "
            "it as WKB."
        )
    return name, column


def _crs(geometry: Mapping[str, Any], path: str) -> pyproj.CRS:
    crs = geometry.get("crs", "OGC:CRS84")
    if crs is None:
        raise InputError(
            f"{path}: the file has no CRS; assign one, for example with geopandas' "
            "set_crs."
        )
    return pyproj.CRS.from_user_input(crs)


def _take(
    batch: Any, wanted: Sequence[str], boxes: Sequence[Box]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the columns of a batch's rows that touch the boxes, and all bounds."""
    wkb = np.empty(batch.num_rows, object)
    wkb[:] = batch.column(wanted[-1]).to_pylist()
    shapes = shapely.from_wkb(wkb, on_invalid="ignore")
    bounds = shapely.bounds(shapes)
    x0, y0, x1, y1 = bounds.T
    touches = shapely.is_missing(shapes) & (wkb != None)  # noqa: E711
    with np.errstate(invalid="ignore"):
        for west, south, east, north in boxes:
            touches |= (x1 >= west) & (x0 <= east) & (y1 >= south) & (y0 <= north)
    chosen = batch.filter(touches.tolist())
    columns = []
    for name in wanted[:-1]:
        values = np.empty(chosen.num_rows, object)
        values[:] = chosen.column(name).to_pylist()
        columns.append(values)
    finite = bounds[np.isfinite(bounds).all(axis=1)]
    whole = np.full(4, np.nan)
    if len(finite):
        whole = np.array([*finite[:, :2].min(axis=0), *finite[:, 2:].max(axis=0)])
    return [*columns, wkb[touches]], whole
