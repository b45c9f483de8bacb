"""Precision, recall and F1 of detected change on real pairs, beside difference + Otsu.

`python tests/benchmarks/bench_change.py` prints a table in Markdown for every pair of
`$RSUPRES_DATA/change`: five of OSCD (Sentinel-2, urban change, masks CC BY-NC-SA, for
measuring only) and one of NAIP (5 m, water change derived from NDWI). Default options.
`--towns 900,901` adds invented towns (sample_data) of 10 m, as Sentinel-2 would see
them five years apart, whose true change is each house to the pixel, and `--towns-only`
leaves the real pairs out, whose labels are to be looked at seldom; with `--bounds` the
best F1 is printed instead that a threshold on the true share of changed ground could
have: through the sensor's optics, averaged over 3 x 3 pixels, and that of the
difference of both dates without noise.
The baseline is the mean absolute difference of the bands, as they are, with the
threshold of Otsu 1979.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from data_root import data_folder
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "sample_data"))

from affine import Affine  # noqa: E402
from make_sample_data import BANDS, CRS_UTM, make_town  # type: ignore[import-not-found]  # noqa: E402
from town_sensor import GSD_M, sentinel2  # type: ignore[import-not-found]  # noqa: E402

from rsupres.change.mask import ChangeMask  # noqa: E402
from rsupres.change.options import ChangeOptions, DetectionOptions  # noqa: E402
from rsupres.change.statistics.built_up import otsu  # noqa: E402
from rsupres.raster.dataset import Raster  # noqa: E402

TOWN_SIZE_M, TOWN_GSD_M = 1200.0, 1.25
OPTICS = 0.435 * GSD_M / TOWN_GSD_M  # pixels, a Gaussian: MTF 0.25 with the detector


class Pair(NamedTuple):
    """Two dates and what changed, as patterns below the folder `change`."""

    name: str
    before: str
    after: str
    truth: str


class Score(NamedTuple):
    """How well a mask agrees with the truth."""

    precision: float
    recall: float
    f1: float


PAIRS = (
    *(
        Pair(
            name,
            f"oscd/{name}_t1_*.tif",
            f"oscd/{name}_t2_*.tif",
            f"oscd/{name}_changemask.tif",
        )
        for name in ("bercy", "hongkong", "nantes", "paris", "rennes")
    ),
    Pair(
        "naip_nd",
        "naip_nd/naip_nd_2012*.tif",
        "naip_nd/naip_nd_2015*.tif",
        "naip_nd/*waterchange*.tif",
    ),
)


def score(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Score:
    """Compare two masks (h, w)."""
    hits = float((mask & truth).sum())
    return Score(
        hits / max(1, mask.sum()),
        hits / max(1, truth.sum()),
        2 * hits / max(1, mask.sum() + truth.sum()),
    )


def find(pattern: str) -> Path:
    """Return the one file of a pattern, or the file of a whole path."""
    if Path(pattern).is_absolute():
        return Path(pattern)
    (path,) = sorted((data_folder() / "change").glob(pattern))
    return path


def draw_town(seed: int, folder: Path) -> Pair:
    """Write two dates of an invented town and its change, and return their names."""
    town = make_town(seed, TOWN_SIZE_M, TOWN_GSD_M)
    step = round(GSD_M / TOWN_GSD_M)
    rows, cols = (side // step for side in town.change.shape)
    shares = (town.change > 0).reshape(rows, step, cols, step).mean((1, 3))
    files = {
        "t1": sentinel2(town.earlier, TOWN_GSD_M, 2 * seed),
        "t2": sentinel2(town.now, TOWN_GSD_M, 2 * seed + 1),
        "mask": (shares > 0.5).astype(np.uint8)[np.newaxis],
    }
    place = {"crs": CRS_UTM, "transform": Affine(GSD_M, 0, 5e5, 0, -GSD_M, 5e6)}
    for name, pixels in files.items():
        sizes = dict(zip(("count", "height", "width"), pixels.shape, strict=True))
        path, kind = folder / f"{seed}_{name}.tif", pixels.dtype
        with rasterio.open(
            path, "w", driver="GTiff", dtype=kind, **sizes, **place
        ) as f:
            f.write(pixels)
            if len(pixels) == len(BANDS):
                f.descriptions = BANDS
    names = (str(folder / f"{seed}_{name}.tif") for name in files)
    return Pair(f"town {seed}", *names)


def show_bounds(seeds: Sequence[int]) -> None:
    """Print what a detector could have at most in towns."""
    print("| town | share seen | share over 3 x 3 | difference, no noise |")
    print("|---|---|---|---|")
    for seed in seeds:
        town = make_town(seed, TOWN_SIZE_M, TOWN_GSD_M)
        changed = (town.change > 0).astype(np.float64)
        shares = reduced(changed)
        dates = [
            np.stack([reduced(gaussian_filter(band, OPTICS)) for band in image])
            for image in (town.earlier, town.now)
        ]
        signs = (
            reduced(gaussian_filter(changed, OPTICS)),
            uniform_filter(shares, 3),
            np.square(dates[0] - dates[1]).mean(0),
        )
        cells = [f"{best_f1(sign, shares > 0.5):.3f}" for sign in signs]
        print(f"| {seed} | {' | '.join(cells)} |", flush=True)


def reduced(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means over the pixels of 10 m of an image (H, W)."""
    step = round(GSD_M / TOWN_GSD_M)
    rows, cols = (side // step for side in image.shape)
    return np.asarray(image.reshape(rows, step, cols, step).mean((1, 3)))


def best_f1(sign: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the F1 of the best threshold."""
    hits = np.cumsum(truth.ravel()[np.argsort(-sign.ravel(), kind="stable")])
    return float((2 * hits / (np.arange(1, hits.size + 1) + truth.sum())).max())


def measure(pair: Pair, method: str) -> dict[str, Score]:
    """Return the scores of our mask ("ours") and of the baseline ("otsu")."""
    before, after = find(pair.before), find(pair.after)
    images = []
    for path in (before, after):
        with rasterio.open(path) as file:
            images.append(file.read().astype(np.float64))
    with rasterio.open(find(pair.truth)) as file:
        truth = file.read(1) > 0
    difference = np.abs(images[0] - images[1]).mean(axis=0)
    with Raster.open(after) as scene:
        grid = scene.grid
    options = ChangeOptions(detection=DetectionOptions(method=method))  # type: ignore[arg-type]
    with ChangeMask.open([str(before), str(after)], grid, options) as mask:
        found = mask.read(grid.window)[0] == 1
    return {
        "ours": score(found, truth),
        "otsu": score(difference > otsu(difference), truth),
    }


def show(method: str, pairs: Sequence[Pair]) -> None:
    """Print the table of a method."""
    rows = [measure(pair, method) for pair in pairs]
    print(f"\n| {method} | precision | recall | F1 | Otsu: precision | recall | F1 |")
    print("|---|---|---|---|---|---|---|")
    names = [pair.name for pair in pairs]
    means = {
        who: Score(*np.mean([row[who] for row in rows], axis=0))
        for who in ("ours", "otsu")
    }
    for name, row in zip([*names, "mean"], [*rows, means], strict=True):
        cells = [f"{value:.3f}" for who in ("ours", "otsu") for value in row[who]]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default="irmad,cva,built,learned,auto")
    parser.add_argument("--towns", default="", help="Seeds, comma-separated.")
    parser.add_argument("--towns-only", action="store_true", help="No real pairs.")
    parser.add_argument("--bounds", action="store_true", help="Only of --towns.")
    given = parser.parse_args()
    if given.bounds:
        show_bounds([int(seed) for seed in given.towns.split(",")])
        return
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        seeds = [int(seed) for seed in given.towns.split(",") if seed]
        towns = [draw_town(seed, Path(folder)) for seed in seeds]
        for method in given.methods.split(","):
            if not given.towns_only:
                show(method, PAIRS)
            if towns:
                show(method, towns)


if __name__ == "__main__":
    main()
