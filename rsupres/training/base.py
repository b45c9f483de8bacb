"""The interface of a family for training: stages, losses, export, validation.

A family is trained by one class, a `FamilyTraining`, in
``training/families/<family>/training.py``. It builds the networks, names the parameters
that each stage trains, computes the losses, measures values that a stage needs from the
one before, and exports the tensors that inference needs. `rsupres.training.registry`
lists these classes. No family is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from rsupres.datasets.packs import Pack
from rsupres.families.base import ModelSpec
from rsupres.training.batches import Batch, PatchSource
from rsupres.training.config import PatchOptions, StageConfig, TrainConfig
from rsupres.training.losses import Outcome, StageSetup

# Returns batch k of a stream that training never sees.
DrawBatch = Callable[[int], Batch]


@dataclass(frozen=True)
class NoOptions:
    """A family or stage without options of its own."""


@dataclass(frozen=True)
class Stage:
    """One stage that a family offers.

    Attributes:
        trains: names of networks or parameters that train, with all below them; "" is
            everything.
        last_layer: the parameter that ends the generator, for the adaptive weight of
            the adversarial loss; None = the stage has no adversarial loss.
        options: frozen dataclass of the options that the stage takes beyond
            `StageConfig`, written as ``[stage.options]`` in TOML.
        judged: channels that a discriminator sees, the picture's and those of its
            conditions.
    """

    trains: tuple[str, ...]
    last_layer: str | None = None
    options: type[object] = NoOptions
    judged: int = 3

    def covers(self, parameter: str) -> bool:
        """Return whether the named parameter trains."""
        return any(
            f"{parameter}.".startswith(f"{p}." if p else "") for p in self.trains
        )


@dataclass(frozen=True)
class Exported:
    """The trained networks as inference needs them.

    Attributes:
        tensors: by name, as `from_checkpoint` of the family reads them.
        spec: the requirements of the model on a scene.
        architecture: plain values that JSON can hold.
    """

    tensors: Mapping[str, Tensor]
    spec: ModelSpec
    architecture: Mapping[str, object]


@dataclass(frozen=True)
class Validation:
    """One validation: held-out crops, and where its picture goes.

    Attributes:
        packs: held-out crops.
        stage: name of the stage being trained.
        picture: PNG to write; columns are input, result and truth.
        device: where to compute.
    """

    packs: Sequence[Pack]
    stage: str
    picture: Path
    device: torch.device

    def batch(self, plan: PatchOptions) -> Batch:
        """Return patches of the held-out crops, the same ones at each validation."""
        return PatchSource(self.packs, plan, seed=1).batch(0).to(self.device)


class FamilyTraining(Protocol):
    """The training of one family.

    Attributes:
        stages: the stages that a configuration may name.
        options: frozen dataclass of the options that the family takes beyond
            `TrainConfig`, written as ``[options]`` in TOML.
        may_begin_fresh: prefixes of the names of tensors that a start may lack.
        networks: all that are trained and saved, as one module.
    """

    stages: ClassVar[Mapping[str, Stage]]
    options: ClassVar[type[object]]
    may_begin_fresh: ClassVar[tuple[str, ...]]
    networks: nn.Module

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        """Make fresh networks on the CPU; the global seed is set.

        Args:
            config: the run; the family checks architecture and overrides.
            options: ``[options]``, of the type `options`.
            root: directory to which paths in the options are relative.

        Raises:
            InputError: unknown architecture, override or option value.
        """
        ...

    def add_parts(self, names: Collection[str]) -> None:
        """Add the optional parts of the networks that the named tensors belong to.

        The loop calls it before it loads tensors of these names. Networks without
        optional parts add nothing.
        """

    def move(self, device: torch.device) -> None:
        """Move the networks, and helpers such as a teacher, to a device."""
        self.networks.to(device)

    def prepare_stage(self, stage: StageConfig, draw: DrawBatch | None) -> None:
        """Prepare the networks for a stage; by default there is nothing to prepare.

        Args:
            stage: the stage that begins or continues.
            draw: batches on the training device to measure statistics with, when the
                stage begins; None when it continues, because the networks hold the
                measured values already.
        """

    def loss(
        self, batch: Batch, generator: torch.Generator, setup: StageSetup
    ) -> Outcome:
        """Return the loss terms of a batch; every draw comes from the generator."""
        ...

    def export(self) -> Exported:
        """Return the tensors and the description that inference needs."""
        ...

    def validate(self, validation: Validation) -> Mapping[str, float]:
        """Return figures on held-out crops and write one comparison picture.

        The loop calls it without gradients, the networks in eval mode and holding the
        moving average.
        """
        ...
