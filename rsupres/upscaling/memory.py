"""Present an image and its conditions in memory as a scene that a model reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from rsupres.families.base import Conditions
from rsupres.grid import PixelWindow
from rsupres.upscaling.preparation.lr_rows import LrRows

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ArrayReader:
    """An LR image in memory as a `SceneReader`; all of it is valid.

    `given` are its conditions on its SR pixels: a batch of one, on the CPU.
    """

    lr: FloatArray
    given: Conditions = field(default_factory=Conditions)

    @property
    def height(self) -> int:
        """LR rows."""
        return int(self.lr.shape[1])

    @property
    def width(self) -> int:
        """LR columns."""
        return int(self.lr.shape[2])

    def read(self, window: PixelWindow) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Return the pixels of a window inside the frame, and a mask of ones."""
        valid = np.ones((1, window.height, window.width), bool)
        return self.lr[:, *window.slices()], valid

    def read_conditions(self, window_sr: PixelWindow) -> Conditions:
        """Return the conditions on an SR window, and the style as it is."""
        rows, cols = window_sr.slices()
        return on_pixels(self.given, lambda layer: layer[..., rows, cols])

    def read_rows(self, start: int, stop: int) -> LrRows:
        """Return LR rows [start, stop) of the frame."""
        window = PixelWindow(start, 0, stop - start, self.width)
        pixels, valid = self.read(window)
        return LrRows(start, pixels, None, None, valid)

    @property
    def style(self) -> Tensor | None:
        """The style image."""
        return self.given.style

    def allocate(
        self, name: str, shape: Sequence[int], dtype: str
    ) -> NDArray[np.generic]:
        """Return a zeroed array in memory."""
        return np.zeros(tuple(shape), dtype)


@dataclass(frozen=True)
class ArrayConditions:
    """Conditions in memory, read tile by tile: `TileConditions` of an inference.

    `given` are on the SR pixels of the padded frame: a batch of one, on the CPU.
    """

    given: Conditions

    @property
    def has_tiles(self) -> bool:
        """Whether there is more than a style."""
        return bool(self.given.given().keys() - {"style"})

    def read(self, window: PixelWindow) -> dict[str, np.ndarray]:
        """Return (c, H, W) by name for an SR window."""
        layers = self.given.given()
        layers.pop("style", None)
        return {
            name: layer[0, :, *window.slices()].numpy()
            for name, layer in layers.items()
        }

    def conditions(
        self, tiles: Sequence[Mapping[str, np.ndarray]], sample: int = 0
    ) -> Conditions:
        """Return windows of one size that `read` gave as a batch, with the style."""
        import torch

        layers = {
            name: torch.from_numpy(np.stack([tile[name] for tile in tiles]))
            for name in (tiles[0] if tiles else ())
        }
        return Conditions(**layers, style=self.given.style)


class GivenArrays(TypedDict, total=False):
    """Inputs of a model besides the image, as arrays; None = not given.

    Attributes:
        vector_map: (3, H, W) in [0, 1], in the colours of the model's legend.
        reference: (c, H, W) in [0, 1], an earlier sharp image in the same bands.
        reference_valid: (H, W), where there is a reference; None = everywhere.
        change_mask: (H, W), 0 = unchanged, else a class, 255 = not known.
        style: (c, any, any) in [0, 1], an image whose look is followed.
    """

    vector_map: NDArray[np.number] | None
    reference: NDArray[np.number] | None
    reference_valid: NDArray[np.bool_] | None
    change_mask: NDArray[np.uint8] | None
    style: NDArray[np.number] | None


def as_conditions(
    vector_map: NDArray[np.number] | None = None,
    reference: NDArray[np.number] | None = None,
    reference_valid: NDArray[np.bool_] | None = None,
    change_mask: NDArray[np.uint8] | None = None,
    style: NDArray[np.number] | None = None,
) -> Conditions:
    """Return arrays as conditions, a batch of one on the CPU; see `GivenArrays`.

    Args:
        vector_map: (3, H, W).
        reference: (c, H, W).
        reference_valid: (H, W).
        change_mask: (H, W) codes.
        style: (c, h, w), of any size.
    """
    import torch

    def layer(values: NDArray[np.generic] | None, dtype: type) -> Tensor | None:
        if values is None:
            return None
        whole: NDArray[np.generic] = np.ascontiguousarray(values, dtype)
        return torch.from_numpy(whole.reshape(1, -1, *whole.shape[-2:]))

    if reference is not None and reference_valid is None:
        reference_valid = np.ones(reference.shape[-2:], bool)
    shown = layer(style, np.float32)
    return Conditions(
        vector_map=layer(vector_map, np.float32),
        reference=layer(reference, np.float32),
        reference_valid=layer(reference_valid, np.bool_),
        change_mask=layer(change_mask, np.uint8),
        style=None if shown is None else shown[0],
    )


def on_pixels(conditions: Conditions, change: Callable[[Tensor], Tensor]) -> Conditions:
    """Return conditions with a function applied to those on SR pixels.

    Args:
        conditions: of a window.
        change: maps (1, c, H, W) to another size.
    """
    return Conditions(
        **{
            name: value if name == "style" else change(value)
            for name, value in conditions.given().items()
        }
    )


def reflect(layer: Tensor, below: Fraction, right: Fraction) -> Tensor:
    """Reflect (1, c, H, W) at the bottom and the right, as the image is.

    Args:
        layer: (1, c, H, W).
        below: SR rows that are added.
        right: SR columns that are added.

    Returns:
        (1, c, H + below, W + right).
    """
    import torch

    rows, cols = (
        torch.from_numpy(np.pad(np.arange(length), (0, int(more)), mode="symmetric"))
        for length, more in zip(layer.shape[2:], (below, right), strict=True)
    )
    return layer[:, :, rows][..., cols]
