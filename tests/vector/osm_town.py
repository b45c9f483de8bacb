"""A street and a field near the sample town."""

from __future__ import annotations

from pathlib import Path

import geopandas
import shapely

X, Y = 563200, 5393120
LINE = shapely.LineString([(X, Y - 100), (X + 240, Y - 100.5)])  # has bounds
FIELD = [(10, 10), (190, 10), (190, 190), (10, 190), (10, 10)]
INNER = [(60, 60), (140, 60), (140, 140), (60, 140), (60, 60)]


def save(path: Path, shapes: list[shapely.Geometry], **columns: list[object]) -> Path:
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=32632).to_file(path)
    return path
