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
    from rsupres.upscaling.array import Model as Model
    from rsupres.upscaling.array import load_model as load_model
    from rsupres.upscaling.array import upscale_array as upscale_array
    from rsupres.upscaling.request import plan as plan
    from rsupres.upscaling.request import upscale as upscale

# Where each public name is defined.
_HOMES = {
    "Model": "rsupres.upscaling.array",
    "load_model": "rsupres.upscaling.array",
    "plan": "rsupres.upscaling.request",
    "upscale": "rsupres.upscaling.request",
    "upscale_array": "rsupres.upscaling.array",
}

__all__ = [
    "Model",
    "__version__",
    "load_model",
    "plan",
    "upscale",
    "upscale_array",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'rsupres' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
