"""Does Ref-Diff find how its reference lies, and doubt what the scene does not show?"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from rsupres.blocks.separable import enlarge
from rsupres.families.base import Conditions
from rsupres.families.refdiff.config import MINI
from rsupres.families.refdiff.fitting import (
    Fit,
    displace,
    find_fit,
    local_share,
    reduce,
)
from rsupres.families.refdiff.images import make_frame
from rsupres.families.refdiff.lattice import fit_of_tiles, fit_scene
from rsupres.grid import PixelWindow

SCALE = Fraction(8)
SIDE = 24


def ground(seed: int, side: int = SIDE) -> Tensor:
    """Return an SR image with detail at every scale, (1, 3, 8 side, 8 side)."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, side * 8, side * 8)
    for step in (2, 4, 8, 16):
        noise = torch.rand(
            1, 3, side * 8 // step, side * 8 // step, generator=generator
        )
        image += torch.nn.functional.interpolate(noise, scale_factor=step) / 4
    return image


def everywhere(image: Tensor) -> Tensor:
    return torch.ones_like(image[:, :1], dtype=torch.bool)


def numbers(fit: Fit) -> list[float]:
    return [float(part) for part in fit]


@pytest.mark.parametrize(("rows", "cols"), [(0.0, 0.0), (2.0, -1.0), (-1.0, 3.0)])
def test_a_displaced_reference_is_moved_back(rows: float, cols: float) -> None:
    image = ground(1)
    place = [torch.full((1, 1, 1, 1), float(value)) for value in (-rows, -cols)]
    moved = displace(image, *place)
    fit = find_fit(reduce(image, SCALE), moved, everywhere(image), SCALE)
    found = numbers(fit)
    assert found[:2] == pytest.approx([rows, cols], abs=0.35)
    assert found[2] == pytest.approx(1.0, abs=0.1)
    restored = displace(moved, fit.rows, fit.cols)[..., 16:-16, 16:-16]
    error = (restored - image[..., 16:-16, 16:-16]).abs().mean()
    assert float(error) < 0.02


def test_another_tone_changes_neither_place_nor_what_is_shown() -> None:
    image = ground(2)
    lr = reduce(image, SCALE)
    fit = find_fit(lr, 0.2 + 0.5 * image, everywhere(image), SCALE)
    assert numbers(fit)[:2] == pytest.approx([0.0, 0.0], abs=0.2)
    assert numbers(fit)[2] == pytest.approx(1.3, abs=0.01)  # as much as is allowed


def test_another_place_has_next_to_no_share() -> None:
    image, other = ground(3), ground(4)
    lr = reduce(image, SCALE)
    assert numbers(find_fit(lr, other, everywhere(image), SCALE))[2] < 0.1
    frame = make_frame(lr, other, None, None, SCALE, MINI)
    shown = frame.guidance.reference - frame.guidance.lr
    plain = make_frame(lr, image, None, None, SCALE, MINI)
    assert float(shown.std()) < 0.3 * float(
        (plain.guidance.reference - plain.guidance.lr).std()
    )
    assert float(frame.guidance.mask[:, :1].mean()) > 0.8


def test_where_half_shows_another_place_the_other_half_is_kept() -> None:
    image, other = ground(5), ground(6)
    mixed = torch.cat([image[..., :96], other[..., 96:]], 3)
    lr, use = reduce(image, SCALE), everywhere(image)
    region = find_fit(lr, mixed, use, SCALE)
    share = local_share(lr, reduce(mixed, SCALE), use, region, SCALE)[0, 0]
    assert float(share[4:-4, 2:8].mean()) > 0.8
    assert float(share[4:-4, 16:22].mean()) < 0.35


def test_what_is_not_to_be_used_has_no_say() -> None:
    image, other = ground(7), ground(8)
    mixed = torch.cat([image[..., :96], other[..., 96:]], 3)
    use = everywhere(image)
    use[..., 96:] = False
    fit = find_fit(reduce(image, SCALE), mixed, use, SCALE)
    assert numbers(fit)[2] == pytest.approx(1.0, abs=0.1)


class Scene:
    """A scene in memory with a reference that lies off by more in its lower half."""

    def __init__(self, side: int) -> None:
        self.height = self.width = side
        self.image = ground(9, side)
        self.reference = self.image.clone()
        lower = torch.roll(self.image, (3, 0), (2, 3))
        self.reference[..., side * 4 :, :] = lower[..., side * 4 :, :]
        self.lr = reduce(self.image, SCALE)

    def read(self, window: PixelWindow) -> tuple[np.ndarray, np.ndarray]:
        pixels = self.lr[0][:, *window.slices()].numpy()
        return pixels, np.ones((1, *pixels.shape[1:]), bool)

    def read_conditions(self, window: PixelWindow) -> Conditions:
        part = self.reference[:, :, *window.slices()]
        return Conditions(reference=part, reference_valid=everywhere(part))

    def allocate(self, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.zeros(shape, dtype)


@pytest.mark.slow
def test_a_large_scene_is_fitted_place_by_place_and_tiles_agree() -> None:
    scene = Scene(128)
    context = fit_scene(scene, SCALE, MINI)  # type: ignore[arg-type]  # all that it reads
    assert context.arrays["fit"].shape == (4, 3, 3)
    rows = context.arrays["fit"][0]
    assert rows[0] == pytest.approx(0.0, abs=0.4)
    assert rows[-1] == pytest.approx(3.0, abs=0.4)
    whole, part = (
        fit_of_tiles(context, [window], SCALE, torch.device("cpu"))
        for window in (PixelWindow(0, 0, 128, 128), PixelWindow(40, 24, 32, 48))
    )
    assert whole is not None
    assert part is not None
    assert torch.allclose(whole.rows[..., 320:576, 192:576], part.rows, atol=1e-5)
    assert torch.allclose(whole.share[..., 40:72, 24:72], part.share, atol=1e-5)


def test_a_strange_reference_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(24)
    scene.reference = ground(10, 24)
    fit_scene(scene, SCALE, MINI)  # type: ignore[arg-type]  # all that it reads
    assert "Does it show the same place?" in caplog.text


def test_enlarging_is_what_is_left_without_a_reference() -> None:
    lr = reduce(ground(11), SCALE)
    frame = make_frame(lr, None, None, None, SCALE, MINI)
    assert torch.allclose(
        (frame.guidance.reference + 1) / 2, enlarge(lr, SCALE), atol=1e-6
    )
