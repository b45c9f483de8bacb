"""Compress images as JPEG or JPEG 2000 and decode them again, with Pillow."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsupres.degradations.base import draw_uniform
from rsupres.errors import InputError

Subsampling = Literal["4:2:0", "4:4:4"]


def compress_images(
    x: Tensor, qualities: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Return images after JPEG compression, each with a random quality.

    Args:
        x: (b, 3, h, w) in [0, 1].
        qualities: smallest and largest quality.
        generator: of the qualities.
    """
    drawn = draw_uniform((len(x),), (qualities[0], qualities[1] + 1.0), generator)
    images = (x.detach() * 255.0 + 0.5).floor().clamp(0, 255).byte().cpu().numpy()
    decoded = [
        recompress(image, min(int(quality), qualities[1]))
        for image, quality in zip(images, drawn, strict=True)
    ]
    return torch.from_numpy(np.stack(decoded)).to(x.device).float() / 255.0


def recompress(
    image: NDArray[np.uint8], quality: int, subsampling: Subsampling = "4:2:0"
) -> NDArray[np.uint8]:
    """Return an image after JPEG compression.

    Args:
        image: (3, h, w), red, green and blue.
        quality: of JPEG, 1 to 95.
        subsampling: of the colours.

    Raises:
        InputError: Pillow is not installed.
    """
    return _through(image, "JPEG", quality=quality, subsampling=subsampling)


def recompress_2000(image: NDArray[np.uint8], rate: float) -> NDArray[np.uint8]:
    """Return an image after lossy JPEG 2000.

    Args:
        image: (3, h, w), red, green and blue.
        rate: compression ratio, bytes of the pixels over bytes of the file.

    Raises:
        InputError: Pillow is not installed.
    """
    options = {"quality_mode": "rates", "quality_layers": [rate], "irreversible": True}
    return _through(image, "JPEG2000", **options)


def _through(image: NDArray[np.uint8], kind: str, **options: Any) -> NDArray[np.uint8]:
    """Return an image after writing it as this kind of file."""
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(
            "This degradation compresses with Pillow, which is not installed; run pip"
            " install 'rsupres[train]'."
        ) from error
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.save(buffer, kind, **options)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded).transpose(2, 0, 1).copy()
