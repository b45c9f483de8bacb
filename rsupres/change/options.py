"""Which options of a change mask go with which sources."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from rsupres.change.images import DetectionOptions
from rsupres.change.mask import ChangeOptions
from rsupres.errors import InputError
from rsupres.raster.files import StrPath

CompareBy = Literal["auto", "irmad", "cva", "land-cover"]


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
    """Return how sources are read; the arguments are those of `change_mask`.

    Raises:
        InputError: an option would do nothing, or two exclude each other.
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
    detection = DetectionOptions(least_m2=minimum_area)
    if significance is not None:
        detection = replace(detection, significance=significance)
    if threshold is not None:
        detection = replace(detection, threshold=threshold)
    if method == "irmad" or method == "cva":
        detection = replace(detection, method=method)
    return ChangeOptions(
        class_table=_name(class_table),
        output_table=_name(output_table),
        class_attribute=class_attribute,
        land_cover=_name(land_cover),
        covers={"auto": None, "land-cover": True}.get(method, False),
        detection=detection,
    )


def _refuse(values: Mapping[str, object], what: str) -> None:
    for name, value in values.items():
        if value is not None:
            raise InputError(f"means nothing for {what}.", argument=name)


def _name(path: StrPath | None) -> str | None:
    return None if path is None else os.fspath(path)
