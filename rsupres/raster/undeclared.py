"""Find pixels without a measurement in a file that declares no nodata value.

Orthophotos often have a black collar, and rasters of floats hold -9999 or 1e20, without
a nodata value or a mask that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rsupres.raster.dataset import Raster

# Values that no sensor measures, as float32.
SENTINELS = (-9999.0, -99999.0, -32768.0, 1e20, -1e20, 3.4028235e38, -3.4028235e38)
MIN_COLLAR = 0.005  # share of the pixels that are 0 along the edge
SAMPLE_PIXELS = 1_000_000  # of a file that are looked at


class Undeclared(NamedTuple):
    """A value that stands for no measurement.

    Attributes:
        value: as the file stores it, in all bands.
        share: of the pixels, 0 to 1; of a collar only those along the edge.
    """

    value: float
    share: float


def find_undeclared(scene: Raster, bands: Sequence[int]) -> Undeclared | None:
    """Return the value that stands for no measurement, None where none does.

    Args:
        scene: open; a nodata value or a mask of its own is believed.
        bands: of the file, from 1, that are used.
    """
    if scene.nodata is not None or scene.has_mask:
        return None
    dn, _ = scene.read_decimated(bands, SAMPLE_PIXELS)
    for value in SENTINELS:
        share = float((dn == np.float32(value)).all(axis=0).mean())
        if share > 0:
            return Undeclared(value, share)
    share = float(_from_the_edge((dn == 0).all(axis=0)).mean())
    return Undeclared(0.0, share) if MIN_COLLAR <= share < 1 else None


def _from_the_edge(is_zero: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels that hang together with some at the edge of the picture."""
    parts, _ = ndimage.label(is_zero)
    edge = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.asarray(np.isin(parts, edge[edge > 0]))
