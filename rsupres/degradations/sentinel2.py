"""Simulate a Sentinel-2-like sensor: optics, detector, noise and digitisation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rsupres.degradations.base import (
    Degradation,
    check_size,
    draw_uniform,
    round_levels,
)
from rsupres.errors import InputError

_SUPPORT = 4.0  # LR pixels; the widest PSF, 0.5 + 5 sigma, ends before it
_MTF_DETECTOR = math.sin(math.pi / 2) / (math.pi / 2)  # of a full pixel, at Nyquist


@dataclass(frozen=True)
class Sentinel2Params(Degradation):
    """Ranges of the Sentinel-2-like sensor; all pairs are (low, high), drawn uniformly.

    The defaults follow the figures commonly quoted for the 10 m bands of MSI. System
    MTF at Nyquist: the requirement is 0.15 to 0.30 (Drusch et al. 2012; Gascon et al.
    2017), in-orbit estimates by band and direction lie between about 0.2 and 0.35, and
    Lanaras et al. 2018 give Gaussian PSFs of 0.44 to 0.55 pixels for the ten sharper
    bands, which is an MTF of 0.39 to 0.22. Co-registration of bands is required to be
    below 0.3 pixels (99.7 %). The signal-to-noise ratio is required to be 140 to 175 at
    reflectances near 0.3, that is 0.002 in reflectance. Radiances are digitised with 12
    bits. Not modelled: on-board compression and the resampling from L1B to L1C.

    Attributes:
        mtf: system MTF (optics and detector) at the Nyquist frequency of the LR grid;
            drawn per image, then per band and axis within `mtf_spread` of that. Up to
            0.5, for products that were resampled after they were sensed.
        mtf_spread: largest difference of a band and axis from its image's MTF.
        common_shift: largest shift of all bands together, LR pixels, per axis. The HR
            target does not shift, so the network cannot undo it and its results get
            blurred: keep it small.
        band_shift: largest shift of a band relative to the mean of the bands, LR
            pixels, per axis. Visible in the LR image as colour fringes, so learnable.
        reflectance_range: the span of reflectance that [0, 1] stands for. Noise and
            quantisation are reflectances; a narrow stretch makes them larger.
        read_noise: standard deviation of the constant part, reflectance.
        shot_noise: variance of the signal-dependent part per unit of reflectance.
        bits: of the digitisation.
        full_scale: reflectance at which the digitisation saturates.
        share_8bit: share of images that are rounded to 8 bits at the end, as in
            true-colour products.
    """

    mtf: tuple[float, float] = (0.15, 0.35)
    mtf_spread: float = 0.03
    common_shift: float = 0.05
    band_shift: float = 0.1
    reflectance_range: tuple[float, float] = (0.25, 1.0)
    read_noise: tuple[float, float] = (2e-4, 8e-4)
    shot_noise: tuple[float, float] = (2e-6, 1e-5)
    bits: int = 12
    full_scale: float = 1.5
    share_8bit: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mtf[0] <= self.mtf[1] <= 0.5:
            raise InputError(f"mtf must lie in (0, 0.5], not {self.mtf}.")
        if self.reflectance_range[0] <= 0:
            raise InputError(
                f"reflectance_range must be positive, not {self.reflectance_range}."
            )
        if not 1 <= self.bits <= 16 or self.full_scale <= 0:
            raise InputError(
                f"bits must be 1 to 16 and full_scale positive, not {self.bits} and "
                f"{self.full_scale}."
            )

    def degrade(
        self, hr: Tensor, size: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Record an image; see `degrade_sentinel2`."""
        return degrade_sentinel2(hr, size, generator, self)

    def still(self) -> Sentinel2Params:
        """Return the same sensor at its mean MTF, without shift, noise and rounding."""
        mean = (self.mtf[0] + self.mtf[1]) / 2
        return replace(
            self,
            mtf=(mean, mean),
            mtf_spread=0.0,
            common_shift=0.0,
            band_shift=0.0,
            reflectance_range=(1.0, 1.0),
            read_noise=(0.0, 0.0),
            shot_noise=(0.0, 0.0),
            bits=16,
            full_scale=1.0,
            share_8bit=0.0,
        )


def degrade_sentinel2(
    hr: Tensor,
    size: tuple[int, int],
    generator: torch.Generator,
    params: Sentinel2Params,
) -> Tensor:
    """Return (b, c, h, w) float32 in [0, 1] as a Sentinel-2-like sensor records it.

    Per image and band: point spread function, shift, area integration over the
    detector, noise, 12-bit digitisation. The first three are one linear operator per
    axis, found in closed form (`_sensor_matrix`), so ratios need not be whole. At the
    frame's edge the operator is renormalised over the pixels that exist.

    Args:
        hr: (b, c, H, W) float in [0, 1].
        size: LR height and width.
        generator: source of every draw; draws happen on its device.
        params: ranges of the draws.

    Raises:
        InputError: the batch is not 4-dimensional or LR is larger than HR.
    """
    check_size(hr, size)
    n, c, height, width = hr.shape
    with torch.autocast(hr.device.type, enabled=False):
        mtf, shift = _draw_optics(n, c, generator, params)
        mtf, shift = mtf.to(hr.device), shift.to(hr.device)
        rows = _sensor_matrix(height, size[0], mtf[..., 0], shift[..., 0])
        cols = _sensor_matrix(width, size[1], mtf[..., 1], shift[..., 1])
        lr = rows @ hr.float() @ cols.transpose(-1, -2)  # (b, c, h, w)
        return _digitise(lr, generator, params)


def _draw_optics(
    n: int, c: int, generator: torch.Generator, params: Sentinel2Params
) -> tuple[Tensor, Tensor]:
    """Return MTF at Nyquist and shift in LR pixels, both (n, c, 2) for (row, col)."""
    mtf = draw_uniform((n, 1, 1), params.mtf, generator)
    spread = (-params.mtf_spread, params.mtf_spread)
    mtf = (mtf + draw_uniform((n, c, 2), spread, generator)).clamp(*params.mtf)
    between = draw_uniform((n, c, 2), (-1.0, 1.0), generator)
    between = between - between.mean(1, keepdim=True)
    largest = between.abs().amax(1, keepdim=True).clamp_min(1.0)
    common = (-params.common_shift, params.common_shift)
    shift = draw_uniform((n, 1, 2), common, generator)
    return mtf, shift + params.band_shift * between / largest


def _sensor_matrix(length: int, n_lr: int, mtf: Tensor, shift: Tensor) -> Tensor:
    """Return the weight of each HR pixel in each LR pixel along one axis.

    The response is a Gaussian (optics) convolved with a box of one LR pixel (detector)
    and a box of one HR pixel (the HR image as areas, not points). The width of the
    Gaussian follows from the wanted MTF of the whole operator, with lengths in LR
    pixels: exp(-pi^2 sigma^2 / 2) * sinc(1/2) * sinc(n_lr / 2 length) equals `mtf`.

    Args:
        length: HR pixels along the axis.
        n_lr: LR pixels along the axis.
        mtf: (b, c) of the whole operator at the LR Nyquist frequency.
        shift: (b, c) LR pixels by which the response moves towards larger indices.

    Returns:
        (b, c, n_lr, length) float32; every row sums to 1.
    """
    half = math.pi * n_lr / length / 2
    boxes = _MTF_DETECTOR * math.sin(half) / half
    ratio = (mtf.float() / boxes).clamp(1e-4, 1 - 1e-4)
    sigma = ((-2 * ratio.log()).sqrt() / math.pi)[..., None, None]  # (b, c, 1, 1)
    centre = torch.arange(n_lr, device=mtf.device) + 0.5
    edge = torch.arange(length + 1, device=mtf.device) * (n_lr / length)
    offset = edge[None, :] - centre[:, None] - shift[..., None, None]
    offset = offset.clamp(-_SUPPORT, _SUPPORT)  # (b, c, n_lr, length + 1)
    below = _integral(offset + 0.5, sigma) - _integral(offset - 0.5, sigma)
    weight = below.diff(dim=-1).clamp_min(0)
    return weight / weight.sum(-1, keepdim=True)


def _integral(x: Tensor, sigma: Tensor) -> Tensor:
    """Return the integral of the Gaussian distribution function up to x."""
    u = x / sigma
    density = torch.exp(-0.5 * u.square()) / math.sqrt(2 * math.pi)
    below: Tensor = torch.special.ndtr(u)
    return x * below + sigma * density


def _digitise(
    lr: Tensor, generator: torch.Generator, params: Sentinel2Params
) -> Tensor:
    """Add noise and quantise; lr and the result are (b, c, h, w) in [0, 1]."""

    def draw(pair: tuple[float, float]) -> Tensor:
        return draw_uniform((lr.shape[0], 1, 1, 1), pair, generator).to(lr.device)

    span = draw(params.reflectance_range)
    reflectance = lr * span
    variance = draw(params.read_noise).square() + draw(params.shot_noise) * reflectance
    noise = torch.randn(lr.shape, generator=generator, device=generator.device)
    noisy = reflectance + variance.clamp_min(0).sqrt() * noise.to(lr.device)
    step = params.full_scale / (2**params.bits - 1)
    unit = ((noisy / step).round() * step / span).clamp(0, 1)
    return torch.where(
        draw((0.0, 1.0)) < params.share_8bit, round_levels(unit, 255), unit
    )
