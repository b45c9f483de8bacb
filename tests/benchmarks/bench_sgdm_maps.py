"""What a map is worth: a model with it and without, on towns and on real places.

``python tests/benchmarks/bench_sgdm_maps.py [MODEL] [--out FOLDER]`` prints a table in
Markdown: bicubic, the model with the map, and the model without, x8, LR by the
degradation `sentinel2` as in training, everything measured by `rsupres evaluate`. The
invented towns are those of ``models/recipes/README.md`` that no model was trained on.
The real places are those of ``$RSUPRES_DATA`` where imagery and a map lie on each
other: Kampala and Swellendam with OpenStreetMap, Atlanta and Las Vegas with SpaceNet's
buildings and roads (panchromatic, shown as grey). They are averaged to the GSD named,
which FOLDER keeps, with the pictures.

Edge-F1 asks all edges, F1-map those at most two pixels from a border of the map.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from affine import Affine
from data_root import data_folder
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform

ROOT = Path(__file__).parents[2]
TOWNS = ROOT / "models" / "recipes" / "packs" / "towns_val"
SCALE = 8
FIGURES = ("psnr", "ssim", "lpips_squeeze", "edge_f1", "edge_f1_map")


class Place(NamedTuple):
    """Imagery, a map of the same ground, and how both are taken.

    Attributes:
        name: for people and files.
        image: below `RSUPRES_DATA`.
        chart: vector files below `RSUPRES_DATA`.
        epsg: a UTM zone.
        gsd_m: metres per HR pixel wanted.
    """

    name: str
    image: str
    chart: str
    epsg: int
    gsd_m: float


_KAMPALA = (
    "osm/kampala_oam/kampala1_oam_rgb_7.5cm.tif",
    "osm/kampala_oam/kampala1_osm_buildings.geojson",
    32636,
)
_ATLANTA = (
    "aerial/spacenet/atlanta_pan_0.5m.tif",
    "aerial/spacenet/atlanta_buildings.geojson",
    32616,
)
_VEGAS = (
    "aerial/spacenet/vegas_pan_0.3m.tif",
    "aerial/spacenet/vegas_roads.geojson",
    32611,
)
_SWELLENDAM = "osm/swellendam_za/swellendam_osm.gpkg"
PLACES = (
    Place("kampala", *_KAMPALA, 0.6),
    Place("kampala", *_KAMPALA, 1.25),
    Place("atlanta", *_ATLANTA, 0.6),
    Place("atlanta", *_ATLANTA, 1.25),
    Place("vegas", *_VEGAS, 0.6),
    Place("vegas", *_VEGAS, 1.25),
    Place(
        "swellendam-n",
        "osm/swellendam_za/ngi_3320D_2010_315_rgb_2.8m.tif",
        _SWELLENDAM,
        32734,
        2.8,
    ),
    Place(
        "swellendam-s",
        "osm/swellendam_za/ngi_3420B_2010_328_rgb_2.8m.tif",
        _SWELLENDAM,
        32734,
        2.8,
    ),
)


def main() -> None:
    """Measure on the towns and the places that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="sgdm-mini")
    parser.add_argument("--out", type=Path, default=ROOT / "demo" / "maps")
    parser.add_argument("--towns", type=Path, default=TOWNS)
    parser.add_argument("--every", type=int, default=1, help="of the towns")
    parser.add_argument("--only", help="begins the names of the places wanted")
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    steps = [] if given.steps is None else ["--steps", str(given.steps)]
    given.out.mkdir(parents=True, exist_ok=True)
    print("| place | GSD | model | PSNR | SSIM | LPIPS(sq) | edge-F1 | F1-map |")
    print("|---|---|---|---|---|---|---|---|")
    if given.towns.is_dir() and (given.only or "towns") == "towns":
        rows = measure(
            given.towns / "hr",
            given.model,
            ["--vector-map-from", "hr=map", "--every", str(given.every), *steps],
            given.out,
        )
        show("towns", 1.25, rows)
    for place in PLACES:
        if place.name.startswith(given.only or ""):
            hr = given.out / f"{place.name}_{place.gsd_m:g}m.tif"
            if not hr.is_file():
                write_hr(place, hr)
            chart = ["--vector-map-from", str(data_folder() / place.chart)]
            show(
                place.name,
                place.gsd_m,
                measure(hr, given.model, [*chart, *steps], given.out),
            )


def measure(
    dataset: Path, model: str, options: list[str], out: Path
) -> list[dict[str, object]]:
    """Return the means of `rsupres evaluate` over a data set."""
    command = [sys.executable, "-m", "rsupres", "evaluate", str(dataset), "--json"]
    command += ["--model", "bicubic", "--model", model, "--scale", str(SCALE)]
    command += ["--degradation", "sentinel2", "--without", "vector-map"]
    command += ["--pictures", str(out / "pictures"), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def show(name: str, gsd_m: float, rows: list[dict[str, object]]) -> None:
    """Print the rows of a data set."""
    for row in rows:
        figures = (row.get(figure) for figure in FIGURES)
        cells = ("-" if f is None else f"{f:.3f}" for f in figures)
        shown = f"{name} ({row['images']}) | {gsd_m:g} | {row['model']}"
        print(f"| {shown} | {' | '.join(cells)} |", flush=True)


def write_hr(place: Place, path: Path) -> None:
    """Write the part of an image inside all its sides, averaged, as RGB in 8 bits."""
    crs = CRS.from_epsg(place.epsg)
    with rasterio.open(data_folder() / place.image) as source:
        left, bottom, right, top = inner_bounds(source, crs)
        width, height = (
            int(length / place.gsd_m) for length in (right - left, top - bottom)
        )
        place_of = Affine(place.gsd_m, 0, left, 0, -place.gsd_m, top)
        warped = np.zeros((source.count, height, width), np.float32)
        reproject(
            source.read().astype(np.float32),
            warped,
            src_transform=source.transform,
            src_crs=source.crs,
            dst_transform=place_of,
            dst_crs=crs,
            resampling=Resampling.average,
        )
        pixels = to_rgb(warped, source.dtypes[0] == "uint8")
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=3,
        dtype="uint8",
        crs=crs,
        transform=place_of,
        photometric="RGB",
    ) as out:
        out.write(pixels)


def inner_bounds(
    source: rasterio.io.DatasetReader, crs: CRS
) -> tuple[float, float, float, float]:
    """Return west, south, east and north of the rectangle inside a warped image."""
    along = np.linspace(0, 1, 21)
    zero, one = np.zeros_like(along), np.ones_like(along)

    def side(col: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = source.transform @ (col * source.width, row * source.height)
        return np.array(transform(source.crs, crs, x, y))

    west, east = side(zero, along)[0], side(one, along)[0]
    north, south = side(along, zero)[1], side(along, one)[1]
    return west.max(), south.max(), east.min(), north.min()


def to_rgb(pixels: NDArray[np.float32], is_byte: bool) -> NDArray[np.uint8]:
    """Return three bands in 8 bits; other numbers by percentiles 1 and 99."""
    if not is_byte:
        low, high = np.percentile(pixels, [1, 99])
        pixels = (pixels - low) / (high - low) * 255
    rounded = np.clip(pixels, 0, 255).round().astype(np.uint8)
    return rounded if len(rounded) >= 3 else np.repeat(rounded[:1], 3, 0)


if __name__ == "__main__":
    main()
