"""Colours of mapped ground: what the LR image says of each class of a map."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from rsupres.blocks.separable import enlarge
from rsupres.degradations.sentinel2 import Sentinel2Params
from rsupres.families.sgdm.unmixing import _wanted, class_masks, unmix

SCALE = 8
LAND, BUILDING, ROAD = (245, 240, 228), (226, 224, 210), (254, 254, 254)
GROUND, ROOF = (0.3, 0.4, 0.2), (0.6, 0.3, 0.25)


def painted(
    mask: Tensor, inside: tuple[float, ...], outside: tuple[float, ...]
) -> Tensor:
    """Return (1, 3, H, W) of one colour in a mask (H, W) and another outside."""
    colours = (torch.tensor(x)[:, None, None] for x in (inside, outside))
    return torch.where(mask, *colours)[None].float()


def drawn(mask: Tensor) -> Tensor:
    """Return the map of buildings in a mask."""
    return painted(mask, BUILDING, LAND) / 255.0


def houses(seed: int, side: int = 256) -> Tensor:
    """Return a mask with a house of 9 to 20 pixels in every square of 32."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(side, side, dtype=torch.bool)
    for row in range(0, side, 32):
        for col in range(0, side, 32):
            top, left = torch.randint(0, 12, (2,), generator=generator).tolist()
            height, width = torch.randint(9, 21, (2,), generator=generator).tolist()
            top, left = row + top, col + left
            mask[top : top + height, left : left + width] = True
    return mask


def seen(truth: Tensor) -> Tensor:
    """Return what a still sensor sees of a scene."""
    small = (truth.shape[2] // SCALE, truth.shape[3] // SCALE)
    return Sentinel2Params().still().degrade(truth, small, torch.Generator())


def step(picture: Tensor, mask: Tensor) -> float:
    """Return by how much red is higher inside a mask than outside."""
    red = picture[0, 0]
    return float(red[mask].mean() - red[~mask].mean())


def test_mapped_classes_get_the_contrast_that_the_lr_image_has() -> None:
    mask = houses(0)
    truth = painted(mask, ROOF, GROUND)
    smooth = enlarge(seen(truth), Fraction(SCALE))
    for picture in (smooth, smooth + 0.3 * (truth - smooth)):
        got = unmix(picture, seen(truth), drawn(mask), Fraction(SCALE))
        before, after = (step(x, mask) / step(truth, mask) for x in (picture, got))
        assert before < 0.65
        assert 0.75 < after < 1.05


def test_contrast_that_is_there_already_is_not_added() -> None:
    mask = houses(0)
    truth = painted(mask, ROOF, GROUND)
    got = unmix(truth, seen(truth), drawn(mask), Fraction(SCALE))
    assert float((got - truth).square().mean().sqrt()) < 0.03


def test_a_map_that_the_lr_image_does_not_confirm_changes_little() -> None:
    truth = painted(houses(0), ROOF, GROUND)
    smooth = enlarge(seen(truth), Fraction(SCALE))
    own, foreign = (
        unmix(smooth, seen(truth), drawn(houses(k)), Fraction(SCALE)) - smooth
        for k in (0, 7)
    )
    shift = [float(x.square().mean().sqrt()) for x in (own, foreign)]
    assert shift[1] < 0.5 * shift[0]


def test_a_map_without_the_classes_changes_nothing() -> None:
    picture = torch.rand(1, 3, 64, 64)
    lr = torch.rand(1, 3, 8, 8)
    land = drawn(torch.zeros(64, 64, dtype=torch.bool))
    assert unmix(picture, lr, land, Fraction(SCALE)) is picture
    assert unmix(picture, lr, torch.zeros_like(picture), Fraction(SCALE)) is picture


def test_a_window_looks_a_few_lr_pixels_far() -> None:
    mask = houses(1)
    truth = painted(mask, ROOF, GROUND)
    lr, picture = seen(truth), 0.5 * truth + 0.2 * torch.rand_like(truth)
    whole = unmix(picture, lr, drawn(mask), Fraction(SCALE))
    part = unmix(
        picture[..., 64:192, 64:192],
        lr[..., 8:24, 8:24],
        drawn(mask[64:192, 64:192]),
        Fraction(SCALE),
    )
    inner = part[..., 48:80, 48:80], whole[..., 112:144, 112:144]
    torch.testing.assert_close(*inner, atol=1e-5, rtol=0)


def test_classes_are_known_by_their_exact_colours() -> None:
    chart = torch.tensor([LAND, BUILDING, ROAD, (226, 224, 211), (0, 0, 0)])
    found = class_masks(chart.T[None, :, None].float() / 255.0)[0, :, 0]
    assert found.tolist() == [
        [False, True, False, False, False],
        [False, False, True, False, False],
        [False] * 5,
        [False] * 5,
    ]


def test_slips_of_a_drawn_map_leave_no_trace() -> None:
    """Single pixels go, and a thin gap between house and road belongs to the road."""
    clean = torch.tensor(LAND).view(1, 3, 1, 1).repeat(1, 1, 64, 64)
    clean[:, :, 20:32, 16:40] = torch.tensor(BUILDING).view(1, 3, 1, 1)
    clean[:, :, 32:44] = torch.tensor(ROAD).view(1, 3, 1, 1)
    slips = clean.clone()
    slips[:, :, 32:35, 16:40] = torch.tensor(LAND).view(1, 3, 1, 1)  # a gap
    slips[0, :, 26, 30] = slips[0, :, 38, 50] = torch.tensor(LAND)  # holes
    slips[0, :, 5, 5] = torch.tensor(BUILDING)
    lr, picture = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 64, 64)
    one, other = (unmix(picture, lr, x / 255.0, Fraction(8)) for x in (clean, slips))
    assert float((one - picture).abs().max()) > 0.01
    torch.testing.assert_close(one[..., 16:40], other[..., 16:40], atol=0.02, rtol=0)


def test_large_scales_ask_a_wider_window_where_the_near_one_knows_little() -> None:
    """A class 0.3 brighter than its ground, under noise that hides it nearby."""
    torch.manual_seed(0)
    shares = torch.rand(1, 4, 24, 24) * torch.tensor([1.0, 0, 0, 0])[:, None, None]
    lr = 0.4 + 0.3 * shares[:, :1] + 0.1 * torch.randn(1, 3, 24, 24)
    slopes = [_wanted(shares, lr, Fraction(scale)) for scale in (4, 8, 16)]
    assert torch.equal(slopes[0].colours, slopes[1].colours)
    near, wide = (s.trust[..., None] * s.colours for s in slopes[1:])
    errors = [float((made[..., 0, :] - 0.3).abs().mean()) for made in (near, wide)]
    assert errors[1] < 0.9 * errors[0]
    assert bool((slopes[2].trust >= slopes[1].trust).all())
