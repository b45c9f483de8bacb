"""Polygons in SR pixels become rows of ink; every window is a cut of one picture.

Vertices lie on a lattice of 1/256 pixel (`rsupres.vector.geometry.snap`), so moving
them into a window is exact arithmetic, and GDAL's filling decides each pixel centre
alike from wherever it looks: `burn(w) == burn(whole)[w]`. A spatial index finds what a
window needs. Knows neither files nor legends.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from rsupres.grid import PixelWindow
from rsupres.raster.virtual import as_dataset
from rsupres.vector.geometry import Shapes

Inks = NDArray[np.uint16]
MAX_INKS = 65_534
AT_ONCE = 1 << 13  # polygons that GDAL is given together; it copies them
# Pixel corners lie at whole numbers from -1; the identity is no transform to rasterio.
_OFF_BY_ONE = Affine.translation(-1, -1)


class Burner:
    """Polygons with inks, ready to be burned.

    Args:
        polygons: (n,) in SR pixels, on the lattice, in drawing order.
        inks: (n,) 0...MAX_INKS - 1; what is drawn.
    """

    def __init__(self, polygons: Shapes, inks: Inks) -> None:
        self._polygons = polygons
        self._inks = inks
        self._tree = shapely.STRtree(polygons)
        highest = int(inks.max(initial=0)) + 1
        self._dtype = "uint8" if highest < 256 else "uint16"

    def __len__(self) -> int:
        return len(self._polygons)

    def burn(self, window: PixelWindow, factor: int = 1) -> NDArray[np.unsignedinteger]:
        """Return the ink of every pixel centre, plus 1; 0 where nothing is drawn.

        Args:
            window: SR pixels, anywhere.
            factor: finer pixels along one SR pixel.

        Returns:
            (height * factor, width * factor) uint8 or uint16.
        """
        shape = window.height * factor, window.width * factor
        frame = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        found = np.sort(self._tree.query(frame))
        blank = np.zeros(shape, self._dtype)
        if not len(found):
            return blank
        with as_dataset(blank[None], _OFF_BY_ONE) as dataset:
            for start in range(0, len(found), AT_ONCE):
                runs = self._runs(found[start : start + AT_ONCE], window, factor)
                rasterize(runs, dst_path=dataset, transform=_OFF_BY_ONE)
            return cast(NDArray[np.unsignedinteger], dataset.read(1))

    def _runs(
        self, found: NDArray[np.intp], window: PixelWindow, factor: int
    ) -> list[tuple[shapely.MultiPolygon, int]]:
        """Return polygons in the window's pixels with their values, in order.

        Equal inks side by side are one shape; GDAL burns its parts one by one.
        """
        inks, polygons = self._inks[found], self._polygons[found]
        xy = shapely.get_coordinates(polygons)
        moved = shapely.set_coordinates(
            polygons, (xy - (window.col, window.row)) * factor - 1
        )
        starts = np.flatnonzero(np.diff(inks, prepend=-1))
        stops = [*starts[1:], len(inks)]
        return [
            (
                cast(shapely.MultiPolygon, shapely.multipolygons(moved[start:stop])),
                int(inks[start]) + 1,
            )
            for start, stop in zip(starts, stops, strict=True)
        ]
