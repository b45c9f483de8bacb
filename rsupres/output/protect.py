"""Refuse outputs that would destroy an input, or replace a device, pipe or socket.

An input is protected under every name that leads to it: its path, a symbolic or hard
link, a name that only GDAL understands (`/vsizip/...`, `NETCDF:...`), the folder of a
product, a file that belongs to it (`.aux.xml`, `.msk`, `.ovr`, the parts of a
Shapefile), or a virtual raster (`.vrt`) that is made of it.
"""

from __future__ import annotations

import os
import re
import stat
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from rsupres.errors import ArgumentError
from rsupres.raster.reading.names import gdal_name

# Files that GDAL reads with NAME: NAME + ending, or NAME's stem + ending.
SIDECARS = (".aux.xml", ".ovr", ".msk")
_STEM_SIDECARS = (
    *(".aux", ".hdr", ".tfw", ".jgw", ".pgw", ".wld", ".imd", ".rpb", ".prj", ".qpj"),
    *(".shx", ".dbf", ".cpg", ".sbn", ".sbx", ".qix"),
)


# Elements of a virtual raster or a virtual vector file that name another file.
_VIRTUAL_SOURCES = ("SourceFilename", "SourceDataset", "SrcDataSource")
_MAX_VRT_BYTES = 64 * 2**20
_MAX_DEPTH = 16  # of virtual files in virtual files

# Files that were read before the job was known, by the argument that gave them.
_READ_BEFORE: ContextVar[Mapping[str, Iterable[str]]] = ContextVar("read before")


@contextmanager
def also_protected(names: Mapping[str, Iterable[str]]) -> Iterator[None]:
    """Protect more files than a job reads itself, such as the file of its options.

    Args:
        names: argument -> names of files.
    """
    token = _READ_BEFORE.set(names)
    try:
        yield
    finally:
        _READ_BEFORE.reset(token)


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
    inputs_read = Inputs(inputs)
    for argument, path in outputs.items():
        inputs_read.check(path, argument)


@dataclass(frozen=True)
class _Use:
    """Relation of a file to an input.

    Attributes:
        relation: in words, to stand before the name of the input.
        giver: the argument that names the input.
        name: of the input.
    """

    relation: str
    giver: str
    name: str


@dataclass
class Inputs:
    """The files that are read, under every name; many outputs are checked at once.

    Attributes:
        names: argument -> names of the files that are read, as GDAL takes them.
    """

    names: Mapping[str, Iterable[str]]
    _by_path: dict[Path, _Use] = field(default_factory=dict, init=False)
    _by_inode: dict[tuple[int, int], _Use] = field(default_factory=dict, init=False)
    _folders: dict[Path, _Use] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        before = _READ_BEFORE.get({})
        for giver, names in (*self.names.items(), *before.items()):
            for name in names:
                for file in local_files(name):
                    self._add(file, giver, name)

    def check(self, path: Path, argument: str) -> None:
        """Check that an output destroys none of the inputs.

        Args:
            path: the file to be written.
            argument: name of the argument that gave it, for the message.

        Raises:
            ArgumentError: it is an input by any name, belongs to one, or lies inside
                the folder of one.
        """
        if use := self._find(path):
            raise ArgumentError(
                f"{path}: {use.relation} {use.name} ({use.giver}), which would be "
                "lost; choose another name.",
                argument=argument,
            )

    def check_file(self, path: Path, argument: str) -> None:
        """Check as `check` does, but let a file lie in the folder of an input.

        Args:
            path: the file to be written.
            argument: name of the argument that gave it, for the message.

        Raises:
            ArgumentError: it is an input by any name, or belongs to one.
        """
        if _real(path) in self._by_path or self._by_same_inode(path):
            self.check(path, argument)

    def check_folder(self, folder: Path, argument: str) -> None:
        """Check that replacing a whole folder destroys none of the inputs.

        Args:
            folder: the folder to be written.
            argument: name of the argument that gave it, for the message.

        Raises:
            ArgumentError: an input is the folder or lies inside it.
        """
        self.check(folder, argument)
        place = _real(folder)
        for path, use in (*self._by_path.items(), *self._folders.items()):
            if use.relation != _NEW_SIDECAR and path.is_relative_to(place):
                raise ArgumentError(
                    f"{folder}: holds the input {use.name} ({use.giver}), which would "
                    "be lost; choose another folder.",
                    argument=argument,
                )

    def _add(self, file: Path, giver: str, name: str) -> None:
        if file.is_dir():
            inside = _Use("lies in the folder", giver, name)
            self._folders.setdefault(_real(file), inside)
            return
        self._note(file, _Use("is the input", giver, name))
        belongs = _Use("is a file that belongs to the input", giver, name)
        beside = [file.with_name(file.name + end) for end in SIDECARS]
        for other in (*beside, *(file.with_suffix(end) for end in _STEM_SIDECARS)):
            if other.exists():
                self._note(other, belongs)
        # A new sidecar would change how the input is read.
        for other in beside:
            self._by_path.setdefault(_real(other), _Use(_NEW_SIDECAR, giver, name))

    def _note(self, file: Path, use: _Use) -> None:
        self._by_path[_real(file)] = use
        if (inode := _inode(file)) is not None:
            self._by_inode.setdefault(inode, use)

    def _by_same_inode(self, path: Path) -> _Use | None:
        inode = _inode(path)
        return None if inode is None else self._by_inode.get(inode)

    def _find(self, path: Path) -> _Use | None:
        place = _real(path)
        if use := self._by_same_inode(path):
            return use
        if place in self._by_path:
            return self._by_path[place]
        for folder in (place, *place.parents):
            if folder in self._folders:
                return self._folders[folder]
        return None


_NEW_SIDECAR = "would be read as a part of the input"


def check_regular(path: Path, argument: str) -> None:
    """Check that `path`, if it exists, is a regular file or leads to one.

    Args:
        path: the file to be written.
        argument: name of the argument that gave it, for the message.

    Raises:
        ArgumentError: it is a device, a pipe or a socket, or the name is "-".
    """
    if str(path) == "-":
        raise ArgumentError(
            "- would be a file of that name, as no raster goes to stdout; name a file.",
            argument=argument,
        )
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

    Those of a virtual file include the files that it is made of.

    >>> local_files("https://example.org/scene.tif")
    []
    """
    found: dict[Path, None] = {}
    _collect(name, found, 0)
    return [*found]


def _collect(name: str, found: dict[Path, None], depth: int) -> None:
    """Add the files of a name, and those that they refer to, to `found`."""
    if name.lstrip().startswith("<"):
        _collect_virtual(name, Path(), found, depth)
        return
    for path in _named_files(name):
        if path in found:
            continue
        found[path] = None
        if path.suffix.lower() == ".vrt" and path.is_file():
            try:
                if path.stat().st_size > _MAX_VRT_BYTES:
                    continue
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            _collect_virtual(text, path.parent, found, depth)


def _collect_virtual(
    text: str, folder: Path, found: dict[Path, None], depth: int
) -> None:
    """Add the files that the text of a virtual file names."""
    try:
        root = ElementTree.fromstring(text.strip())
    except ElementTree.ParseError:
        return
    for element in root.iter():
        source = (element.text or "").strip()
        if element.tag not in _VIRTUAL_SOURCES or not source or depth > _MAX_DEPTH:
            continue
        flags = {key.lower(): value for key, value in element.attrib.items()}
        is_relative = flags.get("relativetovrt", "0") == "1"
        if is_relative and not source.startswith("<"):
            source = str(folder / source)
        _collect(source, found, depth + 1)


def _named_files(name: str) -> list[Path]:
    """Return the existing files or folders that are spelled out in a name."""
    if os.path.exists(name):
        return [Path(name)]
    # Names in parts, such as NETCDF:"FILE":VARIABLE or GTIFF_DIR:1:FILE.
    parts = [gdal_name(name), *re.findall(r'"([^"]+)"', name), *name.split(":")]
    if ":" in name:
        parts.append(name.partition(":")[2].rpartition(":")[0])
    found = []
    for part in parts:
        path = _outermost_file(part)
        if path is not None and path.is_file() and path not in found:
            found.append(path)
    return found


def _outermost_file(name: str) -> Path | None:
    """Return the existing part of a name such as `/vsizip/FOLDER/FILE.zip/MEMBER`."""
    bare = re.sub(r"^(/vsi[a-z0-9]+(/\{)?)+", "", name).replace("}", "")
    if not bare.strip("/\"' "):
        return None
    is_inside = bare != name and bare.startswith("/")
    # After a prefix such as /vsizip/ a path may be relative.
    for path in (Path(bare), *([Path(bare[1:])] if is_inside else [])):
        if path.exists():
            return path
        for parent in path.parents:
            if parent.is_file():
                return parent
    return None


def _inode(path: Path) -> tuple[int, int] | None:
    """Return a key that is the same under any name of a file; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
