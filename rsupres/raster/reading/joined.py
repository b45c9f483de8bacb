"""Describe a band that lies in several joined files, as GDAL reads it.

Only headers are needed: nodata, masks and scales are those of the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rsupres.grid import PixelWindow
from rsupres.raster.dataset import Raster
from rsupres.raster.nodata import is_same_nodata
from rsupres.raster.reading.common_scale import Rescaling
from rsupres.raster.virtual import VirtualBand, VirtualSource


class Part(NamedTuple):
    """A file that is joined with others.

    Attributes:
        scene: the file, open.
        bands: its bands in the order of the joined scene.
        place: of the file in that scene.
        rescalings: of its bands, to the scale of the joined scene; empty = none.
    """

    scene: Raster
    bands: tuple[int, ...]
    place: PixelWindow
    rescalings: tuple[Rescaling, ...] = ()


def joined_band(parts: Sequence[Part], at: int, is_masked: bool) -> VirtualBand:
    """Return a virtual band over one band of several files, the later ones on top.

    Pixels that are nodata in their file, or hidden by its mask, show the file below.

    Args:
        parts: the files; type, name, nodata and scale are those of the first.
        at: index of the band among their `bands`.
        is_masked: a mask says which pixels are valid, as no nodata value can.
    """
    first = parts[0].scene
    band = parts[0].bands[at]
    return VirtualBand(
        dtype=first.dtype,
        sources=[
            VirtualSource(
                part.scene.gdal_name,
                part.bands[at],
                part.place,
                hidden=part.scene.nodata_of(part.bands[at]),
                is_masked=part.scene.has_file_mask,
                size=(part.scene.grid.height, part.scene.grid.width),
                **part.rescalings[at]._asdict() if part.rescalings else {},
            )
            for part in parts
        ],
        name=first.descriptions[band - 1],
        nodata=_common_nodata(parts, at),
        colour=first.colorinterp[band - 1],
        scale=first.scales[band - 1],
        offset=first.offsets[band - 1],
        mask=[_shown(part, at) for part in parts] if is_masked else [],
        tags=first.band_tags(band),
        unit=first.band_units[band - 1],
    )


def _common_nodata(parts: Sequence[Part], at: int) -> float | None:
    """Return the nodata value that a band has in all files, None without one."""
    values = [part.scene.nodata_of(part.bands[at]) for part in parts]
    is_common = all(is_same_nodata(value, values[0]) for value in values)
    return values[0] if is_common else None


def _shown(part: Part, at: int) -> VirtualSource:
    """Return 255 where a file has a valid pixel in a band; elsewhere nothing."""
    scene, band = part.scene, part.bands[at]
    return VirtualSource(
        scene.gdal_name,
        band,
        part.place,
        hidden=scene.nodata_of(band),
        is_masked=scene.has_file_mask,
        constant=255,
        size=(scene.grid.height, scene.grid.width),
    )
