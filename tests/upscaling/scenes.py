"""A scene of three bands with a gap, and jobs that upscale it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import upscale_scene
from tests.helpers import read


def textured(height: int = 60, width: int = 50, bands: int = 3) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(300, 3000, (bands, height, width)).astype(np.uint16)


def job_for(scene: Path, name: str = "out.tif", **options: object) -> UpscaleJob:
    options = {"scale": Fraction(2), "model": "fake", **options}
    return UpscaleJob(scenes=(str(scene),), output=scene.with_name(name), **options)


def result(scene: Path, name: str = "out.tif", **options: object) -> np.ndarray:
    job = job_for(scene, name, **options)
    upscale_scene(job)
    return read(job.output)
