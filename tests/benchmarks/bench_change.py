"""Precision, recall and F1 of detected change on real pairs, beside difference + Otsu.

`python tests/benchmarks/bench_change.py` prints a table in Markdown for every pair of
`$RSUPRES_DATA/change`: five of OSCD (Sentinel-2, urban change, masks CC BY-NC-SA, for
measuring only) and one of NAIP (5 m, water change derived from NDWI). Default options.
The baseline is the mean absolute difference of the bands, as they are, with the
threshold of Otsu 1979.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from data_root import data_folder
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from rsupres.change.mask import ChangeMask  # noqa: E402
from rsupres.change.options import ChangeOptions, DetectionOptions  # noqa: E402
from rsupres.raster.dataset import Raster  # noqa: E402


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


def otsu(values: NDArray[np.float64]) -> float:
    """Return the threshold that parts values best into two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
    return float(edges[1:-1][np.nanargmax(below * above * gap**2)])


def find(pattern: str) -> Path:
    """Return the one file of a pattern."""
    (path,) = sorted((data_folder() / "change").glob(pattern))
    return path


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


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default="irmad,cva", help="Comma-separated.")
    for method in parser.parse_args().methods.split(","):
        rows = [measure(pair, method) for pair in PAIRS]
        print(
            f"\n| {method} | precision | recall | F1 | Otsu: precision | recall | F1 |"
        )
        print("|---|---|---|---|---|---|---|")
        names = [pair.name for pair in PAIRS]
        means = {
            who: Score(*np.mean([row[who] for row in rows], axis=0))
            for who in ("ours", "otsu")
        }
        for name, row in zip([*names, "mean"], [*rows, means], strict=True):
            cells = [f"{value:.3f}" for who in ("ours", "otsu") for value in row[who]]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
