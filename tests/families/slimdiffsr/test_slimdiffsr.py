"""SlimDiffSR on scenes: what sees the whole picture, tiles, colours."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rsupres.blend import Mosaic, Piece, join
from rsupres.blocks.fine_detail import finest_contrast, limit_finest
from rsupres.diffusion.noise import NoiseField
from rsupres.evaluation.measures.seams import seam_ratio, tile_borders
from rsupres.families.base import Conditions, TileBatch
from rsupres.families.slimdiffsr.blocks import Finding
from rsupres.families.slimdiffsr.resolver import Config, SlimDiffSR, make_spec
from rsupres.tile_grid import TileGrid
from rsupres.upscaling.array import upscale_whole
from rsupres.upscaling.memory import ArrayReader
from tests.families.slimdiffsr.small_models import (
    CPU,
    SMALL,
    SMALL_MINI,
    each_config,
    mini_config,
    model,
    picture,
)
from tests.strategies import make_grid


def tiled(
    sr: SlimDiffSR, lr: np.ndarray, size: int, overlap: int
) -> tuple[np.ndarray, TileGrid]:
    """Return SR blended from tiles, and the grid of the tiles."""
    scale = next(iter(sr.spec.scales.values))  # type: ignore[union-attr]
    frame = make_grid(lr.shape[1], lr.shape[2])
    grid = TileGrid.plan(frame, scale, size, overlap, sr.spec.halo, sr.spec.multiple)
    noise = NoiseField(0)
    mosaic = Mosaic(grid, 3)
    pieces: list[Piece] = []
    with torch.inference_mode():
        context = sr.prepare(ArrayReader(lr), scale, noise)
        for tile in grid:
            part = torch.from_numpy(lr[:, *tile.lr.slices()])[None]
            valid = torch.ones_like(part[:, :1], dtype=torch.bool)
            batch = TileBatch(
                part, valid, Conditions(), noise, [tile.lr], [tile.sr], context
            )
            mosaic.add(tile, sr.upscale(batch, scale)[0].numpy())
            pieces += mosaic.finished()
    return join(pieces), grid


@each_config
def test_a_small_scene_is_one_picture(config: Config) -> None:
    """It is what the released script makes of it; 64 x 4 needs no padding."""
    lr = picture(64, 64)
    got = upscale_whole(model(config), lr, Fraction(4), CPU)
    wanted = upscale_whole(model(config, sampler="alone"), lr, Fraction(4), CPU)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


@mini_config
def test_borders_of_tiles_do_not_show_unless_each_is_alone(config: Config) -> None:
    """Found once, the difference to one tile is small; found per tile, it is not."""
    lr = picture(96, 168)
    whole, _ = tiled(model(config, halo=32), lr, 168, 72)
    shared, grid = tiled(model(config, halo=32), lr, 96, 72)
    alone, _ = tiled(model(config, halo=32, sampler="alone"), lr, 96, 72)
    error, worse = (float(np.abs(x - whole).mean()) for x in (shared, alone))
    print(f"mean difference to one tile: shared {error:.2e}, alone {worse:.2e}")
    assert worse > 5 * error
    ratio = seam_ratio(shared, *tile_borders(grid)) / seam_ratio(
        whole, *tile_borders(grid)
    )
    assert abs(ratio - 1.0) <= 0.01


def test_a_larger_scale_is_bicubic_and_then_the_networks_own() -> None:
    """x8 is x4 of the picture that bicubic doubled, its finest detail limited."""
    both = replace(SMALL_MINI, scales=(4, 8))
    lr = picture(24, 40)
    spec = make_spec(both, gsd=None, halo=8)
    assert spec.scales.offers(Fraction(4))
    assert spec.scales.offers(Fraction(8))
    sr = model(both)
    got = upscale_whole(sr, lr, Fraction(8), CPU)
    assert got.shape == (3, 192, 320)
    doubled = functional.interpolate(
        torch.from_numpy(lr)[None], scale_factor=2.0, mode="bicubic"
    )
    made = torch.from_numpy(upscale_whole(sr, doubled[0].numpy(), Fraction(4), CPU))
    limit = 0.1 * finest_contrast(torch.from_numpy(lr)[None], Fraction(8))
    wanted = limit_finest(made[None], limit, 0.7)[0].numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.abs(got - made.numpy()).max() > 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_scale_may_have_ends_of_its_own(precision: str) -> None:
    """x4 does not look at the ends of x8; x8 at no ends but its own."""
    config = replace(SMALL_MINI, scales=(4, 8), own_ends=True)
    lr = picture(24, 40)
    before = {}
    sr = model(config, precision=precision)
    for scale in (4, 8):
        before[scale] = upscale_whole(sr, lr, Fraction(scale), CPU)
    for name, parameter in sr.network.named_parameters():
        if name.startswith("ends.8."):
            parameter.data.mul_(1.5)
    np.testing.assert_array_equal(upscale_whole(sr, lr, Fraction(4), CPU), before[4])
    after = upscale_whole(sr, lr, Fraction(8), CPU)
    assert float(np.abs(after - before[8]).max()) > 0.01
    for name, parameter in sr.network.named_parameters():
        if name.startswith(("encoder", "decoder", "head")):
            parameter.data.zero_()
    np.testing.assert_array_equal(upscale_whole(sr, lr, Fraction(8), CPU), after)


def test_tiles_of_a_larger_scale_are_those_of_the_whole_scene() -> None:
    both = replace(SMALL_MINI, scales=(8,))
    lr = picture(48, 84)
    whole, _ = tiled(model(both, halo=16), lr, 84, 36)
    shared, _ = tiled(model(both, halo=16), lr, 48, 36)
    assert float(np.abs(shared - whole).max()) < 1 / 255


@each_config
def test_what_is_shared_survives_the_run_directory(config: Config) -> None:
    """Values are the same after packing, in order, and shapes of ones stay."""
    sr = model(config)
    context = sr.prepare(ArrayReader(picture(32, 32)), Fraction(4), NoiseField(0))
    finding = Finding()
    with torch.inference_mode():
        lr = sr._signed(torch.from_numpy(picture(32, 32))[None], Fraction(4))
        sr.network.transform(sr.network.encode(lr), finding)
    from rsupres.families.slimdiffsr.resolver import _unpack

    unpacked = _unpack(context.arrays, CPU)
    assert [v.shape for v in unpacked] == [v.shape for v in finding.values]
    assert all(
        torch.equal(a, b.float()) for a, b in zip(unpacked, finding.values, strict=True)
    )


@each_config
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (17, 64)])
def test_scenes_of_any_size_are_finite_and_whole(
    config: Config, size: tuple[int, int]
) -> None:
    sr = upscale_whole(model(config), picture(*size), Fraction(4), CPU)
    assert sr.shape == (3, 4 * size[0], 4 * size[1])
    assert sr.min() >= 0.0
    assert sr.max() <= 1.0


def test_a_flat_scene_keeps_its_colour() -> None:
    """The released script divides by a deviation of zero here."""
    lr = np.full((3, 32, 32), 0.25, np.float32)
    sr = upscale_whole(model(SMALL), lr, Fraction(4), CPU)
    np.testing.assert_allclose(sr, 0.25, atol=1e-3)


def test_colours_are_those_of_the_scene_not_of_the_tile() -> None:
    """Dark left, bright right: each half has the means of the whole scene's match."""
    lr = picture(64, 96)
    sr, _ = tiled(model(SMALL), lr, 32, 20)
    assert abs(float(sr.mean()) - float(lr.mean())) < 0.02


@each_config
def test_windows_of_a_large_scene_leave_out_what_is_not_valid(config: Config) -> None:
    class Masked(ArrayReader):
        def read(self, window: object) -> tuple[np.ndarray, np.ndarray]:
            pixels, valid = super().read(window)  # type: ignore[arg-type]
            return pixels, valid & (pixels[:1] < 0.9)

    from rsupres.families.slimdiffsr import resolver as slimdiffsr

    lr = picture(520, 300)
    lr[:, :190] = 1.0
    windows = slimdiffsr._read_windows(Masked(lr), config.scale)
    assert all(float(window.max()) < 1.0 for window in windows)
    assert len(windows) == 6
    assert {tuple(window.shape) for window in windows} == {(1, 3, 128, 128)}


@mini_config
def test_a_tile_does_not_know_what_shares_its_batch(config: Config) -> None:
    sr = model(config)
    lr = picture(32, 64)
    noise = NoiseField(0)
    with torch.inference_mode():
        context = sr.prepare(ArrayReader(lr), Fraction(4), noise)
        parts = torch.from_numpy(np.stack([lr[:, :, :32], lr[:, :, 32:]]))

        def run(lr: Tensor) -> Tensor:
            valid = torch.ones_like(lr[:, :1], dtype=torch.bool)
            batch = TileBatch(lr, valid, Conditions(), noise, [], [], context)
            return sr.upscale(batch, Fraction(4))

        together, apart = run(parts), torch.cat([run(part[None]) for part in parts])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)


@mini_config
def test_half_precision_is_close(config: Config) -> None:
    lr = picture(32, 48)
    full = upscale_whole(model(config), lr, Fraction(4), CPU)
    half = upscale_whole(model(config, precision="bf16"), lr, Fraction(4), CPU)
    assert float(np.abs(full - half).mean()) < 0.02
