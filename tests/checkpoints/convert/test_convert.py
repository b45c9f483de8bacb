"""Released files: read without running them, converted, written with a card."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from rsupres.checkpoints import convert
from rsupres.checkpoints.catalogue import read_card
from rsupres.checkpoints.convert import (
    CONVERTERS,
    Converted,
    converter_of,
    import_checkpoint,
)
from rsupres.checkpoints.convert.reading import read_tensors
from rsupres.checkpoints.file import read_checkpoint
from rsupres.errors import CheckpointError, InputError, RunConflictError
from rsupres.families.base import FixedScales, ModelSpec

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


def write(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_what_torch_saved_is_read(
    tmp_path: Path, legacy: bool, wrapped: bool, parallel: bool
) -> None:
    named = {("module." if parallel else "") + k: v for k, v in TENSORS.items()}
    content = {"state_dict": named, "epoch": 3} if wrapped else named
    path = write(
        tmp_path / "net.pkl", content, _use_new_zipfile_serialization=not legacy
    )
    got = read_tensors(path)
    assert got.keys() == TENSORS.keys()
    assert all(torch.equal(got[name], TENSORS[name]) for name in TENSORS)


def test_safetensors_are_read_whatever_their_suffix(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "net.bin")
    assert torch.equal(read_tensors(tmp_path / "net.bin")["b"], TENSORS["b"])


class _Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_is_refused_and_not_run(
    tmp_path: Path,
) -> None:
    bad = tmp_path / "net.pkl"
    bad.write_bytes(pickle.dumps({"a": _Harmful(tmp_path / "ran")}))
    zipped = write(tmp_path / "net.pt", {"a": _Harmful(tmp_path / "ran")})
    for path in (bad, zipped):
        with pytest.raises(CheckpointError, match="could run code"):
            read_tensors(path)
    assert not (tmp_path / "ran").exists()


def test_damaged_and_other_files_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "net.pkl", TENSORS).read_bytes()
    files = {
        "short.pkl": good[: len(good) // 2],
        "empty.pkl": b"",
        "text.pkl": b"<html>not found</html>",
        "short.safetensors": b"\xff\x00\x00\x00\x00\x00\x00\x00{",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            read_tensors(tmp_path / name)
    with pytest.raises(CheckpointError, match="no such file"):
        read_tensors(tmp_path / "absent.pkl")


def test_what_holds_no_tensors_by_name_is_refused(tmp_path: Path) -> None:
    for content, told in (([1], "list"), ({}, "no tensors"), ({"lr": 1.0}, "'lr'")):
        path = write(tmp_path / "net.pkl", content)
        with pytest.raises(CheckpointError, match=told):
            read_tensors(path)


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register a converter of a family that has no released files."""
    module = ModuleType("fake_converter")

    def make(sources: Sequence[Path], options: Mapping[str, str]) -> Converted:
        scales = FixedScales(frozenset())
        tensors = read_tensors(sources[0])
        return Converted(
            tensors, ModelSpec("e2diffsr", scales), dict(options), "me", "CC0"
        )

    module.convert = make  # type: ignore[attr-defined]
    module.OPTIONS = {"scale": "of the weights"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_converter", module)
    monkeypatch.setattr(convert, "CONVERTERS", {"e2diffsr": "fake_converter"})
    return "e2diffsr"


def test_checkpoint_and_card_are_written_and_found(
    tmp_path: Path, converter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "imports_folder", lambda: tmp_path / "models")
    monkeypatch.setenv("RSUPRES_MODELS", str(tmp_path / "models"))
    source = write(tmp_path / "net.pkl", TENSORS)
    card = import_checkpoint(converter, [source], None, None, {"scale": "4"})
    assert card.name == "e2diffsr-net"
    found = read_card("e2diffsr-net")
    assert (found.sha256, found.licence, found.spec) == (
        card.sha256,
        "CC0",
        card.spec,
    )
    assert found.text == card.text
    assert card.file is not None
    read = read_checkpoint(card.file)
    assert read.architecture == {"scale": "4"}
    assert torch.equal(read.tensors["b"], TENSORS["b"])


def test_an_import_is_never_written_over_unless_asked(
    tmp_path: Path, converter: str
) -> None:
    source, out = write(tmp_path / "net.pkl", TENSORS), tmp_path / "out.safetensors"
    import_checkpoint(converter, [source], out, "one", {})
    with pytest.raises(RunConflictError, match="exists") as caught:
        import_checkpoint(converter, [source], out, "two", {})
    assert "overwrite" in caught.value.remedies
    card = import_checkpoint(converter, [source], out, "two", {}, overwrite=True)
    assert card.name == "two"


def test_what_cannot_be_imported_is_told(tmp_path: Path, converter: str) -> None:
    source = write(tmp_path / "net.pkl", TENSORS)
    with pytest.raises(InputError, match="known: e2diffsr"):
        import_checkpoint("none", [source], None, None, {})
    with pytest.raises(InputError, match="scale: of the weights"):
        import_checkpoint(converter, [source], None, None, {"size": "4"})
    with pytest.raises(InputError, match="plain name"):
        import_checkpoint(converter, [source], None, "a/b", {})
    with pytest.raises(InputError, match=r"\.safetensors"):
        import_checkpoint(converter, [source], tmp_path / "x.pt", None, {})
    with pytest.raises(CheckpointError, match="no such file"):
        import_checkpoint(converter, [tmp_path / "no.pkl"], None, None, {})


@pytest.mark.parametrize("family", sorted(CONVERTERS))
def test_every_converter_tells_its_options(family: str) -> None:
    module = converter_of(family)
    assert all(isinstance(text, str) for text in module.OPTIONS.values())
