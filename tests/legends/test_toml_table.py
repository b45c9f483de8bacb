"""TOML of any editor is read, or refused with the line and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsupres.errors import InputError
from rsupres.legends.toml_table import read_toml


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read_with_and_without_a_byte_order_mark(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text('name = "Zürich"\r\n', encoding=encoding)
    assert read_toml(path) == {"name": "Zürich"}


@pytest.mark.parametrize(
    ("encoding", "message"),
    [("utf-16", "UTF-16 text; save it as UTF-8"), ("latin-1", "line 2: not UTF-8")],
)
def test_other_encodings_are_refused_by_name(
    tmp_path: Path, encoding: str, message: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text('a = 1\nname = "Zürich"\n', encoding=encoding)
    with pytest.raises(InputError, match=message):
        read_toml(path)


@pytest.mark.parametrize("kind", ["folder", "nothing", "bad"])
def test_what_is_no_toml_file_is_an_input_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "bad":
        path.write_text("a = = 1")
    with pytest.raises(InputError, match=r"a\.toml"):
        read_toml(path)
