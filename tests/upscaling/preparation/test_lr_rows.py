"""Rows that are read in parts are those that are read at once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation import lr_rows
from rsupres.upscaling.preparation.work import open_work
from tests.helpers import make_scene


@pytest.mark.parametrize("nodata", [None, 0])
def test_columns_are_read_in_parts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nodata: float | None,
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 4000, (3, 20, 150), np.uint16)
    pixels[:, 5:9, 60:70] = 0  # invalid across the border of two parts
    pixels[0, 3, 140] = 60_000  # beyond the stretch in the last part alone
    scene = make_scene(tmp_path / "s.tif", pixels=pixels, nodata=nodata)
    job = UpscaleJob(
        scenes=(str(scene),),
        output=tmp_path / "o.tif",
        scale=Fraction(4),
        model="bicubic",
        stretch="0,4000",
    )
    with open_work(job) as work:
        whole = work.read_rows(0, 20)
        monkeypatch.setattr(lr_rows, "READ_COLS", 64)
        parts = work.read_rows(0, 20)
    assert parts.top == whole.top
    assert parts.left == whole.left == 0
    for one, other in zip(parts[1:-1], whole[1:-1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
