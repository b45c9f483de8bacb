"""An 8-bit picture of an output in true colours, and the same colours for QGIS.

Reflectance 0 to 0.3 becomes 1 to 255 in all three colours, so that pictures of several
dates can be compared; without reflectance, the numbers from the 2nd to the 98th
percentile of the three bands together do. 0 marks pixels without a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from rsupres.companions.request import COLOURS, PICTURES
from rsupres.output.atomic import publishing
from rsupres.output.tiff.picture import copy_picture
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.stretch import has_scale
from rsupres.raster.virtual import VirtualBand, VirtualSource, virtual_raster

BRIGHTEST = 0.3  # reflectance that becomes 255
_PERCENTILES = (2.0, 98.0)
_SAMPLE_PIXELS = 1_000_000


def find_colours(scene: Raster) -> tuple[tuple[int, ...], list[tuple[float, float]]]:
    """Return the bands of an open scene's red, green and blue, and dark and bright DN.

    Raises:
        BandError: it has no such bands.
    """
    bands = choose_bands(scene, COLOURS).roles
    if has_scale(scene):
        limits = [
            ((value - scene.offsets[band - 1]) / scene.scales[band - 1])
            for band in bands
            for value in (0.0, BRIGHTEST)
        ]
        return bands, list(zip(limits[::2], limits[1::2], strict=True))
    if scene.dtype == "uint8":
        return bands, [(0.0, 255.0)] * 3
    dn, valid = scene.read_decimated(bands, _SAMPLE_PIXELS)
    values = dn[:, valid.all(axis=0)]
    low, high = (0.0, 1.0) if not values.size else np.percentile(values, _PERCENTILES)
    return bands, [(float(low), float(max(high, low + 1)))] * 3


def write_picture(output: Path, path: Path) -> None:
    """Write a picture of an output; it appears when it is complete.

    Args:
        output: the upscaled scene.
        path: `.tif` (a COG with statistics) or `.png`.

    Raises:
        BandError: a band of a colour is missing.
        ResourceError: the disk is full.
    """
    driver = PICTURES[path.suffix.lower()]
    with Raster.open(output) as scene:
        bands, limits = find_colours(scene)
        virtual = [
            VirtualBand(
                dtype="uint8",
                sources=[
                    VirtualSource(
                        scene.gdal_name,
                        band,
                        scene.grid.window,
                        hidden=scene.nodata_of(band),
                        is_masked=scene.has_file_mask,
                        lut=((low, 1.0), (high, 255.0)),
                    )
                ],
                nodata=0.0,
                colour=role,
            )
            for role, band, (low, high) in zip(COLOURS, bands, limits, strict=True)
        ]
        tags = {"RSUPRES_CONTENT": f"{output.name} in true colours"}
        tags["RSUPRES_JOB"] = scene.any_tag("RSUPRES_JOB")
        xml = virtual_raster(scene.grid, tags, virtual)
        with publishing(path) as part:
            copy_picture(xml, part, driver)


def write_style(output: Path) -> str:
    """Return a style in which QGIS shows an upscaled scene as its picture does.

    Raises:
        BandError: a band of a colour is missing.
    """
    with Raster.open(output) as scene:
        bands, limits = find_colours(scene)
    numbers = " ".join(
        f'{role}Band="{band}"' for role, band in zip(COLOURS, bands, strict=True)
    )
    stretches = "\n".join(
        _stretch(role, pair) for role, pair in zip(COLOURS, limits, strict=True)
    )
    return f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<!-- written by rsupres for {output.name.replace("--", "-")} -->
<qgis version="3.34" styleCategories="Symbology">
<pipe>
<rasterrenderer type="multibandcolor" opacity="1" alphaBand="-1" {numbers}>
<rasterTransparency/>
{stretches}
</rasterrenderer>
<brightnesscontrast brightness="0" contrast="0" gamma="1"/>
<rasterresampler maxOversampling="2"/>
</pipe>
</qgis>
"""


def _stretch(role: str, limits: Sequence[float]) -> str:
    low, high = (quoteattr(f"{value:.10g}")[1:-1] for value in limits)
    return (
        f"<{role}ContrastEnhancement><minValue>{low}</minValue>"
        f"<maxValue>{high}</maxValue>"
        "<algorithm>StretchToMinimumMaximum</algorithm>"
        f"</{role}ContrastEnhancement>"
    )
