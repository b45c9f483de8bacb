"""Layers: conditions of small images as 8-bit rasters on the pixels of an HR image.

Packs store them and test sets read them; `as_conditions` turns them into the
`Conditions` of a model. Nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rsupres.families.base import Conditions

Layers = Mapping[str, NDArray[np.uint8]]  # by name, (c, H, W)
# Bands of each layer; the names are those of `Conditions`.
LAYERS: Mapping[str, int] = {
    "vector_map": 3,
    "reference": 3,
    "reference_valid": 1,
    "change_mask": 1,
    "style": 3,
}
_CODES = ("change_mask",)
_MASKS = ("reference_valid",)
# Layers that may be averaged; others hold codes, or colours that stand for classes.
PICTURES = ("reference", "style")


def find_fault(layers: Layers, size: tuple[int, int]) -> str | None:
    """Return the fault of the layers of an image, None without a fault.

    Args:
        layers: by name.
        size: (height, width) of the image.
    """
    if unknown := set(layers) - set(LAYERS):
        return f"unknown layer '{min(unknown)}'"
    if ("reference" in layers) != ("reference_valid" in layers):
        return "reference and reference_valid belong together"
    for name, layer in layers.items():
        wanted = (LAYERS[name], *size)
        if layer.shape != wanted or layer.dtype != np.uint8:
            return f"{name} is {layer.dtype} {layer.shape}, not uint8 {wanted}"
    return None


def as_conditions(patches: Sequence[Layers]) -> Conditions:
    """Return the layers of patches of one size as a batch, on the CPU.

    Colours become [0, 1], and invalid parts of the reference 0. The style is a batch
    too, (b, 3, H, W), while a scene has one style for all tiles.
    """
    import torch

    made: dict[str, torch.Tensor] = {}
    for name in patches[0]:
        stacked = torch.from_numpy(np.stack([patch[name] for patch in patches]))
        if name in _CODES:
            made[name] = stacked
        elif name in _MASKS:
            made[name] = stacked > 0
        else:
            made[name] = stacked.float() / 255.0
    if "reference" in made:
        made["reference"] = made["reference"] * made["reference_valid"]
    return Conditions(**made)
