"""The sixteen prompts that SGDM makes from the colours of a map.

Released behaviour, not in the paper: a class is named when one pixel has exactly its
colour. On a scene the whole map decides, so that every tile hears the same words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_START = "land, "
# Words in their order, and the colours that call them.
CLASSES: tuple[tuple[str, tuple[tuple[int, int, int], ...]], ...] = (
    ("building of regular shape, ", ((226, 224, 210),)),
    ("road, ", ((254, 254, 254), (255, 204, 133))),
    ("woods, ", ((217, 233, 198), (228, 236, 213), (208, 230, 190))),
    ("water area, ", ((133, 203, 249),)),
)
N_PROMPTS = 1 << len(CLASSES)


def prompt_number(chart: NDArray[np.uint8]) -> int:
    """Return which classes a map (3, H, W) shows, as bits in the order of the words."""
    red, green, blue = chart.astype(np.uint32)
    present = set(np.unique(red << 16 | green << 8 | blue).tolist())
    number = 0
    for bit, (_, colours) in enumerate(CLASSES):
        codes = {r << 16 | g << 8 | b for r, g, b in colours}
        number |= bool(codes & present) << bit
    return number


def prompt_text(number: int) -> str:
    """Return the prompt of `prompt_number`'s result, its last space kept."""
    words = [word for bit, (word, _) in enumerate(CLASSES) if number >> bit & 1]
    return _START + "".join(words)
