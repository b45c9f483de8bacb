"""Read small metadata files, also inside of zips and behind URLs."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
import zipfile
from pathlib import PurePosixPath

from rsupres.errors import InputError

MAX_BYTES = 256 * 2**20  # no metadata are larger
_TIMEOUT_S = 60


def read_bytes(name: str) -> bytes:
    """Return the contents of a metadata file: a path, below `/vsizip/`, or an address.

    Raises:
        InputError: it is missing, cannot be read or is larger than `MAX_BYTES`.
    """
    try:
        if archive := split_zip(name):
            return _inside_zip(*archive)
        if re.match(r"https?://", name):
            with urllib.request.urlopen(name, timeout=_TIMEOUT_S) as answer:
                text = answer.read(MAX_BYTES + 1)
        else:
            with open(name, "rb") as opened:
                text = opened.read(MAX_BYTES + 1)
    except (OSError, KeyError, zipfile.BadZipFile, urllib.error.URLError) as error:
        raise InputError(f"{name}: cannot be read ({error}).") from error
    if len(text) > MAX_BYTES:
        raise InputError(f"{name}: too large for metadata.")
    return bytes(text)


def _inside_zip(archive: str, inside: str) -> bytes:
    with zipfile.ZipFile(archive) as opened:
        if opened.getinfo(inside).file_size > MAX_BYTES:
            raise InputError(f"{archive}: {inside} is too large for metadata.")
        return opened.read(inside)


def split_zip(name: str) -> tuple[str, str] | None:
    """Return the archive and the path in it of a name in a zip, None for others.

    >>> split_zip("/vsizip/a/b.zip/c/d.xml"), split_zip("a.xml")
    (('a/b.zip', 'c/d.xml'), None)
    """
    if not name.startswith("/vsizip/"):
        return None
    found = re.match(r"/vsizip/(.*?\.zip)/(.*)", name, re.IGNORECASE | re.DOTALL)
    return (found.group(1), found.group(2)) if found else None


def names_in(folder: str) -> list[str]:
    """Return the names of the files in a folder or below `/vsizip/`; [] without."""
    archive = split_zip(folder.rstrip("/") + "/")
    if archive is None:
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    try:
        with zipfile.ZipFile(archive[0]) as opened:
            names = [PurePosixPath(name) for name in opened.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []
    inside = PurePosixPath(archive[1])
    return sorted(name.name for name in names if name.parent == inside)
