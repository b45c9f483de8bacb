"""Fixtures of the tests in this folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conditions.ground import LR, ground
from tests.conditions.looking import GROUND, SR
from tests.helpers import NORTH_UP, make_scene


@pytest.fixture
def lr(tmp_path: Path) -> Path:
    pixels = np.round(ground(LR) * 10000).astype(np.uint16)
    return make_scene(
        tmp_path / "scene.tif", pixels=pixels, descriptions=("B04", "B03", "B02")
    )


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    unit = GROUND.reshape(3, 60, 2, 50, 2).mean((2, 4))
    pixels = np.round(unit * 6000).astype(np.uint16)
    pixels[:, 12:30, 5:25] = 0
    return make_scene(
        tmp_path / "scene.tif",
        pixels=pixels,
        nodata=0,
        descriptions=("B04", "B03", "B02"),
    )


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """On the SR grid, with a hole; displaced by 1 and 3 SR pixels."""
    pixels = np.round(np.roll(GROUND, (1, 3), (1, 2)) * 255).astype(np.uint8)
    pixels[:, 70:90, 60:] = 0
    return make_scene(
        tmp_path / "ref_2020-05-06.tif", pixels=pixels, transform=SR, nodata=0
    )


@pytest.fixture
def roads(tmp_path: Path) -> Path:
    """A map: one building in UTM coordinates, and one road."""
    x, y = NORTH_UP.c, NORTH_UP.f
    ring = [
        [x + 100, y - 100],
        [x + 200, y - 100],
        [x + 200, y - 180],
        [x + 100, y - 180],
    ]
    features = [
        {
            "type": "Feature",
            "properties": {"building": "yes"},
            "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        },
        {
            "type": "Feature",
            "properties": {"highway": "primary"},
            "geometry": {
                "type": "LineString",
                "coordinates": [[x + 10, y - 300], [x + 480, y - 320]],
            },
        },
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    text = {"type": "FeatureCollection", "crs": crs, "features": features}
    path = tmp_path / "map.geojson"
    path.write_text(json.dumps(text))
    return path
