"""A small town in vector files of any format, and its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import shapely
from affine import Affine
from rasterio.crs import CRS

from rsupres.grid import Grid
from rsupres.legends.legend_file import load_legend
from rsupres.vector.map import VectorMap

CLASSES = load_legend("classes")
# 2 m pixels; (x, y) below are metres right of and below the corner.
GRID = Grid(CRS.from_epsg(32632), Affine(2, 0, 563200, 0, -2, 5393120), 100, 120)
TO_DEGREES = pyproj.Transformer.from_crs(32632, 4326, always_xy=True)
Tags = dict[str, str]
Feature = tuple[Sequence[tuple[float, float]], Tags]
SQUARE = [(20, 20), (60, 20), (60, 50), (20, 50), (20, 20)]
ACROSS = [(-50, 100), (300, 100)]


def degrees(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [TO_DEGREES.transform(563200 + x, 5393120 - y) for x, y in points]


def write_osm(path: Path, features: Sequence[Feature], extra: str = "") -> Path:
    """Write ways as OSM XML."""
    nodes: list[str] = []
    ways: list[str] = []
    for number, (points, tags) in enumerate(features, start=1):
        refs: dict[tuple[float, float], int] = {}
        way = [f'<way id="{number}">']
        for point, (lon, lat) in zip(points, degrees(points), strict=True):
            if point not in refs:
                refs[point] = len(nodes) + 1
                nodes.append(
                    f'<node id="{len(nodes) + 1}" lat="{lat:.8f}" lon="{lon:.8f}"/>'
                )
            way.append(f'<nd ref="{refs[point]}"/>')
        way += [f'<tag k="{k}" v="{v}"/>' for k, v in tags.items()]
        ways.append("".join([*way, "</way>"]))
    path.write_text("\n".join(['<osm version="0.6">', *nodes, *ways, extra, "</osm>"]))
    return path


def frame_of(features: Sequence[Feature]) -> geopandas.GeoDataFrame:
    """Return the same features as a table, closed ones as areas."""
    shapes = [
        shapely.Polygon(degrees(points))
        if points[0] == points[-1]
        else shapely.LineString(degrees(points))
        for points, _ in features
    ]
    keys = sorted({key for _, tags in features for key in tags})
    columns = {key: [tags.get(key) for _, tags in features] for key in keys}
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs=4326)


def write_map(path: Path, features: Sequence[Feature]) -> Path:
    """Write features as FlatGeobuf, which opens much faster than OSM."""
    frame_of(features).to_file(path, driver="FlatGeobuf")
    return path


def codes(path: Path | str, grid: Grid = GRID, **options: object) -> np.ndarray:
    with VectorMap.open([str(path)], grid, CLASSES, **options) as opened:  # type: ignore[arg-type]
        return opened.burn(grid.window)[0]


TOWN: list[Feature] = [
    (SQUARE, {"building": "yes"}),
    (ACROSS, {"highway": "residential", "width": "12"}),
    ([(130, -40), (130, 260)], {"waterway": "river", "width": "16"}),
    ([(150, 10), (230, 10), (230, 90), (150, 90), (150, 10)], {"landuse": "forest"}),
]
