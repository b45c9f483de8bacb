"""Random tones and contrasts of HR images, an augmentation before the degradation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rsupres.degradations.base import draw_uniform
from rsupres.degradations.ranges import Ranges
from rsupres.errors import InputError


@dataclass(frozen=True)
class ToneParams(Ranges):
    """Shares and strengths of the changes of `tone`; pairs are (low, high).

    Attributes:
        share_linear: share of images turned into linear reflectance: display gamma
            undone (`linear_gamma`), scaled by `linear_span`, with a haze of
            `linear_haze` added. The result is dark and flat, like a Sentinel-2 scene
            with the stretch of 0 to 1 reflectance.
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
        super().__post_init__()
        if not 0 <= self.share_linear + self.share_display <= 1:
            raise InputError("share_linear and share_display must add up to at most 1.")


def tone(hr: Tensor, generator: torch.Generator, params: ToneParams) -> Tensor:
    """Return a batch (b, c, H, W) float32, the tone of some of its images changed.

    Every change is monotone per band, so edges stay where they are; only clipping to
    [0, 1] can lose detail. Apply it before the degradation, so that LR and HR share it.

    Args:
        hr: (b, c, H, W) float in [0, 1].
        generator: source of every draw; draws happen on its device.
        params: shares and ranges.
    """
    n, c = hr.shape[:2]

    def draw(pair: tuple[float, float], bands: int = 1) -> Tensor:
        return draw_uniform((n, bands, 1, 1), pair, generator).to(hr.device)

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
