"""Measure what a map changes: a model with it, without it and with a foreign one.

``python tests/benchmarks/bench_sgdm_maps.py [MODEL] [--scale N] [--out FOLDER]`` prints
a table in Markdown: bicubic, the model with the map, without, and with the map of
another place (the next of its kind, or the own one turned by 180 degrees where there
is none). LR is made by the degradation `sentinel2` as in training. The invented towns
are those of ``models/recipes/README.md`` that no model was trained on, their middle 512
pixels. The real places are those of ``$RSUPRES_DATA`` where imagery and a map lie on
each other: Kampala, Banepa (column c06) and Swellendam with OpenStreetMap, Atlanta and
Las Vegas with SpaceNet's buildings and roads (panchromatic, shown as grey). They are
averaged to the GSD named, which FOLDER keeps, with the pictures.

========  =============================================================================
figure    meaning
========  =============================================================================
PSNR      dB
LPIPS     squeeze
F1        of all edges
F1-map    of the edges at most two pixels from a border of the map
contrast  across borders of roads and buildings, over the truth's: mean size of inside
          minus outside in brightness, each a mean over 5 x 5 pixels
peak      largest power at the periods 2, 4 and 8 pixels over that of its neighbours
========  =============================================================================
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import torch
from affine import Affine
from data_root import data_folder
from numpy.typing import NDArray
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform
from scipy.ndimage import uniform_filter

from rsupres.checkpoints.catalogue import load_model
from rsupres.degradations.registry import make_degradation
from rsupres.evaluation.measures.edges import find_edges, map_borders
from rsupres.evaluation.perceptual.lpips import LpipsSqueeze
from rsupres.families.base import Conditions, SamplerOptions
from rsupres.grid import Grid
from rsupres.legends.legend_file import load_legend
from rsupres.upscaling.array import upscale_whole
from rsupres.vector.map import VectorMap

Picture = NDArray[np.float32]
ROOT = Path(__file__).parents[2]
TOWNS = ROOT / "models" / "recipes" / "packs" / "towns_val"
SIDE = 512  # SR pixels, the largest picture measured
CPU = torch.device("cpu")
PERIODS = (2, 4, 8)
MAPPED = ("road", "building")


class Place(NamedTuple):
    """Imagery, a map of the same ground, and the GSD at which both are taken.

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
_BANEPA = "osm/banepa_nepal/osm_features_banepa.geojson"
PLACES = (
    Place("kampala", *_KAMPALA, 0.6),
    Place("kampala", *_KAMPALA, 1.25),
    *(
        Place(f"banepa-{row}", f"aerial/oam/banepa_{row}_c06.tif", _BANEPA, 32645, 0.6)
        for row in ("r04", "r05", "r06")
    ),
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


class Scene(NamedTuple):
    """The truth of a place (3, H, W) in [0, 1], and its map (3, H, W) in 8 bits."""

    name: str
    hr: Picture
    chart: NDArray[np.uint8]


def main() -> None:
    """Measure on the towns and the places that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="sgdm-mini")
    parser.add_argument("--scale", type=int, default=8)
    parser.add_argument("--out", type=Path, default=ROOT / "demo" / "maps")
    parser.add_argument("--towns", type=Path, default=TOWNS)
    parser.add_argument("--every", type=int, default=1, help="of the towns")
    parser.add_argument("--only", help="begins the names of the places wanted")
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model = load_model(given.model, CPU, SamplerOptions(steps=given.steps))
    lpips = LpipsSqueeze.load(data_folder() / "metrics")
    names = ("PSNR", "LPIPS", "F1", "F1-map", "contrast", "peak")
    print(f"| place | input | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for kind, scenes in groups(given).items():
        rows: dict[str, list[list[float]]] = {}
        for k, scene in enumerate(scenes):
            other = scenes[(k + 1) % len(scenes)].chart
            made = upscaled(model, scene, other, given.scale)
            save(given.out / f"{scene.name}_x{given.scale}.png", scene, made)
            for name, sr in made.items():
                rows.setdefault(name, []).append(measure(sr, scene, lpips))
        for name, figures in rows.items():
            mean = np.nanmean(np.array(figures), 0)
            cells = " | ".join(f"{figure:.3f}" for figure in mean)
            print(f"| {kind} ({len(scenes)}) | {name} | {cells} |", flush=True)


def groups(given: argparse.Namespace) -> dict[str, list[Scene]]:
    """Return the scenes wanted, by kind; rows of the table are means over a kind."""
    found: dict[str, list[Scene]] = {}
    if given.towns.is_dir() and "towns".startswith(given.only or ""):
        for path in sorted((given.towns / "hr").glob("*.tif"))[:: given.every]:
            hr, chart = (read(given.towns / kind / path.name) for kind in ("hr", "map"))
            found.setdefault("towns", []).append(middle(path.stem, hr, chart))
    for place in PLACES:
        if place.name.startswith(given.only or ""):
            path = given.out / f"{place.name}_{place.gsd_m:g}m.tif"
            if not path.is_file():
                write_hr(place, path)
            scene = middle(path.stem, read(path), draw(place, path))
            kind = f"{place.name.split('-')[0]} {place.gsd_m:g} m"
            found.setdefault(kind, []).append(scene)
    return found


def middle(name: str, hr: NDArray[np.uint8], chart: NDArray[np.uint8]) -> Scene:
    """Return the middle of a picture, sides of a multiple of 32 up to `SIDE`."""
    height, width = (min(side // 32 * 32, SIDE) for side in hr.shape[1:])
    top, left = (hr.shape[1] - height) // 2, (hr.shape[2] - width) // 2
    part = np.s_[:, top : top + height, left : left + width]
    return Scene(name, hr[part].astype(np.float32) / 255, chart[part])


def read(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of a raster."""
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


def draw(place: Place, hr: Path) -> NDArray[np.uint8]:
    """Return the map of a place on the pixels of its HR file."""
    with rasterio.open(hr) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)
    source = str(data_folder() / place.chart)
    with VectorMap.open([source], grid, load_legend("maptiler")) as chart:
        return np.asarray(chart.burn(grid.window))


def upscaled(
    model: object, scene: Scene, other: NDArray[np.uint8], scale: int
) -> dict[str, Picture]:
    """Return bicubic, the model's pictures by the name of their input, and truth."""
    truth = torch.from_numpy(scene.hr)[None]
    size = (truth.shape[2] // scale, truth.shape[3] // scale)
    generator = torch.Generator().manual_seed(0)
    lr = make_degradation("sentinel2", {}).degrade(truth, size, generator)
    if np.array_equal(other, scene.chart):
        other = scene.chart[:, ::-1, ::-1]
    foreign = np.resize(other, scene.chart.shape)
    foreign[:, : other.shape[1], : other.shape[2]] = other[
        :, : foreign.shape[1], : foreign.shape[2]
    ]
    charts = {"with map": scene.chart, "without": None, "foreign map": foreign}
    bicubic = torch.nn.functional.interpolate(
        lr, truth.shape[2:], mode="bicubic", align_corners=False
    )
    made = {"bicubic": bicubic[0].clamp(0, 1).numpy()}
    for name, chart in charts.items():
        given = Conditions()
        if chart is not None:
            unit = torch.from_numpy(chart.astype(np.float32) / 255)[None]
            given = Conditions(vector_map=unit)
        sr = upscale_whole(model, lr[0].numpy(), Fraction(scale), CPU, 0, given)  # type: ignore[arg-type]  # a SuperResolver
        made[name] = sr.clip(0, 1)
    return made | {"truth": scene.hr}


def measure(sr: Picture, scene: Scene, lpips: LpipsSqueeze) -> list[float]:
    """Return the figures of a picture, in the order of the table."""
    pair = [2 * torch.from_numpy(x)[None] - 1 for x in (sr, scene.hr)]
    with torch.no_grad():
        distance = float(lpips(*pair).mean())
    error = max(float(np.mean((sr - scene.hr) ** 2)), 1e-10)
    near = map_borders(scene.chart)
    edges = find_edges(sr, scene.hr)
    return [
        -10 * float(np.log10(error)),
        distance,
        edges.f1(),
        edges.f1(near) if near.any() else np.nan,
        contrast(sr, scene),
        peak(sr),
    ]


def contrast(sr: Picture, scene: Scene) -> float:
    """Return the contrast across mapped borders over the truth's; NaN without any."""
    legend = load_legend("maptiler")
    ours, true = 0.0, 0.0
    for kind in legend.classes:
        if not kind.key.startswith(MAPPED):
            continue
        inside = (scene.chart == np.array(kind.colour)[:, None, None]).all(0)
        share = uniform_filter(inside.astype(np.float32), 5)
        border = (share > 0.2) & (share < 0.8)
        if not border.any():
            continue
        steps = [step_across(x, inside, share)[border] for x in (sr, scene.hr)]
        ours += float(np.abs(steps[0]).sum())
        true += float(np.abs(steps[1]).sum())
    return ours / true if true else np.nan


def step_across(
    x: Picture, inside: NDArray[np.bool_], share: NDArray[np.float32]
) -> Picture:
    """Return mean brightness inside minus outside in windows of 5 x 5, (H, W)."""
    grey = x.mean(0)
    within = uniform_filter(grey * inside, 5) / np.maximum(share, 0.04)
    beyond = uniform_filter(grey * ~inside, 5) / np.maximum(1 - share, 0.04)
    return np.asarray(within - beyond)


def peak(sr: Picture) -> float:
    """Return the largest power at a lattice's frequencies over its neighbours'."""
    grey = sr.mean(0)
    height, width = grey.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    found = [1.0]
    for period in PERIODS:
        row, column = height // period, width // period
        for r, c in ((row, 0), (0, column), (row, column)):
            rows, columns = (np.arange(k - 6, k + 7) for k in (r, c))
            around = power[np.ix_(rows % height, columns % width)]
            core = around[5:8, 5:8].sum() / 9
            ring = (around.sum() - around[4:9, 4:9].sum()) / (169 - 25)
            found.append(float(core / ring))
    return max(found)


def save(path: Path, scene: Scene, made: dict[str, Picture]) -> None:
    """Write the map, the pictures and the truth side by side."""
    rows = [scene.chart.astype(np.float32) / 255, *made.values()]
    strip = np.concatenate(rows, 2).transpose(1, 2, 0)
    Image.fromarray((strip * 255).round().astype(np.uint8)).save(path)


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
