"""Find pixels without a measurement in a file that declares no nodata value.

Orthophotos often have a black collar, and rasters of floats hold -9999 or 1e20, without
a nodata value or a mask that says so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsupres.raster.dataset import Raster

# Values that no sensor measures, as float32, in any band.
SENTINELS = (
    *(-9999.0, -99999.0, 1e20, -1e20, 1e30, -1e30),
    *(9.969209968386869e36, 3.4028235e38, -3.4028235e38),  # netCDF's, the largest
)
_LOWEST = -32768.0  # no measurement where all bands have it
MIN_COLLAR = 0.005  # share of the pixels that are 0 or white along the edge
SAMPLE_PIXELS = 1_000_000  # of a file that are looked at

logger = logging.getLogger(__name__)


class Undeclared(NamedTuple):
    """A value that stands for no measurement.

    Attributes:
        value: as the file stores it.
        share: of the pixels, 0 to 1; of a collar only those along the edge.
        place: words for where it is found.
        is_collar: it may be ground, such as shadow, water or clouds.
    """

    value: float
    share: float
    place: str
    is_collar: bool


def find_undeclared(scene: Raster, bands: Sequence[int]) -> Undeclared | None:
    """Return the value that stands for no measurement, None where none does.

    Args:
        scene: open; a nodata value or a mask of its own is believed.
        bands: of the file, from 1, that are used.
    """
    if scene.nodata is not None or scene.has_file_mask:
        return None
    dn, _ = scene.read_decimated(bands, SAMPLE_PIXELS)
    kind = np.dtype(scene.dtype)
    # Unsigned numbers hold none of them.
    for value in (*SENTINELS, _LOWEST) if kind.kind != "u" else ():
        same = dn.astype(np.float32) == np.float32(value)
        everywhere = same.all(axis=0)
        found = everywhere if value == _LOWEST else same.any(axis=0)
        if found.any():
            is_everywhere = np.count_nonzero(found) == np.count_nonzero(everywhere)
            place = "in all bands" if is_everywhere else "in a band"
            return Undeclared(value, float(found.mean()), place, is_collar=False)
    white = (float(np.iinfo(kind).max),) if kind.kind == "u" else ()
    for value in (0.0, *white):
        share = float(_from_the_edge((dn == value).all(axis=0)).mean())
        if MIN_COLLAR <= share < 1:
            place = "in all bands along the edge"
            return Undeclared(value, share, place, is_collar=True)
    return None


def heed_undeclared(scene: Raster, remedies: Sequence[str] = ()) -> Raster:
    """Return a scene with its undeclared nodata declared; warn of a collar.

    -9999 and its like become the nodata value. A collar of 0 may be ground in shadow
    or water, and a white one clouds, so that it stays.

    Args:
        scene: open.
        remedies: names of the arguments that tell the nodata value.
    """
    found = find_undeclared(scene, scene.data_bands)
    if found is None:
        return scene
    advice = (
        ""
        if remedies
        else "Declare it, for example with gdal_translate -of VRT "
        f"-a_nodata {found.value:g} FILE COPY.vrt."
    )
    logger.warning(
        "%s: %.2g %% of its pixels are exactly %g %s, and it declares no "
        "nodata value; they are taken as %s.%s",
        scene.path,
        100 * found.share,
        found.value,
        found.place,
        "measurements" if found.is_collar else "nodata",
        f" {advice}" if advice else "",
        extra={"remedies": tuple(f"{name}={found.value:g}" for name in remedies)},
    )
    return scene if found.is_collar else scene.with_nodata(found.value)


def _from_the_edge(is_zero: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels that hang together with some at the edge of the picture."""
    if not any(side.any() for side in (is_zero[[0, -1]], is_zero[:, [0, -1]])):
        return np.zeros_like(is_zero)
    from scipy import ndimage

    parts, _ = ndimage.label(is_zero)
    edge = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.asarray(np.isin(parts, edge[edge > 0]))
