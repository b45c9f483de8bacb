"""The shape of an optical model, and the facts of a picture that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from rsupres.degradations.optics import FREQUENCIES

FACTS = 12  # numbers about a picture that the network takes


@dataclass(frozen=True)
class OpticalConfig:
    """The shape of an optical model; stored in its checkpoint.

    Attributes:
        channels: width of the trunk.
        units: units of the trunk and its tail together.
        blocks: information multi-distillation blocks per unit.
        hidden: width of the layer between facts and modulations.
        up: whole factor of the grid on which the network draws its detail; smaller
            scales are resampled from there. It is also the largest trained scale.
        noise: channels of noise that the tail of draws looks at; 0 = no such tail.
        texture: width of the layers that draw texture on the fine grid; 0 = none.
        texture_noise: channels of noise on that grid.
        estimator: width of the network that reads the sensor from a scene; 0 = none.
        spread: width of the head that predicts the error of the mean; 0 = none.
        spread_blocks: blocks before that head.
    """

    channels: int = 64
    units: int = 4
    blocks: int = 2
    hidden: int = 64
    up: int = 4
    noise: int = 0
    texture: int = 0
    texture_noise: int = 1
    estimator: int = 0
    spread: int = 0
    spread_blocks: int = 0

    @property
    def drawn(self) -> int:
        """Channels of noise on the LR grid of a draw, those of the texture last."""
        return self.noise + (self.texture_noise * self.up**2 if self.texture else 0)


SMALL = OpticalConfig()


@dataclass(frozen=True)
class Facts:
    """Facts of a picture that the network takes; None = not known.

    Attributes:
        transfer: modulation transfer at `FREQUENCIES` cycles per LR pixel.
        noise: standard deviation, as a share of the levels' span.
        quality: of JPEG, 50 to 95; 0 = not compressed.
        sharp: 1 = the truth is as sharp as its grid allows, 0 = it is as soft as what a
            satellite's own pixels show.
    """

    transfer: tuple[float, ...] | None = None
    noise: float | None = None
    quality: float | None = None
    sharp: float | None = None

    LARGEST_NOISE: ClassVar[float] = 0.05  # the input 1 stands for it
    JPEG_RANGE: ClassVar[tuple[float, float]] = (105.0, 50.0)

    @classmethod
    def quality_of(cls, strength: float) -> float:
        """Return the quality of JPEG that this strength stands for."""
        top, span = cls.JPEG_RANGE
        return top - span * strength

    def as_numbers(self, scale: float) -> list[float]:
        """Return the `FACTS` numbers that tell the network these facts."""
        told = [0.0] * FACTS
        told[0] = math.log2(scale) / 2.0
        if self.transfer is not None:
            assert len(self.transfer) == len(FREQUENCIES)
            told[1:6] = [1.0, *self.transfer]
        if self.noise is not None:
            told[6:8] = [1.0, math.sqrt(max(self.noise, 0.0) / self.LARGEST_NOISE)]
        if self.quality is not None:
            top, span = self.JPEG_RANGE
            told[8:10] = [1.0, (top - self.quality) / span if self.quality else 0.0]
        if self.sharp is not None:
            told[10:12] = [1.0, self.sharp]
        return told
