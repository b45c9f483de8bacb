"""Fixtures of the tests in this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.training.chips import write_noise


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    """Two towns, two dates each, on different ground."""
    folder = tmp_path / "chips"
    folder.mkdir()
    for k, town in enumerate(("ulm", "bath")):
        for year in (2018, 2020):
            name = f"{town}_{year}_7.tif"
            write_noise(folder / name, year + k, east=5e5 + 1e4 * k)
    return folder
