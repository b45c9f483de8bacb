"""How SlimDiffSR's students are trained directly on pairs: stage `direct`.

The paper trains by distillation alone, and published no training; `direct` minimises
the distillation's losses on the truth instead: L1 and LPIPS of the picture. Gates,
norms and context see a batch as one picture, as they later see a scene. With a teacher,
see `rsupres.training.distill`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.errors import InputError
from rsupres.families.slimdiffsr import (
    Config,
    Network,
    config_to_json,
    make_network,
    make_spec,
)
from rsupres.families.slimdiffsr_blocks import Finding
from rsupres.families.slimdiffsr_mini import MINI, MiniConfig
from rsupres.families.slimdiffsr_network import (
    SlimDiffSRConfig,
    SlimDiffSRNetwork,
    TrunkConfig,
    match_colours,
)
from rsupres.training.adapters import (
    Draw,
    Exported,
    NoOptions,
    Stage,
    Watch,
    choose_architecture,
)
from rsupres.training.config import StageConfig, TrainConfig
from rsupres.training.data import Batch, PatchPlan, PatchSource
from rsupres.training.objectives import Job, Outcome, picture_terms
from rsupres.training.validation import mean_psnr, write_picture

# "tiny" is for tests: all modules of the released network at their smallest.
ARCHITECTURES: Mapping[str, Config] = {
    "mini": MINI,
    "paper": SlimDiffSRConfig(),
    "tiny": SlimDiffSRConfig(
        4, TrunkConfig((16, 32), 64, 1, 4, 8, "group", 4), 8, latent=4
    ),
    "tiny-mini": MiniConfig(4, TrunkConfig((16, 16), 32, 1, 4, 8, "pixel"), 8, 1, 1),
}
_WATCHED_CROPS = 12
_WATCHED_SIDE = 32
_LAST_LAYER = "head.weight"


@dataclass(frozen=True)
class SlimDiffSRTraining:
    """A student as the training loop sees it.

    Attributes:
        architecture: of the network.
        config: the run.
        network: the student.
    """

    architecture: Config
    config: TrainConfig
    network: Network

    options: ClassVar[type[object]] = NoOptions
    stages: ClassVar[Mapping[str, Stage]] = {"direct": Stage(("",), _LAST_LAYER)}

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        """Make a fresh network, channels last."""
        architecture = student_architecture(config)
        network = make_network(architecture)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
        return cls(architecture, config, network)

    @property
    def networks(self) -> nn.Module:
        """The student."""
        return self.network

    def adopt(self, names: Collection[str]) -> None:
        """Do nothing: the student is whole from the beginning."""

    def move(self, device: torch.device) -> None:
        """Bring the network to a device."""
        self.network.to(device)

    def enter(self, stage: StageConfig, draw: Draw | None) -> None:
        """Do nothing: there is nothing to measure."""

    def loss(self, batch: Batch, generator: torch.Generator, job: Job) -> Outcome:
        """Return L1 and LPIPS of the picture."""
        image = run_together(self.network, signed_lr(batch, self.architecture.scale))
        truth = 2.0 * batch.hr - 1.0
        return Outcome(picture_terms(image, truth, job), image, truth)

    def export(self) -> Exported:
        """Return all weights: the student is what inference needs."""
        return export_student(self.architecture, self.network, self.config)

    def validate(self, watch: Watch) -> Mapping[str, float]:
        """Return mean PSNR in dB of bicubic and of the student, and write both."""
        return watch_student(self.network, self.architecture.scale, watch)


def student_architecture(config: TrainConfig) -> Config:
    """Return the architecture that a configuration asks for.

    Raises:
        InputError: there is none such, scales beside its own are asked for, or a stage
            has an adversarial loss, which only the small student takes.
    """
    chosen = choose_architecture(config, ARCHITECTURES)
    data = config.data
    scales = set(data.fixed_scales) or set(data.scales)
    if scales != {float(chosen.scale)}:
        raise InputError(
            f"data: SlimDiffSR's student has one scale, {chosen.scale}; set"
            f" fixed_scales = [{float(chosen.scale)}]."
        )
    adversarial = any(stage.adversarial_weight for stage in config.stage)
    if adversarial and not isinstance(chosen, MiniConfig):
        raise InputError(
            "adversarial_weight: only the small student takes an adversarial loss."
        )
    return chosen


def run_together(network: Network, lr: Tensor) -> Tensor:
    """Return the pictures of a batch that is seen as one scene, in [-1, 1]."""
    z = network.transform(network.encode(lr), Finding())
    image = network.decode(z, lr)
    if isinstance(network, SlimDiffSRNetwork):
        bicubic = functional.interpolate(lr, image.shape[2:], mode="bicubic")
        image = match_colours(
            image.float().transpose(0, 1).flatten(1)[None, :, None],
            bicubic.transpose(0, 1).flatten(1)[None, :, None],
        )
        image = image.view(3, len(lr), *bicubic.shape[2:]).transpose(0, 1)
    return image


def signed_lr(batch: Batch, scale: int) -> Tensor:
    """Return LR in [-1, 1], channels last.

    Raises:
        InputError: the batch has another scale.
    """
    if batch.scale != scale:
        raise InputError(f"A batch of scale {batch.scale}; the student needs {scale}.")
    lr = 2.0 * batch.lr - 1.0
    return lr.contiguous(memory_format=torch.channels_last)


def export_student(
    architecture: Config, network: Network, config: TrainConfig
) -> Exported:
    """Return what inference needs of a student."""
    halo = config.halo if isinstance(architecture, MiniConfig) else None
    spec = make_spec(architecture, gsd=config.gsd, halo=halo)
    return Exported(dict(network.state_dict()), spec, config_to_json(architecture))


def watch_student(network: Network, scale: int, watch: Watch) -> Mapping[str, float]:
    """Return PSNR of bicubic and of the student on held-out crops, and draw both."""
    plan = PatchPlan(_WATCHED_SIDE, _WATCHED_CROPS, fixed_scales=(float(scale),))
    batch = PatchSource(watch.packs, plan, seed=1).batch(0).to(watch.device)
    assert batch.scale == Fraction(scale)
    lr, hr = signed_lr(batch, scale), 2.0 * batch.hr - 1.0
    bicubic = functional.interpolate(lr, hr.shape[2:], mode="bicubic")
    image = run_together(network, lr)
    write_picture(watch.picture, [bicubic, image, hr])
    return {
        f"psnr_bicubic_x{scale}": mean_psnr(bicubic, hr),
        f"psnr_student_x{scale}": mean_psnr(image, hr),
    }
