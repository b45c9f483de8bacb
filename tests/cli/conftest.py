"""Fixtures of the tests in this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import NAMES
from tests.cli.scenes import textured
from tests.helpers import make_scene


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene(
        tmp_path / "scene.tif",
        pixels=textured(),
        descriptions=("B04", "B03", "B02"),
        nodata=0,
    )


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two scenes in a folder; the working folder is its parent."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in ("T32TQM_1", "T33UUP_1"):
        make_scene(folder / f"{name}.tif", 16, 16, descriptions=NAMES)
    return folder


@pytest.fixture
def lone_scene(tmp_path: Path) -> Path:
    """A scene that is alone in its folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    return make_scene(folder / "scene.tif", 16, 16, descriptions=NAMES)
