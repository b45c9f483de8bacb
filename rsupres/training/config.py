"""Training configurations: TOML read into frozen dataclasses, unknown keys rejected."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rsupres.errors import InputError

Config = TypeVar("Config")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        name: one of the family's stages, see `rsupres.training.adapters`.
        iterations: optimiser steps.
        lr: learning rate at the start.
        lr_end: learning rate at the end of the cosine.
        warmup: iterations of linear warm-up.
        betas: of Adam.
        weight_decay: decoupled, as AdamW has it; 0 = plain Adam.
        ema: decay of the exponential moving average; the stage ends with it.
        clip: largest gradient norm.
        perceptual_weight: weight of LPIPS (squeeze).
        pixel_weight: weight of L1.
        adversarial_weight: weight of the hinge loss, times LDM's adaptive weight.
        adversarial_start: iteration at which discriminator and hinge loss begin.
        kl_weight: of KL_sum / (3 H W) against the mean L1: LDM's ratio is 1e-6.
        drop_prior: probability that the latent of a batch is set to zero.
        noise_prior: probability that noise of half its deviation joins the latent.
        prior_weight: weight of the latent's distance to the encoded one while all train
            together.
        pure_noise: share of patches whose reverse chain starts from pure noise.
        options: what else the family's stage takes; checked by the family.
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
    kl_weight: float = 1e-6
    drop_prior: float = 0.0
    noise_prior: float = 0.0
    prior_weight: float = 0.05
    pure_noise: float = 0.5
    weight_decay: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """Which packs, and how patches are drawn from them.

    Attributes:
        train: packs to train on; paths relative to the configuration file.
        validation: packs to watch; never trained on.
        lr_side: LR pixels of a patch side.
        batch: patches per batch.
        scales: smallest and largest scale.
        scale_power: density of the scale is proportional to scale ** power.
        tone: draw tone and contrast changes.
        gsd_weights: weight of the crops of a GSD, as {"0.6" = 1.0}.
        fixed_scales: the only scales, each as likely; `scales` does not count then.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    lr_side: int = 32
    batch: int = 6
    scales: tuple[float, float] = (1.0, 4.0)
    scale_power: float = 1.0
    tone: bool = False
    gsd_weights: Mapping[str, float] = field(default_factory=dict)
    fixed_scales: tuple[float, ...] = ()


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
        threads: of torch on a CPU; 0 = as torch likes.
        save_every_s: seconds between resumable states.
        validate_every: iterations between validations.
        lpips_weights: folder of the LPIPS (squeeze) weights, if a stage needs them.
        gsd: smallest and largest metres per LR pixel of the data.
        halo: LR pixels at a tile edge that the finished model shall not trust.
        eight_bits: store the weights of the checkpoint in 8 bits instead of float16.
        options: what else the family takes; checked by the family.
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
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}.") from error
    return parse_config(TrainConfig, values, str(path))


def parse_config(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Build the dataclass `kind` from plain values, nested ones too.

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
