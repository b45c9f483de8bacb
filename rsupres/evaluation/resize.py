"""One image through one model, and Pillow's bicubic in both directions.

The smallest way to run a loaded model: an array in, an array out, no scene, no tiles,
no file. An image is one tile here; pictures too large for that go through
`rsupres.upscaling.pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import InputError, ModelOutputError
from rsupres.families.base import Conditions
from rsupres.grid import PixelWindow, lr_step

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rsupres.families.base import ModelSpec, SuperResolver

Size = tuple[int, int]


@dataclass(frozen=True)
class ArrayReader:
    """An LR image in memory as a `SceneReader`; all of it is valid.

    `given` are its conditions on its SR pixels: a batch of one, on the CPU.
    """

    lr: NDArray[np.float32]
    given: Conditions = field(default_factory=Conditions)

    @property
    def height(self) -> int:
        """LR rows."""
        return int(self.lr.shape[1])

    @property
    def width(self) -> int:
        """LR columns."""
        return int(self.lr.shape[2])

    def read(
        self, window: PixelWindow
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the pixels of a window inside the frame, and a mask of ones."""
        valid = np.ones((1, window.height, window.width), bool)
        return self.lr[:, *window.slices()], valid

    def read_conditions(self, window_sr: PixelWindow) -> Conditions:
        """Return the conditions on an SR window, and the style as it is."""
        rows, cols = window_sr.slices()
        return _on_tiles(self.given, lambda layer: layer[..., rows, cols])

    @property
    def style(self) -> Tensor | None:
        """The style image."""
        return self.given.style

    def allocate(
        self, name: str, shape: Sequence[int], dtype: str
    ) -> NDArray[np.generic]:
        """Return a zeroed array in memory."""
        return np.zeros(tuple(shape), dtype)


def upscale_array(
    model: SuperResolver,
    lr: NDArray[np.float32],
    scale: Fraction,
    device: torch.device,
    seed: int = 0,
    conditions: Conditions | None = None,
) -> NDArray[np.float32]:
    """Run a model on one image, as the pipeline would on a scene of one tile.

    The image is reflected at the bottom and the right up to sides that the scale and
    the model allow, and the result is cropped back.

    Args:
        model: from `rsupres.checkpoints.catalogue.load_model`.
        lr: (c, h, w) float32 in [0, 1], the bands of the model's roles in their order.
        scale: one that the model offers.
        device: where the model lives.
        seed: of the noise.
        conditions: on the SR pixels, a batch of one on the CPU; what the model does not
            look at is left out.

    Returns:
        (c, floor(h * scale), floor(w * scale)) float32, finite; not clipped.

    Raises:
        InputError: the model does not offer the scale, takes another number of bands,
            or needs a condition that is not given or not of the SR size.
        ModelOutputError: the model returned NaN or another shape.
    """
    import torch

    from rsupres.diffusion.noise import NoiseField
    from rsupres.families.base import TileBatch

    seen = _seen_by(model.spec, conditions or Conditions())
    _check_request(model, lr, scale, seen)
    height, width = lr.shape[1:]
    step = lr_step(scale, model.spec.multiple)
    below, right = -height % step, -width % step
    padded = np.pad(lr, ((0, 0), (0, below), (0, right)), mode="symmetric")
    seen = _on_tiles(seen, lambda layer: _pad(layer, below * scale, right * scale))
    noise = NoiseField(seed)
    with torch.inference_mode():
        window = PixelWindow(0, 0, *padded.shape[1:])
        batch = TileBatch(
            lr=torch.from_numpy(padded)[None].to(device),
            valid=torch.ones((1, 1, *padded.shape[1:]), dtype=torch.bool).to(device),
            conditions=seen.to(device),
            noise=noise,
            windows_lr=[window],
            windows_sr=[window.scaled(scale)],
            scene=model.prepare(ArrayReader(padded, seen), scale, noise),
        )
        sr = model.upscale(batch, scale)[0].float().cpu().numpy()
    wanted = (lr.shape[0], *window.scaled(scale)[2:])
    if sr.shape != wanted or not np.isfinite(sr).all():
        raise ModelOutputError(
            f"The model returned {sr.shape}, or numbers that are not finite, where "
            f"{wanted} was expected."
        )
    return np.asarray(sr[:, : floor(height * scale), : floor(width * scale)])


def sizes_at(height: int, width: int, scale: Fraction) -> tuple[Size, Size]:
    """Return the LR size and the HR size that a test at a scale uses of an HR image.

    LR sides are the largest multiples of the scale's denominator that fit, so that
    HR = LR * scale is whole and both pictures cover exactly the same ground. For whole
    scales this is the usual floor(side / scale).

    Raises:
        InputError: the image is too small for the scale.
    """
    step = scale.denominator
    lr = (floor(height / scale) // step * step, floor(width / scale) // step * step)
    if min(lr) < 1:
        raise InputError(f"An image of {height} x {width} is too small for x{scale}.")
    return lr, (int(lr[0] * scale), int(lr[1] * scale))


def resize_bicubic(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resize an 8-bit RGB image with Pillow's BICUBIC: a = -0.5, antialiased.

    Args:
        image: (3, h, w) uint8.
        size: height and width wanted.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    small = picture.resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(small).transpose(2, 0, 1)


def resize_bicubic_float(image: np.ndarray, size: Size) -> NDArray[np.float32]:
    """Resize each band with Pillow's BICUBIC in float32: no rounding, no clipping.

    Args:
        image: (c, h, w).
        size: height and width wanted.
    """
    from PIL import Image

    bands = [
        Image.fromarray(np.ascontiguousarray(band, np.float32)).resize(
            size[::-1], Image.Resampling.BICUBIC
        )
        for band in image
    ]
    return np.stack([np.asarray(band) for band in bands])


def _seen_by(spec: ModelSpec, conditions: Conditions) -> Conditions:
    """Return the conditions that a model looks at."""
    names = spec.needs | spec.accepts
    if "reference" in names:
        names = names | {"reference_valid"}
    given = conditions.given()
    return Conditions(**{name: given[name] for name in given if name in names})


def _on_tiles(conditions: Conditions, change: Callable[[Tensor], Tensor]) -> Conditions:
    """Return conditions with what lies on SR pixels changed; a style does not."""
    return Conditions(
        **{
            name: value if name == "style" else change(value)
            for name, value in conditions.given().items()
        }
    )


def _pad(layer: Tensor, below: Fraction, right: Fraction) -> Tensor:
    """Reflect (1, c, H, W) at the bottom and the right, as the image is."""
    import torch

    rows, cols = (
        torch.from_numpy(np.pad(np.arange(length), (0, int(more)), mode="symmetric"))
        for length, more in zip(layer.shape[2:], (below, right), strict=True)
    )
    return layer[:, :, rows][..., cols]


def _check_request(
    model: SuperResolver,
    lr: NDArray[np.float32],
    scale: Fraction,
    conditions: Conditions,
) -> None:
    spec = model.spec
    if not spec.scales.offers(scale):
        raise InputError(
            f"The model of family {spec.family} offers the scales {spec.scales}, not "
            f"{scale}."
        )
    given = conditions.given()
    if missing := sorted(spec.needs - given.keys()):
        raise InputError(
            f"The model of family {spec.family} needs {', '.join(missing)}."
        )
    size = tuple(floor(side * scale) for side in lr.shape[1:])
    for name, layer in given.items():
        if name != "style" and tuple(layer.shape[2:]) != size:
            raise InputError(
                f"{name} has {tuple(layer.shape[2:])} pixels, the SR picture {size}."
            )
    if spec.bands and lr.shape[0] != len(spec.bands):
        raise InputError(
            f"The model takes {len(spec.bands)} bands ({', '.join(spec.bands)}), the "
            f"image has {lr.shape[0]}."
        )
