"""`rsupres models`: the known checkpoints and their cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from rsupres.cli.console import Console
from rsupres.cli.options import common_options

if TYPE_CHECKING:
    from rsupres.checkpoints import Card


@click.group()
def models() -> None:
    """List, show and verify models."""


@models.command("list")
@common_options
def list_(console: Console) -> None:
    """List the models that this installation knows.

    \b
    Example:
      rsupres models list
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.checkpoints import list_cards

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
@common_options
def show(console: Console, model: str) -> None:
    """Show everything that is known about a model.

    \b
    Example:
      rsupres models show bicubic
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.checkpoints import read_card, spec_to_json

    card = read_card(model)
    record = {**_record(card), "spec": spec_to_json(card.spec), **card.text}
    console.emit(record, "\n".join(_lines(record)))


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME|PATH]...")
@common_options
def verify(console: Console, names: tuple[str, ...]) -> None:
    """Check the weights of models: hash, header, names and shapes of tensors.

    Without names, all models whose weights are there. Exits 4 at the first bad one.

    \b
    Example:
      rsupres models verify
    """  # noqa: D301  # Click wants the character, not the two letters
    import torch

    from rsupres.checkpoints import list_cards, load_model
    from rsupres.families.base import SamplerOptions

    wanted = names or tuple(card.name for card in list_cards() if card.is_present)
    for name in wanted:
        load_model(name, torch.device("cpu"), SamplerOptions())
        console.emit({"model": name, "verified": True}, f"{name}: good.")


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
