"""Seal files of a run directory with checksums, and tell by these whether they changed.

A sealed file ends in 16 bytes with the checksum of those before, which neither GDAL nor
numpy reads. JSON holds its checksum as one of its values. Runs of versions that sealed
nothing are known by `run.json`, which then has no checksum either.

The checksum is the CRC-32 of the sums of 64-bit words of every 64 KiB. Measured on one
idle core at 2.1 GHz, of mapped files: 12 GB/s, where CRC-32 alone reaches 3.4.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsupres.output.atomic import publishing

_Bytes = NDArray[np.uint8]
_PAGE = 1 << 16  # bytes
_READ = 4 * _PAGE  # bytes at a time
_MARK = b"rsupres:"  # before the checksum, 8 hexadecimal digits
_SEAL = len(_MARK) + 8  # bytes of a seal
_KEY = "checksum"  # of JSON


@contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """Yield a temporary name; seal the file at the end, and rename it to `path`.

    Args:
        path: of a file in the run directory; one that is there is replaced.

    Raises:
        InputError: the folder is missing or cannot be written.
        ResourceError: the disk is full.
    """
    with publishing(path) as part:
        yield part
        seal(part)


def seal(path: Path) -> None:
    """Append the checksum of a file to it.

    Args:
        path: of a file with at least one byte.

    Raises:
        OSError: the disk is full.
    """
    # Mapped: faster than reading, and what was just written is in memory.
    found = checksum([np.memmap(path, np.uint8, "r")])
    with path.open("ab") as file:
        file.write(_MARK + b"%08x" % found)


def is_whole(path: Path, *, unsealed: bool) -> bool:
    """Return whether a file is as it was written.

    Args:
        path: of the file.
        unsealed: what to return for a file that is there without a seal.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size - _SEAL
            file.seek(max(0, size))
            mark = file.read(_SEAL)
            if not mark.startswith(_MARK):
                return unsealed
            return mark == _MARK + b"%08x" % checksum(_pieces(path, 0, size))
    except OSError:  # missing, or the disk cannot read it
        return False


def checksum(pieces: Iterable[_Bytes]) -> int:
    """Return the checksum of bytes.

    Args:
        pieces: of the bytes; all but the last hold whole pages of 64 KiB.
    """
    total = 0
    for piece in pieces:
        whole = len(piece) // _PAGE * _PAGE
        words = piece[:whole].view(np.uint64).reshape(-1, _PAGE // 8)
        total = zlib.crc32(np.add.reduce(words, axis=1).data, total)
        total = zlib.crc32(piece[whole:].data, total)
    return total


def _pieces(path: Path, start: int, stop: int) -> Iterator[_Bytes]:
    """Yield the bytes of a part of a file, in one buffer."""
    buffer = np.empty(_READ, np.uint8)
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < stop:
            wanted, n = min(_READ, stop - start), 0
            while n < wanted and (read := file.readinto(buffer.data[n:wanted])):
                n += read
            yield buffer[:n]
            start += wanted


def checksum_of(path: Path) -> int:
    """Return the checksum of a file.

    Args:
        path: of the file.

    Raises:
        OSError: it is missing or cannot be read.
    """
    return checksum(_pieces(path, 0, path.stat().st_size))


def note_part(mark: Path, file: Path, start: int, stop: int) -> None:
    """Keep the checksum of a part of a file in a file of its own.

    Args:
        mark: the file to write.
        file: that has the part, and does not change any more before it.
        start: first byte of the part.
        stop: byte after the last one.

    Raises:
        ResourceError: the disk is full.
    """
    start -= start % mmap.ALLOCATIONGRANULARITY  # words of a map are read faster then
    mapped = np.memmap(file, np.uint8, "r", start, stop - start)
    values = {"start": start, "stop": stop, "sum": checksum([mapped])}
    write_json(mark, values)


def is_noted(mark: Path, file: Path) -> bool:
    """Return whether a part of a file is as `note_part` found it.

    Args:
        mark: with the checksum.
        file: that has the part.
    """
    try:
        start, stop, found = read_json(mark, unsealed=False).values()
        return checksum(_pieces(file, int(start), int(stop))) == found  # type: ignore[call-overload]
    except (OSError, ValueError, TypeError):
        return False


def json_with_checksum(values: Mapping[str, object], indent: int | None = None) -> str:
    """Return JSON that holds its checksum.

    Args:
        values: JSON-able; no key is "checksum".
        indent: spaces before each level of nesting; None = all in one line.
    """
    return json.dumps({**values, _KEY: _checksum_of_json(values)}, indent=indent)


def write_json(
    path: Path, values: Mapping[str, object], indent: int | None = None
) -> None:
    """Publish JSON with its checksum.

    Args:
        path: of the file; one that is there is replaced.
        values: as for `json_with_checksum`.
        indent: as there.

    Raises:
        InputError: the folder is missing or cannot be written.
        ResourceError: the disk is full.
    """
    with publishing(path) as part:
        part.write_text(json_with_checksum(values, indent), encoding="utf-8")


def read_json(path: Path, *, unsealed: bool) -> dict[str, object]:
    """Return the values of `write_json`.

    Args:
        path: of the file.
        unsealed: accept values without a checksum.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is damaged.
    """
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("it holds no table of values")
    found = values.pop(_KEY, None)
    if found != _checksum_of_json(values) and not (unsealed and found is None):
        raise ValueError("its values do not fit its checksum")
    return values


def is_sealed(path: Path) -> bool:
    """Return whether JSON has a checksum.

    Args:
        path: of JSON that `read_json` accepts.
    """
    return _KEY in json.loads(path.read_text(encoding="utf-8"))


def _checksum_of_json(values: Mapping[str, object]) -> int:
    plain = json.loads(json.dumps(values))
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())
