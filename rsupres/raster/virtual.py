"""Virtual rasters: one picture for GDAL out of many files, as XML.

Strips become an output so, and the files of a scene one scene. Whoever opens the XML
opens the files; nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from rsupres.grid import Grid, PixelWindow

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
        place: where the file lies in the picture.
        block: height and width of its blocks; None = GDAL looks into the file.
    """

    path: str
    band: int | str
    place: PixelWindow
    block: tuple[int, int] | None = None


@dataclass(frozen=True)
class VirtualBand:
    """One band of the picture.

    Attributes:
        dtype: numpy name.
        sources: the files, the last on top.
        name: its description.
        nodata: None for none.
        shows_through: where a file has nodata, the one below shows.
        colour: name of rasterio's ColorInterp, None = nothing is said.
        palette: value -> (r, g, b), of a band of classes.
        scale: DN are multiplied with it,
        offset: and this is added.
    """

    dtype: str
    sources: Sequence[VirtualSource]
    name: str | None = None
    nodata: float | None = None
    shows_through: bool = False
    colour: str | None = None
    palette: Mapping[int, tuple[int, int, int]] | None = None
    scale: float = 1.0
    offset: float = 0.0


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
        mask: what makes the mask of all bands; empty = there is none.
    """
    a, b, c, d, e, f = grid.transform[:6]
    lines = [
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">',
        f"<SRS>{escape(grid.crs.to_wkt())}</SRS>" if grid.crs else "",
        f"<GeoTransform>{c!r}, {a!r}, {b!r}, {f!r}, {d!r}, {e!r}</GeoTransform>",
        "<Metadata>",
        *(
            f"<MDI key={quoteattr(_printable(key))}>{escape(_printable(value))}</MDI>"
            for key, value in tags.items()
        ),
        "</Metadata>",
    ]
    for number, band in enumerate(bands, 1):
        lines += _band(number, band)
    if mask:
        lines += ["<MaskBand>", '<VRTRasterBand dataType="Byte">']
        lines += (_source(source, "Byte") for source in mask)
        lines += ["</VRTRasterBand>", "</MaskBand>"]
    return "\n".join([*lines, "</VRTDataset>"])


def _band(number: int, band: VirtualBand) -> Iterator[str]:
    kind = _GDAL_TYPES[band.dtype]
    yield f'<VRTRasterBand dataType="{kind}" band="{number}">'
    if band.name:
        yield f"<Description>{escape(_printable(band.name))}</Description>"
    if band.nodata is not None:
        yield f"<NoDataValue>{band.nodata!r}</NoDataValue>"
    if band.palette:
        yield "<ColorInterp>Palette</ColorInterp>"
        yield from _palette(band.palette)
    elif band.colour is not None:
        colour = _GDAL_COLOURS.get(band.colour, "Undefined")
        yield f"<ColorInterp>{colour}</ColorInterp>"
    if (band.scale, band.offset) != (1.0, 0.0):
        yield f"<Offset>{band.offset!r}</Offset><Scale>{band.scale!r}</Scale>"
    hidden = band.nodata if band.shows_through else None
    for source in band.sources:
        yield _source(source, kind, hidden)
    yield "</VRTRasterBand>"


def _palette(palette: Mapping[int, tuple[int, int, int]]) -> Iterator[str]:
    """Yield a colour table; values without a colour are black."""
    yield "<ColorTable>"
    for value in range(max(palette) + 1):
        r, g, b = palette.get(value, (0, 0, 0))
        yield f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="255"/>'
    yield "</ColorTable>"


def _source(source: VirtualSource, kind: str, hidden: float | None = None) -> str:
    place = source.place
    element = "SimpleSource" if hidden is None else "ComplexSource"
    size = f'xSize="{place.width}" ySize="{place.height}"'
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
        f"{escape(str(Path(source.path).absolute()))}</SourceFilename>"
        f"<SourceBand>{source.band}</SourceBand>{properties}"
        f'<SrcRect xOff="0" yOff="0" {size}/>'
        f'<DstRect xOff="{place.col}" yOff="{place.row}" {size}/>'
        + ("" if hidden is None else f"<NODATA>{hidden!r}</NODATA>")
        + f"</{element}>"
    )


def _printable(text: str) -> str:
    """Return text without characters that XML cannot hold."""
    return "".join(c for c in text if c in "\t\n\r" or (c >= " " and c != "\ufffe"))
