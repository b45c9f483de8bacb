"""Describe conditions as plain data: the user's files, the scene, how one is read.

A condition is something that a model looks at besides the scene. Files are opened by
`rsupres.conditions.open`, not here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np

from rsupres.grid import Grid, PixelWindow
from rsupres.raster.files import StrPath
from rsupres.vector import LIVE

if TYPE_CHECKING:
    from rsupres.raster.dataset import Raster
    from rsupres.raster.stretch import Stretch

# Metadata of a field that names files: runs compare what the files hold, not the names.
FILE: Mapping[str, bool] = {"is_file": True}


@dataclass(frozen=True, kw_only=True)
class GivenConditions:
    """The inputs that a user gives a model besides the scene.

    Attributes:
        vector_map: files that make one map, ("overpass",), or one raster that is a
            map on the SR grid already.
        legend: name or file, None = the model's.
        layers: classes of the legend to draw, None = all.
        reference: earlier high-resolution images that make one.
        coregister: move the reference by the displacement found against the scene.
        fill_reference: fill what the reference misses with the enlarged scene.
        change_mask: polygons, a class raster, or "detect".
        class_table: name or file of the mask's class table, None = the one that the
            file names.
        class_attribute: attribute of polygons that holds their class.
        style: an image to follow, or a folder of them.
    """

    vector_map: tuple[str, ...] = field(default=(), metadata=FILE)
    legend: str | None = field(default=None, metadata=FILE)
    layers: tuple[str, ...] | None = None
    reference: tuple[str, ...] = field(default=(), metadata=FILE)
    coregister: bool = False
    fill_reference: bool = False
    change_mask: str | None = field(default=None, metadata=FILE)
    class_table: str | None = field(default=None, metadata=FILE)
    class_attribute: str | None = None
    style: str | None = field(default=None, metadata=FILE)

    def condition_values(self) -> dict[str, Any]:
        """Return the values of the fields of this class, not of a subclass."""
        return {item.name: getattr(self, item.name) for item in fields(GivenConditions)}


class ConditionOptions(TypedDict, total=False):
    """Conditions as keyword arguments, by the command's names; nothing by default.

    Attributes:
        vector_map: one file or several, or "overpass".
        legend: name or file.
        layers: classes of the legend; None = all.
        reference: one file or several.
        coregister: move the reference by the displacement found.
        fill_reference: fill what the reference misses.
        change_mask: a file, or "detect".
        class_table: class table of the mask.
        class_attribute: attribute of its polygons.
    """

    vector_map: StrPath | Sequence[StrPath]
    legend: StrPath | None
    layers: Sequence[str] | None
    reference: StrPath | Sequence[StrPath]
    coregister: bool
    fill_reference: bool
    change_mask: StrPath | None
    class_table: StrPath | None
    class_attribute: str | None


def given_files(given: GivenConditions) -> dict[str, tuple[str, ...]]:
    """Return names of the files that hold conditions, by field of `given`.

    Names that stand for something else ("overpass", "detect", a shipped legend) are
    left out.
    """
    tables = {"legend": given.legend or "", "class_table": given.class_table or ""}
    return {
        "vector_map": tuple(name for name in given.vector_map if name != LIVE),
        "reference": given.reference,
        "change_mask": _some(given.change_mask, but=DETECT),
        "style": _some(given.style),
        **{
            key: _some(name)
            for key, name in tables.items()
            if name and os.path.isfile(name)
        },
    }


def _some(name: str | None, but: str | None = None) -> tuple[str, ...]:
    return () if name is None or name == but else (name,)


# Names of the conditions, as fields of `GivenConditions` and of `Conditions`.
CONDITIONS = ("vector_map", "reference", "change_mask", "style")
DETECT = "detect"  # a change mask: compare the reference with the scene


class ConditionSource(Protocol):
    """One condition, read by window of the scene's SR frame, from several threads."""

    def read(self, window: PixelWindow) -> np.ndarray:
        """Return (c, H, W) for an SR window inside the scene's SR frame.

        A value depends only on its position: a window is a cut of the whole.
        """
        ...

    def fingerprint(self) -> Mapping[str, object]:
        """Return JSON-able names, dates and hashes of the files, and the choices."""
        ...

    def describe(self) -> str:
        """Return one line for a person: the files and how much they cover."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConditionRequest(GivenConditions):
    """The conditions of a user, with settings of the model and the run.

    Without a legend a map is drawn by `DEFAULT_COLOUR_LEGEND`.

    Attributes:
        change_table: the class table whose codes the model knows, None = the mask's.
        seed: chooses an image from a folder of styles.
        folder: where copies of downloaded maps are kept; None = the working folder.
    """

    change_table: str | None = None
    seed: int = 0
    folder: Path | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the conditions that the user gave."""
        return tuple(name for name in CONDITIONS if getattr(self, name))


@dataclass(frozen=True)
class TargetScene:
    """The scene that conditions belong to.

    Attributes:
        scene: open, cropped to what is wanted.
        bands: bands of its file that fill the roles.
        roles: such as ("red", "green", "blue"); empty for a model of any bands.
        stretch: of `bands`, in that order.
        scale: SR pixels along one LR pixel.
    """

    scene: Raster
    bands: tuple[int, ...]
    roles: tuple[str, ...]
    stretch: Stretch
    scale: Fraction

    @property
    def sr(self) -> Grid:
        """The SR frame: upper-left corner of the scene, `scale` times finer."""
        return self.scene.grid.refine(self.scale)
