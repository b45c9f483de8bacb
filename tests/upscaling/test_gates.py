"""Gates are parsed, never evaluated; figures add up over strips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsupres.errors import InputError
from rsupres.upscaling.gates import StripSums, parse_gate, total_figures
from tests.strategies import LETTERS

FIGURES = {"consistency": 0.03, "valid": 0.8, "bias": -0.001, "clipped": 0.0}


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("consistency>0.02", True),
        ("consistency > 3%", False),
        ("consistency>=0.03", True),
        ("valid<0.9", True),
        ("valid < 80%", False),
        ("bias<-1e-4", True),
        ("clipped != 0", False),
        ("clipped == .0", True),
        ("valid<0.5 or consistency>0.02", True),
        ("valid<0.5 or consistency>0.02 and bias>0", False),
        ("valid<0.9 and consistency>0.02", True),
    ],
)
def test_gates_compare_figures(text, fails):
    assert parse_gate(text).fails(FIGURES) is fails


@pytest.mark.parametrize(
    "text",
    [
        "",
        "consistency",
        "consistency>",
        "consistency>two",
        "beauty>1",
        "valid<0.9 or",
        "valid<0.9; import os",
        "().__class__>1",
        "valid<0.9 xor bias>0",
        "0.9>valid",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match="fail_if"):
        parse_gate(text)


@given(st.text(LETTERS, max_size=40))
def test_no_text_does_more_than_be_refused(text):
    try:
        parse_gate(text)
    except InputError:
        return


def test_a_failed_gate_is_described_with_its_figures():
    gate = parse_gate("valid<0.9 and consistency>0.02")
    assert gate.describe(FIGURES) == f"{gate.text} (consistency = 0.03, valid = 0.8)"


def test_figures_are_those_of_all_strips_together():
    strips = [
        StripSums(
            pixels=10, valid=8, values=16, clipped=4, difference=1.6, squares=4.0
        ),
        StripSums(pixels=10, valid=4, values=8, clipped=2, difference=0.8, squares=2.0),
    ]
    figures = total_figures(strips)
    assert figures["valid"] == 0.6
    assert figures["clipped"] == 0.25
    assert figures["bias"] == pytest.approx(0.1)
    assert figures["consistency"] == pytest.approx(0.5)
    assert "uncertainty" not in figures


def test_sums_survive_storage():
    sums = StripSums(3, 2, 6, 1, 0.1, 0.2, 0.3, 6)
    assert StripSums.from_json(sums.to_json()) == sums
