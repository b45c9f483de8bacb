"""Training configurations: TOML read into frozen dataclasses, unknown keys rejected.

Options that only one family reads are in the ``options`` tables of run and stage; their
dataclasses are in ``training/families``. Paths may hold ``${NAME}``, the value of an
environment variable; the recipes of the shipped models name their data by
``${RSUPRES_DATA}``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rsupres.errors import InputError
from rsupres.legends.toml_table import read_toml

Config = TypeVar("Config")
# Up to version 0.1 a stage held these beside the common keys; now they are options.
_NOW_OPTIONS = ("kl_weight", "drop_prior", "noise_prior", "prior_weight", "pure_noise")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        name: one of the family's stages, see `rsupres.training.registry`.
        iterations: optimiser steps.
        lr: learning rate at the start.
        lr_end: learning rate at the end of the cosine.
        warmup: iterations of linear warm-up.
        betas: of Adam.
        weight_decay: decoupled weight decay (AdamW); 0 = Adam.
        ema: decay of the exponential moving average; the stage ends with the average.
        clip: largest gradient norm.
        perceptual_weight: weight of LPIPS (squeeze).
        pixel_weight: weight of L1.
        adversarial_weight: weight of the hinge loss, times the adaptive weight of
            Rombach et al. 2022.
        adversarial_start: iteration at which discriminator and hinge loss begin.
        options: other options of the stage; the family declares and checks them.
    """

    name: str
    iterations: int
    lr: float = 4e-4
    lr_end: float = 1e-5
    warmup: int = 50
    betas: tuple[float, float] = (0.9, 0.99)
    ema: float = 0.999
    clip: float = 1.0
    perceptual_weight: float = 0.0
    pixel_weight: float = 1.0
    adversarial_weight: float = 0.0
    adversarial_start: int = 0
    weight_decay: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PatchOptions:
    """Sizes and scales of the patches that are drawn from packs.

    Attributes:
        lr_side: LR pixels of a patch side; fewer where a crop is too small.
        batch: patches per batch.
        scales: smallest and largest scale.
        fixed_scales: the only scales, equally likely; `scales` is not used then.
        scale_power: the density of the scale is proportional to scale ** power; with 1
            large scales, which are harder, get more samples.
        tone: draw random tone and contrast changes of the HR patch.
        hr_side: largest patch side in HR pixels, so that large scales do not cost more;
            0 = no limit.
    """

    lr_side: int = 32
    batch: int = 6
    scales: tuple[float, float] = (1.0, 4.0)
    fixed_scales: tuple[float, ...] = ()
    scale_power: float = 1.0
    tone: bool = False
    hr_side: int = 0

    def offers(self, scale: Fraction) -> bool:
        """Return whether patches of a scale may be drawn."""
        if self.fixed_scales:
            return float(scale) in self.fixed_scales
        return self.scales[0] <= scale <= self.scales[1]


@dataclass(frozen=True, kw_only=True)
class DataConfig(PatchOptions):
    """The packs, and how patches are drawn from them.

    Attributes:
        train: packs to train on; paths relative to the configuration file.
        validation: packs of held-out crops for validation.
        gsd_weights: weight of the crops of a GSD, as {"0.6" = 1.0}.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    gsd_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run.

    Attributes:
        name: name of the model; its checkpoint is ``<name>.safetensors``.
        family: the family to train.
        architecture: a named configuration of the family ("small", "paper").
        overrides: fields of the architecture that differ.
        out: directory of checkpoint, state, log and validation images; relative to the
            configuration file.
        data: the packs and patches.
        stage: the stages in order.
        seed: of initialisation and batches.
        start_from: checkpoint whose weights are the start; None = fresh weights.
        precision: "bf16" or "fp32" arithmetic of the networks.
        threads: CPU threads of torch; 0 = the default of torch.
        save_every_s: seconds between resumable states.
        validate_every: iterations between validations.
        lpips_weights: folder of the LPIPS (squeeze) weights, if a stage needs them.
        gsd: smallest and largest metres per LR pixel of the data.
        halo: LR pixels along a tile edge that the finished model discards.
        eight_bits: store the weights of the checkpoint in 8 bits instead of float16.
        options: other options of the family, which declares and checks them.
    """

    name: str
    family: str
    out: str
    data: DataConfig
    stage: tuple[StageConfig, ...]
    architecture: str = "small"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    start_from: str | None = None
    precision: Literal["bf16", "fp32"] = "bf16"
    threads: int = 0
    save_every_s: float = 120.0
    validate_every: int = 500
    lpips_weights: str | None = None
    gsd: tuple[float, float] | None = None
    halo: int = 16
    eight_bits: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def read_config(path: Path) -> TrainConfig:
    """Read a TOML file.

    Raises:
        InputError: the file is missing or no TOML, or a key or value does not fit.
    """
    values = read_toml(path)
    if isinstance(stages := values.get("stage"), list):
        values["stage"] = [_move_to_options(stage) for stage in stages]
    return parse_config(TrainConfig, values, str(path))


def resolve_path(path: str, root: Path) -> Path:
    """Return the file that a path of a configuration means.

    Args:
        path: absolute or relative to `root`; ``${NAME}`` stands for the environment
            variable NAME.
        root: directory of the configuration file.

    Raises:
        InputError: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        if (found := os.environ.get(match[1])) is None:
            raise InputError(f"{path}: the environment variable {match[1]} is not set.")
        return found

    return root / re.sub(r"\$\{(\w+)\}", value, path)


def parse_config(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Return the dataclass `kind` of plain values, nested dataclasses included.

    Args:
        kind: frozen dataclass.
        values: by field name, as TOML holds them.
        where: start of error messages, such as the file.

    Raises:
        InputError: an unknown or missing key, or a value of the wrong type.
    """
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            f"{where}: unknown key '{unknown[0]}'; known: {', '.join(sorted(known))}."
        )
    built = {
        name: _convert(hints[name], value, f"{where}: {name}")
        for name, value in values.items()
    }
    try:
        return kind(**built)
    except TypeError as error:
        raise InputError(f"{where}: {error}.") from error


def _move_to_options(stage: Any) -> Any:
    """Move keys that became options of a family's stage into its table of options."""
    if not isinstance(stage, Mapping) or not set(_NOW_OPTIONS) & set(stage):
        return stage
    moved = {key: value for key, value in stage.items() if key in _NOW_OPTIONS}
    kept = {key: value for key, value in stage.items() if key not in _NOW_OPTIONS}
    return {**kept, "options": {**moved, **kept.get("options", {})}}


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Turn TOML's lists and tables into tuples and dataclasses, and check scalars."""
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: expected a table, got {value!r}.")
        return parse_config(hint, value, where)  # type: ignore[arg-type]  # a class
    arguments: tuple[Any, ...] = get_args(hint)
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where}: expected a list, got {value!r}.")
        if len(arguments) == 2 and arguments[1] is ...:
            return tuple(_convert(arguments[0], v, where) for v in value)
        if len(value) != len(arguments):
            raise InputError(
                f"{where}: expected {len(arguments)} values, got {value!r}."
            )
        return tuple(
            _convert(a, v, where) for a, v in zip(arguments, value, strict=True)
        )
    if origin is Literal and value not in arguments:
        choices = ", ".join(map(str, arguments))
        raise InputError(f"{where}: '{value}' is not one of {choices}.")
    if hint in (int, float, bool, str):
        fits = isinstance(value, (int, float) if hint is float else hint)
        if not fits or (isinstance(value, bool) and hint is not bool):
            raise InputError(f"{where}: expected {hint.__name__}, got {value!r}.")
        return hint(value)
    return value
