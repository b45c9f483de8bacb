"""Write invented towns with true maps: training data for map-guided models.

`make_towns.py OUT FIRST COUNT` writes, for every seed from FIRST on, an 8-bit aerial
photograph ``OUT/hr/town_<seed>.tif`` and the map of the same pixels in the colours of
the legend `maptiler`, ``OUT/map/town_<seed>.tif``. `rsupres dataset build` packs both
with ``--hr OUT/hr --vector-map-from hr=map``. All is computed: no licence but this
project's applies.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from make_sample_data import CRS_UTM, UPPER_LEFT
from numpy.typing import NDArray
from town_canvas import Season
from town_layout import lay_out_town, park_cars
from town_map import osm_document
from town_render import Sun, render
from town_sensor import display_tones
from town_shapes import Town

from rsupres.grid import Grid
from rsupres.legends.legend_file import load_legend
from rsupres.vector.map import VectorMap


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the towns that the command line names; those that are there stay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--size", type=float, default=1280.0, help="metres of a side")
    parser.add_argument("--gsd", type=float, default=1.25, help="metres per pixel")
    given = parser.parse_args(arguments)
    for seed in range(given.first, given.first + given.count):
        write_town(given.out, seed, given.size, given.gsd)


def write_town(out: Path, seed: int, size_m: float, gsd_m: float) -> None:
    """Write photograph and map of one town."""
    paths = [out / kind / f"town_{seed:04d}.tif" for kind in ("hr", "map")]
    if all(path.is_file() for path in paths):
        return
    side = round(size_m / gsd_m)
    left, top = UPPER_LEFT
    grid = Grid(CRS_UTM, Affine(gsd_m, 0, left, 0, -gsd_m, top), side, side)
    town = lay_out_town(seed, size_m).now()
    write(paths[1], draw(town, grid, size_m), grid)
    write(paths[0], photograph(town, seed, gsd_m), grid)
    print(paths[0])


def photograph(town: Town, seed: int, gsd_m: float) -> NDArray[np.uint8]:
    """Return (3, H, W): sun, season, exposure and haze are those of the seed."""
    rng = np.random.default_rng([seed, 1])
    sun = Sun(azimuth_deg=rng.uniform(110, 250), elevation_deg=rng.uniform(35, 65))
    season: Season = "summer" if rng.random() < 0.6 else "spring"
    seen = render(town, gsd_m, sun, season, park_cars(town, int(rng.integers(1, 9))))
    return display_tones(seen[:3], rng.uniform(0.30, 0.42), rng.uniform(0.0, 0.06))


def draw(town: Town, grid: Grid, size_m: float) -> NDArray[np.uint8]:
    """Return the map (3, H, W) in the legend's colours."""
    left, top = UPPER_LEFT
    document = osm_document(
        town, CRS_UTM, (left, top - size_m), (0.0, 0.0, size_m, size_m)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "town.osm"
        path.write_text(document, encoding="utf-8")
        with VectorMap.open([str(path)], grid, load_legend("maptiler")) as chart:
            return chart.burn(grid.window)


def write(path: Path, pixels: NDArray[np.uint8], grid: Grid) -> None:
    """Write a GeoTIFF under its name only when whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    with rasterio.open(
        partial,
        "w",
        driver="GTiff",
        count=3,
        height=grid.height,
        width=grid.width,
        dtype="uint8",
        crs=grid.crs,
        transform=grid.transform,
        compress="deflate",
    ) as out:
        out.write(pixels)
    partial.replace(path)


if __name__ == "__main__":
    main()
