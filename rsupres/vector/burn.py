"""Burn polygons into windows of pixels; every window is a cut of one picture.

Vertices lie on a lattice of 1/256 pixel (`rsupres.vector.geometry.snap`), so moving
them into a window is exact, and GDAL decides each pixel centre in the same way for
every window: `burn(w) == burn(whole)[w]`. A spatial index finds the polygons of a
window. Files and legends are not known here.
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
from rsupres.vector.wkb import Shapes

Inks = NDArray[np.uint16]
MAX_INKS = 65_534
BATCH_POLYGONS = 1 << 13  # that GDAL burns together; it copies them
# Pixel corners lie at whole numbers from -1; rasterio rejects the identity transform.
_OFF_BY_ONE = Affine.translation(-1, -1)


class Burner:
    """Polygons with inks, ready to be burned.

    Args:
        polygons: (n,) in SR pixels, on the lattice, in drawing order.
        inks: (n,) 0 to MAX_INKS - 1, the value that each polygon is drawn with.
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
        """Return the ink of every pixel centre, plus 1, as uint8 or uint16; 0 = none.

        Args:
            window: SR pixels, anywhere.
            factor: finer pixels along one SR pixel.
        """
        shape = window.height * factor, window.width * factor
        frame = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        found = np.sort(self._tree.query(frame))
        blank = np.zeros(shape, self._dtype)
        if not len(found):
            return blank
        with as_dataset(blank[None], _OFF_BY_ONE) as dataset:
            for start in range(0, len(found), BATCH_POLYGONS):
                runs = self._runs(found[start : start + BATCH_POLYGONS], window, factor)
                rasterize(runs, dst_path=dataset, transform=_OFF_BY_ONE)
            return cast(NDArray[np.unsignedinteger], dataset.read(1))

    def _runs(
        self, found: NDArray[np.intp], window: PixelWindow, factor: int
    ) -> list[tuple[shapely.MultiPolygon, int]]:
        """Return polygons in the window's pixels with values; an ink's are joined."""
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
