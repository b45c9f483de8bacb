"""Read a raster file's header: bands, types, scales, tags, nodata.

`rsupres.raster.dataset` adds the pixels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import cached_property

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from rsupres.grid import Grid
from rsupres.products.model import Radiometry
from rsupres.raster.open import color_name
from rsupres.raster.reading.names import gdal_name

# As products name their files: LC09_.._QA_PIXEL.TIF, T33TWM_.._SCL_20m.jp2.
_CLASSES_IN_NAME = re.compile(
    r"(?:^|[_.!])(SCL|FMASK|BQA|QA60|QA_(?:PIXEL|RADSAT|AEROSOL)|PIXEL_QA)(?=[_.])",
    re.IGNORECASE,
)
TAGS_NOT_KEPT = ("AREA_OR_POINT", "STATISTICS_", "OVR_RESAMPLING", "RSUPRES_")


class Header:
    """The header of a raster file: bands, types, scales, tags, nodata.

    Attributes:
        path: as the user gave it.
        grid: frame of the scene: the whole file, or a crop.
    """

    def __init__(
        self,
        path: str,
        grid: Grid,
        dataset: rasterio.DatasetReader,
        alpha: int | None,
        hidden: Collection[int] = (),
        units: Radiometry | None = None,
        nodata: float | None = None,
    ) -> None:
        """Keep an open dataset.

        Args:
            path: as the user gave it.
            grid: frame of the scene.
            dataset: open.
            alpha: band of the file that is a mask, not a picture; None without one.
            hidden: bands that are no part of the picture.
            units: of all bands, instead of what the file says; None = as it says.
            nodata: of all bands, likewise.
        """
        self.path = path
        self.grid = grid
        self._dataset = dataset
        self._alpha = alpha
        self._hidden = hidden
        self._units = units
        self._nodata = nodata

    @property
    def count(self) -> int:
        """Number of bands in the file, alpha included."""
        return int(self._dataset.count)

    @cached_property
    def data_bands(self) -> tuple[int, ...]:
        """The bands of the file, from 1, that hold a picture.

        That is all but alpha and bands that only help to sharpen others.
        """
        bands = range(1, self.count + 1)
        return tuple(i for i in bands if i != self._alpha and i not in self._hidden)

    @cached_property
    def dtype(self) -> str:
        """The numpy name of a type that holds every band."""
        kinds = [np.dtype(kind) for kind in self._dataset.dtypes]
        return str(np.result_type(*kinds))

    @cached_property
    def has_palette(self) -> bool:
        """Whether the pixels are entries of a palette, as in class rasters."""
        return color_name(self._dataset, 1) == "palette"

    @cached_property
    def palette(self) -> Mapping[int, tuple[int, int, int]]:
        """Colours of the palette's entries; empty without a palette."""
        if not self.has_palette:
            return {}
        return {
            int(entry): (int(red), int(green), int(blue))
            for entry, (red, green, blue, _) in self._dataset.colormap(1).items()
        }

    @property
    def nodata(self) -> float | None:
        """The nodata value of the first band, None without one."""
        return self.nodata_of(self.data_bands[0] if self.data_bands else 1)

    @cached_property
    def has_file_mask(self) -> bool:
        """Whether the file holds an alpha band or a mask band."""
        if self._alpha is not None:
            return True
        return self.has_band_masks or any(
            MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
            for flags in self._dataset.mask_flag_enums
        )

    @cached_property
    def has_band_masks(self) -> bool:
        """Whether a band has a mask of its own, as files joined as one scene have."""
        return any(not flags for flags in self._dataset.mask_flag_enums)

    @property
    def gdal_name(self) -> str:
        """The name under which GDAL opens the file, also inside a virtual raster."""
        return gdal_name(str(self._dataset.name))

    @cached_property
    def descriptions(self) -> tuple[str | None, ...]:
        """Band names as the file gives them.

        A band of classes that is alone in its file often has its name there only.
        """
        names = tuple(self._dataset.descriptions)
        alone = self.data_bands[0] - 1 if len(self.data_bands) == 1 else None
        found = _CLASSES_IN_NAME.search(os.path.basename(self.path))
        if alone is None or names[alone] or found is None:
            return names
        return (*names[:alone], found.group(1).upper(), *names[alone + 1 :])

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """Scale per band, 1 where the file has none: physical = DN * scale + offset."""
        if self._units is not None:
            return (self._units.scale,) * self.count
        return tuple(float(value) for value in self._dataset.scales)

    @cached_property
    def offsets(self) -> tuple[float, ...]:
        """Offset per band, 0 where the file has none: physical = DN * scale + offset.

        Sentinel-2 products since baseline 04.00 have one, usually -0.1.
        """
        if self._units is not None:
            return (self._units.offset,) * self.count
        return tuple(float(value) for value in self._dataset.offsets)

    @cached_property
    def colorinterp(self) -> tuple[str, ...]:
        """Name of rasterio's ColorInterp per band."""
        names = [color_name(self._dataset, band) for band in range(1, self.count + 1)]
        if self._alpha is None:  # declared alpha, but a picture
            names = ["undefined" if name == "alpha" else name for name in names]
        return tuple(names)

    @cached_property
    def tags(self) -> Mapping[str, str]:
        """The file's tags, without those about its encoding and statistics."""
        return {
            key: value
            for key, value in self._dataset.tags().items()
            if not key.startswith(TAGS_NOT_KEPT)
        }

    def band_tags(self, band: int) -> dict[str, dict[str, str]]:
        """Return the tags of a band, from 1, by GDAL's domain: "" and "IMAGERY"."""
        found = {
            domain: self._dataset.tags(band, ns=domain or None)
            for domain in ("", "IMAGERY")
        }
        return {
            domain: {k: v for k, v in tags.items() if not k.startswith(TAGS_NOT_KEPT)}
            for domain, tags in found.items()
        }

    @cached_property
    def band_units(self) -> tuple[str | None, ...]:
        """Unit of each band's physical values; None where it has none."""
        return tuple(unit or None for unit in self._dataset.units)

    @cached_property
    def lossy(self) -> str:
        """Name of the compression that changed the pixels; "" when none is known to."""
        facts = self._dataset.tags(ns="IMAGE_STRUCTURE")
        kind = facts.get("COMPRESSION", "").split(" ")[-1]
        if kind != "JPEG" and facts.get("COMPRESSION_REVERSIBILITY") != "LOSSY":
            return ""
        return "JPEG 2000" if self._dataset.driver.startswith("JP2") else kind

    def any_tag(self, name: str) -> str:
        """Return any tag of the file, also one of rsupres; "" when it is missing."""
        return str(self._dataset.tags().get(name, ""))

    def nodata_of(self, band: int) -> float | None:
        """Return the nodata value of a band of the file, from 1; None without one."""
        if self._nodata is not None:
            return self._nodata
        declared = self._dataset.nodatavals[band - 1]
        return None if declared is None else float(declared)
