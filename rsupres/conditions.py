"""Condition rasters that a model may look at, aligned to a tile's SR window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """What a model looks at besides the scene; None = not given.

    Attributes:
        vector_map: (b, 3, H, W) in [0, 1], legend colours.
        reference: (b, c, H, W) in [0, 1], earlier high-resolution image.
        change_mask: (b, 1, H, W) int, 0 = unchanged, else the land-cover class.
        style: (b, c, H, W) in [0, 1], an image whose colours to follow.
    """

    vector_map: Tensor | None = None
    reference: Tensor | None = None
    change_mask: Tensor | None = None
    style: Tensor | None = None
