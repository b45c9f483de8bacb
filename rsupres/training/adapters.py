"""What the training loop asks of a family, and which families answer.

A family is trained by one class, a `FamilyTraining`, in a module of its own. It builds
the networks, says what its stages train and minimise, measures what a stage needs to
know of the one before, and exports what inference needs. The loop knows no family;
`TRAINABLE` names the classes, which are imported when a configuration asks for them.

To make a family trainable, write ``training/<family>.py`` with such a class
(`rsupres.training.families.e2diffsr` is the model) and add its row to `TRAINABLE`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from rsupres.datasets.packs import Pack
from rsupres.errors import InputError
from rsupres.families.base import ModelSpec
from rsupres.training.batches import Batch
from rsupres.training.config import StageConfig, TrainConfig, parse_config
from rsupres.training.objectives import Job, Outcome

# family: "module:class"
TRAINABLE: Mapping[str, str] = {
    "sgdm": "rsupres.training.families.sgdm:SgdmTraining",
    "e2diffsr": "rsupres.training.families.e2diffsr:E2DiffSRTraining",
    "refdiff": "rsupres.training.families.refdiff:RefDiffTraining",
    "slimdiffsr": "rsupres.training.families.slimdiffsr:SlimDiffSRTraining",
}
Draw = Callable[[int], Batch]
Architecture = TypeVar("Architecture")


@dataclass(frozen=True)
class NoOptions:
    """A family or stage without options of its own."""


@dataclass(frozen=True)
class Stage:
    """What the loop must know of a stage.

    Attributes:
        trains: names of networks or parameters that train, with all below them; "" is
            everything.
        last_layer: the parameter that ends the generator, for the adaptive weight of
            the adversarial loss; None = the stage has no adversarial loss.
        options: frozen dataclass of the options that the stage takes beyond
            `StageConfig`, as ``[stage.options]`` in TOML.
    """

    trains: tuple[str, ...]
    last_layer: str | None = None
    options: type[object] = NoOptions

    def covers(self, parameter: str) -> bool:
        """Return whether the named parameter trains."""
        return any(
            f"{parameter}.".startswith(f"{p}." if p else "") for p in self.trains
        )


@dataclass(frozen=True)
class Exported:
    """What inference needs of trained networks.

    Attributes:
        tensors: by name, as `from_checkpoint` of the family wants them.
        spec: what the model needs from a scene.
        architecture: plain values, as JSON can hold them.
    """

    tensors: Mapping[str, Tensor]
    spec: ModelSpec
    architecture: Mapping[str, object]


@dataclass(frozen=True)
class Watch:
    """What a validation looks at.

    Attributes:
        packs: held-out crops.
        stage: name of the stage being trained.
        picture: PNG to write, side by side: what is given, result, truth.
        device: where to compute.
    """

    packs: Sequence[Pack]
    stage: str
    picture: Path
    device: torch.device


class FamilyTraining(Protocol):
    """One family's side of a training run.

    Attributes:
        stages: the stages that a configuration may name.
        options: frozen dataclass of the options that the family takes beyond
            `TrainConfig`, as ``[options]`` in TOML.
    """

    stages: ClassVar[Mapping[str, Stage]]
    options: ClassVar[type[object]]

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        """Make fresh networks on the CPU; the global seed is set.

        Args:
            config: the run; architecture and overrides are the family's to check.
            options: ``[options]``, of the type `options`.
            root: directory to which paths in the options are relative.

        Raises:
            InputError: unknown architecture, override or option value.
        """
        ...

    @property
    def networks(self) -> nn.Module:
        """All that is trained and saved: the state holds its `state_dict`."""
        ...

    def adopt(self, names: Collection[str]) -> None:
        """Grow the parts that fresh networks lack, if weights of them are named.

        Called before weights of a state or a start file are loaded.
        """
        ...

    def move(self, device: torch.device) -> None:
        """Bring the networks, and what helps to train them, to a device."""
        ...

    def enter(self, stage: StageConfig, draw: Draw | None) -> None:
        """Get ready for a stage.

        Args:
            stage: the stage that begins or goes on.
            draw: at the beginning, batch k of a stream that training never sees, on
                the training device, to measure what the stage must know; None = the
                stage goes on and what was measured is in the networks already.
        """
        ...

    def loss(self, batch: Batch, generator: torch.Generator, job: Job) -> Outcome:
        """Return the loss terms of a batch; every draw comes from the generator."""
        ...

    def export(self) -> Exported:
        """Return what inference needs."""
        ...

    def validate(self, watch: Watch) -> Mapping[str, float]:
        """Return figures on held-out crops and write one comparison picture.

        Called without gradients, the networks in eval mode and averaged.
        """
        ...


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
    """Check stages and options of a configuration and build its networks.

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
