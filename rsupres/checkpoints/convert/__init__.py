"""Convert checkpoints of other projects into ours (`rsupres models import`).

This module lists the families that convert, and writes the checkpoint and its card. The
module of a family knows its released files; `reading`, `modules` and `unpickle` read
such files without running anything in them. Nothing is downloaded.

A converter is a module with

- ``OPTIONS``: what `options` may hold, name to one line of help;
- ``convert(sources, options) -> Converted``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from rsupres.errors import CheckpointError, InputError, RunConflictError
from rsupres.families.base import ModelSpec
from rsupres.output.atomic import check_writable, make_folder
from rsupres.raster.files import file_sha256

if TYPE_CHECKING:
    from torch import Tensor

    from rsupres.checkpoints.catalogue import Card

_WEIGHT_FILES = (".safetensors", ".bin", ".ckpt", ".pt")
# family: module
CONVERTERS: Mapping[str, str] = {
    "refdiff": "rsupres.checkpoints.convert.refdiff",
    "sgdm": "rsupres.checkpoints.convert.sgdm",
    "slimdiffsr": "rsupres.checkpoints.convert.slimdiffsr",
}


@dataclass(frozen=True)
class Converted:
    """A foreign checkpoint with the names and the configuration of our family.

    Attributes:
        tensors: weights by our names, complete.
        spec: what the model needs from a scene.
        architecture: the family's configuration, as plain JSON values.
        origin: who made the weights from what, one line.
        licence: of the weights, as their maker states it; "" = not known.
    """

    tensors: Mapping[str, Tensor]
    spec: ModelSpec
    architecture: Mapping[str, object]
    origin: str
    licence: str = ""


class Converter(Protocol):
    """The interface of the modules of this package."""

    OPTIONS: Mapping[str, str]

    def convert(self, sources: Sequence[Path], options: Mapping[str, str]) -> Converted:
        """Read released files and return their weights under our names.

        Raises:
            CheckpointError: missing, damaged, unsafe or other files; missing and
                surplus tensors are named.
            InputError: a value of an option that does not fit.
        """
        ...


def import_checkpoint(
    family: str,
    sources: Sequence[Path],
    out: Path | None,
    name: str | None,
    options: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> Card:
    """Convert released files, write checkpoint and card, and return the card.

    Args:
        family: a key of `CONVERTERS`.
        sources: the released files, and folders of them, all that make one model.
        out: checkpoint to write (``.safetensors``), its card beside it; None = into
            `imports_folder` under the model's name.
        name: by which the model is chosen; None = family and the first file's name.
        options: the converter's own, see its ``OPTIONS``.
        overwrite: replace a checkpoint that is there.

    Raises:
        InputError: unknown family or option, or a name that is none.
        CheckpointError: the files cannot be converted.
        RunConflictError: the output exists.
    """
    from rsupres.checkpoints.catalogue import Card, card_text
    from rsupres.checkpoints.file import write_checkpoint

    module = converter_of(family)
    _check_options(options, module.OPTIONS, family)
    for source in sources:
        if not source.exists():
            raise CheckpointError(f"{source}: no such file or folder.")
    name = name or f"{family}-{sources[0].stem}"
    path = _output(out, name, overwrite)
    make_folder(path.parent, "out")
    check_writable(path, "out")
    made = module.convert(sources, options)
    sha256 = write_checkpoint(
        path, made.tensors, made.spec, made.architecture, made.origin
    )
    hashes = [f"{file.name} {file_sha256(file)}" for file in _files(sources)]
    text: dict[str, object] = {"origin": made.origin, "sources": hashes}
    card = card_text(name, path.name, sha256, made.spec, made.licence, text)
    beside = path.with_suffix(".toml")
    beside.write_text(card, encoding="utf-8")
    return Card(name, made.spec, beside, path, sha256, made.licence, text)


def converter_of(family: str) -> Converter:
    """Return the converter of a family.

    Raises:
        InputError: there is none.
    """
    if family not in CONVERTERS:
        known = ", ".join(sorted(CONVERTERS))
        raise InputError(
            f"{family}: cannot be imported; known: {known}.", argument="family"
        )
    return cast(Converter, import_module(CONVERTERS[family]))


def imports_folder() -> Path:
    """Return where imported models go: a folder that the catalogue searches.

    ``models/imported`` of a checkout, else the user's own folder of models.

    Raises:
        InputError: neither is there.
    """
    from rsupres.checkpoints.catalogue import user_models

    checkout = Path(__file__).resolve().parents[3] / "models"
    folder = checkout / "imported" if checkout.is_dir() else user_models()
    if folder is None:
        raise InputError(
            "this user has no home folder for models; name the file to write.",
            remedies=("out",),
        )
    return folder


def _files(sources: Sequence[Path]) -> list[Path]:
    """Return the files among the sources, and those of weights in their folders."""
    found: list[Path] = []
    for source in sources:
        inner = sorted(source.rglob("*")) if source.is_dir() else [source]
        found += [f for f in inner if f == source or f.suffix in _WEIGHT_FILES]
    return found


def _check_options(
    options: Mapping[str, str], known: Mapping[str, str], family: str
) -> None:
    for key in options:
        if key not in known:
            choices = "; ".join(f"{k}: {text}" for k, text in known.items()) or "none"
            raise InputError(
                f"{key}: unknown to {family}; known: {choices}.", argument="settings"
            )


def _output(out: Path | None, name: str, overwrite: bool) -> Path:
    """Return the checkpoint to write, or refuse."""
    if not name or os.sep in name or name.endswith(".safetensors"):
        raise InputError(
            f"'{name}': give a plain name, without a path.", argument="name"
        )
    path = out or imports_folder() / f"{name}.safetensors"
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: must end in .safetensors.", argument="out")
    for taken in (path, path.with_suffix(".toml")):
        if taken.exists() and not overwrite:
            raise RunConflictError(
                f"{taken} exists; choose another name or file, or overwrite it.",
                remedies=("name", "out", "overwrite"),
            )
    return path
