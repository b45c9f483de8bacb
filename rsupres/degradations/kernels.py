"""Random blur kernels of blind degradations, and filtering with them.

The families are those of Real-ESRGAN (Wang et al. 2021, Sec. 3.2 and 3.4): Gaussian,
generalised Gaussian and plateau-shaped, each isotropic or not, and sinc low-passes.
With q = x^T S^-1 x for the covariance S: exp(-q / 2), exp(-q^beta / 2) and
1 / (1 + q^beta). All kernels of a batch have one frame and are zero outside their size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rsupres.degradations.base import draw_uniform

SIDE = 21  # of every kernel's frame
_HALF = SIDE // 2
# Rows of `KernelMix.shares`: (is anisotropic, shape), shape 0 Gaussian, 1 generalised,
# 2 plateau.
_FAMILIES = ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2))


@dataclass(frozen=True)
class KernelMix:
    """Shares and ranges of a mix of kernels.

    Attributes:
        sizes: smallest and largest odd size.
        shares: of isotropic, anisotropic, generalised isotropic, generalised
            anisotropic, plateau isotropic and plateau anisotropic kernels.
        sinc: share of sinc kernels instead.
        sigma: standard deviation, pixels.
        beta_generalised: exponent; half of the draws below 1, half above.
        beta_plateau: the same of plateaus.
    """

    sizes: tuple[int, int]
    shares: tuple[float, ...]
    sinc: float
    sigma: tuple[float, float]
    beta_generalised: tuple[float, float]
    beta_plateau: tuple[float, float]


def draw_kernels(n: int, mix: KernelMix, generator: torch.Generator) -> Tensor:
    """Return (n, SIDE, SIDE) kernels of a mix, each with the sum 1.

    Args:
        n: how many.
        mix: kinds of kernels, and how often each is drawn.
        generator: of all draws.
    """
    size = _draw_sizes(n, mix.sizes, generator)
    is_sinc = draw_uniform((n,), (0.0, 1.0), generator) < mix.sinc
    # sinc: small kernels hold no lower cutoff
    lowest = torch.where(size < 13, math.pi / 3, math.pi / 5)
    cutoff = lowest + (math.pi - lowest) * draw_uniform((n,), (0.0, 1.0), generator)
    shares = torch.tensor(mix.shares, device=generator.device)
    chosen = torch.multinomial(shares, n, replacement=True, generator=generator)
    anisotropic, shape = torch.tensor(_FAMILIES, device=generator.device)[chosen].T
    sigma = draw_uniform((n, 2), mix.sigma, generator)
    turn = draw_uniform((n,), (-math.pi, math.pi), generator)
    second = torch.where(anisotropic == 1, sigma[:, 1], sigma[:, 0])
    form = _quadratic_form(sigma[:, 0], second, turn)
    generalised = _draw_beta(n, mix.beta_generalised, generator)
    plateau = _draw_beta(n, mix.beta_plateau, generator)
    made = torch.stack(
        [
            torch.exp(-0.5 * form),
            torch.exp(-0.5 * form ** generalised[:, None, None]),
            1.0 / (1.0 + form ** plateau[:, None, None]),
        ]
    )[shape, torch.arange(n, device=shape.device)]
    kernels = torch.where(is_sinc[:, None, None], _sinc(cutoff), made)
    return _finish(kernels, size)


def draw_sinc(
    n: int, sizes: tuple[int, int], share: float, generator: torch.Generator
) -> Tensor:
    """Return (n, SIDE, SIDE): sinc kernels, cutoff from pi / 3, or else no blur.

    Args:
        n: how many.
        sizes: smallest and largest side of a kernel, in pixels.
        share: of the kernels that are a sinc; the others do not blur.
        generator: of all draws.
    """
    size = _draw_sizes(n, sizes, generator)
    cutoff = draw_uniform((n,), (math.pi / 3, math.pi), generator)
    used = draw_uniform((n,), (0.0, 1.0), generator) < share
    kernels = _finish(_sinc(cutoff), size)
    return torch.where(used[:, None, None], kernels, _pulse(n, kernels))


def draw_gaussians(
    n: int,
    sigma: tuple[float, float],
    anisotropic: float,
    generator: torch.Generator,
) -> Tensor:
    """Return (n, SIDE, SIDE) Gaussians; a share has two deviations and an angle.

    Args:
        n: how many.
        sigma: smallest and largest deviation, in pixels.
        anisotropic: share of the kernels with two deviations.
        generator: of all draws.
    """
    first = draw_uniform((n,), sigma, generator)
    other = draw_uniform((n,), sigma, generator)
    turn = draw_uniform((n,), (-math.pi, math.pi), generator)
    two = draw_uniform((n,), (0.0, 1.0), generator) < anisotropic
    form = _quadratic_form(first, torch.where(two, other, first), turn)
    return _finish(torch.exp(-0.5 * form), torch.full_like(first, SIDE))


def draw_motions(n: int, longest: float, generator: torch.Generator) -> Tensor:
    """Return (n, SIDE, SIDE) centred lines of up to `longest` pixels, any direction.

    Args:
        n: how many.
        longest: pixels of the longest line.
        generator: of all draws.
    """
    length = draw_uniform((n, 1, 1), (0.0, longest), generator)
    turn = draw_uniform((n, 1, 1), (0.0, math.pi), generator)
    y, x = _grid(turn)
    along = (x * turn.cos() + y * turn.sin()).abs()
    across = (y * turn.cos() - x * turn.sin()).abs()
    beyond = along - (length / 2).clamp_max(_HALF - 1.0)
    kernels = (1.0 - across).clamp_min(0.0) * (1.0 - beyond).clamp(0.0, 1.0)
    return _finish(kernels, torch.full((n,), float(SIDE), device=turn.device))


def filter_images(images: Tensor, kernels: Tensor) -> Tensor:
    """Return (b, c, h, w), each image filtered with its kernel, reflected at the edges.

    Args:
        images: (b, c, h, w) float32, of any size.
        kernels: (b, SIDE, SIDE).
    """
    b, c, height, width = images.shape
    rows, cols = (_reflected(n, images.device) for n in (height, width))
    padded = images[:, :, rows][..., cols].reshape(1, b * c, len(rows), len(cols))
    weight = kernels.to(images).repeat_interleave(c, 0)[:, None]
    return F.conv2d(padded, weight, groups=b * c).reshape(b, c, height, width)


def _reflected(length: int, device: torch.device) -> Tensor:
    """Return -_HALF to length + _HALF - 1, reflected, with no end pixel repeated."""
    period = max(2 * (length - 1), 1)
    index = torch.arange(-_HALF, length + _HALF, device=device) % period
    return torch.minimum(index, period - index).clamp_max(length - 1)


def _draw_sizes(n: int, sizes: tuple[int, int], generator: torch.Generator) -> Tensor:
    low, high = (size // 2 for size in sizes)
    half = torch.randint(
        low, high + 1, (n,), generator=generator, device=generator.device
    )
    return 2.0 * half + 1.0


def _draw_beta(n: int, pair: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draw exponents, half of them below 1 and half above."""
    below = draw_uniform((n,), (pair[0], 1.0), generator)
    above = draw_uniform((n,), (1.0, pair[1]), generator)
    return torch.where(draw_uniform((n,), (0.0, 1.0), generator) < 0.5, below, above)


def _grid(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column offsets from the centre, (SIDE, SIDE)."""
    offset = torch.arange(SIDE, device=like.device) - float(_HALF)
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    return y, x


def _quadratic_form(first: Tensor, second: Tensor, turn: Tensor) -> Tensor:
    """Return x^T S^-1 x, (n, SIDE, SIDE), for deviations along turned axes, (n,)."""
    y, x = _grid(first)
    first, second, turn = (v[:, None, None] for v in (first, second, turn))
    along = x * turn.cos() + y * turn.sin()
    across = y * turn.cos() - x * turn.sin()
    return (along / first).square() + (across / second).square()


def _sinc(cutoff: Tensor) -> Tensor:
    """Return circular low-passes w J1(w r) / (2 pi r), (n, SIDE, SIDE)."""
    y, x = _grid(cutoff)
    radius = (x.square() + y.square()).sqrt().clamp_min(1e-6)
    w = cutoff[:, None, None]
    bessel: Tensor = torch.special.bessel_j1(w * radius)
    made = w * bessel / (2.0 * math.pi * radius)
    made[:, _HALF, _HALF] = cutoff.square() / (4.0 * math.pi)
    return made


def _finish(kernels: Tensor, size: Tensor) -> Tensor:
    """Cut kernels to their sizes and give each the sum 1."""
    y, x = _grid(kernels)
    reach = torch.maximum(y.abs(), x.abs())
    kernels = kernels * (reach <= (size[:, None, None] - 1.0) / 2.0)
    return kernels / kernels.sum((1, 2), keepdim=True)


def _pulse(n: int, like: Tensor) -> Tensor:
    pulse = torch.zeros((n, SIDE, SIDE), device=like.device)
    pulse[:, _HALF, _HALF] = 1.0
    return pulse
