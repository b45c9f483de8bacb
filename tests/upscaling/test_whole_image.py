"""A model on one image in memory, as one tile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from rsupres.checkpoints.catalogue import load_model
from rsupres.errors import InputError, ModelOutputError
from rsupres.families.base import (
    ModelSpec,
    SamplerOptions,
    ScaleRange,
)
from rsupres.upscaling.array import upscale_whole
from tests.fakes import RepeatingModel
from tests.pictures import (
    texture,
)

CPU = torch.device("cpu")


SPEC = ModelSpec(
    family="stub",
    scales=ScaleRange(Fraction(1), Fraction(8), Fraction(4)),
    bands=("red", "green", "blue"),
    multiple=8,
    detail=True,
)


@pytest.mark.parametrize("scale", ["2", "3", "4", "5/2", "10/3"])
def test_upscale_whole_of_bicubic_is_pillow(scale: str) -> None:
    ratio = Fraction(scale)
    lr = texture(18, 21)
    sr = upscale_whole(load_model("bicubic", CPU, SamplerOptions()), lr, ratio, CPU)
    assert sr.shape == (3, int(18 * ratio), int(21 * ratio))
    size = (int(18 * ratio), int(21 * ratio))
    if ratio.denominator == 1:
        expected = [
            np.asarray(
                Image.fromarray(band).resize(size[::-1], Image.Resampling.BICUBIC)
            )
            for band in lr
        ]
        inner = np.s_[:, 12:-12, 12:-12]  # beyond the edge one reflects, one weighs
        np.testing.assert_allclose(sr[inner], np.stack(expected)[inner], atol=2e-6)


def test_upscale_whole_pads_to_what_the_model_needs_and_crops_back() -> None:
    stub = RepeatingModel(SPEC)
    lr = texture(18, 21)
    sr = upscale_whole(stub, lr, Fraction(3), CPU)
    batch = stub.batches[0]
    assert batch.lr.shape == (1, 3, 24, 24)  # multiples of 8 at scale 3
    assert batch.windows_sr[0][2:] == (72, 72)
    assert batch.scene.numbers["height"] == 24
    reflected = np.pad(lr, ((0, 0), (0, 6), (0, 3)), mode="symmetric")
    np.testing.assert_array_equal(batch.lr[0].numpy(), reflected)
    np.testing.assert_array_equal(sr, np.repeat(np.repeat(lr, 3, 1), 3, 2))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: (RepeatingModel(SPEC), 3, Fraction(9)), InputError),
        (lambda: (RepeatingModel(SPEC), 4, Fraction(4)), InputError),
        (
            lambda: (
                RepeatingModel(replace(SPEC, needs=frozenset({"reference"}))),
                3,
                Fraction(4),
            ),
            InputError,
        ),
        (
            lambda: (RepeatingModel(SPEC, answer=math.nan), 3, Fraction(4)),
            ModelOutputError,
        ),
    ],
)
def test_upscale_whole_refuses_what_cannot_work(
    make: Callable[[], tuple[RepeatingModel, int, Fraction]], error: type[Exception]
) -> None:
    stub, bands, scale = make()
    with pytest.raises(error):
        upscale_whole(stub, texture(16, 16, bands=bands), scale, CPU)
