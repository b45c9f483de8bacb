"""Conditions as plain data: what a user gave, the frame, and how one is read.

Opening them is the job of `rsupres.conditions.open`; nothing here touches a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rsupres.grid import Grid, PixelWindow

if TYPE_CHECKING:
    from rsupres.raster.dataset import Raster
    from rsupres.raster.stretch import Stretch


@dataclass(frozen=True, kw_only=True)
class GivenConditions:
    """What a user gives a model to look at besides the scene.

    Attributes:
        vector_map: files that make one map, ("overpass",), or one raster that is a
            map on the SR grid already.
        legend: name or file, None = the model's.
        layers: classes of the legend to draw, None = all.
        reference: earlier high-resolution images that make one.
        coregister: move the reference by the displacement found against the scene.
        fill_reference: fill what the reference misses with the enlarged scene.
        change_mask: polygons, a class raster, or "detect".
        class_table: name or file of the mask's class table, None = as it tells.
        class_attribute: of polygons, that holds their class.
        style: an image to follow, or a folder of them.
    """

    vector_map: tuple[str, ...] = ()
    legend: str | None = None
    layers: tuple[str, ...] | None = None
    reference: tuple[str, ...] = ()
    coregister: bool = False
    fill_reference: bool = False
    change_mask: str | None = None
    class_table: str | None = None
    class_attribute: str | None = None
    style: str | None = None

    def condition_values(self) -> dict[str, Any]:
        """Return the values of this class by name, whatever a subclass adds."""
        return {item.name: getattr(self, item.name) for item in fields(GivenConditions)}


def _untuple(value: object) -> object:
    if isinstance(value, list):
        return tuple(_untuple(item) for item in value)
    return value


# Names of the conditions, as fields of `GivenConditions` and of `Conditions`.
CONDITIONS = ("vector_map", "reference", "change_mask", "style")
DETECT = "detect"  # a change mask: compare the reference with the scene


class ConditionSource(Protocol):
    """One condition as windows of the scene's SR frame; safe from several threads."""

    def read(self, window: PixelWindow) -> np.ndarray:
        """Return (c, H, W) for an SR window inside the scene's SR frame.

        A value depends on its position alone: reading a window equals reading the whole
        and cutting.
        """
        ...

    def fingerprint(self) -> Mapping[str, object]:
        """Return JSON-able marks: names, dates, hashes, and what was chosen."""
        ...

    def describe(self) -> str:
        """Return one line for a person: what is used and how much it covers."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConditionRequest(GivenConditions):
    """Which conditions a user gave, and how they are to be read.

    Without a legend a map is drawn by `DEFAULT_LEGEND`.

    Attributes:
        change_table: the class table whose codes the model knows, None = the mask's.
        seed: which image of a folder of styles is followed.
        folder: where copies of downloaded maps are kept; None = the working folder.
    """

    change_table: str | None = None
    seed: int = 0
    folder: Path | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the `Conditions` fields that are asked for."""
        return tuple(name for name in CONDITIONS if getattr(self, name))


@dataclass(frozen=True)
class ConditionFrame:
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
