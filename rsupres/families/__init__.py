"""The model families by name, one package a paper, imported on first use.

Listing the families therefore does not load torch.
"""

from __future__ import annotations

FAMILIES = {
    "bicubic": "rsupres.families.bicubic",
    "sharpening": "rsupres.families.sharpening",
    "siamese": "rsupres.families.siamese",
    "optical": "rsupres.families.optical.resolver",
    "e2diffsr": "rsupres.families.e2diffsr.resolver",
    "slimdiffsr": "rsupres.families.slimdiffsr.resolver",
    "refdiff": "rsupres.families.refdiff.resolver",
    "sgdm": "rsupres.families.sgdm.resolver",
}

# Modules that say without torch what a family reads of a scene's sensor, and which
# bands run together.
SENSOR_READERS = {"optical": "rsupres.families.optical.reading"}
