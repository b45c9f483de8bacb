"""A virtual raster over strips: one picture that GDAL reads out of many files.

XML only; whoever copies it opens the strips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from rsupres.formats import OutputFormat, OutputMeta

STRIP_ROWS = 64  # SR rows of a block of a strip
GDAL_TYPES = {
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
GDAL_COLOURS = {
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


class VirtualStrip(NamedTuple):
    """One source of the virtual raster; rows of the output."""

    path: Path
    top: int
    height: int
    has_mask: bool


def virtual_raster(
    strips: Sequence[VirtualStrip], meta: OutputMeta, form: OutputFormat
) -> str:
    """Return a virtual raster over the strips, as XML."""
    grid = meta.grid
    a, b, c, d, e, f = grid.transform[:6]
    lines = [
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">',
        f"<SRS>{escape(grid.crs.to_wkt())}</SRS>" if grid.crs else "",
        f"<GeoTransform>{c!r}, {a!r}, {b!r}, {f!r}, {d!r}, {e!r}</GeoTransform>",
        "<Metadata>",
        *(
            f"<MDI key={quoteattr(_printable(key))}>{escape(_printable(value))}</MDI>"
            for key, value in meta.tags.items()
        ),
        "</Metadata>",
    ]
    for number in range(1, len(meta.descriptions) + 1):
        lines += _vrt_band(number, strips, meta, form)
    if form.nodata is None and any(strip.has_mask for strip in strips):
        lines += ["<MaskBand>", '<VRTRasterBand dataType="Byte">']
        lines += _vrt_sources(strips, "mask,1", grid.width, "Byte")
        lines += ["</VRTRasterBand>", "</MaskBand>"]
    return "\n".join([*lines, "</VRTDataset>"])


def _vrt_band(
    number: int, strips: Sequence[VirtualStrip], meta: OutputMeta, form: OutputFormat
) -> list[str]:
    kind = GDAL_TYPES[form.dtype]
    name = meta.descriptions[number - 1]
    colour = meta.colorinterp[number - 1]
    lines = [f'<VRTRasterBand dataType="{kind}" band="{number}">']
    if name:
        lines.append(f"<Description>{escape(_printable(name))}</Description>")
    if form.nodata is not None:
        lines.append(f"<NoDataValue>{form.nodata!r}</NoDataValue>")
    colour = "Palette" if meta.palette else GDAL_COLOURS.get(colour, "Undefined")
    lines.append(f"<ColorInterp>{colour}</ColorInterp>")
    if meta.palette:
        lines += _vrt_palette(meta.palette)
    scale, offset = float(meta.scales[number - 1]), float(meta.offsets[number - 1])
    if (scale, offset) != (1.0, 0.0):
        lines.append(f"<Offset>{offset!r}</Offset><Scale>{scale!r}</Scale>")
    lines += _vrt_sources(strips, str(number), meta.grid.width, kind)
    return [*lines, "</VRTRasterBand>"]


def _vrt_palette(palette: Mapping[int, tuple[int, int, int]]) -> list[str]:
    """Return a colour table; values without a colour are black."""
    colours = [palette.get(value, (0, 0, 0)) for value in range(max(palette) + 1)]
    entries = (f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="255"/>' for r, g, b in colours)
    return ["<ColorTable>", *entries, "</ColorTable>"]


def _vrt_sources(
    strips: Sequence[VirtualStrip], band: str, width: int, kind: str
) -> Iterator[str]:
    for strip in strips:
        path = escape(str(strip.path.absolute()))
        size = f'xSize="{width}" ySize="{strip.height}"'
        yield (
            "<SimpleSource>"
            f'<SourceFilename relativeToVRT="0">{path}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SourceProperties RasterXSize="{width}" RasterYSize="{strip.height}" '
            f'DataType="{kind}" BlockXSize="{width}" BlockYSize="{STRIP_ROWS}"/>'
            f'<SrcRect xOff="0" yOff="0" {size}/>'
            f'<DstRect xOff="0" yOff="{strip.top}" {size}/>'
            "</SimpleSource>"
        )


def _printable(text: str) -> str:
    """Return text without characters that XML cannot hold."""
    return "".join(c for c in text if c in "\t\n\r" or (c >= " " and c != "\ufffe"))
