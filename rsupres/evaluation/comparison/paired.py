"""Compare models on the same images: mean differences, intervals, wins.

Images differ more than models do, so means over images say little about which model is
better; the difference on each image does. The interval of its mean is a bootstrap over
images; the parts of one image are drawn together, because they are alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsupres.evaluation.report import Row

N_DRAWS = 10_000
LEVEL = 0.95
SEED = 0  # of the draws, so that a table repeats
HIGHER_IS_BETTER = frozenset(
    (
        *("psnr", "ssim", "psnr_y", "ssim_y", "edge_f1", "edge_f1_map"),
        *("ms_ssim", "uiqi", "improvement", "clip_iqa", "musiq"),
    )
)
SIGNED = frozenset(
    ("shift_row", "shift_col", "seam", "synthesis")
)  # neither high nor low is better


@dataclass(frozen=True)
class Difference:
    """A model less the one that it is compared with, over the images of both.

    Attributes:
        model: name.
        other: the one it is compared with.
        scale: of the test.
        figure: name.
        mean: of the differences.
        low: end of the interval of the mean.
        high: the other end.
        wins: images on which the model is better.
        losses: images on which it is worse.
        n_images: compared.
    """

    model: str
    other: str
    scale: str
    figure: str
    mean: float
    low: float
    high: float
    wins: int
    losses: int
    n_images: int

    @property
    def verdict(self) -> str:
        """Return "better", "worse", or "" where the interval holds 0."""
        if not (self.low > 0 or self.high < 0):
            return ""
        rises = self.figure in HIGHER_IS_BETTER
        return "better" if (self.mean > 0) == rises else "worse"

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        ends = {
            name: value if math.isfinite(value) else None
            for name, value in (("low", self.low), ("high", self.high))
        }
        return {**vars(self), **ends, "verdict": self.verdict}


def compare(rows: Sequence[Row], other: str) -> list[Difference]:
    """Return the differences of all models from one, by scale and figure.

    Args:
        rows: of single images.
        other: name of the model that the others are compared with.
    """
    by_key: dict[tuple[str, str], dict[str, Mapping[str, float]]] = {}
    for row in rows:
        images = by_key.setdefault((row.model, row.scale), {})
        images[row.image or ""] = row.figures
    found = []
    for (model, scale), images in by_key.items():
        baseline = by_key.get((other, scale))
        if model == other or baseline is None:
            continue
        names = [name for name in next(iter(images.values())) if name not in SIGNED]
        for name in names:
            pairs = {
                image: images[image].get(name, math.nan)
                - baseline[image].get(name, math.nan)
                for image in images
                if image in baseline
            }
            known = {k: v for k, v in pairs.items() if math.isfinite(v)}
            if known:
                found.append(_difference(model, other, scale, name, known))
    return found


def _difference(
    model: str, other: str, scale: str, name: str, values: Mapping[str, float]
) -> Difference:
    numbers = np.array(list(values.values()))
    groups = [image.partition("@")[0] for image in values]
    low, high = bootstrap(numbers, groups)
    gain = numbers if name in HIGHER_IS_BETTER else -numbers
    return Difference(
        model=model,
        other=other,
        scale=scale,
        figure=name,
        mean=float(numbers.mean()),
        low=low,
        high=high,
        wins=int((gain > 0).sum()),
        losses=int((gain < 0).sum()),
        n_images=len(numbers),
    )


def bootstrap(
    values: NDArray[np.float64], groups: Sequence[str]
) -> tuple[float, float]:
    """Return the interval of the mean by drawing groups with replacement.

    Args:
        values: one a picture.
        groups: name of the image that each picture is a part of.

    Returns:
        `(low, high)` of `LEVEL`; minus and plus infinity for fewer than three groups,
        which are too few for a bootstrap.
    """
    _, place = np.unique(groups, return_inverse=True)
    n_groups = int(place.max()) + 1
    if n_groups < 3:
        return -math.inf, math.inf
    sums = np.bincount(place, values)
    counts = np.bincount(place)
    drawn = np.random.default_rng(SEED).integers(0, n_groups, (N_DRAWS, n_groups))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, (tail, 100 - tail))
    return float(low), float(high)


def difference_lines(found: Sequence[Difference]) -> list[str]:
    """Lay out differences as lines of text."""
    if not found:
        return []
    width = max(len(d.model) for d in found)
    lines = [f"against {found[0].other}: mean difference [95 % interval], wins-losses"]
    for d in found:
        interval = f"[{d.low:+.4f}, {d.high:+.4f}]" if math.isfinite(d.low) else "[?]"
        lines.append(
            f"{d.model:{width}} x{d.scale:<5} {d.figure:16} {d.mean:+9.4f} "
            f"{interval:22} {d.wins}-{d.losses} {d.verdict}".rstrip()
        )
    return lines
