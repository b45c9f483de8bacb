"""Configurations of Ref-Diff: values only, no tensors.

Two choices keep what looks at the whole picture out, so that tiles cannot show:
``norm`` "pixel" or "none", and no attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RefDiffNorm = Literal["group", "pixel", "none"]


@dataclass(frozen=True)
class RefDiffConfig:
    """Everything that shapes a Ref-Diff model; stored in its checkpoint.

    The defaults are the released configuration. The second half are ours.

    Attributes:
        nominal: side that the levels' names count from; the input may have any size.
        channels: width of the stem; the embedding is four times as wide.
        mult: width multipliers of the levels, finest first.
        blocks: residual blocks a level of the encoder; the decoder has one more.
        attention: nominal sides of the levels with attention.
        middle_attention: attention in the first decoder block.
        sft_width: hidden width of each branch of a modulation.
        norm: "group" (released), or "pixel" / "none", which do not depend on the tile.
        dropout: in training, between the convolutions of a block.
        patch: side of the cells of pixels that become channels before the network and
            pixels again after it; 1 = none, as released.
        image: what is denoised: "picture" (released), or "detail": what a plain blend
            of the enlarged LR image and the reference's detail lacks, times
            `detail_gain`; the reference is shown in the LR image's colours.
        detail_gain: brings the detail to about the deviation that EDM is made for.
        trust: share of the reference's detail in that blend where nothing changed.
        fit: with "detail", move the reference to where it fits the LR image best, and
            show of its detail the share that the LR image confirms, see
            `rsupres.families.refdiff.fitting`.
        finest: with "detail", SR pixels, deviation of a Gaussian: what it takes out of
            the network's result is limited where the reference does not explain it, see
            `rsupres.families.refdiff.fine_detail`; 0 = nowhere.
        unexplained: what is smaller than this share of the LR image's own finest detail
            stays everywhere.
        lr_kernel: how the LR image is enlarged to the SR grid.
        base_units: with "detail", units of a network that sharpens the enlarged LR
            image first, see `rsupres.families.refdiff.base`; 0 = none, as released.
        base_channels: width of that network.
        mask: how class codes enter: "raw", the value of the file / 255 (released), or
            "outlined": where the reference is of no use, what changed, and where parts
            of different codes meet, the last two to the pixel. The reference is not
            shown where something changed.
        sigma_min: smallest noise level of sampling.
        sigma_max: largest one.
        rho: exponent of the levels.
        sampler: a name of `rsupres.families.refdiff.resolver.SAMPLERS`.
        steps: of that sampler.
    """

    nominal: int = 256
    channels: int = 128
    mult: tuple[int, ...] = (2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    middle_attention: bool = True
    sft_width: int = 128
    norm: RefDiffNorm = "group"
    dropout: float = 0.2
    patch: int = 1
    image: Literal["picture", "detail"] = "picture"
    detail_gain: float = 1.0
    trust: float = 0.0
    fit: bool = False
    finest: float = 0.0
    unexplained: float = 0.1
    lr_kernel: Literal["nearest", "bilinear", "bicubic"] = "nearest"
    base_units: int = 0
    base_channels: int = 64
    mask: Literal["raw", "outlined"] = "raw"
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    sampler: str = "released"
    steps: int = 256

    @property
    def image_channels(self) -> int:
        """Channels of an image inside the network."""
        return 3 * self.patch**2

    @property
    def mask_channels(self) -> int:
        """Channels of a change mask inside the network."""
        return 1 if self.mask == "raw" else 1 + 2 * self.patch**2

    @property
    def multiple(self) -> int:
        """Sides of the input must be multiples of this."""
        return int(self.patch * 2 ** (len(self.mult) - 1))


RELEASED = RefDiffConfig()
MINI = RefDiffConfig(
    channels=48,
    mult=(1, 1),
    blocks=1,
    attention=(),
    middle_attention=False,
    sft_width=24,
    norm="pixel",
    dropout=0.0,
    patch=4,
    image="detail",
    detail_gain=3.0,
    trust=0.35,
    fit=True,
    finest=1.5,
    unexplained=0.03,
    lr_kernel="bicubic",
    base_units=6,
    mask="outlined",
    sigma_min=0.05,
    sigma_max=2.0,
    sampler="mean",
    steps=3,
)
