"""A scene with a reference and roads, and jobs of a model that looks at all."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import rasterio
from affine import Affine

from rsupres.upscaling.job import UpscaleJob
from tests.fakes import LookingModel, spec
from tests.helpers import NORTH_UP
from tests.pictures import texture

SR = NORTH_UP @ Affine.scale(0.5)
LOOKS = frozenset({"reference", "vector_map", "style", "change_mask"})
GROUND = texture(120, 100, 1)  # the SR grid


def looking(monkeypatch, needs: tuple[str, ...] = (), **values: object) -> LookingModel:
    plain = {"bands": ("red", "green", "blue"), "accepts": LOOKS, **values}
    return LookingModel(spec(needs=frozenset(needs), **plain)).install(monkeypatch)


def job_for(scene: Path, name: str = "out.tif", **options: object) -> UpscaleJob:
    tiles = {"tile_size": 16, "overlap": 6}
    options = {"scale": Fraction(2), "model": "fake", **tiles, **options}
    for key in ("reference", "vector_map"):
        if key in options:
            options[key] = (str(options[key]),)
    return UpscaleJob(scenes=(str(scene),), output=scene.with_name(name), **options)


def tags_of(path: Path) -> dict[str, str]:
    with rasterio.open(path) as dataset:
        return dataset.tags()
