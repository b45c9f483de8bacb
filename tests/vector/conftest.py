"""Fixtures of the tests in this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.vector.town import TOWN, codes, write_osm


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The town as OSM XML."""
    return write_osm(tmp_path_factory.mktemp("town") / "town.osm", TOWN)


@pytest.fixture(scope="module")
def expected(town: Path) -> np.ndarray:
    """Its codes on the grid."""
    return codes(town)
