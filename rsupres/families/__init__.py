"""The model families by name, one package a paper, imported on first use.

Listing the families therefore does not load torch.
"""

from __future__ import annotations

from importlib import import_module

FAMILIES = {
    "bicubic": "rsupres.families.bicubic",
    "sharpening": "rsupres.families.sharpening.sharpener",
    "optical": "rsupres.families.optical.resolver",
    "e2diffsr": "rsupres.families.e2diffsr.resolver",
    "slimdiffsr": "rsupres.families.slimdiffsr.resolver",
    "refdiff": "rsupres.families.refdiff.resolver",
    "sgdm": "rsupres.families.sgdm.resolver",
}

# Modules that read a scene's sensor as their family will, without torch.
SENSOR_READERS = {"optical": "rsupres.families.optical.reading"}


def family_module(name: str) -> object:
    """Import and return the module of a family.

    Raises:
        CheckpointError: the name is not one of `FAMILIES`.
    """
    from rsupres.errors import CheckpointError

    if name not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise CheckpointError(f"{name!r} is not a model family; known are {known}.")
    return import_module(FAMILIES[name])
