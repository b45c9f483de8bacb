"""Packs with layers and stored LR: what is written, and what comes out as patches."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from rsupres.datasets.packs import HR_MULTIPLE, CropOrigin, Pack, PackMeta, write_pack
from rsupres.errors import InputError
from rsupres.tile_grid import lr_step
from rsupres.training.batches import PatchSource
from rsupres.training.config import PatchOptions

LAYERS = ("vector_map", "reference", "reference_valid", "change_mask", "style")


def positions(height: int, width: int) -> np.ndarray:
    """Return (3, H, W) uint8: row, column and a mark of both, so no shift hides."""
    row, col = np.indices((height, width))
    return np.stack([row, col, (7 * row + 13 * col) % 256]).astype(np.uint8)


def make_pack(
    height: int, width: int, scale: Fraction | None = None, n: int = 2
) -> Pack:
    """Every raster shows its own position; with a scale, HR repeats stored LR."""
    hr = positions(height, width)
    lr: tuple[np.ndarray, ...] = ()
    if scale is not None:
        small = positions(int(height / scale), int(width / scale))
        rows, cols = (
            [int((k + Fraction(1, 2)) / scale) for k in range(n_hr)]
            for n_hr in (height, width)
        )
        hr, lr = small[:, rows][:, :, cols], (small,) * n
    layers = {
        "vector_map": hr,
        "reference": hr,
        "reference_valid": np.ones((1, height, width), np.uint8),
        "change_mask": hr[2:],
        "style": hr[::-1],
    }
    origins = tuple(CropOrigin("a", f"a{k}.tif", 1.0) for k in range(n))
    meta = PackMeta(
        "train",
        "bicubic" if scale is None else "stored",
        origins,
        lr_scale=None if scale is None else str(scale),
        layers=LAYERS,
        legend="maptiler",
    )
    return Pack((hr,) * n, meta, lr, {k: (v,) * n for k, v in layers.items()})


@given(
    height=st.integers(26, 90),
    width=st.integers(26, 90),
    seed=st.integers(0, 2**31),
    lr_side=st.integers(6, 40),
)
def test_patches_of_all_rasters_are_cut_at_the_same_ground(
    height: int, width: int, seed: int, lr_side: int
) -> None:
    plan = PatchOptions(lr_side=lr_side, batch=3)
    batch = PatchSource([make_pack(height, width)], plan, seed).batch(0)
    seen = batch.conditions
    for other in (seen.vector_map, seen.reference, seen.style):
        assert other is not None
        assert other.dtype == torch.float32
    assert torch.equal(seen.vector_map, batch.hr)  # type: ignore[arg-type]
    assert torch.equal(seen.reference, batch.hr)  # type: ignore[arg-type]
    assert torch.equal(seen.style, batch.hr.flip(1))  # type: ignore[union-attr, arg-type]
    assert seen.reference_valid is not None
    assert seen.reference_valid.dtype == torch.bool
    assert seen.reference_valid.all()
    assert seen.change_mask is not None
    assert seen.change_mask.dtype == torch.uint8
    assert torch.equal(seen.change_mask.float() / 255.0, batch.hr[:, 2:])


@given(
    scale=st.sampled_from([Fraction(2), Fraction(4), Fraction(5, 2), Fraction(25, 6)]),
    units=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 2**31),
    lr_side=st.integers(1, 60),
)
def test_stored_lr_is_cut_where_hr_is(
    scale: Fraction, units: tuple[int, int], seed: int, lr_side: int
) -> None:
    step = lr_step(scale, HR_MULTIPLE)
    height, width = (int(n * step * scale) for n in units)
    if max(height, width) > 256:
        return
    pack = make_pack(height, width, scale)
    plan = PatchOptions(lr_side=max(lr_side, step), batch=3, scales=(1.0, 8.0))
    batch = PatchSource([pack], plan, seed).batch(0)
    assert batch.scale == scale
    assert batch.hr.shape[2] % 8 == 0
    assert torch.equal(batch.conditions.vector_map, batch.hr)  # type: ignore[arg-type]
    # HR repeats LR, so the HR pixel in the middle of an LR pixel has its value.
    middle = [int((k + Fraction(1, 2)) * scale) for k in range(batch.lr.shape[2])]
    assert torch.equal(batch.hr[:, :, middle][..., middle], batch.lr)


def test_stored_lr_is_not_degraded_again() -> None:
    pack = make_pack(64, 64, Fraction(4))
    odd = Pack(pack.crops, pack.meta, tuple(255 - lr for lr in pack.lr), pack.layers)
    plan = PatchOptions(lr_side=8, batch=2)
    lr, inverse = (PatchSource([p], plan, 3).batch(1).lr for p in (pack, odd))
    torch.testing.assert_close(lr, 1.0 - inverse)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PatchOptions(scales=(1.0, 3.0)), "scale 4, which data.scales leaves out"),
        (PatchOptions(fixed_scales=(8.0,)), "scale 4, which data.scales leaves out"),
        (PatchOptions(tone=True), "data.tone changes HR"),
        (PatchOptions(lr_side=1), "needs at least 2"),
    ],
)
def test_a_plan_that_stored_lr_cannot_follow_is_refused(
    plan: PatchOptions, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        PatchSource([make_pack(64, 64, Fraction(4))], plan, 0)


def test_fixed_scales_are_the_only_ones_and_all_come() -> None:
    plan = PatchOptions(lr_side=8, batch=1, fixed_scales=(4.0, 8.0))
    source = PatchSource([make_pack(64, 64)], plan, 0)
    seen = [source.batch(k).scale for k in range(30)]
    assert set(seen) == {4, 8}
    assert 5 < seen.count(Fraction(4)) < 25


@pytest.mark.parametrize("side", [127, 128, 100])
def test_small_crops_keep_fixed_scales(side: int) -> None:
    plan = PatchOptions(lr_side=32, batch=1, fixed_scales=(4.0, 8.0), hr_side=128)
    source = PatchSource([make_pack(side, side)], plan, 0)
    for k in range(10):
        batch = source.batch(k)
        assert batch.scale in (4, 8)
        assert batch.hr.shape[2] % 16 == 0
        assert batch.hr.shape[2] > side - 16


def test_invalid_parts_of_a_reference_are_zero_and_told() -> None:
    pack = make_pack(32, 32)
    valid = np.ones((1, 32, 32), np.uint8)
    valid[:, :, :9] = 0
    layers = {**pack.layers, "reference_valid": (valid,) * 2}
    pack = Pack(pack.crops, pack.meta, (), layers)
    batch = PatchSource(
        [pack], PatchOptions(lr_side=8, batch=4, scales=(4.0, 4.0)), 0
    ).batch(0)
    told, reference = batch.conditions.reference_valid, batch.conditions.reference
    assert told is not None
    assert reference is not None
    assert not told.all()
    assert told.any()
    assert (reference * ~told == 0).all()
    assert torch.equal(reference * told, batch.hr * told)


def test_layers_come_back_as_written(tmp_path: Path) -> None:
    pack = make_pack(40, 32, Fraction(4))
    write_pack(tmp_path / "p.safetensors", pack.crops, pack.meta, pack.lr, pack.layers)
    again = Pack.load(tmp_path / "p.safetensors")
    assert again.meta == pack.meta
    assert again.layers.keys() == pack.layers.keys()
    for name, arrays in pack.layers.items():
        for mine, other in zip(again.layers[name], arrays, strict=True):
            np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(again.lr[1], pack.lr[1])


def test_packs_of_format_1_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    pack = make_pack(32, 32)
    write_pack(path, pack.crops, replace(pack.meta, layers=()))
    tensors = load_file(path)
    header = {  # as version 0.1 wrote it
        "format": 1,
        "split": "train",
        "degradation": "bicubic",
        "crops": [{"place": "a", "source": f"a{k}.tif", "gsd_m": 1.0} for k in (0, 1)],
        "parameters": {},
        "licence": "",
        "seed": 0,
        "lr_scale": None,
    }
    save_file(tensors, path, metadata={"rsupres_pack": json.dumps(header)})
    old = Pack.load(path)
    assert old.layers == {}
    assert PatchSource([old], PatchOptions(), 0).batch(0).conditions.given() == {}
    header["format"] = 3
    save_file(tensors, path, metadata={"rsupres_pack": json.dumps(header)})
    with pytest.raises(InputError, match="format number"):
        Pack.load(path)


def test_layers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pack = make_pack(32, 32)
    cases = [
        ({k: v for k, v in pack.layers.items() if k != "style"}, "layers"),
        (
            pack.layers | {"style": tuple(a[:, 1:] for a in pack.layers["style"])},
            r"style is uint8 \(3, 31, 32\)",
        ),
        (
            pack.layers | {"change_mask": pack.layers["vector_map"]},
            "change_mask is uint8",
        ),
    ]
    for layers, message in cases:
        with pytest.raises(InputError, match=message):
            write_pack(tmp_path / "p", pack.crops, pack.meta, (), layers)
    assert not list(tmp_path.iterdir())
