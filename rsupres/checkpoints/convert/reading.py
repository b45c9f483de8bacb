"""Read tensors of released weight files by name, without running anything in them.

safetensors files, and PyTorch's archives (zip) and legacy pickles through its
``weights_only`` unpickler, which builds tensors and plain containers and refuses
anything else. Pickles of whole modules are read by `modules`.
"""

from __future__ import annotations

import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rsupres.errors import CheckpointError

_WRAPPER = "module."  # what torch's DataParallel puts before every name
_INNER = "state_dict"
_MAX_HEADER = 100_000_000  # bytes, of safetensors
# Errors that torch raises on files that are cut short or no pickles at all.
_DAMAGE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError),
    *(TypeError, AssertionError, struct.error),
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file, safetensors or of `torch.save`, on the CPU.

    A mapping under ``state_dict`` is taken out of what lies around it; ``module.`` is
    removed where every name begins with it.

    Raises:
        CheckpointError: missing, damaged, no weights, or a pickle that wants to run
            something.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    found = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(found).__name__}, not tensors by name."
        )
    inner = found.get(_INNER)
    tensors = dict(inner if isinstance(inner, Mapping) else found)
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: entry '{name}' is a {type(value).__name__}, not a tensor; is"
                " this a file of weights?"
            )
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors.")
    if all(name.startswith(_WRAPPER) for name in tensors):
        return {k.removeprefix(_WRAPPER): v.detach() for k, v in tensors.items()}
    return {k: v.detach() for k, v in tensors.items()}


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins as a safetensors header does: length, then JSON."""
    with open(path, "rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length < _MAX_HEADER


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error}).") from error


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # Foreign pickle protocols only make it warn before it refuses or reads.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not a file of weights alone, and nothing else is loaded because"
            f" it could run code ({_first_line(error)})."
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path}: damaged, cut short or no weight file ({_first_line(error)})."
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
