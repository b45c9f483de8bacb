"""The configurations of SlimDiffSR's student: values only, no tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class TrunkConfig:
    """The pruned U-Net: two levels and a bottom.

    Attributes:
        widths: channels of the upper and the lower level.
        bottom: channels of the residual block at the bottom.
        layers: residual blocks with transformers per level on the way down; one more
            on the way up.
        queries: of the global aggregation.
        inner: width inside the global aggregation.
        norm: "group" as released, "pixel" for maps that each pixel determines alone.
        groups: of GroupNorm.
    """

    widths: tuple[int, int] = (320, 640)
    bottom: int = 1280
    layers: int = 2
    queries: int = 32
    inner: int = 64
    norm: Literal["group", "pixel"] = "group"
    groups: int = 32


@dataclass(frozen=True)
class SlimDiffSRConfig:
    """The student.

    Attributes:
        scale: whole factor that the weights are for.
        trunk: the U-Net.
        tiny: channels of encoder and decoder.
        latent: of the autoencoder that they were cut from; dead tensors only.
    """

    scale: int = 4
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    tiny: int = 64
    latent: int = 4

    @property
    def scales(self) -> tuple[int, ...]:
        """The one factor that it serves."""
        return (self.scale,)
