"""Keep the images on which each model is worst, cut around its largest error."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

Pixels = NDArray[np.uint8]

N_WORST = 10
SIDE = 160  # HR pixels along a side of a cut
FIGURE = "psnr"  # by which images are worst


@dataclass(frozen=True)
class Shown:
    """A part of an image in all versions.

    Attributes:
        image: name.
        scale: of the test.
        value: of `FIGURE` on the whole image.
        versions: (3, h, w) by name: "input", each model, "truth".
    """

    image: str
    scale: str
    value: float
    versions: Mapping[str, Pixels]


@dataclass
class WorstImages:
    """The worst images of each model so far; memory does not grow with the test."""

    _by_model: dict[str, list[tuple[float, int, Shown]]] = field(default_factory=dict)
    _seen: int = 0

    def add(
        self,
        image: str,
        scale: str,
        versions: Mapping[str, Pixels],
        figures: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Take an image.

        Args:
            image: name.
            scale: of the test.
            versions: (3, H, W) by name: "input", each model, "truth".
            figures: of each model on it.
        """
        for model, row in figures.items():
            value = row[FIGURE]
            worst = self._by_model.setdefault(model, [])
            if len(worst) == N_WORST and -value <= worst[0][0]:  # no worse than any
                continue
            window = _window(versions[model], versions["truth"])
            cuts = {name: part[:, *window].copy() for name, part in versions.items()}
            self._seen += 1  # decides between equal values
            entry = (-value, self._seen, Shown(image, scale, value, cuts))
            if len(worst) < N_WORST:
                heapq.heappush(worst, entry)
            else:
                heapq.heapreplace(worst, entry)

    def by_model(self) -> dict[str, list[Shown]]:
        """Return the worst images of each model, the worst first."""
        return {
            model: [shown for _, _, shown in sorted(worst, reverse=True)]
            for model, worst in self._by_model.items()
        }


def _window(sr: Pixels, hr: Pixels) -> tuple[slice, slice]:
    """Return the rows and columns around the largest error."""
    error = np.square(sr.astype(np.float32) - hr.astype(np.float32)).mean(0)
    smooth = uniform_filter(error, min(31, *error.shape), mode="constant")
    peak = np.unravel_index(int(smooth.argmax()), smooth.shape)
    parts = []
    for place, length in zip(peak, error.shape, strict=True):
        start = min(max(0, int(place) - SIDE // 2), max(0, length - SIDE))
        parts.append(slice(start, start + min(SIDE, length)))
    return parts[0], parts[1]
