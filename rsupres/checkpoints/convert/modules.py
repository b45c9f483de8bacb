"""Read the tensors of pickled modules by dotted name, without running anything.

Some authors publish `torch.save` files of whole module objects. Loading such a file
with torch runs the functions that it names, in EDM's format even source text that it
carries. This module reads torch's zip archives, and plain pickles with torch's legacy
storages inside, as data (`rsupres.checkpoints.convert.unpickle`). Sizes are checked
before memory is taken.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Collection, Iterator
from io import BytesIO
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from rsupres.checkpoints.convert.unpickle import (
    Record,
    Storage,
    TensorRecord,
    load_data,
    refuse,
    storage_dtype,
)
from rsupres.errors import CheckpointError

_MAX_DEPTH = 64  # modules within modules
_MAX_PARTS = 100_000  # modules and tensors of one tree
_MAX_BYTES = 1 << 35  # of all tensors of one tree: 32 GiB


def read_module_tensors(
    path: Path, root: str, classes: Collection[str]
) -> dict[str, Tensor]:
    """Return parameters and buffers of a pickled module, by dotted name, on the CPU.

    Args:
        path: the file.
        root: key of the module in the dict that the file holds.
        classes: names of the family's own classes, in any module; they become
            records, too.

    Raises:
        CheckpointError: missing, damaged, or it names or does what is not on the list.
    """
    data = _load(path, classes)
    if not isinstance(data, dict) or root not in data:
        keys = ", ".join(map(str, data)) if isinstance(data, dict) else "no dict"
        raise CheckpointError(f"{path}: holds no '{root}' (but {keys}).")
    tensors: dict[str, Tensor] = {}
    budget = [_MAX_BYTES]
    for number, (name, record) in enumerate(_walk(data[root], "", 0, path)):
        if number >= _MAX_PARTS:  # modules may hold each other many times
            refuse(path, f"more than {_MAX_PARTS} modules and tensors")
        if record is not None:
            tensors[name] = _materialise(name, record, path, budget)
    if not tensors:
        raise CheckpointError(f"{path}: '{root}' holds no tensors.")
    return tensors


def _load(path: Path, classes: Collection[str]) -> object:
    """Return the data of a file's pickle."""
    try:
        with open(path, "rb") as opened:
            start = opened.read(4)
        if start != b"PK\x03\x04":
            file = BytesIO(path.read_bytes())
            return load_data(file, path, classes, _no_storage)
        with zipfile.ZipFile(path) as archive:
            return _load_archive(archive, path, classes)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file.") from error
    except CheckpointError:
        raise
    except (
        *(OSError, zipfile.BadZipFile, ValueError, LookupError, TypeError),
        *(struct.error, EOFError, RecursionError, AttributeError, OverflowError),
    ) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path}: damaged, cut short or no pickle ({first})."
        ) from error


def _load_archive(
    archive: zipfile.ZipFile, path: Path, classes: Collection[str]
) -> object:
    """Read ``*/data.pkl`` of torch's zip format; storages are found, not read."""
    entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise CheckpointError(f"{path}: no archive that torch wrote: no data.pkl.")
    folder = pickles[0].removesuffix("data.pkl")
    for name, info in entries.items():
        if info.compress_type != zipfile.ZIP_STORED:
            refuse(path, f"compressed entry '{name}'; torch writes none")

    def storage(pid: object) -> Storage:
        dtype = storage_dtype(pid, path)
        assert isinstance(pid, tuple)
        entry = f"{folder}data/{pid[2]}"
        if entry not in entries:
            raise CheckpointError(f"{path}: storage '{entry}' is missing; damaged.")

        def read() -> bytes:
            with zipfile.ZipFile(path) as again:
                return again.read(entry)

        return Storage(read, dtype)

    with archive.open(pickles[0]) as file:
        return load_data(BytesIO(file.read()), path, classes, storage)


def _no_storage(pid: object) -> NoReturn:
    raise CheckpointError(f"a reference {pid!r:.80} outside of an archive of torch.")


def _walk(
    record: object, prefix: str, depth: int, path: Path
) -> Iterator[tuple[str, TensorRecord | None]]:
    """Yield a module record as (name, None), its tensors, then its modules."""
    if not isinstance(record, Record) or not isinstance(record.state, dict):
        raise CheckpointError(f"{path}: '{prefix or 'root'}' is no module.")
    if depth > _MAX_DEPTH:
        refuse(path, f"modules nested more than {_MAX_DEPTH} deep")
    yield prefix, None
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _items(record.state.get(kind), path):
            if isinstance(tensor, TensorRecord):
                yield f"{prefix}{name}", tensor
    for name, module in _items(record.state.get("_modules"), path):
        if module is not None:
            yield from _walk(module, f"{prefix}{name}.", depth + 1, path)


def _items(values: object, path: Path) -> list[tuple[object, object]]:
    if values is None:
        return []
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: a module's parts are no dict.")
    return list(values.items())


def _materialise(
    name: str, record: TensorRecord, path: Path, budget: list[int]
) -> Tensor:
    """Read a tensor; a view that shows more than its storage holds is refused."""
    dtype, numel = record.storage.dtype, math.prod(record.shape)
    budget[0] -= numel * dtype.itemsize
    content = record.storage.read()
    held = len(content) // dtype.itemsize
    reach = sum((n - 1) * s for n, s in zip(record.shape, record.stride, strict=True))
    if numel and record.offset + reach >= held:
        raise CheckpointError(f"{path}: tensor '{name}' leaves its storage; damaged.")
    if numel > held or budget[0] < 0:
        refuse(path, f"tensor '{name}' of {numel} numbers out of {held}")
    if not numel:
        return torch.empty(record.shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(content), dtype=dtype, count=held)
    return flat.as_strided(record.shape, record.stride, record.offset).clone()
