"""Read what a model computed once for the whole scene; damage counts as absence."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np

from rsupres.families.base import SceneContext
from rsupres.output.damage.seals import is_whole, read_json

logger = logging.getLogger(__name__)

# Smaller arrays are read at once; numpy cannot map empty ones.
_MAPPED_FROM_BYTES = 1 << 16


def read_context(folder: Path, *, unsealed: bool) -> SceneContext | None:
    """Return a stored context, its arrays read-only; None if there is none.

    One that is damaged is removed, as the model can compute it again.

    Args:
        folder: of its files.
        unsealed: these may lack seals.
    """
    if not folder.exists():
        return None
    try:
        content = read_json(folder / "context.json", unsealed=unsealed)
        names, numbers = content["arrays"], content["numbers"]
        files = {name: folder / f"{name}.npy" for name in names}  # type: ignore[attr-defined]
        if all(is_whole(file, unsealed=unsealed) for file in files.values()):
            arrays = {name: _load_array(file) for name, file in files.items()}
            return SceneContext(arrays, numbers)  # type: ignore[arg-type]
        reason = "an array differs from its checksum or is gone"
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = str(error)
    logger.warning("%s is damaged (%s); the scene is prepared again.", folder, reason)
    shutil.rmtree(folder)
    return None


def _load_array(file: Path) -> np.ndarray:
    mapped = file.stat().st_size >= _MAPPED_FROM_BYTES
    array: np.ndarray = np.load(file, mmap_mode="r" if mapped else None)
    array.flags.writeable = False
    return array
