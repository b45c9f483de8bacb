"""`rsupres models`: list, show, verify and import models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.terminal.console import Console

if TYPE_CHECKING:
    from rsupres.checkpoints.catalogue import Card

# As `rsupres.checkpoints.convert` has them; here, so that help needs no numpy.
FAMILIES = ("refdiff", "sgdm", "slimdiffsr")


@click.group()
def models() -> None:
    """List, show, verify and import models."""


@models.command("list")
@console_options
def list_(console: Console) -> None:
    """List the models that this installation knows.

    \b
    Example:
      rsupres models list
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.checkpoints.catalogue import list_cards

    for card in list_cards():
        record = _record(card)
        there = "" if card.is_present else "  (weights missing)"
        console.emit(
            record,
            f"{card.name:<28} x{record['scales']:<10} "
            f"{','.join(card.spec.bands) or 'any bands':<20} "
            f"{_gsd(card):<14} {card.licence}{there}",
        )


@models.command()
@click.argument("model", metavar="NAME|PATH")
@console_options
def show(console: Console, model: str) -> None:
    """Show everything that is known about a model.

    \b
    Example:
      rsupres models show bicubic
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.checkpoints.catalogue import read_card
    from rsupres.checkpoints.file import spec_to_json

    card = read_card(model)
    record = {**_record(card), "spec": spec_to_json(card.spec), **card.text}
    console.emit(record, "\n".join(_lines(record)))


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME|PATH]...")
@console_options
def verify(console: Console, names: tuple[str, ...]) -> None:
    """Check the weights of models: hash, header, names and shapes of tensors.

    Without names, all models whose weights are there. Exits 4 at the first bad one.

    \b
    Example:
      rsupres models verify
    """  # noqa: D301  # Click wants the character, not the two letters
    import torch

    from rsupres.checkpoints.catalogue import list_cards, load_model
    from rsupres.families.base import SamplerOptions

    wanted = names or tuple(card.name for card in list_cards() if card.is_present)
    for name in wanted:
        load_model(name, torch.device("cpu"), SamplerOptions())
        console.emit({"model": name, "verified": True}, f"{name}: good.")


@models.command("import")
@click.argument(
    "checkpoints",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT...",
)
@click.option(
    "--family",
    required=True,
    type=click.Choice(FAMILIES),
    help="The model family that the files belong to.",
)
@click.option(
    "--name",
    help="Name of the model for --model. Default: family and name of the first file.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Checkpoint to write, FILE.safetensors; its card goes beside it. Default: a "
    "folder that 'rsupres models list' searches.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A fact that the files do not hold, such as scale=8; may be repeated, and an "
    "unknown key lists all. Default: none.",
)
@click.option("--overwrite", is_flag=True, help="Replace a model that exists.")
@console_options
def import_(
    console: Console,
    checkpoints: tuple[Path, ...],
    family: str,
    name: str | None,
    out: Path | None,
    settings: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Convert the released files of a model, CHECKPOINT..., into one of ours.

    No code in the files is run: safetensors and weights-only pickles are read, others
    are refused. Writes a checkpoint, and a card with the hashes of all files.

    \b
    Example:
      rsupres models import net_params_4x.pkl --family slimdiffsr
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.checkpoints.convert import import_checkpoint
    from rsupres.output.protect import check_apart

    if out is not None:
        read = {"checkpoints": list(map(str, checkpoints))}
        check_apart({"out": out}, read)
        check_apart({"out": out.with_suffix(".toml")}, read)
    options = dict(_key_value(text) for text in settings)
    card = import_checkpoint(
        family, checkpoints, out, name, options, overwrite=overwrite
    )
    console.emit(_record(card), f"Wrote {card.file}; --model {card.name}")


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"'{text}' is not KEY=VALUE.", param_hint="--set")
    return key, value


def _record(card: Card) -> dict[str, object]:
    return {
        "name": card.name,
        "family": card.spec.family,
        "scales": str(card.spec.scales),
        "bands": list(card.spec.bands),
        "gsd_m": card.spec.gsd,
        "file": None if card.file is None else str(card.file),
        "present": card.is_present,
        "sha256": card.sha256,
        "licence": card.licence,
        "default": card.text.get("default") is True,
    }


def _gsd(card: Card) -> str:
    if card.spec.gsd is None:
        return "any GSD"
    return "{:g}-{:g} m".format(*card.spec.gsd)


def _lines(record: Mapping[str, object], indent: str = "") -> list[str]:
    lines = []
    for key, value in record.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
            for item in value:
                lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {_text(value)}")
    return lines


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "any"
    return "none" if value is None else str(value).strip()
