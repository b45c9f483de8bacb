"""Describe how an output is stored, with its names, tags and colours.

`rsupres.output.tiff.geotiff` writes files as described here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rsupres.errors import InputError
from rsupres.grid import Grid
from rsupres.raster.bands import colours_of_names

if TYPE_CHECKING:
    from rsupres.raster.dataset import Raster

logger = logging.getLogger(__name__)

# Extensions of raster formats other than GeoTIFF, and GDAL's name of each.
OTHER_FORMATS: Mapping[str, str] = {
    ".jp2": "JP2OpenJPEG",
    ".j2k": "JP2OpenJPEG",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".img": "HFA",
    ".vrt": "VRT",
    ".nc": "netCDF",
    ".h5": "HDF5Image",
    ".hdf": "HDF4Image",
    ".zarr": "Zarr",
    ".asc": "AAIGrid",
    ".gpkg": "GPKG",
    ".mbtiles": "MBTiles",
    ".kea": "KEA",
}
BLOCK = 512  # SR pixels of a block's side in the output

# Tags about the number or size of pixels, and about what stands for no measurement.
_ABOUT_THE_FILE = re.compile(
    r"(TIFFTAG_)?([XY]_?|SPATIAL_?)?RESOLUTION(_?UNIT)?|GSD|[XY]_?DIM|"
    r"(PIXEL|CELL|GRID_CELL)_?SIZE.*|[XY]?PIXEL_?SIZE|[A-Z]*_GSD|"
    r"([A-Z]+_)?N?_?(ROWS|COLS|COLUMNS|LINES|SAMPLES|BANDS|PIXELS)|"
    r"(IMAGE|RASTER)_?(WIDTH|HEIGHT|LENGTH)|WIDTH|HEIGHT|BAND_\d+|"
    r"(TIFFTAG_)?(MIN|MAX)SAMPLEVALUE|_FILLVALUE|MISSING_VALUE|NODATA(_VALUE)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class OutputFormat:
    """Format in which pixels are stored.

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


def check_extension(path: Path, name: str) -> None:
    """Refuse a file name that says another format than the GeoTIFF that is written.

    Args:
        path: of an output.
        name: of the argument that names it, for the message.

    Raises:
        InputError: its extension is that of another raster format.
    """
    extension = path.suffix.lower()
    if extension in OTHER_FORMATS:
        driver = OTHER_FORMATS[extension]
        raise InputError(
            f"{path}: a GeoTIFF is written, which {extension} is not; name it "
            f"{path.with_suffix('.tif').name}, and convert that afterwards, for "
            f"example with gdal_translate -of {driver}.",
            argument=name,
        )


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
        band_tags: tags by GDAL's domain; empty = none.
        units: of the physical values; empty = none.
    """

    grid: Grid
    descriptions: Sequence[str | None]
    scales: Sequence[float]
    offsets: Sequence[float]
    colorinterp: Sequence[str]
    tags: Mapping[str, str] = field(default_factory=dict)
    palette: Mapping[int, tuple[int, int, int]] | None = None
    band_tags: Sequence[Mapping[str, Mapping[str, str]]] = ()
    units: Sequence[str | None] = ()

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
            colorinterp=_colours(scene, bands),
            tags={**_still_true(scene.tags), **tags},
            band_tags=tuple(
                {
                    domain: _still_true(tags)
                    for domain, tags in scene.band_tags(band).items()
                }
                for band in bands
            ),
            units=tuple(scene.band_units[place] for place in places),
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


def _still_true(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a file that hold for one with other pixels, too."""
    return {k: v for k, v in tags.items() if not _ABOUT_THE_FILE.fullmatch(k)}


def _colours(scene: Raster, bands: Sequence[int]) -> tuple[str, ...]:
    """Return the colours of bands: as the file declares, else by their names."""
    declared = tuple(scene.colorinterp[band - 1] for band in bands)
    if {"red", "green", "blue"} & set(declared):
        return declared
    named = colours_of_names(scene)
    has_nodata = any(scene.nodata_of(band) is not None for band in bands)
    is_red_first = len(bands) == 4 and named.get(bands[0]) == "red"
    if is_red_first and has_nodata and bands[3] not in named:
        # Where the first of four bands is red, rasterio's `dataset_mask` asks band 4
        # alone for nodata: a band of codes in which 0 is "clear" would hide the rest.
        logger.info(
            "The output names no band as red, green or blue: rasterio would take the "
            "nodata of band 4, %s, for that of the picture. Bands keep their names.",
            scene.descriptions[bands[3] - 1] or "without a name",
        )
        return declared
    return tuple(
        named.get(band, colour) for band, colour in zip(bands, declared, strict=True)
    )
