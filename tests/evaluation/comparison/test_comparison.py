"""Paired differences, limits and the worst images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rsupres.errors import InputError, QualityGateError
from rsupres.evaluation.comparison.limits import check_gates, parse_gates
from rsupres.evaluation.comparison.paired import bootstrap, compare, difference_lines
from rsupres.evaluation.comparison.worst import N_WORST, SIDE, WorstImages
from rsupres.evaluation.report import Row


def rows(model: str, psnr: list[float], sam: list[float] | None = None) -> list[Row]:
    return [
        Row(model, "4", f"image{k}", 1, {"psnr": value, "sam": (sam or psnr)[k]})
        for k, value in enumerate(psnr)
    ]


def test_a_small_gain_on_every_image_is_clear_though_images_differ() -> None:
    base = [20.0, 35.0, 27.0, 41.0, 30.0, 24.0]
    better = [value + 0.1 + 0.01 * k for k, value in enumerate(base)]
    psnr, sam = compare(rows("a", base) + rows("b", better), "a")
    assert (psnr.model, psnr.other, psnr.n_images) == ("b", "a", 6)
    assert psnr.mean == pytest.approx(0.125)
    assert psnr.low > 0.1
    assert (psnr.verdict, psnr.wins, psnr.losses) == ("better", 6, 0)
    assert (sam.figure, sam.verdict, sam.wins) == ("sam", "worse", 0)


def test_differences_of_both_signs_are_not_clear() -> None:
    found = compare(rows("a", [1.0] * 6) + rows("b", [2, 0, 2, 0, 2.0, 0.0]), "a")
    assert found[0].verdict == ""
    assert (found[0].wins, found[0].losses) == (3, 3)
    assert found[0].low < 0 < found[0].high


def test_the_interval_is_that_of_the_normal_for_many_images() -> None:
    values = np.random.default_rng(3).normal(0.5, 2.0, 400)
    low, high = bootstrap(values, [str(k) for k in range(400)])
    error = values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_parts_of_one_image_count_as_one() -> None:
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 25)
    parts = [f"image{k // 25}" for k in range(100)]
    apart = bootstrap(values, [str(k) for k in range(100)])
    together = bootstrap(values, parts)
    assert together[1] - together[0] > 3 * (apart[1] - apart[0])
    assert bootstrap(values[:50], parts[:50]) == (-math.inf, math.inf)


def test_an_image_that_only_one_model_has_is_left_out() -> None:
    others = [*rows("b", [2.0, 3.0, 4.0, 5.0]), *rows("a", [1.0, 2.0, math.nan])]
    found = compare(others, "a")[0]
    assert (found.n_images, found.mean) == (2, 1.0)
    assert found.to_json()["low"] is None
    assert "[?]" in difference_lines([found])[1]


@pytest.mark.parametrize(
    ("gate", "raised"),
    [
        ("psnr<20", None),
        ("psnr<30 and sam<3", QualityGateError),
        ("ssim<0.5", InputError),
    ],
)
def test_gates_hold_figures_of_every_row(
    gate: str, raised: type[Exception] | None
) -> None:
    measured = rows("a", [31.0, 25.0], [1.0, 2.0])
    gates = parse_gates([gate])
    if raised is None:
        check_gates(gates, measured)
        return
    with pytest.raises(raised, match="a x4" if raised is QualityGateError else "ssim"):
        check_gates(gates, measured)


def test_gates_know_every_figure_and_no_other() -> None:
    parse_gates(["edge_f1<0.3 or shift_row>1", "spread_skill<0.5"])
    with pytest.raises(InputError, match="no figure 'clipped'"):
        parse_gates(["clipped>0.1"])


def test_the_worst_images_are_kept_around_their_largest_error() -> None:
    worst = WorstImages()
    for k in range(N_WORST + 5):
        hr = np.zeros((3, 300, 400), np.uint8)
        sr = hr.copy()
        sr[:, 250, 20] = 200
        versions = {"input": hr, "a": sr, "truth": hr}
        worst.add(f"image{k}", "4", versions, {"a": {"psnr": 40.0 - k % 7 - k / 100}})
    kept = worst.by_model()["a"]
    assert len(kept) == N_WORST
    values = [shown.value for shown in kept]
    assert values == sorted(values)
    assert values[0] == 40 - 6 - 0.13
    cut = kept[0].versions["a"]
    assert cut.shape == (3, SIDE, SIDE)
    assert cut.any()
