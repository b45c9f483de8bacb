"""Errors of vegetation and water indices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rsupres.cli import main
from rsupres.cli.options.evaluation import INDICES as NAMES
from rsupres.evaluation.measures.indices import INDICES, index_figures
from tests.helpers import make_scene

BANDS = ("B04", "B03", "B02", "B08")


def scene(path: Path, seed: int) -> tuple[Path, np.ndarray]:
    """Write a picture of four bands; return its path and its numbers."""
    pixels = np.random.default_rng(seed).integers(500, 4000, (4, 24, 24))
    values = pixels.astype(np.uint16)
    make_scene(path, pixels=values, descriptions=BANDS)
    return path, pixels.astype(np.float64)


def figures(*arguments: object) -> dict[str, float]:
    command = ["evaluate", *map(str, arguments), "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    row: dict[str, float] = json.loads(result.stdout)
    return row


def test_the_command_knows_the_indices() -> None:
    assert tuple(INDICES) == NAMES


def test_errors_are_those_of_the_index_by_hand(tmp_path: Path) -> None:
    sr, a = scene(tmp_path / "sr.tif", 1)
    hr, b = scene(tmp_path / "hr.tif", 2)
    row = figures(sr, hr, "--index", "ndvi", "--index", "ndwi")
    red, green, nir = 0, 1, 3
    for name, (over, under) in {"ndvi": (nir, red), "ndwi": (green, nir)}.items():
        of_sr, of_hr = ((x[over] - x[under]) / (x[over] + x[under]) for x in (a, b))
        error = of_sr - of_hr
        assert row[f"{name}_rmse"] == pytest.approx(np.sqrt((error**2).mean()))
        assert row[f"{name}_bias"] == pytest.approx(error.mean())


def test_an_offset_in_the_numbers_leaves_the_index_of_reflectance(
    tmp_path: Path,
) -> None:
    """Reflectance with an offset of -0.1, as of baseline 04.00, and without one."""
    pixels = np.random.default_rng(1).integers(1100, 4000, (4, 24, 24))
    for name, dn, offset in (("sr", pixels, -0.1), ("hr", pixels - 1000, 0.0)):
        make_scene(
            tmp_path / f"{name}.tif",
            pixels=dn.astype(np.uint16),
            descriptions=BANDS,
            scales=(1e-4,) * 4,
            offsets=(offset,) * 4,
        )
    files = tmp_path / "sr.tif", tmp_path / "hr.tif"
    row = figures(*files, "--index", "ndvi", "--stretch", "percentile:2,98")
    assert row["ndvi_rmse"] == pytest.approx(0.0, abs=1e-5)


def test_pixels_without_a_positive_sum_do_not_count() -> None:
    sr = np.array([[[0.3, 0.0, -0.2]], [[0.1, 0.0, 0.1]]])
    hr = np.array([[[0.4, 0.4, 0.4]], [[0.1, 0.1, 0.1]]])
    found = index_figures("ndvi", sr, hr, np.ones((1, 3), bool))
    assert found["ndvi_bias"] == pytest.approx(0.5 - 0.6)
    nothing = index_figures("ndvi", sr, hr, np.zeros((1, 3), bool))
    assert np.isnan(nothing["ndvi_rmse"])


def test_a_gate_knows_the_index_and_a_missing_band_is_told(tmp_path: Path) -> None:
    sr, _ = scene(tmp_path / "sr.tif", 1)
    hr, _ = scene(tmp_path / "hr.tif", 2)
    command = ["evaluate", str(sr), str(hr), "--index", "ndvi"]
    strict = CliRunner().invoke(main, [*command, "--fail-if", "ndvi_rmse>0.01"])
    assert strict.exit_code == 8, strict.output
    colours = tmp_path / "rgb.tif"
    pixels = np.full((3, 24, 24), 900, np.uint16)
    make_scene(colours, pixels=pixels, descriptions=BANDS[:3])
    result = CliRunner().invoke(main, ["evaluate", str(colours), *command[2:]])
    assert result.exit_code == 3
    assert "no band for nir" in result.stderr
