"""SlimDiffSR's networks: checkpoints, released weights, and the parts of the paper."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsupres.checkpoints.catalogue import load_model
from rsupres.checkpoints.convert import import_checkpoint
from rsupres.checkpoints.file import read_checkpoint, write_checkpoint
from rsupres.errors import CheckpointError, InputError
from rsupres.families.base import SamplerOptions
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
from rsupres.upscaling.array import upscale_whole
from tests.families.slimdiffsr.small_models import (
    CPU,
    SMALL,
    each_config,
    mini_config,
    model,
    network,
    picture,
)
from tests.parity.golden import name_seeded_tensor


@mini_config
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


@pytest.mark.parametrize(
    ("parallel", "dead"),
    [pytest.param(False, True, marks=pytest.mark.slow), (True, False)],
)
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
