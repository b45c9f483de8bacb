"""Hide pixels by a mask: a layer of the product, a raster, or polygons.

Masks are read on the pixels of the scene, by the nearest pixel, window by window.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.products.masks import (
    CLOUD_KINDS,
    LEGENDS,
    Legend,
    cloud_polygons,
    find_hidden,
    parse_classes,
)
from rsupres.products.model import Product
from rsupres.products.sentinel2 import code_in_file_name
from rsupres.raster.open import first_line, is_missing, locate, open_dataset
from rsupres.raster.place.polygons import read_polygons
from rsupres.raster.virtual import is_inside

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

BoolArray = NDArray[np.bool_]
# The layers that each choice stands for, the first that a product has.
CHOICES = {"scl": ("SCL",), "qa60": ("QA60", "CLASSI", "CLOUDS")}
_VECTORS = (".gpkg", ".shp", ".geojson", ".json", ".kml", ".fgb", ".parquet")


class Mask(Protocol):
    """Pixels of a scene that are hidden."""

    @property
    def files(self) -> tuple[str, ...]:
        """Local files that it was read from."""

    @property
    def saturated(self) -> float | None:
        """DN of a saturated detector, if such pixels are hidden, too."""

    def hidden(self, place: PixelWindow, shape: tuple[int, int]) -> BoolArray:
        """Return which pixels of a window of the scene's file are hidden.

        Args:
            place: pixels of the file.
            shape: of the result; thinned where it is smaller.
        """


@dataclass(frozen=True)
class RasterMask:
    """A mask on another grid."""

    dataset: WarpedVRT
    legend: Legend | None
    classes: tuple[str | int, ...]
    files: tuple[str, ...]
    saturated: float | None
    lock: threading.Lock

    def hidden(self, place: PixelWindow, shape: tuple[int, int]) -> BoolArray:
        """See `Mask`."""
        row, col, height, width = place
        try:
            with self.lock:
                pixels = self.dataset.read(
                    window=Window(col, row, width, height),
                    out_shape=(self.dataset.count, *shape),
                )
        except (RasterioError, OSError) as error:
            raise InputError(
                f"{self.files[0]}: cannot be read ({first_line(error)}); the mask is "
                "truncated or damaged."
            ) from error
        return find_hidden(pixels, self.legend, self.classes)


@dataclass(frozen=True)
class PolygonMask:
    """Polygons in the scene's CRS."""

    geometry: BaseGeometry
    frame: Grid
    files: tuple[str, ...]
    saturated: float | None

    def hidden(self, place: PixelWindow, shape: tuple[int, int]) -> BoolArray:
        """See `Mask`."""
        if self.geometry.is_empty:
            return np.zeros(shape, bool)
        zoom = Affine.scale(place.width / shape[1], place.height / shape[0])
        transform = self.frame.crop(place).transform @ zoom
        return is_inside(self.geometry, shape, transform)


@contextmanager
def open_mask(
    choice: str,
    classes: Sequence[str] | None,
    product: Product | None,
    frame: Grid,
    path: str,
) -> Iterator[Mask]:
    """Yield a mask on the grid of a scene's file, while it is open.

    Args:
        choice: "scl", "qa60", or a file.
        classes: that are hidden, see `parse_classes`.
        product: of the scene; None for other files.
        frame: of the scene's file.
        path: of the scene, for messages.

    Raises:
        InputError: there is no such mask, or it cannot be read.
    """
    wanted = parse_classes(classes)
    is_hiding = "saturated" in wanted and product is not None
    saturated = product.saturated if product is not None and is_hiding else None
    name, file = _find(choice, product, path)
    local = (file,) if os.path.isfile(file) else ()
    is_vector = not name and file.lower().endswith(_VECTORS)
    if classes is not None:
        _check_classes(wanted, name, file, is_vector=is_vector)
    if name == "CLOUDS":
        rings = cloud_polygons(file, wanted)
        yield PolygonMask(_union(rings), frame, local, saturated)
        return
    if is_vector:
        yield PolygonMask(read_polygons(file, frame), frame, local, saturated)
        return
    with (
        open_dataset(locate(file), file) as dataset,
        _on(frame, dataset, file) as warped,
    ):
        yield RasterMask(
            warped,
            LEGENDS.get(name),
            wanted,
            local or (file,),
            saturated,
            threading.Lock(),
        )


def _find(choice: str, product: Product | None, path: str) -> tuple[str, str]:
    """Return the name of a mask's legend, "" for none, and its file."""
    layers = CHOICES.get(choice.lower())
    if layers is None:
        if is_missing(choice) or os.path.isdir(choice):
            raise InputError(
                f"{choice}: no such file; give {', '.join(CHOICES)}, or the file of a "
                "mask.",
                argument="mask",
            )
        stem = os.path.basename(choice).rsplit(".", 1)[0]
        found = code_in_file_name(stem) or ""
        named = next((name for name in LEGENDS if stem.upper().endswith(name)), found)
        return named.replace("MSK_CLASSI", "CLASSI"), choice
    held = product.layers if product is not None else {}
    for layer in layers:
        if layer in held:
            return layer, held[layer].path
    raise InputError(
        f"{choice}: {path} has no such layer; it has "
        f"{', '.join(held) or 'none'}. Give the file of a mask instead.",
        argument="mask",
    )


def _check_classes(
    wanted: Sequence[str | int], name: str, file: str, *, is_vector: bool
) -> None:
    """Check that a mask tells the classes that are to be hidden."""
    legend = LEGENDS.get(name)
    is_clouds = name == "CLOUDS"
    known = legend.values if legend else CLOUD_KINDS if is_clouds else ()
    # Not measured and saturated pixels are known without a mask, too.
    names = {*known, "nodata", "saturated"} if known else set()
    for item in wanted:
        if isinstance(item, int):
            is_told = not is_vector and not is_clouds  # those have no numbers
        else:
            is_told = item in names
        if is_told:
            continue
        if known:
            reason = f"it has {', '.join(known)}"
        elif is_vector:
            reason = "all of its polygons hide what they cover"
        else:
            reason = "its numbers have no names, so give numbers"
        raise InputError(
            f"{item}: {file} tells no such class; {reason}.", argument="mask_classes"
        )


@contextmanager
def _on(frame: Grid, dataset: rasterio.DatasetReader, name: str) -> Iterator[WarpedVRT]:
    """Open a raster on another grid, by the nearest pixel; 0 beyond its edges."""
    if dataset.crs is None:
        raise InputError(f"{name}: the mask has no CRS, so it has no place.")
    with WarpedVRT(
        dataset,
        crs=frame.crs,
        transform=frame.transform,
        height=frame.height,
        width=frame.width,
        resampling=Resampling.nearest,
        nodata=None,
        src_nodata=None,
    ) as warped:
        yield warped


def _union(rings: Sequence[Sequence[tuple[float, float]]]) -> BaseGeometry:
    from shapely import Polygon
    from shapely.ops import unary_union

    return unary_union([Polygon(ring).buffer(0) for ring in rings if len(ring) > 3])
