"""Give mapped ground the colours that the LR image says it has: spatial unmixing.

Not in the paper; see docs/families/sgdm.md#colours-of-mapped-ground. The map says where
buildings, roads, woods and water end, and the LR image what a mixture of them looks
like. Around every LR pixel a linear regression of its neighbourhood on the shares of
the classes gives how far each class differs from the ground around it (Zhukov,
Oertel, Lanzl, Reinhäckel, "Unmixing-based multisensor multiresolution image fusion",
IEEE TGRS 1999). The network draws the same borders with less contrast, because it was
shown wrong maps, too; what its picture lacks is added. A map that the LR image does not
confirm explains nothing there and changes nothing. Works on tensors; opens no file.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rsupres.blocks.fine_detail import blurred
from rsupres.blocks.separable import enlarge
from rsupres.families.sgdm.colour import correct_colour
from rsupres.families.sgdm.config import SgdmConfig
from rsupres.families.sgdm.prompts import CLASSES

_NEAR, _WIDE = (0.8, 3), (1.6, 5)  # LR pixels, windows of the regression, and reaches
_COARSE = (8, 18)  # scales: the wide window counts not at all, and fully
# LR pixels, optics of a sensor whose MTF at Nyquist is 0.25, as Sentinel-2's
_OPTICS = 0.435
_RIDGE_LR, _RIDGE_SR = 5e-4, 1e-2  # squares of shares
_SOFT, _SOFT_REACH = 0.4, 2  # SR pixels, for borders without steps
_GAP = 4  # SR pixels between two classes
_AROUND, _BEYOND = 2, 0.25  # LR pixels on each side; share of their range beyond it
_MIN_VARIANCE = 1e-8  # squares of [0, 1]


class _Slopes(NamedTuple):
    """By how much classes differ from the ground around them.

    Attributes:
        colours: (b, h, w, k, c), for k classes and c bands.
        trust: (b, h, w, k), 0 where chance explains the difference, towards 1.
    """

    colours: Tensor
    trust: Tensor


def finish(
    config: SgdmConfig,
    decoded: Tensor,
    enlarged: Tensor,
    lr: Tensor,
    chart: Tensor | None,
    scale: Fraction,
) -> Tensor:
    """Return (b, 3, H, W) with the colours of LR: the last step of every sample.

    Args:
        config: of the model.
        decoded: (b, 3, H, W), about [0, 1].
        enlarged: (b, 3, H, W), LR on SR pixels.
        lr: (b, 3, h, w), in the same range.
        chart: (b, 3, H, W) in [0, 1], the map; None for a model without.
        scale: H / h.
    """
    image = correct_colour(config, decoded, enlarged)
    if config.unmix and chart is not None:
        return unmix(image, lr, chart, scale)
    return image


def unmix(picture: Tensor, lr: Tensor, chart: Tensor, scale: Fraction) -> Tensor:
    """Return a picture whose mapped classes differ as much as the LR image says.

    Args:
        picture: (b, c, H, W), drawn from LR image and map.
        lr: (b, c, h, w), in the same range, about [0, 1].
        chart: (b, 3, H, W) in [0, 1], the map; classes are known by the colours of
            `rsupres.families.sgdm.prompts`.
        scale: H / h, a whole number.

    Returns:
        (b, c, H, W); `picture` itself where the map has none of the classes.
    """
    classes = class_masks(chart)
    if not classes.any():
        return picture
    masks = _mended(classes.to(picture.dtype))
    size = (lr.shape[2], lr.shape[3])
    optics = _OPTICS * float(scale)
    seen = functional.adaptive_avg_pool2d(blurred(masks, optics), size)
    wanted = _wanted(seen, lr, scale)
    missing = wanted.colours - _of_classes(masks, picture, size)
    missing = (missing * wanted.trust[..., None]).permute(0, 3, 4, 1, 2)
    borders = blurred(masks, _SOFT, _SOFT_REACH) - enlarge(seen, scale)
    added = torch.zeros_like(picture)
    for k in range(len(CLASSES)):
        added += borders[:, k : k + 1] * functional.interpolate(
            missing[:, k], picture.shape[-2:], mode="bilinear"
        )
    low, high = _bounds(lr, picture)
    return torch.clamp(
        picture + added, torch.minimum(low, picture), torch.maximum(high, picture)
    )


def class_masks(chart: Tensor) -> Tensor:
    """Return where a map (b, 3, H, W) in [0, 1] shows each class, (b, k, H, W) bool."""
    red, green, blue = (chart * 255.0).round().to(torch.int32).unbind(1)
    code = (red << 16) | (green << 8) | blue
    codes = ([r << 16 | g << 8 | b for r, g, b in colours] for _, colours in CLASSES)
    return torch.stack([torch.isin(code, code.new_tensor(c)) for c in codes], 1)


def _wanted(shares: Tensor, lr: Tensor, scale: Fraction) -> _Slopes:
    """Return what LR says of the classes; further around where it says little here."""
    near = _of_mixtures(shares, lr, _NEAR)
    first, last = _COARSE
    weight = min(max((float(scale) - first) / (last - first), 0.0), 1.0)
    if not weight:
        return near
    wide = _of_mixtures(shares, lr, _WIDE)
    rest = weight * (1.0 - near.trust) * wide.trust
    trust = near.trust + rest
    both = near.trust[..., None] * near.colours + rest[..., None] * wide.colours
    return _Slopes(both / trust.clamp_min(1e-6)[..., None], trust)


def _of_mixtures(shares: Tensor, lr: Tensor, window: tuple[float, int]) -> _Slopes:
    """Regress LR pixels on the shares (b, k, h, w) of the classes in them."""
    n_near = 4 * torch.pi * window[0] ** 2  # LR pixels that count
    mean, mean_lr = blurred(shares, *window), blurred(lr, *window)
    both = blurred(_products(shares, shares), *window) - _products(mean, mean)
    cross = blurred(_products(shares, lr), *window) - _products(mean, mean_lr)
    k, c = shares.shape[1], lr.shape[1]
    spread, joint = _matrices(both, k, k), _matrices(cross, k, c)
    inverse = torch.linalg.inv(spread + _RIDGE_LR * torch.eye(k, device=lr.device))
    colours = inverse @ joint
    total = _last(blurred(lr.square(), *window) - mean_lr.square())
    rest = total + (colours * (spread @ colours - 2.0 * joint)).sum(-2)
    fitted = 1.0 + (inverse @ spread).diagonal(dim1=-2, dim2=-1).sum(-1)
    free = (n_near - fitted).clamp_min(0.1 * n_near)
    noise = (rest.clamp_min(0.0).sum(-1) / free)[..., None]
    error = inverse.diagonal(dim1=-2, dim2=-1) * noise + _MIN_VARIANCE
    power = colours.square().sum(-1).clamp_min(_MIN_VARIANCE)
    return _Slopes(colours, (1.0 - error / power).clamp_min(0.0))


def _of_classes(masks: Tensor, picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Regress SR pixels on the classes, in the same windows; (b, h, w, k, c)."""
    pooled = functional.adaptive_avg_pool2d
    mean, mean_sr = _near(pooled(masks, size)), _near(pooled(picture, size))
    k, c = masks.shape[1], picture.shape[1]
    own = _last(mean)
    spread = torch.diag_embed(own) - own[..., None] * own[..., None, :]
    parts = [_near(pooled(masks[:, i : i + 1] * picture, size)) for i in range(k)]
    cross = torch.cat(parts, 1) - _products(mean, mean_sr)
    ridge = _RIDGE_SR * torch.eye(k, device=picture.device)
    colours: Tensor = torch.linalg.solve(spread + ridge, _matrices(cross, k, c))
    return colours


def _mended(masks: Tensor) -> Tensor:
    """Return classes without what is too narrow to be seen, as drawn maps have it.

    Single pixels and holes of one go, and a gap of up to four pixels between different
    classes goes to the last of them: a road reaches to the houses.
    """
    around = functional.pad(masks, (1, 1, 1, 1), mode="replicate")
    n = around[..., :-2, 1:-1] + around[..., 2:, 1:-1]
    n = n + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
    kept = torch.where(n == 4, 1.0, torch.where(n == 0, 0.0, masks))
    near = _grown(kept, _GAP)
    union = kept.amax(1, keepdim=True)
    closed = -_grown(-_grown(union, _GAP // 2), _GAP // 2)
    gap = (closed > union) & (near.sum(1, keepdim=True) > 1)
    later = near.flip(1).cumsum(1).flip(1)  # 1 at the last class that is near
    return torch.where(gap & (near == 1) & (later == 1), 1.0, kept)


def _grown(x: Tensor, reach: int) -> Tensor:
    """Return the largest value of the pixels around, `reach` on each side."""
    largest: Tensor = functional.max_pool2d(x, 2 * reach + 1, 1, reach)
    return largest


def _bounds(lr: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the range of LR pixels nearby, widened, on the pixels of a picture."""
    low, high = -_grown(-lr, _AROUND), _grown(lr, _AROUND)
    more = _BEYOND * (high - low)
    size = like.shape[-2:]
    return (
        functional.interpolate(low - more, size, mode="bilinear"),
        functional.interpolate(high + more, size, mode="bilinear"),
    )


def _near(x: Tensor) -> Tensor:
    return blurred(x, *_NEAR)


def _products(one: Tensor, other: Tensor) -> Tensor:
    """Return (b, i * j, h, w), every channel of one times every channel of other."""
    return (one[:, :, None] * other[:, None]).flatten(1, 2)


def _last(x: Tensor) -> Tensor:
    """Return (b, n, h, w) as (b, h, w, n)."""
    return x.permute(0, 2, 3, 1)


def _matrices(x: Tensor, rows: int, cols: int) -> Tensor:
    """Return (b, rows * cols, h, w) as (b, h, w, rows, cols)."""
    b, _, h, w = x.shape
    return _last(x).reshape(b, h, w, rows, cols)
