"""The families that can be trained, and the checks of a configuration against them.

To make a family trainable, write a `FamilyTraining` in
``training/families/<family>/training.py``, with that of E2DiffSR as the example, and
add its row to `TRAINABLE`. A class is imported when a configuration names its family.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from rsupres.errors import InputError
from rsupres.training.base import FamilyTraining
from rsupres.training.config import StageConfig, TrainConfig, parse_config

_FAMILIES = "rsupres.training.families"
# family: "module:class"
TRAINABLE: Mapping[str, str] = {
    "optical": f"{_FAMILIES}.optical.training:OpticalTraining",
    "sgdm": f"{_FAMILIES}.sgdm.training:SgdmTraining",
    "e2diffsr": f"{_FAMILIES}.e2diffsr.training:E2DiffSRTraining",
    "refdiff": f"{_FAMILIES}.refdiff.training:RefDiffTraining",
    "slimdiffsr": f"{_FAMILIES}.slimdiffsr.training:SlimDiffSRTraining",
}
Architecture = TypeVar("Architecture")


def training_of(family: str) -> type[FamilyTraining]:
    """Return the class that trains a family.

    Raises:
        InputError: no class trains it.
    """
    if family not in TRAINABLE:
        raise InputError(
            f"family = '{family}': no training for it; known: {', '.join(TRAINABLE)}."
        )
    module, _, name = TRAINABLE[family].partition(":")
    return cast("type[FamilyTraining]", getattr(importlib.import_module(module), name))


def build_training(config: TrainConfig, root: Path) -> FamilyTraining:
    """Check a configuration's stages and options; return its networks in training.

    Args:
        config: the run.
        root: directory to which the paths of `config` are relative.

    Raises:
        InputError: an unknown family, stage, option, architecture or override.
    """
    kind = training_of(config.family)
    for number, stage in enumerate(config.stage, start=1):
        if stage.name not in kind.stages:
            raise InputError(
                f"stage {number}: family '{config.family}' has no stage"
                f" '{stage.name}'; known: {', '.join(kind.stages)}."
            )
        stage_options(kind, stage)
        if stage.adversarial_weight and kind.stages[stage.name].last_layer is None:
            raise InputError(
                f"stage {number}: '{stage.name}' has no adversarial loss; remove"
                f" adversarial_weight = {stage.adversarial_weight:g}."
            )
    return kind.build(
        config, parse_config(kind.options, config.options, "options"), root
    )


def stage_options(
    kind: type[FamilyTraining] | FamilyTraining, stage: StageConfig
) -> object:
    """Return the options of a stage, of the type that the family declares.

    Args:
        kind: the family's training, class or instance.
        stage: its configuration.

    Raises:
        InputError: an unknown key or a value that does not fit.
    """
    where = f"options of stage '{stage.name}'"
    return parse_config(kind.stages[stage.name].options, stage.options, where)


def choose_architecture(
    config: TrainConfig, named: Mapping[str, Architecture]
) -> Architecture:
    """Return the architecture that a configuration names, with its overrides.

    Args:
        config: the run.
        named: the family's configurations, frozen dataclasses.

    Raises:
        InputError: no architecture of that name, or an override that does not exist.
    """
    if config.architecture not in named:
        raise InputError(
            f"architecture = '{config.architecture}': known: {', '.join(named)}."
        )
    overrides = {
        k: tuple(v) if isinstance(v, list) else v for k, v in config.overrides.items()
    }
    try:
        return replace(named[config.architecture], **overrides)  # type: ignore[type-var]  # names are checked here, values by the networks
    except TypeError as error:
        raise InputError(f"overrides: {error}.") from error
