"""The folder of images that some benchmarks measure on."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """Return the folder that `RSUPRES_DATA` names; docs/data.md lists its contents.

    Raises:
        SystemExit: the variable is not set.
    """
    if (named := os.environ.get("RSUPRES_DATA")) is None:
        raise SystemExit("Set RSUPRES_DATA to the folder of the images (docs/data.md).")
    return Path(named)
