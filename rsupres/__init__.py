"""Satellite super-resolution with diffusion models.

The package makes a sharper GeoTIFF out of a coarse one and keeps every pixel where it
belongs on the ground. Importing it loads neither torch nor rasterio; the public names
below are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsupres.upscaling.job import UpscaleJob
    from rsupres.upscaling.pipeline import RunSummary, finish_run, upscale_scene
    from rsupres.upscaling.planning import plan_job

from rsupres.version import __version__

_HOMES = {
    "RunSummary": "rsupres.upscaling.pipeline",
    "UpscaleJob": "rsupres.upscaling.job",
    "finish_run": "rsupres.upscaling.pipeline",
    "plan_job": "rsupres.upscaling.planning",
    "upscale_scene": "rsupres.upscaling.pipeline",
}

__all__ = [
    "RunSummary",
    "UpscaleJob",
    "__version__",
    "finish_run",
    "plan_job",
    "upscale_scene",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'rsupres' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
