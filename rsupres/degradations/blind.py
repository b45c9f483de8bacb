"""Blind degradations: chains of blur, resizing, noise and JPEG with drawn strengths.

`SecondOrder` is the Real-ESRGAN chain (Wang et al. 2021) with SlimDiffSR's parameters,
without sharpening (docs/families/slimdiffsr.md#training-degradation).
`RefDiffDegradation` is our proposal for Ref-Diff, whose paper names the steps without
their parameters (docs/families/refdiff.md#degradation). Kernels, strengths and JPEG
qualities are drawn per image; sizes and the kind of noise are drawn per batch.
JPEG is Pillow's, 4:2:0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rsupres.degradations.base import (
    Degradation,
    check_size,
    draw_uniform,
    round_levels,
)
from rsupres.degradations.jpeg import compress_images
from rsupres.degradations.kernels import (
    SIDE,
    KernelMix,
    draw_gaussians,
    draw_kernels,
    draw_motions,
    draw_sinc,
    filter_images,
)
from rsupres.degradations.noise import gaussian_noise, poisson_noise
from rsupres.errors import InputError

_MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class SecondOrder(Degradation):
    """Real-ESRGAN's second-order chain with SlimDiffSR's parameters.

    Attributes of the first round end in _1, of the second in _2; levels are of 255.

    Attributes:
        sizes: smallest and largest odd kernel size.
        shares: of the kernel families, see `KernelMix`.
        sinc: share of sinc kernels in either round.
        blur_2: chance of a blur in the second round; the first always has one.
        sigma_1: standard deviation of the kernels, pixels.
        sigma_2: the same.
        beta_generalised: exponent of generalised kernels.
        beta_plateau: exponent of plateau kernels.
        resize_1: shares of enlarging, shrinking and keeping the size.
        resize_2: the same.
        range_1: smallest and largest factor, of the HR size.
        range_2: the same, of the LR size.
        gaussian: share of Gaussian noise; the rest is Poisson's.
        grey: share of images whose noise is the same in all bands.
        noise_1: standard deviation, levels.
        noise_2: the same.
        poisson_1: factor of Poisson noise.
        poisson_2: the same.
        jpeg_1: quality.
        jpeg_2: the same.
        final_sinc: chance of a sinc filter at the end.
    """

    sizes: tuple[int, int] = (7, 21)
    shares: tuple[float, float, float, float, float, float] = (
        *(0.45, 0.25, 0.12),
        *(0.03, 0.12, 0.03),
    )
    sinc: float = 0.1
    blur_2: float = 0.5
    sigma_1: tuple[float, float] = (0.2, 1.5)
    sigma_2: tuple[float, float] = (0.2, 1.0)
    beta_generalised: tuple[float, float] = (0.5, 2.0)
    beta_plateau: tuple[float, float] = (1.0, 1.5)
    resize_1: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_2: tuple[float, float, float] = (0.3, 0.4, 0.3)
    range_1: tuple[float, float] = (0.3, 1.5)
    range_2: tuple[float, float] = (0.6, 1.2)
    gaussian: float = 0.5
    grey: float = 0.4
    noise_1: tuple[float, float] = (1.0, 15.0)
    noise_2: tuple[float, float] = (1.0, 12.0)
    poisson_1: tuple[float, float] = (0.05, 2.0)
    poisson_2: tuple[float, float] = (0.05, 1.0)
    jpeg_1: tuple[int, int] = (60, 95)
    jpeg_2: tuple[int, int] = (60, 100)
    final_sinc: float = 0.8

    def __post_init__(self) -> None:
        """Check kernel sizes too."""
        super().__post_init__()
        if not 1 <= self.sizes[0] <= self.sizes[1] <= SIDE:
            raise InputError(f"sizes must lie in 1 to {SIDE}, not {self.sizes}.")

    def degrade(
        self, hr: Tensor, size: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Blur, resize, add noise and compress twice, then bring to the LR size."""
        check_size(hr, size)
        with torch.autocast(hr.device.type, enabled=False):
            x = filter_images(
                hr.float(), self._kernels(len(hr), self.sigma_1, generator)
            )
            x = rescale(x, x.shape[2:], self.resize_1, self.range_1, generator)
            x = self._add_noise(x, self.noise_1, self.poisson_1, generator)
            x = compress_images(x.clamp(0, 1), self.jpeg_1, generator)
            if _chance(self.blur_2, generator):
                kernels = self._kernels(len(hr), self.sigma_2, generator)
                x = filter_images(x, kernels)
            x = rescale(x, size, self.resize_2, self.range_2, generator)
            x = self._add_noise(x, self.noise_2, self.poisson_2, generator)
            x = self._end(x, size, generator)
            return round_levels(x)

    def _end(
        self, x: Tensor, size: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Go to the LR size with a sinc filter, before or after the last JPEG."""
        kernels = draw_sinc(len(x), self.sizes, self.final_sinc, generator)
        mode = _draw_mode(generator)
        if _chance(0.5, generator):
            x = filter_images(_interpolate(x, size, mode), kernels)
            return compress_images(x.clamp(0, 1), self.jpeg_2, generator)
        x = compress_images(x.clamp(0, 1), self.jpeg_2, generator)
        return filter_images(_interpolate(x, size, mode), kernels)

    def _kernels(
        self, n: int, sigma: tuple[float, float], generator: torch.Generator
    ) -> Tensor:
        mix = KernelMix(
            self.sizes,
            self.shares,
            self.sinc,
            sigma,
            self.beta_generalised,
            self.beta_plateau,
        )
        return draw_kernels(n, mix, generator)

    def _add_noise(
        self,
        x: Tensor,
        levels: tuple[float, float],
        factors: tuple[float, float],
        generator: torch.Generator,
    ) -> Tensor:
        grey = draw_uniform((len(x), 1, 1, 1), (0.0, 1.0), generator) < self.grey
        if _chance(self.gaussian, generator):
            noise = gaussian_noise(x, levels, grey, generator)
        else:
            noise = poisson_noise(x, factors, grey, generator)
        return (x + noise).clamp(0, 1)


@dataclass(frozen=True)
class RefDiffDegradation(Degradation):
    """Blur, motion, resizing, noise and JPEG; our proposal, milder for large scales.

    Ref-Diff's paper names these steps and states that they are weaker at x16 than at
    x8. The kernel's frame of 21 pixels cuts the widest Gaussians.

    Attributes:
        sigma: of the Gaussian blur, HR pixels at x4; grows with the scale.
        anisotropic: share of blurs with two deviations and an angle.
        motion: longest motion blur below `hard_from`, in LR pixels.
        noise: standard deviation below `hard_from`, levels of 255.
        noise_hard: the same from `hard_from` on.
        jpeg: quality, below `hard_from` only.
        hard_from: scale from which there is neither motion nor JPEG.
    """

    sigma: tuple[float, float] = (0.2, 3.0)
    anisotropic: float = 0.5
    motion: float = 1.0
    noise: tuple[float, float] = (0.0, 10.0)
    noise_hard: tuple[float, float] = (0.0, 5.0)
    jpeg: tuple[int, int] = (60, 95)
    hard_from: float = 12.0

    def degrade(
        self, hr: Tensor, size: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Blur, downscale by a random interpolation, add noise, compress."""
        check_size(hr, size)
        scale = math.sqrt(hr.shape[2] * hr.shape[3] / (size[0] * size[1]))
        is_hard = scale >= self.hard_from
        low, high = (value * scale / 4.0 for value in self.sigma)
        n = len(hr)
        with torch.autocast(hr.device.type, enabled=False):
            kernels = draw_gaussians(n, (low, high), self.anisotropic, generator)
            x = filter_images(hr.float(), kernels)
            if not is_hard:
                motions = draw_motions(n, self.motion * scale, generator)
                x = filter_images(x, motions)
            x = _interpolate(x, size, _draw_mode(generator), antialias=True)
            levels = self.noise_hard if is_hard else self.noise
            grey = torch.zeros((n, 1, 1, 1), dtype=torch.bool)
            x = (x + gaussian_noise(x, levels, grey, generator)).clamp(0, 1)
            return (
                round_levels(x) if is_hard else compress_images(x, self.jpeg, generator)
            )


def _chance(share: float, generator: torch.Generator) -> bool:
    return float(draw_uniform((), (0.0, 1.0), generator)) < share


def _draw_mode(generator: torch.Generator) -> str:
    drawn = draw_uniform((), (0.0, float(len(_MODES))), generator)
    return _MODES[min(int(drawn), len(_MODES) - 1)]


def _interpolate(
    x: Tensor, size: tuple[int, int], mode: str, *, antialias: bool = False
) -> Tensor:
    smooth = antialias and mode != "area"
    return F.interpolate(x, size=size, mode=mode, antialias=smooth)


def rescale(
    x: Tensor,
    size: tuple[int, ...],
    shares: tuple[float, float, float],
    factors: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Return (b, c, h', w'), resized to a random multiple of a size.

    Args:
        x: (b, c, h, w).
        size: rows and columns.
        shares: of a larger size, a smaller size, and the size itself.
        factors: smallest and largest factor.
        generator: of all draws.
    """
    kind = float(draw_uniform((), (0.0, 1.0), generator))
    if kind < shares[0]:
        factor = float(draw_uniform((), (1.0, factors[1]), generator))
    elif kind < shares[0] + shares[1]:
        factor = float(draw_uniform((), (factors[0], 1.0), generator))
    else:
        factor = 1.0
    target = (max(int(size[0] * factor), 1), max(int(size[1] * factor), 1))
    return _interpolate(x, target, _draw_mode(generator))
