"""Satellite super-resolution with diffusion models.

The package makes a sharper GeoTIFF out of a coarse one and keeps every pixel where it
belongs on the ground. Importing it loads neither torch nor rasterio; the functions
below are loaded on first use. They do what the commands of the same names do.

>>> import rsupres
>>> "upscale_array" in dir(rsupres)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from rsupres.version import __version__

if TYPE_CHECKING:
    from rsupres.change.write import change_mask as change_mask
    from rsupres.evaluation.measure_pair import evaluate as evaluate
    from rsupres.report.request import make_report as make_report
    from rsupres.tiles.request import batch as batch
    from rsupres.tiles.request import mosaic as mosaic
    from rsupres.tiles.request import tile as tile
    from rsupres.upscaling.array import Model as Model
    from rsupres.upscaling.array import load_model as load_model
    from rsupres.upscaling.array import upscale_array as upscale_array
    from rsupres.upscaling.request import plan as plan
    from rsupres.upscaling.request import upscale as upscale
    from rsupres.vector.rasterize import rasterize as rasterize

# Where each public name is defined.
_HOMES = {
    "Model": "rsupres.upscaling.array",
    "batch": "rsupres.tiles.request",
    "change_mask": "rsupres.change.write",
    "evaluate": "rsupres.evaluation.measure_pair",
    "load_model": "rsupres.upscaling.array",
    "make_report": "rsupres.report.request",
    "mosaic": "rsupres.tiles.request",
    "plan": "rsupres.upscaling.request",
    "rasterize": "rsupres.vector.rasterize",
    "tile": "rsupres.tiles.request",
    "upscale": "rsupres.upscaling.request",
    "upscale_array": "rsupres.upscaling.array",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'rsupres' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
