"""Hold the options of change masks: how sources are read, and change detected.

Plain data; `rsupres.change.sources` and `rsupres.change.images` act on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rsupres.errors import InputError
from rsupres.raster.files import StrPath

CompareBy = Literal["auto", "irmad", "cva", "land-cover"]

SIGNIFICANCE = 1e-3  # default share of unchanged pixels that may be marked


@dataclass(frozen=True)
class DetectionOptions:
    """How change between two images is detected.

    Attributes:
        method: "irmad", "cva", or "auto": IR-MAD, and CVA where it does not converge.
        significance: share of unchanged pixels that may be marked, 0 to 1.
        threshold: in standard deviations of unchanged ground, instead of
            `significance`; None = by significance.
        minimum_area_m2: smaller parts are dropped; None = 9 pixels of the coarser
            image, or 4 pixels of a land cover.
    """

    method: Literal["auto", "irmad", "cva"] = "auto"
    significance: float = SIGNIFICANCE
    threshold: float | None = None
    minimum_area_m2: float | None = None


@dataclass(frozen=True)
class ChangeOptions:
    """How the sources of a change mask are read.

    Attributes:
        class_table: name or file of the table of the sources' codes; None = the table
            that a file names, or the only table that has all its codes.
        output_table: table of the mask's values; None = the table of the sources.
        class_attribute: attribute of polygons that holds their class.
        land_cover: class raster of the later date, which gives detected change its
            classes.
        covers: two rasters are land covers (True) or images (False); None = decided by
            their bands and codes.
        detection: how change between images is detected.
    """

    class_table: str | None = None
    output_table: str | None = None
    class_attribute: str | None = None
    land_cover: str | None = None
    covers: bool | None = None
    detection: DetectionOptions = field(default_factory=DetectionOptions)

    def fingerprint(self) -> dict[str, object]:
        """Return the options that decide the mask, None left out.

        The tables are left out: the mask adds the table that it found, with its hash.
        """
        given: dict[str, object] = {
            "class_attribute": self.class_attribute,
            "land_cover": self.land_cover,
            "covers": self.covers,
            "detection": {
                "method": self.detection.method,
                "significance": self.detection.significance,
                "threshold": self.detection.threshold,
                "least_m2": self.detection.minimum_area_m2,  # key of existing files
            },
        }
        return {name: value for name, value in given.items() if value is not None}


def choose_options(
    n_sources: int,
    *,
    method: CompareBy = "auto",
    significance: float | None = None,
    threshold: float | None = None,
    minimum_area: float | None = None,
    land_cover: StrPath | None = None,
    class_attribute: str | None = None,
    class_table: StrPath | None = None,
    output_table: StrPath | None = None,
) -> ChangeOptions:
    """Return the options of a change mask; refuse those without effect.

    All arguments but the number of sources are those of `change_mask`.

    Raises:
        InputError: an option has no effect, or two exclude each other.
    """
    if not 1 <= n_sources <= 2:
        raise InputError(f"{n_sources} sources: give one, or an earlier and a later.")
    if significance is not None and threshold is not None:
        raise InputError(
            "and the threshold exclude each other.", argument="significance"
        )
    of_detection = {
        "significance": significance,
        "threshold": threshold,
        "land_cover": land_cover,
    }
    if n_sources == 1:
        _refuse({**of_detection, "minimum_area": minimum_area}, "one source")
    else:
        _refuse({"class_attribute": class_attribute}, "two rasters")
    if method == "land-cover":
        _refuse(of_detection, "land covers")
    if n_sources == 1 and method != "auto":
        raise InputError(
            f"{method} compares two rasters; there is one source.", argument="method"
        )
    return ChangeOptions(
        class_table=_name(class_table),
        output_table=_name(output_table),
        class_attribute=class_attribute,
        land_cover=_name(land_cover),
        covers={"auto": None, "land-cover": True}.get(method, False),
        detection=_detection(method, significance, threshold, minimum_area),
    )


def _detection(
    method: CompareBy,
    significance: float | None,
    threshold: float | None,
    minimum_area: float | None,
) -> DetectionOptions:
    return DetectionOptions(
        method=method if method == "irmad" or method == "cva" else "auto",
        significance=SIGNIFICANCE if significance is None else significance,
        threshold=threshold,
        minimum_area_m2=minimum_area,
    )


def _refuse(values: Mapping[str, object], what: str) -> None:
    for name, value in values.items():
        if value is not None:
            raise InputError(f"has no effect for {what}.", argument=name)


def _name(path: StrPath | None) -> str | None:
    return None if path is None else os.fspath(path)
