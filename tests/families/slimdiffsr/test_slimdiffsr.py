"""SlimDiffSR on scenes: what sees the whole picture, tiles, colours, import, speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blend import Mosaic, Piece, join
from rsupres.blocks.fine_detail import finest_contrast, limit_finest
from rsupres.checkpoints.catalogue import load_model
from rsupres.checkpoints.convert import import_checkpoint
from rsupres.checkpoints.file import read_checkpoint, write_checkpoint
from rsupres.diffusion.noise import NoiseField
from rsupres.errors import CheckpointError, InputError
from rsupres.evaluation.measures.seams import seam_ratio, tile_borders
from rsupres.families.base import Conditions, SamplerOptions, TileBatch
from rsupres.families.slimdiffsr.blocks import (
    DirectionSeparable,
    Finding,
    Found,
    FrequencySeparable,
    QueryAggregation,
    ResidualBlock,
    SpatialTransformer,
)
from rsupres.families.slimdiffsr.config import SlimDiffSRConfig, TrunkConfig
from rsupres.families.slimdiffsr.mini import MINI, MiniConfig
from rsupres.families.slimdiffsr.network import DoublingConv, SlimDiffSRNetwork, norm_of
from rsupres.families.slimdiffsr.released import match_colours, pad_by_reflection
from rsupres.families.slimdiffsr.resolver import (
    Config,
    SlimDiffSR,
    architecture_from_json,
    architecture_to_json,
    make_network,
    make_spec,
)
from rsupres.tile_grid import TileGrid
from rsupres.upscaling.array import upscale_whole
from rsupres.upscaling.memory import ArrayReader
from tests.parity.golden import name_seeded_tensor
from tests.strategies import make_grid

CPU = torch.device("cpu")
SMALL = SlimDiffSRConfig(4, TrunkConfig((32, 64), 64, 1, 8, 16, "group", 8), 8)
SMALL_MINI = replace(MINI, trunk=TrunkConfig((16, 24), 32, 1, 8, 16, "pixel"), tiny=12)
CONFIGS: Mapping[str, Config] = {"student": SMALL, "mini": SMALL_MINI}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
# The mini network always, the released layout in make test-all.
mini_config = pytest.mark.parametrize(
    "config",
    [pytest.param(SMALL, marks=pytest.mark.slow), SMALL_MINI],
    ids=CONFIGS,
)


def network(config: Config) -> nn.Module:
    """Return a network of loud random weights: the whole picture matters."""
    torch.manual_seed(0)
    made = make_network(config)
    for name, parameter in made.named_parameters():
        if name.endswith(("mlp.0.weight", "mlp.2.weight")):
            parameter.data.mul_(4)
        if name == "head.weight":
            parameter.data.mul_(10)
    return made.eval().requires_grad_(False)


def model(config: Config, halo: int = 8, **options: object) -> SlimDiffSR:
    spec = make_spec(config, gsd=None, halo=halo)
    return SlimDiffSR(spec, network(config), SamplerOptions(**options), CPU)  # type: ignore[arg-type]


def picture(height: int, width: int) -> np.ndarray:
    """Return (3, h, w): ground that changes across the scene, an edge, texture."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:height, :width]
    ground = 0.3 + 0.3 * cols / width + 0.1 * np.sin(rows / 9.0) * np.cos(cols / 7.0)
    ground = ground + 0.1 * (cols > width // 3)
    return (ground + 0.1 * rng.random((3, height, width))).astype(np.float32)


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


@each_config
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


@each_config
def test_half_precision_is_close(config: Config) -> None:
    lr = picture(32, 48)
    full = upscale_whole(model(config), lr, Fraction(4), CPU)
    half = upscale_whole(model(config, precision="bf16"), lr, Fraction(4), CPU)
    assert float(np.abs(full - half).mean()) < 0.02


@each_config
def test_weights_in_half_precision_are_close(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "x.safetensors"
    spec = make_spec(config, gsd=None)
    write_checkpoint(
        path, network(config).state_dict(), spec, architecture_to_json(config), "me"
    )
    half = load_model(str(path), CPU, SamplerOptions(precision="bf16"))
    assert isinstance(half, SlimDiffSR)
    assert torch.bfloat16 in {t.dtype for t in half.network.state_dict().values()}
    lr = picture(32, 48)
    got = upscale_whole(half, lr, Fraction(4), CPU)
    wanted = upscale_whole(model(config), lr, Fraction(4), CPU)
    assert float(np.abs(got - wanted).mean()) < 0.02


def test_doubling_and_convolving_at_once_is_exact() -> None:
    x, layer = torch.randn(2, 5, 4, 6), DoublingConv(5, 7, 3, padding=1)
    with torch.no_grad():
        doubled = torch.nn.functional.interpolate(x, scale_factor=2.0)
        wanted = torch.nn.functional.conv2d(
            doubled, layer.weight, layer.bias, padding=1
        )
        torch.testing.assert_close(layer.train()(x), wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.eval()(x), wanted, atol=1e-5, rtol=1e-5)


@each_config
def test_checkpoints_survive_a_round_trip(tmp_path: Path, config: Config) -> None:
    made = network(config)
    path = tmp_path / "x.safetensors"
    spec = make_spec(config, gsd=(1.0, 4.0))
    write_checkpoint(path, made.state_dict(), spec, architecture_to_json(config), "me")
    loaded = load_model(str(path), CPU, SamplerOptions())
    assert isinstance(loaded, SlimDiffSR)
    assert loaded.spec == spec
    assert architecture_from_json(architecture_to_json(config), path) == config
    lr = picture(16, 20)
    np.testing.assert_allclose(
        upscale_whole(loaded, lr, Fraction(4), CPU),
        upscale_whole(model(config), lr, Fraction(4), CPU),
        atol=1e-5,
    )
    for options, told in (
        (SamplerOptions(steps=4), "one step"),
        (SamplerOptions(sampler="heun"), "scene, alone"),
    ):
        with pytest.raises(InputError, match=told):
            load_model(str(path), CPU, options)
    with pytest.raises(InputError, match="offers the scales 4"):
        upscale_whole(loaded, lr, Fraction(8), CPU)


@pytest.mark.parametrize(
    "change", [{"kind": "other"}, {"trunk": {"depth": 3}}, {"size": 1}]
)
def test_an_architecture_that_does_not_fit_is_told(change: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=r"x\.safetensors.*does not fit"):
        architecture_from_json(
            {**architecture_to_json(SMALL), **change}, Path("x.safetensors")
        )


def released(scale: int = 4) -> dict[str, Tensor]:
    """Return name-seeded weights as a released file has them, at a small size."""
    config = SlimDiffSRConfig(scale, TrunkConfig((32, 64), 64, 2, 8, 16), 8)
    made = SlimDiffSRNetwork(config, dead=True)
    return {
        name: torch.from_numpy(name_seeded_tensor(name, tensor.shape))
        for name, tensor in made.state_dict().items()
    }


@pytest.mark.parametrize(("parallel", "dead"), [(False, True), (True, False)])
def test_released_weights_are_imported(
    tmp_path: Path, parallel: bool, dead: bool
) -> None:
    weights = released(8)
    if not dead:
        weights = {k: v for k, v in weights.items() if "time_embedding" not in k}
    head = "module." if parallel else ""
    path = tmp_path / "net_params_8x.pkl"
    torch.save({head + name: tensor for name, tensor in weights.items()}, path)
    out = tmp_path / "student.safetensors"
    card = import_checkpoint("slimdiffsr", [path], out, "student", {})
    assert card.spec.scales.offers(Fraction(8))
    stored = read_checkpoint(out).tensors
    assert "unet.conv_in.weight" not in stored
    name = "unet.mid_block.mid_block.conv1.low_branch.0.weight"
    assert torch.equal(stored[name], weights[name])
    sr = load_model(str(out), CPU, SamplerOptions())
    assert upscale_whole(sr, picture(8, 8), Fraction(8), CPU).shape == (3, 64, 64)


def test_files_that_are_no_student_are_refused(tmp_path: Path) -> None:
    weights = released()
    path = tmp_path / "net.pkl"

    def refuse(content: object, told: str, **options: str) -> None:
        torch.save(content, path)
        with pytest.raises((CheckpointError, InputError), match=told):
            import_checkpoint(
                "slimdiffsr", [path], tmp_path / "x.safetensors", None, options
            )

    refuse(weights, "does not say its scale")
    refuse(weights, "whole factor", scale="2.5")
    lost = {k: v for k, v in weights.items() if k != "merge_conv1.bias"}
    refuse(lost, r"1 tensors missing \(merge_conv1.bias\)", scale="4")
    refuse({**weights, "extra": torch.ones(1)}, r"1 surplus \(extra\)", scale="4")
    misshapen = {**weights, "merge_conv1.bias": torch.ones(7)}
    refuse(misshapen, "merge_conv1.bias' has shape", scale="4")
    refuse({"a": torch.ones(2)}, "no weights of SlimDiffSR", scale="4")


def test_reflection_goes_on_where_a_side_is_smaller_than_the_padding() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    rows = pad_by_reflection(x, 8)
    assert rows.shape == (1, 1, 8, 8)
    assert rows[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert rows[0, 0, :, 0].tolist() == [0, 3, 0, 3, 0, 3, 0, 3]
    one = pad_by_reflection(torch.ones(1, 1, 1, 1), 4)
    assert one.shape == (1, 1, 4, 4)


def test_matched_colours_have_the_moments_of_the_reference() -> None:
    image, reference = torch.rand(2, 3, 8, 9), torch.rand(2, 3, 5, 4) * 3 - 1
    got = match_colours(image, reference)
    for moment in (Tensor.mean, Tensor.std):
        torch.testing.assert_close(
            moment(got.flatten(2), -1), moment(reference.flatten(2), -1)
        )


@pytest.mark.parametrize(
    "part",
    [
        FrequencySeparable(8, 12, 4),
        DirectionSeparable(8, 4, 4),
        ResidualBlock(8, 16, norm_of(SMALL.trunk)),
        SpatialTransformer(8, 4, 6, norm_of(SMALL.trunk)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_batch_seen_together_is_one_picture(part: nn.Module) -> None:
    """What is found from two halves is what the whole has, where no border is near."""
    x = torch.randn(1, 8, 12, 16)
    finding = Finding()
    with torch.no_grad():
        part(torch.cat(x.chunk(2, -1)), finding)
        whole = part(x)
        again = part(x, Found(finding.values))
    if isinstance(part, ResidualBlock):  # its second norm sees the cut's zero padding
        assert float((whole - again).abs().mean()) < 0.05
    else:
        torch.testing.assert_close(whole, again, atol=1e-5, rtol=1e-4)


def test_separable_convolutions_are_the_sums_that_the_paper_draws() -> None:
    """The fused filters against branches computed one by one."""
    x = torch.randn(2, 8, 7, 9)
    fsc, dsc = FrequencySeparable(8, 12, 4), DirectionSeparable(8, 4, 4)
    with torch.no_grad():
        gates = fsc.mlp(x.mean((2, 3))).sigmoid()[:, :, None, None, None]
        low = fsc.low_branch(x)
        high = fsc.high_branch(x - low)
        wanted = fsc.bottleneck(gates[:, 0] * low + gates[:, 1] * high)
        torch.testing.assert_close(fsc(x), wanted, atol=1e-6, rtol=1e-5)
        gates = dsc.mlp(x.mean((2, 3))).sigmoid()[:, :, None, None, None]
        h, v = dsc.h_conv(x), dsc.v_conv(x)
        both = dsc.v_conv(h)
        mixed = gates[:, 0] * h + gates[:, 1] * both + gates[:, 2] * v
        wanted = dsc.conv_expand(dsc.conv_reduce(mixed))
        torch.testing.assert_close(dsc(x), wanted, atol=1e-6, rtol=1e-5)


def test_aggregation_is_the_products_of_the_paper() -> None:
    x = torch.randn(2, 20, 12)
    part = QueryAggregation(12, 5, 6)
    with torch.no_grad():
        q, k, v = part.q_proj(part.query), part.k_proj(x), part.v_proj(x)
        context = (q @ k.mT * 12**-0.5).softmax(-1) @ v
        read = part.q_proj_c(x) @ part.k_proj_c(context).mT * 12**-0.5
        wanted = part.out_proj(read.softmax(-1) @ part.v_proj_c(context))
        torch.testing.assert_close(part(x), wanted, atol=1e-6, rtol=1e-5)


def test_the_mini_stays_small() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    made = make_network(MINI)
    assert isinstance(MINI, MiniConfig)
    assert 2 * sum(p.numel() for p in made.parameters()) <= 8 * 2**20
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        made(torch.zeros(1, 3, 64, 64))
    assert counter.get_total_flops() / 2 / 64**2 <= 0.6e6
