"""A real Sentinel-2 scene through `sgdm-mini`, with a map and without, side by side.

``python sample_data/show_sgdm_scene.py [--out FOLDER] [--model MODEL]`` upscales the
Olympic park of Rio de Janeiro, April 2016, eight times by `rsupres upscale` and puts
scene, bicubic, both results and the map into FOLDER/rio.png.

The scene is of Onera's OSCD, below the folder that `RSUPRES_DATA` names. No extract of
OpenStreetMap at hand covers it, so the map is drawn for the purpose, from the scene
itself: water is where red and near infrared are both dark, buildings and roads were
digitised by eye on the 10 m picture and are a few metres off. There is no truth to
measure against: the pictures show what a map does, not how right it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.features import shapes, sieve
from shapely.affinity import affine_transform
from shapely.geometry import LineString, Point, Polygon, box, mapping, shape
from shapely.geometry.base import BaseGeometry

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ["RSUPRES_DATA"])  # root of the images, see docs/data.md
SCENE = DATA / "sentinel2/oscd_rio_20160424_S2L1C_4band_utm32723.tif"
ROWS, COLS = (208, 358), (0, 180)  # of the scene, shown
SCALE = 8
MIN_WATER = 400  # pixels
GAP, TITLE_HEIGHT = 6, 18  # as compare.py has them


def moved(geometry: BaseGeometry, by: Affine) -> BaseGeometry:
    """Return a geometry after an affine map."""
    made: BaseGeometry = affine_transform(
        geometry, [by.a, by.b, by.d, by.e, by.c, by.f]
    )
    return made


# Columns and rows of the scene, by eye.
BUILDINGS: tuple[BaseGeometry, ...] = (
    box(41.1, 242.8, 56.3, 270.0),
    moved(Point(0, 0).buffer(1.0), Affine(5.5, 0, 110.2, 0, 7.3, 258.2)),
    Polygon([(129, 252.6), (134.3, 257), (134.3, 269), (123.6, 269), (123.6, 257)]),
    box(104.8, 268.2, 115.7, 305.9),
    box(105.7, 310.7, 115.7, 323.7),
    Polygon([(85.4, 313.7), (91.1, 321.8), (80.7, 331.2), (74.1, 322.3)]),
    box(31.8, 242.0, 38.4, 253.5),
    Polygon([(33, 261), (35.7, 263.5), (31.5, 268.7), (27.7, 266)]),
    box(57.7, 260.7, 62.1, 270.0),
    Point(88.8, 259.0).buffer(6.5),
    box(68.8, 292.8, 72.9, 300.0),
    box(63.9, 286.6, 69.3, 289.8),
)
ROADS: tuple[tuple[str, list[tuple[float, float]]], ...] = (
    ("trunk", [(0, 234.6), (21, 235.2), (50, 237), (100, 238.3), (180, 238.6)]),
    ("trunk", [(0, 234.8), (10.7, 225), (19.6, 212.5), (22, 208)]),
    ("secondary", [(38.4, 228.5), (47.3, 223), (58, 213), (62, 208)]),
    ("tertiary", [(150, 210), (163, 222), (176.8, 235.7)]),
    ("service", [(19.6, 278.5), (35.7, 297.3), (46.4, 309.8)]),
    ("service", [(170.5, 243.7), (155, 259), (137.5, 276.8)]),
)


def main() -> None:
    """Make the map, both pictures and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sgdm-mini")
    parser.add_argument("--out", type=Path, default=ROOT / "demo" / "rio")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    chart = given.out / "rio.geojson"
    bounds = write_map(chart)
    part = ["--bounds", *(f"{side:.1f}" for side in bounds)]
    rsupres("rasterize", chart, given.out / "map.tif", *like(), "--overwrite")
    runs = {
        "bicubic": ["--model", "bicubic"],
        "with": ["--model", given.model, "--vector-map", str(chart)],
        "without": ["--model", given.model],
    }
    for name, options in runs.items():
        out = given.out / f"{name}.tif"
        rsupres("upscale", SCENE, out, "--scale", SCALE, *options, *part, "--overwrite")
    shown = {
        "10 m": SCENE,
        "bicubic x8": given.out / "bicubic.tif",
        "without a map": given.out / "without.tif",
        "with the map": given.out / "with.tif",
    }
    picture = given.out / "rio.png"
    run(
        [sys.executable, ROOT / "sample_data" / "compare.py", picture]
        + [f"{label}={path}" for label, path in shown.items()]
        + part
    )
    add_map(picture, given.out / "map.tif")


def add_map(picture: Path, chart: Path) -> None:
    """Put the map, which has tones of its own, at the right of a comparison."""
    sheet = Image.open(picture)
    with rasterio.open(chart) as source:
        rows, cols = (slice(SCALE * a, SCALE * b) for a, b in (ROWS, COLS))
        drawn = Image.fromarray(source.read()[:, rows, cols].transpose(1, 2, 0))
    height = sheet.height - TITLE_HEIGHT
    drawn = drawn.resize((height * drawn.width // drawn.height, height))
    wide = Image.new("RGB", (sheet.width + GAP + drawn.width, sheet.height), "white")
    wide.paste(sheet, (0, 0))
    wide.paste(drawn, (sheet.width + GAP, TITLE_HEIGHT))
    wide.save(picture)


def write_map(path: Path) -> tuple[float, float, float, float]:
    """Write the map as GeoJSON; return west, south, east, north of what is shown."""
    with rasterio.open(SCENE) as scene:
        red, nir = scene.read([1, 4])
        place, crs = scene.transform, scene.crs
    wet = sieve(((red < 650) & (nir < 1150)).astype(np.uint8), MIN_WATER)
    waters = (
        shape(ring).simplify(0.7)
        for ring, value in shapes(wet, transform=Affine.identity())
        if value
    )
    features = [({"natural": "water"}, water) for water in waters]
    features += [({"highway": kind}, LineString(line)) for kind, line in ROADS]
    features += [({"building": "yes"}, building) for building in BUILDINGS]
    document = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": crs.to_string()}},
        "features": [
            {
                "type": "Feature",
                "properties": tags,
                "geometry": mapping(moved(geometry, place)),
            }
            for tags, geometry in features
        ],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    west, north = place @ (COLS[0], ROWS[0])
    east, south = place @ (COLS[1], ROWS[1])
    return west, south, east, north


def like() -> list[str]:
    """Return the options of a map on the SR grid."""
    return ["--like", str(SCENE), "--scale", str(SCALE), "--legend", "maptiler"]


def rsupres(*arguments: object) -> None:
    """Run a command of ours."""
    run([sys.executable, "-m", "rsupres", *arguments])


def run(command: list[Any]) -> None:
    """Run a command, or stop with its code."""
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()
