"""Hash the files of a raster by samples, so that a changed input shows quickly."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

SAMPLES = 16  # places of a file that are read
SAMPLE_BYTES = 65_536  # at each of them


def fingerprint(
    files: Sequence[str], digest_pixels: Callable[[hashlib._Hash], None]
) -> dict[str, str]:
    """Return JSON-able values that differ when the bytes of files differ.

    The hash covers name, size and bytes at up to 16 places of every local file; where
    some are remote, also pixels.

    Args:
        files: names, local or not.
        digest_pixels: adds pixels to a hash.
    """
    local = sorted(name for name in set(files) if os.path.isfile(name))
    digest = hashlib.sha256()
    for name in local:
        _digest_file(digest, name)
    if not local or not all(os.path.isfile(name) for name in files):
        digest_pixels(digest)
    size = sum(os.path.getsize(name) for name in local)
    mtime_ns = max((os.stat(name).st_mtime_ns for name in local), default=0)
    return {
        "size": str(size),
        "mtime_ns": str(mtime_ns),
        "sha256": digest.hexdigest(),
    }


def _digest_file(digest: hashlib._Hash, name: str) -> None:
    size = os.path.getsize(name)
    digest.update(f"{os.path.basename(name)}:{size}:".encode())
    with open(name, "rb") as stream:
        last = max(0, size - SAMPLE_BYTES)
        for place in range(SAMPLES):
            stream.seek(last * place // (SAMPLES - 1))
            digest.update(stream.read(SAMPLE_BYTES))
