"""Turn arrays into pictures that a page holds: limits, colours, WebP and PNG.

Pixels that are not known become transparent. WebP is lossless where a picture is shown
pixel by pixel.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

PERCENTILES = (1.0, 99.0)  # of the input; these values become black and white
LOSSY_QUALITY = 82
# Dark blue to yellow with rising lightness, so that it also reads without colour.
RAMP = ((13, 8, 68), (84, 2, 163), (185, 50, 137), (237, 121, 83), (249, 240, 64))
# Blue (lower) over white to red (higher), equally dark at both ends.
DIVERGING = ((33, 82, 156), (140, 180, 220), (247, 247, 247), (233, 160, 130))
DIVERGING_RAMP = (*DIVERGING, (165, 32, 40))


@dataclass(frozen=True)
class Limits:
    """Numbers of a file that are shown black and white, per band.

    Attributes:
        low: shown as 0.
        high: shown as 255.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def to_json(self) -> dict[str, list[float]]:
        """Return JSON-able values."""
        return {"low": list(self.low), "high": list(self.high)}


def find_limits(pixels: np.ndarray) -> Limits:
    """Return limits by percentiles of the known pixels of (c, H, W), NaN elsewhere."""
    low, high = [], []
    for band in pixels:
        known = band[np.isfinite(band)]
        pair = np.percentile(known, PERCENTILES) if known.size else (0.0, 1.0)
        low.append(float(pair[0]))
        high.append(float(pair[1]) if pair[1] > pair[0] else float(pair[0]) + 1)
    return Limits(tuple(low), tuple(high))


def shade(pixels: np.ndarray, limits: Limits) -> Bytes:
    """Return (H, W, 4) RGBA: limits become 0 and 255, unknown pixels transparent.

    Args:
        pixels: (c, H, W), NaN where not known; one band is shown grey.
        limits: of the bands.
    """
    low = np.array(limits.low, np.float64)[:, None, None]
    span = np.array(limits.high, np.float64)[:, None, None] - low
    unit = np.clip((np.nan_to_num(pixels) - low) / span, 0, 1)
    grey = np.floor(unit * 255 + 0.5).astype(np.uint8)
    if len(grey) == 1:
        grey = np.repeat(grey, 3, axis=0)
    alpha = np.where(np.isfinite(pixels).all(0), 255, 0).astype(np.uint8)
    return np.moveaxis(np.concatenate([grey, alpha[None]]), 0, 2)


def colour_by(
    values: np.ndarray,
    low: float,
    high: float,
    ramp: Sequence[tuple[int, int, int]] = RAMP,
) -> Bytes:
    """Return (H, W, 4) RGBA of values (H, W) on a ramp of colours from low to high.

    Args:
        values: (H, W).
        low: value of the first colour.
        high: value of the last colour.
        ramp: red, green and blue of each colour, 0 to 255.
    """
    unit = np.clip((np.nan_to_num(values) - low) / max(high - low, 1e-12), 0, 1)
    stops = np.linspace(0, 1, len(ramp))
    bands = [np.interp(unit, stops, [stop[k] for stop in ramp]) for k in range(3)]
    alpha = np.where(np.isfinite(values), 255.0, 0.0)
    return np.stack([*bands, alpha], axis=2).round().astype(np.uint8)


def encode(rgba: Bytes, *, lossless: bool = True) -> str:
    """Return a picture as a `data:` URI.

    Args:
        rgba: (H, W, 4).
        lossless: keep every pixel; else compress it as a photograph.
    """
    from PIL import Image

    has_alpha = bool((rgba[..., 3] < 255).any())
    picture = Image.fromarray(rgba if has_alpha else rgba[..., :3])
    stream = io.BytesIO()
    if lossless:
        picture.save(stream, "WEBP", lossless=True, quality=50, method=2, exact=True)
    else:
        picture.save(stream, "WEBP", quality=LOSSY_QUALITY, method=3)
    return as_uri(stream.getvalue(), "image/webp")


def as_uri(content: bytes, kind: str) -> str:
    """Return bytes as a `data:` URI of a media type.

    Args:
        content: the bytes.
        kind: media type, such as "image/png".
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
