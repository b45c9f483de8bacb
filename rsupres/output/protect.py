"""Refuse outputs that would destroy an input, or replace a device, pipe or socket.

An input is protected under every name that leads to it: its path, a symbolic or hard
link, a name that only GDAL understands (`/vsizip/...`, `NETCDF:...`), the folder of a
product, or a file that belongs to it (`.aux.xml`, `.msk`, `.ovr`, the parts of a
Shapefile).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from rsupres.errors import ArgumentError

# Files that GDAL reads with NAME: NAME + ending, or NAME's stem + ending.
SIDECARS = (".aux.xml", ".ovr", ".msk")
_STEM_SIDECARS = (
    *(".aux", ".hdr", ".tfw", ".jgw", ".pgw", ".wld", ".imd", ".rpb", ".prj", ".qpj"),
    *(".shx", ".dbf", ".cpg", ".sbn", ".sbx", ".qix"),
)


def check_apart(
    outputs: Mapping[str, Path], inputs: Mapping[str, Iterable[str]]
) -> None:
    """Check that no output is an input, one of its files, or a special file.

    Args:
        outputs: argument -> file to be written.
        inputs: argument -> names of the files that are read, as GDAL takes them.

    Raises:
        ArgumentError: an output is an input by any name, belongs to one, lies inside
            the folder of one, or is a device, a pipe or a socket.
    """
    for argument, path in outputs.items():
        check_regular(path, argument)
    for giver, names in inputs.items():
        for name in names:
            for file in local_files(name):
                for argument, path in outputs.items():
                    if relation := _relation(path, file):
                        raise ArgumentError(
                            f"{path}: {relation} of {giver}, {name}, which would be "
                            "lost; choose another name.",
                            argument=argument,
                        )


def check_regular(path: Path, argument: str) -> None:
    """Check that `path`, if it exists, is a regular file or leads to one.

    Args:
        path: the file to be written.
        argument: name of the argument that gave it, for the message.

    Raises:
        ArgumentError: it is a device, a pipe or a socket.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ArgumentError(
            f"{path} is a device, a pipe or a socket, and rasters are written by "
            "renaming; name a file.",
            argument=argument,
        )


def local_files(name: str) -> list[Path]:
    """Return the files or folders on this machine that an input's name refers to.

    >>> local_files("https://example.org/scene.tif")
    []
    """
    if os.path.exists(name):
        return [Path(name)]
    # Names in parts, such as NETCDF:"FILE":VARIABLE or GTIFF_DIR:1:FILE.
    parts = [name, *re.findall(r'"([^"]+)"', name), *name.split(":")]
    if ":" in name:
        parts.append(name.partition(":")[2].rpartition(":")[0])
    found = []
    for part in parts:
        path = _outermost_file(part)
        if path is not None and path not in found:
            found.append(path)
    return found


def _outermost_file(name: str) -> Path | None:
    """Return the existing part of a name such as `/vsizip/FOLDER/FILE.zip/MEMBER`."""
    bare = re.sub(r"^(/vsi[a-z0-9]+(/\{)?)+", "", name).replace("}", "")
    if not bare.strip("/\"' "):
        return None
    path = Path(bare)
    if path.exists():
        return path
    for parent in path.parents:
        if parent.is_file():
            return parent
    return None


def _relation(output: Path, file: Path) -> str:
    """Return in words how an output is related to an input file; "" when it is not."""
    if _same(output, file):
        return "is the input"
    if file.is_dir():
        inside = _real(output).is_relative_to(_real(file))
        return "lies in the folder" if inside else ""
    belongings = [file.with_name(file.name + end) for end in SIDECARS]
    belongings += [file.with_suffix(end) for end in _STEM_SIDECARS]
    if any(_same(output, other) for other in belongings if other.exists()):
        return "is a file that belongs to the input"
    # A new sidecar would change how the input is read.
    if any(_real(output) == _real(other) for other in belongings[: len(SIDECARS)]):
        return "would be read as a part"
    return ""


def _same(one: Path, other: Path) -> bool:
    """Return whether two names lead to the same file, also through links."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return _real(one) == _real(other)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
