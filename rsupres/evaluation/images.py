"""The HR images of a test, and how LR images are made of them.

HR images come from image files with their sidecars, or from a pack. LR images are made
by a degradation, or are images of another sensor that the pack holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rsupres.datasets.chips import Chip, crop_middle, cut, read_chip, to_uint8
from rsupres.datasets.packs import STORED, Pack, to_floats
from rsupres.datasets.sidecars import Sidecars
from rsupres.degradations.base import Degradation as Sensor
from rsupres.degradations.registry import make_degradation
from rsupres.errors import InputError
from rsupres.evaluation.resize import resize_bicubic, resize_bicubic_float

Pixels = NDArray[np.uint8]
_BICUBIC = "bicubic"


@dataclass(frozen=True)
class Degradation:
    """Settings by which LR images are made.

    Attributes:
        name: as results show it.
        degrade: (HR pixels, LR size, number of the image) to LR pixels, 8 bits.
        shrink: (SR in [0, 1], LR size) to the LR picture in [0, 1], unrounded and
            without noise; for the consistency.
    """

    name: str
    degrade: Callable[[Pixels, tuple[int, int], int], Pixels]
    shrink: Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def load_chips(
    images: Sequence[Path],
    max_side: int,
    sidecars: Sidecars,
    middle: int | None = None,
) -> Iterator[Chip]:
    """Yield images one by one, larger ones in parts.

    Parts with invalid pixels or of one colour are left out. The layers of an image are
    cut with it.

    Args:
        images: the files.
        max_side: largest side of a part, HR pixels.
        sidecars: where the layers of each image are found.
        middle: take only the middle of each image, this many HR pixels a side; None =
            all of it.

    Raises:
        InputError: an image or a layer cannot be read, or does not lie on its pixels.
    """
    for path in images:
        chip = sidecars.attach(read_chip(path), path)
        for part in cut(
            chip if middle is None else crop_middle(chip, middle), max_side
        ):
            if sidecars.lr and part.lr is None:
                raise InputError(
                    f"{path}: has an LR image of its own, so it cannot be cut.",
                    argument="lr_from",
                    remedies=("max_side",),
                )
            yield part


def chips_of_pack(pack: Pack) -> list[Chip]:
    """Return the crops of a pack as images, with their layers."""
    return [
        Chip(
            to_uint8(to_floats(crop)),
            np.ones(crop.shape[1:], bool),
            origin.gsd_m,
            f"{origin.source} {origin.gsd_m:g} m",
            layers={name: arrays[k] for name, arrays in pack.layers.items()},
        )
        for k, (crop, origin) in enumerate(
            zip(pack.crops, pack.meta.crops, strict=True)
        )
    ]


def bicubic_degradation() -> Degradation:
    """Return Pillow's antialiased bicubic, in 8 bits."""
    return Degradation(
        _BICUBIC,
        lambda hr, size, number: resize_bicubic(hr, size),
        resize_bicubic_float,
    )


def named_degradation(
    name: str, seed: int, parameters: Mapping[str, object]
) -> Degradation:
    """Return a degradation of `rsupres.degradations.registry`; bicubic is Pillow's.

    Every image has random draws of its own. SR is brought back to LR by the same sensor
    without random draws, or by bicubic where a degradation is nothing but draws.

    Args:
        name: such as "sentinel2".
        seed: of the draws.
        parameters: of the degradation, as JSON; missing ones have their defaults.

    Raises:
        InputError: an unknown name, parameter or value.
    """
    if name == _BICUBIC:
        return bicubic_degradation()
    sensor = make_degradation(name, parameters)
    still = sensor.still()

    def shrink(sr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if still is None:
            return resize_bicubic_float(sr, size)
        return _record(still, sr, size, torch.Generator())

    def degrade(hr: Pixels, size: tuple[int, int], number: int) -> Pixels:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        return to_uint8(_record(sensor, hr / np.float32(255), size, generator))

    return Degradation(name, degrade, shrink)


def stored_degradation(images: Sequence[Pixels]) -> Degradation:
    """Return the LR images of another sensor, (3, h, w) each, that a pack holds."""

    def look_up(hr: Pixels, size: tuple[int, int], number: int) -> Pixels:
        lr = images[number]
        if lr.shape[1:] != size:
            scale = Fraction(hr.shape[1], lr.shape[1])
            raise InputError(
                f"The pack holds LR images of another sensor at scale {scale} only; "
                "choose that scale, or a degradation.",
                remedies=(f"scales={scale}", "degradation"),
            )
        return lr

    return Degradation(STORED, look_up, resize_bicubic_float)


def _record(
    sensor: Sensor, hr: np.ndarray, size: tuple[int, int], generator: torch.Generator
) -> np.ndarray:
    """Return the LR image (c, h, w) that a sensor records of (c, H, W) in [0, 1]."""
    batch = torch.from_numpy(np.ascontiguousarray(hr, np.float32))[None]
    return sensor.degrade(batch, size, generator)[0].numpy()


def stored_lr(chip: Chip, size: tuple[int, int]) -> Pixels:
    """Return the LR image that came with an HR image.

    Some sets store it enlarged to the size of HR; the means over its blocks are then
    the LR image.

    Args:
        chip: with an LR image.
        size: height and width of LR at the scale of the test.

    Raises:
        InputError: it has another size.
    """
    assert chip.lr is not None
    height, width = chip.lr.shape[1:]
    if (height, width) == size:
        return chip.lr
    down, right = height // size[0], width // size[1]
    if (height, width) == (down * size[0], right * size[1]):
        blocks = chip.lr.reshape(3, size[0], down, size[1], right)
        return to_uint8(blocks.mean((2, 4)) / 255)
    raise InputError(
        f"{chip.name}: its LR image of {width} x {height} pixels does not fit "
        f"{size[0]} x {size[1]}; choose the scale of the stored images.",
        argument="lr_from",
        remedies=("scales",),
    )
