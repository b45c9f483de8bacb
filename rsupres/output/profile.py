"""Describe how an output is stored, with its names, tags and colours.

`rsupres.output.geotiff` writes files as described here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rsupres.grid import Grid

if TYPE_CHECKING:
    from rsupres.raster.dataset import Raster


BLOCK = 512  # SR pixels of a block's side in the output


@dataclass(frozen=True)
class OutputFormat:
    """How pixels are stored.

    Attributes:
        driver: of GDAL.
        creation: creation options of the user; they override our own.
        dtype: numpy name.
        nodata: value of invalid pixels; None when a mask marks them instead.
    """

    driver: Literal["COG", "GTiff"] = "COG"
    creation: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "uint16"
    nodata: float | None = None


def is_lossy(creation: Mapping[str, str]) -> bool:
    """Return whether creation options make GDAL change numbers, nodata among them.

    >>> is_lossy({"compress": "JPEG"}), is_lossy({"COMPRESS": "ZSTD"})
    (True, False)
    """
    given = {key.upper(): str(value).upper() for key, value in creation.items()}
    kind = given.get("COMPRESS", "")
    yes = ("YES", "TRUE", "ON", "1")
    if kind == "WEBP":
        return given.get("WEBP_LOSSLESS", "NO") not in yes
    if kind == "JXL":
        return given.get("JXL_LOSSLESS", "YES") not in yes
    if kind.startswith("LERC"):
        return given.get("MAX_Z_ERROR", "0") not in ("0", "0.0")
    return kind == "JPEG"


@dataclass(frozen=True)
class OutputMeta:
    """Names, tags and colours of an output; sequences have one entry per band.

    Attributes:
        grid: frame of the output.
        descriptions: band names.
        scales: physical value = DN * scale + offset.
        offsets: see `scales`.
        colorinterp: names of rasterio's ColorInterp.
        tags: of the file.
        palette: value -> (r, g, b) of a raster of classes, None for measurements.
            Its overviews take the nearest pixel, as classes cannot be averaged.
    """

    grid: Grid
    descriptions: Sequence[str | None]
    scales: Sequence[float]
    offsets: Sequence[float]
    colorinterp: Sequence[str]
    tags: Mapping[str, str] = field(default_factory=dict)
    palette: Mapping[int, tuple[int, int, int]] | None = None

    @classmethod
    def like(
        cls, scene: Raster, bands: Sequence[int], grid: Grid, tags: Mapping[str, str]
    ) -> OutputMeta:
        """Return the description of a scene, for some of its bands on another frame.

        Args:
            scene: open.
            bands: of its file, from 1.
            grid: frame of the output.
            tags: of the output; they override those of the scene.
        """
        places = [band - 1 for band in bands]
        return cls(
            grid=grid,
            descriptions=tuple(scene.descriptions[place] for place in places),
            scales=tuple(scene.scales[place] for place in places),
            offsets=tuple(scene.offsets[place] for place in places),
            colorinterp=tuple(scene.colorinterp[place] for place in places),
            tags={**scene.tags, **tags},
        )

    @classmethod
    def of_classes(
        cls,
        name: str,
        grid: Grid,
        palette: Mapping[int, tuple[int, int, int]],
        tags: Mapping[str, str],
    ) -> OutputMeta:
        """Return the description of a raster with one band of classes.

        Args:
            name: of the band.
            grid: frame of the output.
            palette: value -> (r, g, b).
            tags: of the file.
        """
        return cls(grid, (name,), (1.0,), (0.0,), ("palette",), tags, palette)
