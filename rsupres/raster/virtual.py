"""Make datasets without a file: joined files as XML (VRT), and arrays in memory.

`virtual_raster` describes several files as one raster, which is how strips become an
output and how the files of a scene become one scene. It opens none of them.

`as_dataset` gives GDAL an array to warp or to burn into. Rasterio can do that itself,
but hides a warning meanwhile through `warnings.catch_warnings`, which changes what the
whole process shows, so that threads disturb each other (until Python 3.14). The
datasets made here always have a transform, so GDAL has nothing to warn about.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from xml.sax.saxutils import escape, quoteattr, unescape

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject

from rsupres.grid import Grid, PixelWindow

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

_GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float16": "Float16",
    "float32": "Float32",
    "float64": "Float64",
}
# rasterio's names of colours and GDAL's; others are written as undefined.
_GDAL_COLOURS = {
    "gray": "Gray",
    "red": "Red",
    "green": "Green",
    "blue": "Blue",
    "pan": "Pan",
    "coastal": "Coastal",
    "rededge": "RedEdge",
    "nir": "NIR",
    "swir": "SWIR",
}


@dataclass(frozen=True)
class VirtualSource:
    """A whole file as a part of a band.

    Attributes:
        path: of the file.
        band: its number from 1, or "mask,1".
        place: where the file lies in the raster.
        block: height and width of its blocks; None = GDAL opens the file to see them.
        hidden: pixels of this value show the file below; None = none do.
        is_masked: pixels that the file's mask hides show the file below.
        constant: stands for every value of the file; None = the file's own values.
        ratio: values of the file are multiplied with it,
        shift: and this is added.
        size: rows and columns of the file where its pixels are larger than the
            raster's; None = `place` has its size.
        lut: pairs of a value of the file and its value here, rising; in between
            linear, beyond the first and the last constant. Empty = values stay.
    """

    path: str
    band: int | str
    place: PixelWindow
    block: tuple[int, int] | None = None
    hidden: float | None = None
    is_masked: bool = False
    constant: int | None = None
    ratio: float = 1.0
    shift: float = 0.0
    size: tuple[int, int] | None = None
    lut: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class VirtualBand:
    """One band of a virtual raster.

    Attributes:
        dtype: numpy name.
        sources: the files, the last on top.
        name: its description.
        nodata: None for none.
        colour: name of rasterio's ColorInterp, None = not declared.
        palette: value -> (r, g, b), of a band of classes.
        scale: physical value = DN * scale + offset.
        offset: see `scale`.
        mask: files that make the mask of this band alone; empty = no such mask.
        tags: by GDAL's domain, "" for that without a name.
        unit: of the physical values, None for none.
        overviews: files whose bands are the overviews; empty = none are said to be.
    """

    dtype: str
    sources: Sequence[VirtualSource]
    name: str | None = None
    nodata: float | None = None
    colour: str | None = None
    palette: Mapping[int, tuple[int, int, int]] | None = None
    scale: float = 1.0
    offset: float = 0.0
    mask: Sequence[VirtualSource] = ()
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unit: str | None = None
    overviews: Sequence[str] = ()


def virtual_raster(
    grid: Grid,
    tags: Mapping[str, str],
    bands: Sequence[VirtualBand],
    mask: Sequence[VirtualSource] = (),
) -> str:
    """Return a virtual raster as XML.

    Args:
        grid: its frame.
        tags: of the file.
        bands: in order.
        mask: files that make the mask of all bands; empty = no mask.
    """
    a, b, c, d, e, f = grid.transform[:6]
    lines = [
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">',
        f"<SRS>{escape(grid.crs.to_wkt())}</SRS>" if grid.crs else "",
        f"<GeoTransform>{c!r}, {a!r}, {b!r}, {f!r}, {d!r}, {e!r}</GeoTransform>",
        *_metadata("", tags),
    ]
    for number, band in enumerate(bands, 1):
        lines += _band(number, band)
    lines += _mask(mask)
    return "\n".join([*lines, "</VRTDataset>"])


def _metadata(domain: str, tags: Mapping[str, str]) -> Iterator[str]:
    if not tags:
        return
    yield f"<Metadata domain={quoteattr(domain)}>" if domain else "<Metadata>"
    for key, value in tags.items():
        text = escape(_printable(value))
        yield f"<MDI key={quoteattr(_printable(key))}>{text}</MDI>"
    yield "</Metadata>"


def _band(number: int, band: VirtualBand) -> Iterator[str]:
    kind = _GDAL_TYPES[band.dtype]
    yield f'<VRTRasterBand dataType="{kind}" band="{number}">'
    if band.name:
        yield f"<Description>{escape(_printable(band.name))}</Description>"
    if band.nodata is not None:
        yield f"<NoDataValue>{band.nodata!r}</NoDataValue>"
    if band.unit:
        yield f"<UnitType>{escape(_printable(band.unit))}</UnitType>"
    for domain, tags in band.tags.items():
        yield from _metadata(domain, tags)
    if band.palette:
        yield "<ColorInterp>Palette</ColorInterp>"
        yield from _palette(band.palette)
    elif band.colour is not None:
        colour = _GDAL_COLOURS.get(band.colour, "Undefined")
        yield f"<ColorInterp>{colour}</ColorInterp>"
    if (band.scale, band.offset) != (1.0, 0.0):
        yield f"<Offset>{band.offset!r}</Offset><Scale>{band.scale!r}</Scale>"
    for source in band.sources:
        yield _source(source, kind)
    yield from _mask(band.mask)
    for path in band.overviews:
        name = f'<SourceFilename relativeToVRT="0">{escape(path)}</SourceFilename>'
        yield f"<Overview>{name}<SourceBand>{number}</SourceBand></Overview>"
    yield "</VRTRasterBand>"


def _mask(sources: Sequence[VirtualSource]) -> Iterator[str]:
    """Yield a mask over some files; nothing without files."""
    if sources:
        yield '<MaskBand><VRTRasterBand dataType="Byte">'
        for source in sources:
            yield _source(source, "Byte")
        yield "</VRTRasterBand></MaskBand>"


def _palette(palette: Mapping[int, tuple[int, int, int]]) -> Iterator[str]:
    """Yield a colour table; values without a colour are black."""
    yield "<ColorTable>"
    for value in range(max(palette) + 1):
        r, g, b = palette.get(value, (0, 0, 0))
        yield f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="255"/>'
    yield "</ColorTable>"


def _source(source: VirtualSource, kind: str) -> str:
    place = source.place
    choices = ""
    if source.constant is not None:
        choices += f"<ScaleOffset>{source.constant}</ScaleOffset>"
        choices += "<ScaleRatio>0</ScaleRatio>"
    elif (source.ratio, source.shift) != (1.0, 0.0):
        choices += f"<ScaleOffset>{source.shift!r}</ScaleOffset>"
        choices += f"<ScaleRatio>{source.ratio!r}</ScaleRatio>"
    if source.lut:
        pairs = ",".join(f"{one!r}:{other!r}" for one, other in source.lut)
        choices += f"<LUT>{pairs}</LUT>"
    if source.hidden is not None:
        choices += f"<NODATA>{source.hidden!r}</NODATA>"
    if source.is_masked:
        choices += "<UseMaskBand>true</UseMaskBand>"
    element = "ComplexSource" if choices else "SimpleSource"
    is_file = os.path.exists(source.path)
    path = str(Path(source.path).absolute()) if is_file else source.path
    properties = ""
    if source.block is not None:
        rows, cols = source.block
        properties = (
            f'<SourceProperties RasterXSize="{place.width}" '
            f'RasterYSize="{place.height}" DataType="{kind}" BlockXSize="{cols}" '
            f'BlockYSize="{rows}"/>'
        )
    return (
        f"<{element}>"
        '<SourceFilename relativeToVRT="0">'
        f"{escape(path)}</SourceFilename>"
        f"<SourceBand>{source.band}</SourceBand>{properties}"
        f'<SrcRect xOff="0" yOff="0" {_size(source.size or place[2:])}/>'
        f'<DstRect xOff="{place.col}" yOff="{place.row}" {_size(place[2:])}/>'
        f"{choices}</{element}>"
    )


def _size(shape: Sequence[int]) -> str:
    return f'xSize="{shape[1]}" ySize="{shape[0]}"'


def _printable(text: str) -> str:
    """Return text without characters that XML cannot hold."""
    return "".join(c for c in text if c in "\t\n\r" or (c >= " " and c != "\ufffe"))


Number = TypeVar("Number", np.float32, np.uint8)


# Pixels by which an identity transform is moved: rasterio takes it for a missing one
# and warns. Too little to change any resampled value.
_NUDGE = 2.0**-40


@contextmanager
def as_dataset(
    pixels: NDArray[Any],
    transform: Affine,
    crs: CRS | None = None,
    nodata: float | None = None,
) -> Iterator[rasterio.io.DatasetWriter]:
    """Yield a copy of an array as a dataset to be read, changed or warped.

    Args:
        pixels: (c, h, w), any type that GDAL has.
        transform: of its pixels; the identity is moved by 2^-40 pixels.
        crs: of the transform, None = none.
        nodata: value of invalid pixels, None = all are valid.
    """
    if [abs(value) for value in transform[:6]] == [1, 0, 0, 0, 1, 0]:
        transform = transform @ Affine.translation(_NUDGE, 0)
    count, height, width = pixels.shape
    with rasterio.open(
        "array",
        "w+",
        driver="MEM",
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        transform=transform,
        crs=crs,
        nodata=nodata,
    ) as dataset:
        dataset.write(pixels)
        yield dataset


def is_inside(
    geometry: BaseGeometry, shape: tuple[int, int], transform: Affine
) -> NDArray[np.bool_]:
    """Return which pixels have their centre inside a geometry, (h, w) bool.

    Args:
        geometry: in the pixels' CRS.
        shape: (h, w).
        transform: of the pixels.
    """
    with as_dataset(np.zeros((1, *shape), np.uint8), transform) as dataset:
        rasterize([(geometry, 1)], dst_path=dataset, transform=transform)
        return np.asarray(dataset.read(1) > 0)


def warp_array(
    pixels: NDArray[Number],
    frame: Grid,
    target: Grid,
    resampling: Resampling,
    **options: float | str,
) -> NDArray[Number]:
    """Return an array (c, H, W) on another frame; NaN, or 0 for integers, is invalid.

    Args:
        pixels: (c, h, w).
        frame: of the pixels, h x w.
        target: frame wanted, any CRS.
        resampling: the kernel.
        options: GDAL's warping options.
    """
    nodata = np.nan if np.issubdtype(pixels.dtype, np.floating) else None
    blank = np.zeros((len(pixels), target.height, target.width), pixels.dtype)
    with (
        as_dataset(pixels, frame.transform, frame.crs, nodata) as source,
        as_dataset(blank, target.transform, target.crs, nodata) as warped,
    ):
        bands = list(range(1, len(pixels) + 1))
        reproject(
            rasterio.band(source, bands),
            rasterio.band(warped, bands),
            resampling=resampling,
            **options,
        )
        out: NDArray[Number] = warped.read()
    return out


_SOURCE = re.compile(
    r"<Source(?:Filename|Dataset)([^>]*)>([^<]+)</Source(?:Filename|Dataset)>"
)


def with_nested(files: Sequence[str]) -> list[str]:
    """Return local files with those that virtual rasters among them read, at any depth.

    GDAL lists one level only. Names of others stay as they are.
    """
    found, waiting = list(files), list(files)
    while waiting:
        for path in _sources(waiting.pop()):
            if path not in found and os.path.exists(path):
                found.append(path)
                waiting.append(path)
    return found


def lost_sources(name: str) -> list[str]:
    """Return local files that virtual rasters read, at any depth, but do not exist."""
    files = with_nested([name])
    named = [path for file in files for path in _sources(file)]
    return [path for path in named if _is_plain(path) and not os.path.exists(path)]


def _is_plain(path: str) -> bool:
    """Return whether a name is one of a file, and not one that only GDAL knows."""
    return os.path.isabs(path) and not path.startswith("/vsi") and ":" not in path


def _sources(name: str) -> Iterator[str]:
    """Yield the names that a local virtual raster reads; none for other files."""
    if not (name.lower().endswith(".vrt") and os.path.isfile(name)):
        return
    text = Path(name).read_text(encoding="utf-8", errors="replace")
    for attributes, source in _SOURCE.findall(text):
        path = unescape(source.strip())
        if 'relativeToVRT="1"' in attributes:
            path = os.path.join(os.path.dirname(os.path.abspath(name)), path)
        yield path
