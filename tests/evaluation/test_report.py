"""Means and the table of figures, and the sizes of a test."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from rsupres.errors import InputError
from rsupres.evaluation.report import Row, mean_rows, table_lines
from rsupres.evaluation.resize import sizes_at


def test_sizes_keep_lr_and_hr_on_the_same_ground() -> None:
    assert sizes_at(256, 250, Fraction(3)) == ((85, 83), (255, 249))
    lr, hr = sizes_at(256, 250, Fraction(13, 5))
    assert (lr, hr) == ((95, 95), (247, 247))
    with pytest.raises(InputError, match="too small"):
        sizes_at(12, 30, Fraction(13, 5))


def test_means_leave_missing_figures_out_and_the_table_shows_a_dash() -> None:
    rows = [
        Row("m", "4", "a", 1, {"psnr": 20.0, "sam": math.nan}),
        Row("m", "4", "b", 1, {"psnr": 30.0, "sam": 2.0}),
        Row("n", "4", "b", 1, {"psnr": 10.0, "sam": math.nan}),
    ]
    means = mean_rows(rows)
    assert [(r.model, r.n_images, r.figures["psnr"]) for r in means] == [
        ("m", 2, 25.0),
        ("n", 1, 10.0),
    ]
    assert means[0].figures["sam"] == 2.0
    lines = table_lines(means)
    assert lines[0].split() == ["model", "scale", "image", "PSNR", "SAM"]
    assert lines[2].split() == ["n", "4", "mean", "of", "1", "10.000", "-"]
    assert means[1].to_json()["sam"] is None
