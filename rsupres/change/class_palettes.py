"""Recognise the table of a class raster, and classes stored as palette colours.

`rsupres.change.class_rasters` and `rsupres.datasets.sidecars` read such rasters.
"""

from __future__ import annotations

import logging
import os
import re

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import ConditionError
from rsupres.legends.class_table import (
    MAX_CODE,
    TABLE_TAG,
    UNCHANGED,
    ClassTable,
    guess_table,
    load_class_table,
)
from rsupres.raster.dataset import Raster

logger = logging.getLogger(__name__)

Entries = NDArray[np.int32]  # code of each entry of a palette


def guessed_table(scene: Raster, present: NDArray[np.int32]) -> str | None:
    """Return the table that a raster's codes, and its colours or name, agree on.

    Codes alone are not enough: GlobeLand30 and FROM-GLC10 have the codes of WorldCover
    with other meanings.

    Args:
        scene: one band of codes.
        present: the codes in it.
    """
    name = guess_table(present)
    if name is None:
        return None
    texts = (os.path.basename(scene.path.rstrip("/")), *scene.tags.values())
    plain = (re.sub(r"[\W_]", "", text).lower() for text in texts)
    if any(name in text for text in plain):
        return name
    classes = {entry.code: entry.colour for entry in load_class_table(name).classes}
    known = [int(code) for code in present if int(code) in classes]
    same = all(scene.palette.get(code) == classes[code] for code in known)
    return name if known and same else None


def palette_entries(
    scene: Raster, table: ClassTable | None, present: NDArray[np.int32]
) -> Entries | None:
    """Return the code of each palette entry, None where the pixels are codes.

    Label images are often stored with a palette of their table's colours, whose entries
    are numbered in any order. Masks that rsupres wrote hold codes.

    Args:
        scene: open class raster.
        table: of its classes, None when not known.
        present: the pixel values in it.

    Raises:
        ConditionError: the palette has colours of the table for other codes, and
            colours that the table does not have.
    """
    palette = scene.palette
    if table is None or not palette or scene.any_tag(TABLE_TAG):
        return None
    colours = {entry.colour: entry.code for entry in reversed(table.classes)}
    if table.unchanged is not None:
        colours[table.unchanged] = UNCHANGED
    used = [int(value) for value in present if int(value) in palette]
    by_colour = {value: colours.get(palette[value]) for value in used}
    own = {entry.code: entry.mask for entry in table.classes}
    differ = [
        value
        for value, code in by_colour.items()
        if code is not None and own.get(code, code) != own.get(value, value)
    ]
    if not differ:
        return None
    strange = [value for value, code in by_colour.items() if code is None]
    if strange or len(used) < len(present):
        raise ConditionError(
            f"{scene.path}: its pixels are palette entries; entry {differ[0]} has a "
            f"colour of another class of {table.name}, and the colour of entry "
            f"{(strange or [-1])[0]} is not in that table. Store codes, or the colours "
            "of the table.",
        )
    entries = np.arange(MAX_CODE + 1, dtype=np.int32)
    for value, code in by_colour.items():
        assert code is not None
        entries[value] = code
    logger.info("%s: classes are read by the palette's colours.", scene.path)
    return entries
