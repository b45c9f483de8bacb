"""`rsupres rasterize` beside `gdal_rasterize` of the same polygons: time and memory.

Run it with ``python tests/benchmarks/bench_rasterize.py [--features N] [--side N]``. It
makes a town of buildings, roads and land use, in the CRS of the scene. `gdal_rasterize`
gets what `rsupres` burns: one layer of polygons in drawing order with their codes,
roads already widened. Both write a tiled GeoTIFF, DEFLATE. Then the same town on
outputs of several sizes, for memory. Wall time and peak memory are those of the whole
processes; nothing is asserted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import rasterio
import shapely
from affine import Affine
from measuring import Measured, measure
from rasterio.crs import CRS

from rsupres.grid import Grid
from rsupres.legends.legend_file import load_legend
from rsupres.vector.map import VectorMap

UTM = CRS.from_epsg(32632)
LEFT, TOP = 500_000.0, 5_400_000.0
GSD_M = 1.0
SCALE = 4
HEADER = f"{'':<24} {'wall s':>9} {'CPU s':>9} {'peak MB':>9}"
TAGS = {
    "building": [("building", "house")],
    "road": [("highway", "residential"), ("highway", "primary"), ("highway", "path")],
    "area": [("landuse", "grass"), ("landuse", "forest"), ("landuse", "farmland")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=16_000, help="pixels of the output")
    parser.add_argument("--sizes", default="8000,16000", help="outputs for memory")
    parser.add_argument("--repeat", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        town = folder / "town.gpkg"
        apart(write_town, town, arguments.features, arguments.side * GSD_M)
        scene = write_scene(folder / "scene.tif", arguments.side, SCALE)
        compare(folder, town, scene, arguments)
        measure_memory(folder, town, arguments)


def compare(
    folder: Path, town: Path, scene: Path, arguments: argparse.Namespace
) -> None:
    side = arguments.side
    print(f"{arguments.features} features on {side} x {side}, legend classes, GTiff")
    layer = folder / "polygons.fgb"
    apart(write_layer, layer, town, scene)
    ours = [sys.executable, "-m", "rsupres", "rasterize", town, folder / "ours.tif"]
    ours += ["--like", scene, "--scale", SCALE, "--driver", "GTiff", "-q"]
    ours.append("--overwrite")
    print(HEADER)
    for turn in range(arguments.repeat):
        theirs = burn_with_gdal(folder / "theirs.tif", layer, side)
        show(f"gdal_rasterize ({turn + 1})", theirs)
        measured = measure(ours)
        show(f"rsupres rasterize ({turn + 1})", measured)
        print(f"  ratio of wall time {measured.wall_s / theirs.wall_s:.2f}")
    if arguments.repeat:
        apart(count_differences, folder / "ours.tif", folder / "theirs.tif")


def count_differences(ours: Path, theirs: Path) -> None:
    differ = 0
    with rasterio.open(ours) as one, rasterio.open(theirs) as other:
        for _, window in one.block_windows(1):
            differ += int((one.read(window=window) != other.read(window=window)).sum())
        print(f"pixels that differ: {differ} of {one.height * one.width}")


def measure_memory(folder: Path, town: Path, arguments: argparse.Namespace) -> None:
    sides = [int(text) for text in arguments.sizes.split(",") if text]
    print("\nrsupres rasterize, the same ground, COG, by size of the output")
    print(HEADER)
    for side in sides:
        scene = folder / f"like_{side}.tif"
        coarse = side // SCALE
        place = Affine.translation(LEFT, TOP) @ Affine.scale(
            arguments.side * GSD_M / coarse, -arguments.side * GSD_M / coarse
        )
        write_raster(scene, coarse, place)
        command = [sys.executable, "-m", "rsupres", "rasterize", town]
        command += [folder / "size.tif", "--like", scene, "--scale", SCALE, "-q"]
        show(f"{side} x {side}", measure([*command, "--overwrite"]))


def write_town(path: Path, n_features: int, size_m: float) -> None:
    """Write buildings (7 of 10), roads (2) and areas (1), scattered evenly."""
    rng = np.random.default_rng(7)
    n = {"building": n_features * 7 // 10, "road": n_features * 2 // 10}
    n["area"] = n_features - sum(n.values())
    tables = []
    for kind, count in n.items():
        x = LEFT + rng.uniform(0, size_m, count)
        y = TOP - rng.uniform(0, size_m, count)
        angle = rng.uniform(0, np.pi, count)
        shapes = SHAPES[kind](x, y, angle, rng)
        chosen = rng.integers(0, len(TAGS[kind]), count)
        table = geopandas.GeoDataFrame(geometry=shapes, crs=UTM.to_wkt())
        for number, (key, value) in enumerate(TAGS[kind]):
            table.loc[chosen == number, key] = value
        tables.append(table)
    whole = pd.concat(tables, ignore_index=True)
    whole.to_file(path, layer="town", driver="GPKG")


def houses(x, y, angle, rng):
    """Return L-shaped houses, six corners."""
    corners = np.array([(-7, -5), (7, -5), (7, 2), (1, 2), (1, 6), (-7, 6), (-7, -5)])
    return shapely.polygons(turned(corners, x, y, angle))


def streets(x, y, angle, rng):
    """Return streets of 120 m with three bends."""
    corners = np.array([(-60, 0), (-20, 4), (10, -3), (35, 2), (60, 0)])
    return shapely.linestrings(turned(corners, x, y, angle))


def fields(x, y, angle, rng):
    """Return areas of 60 m across, 24 corners."""
    turn = np.linspace(0, 2 * np.pi, 25)
    radius = 30 + 6 * np.sin(5 * turn)
    corners = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)
    corners[-1] = corners[0]
    return shapely.polygons(turned(corners, x, y, angle))


SHAPES = {"building": houses, "road": streets, "area": fields}


def turned(corners, x, y, angle):
    """Return (n, k, 2): corners turned and moved to n places."""
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    east = corners[:, 0] * cosine - corners[:, 1] * sine + x[:, None]
    north = corners[:, 0] * sine + corners[:, 1] * cosine + y[:, None]
    return np.stack([east, north], axis=-1)


def write_scene(path: Path, side: int, scale: int) -> Path:
    place = Affine.translation(LEFT, TOP) @ Affine.scale(GSD_M * scale, -GSD_M * scale)
    return write_raster(path, side // scale, place)


def write_raster(path: Path, side: int, transform: Affine) -> Path:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=side,
        height=side,
        count=1,
        dtype="uint8",
        crs=UTM,
        transform=transform,
        SPARSE_OK="TRUE",
    ):
        return path


def write_layer(path: Path, town: Path, scene: Path) -> None:
    """Write the polygons that rsupres burns, with their codes, in drawing order."""
    with rasterio.open(scene) as like:
        grid = Grid(like.crs, like.transform, like.height, like.width)
    grid = grid.refine(Fraction(SCALE))
    with VectorMap.open([str(town)], grid, load_legend("classes")) as opened:
        burner = opened._burner
        codes = opened._values[0][burner._inks + 1]
        a, b, c, d, e, f = grid.transform[:6]
        ground = shapely.transform(
            burner._polygons,
            lambda xy: xy @ np.array([[a, d], [b, e]]) + (c, f),
        )
    geopandas.GeoDataFrame({"code": codes}, geometry=ground, crs=UTM.to_wkt()).to_file(
        path, driver="FlatGeobuf", SPATIAL_INDEX="NO"
    )


def burn_with_gdal(out: Path, layer: Path, side: int) -> Measured:
    out.unlink(missing_ok=True)
    bounds = [LEFT, TOP - side * GSD_M, LEFT + side * GSD_M, TOP]
    command = ["gdal_rasterize", "-q", "-a", "code", "-ot", "Byte", "-init", 0]
    command += ["-te", *bounds, "-ts", side, side]
    for option in ("TILED=YES", "COMPRESS=DEFLATE", "ZLEVEL=1", "NUM_THREADS=ALL_CPUS"):
        command += ["-co", option]
    return measure([*command, layer, out])


def apart(work: Callable[..., None], *arguments: object) -> None:
    """Do work in a process of its own: a child's peak starts with its parent's."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} failed")


def show(name: str, found: Measured) -> None:
    cells = (found.wall_s, found.cpu_s, found.memory / 2**20)
    print(f"{name:<24}", *(f"{cell:>9.1f}" for cell in cells), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
