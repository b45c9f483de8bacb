"""Self-describing weight files and the catalogue of cards that name them.

A checkpoint is one safetensors file whose header carries JSON: format number, family,
architecture, `ModelSpec`, origin. A card is a TOML file beside it: licence, data,
recipe, scores, sha256. No pickle is written or read here; foreign files come in through
`rsupres models import`. Loading is strict: a missing or surplus tensor is an error that
names it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from rsupres.checkpoints.int8 import unpack_weights
from rsupres.errors import CheckpointError
from rsupres.families import FAMILIES
from rsupres.families.base import (
    Checkpoint,
    FixedScales,
    ModelSpec,
    SamplerOptions,
    ScaleRange,
    SuperResolver,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHECKPOINT_FORMAT = 1
BICUBIC = "bicubic"
_HEADER = "rsupres"


@dataclass(frozen=True)
class Card:
    """What is known of a model without opening its weights.

    Attributes:
        name: what `--model` takes.
        spec: what the model needs from a scene.
        path: the card, None for models without one (bicubic).
        file: the weights, None for models without any.
        sha256: hash of the weights as the card states it.
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
    """What a family's module offers to `load_model`."""

    def from_checkpoint(
        self, checkpoint: Checkpoint, device: torch.device, options: SamplerOptions
    ) -> SuperResolver:
        """Build a resolver."""
        ...


def load_model(
    name_or_path: str, device: torch.device, options: SamplerOptions
) -> SuperResolver:
    """Load a model by its card's name or from a checkpoint file.

    Args:
        name_or_path: "bicubic", a card's name, or a path to a checkpoint.
        device: where its networks shall live.
        options: the user's choices.

    Raises:
        CheckpointError: unknown name (with the nearest ones), missing or damaged file,
            hash differs from the card's, a pickle, unknown family, or tensors that do
            not fit the architecture.
    """
    card = read_card(name_or_path)
    if card.file is None:
        from rsupres.families.bicubic import Bicubic

        return Bicubic()
    if card.sha256 is not None and file_sha256(card.file) != card.sha256:
        raise CheckpointError(
            f"{card.file}: its sha256 differs from that on the card; the file is"
            " damaged or was replaced. Restore it, or load it by path as it is."
        )
    checkpoint = read_checkpoint(card.file)
    family = cast(_FamilyModule, import_module(FAMILIES[checkpoint.spec.family]))
    return family.from_checkpoint(checkpoint, device, options)


def read_card(name_or_path: str) -> Card:
    """Return the card of a model; a bare checkpoint file makes one from its header.

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


def list_cards() -> list[Card]:
    """Return all known cards, bicubic first, then by name."""
    found: dict[str, Card] = {}
    for folder in catalogue_folders():
        for path in sorted(folder.glob("*.toml")):
            card = _card_from_toml(path)
            found.setdefault(card.name, card)
    return [read_card(BICUBIC), *(found[name] for name in sorted(found))]


def catalogue_folders() -> list[Path]:
    """Return the folders searched for cards, the first has precedence.

    ``$RSUPRES_MODELS`` (separated as PATH is), the checkout's ``models`` and
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
        user_models(),
    ]
    return [folder for folder in [*named, *standard] if folder.is_dir()]


def user_models() -> Path:
    """Return the user's own folder of models, which need not be there."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home / "rsupres" / "models"


def default_model(
    n_bands: int,
    scale: Fraction,
    gsd_m: float | None,
    given: Collection[str] = (),
) -> str:
    """Return the shipped model that fits bands, scale, conditions and pixel size best.

    Among the cards marked ``default = true`` whose bands and scale fit, that look at
    all conditions given and need no other: first one whose GSD range holds `gsd_m`,
    else the one whose range is nearest (in ratio); bicubic is never chosen silently.
    Where none looks at the conditions, the default without them.

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
        if given:  # whoever checks the conditions names the models that take them
            return default_model(n_bands, scale, gsd_m)
        raise CheckpointError(
            f"No default model fits {n_bands} band(s) at scale {scale}; choose one with"
            " --model ('rsupres models list' shows all; 'bicubic' fits anything)."
        )
    return min(fitting, key=lambda card: _gsd_distance(card.spec, gsd_m)).name


def write_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor],
    spec: ModelSpec,
    architecture: Mapping[str, object],
    origin: str,
) -> str:
    """Write a checkpoint under its name only when whole; return its sha256.

    Args:
        path: the file.
        tensors: weights by name, in the type to store.
        spec: what the model needs.
        architecture: the family's configuration, JSON-able.
        origin: who made the weights from what, one line.
    """
    from safetensors.torch import save_file

    header = {
        "format": CHECKPOINT_FORMAT,
        "architecture": architecture,
        "spec": spec_to_json(spec),
        "origin": origin,
    }
    partial = path.with_name(path.name + ".tmp")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, partial, {_HEADER: json.dumps(header, sort_keys=True)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return file_sha256(path)


def card_text(
    name: str,
    file: str,
    sha256: str,
    spec: ModelSpec,
    licence: str = "",
    text: Mapping[str, object] | None = None,
) -> str:
    """Return the TOML of a card that says what the checkpoint itself tells.

    Data, recipe and scores are for its maker to add.

    Args:
        name: of the model.
        file: of the weights, beside the card.
        sha256: of that file.
        spec: what the model needs.
        licence: of the weights, "" = not known.
        text: more strings, numbers and lists of them, by key.
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


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint whole.

    Raises:
        CheckpointError: missing, damaged, a pickle, or no checkpoint of ours.
    """
    from safetensors import SafetensorError, safe_open

    header = _read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            stored = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({error}).") from error
    architecture = header["architecture"]
    assert isinstance(architecture, dict)
    tensors = unpack_weights(stored)
    return Checkpoint(path, _spec_of(header, path), architecture, tensors)


def read_spec(path: Path) -> ModelSpec:
    """Return the `ModelSpec` of a checkpoint without reading its weights."""
    return _spec_of(_read_header(path), path)


def file_sha256(path: Path) -> str:
    """Return the hash of a file as hexadecimal text.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error


def spec_to_json(spec: ModelSpec) -> dict[str, object]:
    """Return a spec as plain JSON values."""
    scales: dict[str, object]
    if isinstance(spec.scales, FixedScales):
        scales = {"fixed": sorted(map(str, spec.scales.values))}
    else:
        limits = spec.scales
        scales = {k: str(getattr(limits, k)) for k in ("low", "high", "trained")}
    return {
        "family": spec.family,
        "scales": scales,
        "bands": list(spec.bands),
        "needs": sorted(spec.needs),
        "accepts": sorted(spec.accepts),
        "tile_size": spec.tile_size,
        "multiple": spec.multiple,
        "halo": spec.halo,
        "gsd": None if spec.gsd is None else list(spec.gsd),
        "detail": spec.detail,
        "stochastic": spec.stochastic,
        "steps": spec.steps,
        "legend": spec.legend,
        "classes": spec.classes,
        "sensor": spec.sensor,
    }


def spec_from_json(values: Mapping[str, object]) -> ModelSpec:
    """Return the spec that `spec_to_json` wrote; wrong values raise ValueError etc."""
    plain = dict(values)
    scales = cast(Mapping[str, object], plain.pop("scales"))
    limits: FixedScales | ScaleRange
    if "fixed" in scales:
        fixed = cast(Sequence[str], scales["fixed"])
        limits = FixedScales(frozenset(Fraction(text) for text in fixed))
    else:
        limits = ScaleRange(
            *(Fraction(str(scales[k])) for k in ("low", "high", "trained"))
        )
    gsd = cast("Sequence[float] | None", plain.pop("gsd", None))
    needs, accepts = (
        frozenset(cast(Sequence[str], plain.pop(key))) for key in ("needs", "accepts")
    )
    bands = tuple(cast(Sequence[str], plain.pop("bands")))
    return ModelSpec(
        scales=limits,
        bands=bands,
        gsd=None if gsd is None else (float(gsd[0]), float(gsd[1])),
        needs=needs,
        accepts=accepts,
        **plain,  # type: ignore[arg-type]  # the file's own header, checked by callers
    )


def _card_from_toml(path: Path) -> Card:
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
        name, file_name = str(values.pop("name")), str(values.pop("file"))
        spec = spec_from_json(values.pop("spec"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(f"{path}: not a readable card ({error}).") from error
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


def _read_header(path: Path) -> dict[str, object]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_HEADER)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint.") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {_damage(path)} ({error}).") from error
    if text is None:
        raise CheckpointError(
            f"{path}: a safetensors file, but no checkpoint of rsupres; convert it with"
            " 'rsupres models import'."
        )
    try:
        header = json.loads(text)
        if header["format"] != CHECKPOINT_FORMAT:
            raise CheckpointError(
                f"{path}: checkpoint format {header['format']}; this version reads"
                f" {CHECKPOINT_FORMAT}. Update rsupres."
            )
        return {key: header[key] for key in ("architecture", "spec", "origin")}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged header ({error}).") from error


def _spec_of(header: Mapping[str, object], path: Path) -> ModelSpec:
    try:
        spec = spec_from_json(cast(Mapping[str, object], header["spec"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged header ({error}).") from error
    if spec.family not in FAMILIES:
        raise CheckpointError(
            f"{path}: of family '{spec.family}', which this version does not know;"
            f" known: {', '.join(sorted(FAMILIES))}."
        )
    return spec


def _damage(path: Path) -> str:
    """Say what a file is that is no safetensors file."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80" or start == b"PK\x03\x04":
        return (
            "a pickle or PyTorch archive, which can run code when loaded and is not"
            " accepted here; convert it with 'rsupres models import'"
        )
    return "not a readable checkpoint, damaged or cut short"


def _gsd_distance(spec: ModelSpec, gsd_m: float | None) -> float:
    """Return by what ratio a pixel size lies outside a model's range, 0 inside."""
    if spec.gsd is None or gsd_m is None:
        return 0.0
    low, high = spec.gsd
    return max(low / gsd_m, gsd_m / high, 1.0) - 1.0
