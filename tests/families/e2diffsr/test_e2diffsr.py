"""E2DiffSR on scenes: geometry, tiles that do not show, options, checkpoints."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rsupres.blend import Mosaic, Piece, join
from rsupres.checkpoints.catalogue import load_model
from rsupres.checkpoints.file import write_checkpoint
from rsupres.diffusion.noise import NoiseField
from rsupres.errors import CheckpointError, InputError
from rsupres.families.base import Conditions, SamplerOptions, TileBatch
from rsupres.families.e2diffsr import resolver
from rsupres.families.e2diffsr.config import (
    SMALL,
    E2DiffSRConfig,
    enlarge_to_working_grid,
    latent_size,
)
from rsupres.families.e2diffsr.network import E2DiffSRNetworks
from rsupres.families.e2diffsr.resolver import E2DiffSR, make_spec, sample_latent
from rsupres.families.storage import config_to_json
from rsupres.grid import Grid, PixelWindow
from rsupres.tile_grid import TileGrid
from rsupres.upscaling.array import upscale_whole
from rsupres.upscaling.memory import ArrayReader
from tests.strategies import make_grid

CPU = torch.device("cpu")
TINY = replace(SMALL, sr_channels=16, imdbs=1, csum_channels=16, csum_hidden=16)


def _networks(
    config: E2DiffSRConfig = TINY, *, detail: bool = False
) -> E2DiffSRNetworks:
    """Return networks that do something: no layer at zero, residual parts not small."""
    torch.manual_seed(0)
    networks = E2DiffSRNetworks(config, training_parts=False)
    for parameter in networks.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    for unit in networks.depsr.branch.frus:
        unit.fuse.weight.data.mul_(10)  # type: ignore[union-attr,operator]
    for name, parameter in networks.depsr.csum.named_parameters():
        if name.endswith("weight_g"):
            parameter.data.mul_(2)
    if detail:
        networks.depsr_detail = E2DiffSRNetworks(config, training_parts=False).depsr
    return networks.eval()


def _model(
    config: E2DiffSRConfig = TINY, options: SamplerOptions | None = None
) -> E2DiffSR:
    spec = replace(make_spec(config, detail=False, gsd=None, halo=16), multiple=1)
    return E2DiffSR(spec, _networks(config), config, options or SamplerOptions(), CPU)


def _picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return (3, height, width): smooth ground, an edge, and texture."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    ground = 0.4 + 0.2 * np.sin(rows / 9.0) * np.cos(cols / 7.0)
    ground = ground + 0.2 * (cols > width // 3)
    noise = 0.1 * rng.random((3, height, width))
    return (ground + noise).astype(np.float32)


@pytest.mark.parametrize(
    "scale", [Fraction(1), Fraction(4), Fraction(5, 2), Fraction(11, 3)]
)
def test_a_scene_of_one_tile_is_the_untiled_network(scale: Fraction) -> None:
    model = _model()
    lr = _picture(36, 42)
    got = upscale_whole(model, lr, scale, CPU, seed=3)

    networks = model.networks
    x = torch.from_numpy(lr)[None] * 2 - 1
    size = (int(36 * scale), int(42 * scale))
    start = NoiseField(3).draw(0, PixelWindow(0, 0, *latent_size(*size)), 4)
    with torch.inference_mode():
        cond = networks.condnet(enlarge_to_working_grid(x, size))
        z = sample_latent(
            networks.unet, cond, torch.from_numpy(start)[None], scale, TINY
        )
        wanted = networks.depsr(x, z / networks.latent_scale, size)
    wanted = ((wanted[0] + 1) / 2).clamp(0, 1).numpy()
    # Values reach 10 here; both ways differ by the order of float32 sums alone.
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def _upscale_in_tiles(
    model: E2DiffSR, lr: np.ndarray, scale: Fraction, size: int, overlap: int
) -> np.ndarray:
    frame = make_grid(lr.shape[1], lr.shape[2])
    grid = TileGrid.plan(frame, scale, size, overlap, model.spec.halo)
    height, width = grid.lr.height, grid.lr.width
    padded = np.pad(
        lr, ((0, 0), (0, height - lr.shape[1]), (0, width - lr.shape[2])), "symmetric"
    )
    noise = NoiseField(5)
    mosaic = Mosaic(grid, 3)
    pieces: list[Piece] = []
    with torch.inference_mode():
        context = model.prepare(ArrayReader(padded), scale, noise)
        for tile in grid:
            part = torch.from_numpy(padded[:, *tile.lr.slices()])[None]
            valid = torch.ones_like(part[:, :1], dtype=torch.bool)
            batch = TileBatch(
                part, valid, Conditions(), noise, [tile.lr], [tile.sr], context
            )
            mosaic.add(tile, model.upscale(batch, scale)[0].numpy())
            pieces += mosaic.finished()
    return join(pieces)


@pytest.mark.parametrize(
    "scale", [pytest.param(Fraction(4), marks=pytest.mark.slow), Fraction(5, 2)]
)
def test_tile_size_does_not_show(scale: Fraction) -> None:
    """With local context only, the halo is all that tells tiles apart."""
    model = _model(SMALL)
    lr = _picture(80, 100)
    step = scale.denominator
    small = _upscale_in_tiles(model, lr, scale, 64 // step * step, 40)
    large = _upscale_in_tiles(model, lr, scale, 256 // step * step, 40)
    assert np.abs(small - large).max() <= 1 / 255


@pytest.mark.slow
def test_global_context_does_show_so_the_check_can_fail() -> None:
    model = _model(replace(SMALL, attention_window=0))
    lr = _picture(80, 100)
    small = _upscale_in_tiles(model, lr, Fraction(2), 64, 40)
    large = _upscale_in_tiles(model, lr, Fraction(2), 256, 40)
    assert np.abs(small - large).max() > 1 / 255


def test_tiles_of_a_batch_equal_tiles_alone() -> None:
    model = _model()
    lr = _picture(64, 96)
    noise = NoiseField(1)
    windows = [PixelWindow(0, 0, 48, 48), PixelWindow(16, 40, 48, 48)]
    with torch.inference_mode():
        context = model.prepare(ArrayReader(lr), Fraction(3), noise)

        def run(chosen: list[PixelWindow]) -> torch.Tensor:
            tiles = np.stack([lr[:, *w.slices()] for w in chosen])
            batch = TileBatch(
                torch.from_numpy(tiles),
                torch.ones(len(chosen), 1, 48, 48, dtype=torch.bool),
                Conditions(),
                noise,
                chosen,
                [w.scaled(Fraction(3)) for w in chosen],
                context,
            )
            return model.upscale(batch, Fraction(3))

        together = run(windows)
        alone = torch.cat([run([w]) for w in windows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_latent_is_noise_anchored_to_the_ground(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The latent of a large scene has no trace of its own tiles' origins."""
    model, scene = _model(), ArrayReader(_picture(389, 15))

    def latent(seed: int, memory: int) -> np.ndarray:
        monkeypatch.setattr(resolver, "machine_memory", lambda: memory)
        with torch.inference_mode():
            context = model.prepare(scene, Fraction(4), NoiseField(seed))
        return context.arrays["latent"]

    two_tiles, one_tile = latent(2, 1), latent(2, 2**36)
    assert two_tiles.shape == (4, 195, 8)
    np.testing.assert_array_equal(two_tiles, latent(2, 1))
    assert np.abs(two_tiles - latent(3, 1)).max() > 1e-4
    # Tiles that do not begin where strided layers do differ by twice the deviation.
    difference = np.abs(two_tiles - one_tile).max()
    assert 0 < difference < 0.25 * one_tile.std()


ZERO = replace(TINY, mean_latent="zero")


@pytest.mark.parametrize("scale", [Fraction(4), Fraction(3), Fraction(5, 2)])
def test_without_detail_a_latent_of_zeros_is_neither_sampled_nor_stored(
    monkeypatch: pytest.MonkeyPatch, scale: Fraction
) -> None:
    lr, model = _picture(96, 80), _model(ZERO)
    assert not model.prepare(ArrayReader(lr), scale, NoiseField(2)).arrays
    skipped = _upscale_in_tiles(model, lr, scale, 48, 36)

    def zeros(model: E2DiffSR, scene: object, cells: PixelWindow, *more: object):
        return np.zeros((TINY.latent, cells.height, cells.width), np.float32)

    monkeypatch.setattr(E2DiffSR, "_latent_tile", zeros)
    wanted = _upscale_in_tiles(_model(), lr, scale, 48, 36)
    np.testing.assert_array_equal(skipped, wanted)


@pytest.mark.parametrize(
    "options",
    [
        SamplerOptions(detail=0.5),
        SamplerOptions(several=True),
        SamplerOptions(sampler="mean"),
    ],
)
def test_a_latent_that_is_asked_for_is_sampled(options: SamplerOptions) -> None:
    scene = ArrayReader(_picture(24, 22))
    with torch.inference_mode():
        context = _model(ZERO, options).prepare(scene, Fraction(4), NoiseField(0))
    assert np.abs(context.arrays["latent"]).max() > 0.01


@pytest.mark.parametrize(
    "scale", [Fraction(6), Fraction(13, 2), Fraction(8), Fraction(12)]
)
def test_scales_beyond_the_trained_ones_keep_the_size(scale: Fraction) -> None:
    sr = upscale_whole(_model(), _picture(24, 22), scale, CPU)
    assert sr.shape == (3, int(24 * scale), int(22 * scale))
    assert np.isfinite(sr).all()


def test_conditioning_is_clipped_at_the_largest_trained_scale() -> None:
    """Just above s_max the networks are conditioned as at s_max."""
    networks = _networks()
    seen = []

    class Spy(nn.Module):
        def forward(self, z, cond, t, scale):  # type: ignore[no-untyped-def]
            seen.append(float(scale[0]))
            return torch.zeros_like(z)

    cond = torch.zeros(1, 4, 4, 4)
    for scale in (Fraction(4), Fraction(40001, 10000), Fraction(1, 1)):
        sample_latent(Spy(), cond, cond, scale, TINY)
    assert seen[0] == seen[4] == 4.0
    assert seen[8] == 1.0
    ratio = torch.zeros(1, 3, 8, 8)
    priors = [torch.zeros(1, 16, 8, 8)] * 4
    at, above = (
        networks.depsr.branch(ratio, priors, min(scale, 4.0)) for scale in (4.0, 4.0001)
    )
    torch.testing.assert_close(at, above, atol=0, rtol=0)


def test_scene_levels_follow_the_scene_and_are_undone() -> None:
    """A dark, flat scene comes out as the bright one does, up to its own levels."""
    model = _model(replace(TINY, normalise="scene"))
    lr = np.clip(_picture(40, 40), 0, 1)
    bright = upscale_whole(model, lr, Fraction(2), CPU)
    dark = upscale_whole(model, 0.2 * lr + 0.05, Fraction(2), CPU)
    inside = (bright > 0.01) & (bright < 0.99)
    difference = np.abs((dark - 0.05) / 0.2 - bright)[inside]
    assert difference.max() < 2e-3


def test_ancestral_sampling_adds_noise_and_stays_reproducible() -> None:
    lr = _picture(32, 32)
    mean = upscale_whole(_model(), lr, Fraction(2), CPU)
    ancestral = [
        upscale_whole(
            _model(options=SamplerOptions(sampler="ancestral")), lr, Fraction(2), CPU
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(ancestral[0], ancestral[1])
    assert np.abs(mean - ancestral[0]).max() > 0


def _write(path: Path, networks: E2DiffSRNetworks, config: E2DiffSRConfig) -> None:
    spec = make_spec(config, detail=True, gsd=(0.6, 40.0), halo=16)
    tensors = {k: v.half() for k, v in networks.state_dict().items()}
    write_checkpoint(path, tensors, spec, config_to_json(config), "a test")


def test_detail_mixes_two_sets_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    networks = _networks(detail=True)
    _write(path, networks, TINY)
    assert networks.depsr_detail is not None
    ends = {
        0.0: networks.depsr.csum.fuse[-1].weight_v,
        1.0: networks.depsr_detail.csum.fuse[-1].weight_v,
    }
    for detail, wanted in {**ends, 0.5: (ends[0.0] + ends[1.0]) / 2}.items():
        model = load_model(str(path), CPU, SamplerOptions(detail=detail))
        assert isinstance(model, E2DiffSR)
        got = model.networks.depsr.csum.fuse[-1].weight_v
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0)


def test_loaded_model_works_like_the_one_that_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    _write(path, _networks(detail=True), TINY)
    loaded = load_model(str(path), CPU, SamplerOptions())
    lr = _picture(24, 24)
    got = upscale_whole(loaded, lr, Fraction(3), CPU)
    np.testing.assert_allclose(
        got, upscale_whole(_model(), lr, Fraction(3), CPU), atol=2e-3
    )
    assert loaded.spec.gsd == (0.6, 40.0)


def test_wrong_steps_and_samplers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    _write(path, _networks(), TINY)
    with pytest.raises(InputError, match=r"steps 8.*exactly 4"):
        load_model(str(path), CPU, SamplerOptions(steps=8))
    with pytest.raises(InputError, match="mean, ancestral"):
        load_model(str(path), CPU, SamplerOptions(sampler="heun"))
    load_model(str(path), CPU, SamplerOptions(steps=4))


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    _write(path, _networks(), replace(TINY, imdbs=2))
    with pytest.raises(CheckpointError, match=r"depsr\.branch\.frus\.0\.blocks\.1"):
        load_model(str(path), CPU, SamplerOptions())


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_precision_changes_little(precision: str) -> None:
    lr = _picture(32, 32)
    options = SamplerOptions(precision=precision)  # type: ignore[arg-type]
    got = upscale_whole(_model(options=options), lr, Fraction(4), CPU)
    wanted = upscale_whole(_model(), lr, Fraction(4), CPU)
    assert np.abs(got - wanted).mean() < 0.004


def test_geometry_of_an_odd_frame() -> None:
    from rsupres.families.e2diffsr.geometry import Geometry

    geometry = Geometry.of(15, 20, Fraction(17, 5))
    assert geometry.sr == (51, 68)
    assert geometry.cells == (7, 9)
    assert geometry.cells_per_lr(0) == pytest.approx(7 / 15)
    assert isinstance(make_grid(3, 3), Grid)


def test_the_network_adds_to_bicubic_where_its_configuration_says_so() -> None:
    depsr, size = _networks().depsr, (32, 32)
    lr = torch.rand(1, 3, 8, 8) * 2 - 1
    z = torch.randn(1, TINY.latent, *latent_size(*size))
    with torch.no_grad():
        whole = depsr(lr, z, size)
        depsr.residual_bicubic = False
        alone = depsr(lr, z, size)
    bicubic = nn.functional.interpolate(lr, size, mode="bicubic")
    torch.testing.assert_close(whole - alone, bicubic, atol=1e-5, rtol=0)


def test_the_first_unit_computes_in_float32_where_the_others_do_not() -> None:
    branch = _networks().depsr.branch
    kinds: list[torch.dtype] = []

    def note(module: nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> None:
        kinds.append(out.dtype)

    for unit in branch.frus:
        unit.fuse.register_forward_hook(note)  # type: ignore[union-attr,operator]
    lr = torch.from_numpy(_picture(12, 12))[None]
    priors = [torch.zeros(1, TINY.dec_channels, 12, 12) for _ in range(4)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        branch(lr, priors, 4.0)
    assert kinds == [torch.float32, *[torch.bfloat16] * 3]
