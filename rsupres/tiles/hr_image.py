"""Open and read the sharp image that is cut along with a scene, on its SR grid."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.raster.dataset import Raster
from rsupres.raster.place.union import NamedGrid, union_grid
from rsupres.raster.undeclared import heed_undeclared


def open_hr(name: str, sr: Grid, stack: ExitStack) -> tuple[Raster, PixelWindow]:
    """Return an open sharp image, and the window of the SR frame in it.

    Args:
        name: as the user gave it.
        sr: the SR frame.
        stack: closes the image.

    Raises:
        InputError: it cannot be opened, is on another grid, or lies beside the scene.
    """
    scene = heed_undeclared(stack.enter_context(Raster.open(name)))
    try:
        _, (own, wanted) = union_grid([scene, NamedGrid("the SR grid", sr)])
    except InputError as error:
        raise InputError(
            f"{name}: is not on the SR grid of the scene; bring it there, for example "
            f"with rio warp. ({error})",
            argument="hr",
        ) from error
    if wanted.intersection(own) is None:
        raise InputError(
            f"{name}: lies beside the scene; they do not touch.", argument="hr"
        )
    return scene, wanted.relative_to(own)


def read_hr(
    image: Raster, corner: PixelWindow, window: PixelWindow
) -> tuple[np.ndarray, np.ndarray]:
    """Return an SR window (c, H, W) of the sharp image, and where it is valid.

    Args:
        image: open.
        corner: the SR frame as a window of the image.
        window: of the SR frame.
    """
    bands = image.data_bands
    place = window._replace(row=window.row + corner.row, col=window.col + corner.col)
    shape = (window.height, window.width)
    blank = 0 if image.nodata is None else image.nodata
    pixels = np.full((len(bands), *shape), blank, image.dtype)
    valid = np.zeros((1, *shape), bool)
    inside = place.intersection(image.grid.window)
    if inside is not None:
        rows, cols = inside.relative_to(place).slices()
        pixels[:, rows, cols], valid[:, rows, cols] = image.read_stored(inside, bands)
    return pixels, valid
