"""A scene of three bands, and the command that upscales it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.cli.commands import run
from tests.helpers import ramp

X2 = ("--scale", "2", "--model", "bicubic")


def textured(height: int = 40, width: int = 36, bands: int = 3) -> np.ndarray:
    rng = np.random.default_rng(1)
    smooth = ramp(height, width, bands, "float64") / 10 + 500
    return (smooth + rng.integers(0, 200, smooth.shape)).astype(np.uint16)


def upscale(scene: Path, *options: object, name: str = "out.tif") -> Path:
    """Upscale with bicubic x2 and return the output; fail if the command does."""
    output = scene.with_name(name)
    result = run("upscale", scene, output, *X2, *options)
    assert result.exit_code == 0, result.output
    return output
