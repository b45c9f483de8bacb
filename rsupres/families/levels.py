"""Levels of a scene's bands that become 0 and 1 for models without absolute scale.

Found once for the scene, never for a tile, and undone on the result.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rsupres.families.base import SceneReader
from rsupres.grid import PixelWindow

_LEVELS = (0.5, 99.5)  # percentiles that become 0 and 1
_MIN_SPAN = 0.02  # of the stretch; flatter scenes are not amplified further


def scene_levels(scene: SceneReader) -> dict[str, float]:
    """Return low and high percentiles of each band over a thinned scene."""
    side = 256
    rows = np.linspace(0, max(scene.height - side, 0), 4).astype(int)
    cols = np.linspace(0, max(scene.width - side, 0), 4).astype(int)
    samples = []
    for row in np.unique(rows):
        for col in np.unique(cols):
            window = PixelWindow(
                int(row),
                int(col),
                min(side, scene.height - int(row)),
                min(side, scene.width - int(col)),
            )
            pixels, valid = scene.read(window)
            samples.append(pixels[:, valid[0]])
    values = np.concatenate(samples, axis=1)
    levels = {}
    for k, band in enumerate(values):
        low, high = np.percentile(band, _LEVELS) if band.size else (0.0, 1.0)
        levels[f"low_{k}"] = float(low)
        levels[f"high_{k}"] = float(max(high, low + _MIN_SPAN))
    return levels


def band_levels(
    numbers: Mapping[str, float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return low and high as (1, 3, 1, 1); 0 and 1 where none were found.

    Args:
        numbers: of the scene's context, by name.
        device: of the result.
    """
    pairs = [
        [numbers.get(f"{name}_{k}", default) for k in range(3)]
        for name, default in (("low", 0.0), ("high", 1.0))
    ]
    low, high = torch.tensor(pairs, dtype=torch.float32, device=device)
    return low[None, :, None, None], high[None, :, None, None]
