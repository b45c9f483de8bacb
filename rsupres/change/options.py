"""Hold the options of change masks: how sources are read, and change detected.

Plain data; `rsupres.change.sources` and `rsupres.change.images` act on it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, TypedDict, Unpack

from rsupres.errors import InputError
from rsupres.raster.files import StrPath, as_name

CompareBy = Literal["auto", "irmad", "cva", "built", "learned", "land-cover"]

SIGNIFICANCE = 1e-3  # default share of unchanged pixels that may be marked


class ChangeChoices(TypedDict, total=False):
    """Options of `change_mask` about its sources, by the command's names.

    Attributes:
        method: "irmad", "cva", "built", "learned", "land-cover", or "auto", which
            decides by the sources.
        significance: share of unchanged pixels that may be marked in images.
        threshold: mark pixels that differ by more standard deviations of unchanged
            ground than this, instead.
        minimum_area: smaller parts are dropped, square metres.
        land_cover: class raster of the later date, which gives detected change its
            classes.
        class_attribute: attribute of polygons that holds their class.
        class_table: meaning of the codes: a name or a file; None = by the file.
        output_table: translate the classes into this table.
    """

    method: CompareBy
    significance: float | None
    threshold: float | None
    minimum_area: float | None
    land_cover: StrPath | None
    class_attribute: str | None
    class_table: StrPath | None
    output_table: StrPath | None


@dataclass(frozen=True)
class DetectionOptions:
    """Options of the detection of change between two images.

    Attributes:
        method: "irmad", "cva", or "auto": IR-MAD, and CVA where it does not converge;
            "built" keeps of that what looks built; "learned" is a network that knows
            buildings and roads.
        significance: share of unchanged pixels that may be marked, 0 to 1.
        threshold: in standard deviations of unchanged ground, instead of
            `significance`; None = by significance.
        minimum_area_m2: smaller parts are dropped; None = 9 pixels of the coarser
            image, or 4 pixels of a land cover.
    """

    method: Literal["auto", "irmad", "cva", "built", "learned"] = "auto"
    significance: float = SIGNIFICANCE
    threshold: float | None = None
    minimum_area_m2: float | None = None

    @property
    def may_be_learned(self) -> bool:
        """Whether the network may be chosen: nothing given that only IR-MAD knows."""
        is_plain = self.significance == SIGNIFICANCE and self.threshold is None
        return self.method == "auto" and is_plain


@dataclass(frozen=True)
class ChangeOptions:
    """Options by which the sources of a change mask are read.

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


def choose_options(n_sources: int, **given: Unpack[ChangeChoices]) -> ChangeOptions:
    """Return the options of a change mask; refuse those without effect.

    Args:
        n_sources: one, or two to compare.
        **given: see `ChangeChoices`.

    Raises:
        InputError: an option has no effect, or two exclude each other.
    """
    if not 1 <= n_sources <= 2:
        raise InputError(f"{n_sources} sources: give one, or an earlier and a later.")
    detecting = {"significance", "threshold", "land_cover"}
    method = given.get("method", "auto")
    significance, threshold = given.get("significance"), given.get("threshold")
    if significance is not None and threshold is not None:
        raise InputError(
            "and the threshold exclude each other.", argument="significance"
        )
    if n_sources == 1:
        _refuse(given, {*detecting, "minimum_area"}, "one source")
    else:
        _refuse(given, {"class_attribute"}, "two rasters")
    if method == "land-cover":
        _refuse(given, detecting, "land covers")
    if method == "learned":
        _refuse(given, {"significance", "threshold"}, "the network")
    if n_sources == 1 and method != "auto":
        raise InputError(
            f"{method} compares two rasters; there is one source.", argument="method"
        )
    return ChangeOptions(
        class_table=as_name(given.get("class_table")),
        output_table=as_name(given.get("output_table")),
        class_attribute=given.get("class_attribute"),
        land_cover=as_name(given.get("land_cover")),
        covers={"auto": None, "land-cover": True}.get(method, False),
        detection=DetectionOptions(
            method="auto" if method == "land-cover" else method,
            significance=SIGNIFICANCE if significance is None else significance,
            threshold=threshold,
            minimum_area_m2=given.get("minimum_area"),
        ),
    )


def _refuse(given: ChangeChoices, names: Collection[str], kind: str) -> None:
    for name, value in given.items():
        if name in names and value is not None:
            raise InputError(f"has no effect for {kind}.", argument=name)
