"""Prepare the inputs of Ref-Diff's network, and turn its output into a picture.

The pipeline's pixels lie in [0, 1], the network's in [-1, 1]. A released model
denoises the picture itself. A model of this project sees the reference with its
low frequencies replaced by those of the LR image, so that another sun, season or sensor
changes little, and denoises the difference from a plain blend of both. Everything here
depends on a few LR pixels around each pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from rsupres.blocks.separable import CUBIC_REACH, enlarge
from rsupres.families.refdiff.config import RefDiffConfig
from rsupres.families.refdiff.fine_detail import (
    Allowance,
    find_allowance,
    keep_explained,
)
from rsupres.families.refdiff.fitting import (
    Fit,
    displace,
    find_fit,
    local_share,
    reduce,
    shown_share,
)
from rsupres.families.refdiff.network import Guidance

Residual = Callable[[Tensor], Tensor]
LrKernel = Literal["nearest", "bilinear", "bicubic"]
Start = Literal["lr", "noise", "zero"]
NODATA = 255  # of a change mask: not known whether something changed


@dataclass(frozen=True)
class PreparedTiles:
    """Tiles ready for the network, and the way back.

    Attributes:
        guidance: what the network is shown.
        base: the image under the detail, (b, 3, H, W) in [0, 1]; None = a picture.
        gain: of the detail.
        finest: SR pixels, deviation of the Gaussian that separates the finest detail.
        allowed: what stays of it where the reference does not explain it; None = all.
    """

    guidance: Guidance
    base: Tensor | None
    gain: float
    finest: float = 0.0
    allowed: Allowance | None = None

    def picture(self, x: Tensor) -> Tensor:
        """Return the picture in [0, 1], not clipped, of what was denoised."""
        if self.base is None:
            return (x + 1.0) / 2.0
        made = x / (2.0 * self.gain)
        if self.allowed is not None and self.finest:
            shown = (self.guidance.reference - self.guidance.lr) / 2.0
            made = keep_explained(made, shown, self.allowed, self.finest)
        return self.base + made

    def denoised(self, picture: Tensor) -> Tensor:
        """Return the denoised values that give a picture in [0, 1]."""
        if self.base is None:
            return picture * 2.0 - 1.0
        return (picture - self.base) * (2.0 * self.gain)


def make_frame(
    lr: Tensor,
    reference: Tensor | None,
    valid: Tensor | None,
    mask: Tensor | None,
    scale: Fraction,
    config: RefDiffConfig,
    fit: Fit | None = None,
    base: Residual | None = None,
) -> PreparedTiles:
    """Return a tile's images in the form that a model was made for.

    Where no reference is, the enlarged LR image takes its place: there is nothing to
    copy. A model with an "outlined" mask sees where, and not what has changed since.

    Args:
        lr: (b, 3, h, w) in [0, 1].
        reference: (b, 3, H, W) in [0, 1], or None.
        valid: where the reference is, (b, 1, H, W) bool; None = everywhere.
        mask: (b, 1, H, W) class codes, 0 = unchanged; None = nothing is known.
        scale: SR pixels along one LR pixel.
        config: of the model.
        fit: of the reference, where the model fits it; None = found in these pictures.
        base: of the network, sharpens what is enlarged; None = bicubic alone.
    """
    enlarged = _sharpened(lr, scale, config, base)
    share = torch.ones_like(enlarged[:, :1])
    there = share > 0 if valid is None else valid
    if reference is None:
        reference, there = enlarged, torch.zeros_like(there)
    reference = torch.where(there, reference, enlarged).detach()
    codes = torch.zeros_like(there) if mask is None else mask
    use = there & ~is_changed(codes)
    if config.image == "detail":
        there = ~_grown(~there, CUBIC_REACH * scale)
        if config.fit and use.any():
            reference, share = _fitted(lr, reference, use, scale, fit)
        detail = _missing_detail(reference, scale, config, base)
        reference = enlarged + share * detail
    if config.mask == "outlined":
        there = there & ~is_changed(codes)
    part = share.clamp(0.0, 1.0) * there
    reference = torch.where(there, reference, enlarged)
    shown = _shown_mask(codes, part, config)
    guidance = Guidance(enlarged * 2.0 - 1.0, reference * 2.0 - 1.0, shown)
    if config.image == "picture":
        return PreparedTiles(guidance, None, 1.0)
    blend = enlarged + config.trust * (reference - enlarged)
    allowed = find_allowance(lr, part, scale, config.unexplained)
    return PreparedTiles(guidance, blend, config.detail_gain, config.finest, allowed)


def _shown_mask(codes: Tensor, part: Tensor, config: RefDiffConfig) -> Tensor:
    """Return the mask as the network sees it; `part` of the reference is shown."""
    if config.mask == "raw":
        return raw_values(codes)
    return torch.cat([1.0 - part, is_changed(codes), is_border(codes)], 1).float()


def _fitted(
    lr: Tensor, reference: Tensor, use: Tensor, scale: Fraction, fit: Fit | None
) -> tuple[Tensor, Tensor]:
    """Return a reference where it fits, and the share of its detail that is shown."""
    fit = fit or find_fit(lr, reference, use, scale)
    moved = displace(reference, fit.rows, fit.cols)
    small = reduce(moved, scale)
    found = local_share(lr, small, use, fit, scale)
    share = enlarge(shown_share(found), scale).clamp_min(0.0)
    return moved, share


def _missing_detail(
    reference: Tensor, scale: Fraction, config: RefDiffConfig, base: Residual | None
) -> Tensor:
    """Return the part of a reference that cannot be made of its LR image."""
    with torch.no_grad():
        return reference - _sharpened(reduce(reference, scale), scale, config, base)


def _sharpened(
    lr: Tensor, scale: Fraction, config: RefDiffConfig, base: Residual | None
) -> Tensor:
    """Return an LR image on the SR grid, sharpened where a model has a base."""
    height, width = (int(side * scale) for side in lr.shape[2:])
    enlarged = enlarge_lr(lr, (height, width), config.lr_kernel)
    if base is None:
        return enlarged
    return enlarged + functional.interpolate(base(lr), (height, width), mode="bicubic")


def enlarge_lr(lr: Tensor, size: tuple[int, int], kernel: LrKernel) -> Tensor:
    """Return the LR image on the SR grid, (b, c, H, W).

    "nearest" repeats pixels, as the released generator; "bilinear" has half-pixel
    centres, as the released training; "bicubic" is that of `rsupres.blocks.separable`.

    Args:
        lr: (b, c, h, w).
        size: H and W.
        kernel: "nearest", "bilinear" or "bicubic".
    """
    if kernel == "bicubic":
        return enlarge(lr.float(), Fraction(size[0], lr.shape[2]))
    return functional.interpolate(lr, size, mode=kernel)


def raw_values(mask: Tensor) -> Tensor:
    """Return a mask of class codes as released, code / 255 without one-hot, float32."""
    return mask.float() / 255.0


def is_changed(mask: Tensor) -> Tensor:
    """Return where a mask of class codes marks a change, bool; `NODATA` marks none."""
    return (mask != 0) & (mask != NODATA)


def is_border(mask: Tensor) -> Tensor:
    """Return where the next pixel to the right or below has another code, bool.

    What the codes stand for does not matter, but `NODATA` is as good as unchanged. At
    the ends of the picture is no border.
    """
    mask = torch.where(is_changed(mask), mask, 0)
    border = torch.zeros_like(mask, dtype=torch.bool)
    border[..., :, :-1] |= mask[..., :, :-1] != mask[..., :, 1:]
    border[..., :-1, :] |= mask[..., :-1, :] != mask[..., 1:, :]
    return border


def start_image(
    start: Start, sigma: float, lr: Tensor, normal: Callable[[], Tensor]
) -> Tensor:
    """Return the image from which sampling starts, at noise level `sigma`.

    The released generator begins with the enlarged LR image times sigma, although the
    network has never seen that; the textbook begins with noise; "zero" is the middle
    of all noise.

    Args:
        start: the kind of beginning.
        sigma: the first noise level.
        lr: the enlarged LR image, (b, 3, H, W) in [-1, 1].
        normal: draws standard normals of the shape of `lr`.
    """
    if start == "zero":
        return torch.zeros_like(lr)
    return sigma * (lr if start == "lr" else normal())


def to_uint8(picture: Tensor) -> Tensor:
    """Return an image in [-1, 1] as the released code saves it."""
    return (picture * 127.5 + 128.0).clip(0, 255).to(torch.uint8)


def _grown(there: Tensor, reach: Fraction) -> Tensor:
    """Return a bool mask with its true parts grown by `reach` pixels on all sides."""
    if not there.any():
        return there
    side = int(reach)
    grown = there.float()
    grown = functional.max_pool2d(grown, (2 * side + 1, 1), 1, (side, 0))
    return functional.max_pool2d(grown, (1, 2 * side + 1), 1, (0, side)) > 0.5
