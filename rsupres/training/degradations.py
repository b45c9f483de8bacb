"""From a sharp image to what a coarser sensor would have recorded of it.

Plain functions on batches of tensors, with the randomness drawn from an explicit
generator: two degradations (`degrade_bicubic`, `degrade_sentinel2`) and an augmentation
of tones (`tone`) that goes before them. No files, no crops, no training state. The HR
image is never moved: whatever shift is simulated, LR pixel (i, j) still stands for the
HR ground that `TileGrid` says it stands for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rsupres.errors import InputError

_SUPPORT = 4.0  # LR pixels; the widest PSF, 0.5 + 5 sigma, ends before it
_MTF_DETECTOR = math.sin(math.pi / 2) / (math.pi / 2)  # of a full pixel, at Nyquist


_Params = TypeVar("_Params", "Sentinel2Params", "ToneParams")


@dataclass(frozen=True)
class Sentinel2Params:
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
            drawn per image, then per band and axis within `mtf_spread` of that.
        mtf_spread: largest difference of a band and axis from its image's MTF.
        common_shift: largest shift of all bands together, LR pixels, per axis. The HR
            target stays, so the network cannot learn to undo it and answers with blur:
            keep it small.
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
        _check_pairs(self)
        if not 0 < self.mtf[0] <= self.mtf[1] <= 0.4:
            raise InputError(f"mtf must lie in (0, 0.4], not {self.mtf}.")
        if self.reflectance_range[0] <= 0:
            raise InputError(
                f"reflectance_range must be positive, not {self.reflectance_range}."
            )
        if not 1 <= self.bits <= 16 or self.full_scale <= 0:
            raise InputError(
                f"bits must be 1 to 16 and full_scale positive, not {self.bits} and "
                f"{self.full_scale}."
            )

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

    def to_json(self) -> dict[str, object]:
        """Return plain numbers and lists."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Sentinel2Params:
        """Return the parameters of `to_json`'s form; missing keys keep the default.

        Raises:
            InputError: an unknown key, or a value that is no number or pair of numbers.
        """
        return _replace(cls(), values)


@dataclass(frozen=True)
class ToneParams:
    """How often and how strongly `tone` changes an image; pairs are (low, high).

    Attributes:
        share_linear: share of images turned into linear reflectance: display gamma
            undone (`linear_gamma`), compressed to `linear_span` of the range, lifted
            by a haze of `linear_haze`. This is what a Sentinel-2 scene with the stretch
            0..1 reflectance looks like: dark and flat.
        share_display: share of images with another display tone: `gamma`, then
            `contrast` about the image's mean, then `brightness` added.
        linear_gamma: exponent of the display decoding.
        linear_span: factor after decoding.
        linear_haze: added after decoding; the same for all bands, times a band factor.
        gamma: exponent of display tones.
        contrast: factor about the mean.
        brightness: added.
        band_gain: largest relative change of a band against the others.
    """

    share_linear: float = 0.3
    share_display: float = 0.3
    linear_gamma: tuple[float, float] = (1.4, 2.4)
    linear_span: tuple[float, float] = (0.15, 0.8)
    linear_haze: tuple[float, float] = (0.0, 0.12)
    gamma: tuple[float, float] = (0.7, 1.4)
    contrast: tuple[float, float] = (0.5, 1.25)
    brightness: tuple[float, float] = (-0.1, 0.1)
    band_gain: float = 0.06

    def __post_init__(self) -> None:
        _check_pairs(self)
        if not 0 <= self.share_linear + self.share_display <= 1:
            raise InputError("share_linear and share_display must add up to at most 1.")

    def to_json(self) -> dict[str, object]:
        """Return plain numbers and lists."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> ToneParams:
        """Return the parameters of `to_json`'s form; missing keys keep the default.

        Raises:
            InputError: an unknown key, or a value that is no number or pair of numbers.
        """
        return _replace(cls(), values)


def degrade_bicubic(hr: Tensor, size: tuple[int, int], levels: int = 255) -> Tensor:
    """Downscale as Pillow's BICUBIC does with an 8-bit image.

    Antialiased cubic convolution with a = -0.5, columns first and then rows, rounded
    and clipped after each pass; differs from Pillow by at most one level, where a value
    falls on a rounding boundary. Some releases of Pillow take the rows first when an
    image is more than 1.5 times as high as wide; there the clipping of overshoots can
    differ by a few levels. Any ratio of at least 1, whole or not.

    Args:
        hr: (b, c, H, W) float in [0, 1].
        size: LR height and width.
        levels: number of steps that the range is rounded to; 255 as in Pillow.

    Returns:
        (b, c, h, w) float32 in [0, 1], multiples of 1 / levels.

    Raises:
        InputError: the batch is not 4-dimensional or LR is larger than HR.
    """
    _check_size(hr, size)
    with torch.autocast(hr.device.type, enabled=False):
        wide = hr.float()
        wide = _round(_resize(wide, (wide.shape[2], size[1])), levels)
        return _round(_resize(wide, size), levels)


def degrade_sentinel2(
    hr: Tensor,
    size: tuple[int, int],
    generator: torch.Generator,
    params: Sentinel2Params,
) -> Tensor:
    """Record an image with a Sentinel-2-like sensor of the LR grid.

    Per image and band: point spread function, shift, area integration over the
    detector, noise, 12-bit digitisation. The first three are one linear operator per
    axis, found in closed form (`_sensor_matrix`), so ratios need not be whole. At the
    frame's edge the operator is renormalised over the pixels that exist.

    Args:
        hr: (b, c, H, W) float in [0, 1].
        size: LR height and width.
        generator: source of every draw; draws happen on its device.
        params: ranges of the draws.

    Returns:
        (b, c, h, w) float32 in [0, 1].

    Raises:
        InputError: the batch is not 4-dimensional or LR is larger than HR.
    """
    _check_size(hr, size)
    n, c, height, width = hr.shape
    with torch.autocast(hr.device.type, enabled=False):
        mtf, shift = _draw_optics(n, c, generator, params)
        mtf, shift = mtf.to(hr.device), shift.to(hr.device)
        rows = _sensor_matrix(height, size[0], mtf[..., 0], shift[..., 0])
        cols = _sensor_matrix(width, size[1], mtf[..., 1], shift[..., 1])
        lr = rows @ hr.float() @ cols.transpose(-1, -2)  # (b, c, h, w)
        return _digitise(lr, generator, params)


def tone(hr: Tensor, generator: torch.Generator, params: ToneParams) -> Tensor:
    """Give each image of a batch another tone, or leave it as it is.

    Every change is monotone per band, so edges stay where they are; only clipping to
    [0, 1] can lose detail. Apply it before the degradation, so that LR and HR share it.

    Args:
        hr: (b, c, H, W) float in [0, 1].
        generator: source of every draw; draws happen on its device.
        params: shares and ranges.

    Returns:
        (b, c, H, W) float32 in [0, 1], a new tensor.
    """
    n, c = hr.shape[:2]

    def draw(pair: tuple[float, float], bands: int = 1) -> Tensor:
        return _uniform((n, bands, 1, 1), pair, generator).to(hr.device)

    choice = draw((0.0, 1.0))
    gain = draw((1 - params.band_gain, 1 + params.band_gain), c)
    image = hr.float().clamp(0, 1)
    linear = image ** draw(params.linear_gamma) * draw(params.linear_span) * gain
    linear = linear + draw(params.linear_haze) * draw((0.6, 1.0), c)
    display = image ** draw(params.gamma)
    mean = display.mean((1, 2, 3), keepdim=True)
    display = (display - mean) * draw(params.contrast) * gain + mean
    display = display + draw(params.brightness)
    toned = torch.where(
        choice < params.share_linear + params.share_display, display, image
    )
    return torch.where(choice < params.share_linear, linear, toned).clamp(0, 1)


def _draw_optics(
    n: int, c: int, generator: torch.Generator, params: Sentinel2Params
) -> tuple[Tensor, Tensor]:
    """Return MTF at Nyquist and shift in LR pixels, both (n, c, 2) for (row, col)."""
    mtf = _uniform((n, 1, 1), params.mtf, generator)
    spread = (-params.mtf_spread, params.mtf_spread)
    mtf = (mtf + _uniform((n, c, 2), spread, generator)).clamp(*params.mtf)
    between = _uniform((n, c, 2), (-1.0, 1.0), generator)
    between = between - between.mean(1, keepdim=True)
    largest = between.abs().amax(1, keepdim=True).clamp_min(1.0)
    common = (-params.common_shift, params.common_shift)
    shift = _uniform((n, 1, 2), common, generator)
    return mtf, shift + params.band_shift * between / largest


def _sensor_matrix(length: int, n_lr: int, mtf: Tensor, shift: Tensor) -> Tensor:
    """Return what each LR pixel gathers from each HR pixel along one axis.

    The response is a Gaussian (optics) convolved with a box of one LR pixel (detector)
    and a box of one HR pixel (the HR image as areas, not points). The Gaussian is what
    the boxes leave to do: exp(-pi^2 sigma^2 / 2) * sinc(1/2) * sinc(n_lr / 2 length)
    equals `mtf`, with lengths in LR pixels, so the whole operator has that MTF.

    Args:
        length: HR pixels along the axis.
        n_lr: LR pixels along the axis.
        mtf: (b, c) of the whole operator at the LR Nyquist frequency.
        shift: (b, c) LR pixels by which the sensor looks towards larger indices.

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
        return _uniform((lr.shape[0], 1, 1, 1), pair, generator).to(lr.device)

    span = draw(params.reflectance_range)
    reflectance = lr * span
    variance = draw(params.read_noise).square() + draw(params.shot_noise) * reflectance
    noise = torch.randn(lr.shape, generator=generator, device=generator.device)
    noisy = reflectance + variance.clamp_min(0).sqrt() * noise.to(lr.device)
    step = params.full_scale / (2**params.bits - 1)
    unit = ((noisy / step).round() * step / span).clamp(0, 1)
    return torch.where(draw((0.0, 1.0)) < params.share_8bit, _round(unit, 255), unit)


def _uniform(
    shape: tuple[int, ...], pair: tuple[float, float], generator: torch.Generator
) -> Tensor:
    low, high = pair
    unit = torch.rand(shape, generator=generator, device=generator.device)
    return low + (high - low) * unit


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[2:] == size:
        return image
    return F.interpolate(image, size=size, mode="bicubic", antialias=True)


def _round(image: Tensor, levels: int) -> Tensor:
    """Round half up, as Pillow does, to multiples of 1 / levels in [0, 1]."""
    return (image * levels + 0.5).floor().clamp(0, levels) / levels


def _check_size(hr: Tensor, size: tuple[int, int]) -> None:
    if hr.ndim != 4 or not all(
        0 < n_lr <= n_hr for n_lr, n_hr in zip(size, hr.shape[2:], strict=True)
    ):
        raise InputError(
            f"Degradation turns (b, c, H, W) into an LR size no larger than H x W, not "
            f"{tuple(hr.shape)} into {size}."
        )


def _check_pairs(params: Sentinel2Params | ToneParams) -> None:
    """Check that pairs are ordered and that no single number is negative."""
    for field in fields(params):
        value = getattr(params, field.name)
        pair = value if isinstance(value, tuple) else (0, value)
        if len(pair) != 2 or not pair[0] <= pair[1]:
            raise InputError(f"{field.name} is out of range: {value}.")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _replace(params: _Params, values: Mapping[str, object]) -> _Params:
    """Return the parameters with some fields read from plain numbers and lists."""
    known = asdict(params)
    read: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(
                f"Unknown degradation parameter {name!r}; known: {', '.join(known)}."
            )
        wanted = known[name]
        numbers = list(value) if isinstance(value, (list, tuple)) else [value]
        is_number = all(isinstance(v, (int, float)) for v in numbers)
        if not is_number or len(numbers) != (2 if isinstance(wanted, tuple) else 1):
            raise InputError(f"Degradation parameter {name}: {value!r} does not fit.")
        if isinstance(wanted, int) and not isinstance(value, int):
            raise InputError(f"Degradation parameter {name} is whole, not {value!r}.")
        read[name] = tuple(numbers) if isinstance(wanted, tuple) else numbers[0]
    return replace(params, **read)
