"""SGDM on scenes: prompts, styles, maps, samplers, tiles."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rsupres.blend import Mosaic, join
from rsupres.checkpoints.catalogue import load_model
from rsupres.checkpoints.file import write_checkpoint
from rsupres.diffusion.noise import NoiseField
from rsupres.diffusion.samplers import sample_ddim
from rsupres.diffusion.schedules import Posterior, spaced_steps, sqrt_linear_betas
from rsupres.diffusion.solvers import sample_solver
from rsupres.errors import CheckpointError, InputError, ModelOutputError
from rsupres.families.base import Conditions, SamplerOptions, TileBatch
from rsupres.families.sgdm.colour import REACH, correct_by_wavelets, without_lattice
from rsupres.families.sgdm.config import SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.prompts import prompt_number
from rsupres.families.sgdm.resolver import (
    Sgdm,
    make_spec,
)
from rsupres.families.sgdm.style import picture_statistics, spatial_statistics
from rsupres.families.storage import config_from_json, config_to_json
from rsupres.grid import PixelWindow
from rsupres.tile_grid import TileGrid
from rsupres.training.families.sgdm.training import ARCHITECTURES
from rsupres.upscaling.array import upscale_whole
from rsupres.upscaling.memory import ArrayReader
from tests.strategies import make_grid

CPU = torch.device("cpu")
SCALE = Fraction(8)
STYLED = replace(ARCHITECTURES["tiny"], sampling_steps=3)
MINI = replace(ARCHITECTURES["tiny-mini"], sampling_steps=2)
LATENT = replace(ARCHITECTURES["tiny-latent"], sampling_steps=2)
BACKGROUND, BUILDING, WATER = (245, 240, 228), (226, 224, 210), (133, 203, 249)


def checkpoint(folder: Path, config: SgdmConfig, **spec: int) -> Path:
    """Write random weights, with contexts that differ from prompt to prompt."""
    torch.manual_seed(0)
    networks = SgdmNetworks(config)
    networks.latent_scale.fill_(1.0)
    networks.adapter.conv_in.weight.data.mul_(100.0)  # what is given shall show
    if networks.contexts is not None:
        networks.contexts.copy_(torch.randn(networks.contexts.shape))
    for flow in (networks.flow_mean, networks.flow_std):
        if flow is not None:
            torch.nn.init.normal_(flow.couplings[0][-1].weight)
    path = folder / "x.safetensors"
    tensors = dict(networks.state_dict())
    origin = make_spec(config, (int(SCALE),), **spec)  # type: ignore[arg-type]
    write_checkpoint(path, tensors, origin, config_to_json(config), "random")
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    kinds = {"styled": STYLED, "mini": MINI, "latent": LATENT}
    return {
        name: checkpoint(tmp_path_factory.mktemp(name), config, halo=2)
        for name, config in kinds.items()
    }


def load(path: Path, **options: object) -> Sgdm:
    model = load_model(str(path), CPU, SamplerOptions(**options))  # type: ignore[arg-type]
    assert isinstance(model, Sgdm)
    return model


def picture(height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).random((3, height, width)).astype(np.float32)


def chart(
    height: int, width: int, *spots: tuple[int, int, tuple[int, int, int]]
) -> Tensor:
    """Return a map (1, 3, H, W) in [0, 1] with single pixels of other colours."""
    colours = torch.tensor(BACKGROUND).view(1, 3, 1, 1).repeat(1, 1, height, width)
    for row, col, colour in spots:
        colours[0, :, row, col] = torch.tensor(colour)
    return colours / 255.0


def upscale(model: Sgdm, seed: int = 0, **given: Tensor) -> np.ndarray:
    return upscale_whole(model, picture(), SCALE, CPU, seed, Conditions(**given))


def test_one_pixel_anywhere_decides_the_prompt_of_the_scene(
    weights: dict[str, Path],
) -> None:
    """The spot lies in the last of several windows that `prepare` reads."""
    model = load(weights["styled"])
    corners = ((639, 1039, BUILDING), (3, 3, WATER))
    for size, spots, number in (((8, 8), (), 0), ((80, 130), corners, 0b1001)):
        chart_of_it = chart(size[0] * 8, size[1] * 8, *spots)
        reader = ArrayReader(picture(*size), Conditions(vector_map=chart_of_it))
        context = model.prepare(reader, SCALE, NoiseField(0))
        assert context.numbers == {"prompt": number}


def test_a_map_of_another_legend_is_told(
    weights: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    foreign = chart(64, 64, (5, 5, (200, 10, 10)))
    reader = ArrayReader(picture(), Conditions(vector_map=foreign))
    with caplog.at_level(logging.WARNING):
        load(weights["styled"]).prepare(reader, SCALE, NoiseField(0))
    assert "none of the colours" in caplog.text
    caplog.clear()
    reader = ArrayReader(picture(), Conditions(vector_map=chart(64, 64)))
    with caplog.at_level(logging.WARNING):
        load(weights["styled"]).prepare(reader, SCALE, NoiseField(0))
    assert not caplog.text


def test_colours_must_be_exact() -> None:
    near = np.array([226, 224, 211], np.uint8)[:, None, None]
    assert prompt_number(near) == 0
    assert prompt_number(np.array(BUILDING, np.uint8)[:, None, None]) == 1


def test_style_follows_the_image_or_is_drawn_or_stays(weights: dict[str, Path]) -> None:
    image = torch.rand(3, 70, 50)  # sides that are no multiples of 8
    kept = upscale(load(weights["styled"]))
    followed = upscale(load(weights["styled"]), style=image)
    other = upscale(load(weights["styled"]), style=image * 0.2)
    drawn = load(weights["styled"], style_sample=True)
    first, second = upscale(drawn, seed=1), upscale(drawn, seed=2)
    pictures = [kept, followed, other, first, second]
    for k, one in enumerate(pictures):
        assert all(np.abs(one - two).max() > 1e-4 for two in pictures[:k])
    assert np.array_equal(first, upscale(drawn, seed=1))


def test_statistics_that_a_style_replaces_are_those_of_the_whole_scene(
    weights: dict[str, Path],
) -> None:
    """Gathered window by window, they equal those of the scene at once."""
    model = load(weights["styled"])
    lr = picture(72, 130)
    reader = ArrayReader(lr, Conditions(style=torch.rand(3, 64, 64)))
    with torch.inference_mode():
        context = model.prepare(reader, SCALE, NoiseField(0))
        enlarged = model._enlarge(torch.from_numpy(lr)[None], SCALE)
        empty = model._chart(None, enlarged)
        assert empty is not None
        content = model.networks.adapter.content(2 * enlarged - 1, 2 * empty - 1)
        mean, std = spatial_statistics(content.lr)
    got = torch.from_numpy(context.arrays["content"])
    torch.testing.assert_close(got[0], mean[0], atol=0.02, rtol=0.02)
    torch.testing.assert_close(got[1], std[0], atol=0.02, rtol=0.02)


def test_a_style_of_the_picture_moves_its_statistics_and_no_edge(
    weights: dict[str, Path],
) -> None:
    model = load(weights["mini"])
    image = 0.1 + 0.3 * torch.rand(3, 60, 90)
    plain, styled = upscale(model), upscale(model, style=image)
    wanted = picture_statistics(image[None], int(SCALE))
    assert np.corrcoef(plain[0].ravel(), styled[0].ravel())[0, 1] > 0.999
    np.testing.assert_allclose(styled.mean((1, 2)), wanted.mean[0].numpy(), atol=0.02)


def test_styles_of_the_picture_are_drawn_nearer_to_the_middle(
    weights: dict[str, Path],
) -> None:
    for name, temperature in (("mini", 0.7), ("styled", 1.0)):
        model = load(weights[name], style_sample=True)
        assert model.config.flow is not None
        assert model.networks.flow_mean is not None
        window = PixelWindow(0, 0, 1, model.config.flow.dim)
        eps = NoiseField(3).draw(1 << 20, window, 2)[0]
        wanted, _ = model.networks.flow_mean.sample(temperature * torch.from_numpy(eps))
        torch.testing.assert_close(model._drawn_style(NoiseField(3)).mean, wanted)


def test_mapped_ground_is_unmixed_where_a_map_is_given(tmp_path: Path) -> None:
    plain = load(checkpoint(tmp_path, replace(MINI, unmix=False)))
    unmixing = replace(plain, config=MINI)
    shown = chart(64, 64)
    shown[:, :, 8:40, 16:48] = torch.tensor(BUILDING).view(1, 3, 1, 1) / 255.0
    raw, got = (upscale(m, vector_map=shown) for m in (plain, unmixing))
    assert np.abs(got - raw).max() > 0.01
    assert np.array_equal(upscale(plain), upscale(unmixing))


def test_a_lattice_between_the_pixels_of_a_cell_is_removed() -> None:
    generator = torch.Generator().manual_seed(0)
    detail = torch.randn(1, 3, 64, 64, generator=generator)
    offsets = torch.tensor([[0.5, -0.5], [-0.25, 0.25]]).repeat(32, 32)
    cells = functional.pixel_unshuffle(detail + offsets, 2)
    got = functional.pixel_shuffle(without_lattice(cells, 2), 2)
    left = functional.pixel_unshuffle(got, 2).mean((2, 3)).view(3, 4)
    assert float((left - left.mean(1, keepdim=True)).abs().max()) < 0.01
    assert float((got - detail).square().mean()) < 0.03


def test_flows_must_be_there_to_draw_a_style(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, replace(STYLED, flow=None))
    with pytest.raises(InputError, match=r"flow_mean and flow_std"):
        load(path, style_sample=True)


def test_without_a_map_the_empty_one_is_shown(weights: dict[str, Path]) -> None:
    for name, colour in (("styled", BACKGROUND), ("mini", (0, 0, 0))):
        model = load(weights[name])
        empty = torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 64, 64) / 255.0
        without = upscale(model)
        np.testing.assert_allclose(without, upscale(model, vector_map=empty), atol=1e-6)
        full = chart(64, 64, *((k, k, BUILDING) for k in range(64)))
        assert np.abs(without - upscale(model, vector_map=full)).max() > 1e-4


STEPS = (("ddpm", 5), ("ddpm", 8), ("ddim", 5), ("dpm++", 5), ("unipc", 5))


def test_steps_and_samplers_have_an_effect(weights: dict[str, Path]) -> None:
    pictures = [
        upscale(load(weights["styled"], sampler=sampler, steps=steps))
        for sampler, steps in STEPS
    ]
    for k, one in enumerate(pictures):
        assert all(np.abs(one - two).max() > 1e-5 for two in pictures[:k])
    assert np.isfinite(upscale(load(weights["styled"], steps=1))).all()
    default = upscale(load(weights["styled"]))
    same = upscale(load(weights["styled"], sampler="ddpm", steps=3))
    assert np.array_equal(default, same)


def test_options_that_do_not_fit_are_refused(weights: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"heun.*known: ddpm, ddim, dpm\+\+, unipc"):
        load(weights["styled"], sampler="heun")
    with pytest.raises(InputError, match="takes 1 to 1000"):
        load(weights["styled"], steps=1001)
    with pytest.raises(CheckpointError, match="unknown 'size'"):
        config_from_json(SgdmConfig, {"size": 1}, Path("x"))


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_architectures_survive_json(config: SgdmConfig) -> None:
    import json

    text = json.dumps(config_to_json(config))
    assert config_from_json(SgdmConfig, json.loads(text), Path("x")) == config


def test_half_precision_is_close(weights: dict[str, Path]) -> None:
    full = upscale(load(weights["mini"]))
    half = upscale(load(weights["mini"], precision="bf16"))
    assert np.abs(full - half).mean() < 0.02


def test_a_nan_is_told_and_not_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = SgdmNetworks(MINI)
    networks.latent_scale.fill_(math.nan)
    path = tmp_path / "nan.safetensors"
    spec = make_spec(MINI, (int(SCALE),))
    tensors = dict(networks.state_dict())
    write_checkpoint(path, tensors, spec, config_to_json(MINI), "broken")
    with pytest.raises(ModelOutputError, match="NaN or infinity"):
        upscale(load(path))


def test_tiles_of_the_small_model_are_cut_from_one_picture(
    weights: dict[str, Path],
) -> None:
    """Nothing in it looks at a tile as a whole, so only what lies beyond is missed."""
    model = load(weights["mini"])
    lr = picture(32, 64)
    maps = chart(256, 512, *((k, 2 * k, WATER) for k in range(256)))
    whole = upscale_whole(model, lr, SCALE, CPU, 3, Conditions(vector_map=maps))
    grid = TileGrid.plan(make_grid(32, 64), SCALE, 32, 20, 8, model.spec.multiple)
    noise, mosaic, pieces = NoiseField(3), Mosaic(grid, 3), []
    with torch.inference_mode():
        context = model.prepare(ArrayReader(lr), SCALE, noise)
        for tile in grid:
            rows, cols = tile.sr.slices()
            part = torch.from_numpy(lr[:, *tile.lr.slices()])[None]
            given = Conditions(vector_map=maps[..., rows, cols])
            valid = torch.ones_like(part[:, :1], dtype=torch.bool)
            batch = TileBatch(part, valid, given, noise, [tile.lr], [tile.sr], context)
            mosaic.add(tile, model.upscale(batch, SCALE)[0].numpy())
            pieces += mosaic.finished()
    assert len(grid) > 2
    difference = np.abs(join(pieces) - whole)
    assert difference.mean() < 1e-3


def test_a_wavelet_keeps_detail_and_takes_colour() -> None:
    rng = torch.Generator().manual_seed(0)
    content, style = (torch.rand(1, 3, 160, 160, generator=rng) for _ in range(2))
    got = correct_by_wavelets(content, style * 0 + 0.3)
    assert float((got.mean((2, 3)) - 0.3).abs().max()) < 0.01
    shifted = correct_by_wavelets(content + 0.2, style)
    torch.testing.assert_close(shifted, correct_by_wavelets(content, style))
    spot = content.clone()
    spot[..., 0, 0] += 1.0
    moved = (
        correct_by_wavelets(spot, style) - correct_by_wavelets(content, style)
    ).abs()
    assert float(moved[..., REACH + 1 :, REACH + 1 :].max()) < 1e-6


def gaussian(
    mean: float, std: float
) -> tuple[np.ndarray, Callable[[Tensor, int], Tensor]]:
    """Return betas and the exact eps of data that are normal."""
    betas = sqrt_linear_betas(1000, 0.00085, 0.012)
    kept = np.cumprod(1.0 - betas)

    def eps(z: Tensor, t: int) -> Tensor:
        power = float(kept[t])
        variance = power * std**2 + 1.0 - power
        return math.sqrt(1.0 - power) * (z - math.sqrt(power) * mean) / variance

    return betas, eps


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "unipc"])
def test_solvers_find_the_flow_of_a_known_distribution(solver: str) -> None:
    betas, eps = gaussian(0.7, 0.4)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    last = float(np.cumprod(1.0 - betas)[-1])
    spread = math.sqrt(last * 0.4**2 + 1.0 - last)
    wanted = 0.7 + 0.4 * (start - math.sqrt(last) * 0.7) / spread

    def solve(steps: int) -> float:
        if solver == "ddim":
            chosen = spaced_steps(1000, steps)
            table = Posterior.spaced(betas, chosen)
            got = sample_ddim(lambda z, t: eps(z, int(chosen[t - 1])), start, table)
        else:
            got = sample_solver(eps, start, betas, steps, solver)  # type: ignore[arg-type]
        return float((got - wanted).abs().max())

    assert solve(40) < 0.1
    assert solve(80) < 0.7 * solve(20)


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 999, 1000])
def test_spaced_steps_ascend_and_hold_the_last(steps: int) -> None:
    chosen = spaced_steps(1000, steps)
    assert len(set(chosen.tolist())) == steps
    assert chosen[-1] == 999
    assert steps == 1 or chosen[0] == 0
    with pytest.raises(ValueError, match="out of 1000"):
        spaced_steps(1000, 1001)
