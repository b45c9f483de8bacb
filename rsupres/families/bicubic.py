"""Bicubic interpolation as a model: no weights, any bands, the baseline of all scores.

Keys' cubic convolution, a = -1/2, at half-pixel centres, as Pillow and GDAL have it
(torch uses a = -3/4). The result overshoots [0, 1] beside sharp edges by up to a
seventh of their height, as every cubic does; it is not clipped, so that values beyond
the stretch come back as if the digital numbers had been interpolated.

| equation | function |
|---|---|
| Keys 1981, Eq. 4 | `rsupres.blocks.separable.cubic_map` |
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from rsupres.families.base import (
    ModelSpec,
    ScaleRange,
    SceneContext,
    SceneReader,
    TileBatch,
)

if TYPE_CHECKING:
    from torch import Tensor

    from rsupres.diffusion.noise import NoiseField

SPEC = ModelSpec(
    family="bicubic",
    scales=ScaleRange(Fraction(1), Fraction(64), Fraction(64)),
    tile_size=144,
    halo=2,  # pixels that the cubic reaches
    exact=True,
)


@dataclass(frozen=True)
class Bicubic:
    """Enlarges every band by itself; needs nothing from the scene."""

    spec: ModelSpec = SPEC

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: NoiseField
    ) -> SceneContext:
        """Return an empty context."""
        return SceneContext()

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        """Return (b, c, H, W) float32; beside sharp edges slightly outside [0, 1]."""
        from rsupres.blocks.separable import enlarge

        return enlarge(batch.lr.float(), scale)
