"""Outputs in stores of objects: made on this machine, then copied there as a whole.

Stores take no random writes and have no locks, so a run and its directory stay on a
local disk. GDAL copies the finished file; an object appears when all of it is there.
Credentials and endpoints are those of GDAL's environment, such as `AWS_S3_ENDPOINT`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from rsupres.errors import InputError, ResourceError
from rsupres.raster.files import StrPath
from rsupres.raster.reading.names import gdal_name

STORES = ("/vsis3/", "/vsigs/", "/vsiaz/")
_FOLDER = "upload"  # of files that are to be copied
_ABSENT = (
    *("does not exist in the file system", "specified key does not exist"),
    *("NoSuchKey", "BlobNotFound", "HTTP response code: 404"),
)
_FOREIGN = "not recognized as being in a supported file format"


def store_name(name: StrPath) -> str | None:
    """Return GDAL's name of an object of a store; None for every other name.

    >>> store_name("s3://bucket/a.tif"), store_name("a.tif"), store_name("/vsigs/b/c")
    ('/vsis3/bucket/a.tif', None, '/vsigs/b/c')
    """
    # `Path` keeps one slash of two.
    text = re.sub(r"^(s3|gs|az):/+", r"\1://", os.fspath(name))
    found = gdal_name(text)
    return found if found.startswith(STORES) else None


def place(output: StrPath, run_dir: Path | None) -> tuple[Path, str | None]:
    """Return the local file of an output, and GDAL's name of the object it becomes.

    Args:
        output: as given; the object is None unless it is in a store.
        run_dir: a run directory; the file of an object lies beside it, None = here.

    Raises:
        InputError: the name lacks a bucket or a key.
    """
    store = store_name(output)
    if store is None:
        return Path(output), None
    bucket, _, key = store.split("/", 2)[2].partition("/")
    parts = [bucket, *key.split("/")]
    if not all(parts) or ".." in parts:
        raise InputError(
            f"{store}: give the name of a bucket and of a file in it.",
            argument="output",
        )
    folder = Path() if run_dir is None else run_dir.parent
    return folder.joinpath(_FOLDER, *parts), store


def stored_tags(store: str) -> dict[str, str] | None:
    """Return the tags of an object; none of one that is no raster, None without one.

    Raises:
        ResourceError: the store does not answer, or refuses.
    """
    failure, told = _ask(
        "with rasterio.open(store) as d: print(json.dumps(d.tags()))", store
    )
    if not failure:
        tags: dict[str, str] = json.loads(told)
        return tags
    if _FOREIGN in failure:
        return {}
    if any(text in failure for text in _ABSENT):
        return None
    raise ResourceError(f"{store}: the store does not answer as wanted ({failure}).")


def send(path: Path, store: str) -> None:
    """Copy a finished raster into a store, and remove it here.

    Args:
        path: of the raster.
        store: name of the object.

    Raises:
        ResourceError: it could not be copied; the file stays.
    """
    code = "rasterio.shutil.copyfiles(path, store); rasterio.open(store).close()"
    failure, _ = _ask(code, store, str(path))
    if failure:
        raise ResourceError(
            f"{store}: cannot be written ({failure}). The output is whole in {path}; "
            "the same command copies it."
        )
    path.unlink()
    for folder in path.parents:
        try:
            folder.rmdir()
        except OSError:  # it holds other files
            return
        if folder.name == _FOLDER:
            return


def _ask(code: str, store: str, path: str = "") -> tuple[str, str]:
    """Run Python code about an object; return why it failed, "" = not, and its output.

    In a process of its own, as GDAL remembers what it once heard of an object, and
    keeps Python from everything else, signals too, while it copies a file.
    """
    lines = ["import json, sys, rasterio, rasterio.shutil", "_, store, path = sys.argv"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*lines, code]), store, path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if not done.returncode:
        return "", done.stdout
    last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return re.sub(r"^[\w.]+: ", "", last).rstrip("."), ""
