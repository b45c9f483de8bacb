"""Weights in 8 bits: what is lost, what stays, and the way through a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from rsupres.checkpoints.file import read_checkpoint, write_checkpoint
from rsupres.checkpoints.int8 import pack_weights, unpack_weights
from rsupres.families.base import FixedScales, ModelSpec
from rsupres.training.state import read_tensors


@given(
    st.integers(0, 2**31), st.floats(-6, 4), st.sampled_from([(64, 16), (8, 16, 3, 3)])
)
def test_a_weight_moves_by_half_a_step_at_most(
    seed: int, power: float, shape: tuple[int, ...]
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    weight = weight * 10.0**power
    back = unpack_weights(pack_weights({"w": weight}))["w"]
    largest = weight.flatten(1).abs().amax(1).view(-1, *[1] * (len(shape) - 1))
    assert bool(((back - weight).abs() <= largest / 254 * 1.0001).all())


def test_small_tensors_and_whole_numbers_stay() -> None:
    tensors = {
        "bias": torch.randn(2000),
        "small": torch.randn(4, 4),
        "count": torch.arange(4096).view(64, 64),
        "zeros": torch.zeros(64, 64),
    }
    packed = pack_weights(tensors)
    assert set(packed) == {*tensors, "zeros::step"}
    back = unpack_weights(packed)
    assert list(back) == list(tensors)
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_a_file_of_8_bits_reads_as_floats(tmp_path: Path) -> None:
    weight = torch.randn(64, 32)
    path = tmp_path / "m.safetensors"
    spec = ModelSpec("sgdm", FixedScales(frozenset({Fraction(8)})))
    write_checkpoint(path, pack_weights({"w": weight}), spec, {}, "test")
    for tensors in (read_checkpoint(path).tensors, read_tensors(path)):
        assert tensors["w"].dtype == torch.float32
        assert torch.allclose(tensors["w"], weight, atol=0.05)
    assert path.stat().st_size < weight.numel() * 2
