"""Read the polygons of a vector file in the CRS of a scene."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from rsupres.errors import InputError
from rsupres.grid import Grid
from rsupres.raster.open import is_missing

if TYPE_CHECKING:
    import geopandas
    from shapely.geometry.base import BaseGeometry

logger = logging.getLogger(__name__)

DENSIFY = 101  # points on each side of bounds when they are reprojected


def read_polygons(path: str, grid: Grid) -> BaseGeometry:
    """Return the union of the polygons of a vector file, in the CRS of a grid.

    Args:
        path: anything that GDAL's vector drivers read; without a CRS it is taken to
            be in the grid's.
        grid: of a scene.

    Raises:
        InputError: no such file, not a vector file, or no polygons in it.
    """
    from shapely import union_all

    if is_missing(path):
        raise InputError(f"{path}: no such file.")
    layers = _read_layers(path)
    if not layers:
        raise InputError(f"{path}: there are no polygons in it.")
    if len(layers) > 1:
        logger.warning(
            "%s: the polygons of %d layers are taken together: %s.",
            path,
            len(layers),
            ", ".join(layers),
        )
    placed = [
        shapes if shapes.crs is None else _on_scene(shapes, grid)
        for shapes in layers.values()
    ]
    area: BaseGeometry = union_all(
        [
            shapes.make_valid(method="structure", keep_collapsed=False).union_all()
            for shapes in placed
        ]
    )
    if area.is_empty or not all(math.isfinite(value) for value in area.bounds):
        raise InputError(f"{path}: its polygons cannot be brought to the scene's CRS.")
    return area


def _read_layers(path: str) -> dict[str, geopandas.GeoSeries]:
    """Return the polygons of each layer of a vector file that has some."""
    import geopandas
    import pyogrio
    from pyogrio.errors import DataSourceError, FeatureError, FieldError

    found = {}
    try:
        for name, kind in pyogrio.list_layers(path):
            if kind is None or "Point" in kind or "Line" in kind:
                continue
            layer = geopandas.read_file(path, layer=name, columns=[], engine="pyogrio")
            shapes = layer.geometry
            shapes = shapes[shapes.notna() & shapes.geom_type.str.contains("Polygon")]
            if not shapes.empty:
                found[str(name)] = shapes
    except (DataSourceError, FeatureError, FieldError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: not a vector file that GDAL can read ({reason})."
        ) from error
    return found


def _on_scene(shapes: geopandas.GeoSeries, grid: Grid) -> geopandas.GeoSeries:
    """Return polygons in a scene's CRS, long edges with vertices every few pixels."""
    import geopandas
    from pyproj import Transformer

    from rsupres.raster.place.densify import densified

    forward = Transformer.from_crs(shapes.crs, grid.crs, always_xy=True)
    a, b, c, d, e, f = (~grid.transform)[:6]

    def to_pixels(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = forward.transform(xy[:, 0], xy[:, 1])
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    near = shapes
    with suppress(RasterioError):
        west, south, east, north = transform_bounds(
            grid.crs, shapes.crs, *grid.bounds, densify_pts=DENSIFY
        )
        if west < east and south < north:  # not across the antimeridian
            width, height = east - west, north - south
            clipped = shapes.make_valid().clip_by_rect(
                west - width, south - height, east + width, north + height
            )
            near = clipped[~clipped.is_empty]
    if near.empty:  # lies elsewhere; the message has the bounds of the whole
        near = shapes
    dense = densified(np.asarray(near.values, object), to_pixels)
    return geopandas.GeoSeries(dense, crs=shapes.crs).to_crs(grid.crs)
