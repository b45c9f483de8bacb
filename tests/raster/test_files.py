"""Files are hashed whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsupres.raster.files import file_sha256


def test_the_hash_is_that_of_the_standard(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_sha256(path) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "missing")
