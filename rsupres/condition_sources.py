"""Vector maps among a run's conditions: colours on windows of the SR frame.

Thin: maps are drawn by `rsupres.vectors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rsupres.errors import ConditionError
from rsupres.grid import PixelWindow
from rsupres.vectors import VectorMap

MAP_LEGEND_TAG = "RSUPRES_LEGEND"


@dataclass(frozen=True)
class MapSource:
    """A vector map in its legend's colours: a `ConditionSource`."""

    opened: VectorMap

    @property
    def legend_name(self) -> str:
        """Name of the legend that it is drawn by."""
        return self.opened.legend.name

    @property
    def background(self) -> tuple[int, int, int]:
        """Colour where nothing is mapped."""
        return self.opened.legend.background

    def read(self, window: PixelWindow) -> np.ndarray:
        """Return (3, H, W) uint8."""
        return self.opened.burn(window)

    def fingerprint(self) -> Mapping[str, object]:
        """Return files, hashes, legend and classes."""
        return self.opened.fingerprint()

    def describe(self) -> str:
        """Return what is drawn, and how much of the scene the files cover."""
        drawn = {key: n for key, n in self.opened.counts.items() if n}
        most = sorted(drawn.items(), key=lambda item: -item[1])[:4]
        names = ", ".join(f"{n} {key}" for key, n in most) or "nothing"
        return (
            f"{sum(drawn.values())} features in legend {self.opened.legend.name} "
            f"({names}); covers {100 * self.opened.coverage:.1f} %"
        )


def map_source(opened: VectorMap) -> MapSource:
    """Return a map as a source of colours.

    Raises:
        ConditionError: its legend has codes instead of colours.
    """
    if opened.legend.n_bands != 3:
        raise ConditionError(
            f"--legend {opened.legend.name} has codes, and models look at colours; "
            "use maptiler or osm-carto."
        )
    return MapSource(opened)
