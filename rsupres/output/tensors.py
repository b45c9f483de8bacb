"""Write tensors to safetensors files: complete, on disk, with the usual permissions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsupres.errors import ResourceError
from rsupres.output.atomic import publishing

if TYPE_CHECKING:
    from torch import Tensor

_FULL = ("os error 28", "os error 27", "os error 122")  # ENOSPC, EFBIG, EDQUOT


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor] | Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Write a safetensors file.

    Args:
        path: the file; one that is there is replaced.
        tensors: arrays or tensors by name, of any shape; all of one kind, and those of
            torch on any device.
        metadata: texts of the header.

    Raises:
        InputError: the folder is missing or cannot be written.
        ResourceError: the disk is full, or a size limit is reached.
    """
    from safetensors import SafetensorError

    arrays = {k: v for k, v in tensors.items() if isinstance(v, np.ndarray)}
    with publishing(path) as part:
        try:
            if len(arrays) == len(tensors):
                from safetensors.numpy import save_file as save_arrays

                contiguous = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
                save_arrays(contiguous, part, metadata=dict(metadata))
            else:
                _save_torch(part, tensors, metadata)  # type: ignore[arg-type]
        except SafetensorError as error:
            if not any(code in str(error) for code in _FULL):
                raise
            raise ResourceError(
                f"{path}: the disk is full or a size limit is reached. Make room and "
                "run the same command again."
            ) from error


def _save_torch(
    part: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    from safetensors.torch import save_file

    # A copy of each, because tensors that share memory cannot be written.
    unique = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(unique, part, metadata=dict(metadata))
