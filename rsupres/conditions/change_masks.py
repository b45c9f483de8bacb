"""Open the change mask of a run: a raster, polygons, or detection from two images.

The mask itself is `rsupres.change.mask`; here a request becomes its sources.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from rsupres.change.mask import ChangeMask
from rsupres.change.options import ChangeOptions
from rsupres.conditions.base import (
    DETECT,
    ConditionRequest,
    ConditionSource,
    TargetScene,
)
from rsupres.conditions.references import References
from rsupres.errors import ConditionError
from rsupres.grid import Grid
from rsupres.legends.class_table import CHANGED, load_class_table
from rsupres.raster.dataset import Raster
from rsupres.raster.place.warp import places
from rsupres.raster.stack import open_scenes

logger = logging.getLogger(__name__)


@contextmanager
def open_mask(
    request: ConditionRequest, frame: TargetScene, reference: References | None
) -> Iterator[ConditionSource]:
    """Yield the change mask of a request, open on the SR frame of a scene.

    "detect" compares the reference, its files joined as scenes are, with the scene. A
    displacement that is corrected in the reference is corrected there, too.

    Args:
        request: has a change mask.
        frame: the scene.
        reference: open, None when none was given.

    Raises:
        ConditionError: as `ChangeMask.open`, or there is nothing to detect from.
        InputError: as `ChangeMask.open`.
    """
    name = request.change_mask
    assert name is not None
    options = ChangeOptions(
        class_table=request.class_table,
        output_table=request.change_table if name != DETECT else None,
        class_attribute=request.class_attribute,
    )
    with ExitStack() as stack:
        sources: list[str | Raster] = [name]
        if name == DETECT:
            if not request.reference:
                raise ConditionError(
                    "detect compares a reference with the scene; give one.",
                    argument="change_mask",
                    remedies=("reference",),
                )
            if request.class_table or request.class_attribute:
                raise ConditionError(
                    "detect finds no classes, so a class table or attribute has no "
                    "effect; for classes, make the mask with 'rsupres change' and a "
                    "land cover.",
                    argument="change_mask",
                )
            before = stack.enter_context(open_scenes(request.reference))
            if reference is not None and reference.coregister:
                before = _moved(before, frame, reference)
            sources = [before, frame.scene]
            _warn_of_classes(request.change_table)
        mask = ChangeMask.open(sources, frame.sr, options)
        yield stack.enter_context(mask)


def _warn_of_classes(table_name: str | None) -> None:
    """Warn which class a model that knows classes takes every change for."""
    if table_name is None:
        return
    table = load_class_table(table_name)
    if CHANGED in table.mask_classes():
        logger.warning(
            "detect finds no classes; the model takes every change for '%s' (%d of "
            "%s). 'rsupres change' makes masks with classes.",
            table.mask_classes()[CHANGED].name,
            CHANGED,
            table.title,
            extra={"argument": "change_mask"},
        )


def _moved(before: Raster, frame: TargetScene, reference: References) -> Raster:
    """Return a view of the earlier image, moved to where the scene shows its ground."""
    shift = reference.settings.shift
    if shift is None:
        return before
    lr, own = frame.scene.grid, before.grid
    cols = lr.width / 2 + np.array([0.0, shift.col])
    rows = lr.height / 2 + np.array([0.0, shift.row])
    col, row = places(own, lr, cols, rows)
    back = type(own.transform).translation(
        float(col[0] - col[1]), float(row[0] - row[1])
    )
    moved = copy.copy(before)  # shares the open file
    moved.grid = Grid(own.crs, own.transform @ back, own.height, own.width)
    return moved
