"""Find models by name: cards, the default model, and `load_model`.

A card is a TOML file beside a weight file: name, licence, sha256, data, recipe and
scores. The weight file itself is read by `rsupres.checkpoints.file`.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from rsupres.checkpoints.file import (
    read_checkpoint,
    read_spec,
    spec_from_json,
    spec_to_json,
)
from rsupres.errors import CheckpointError, InputError
from rsupres.families import FAMILIES
from rsupres.families.base import Checkpoint, ModelSpec, SamplerOptions, SuperResolver
from rsupres.legends.toml_table import parse_toml, read_content
from rsupres.raster.files import file_sha256

if TYPE_CHECKING:
    import torch

BICUBIC = "bicubic"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Card:
    """The content of a model's card; the weights need not be read for it.

    Attributes:
        name: by which the model is chosen.
        spec: what the model needs from a scene.
        path: the card, None for models without one (bicubic).
        file: the weights, None for models without any.
        sha256: hash of the weight file, None if the card states none.
        licence: licence of the weights.
        text: everything else on the card, by key.
    """

    name: str
    spec: ModelSpec
    path: Path | None = None
    file: Path | None = None
    sha256: str | None = None
    licence: str = ""
    text: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_present(self) -> bool:
        """Whether the model can be loaded from this machine's disk."""
        return self.file is None or self.file.is_file()


class _FamilyModule(Protocol):
    """The interface of a family's module for `load_model`."""

    def from_checkpoint(
        self, checkpoint: Checkpoint, device: torch.device, options: SamplerOptions
    ) -> SuperResolver:
        """Build a resolver."""
        ...


def load_model(
    name_or_path: str, device: torch.device, options: SamplerOptions
) -> SuperResolver:
    """Load a model by its name or from a checkpoint file.

    Args:
        name_or_path: "bicubic", a card's name, or a path to a checkpoint.
        device: where its networks are put.
        options: the user's choices.

    Returns:
        The model, ready to work.

    Raises:
        CheckpointError: unknown name (with the nearest ones), missing or damaged file,
            a hash that differs from the card's, a pickle, an unknown family, or
            tensors that do not fit the architecture.
        InputError: an option that the family does not offer.
    """
    card = read_card(name_or_path)
    if card.file is None:
        from rsupres.families.bicubic import Bicubic

        return Bicubic()
    if card.sha256 is not None and _hash_of(card.file) != card.sha256:
        raise CheckpointError(
            f"{card.file}: its sha256 differs from that on the card; the file is"
            " damaged or was replaced. Restore it, or load it by its path."
        )
    checkpoint = read_checkpoint(card.file)
    family = cast(_FamilyModule, import_module(FAMILIES[checkpoint.spec.family]))
    return family.from_checkpoint(checkpoint, device, options)


def read_card(name_or_path: str) -> Card:
    """Return the card of a model by its name, or one made from a checkpoint's header.

    Raises:
        CheckpointError: there is no such model, or its weights are missing.
    """
    if name_or_path == BICUBIC:
        from rsupres.families.bicubic import SPEC

        return Card(BICUBIC, SPEC, licence="Apache-2.0")
    if name_or_path.endswith(".safetensors") or os.sep in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such checkpoint.")
        return Card(path.stem, read_spec(path), file=path)
    cards = {card.name: card for card in list_cards()}
    name_or_path = _name_now(name_or_path, cards.values())
    if name_or_path not in cards:
        near = difflib.get_close_matches(name_or_path, cards, 3, 0.4) or sorted(cards)
        raise CheckpointError(
            f"Unknown model '{name_or_path}'; did you mean {' or '.join(near)}?"
            " 'rsupres models list' shows all."
        )
    card = cards[name_or_path]
    if not card.is_present:
        raise CheckpointError(
            f"Model '{card.name}' has a card ({card.path}) but its weights {card.file}"
            " are not there; see the card for how to get them."
        )
    return card


def _name_now(name: str, cards: Collection[Card]) -> str:
    """Return the name of the model that replaced one which no longer ships."""
    if any(card.name == name for card in cards):
        return name
    for card in cards:
        if name in cast(Sequence[str], card.text.get("replaces", ())):
            logger.warning("Model %s no longer ships; %s replaces it.", name, card.name)
            return card.name
    return name


def list_cards() -> list[Card]:
    """Return all known cards, bicubic first, then by name."""
    found: dict[str, Card] = {}
    for folder in catalogue_folders():
        for path in sorted(folder.glob("*.toml")):
            card = _card_from_toml(path)
            found.setdefault(card.name, card)
    return [read_card(BICUBIC), *(found[name] for name in sorted(found))]


def catalogue_folders() -> list[Path]:
    """Return the folders that are searched for cards; the first has precedence.

    ``$RSUPRES_MODELS`` (several separated as in PATH), the checkout's ``models`` and
    ``models/imported``, the installed ``share/rsupres/models``, and the user's own.
    """
    named = [
        Path(p) for p in os.environ.get("RSUPRES_MODELS", "").split(os.pathsep) if p
    ]
    checkout = Path(__file__).resolve().parents[2] / "models"
    standard = [
        checkout,
        checkout / "imported",
        Path(sys.prefix) / "share" / "rsupres" / "models",
    ]
    own = user_models()
    found = [*named, *standard, *([own] if own else [])]
    return [folder for folder in found if folder.is_dir()]


def user_models() -> Path | None:
    """Return the user's own folder of models, which may not exist.

    None where the system knows no home folder, as for a user of a container without an
    entry in the password file.
    """
    share = os.environ.get("XDG_DATA_HOME")
    if not share:
        home = os.path.expanduser("~")
        if home == "~":
            return None
        share = os.path.join(home, ".local", "share")
    return Path(share) / "rsupres" / "models"


def default_model(
    n_bands: int,
    scale: Fraction,
    gsd_m: float | None,
    given: Collection[str] = (),
) -> str:
    """Return the name of the shipped model that fits a scene best.

    Candidates are the cards marked ``default = true`` whose bands and scale fit, that
    take all conditions given and need no other. Of these, the one whose GSD range
    contains `gsd_m` or is nearest to it, as a ratio. If none takes the conditions, the
    default without them. Bicubic is never chosen.

    Args:
        n_bands: bands of the scene.
        scale: SR pixels along an LR pixel.
        gsd_m: metres per LR pixel; None = not known.
        given: names of the `Conditions` fields that are given.

    Raises:
        CheckpointError: no shipped model fits.
    """
    fitting = [
        card
        for card in list_cards()
        if card.text.get("default") is True
        and card.is_present
        and len(card.spec.bands) <= n_bands
        and card.spec.scales.offers(scale)
        and card.spec.needs <= set(given) <= card.spec.accepts | card.spec.needs
    ]
    if not fitting:
        if given:  # the check of the conditions names the models that take them
            return default_model(n_bands, scale, gsd_m)
        raise CheckpointError(
            f"No default model fits {n_bands} band(s) at scale {scale}; choose one"
            " ('rsupres models list' shows all; 'bicubic' fits anything).",
            remedies=("model",),
        )
    return min(fitting, key=lambda card: _gsd_distance(card.spec, gsd_m)).name


def card_text(
    name: str,
    file: str,
    sha256: str,
    spec: ModelSpec,
    licence: str = "",
    text: Mapping[str, object] | None = None,
) -> str:
    """Return the TOML text of a card, from the checkpoint's header.

    The maker of the model adds data, recipe and scores.

    Args:
        name: of the model.
        file: of the weights, beside the card.
        sha256: of that file.
        spec: what the model needs.
        licence: of the weights; "" = not known.
        text: further strings, numbers and lists of them, by key.
    """
    values = spec_to_json(spec)
    scales = cast(Mapping[str, object], values.pop("scales"))
    head = {"name": name, "file": file, "sha256": sha256, "licence": licence}

    def table(items: Mapping[str, object]) -> list[str]:
        # JSON's strings, numbers, booleans and lists are TOML's as well.
        return [f"{k} = {json.dumps(v)}" for k, v in items.items() if v is not None]

    lines = [
        *table(head),
        *table(text or {}),
        "",
        "[spec]",
        *table(values),
        "",
        "[spec.scales]",
    ]
    return "\n".join([*lines, *table(scales)]) + "\n"


def _card_from_toml(path: Path) -> Card:
    try:
        return _parsed_card(path, read_content(path))
    except InputError as error:
        raise CheckpointError(f"not a readable card: {error.problem}") from error


@lru_cache(maxsize=256)
def _parsed_card(path: Path, content: bytes) -> Card:
    """Return a card; every run looks through all of them, so each is parsed once."""
    values = parse_toml(path, content)
    try:
        name, file_name = str(values.pop("name")), str(values.pop("file"))
        spec = spec_from_json(values.pop("spec"))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: the card lacks or misspells a value ({error})."
        ) from error
    sha256 = values.pop("sha256", None)
    return Card(
        name,
        spec,
        path,
        path.parent / file_name,
        None if sha256 is None else str(sha256),
        str(values.pop("licence", "")),
        values,
    )


def _hash_of(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error


def _gsd_distance(spec: ModelSpec, gsd_m: float | None) -> float:
    """Return how far a pixel size lies outside a model's range: ratio - 1, 0 inside."""
    if spec.gsd is None or gsd_m is None:
        return 0.0
    low, high = spec.gsd
    return max(low / gsd_m, gsd_m / high, 1.0) - 1.0
