"""How SlimDiffSR's students and teachers are trained.

====================  ===============================================================
Stage                 Trains
====================  ===============================================================
``direct``            a student on pairs: L1 and LPIPS of the picture
``distill``           a student on a teacher, see `rsupres.training.distill`
``teacher``           a teacher: L2, LPIPS, and the likelihood of the latent
``teacher_lora``      the same, the U-Net through low-rank adapters alone
====================  ===============================================================

The paper distils and published no training; `direct` is not in it. Gates, norms and
context see a batch as one picture, as they later see a scene.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.errors import InputError
from rsupres.families.slimdiffsr.mini import MINI, MiniConfig
from rsupres.families.slimdiffsr.network import (
    SlimDiffSRConfig,
    SlimDiffSRNetwork,
    TrunkConfig,
    match_colours,
)
from rsupres.families.slimdiffsr.resolver import (
    AnyConfig,
    AnyNetwork,
    config_to_json,
    make_network,
    make_spec,
)
from rsupres.families.slimdiffsr.teacher import (
    TeacherConfig,
    TeacherNetwork,
    uncertainty_loss,
)
from rsupres.training.adapters import (
    Draw,
    Exported,
    Stage,
    Watch,
    choose_architecture,
)
from rsupres.training.batches import Batch, PatchOptions, PatchSource
from rsupres.training.config import StageConfig, TrainConfig
from rsupres.training.distill import (
    DistillOptions,
    Teacher,
    draw_positions,
    feature_loss,
    load_teacher,
    make_adapters,
    mmd_squared,
    run_with_maps,
    transfer_weights,
)
from rsupres.training.objectives import Job, Outcome, picture_terms
from rsupres.training.validation import mean_psnr, write_picture

# The tiny ones are for tests: all modules at their smallest.
ARCHITECTURES: Mapping[str, AnyConfig] = {
    "mini": MINI,
    "paper": SlimDiffSRConfig(),
    "teacher": TeacherConfig(),
    "tiny": SlimDiffSRConfig(
        4, TrunkConfig((16, 32), 64, 1, 4, 8, "group", 4), 8, latent=4
    ),
    "tiny-mini": MiniConfig(4, TrunkConfig((16, 16), 32, 1, 4, 8, "pixel"), 8, 1, 1),
    "tiny-teacher": TeacherConfig(
        4, (16, 32, 64), 1, (2, 2, 2), 4, 8, 3, "tiny", (8,), 8
    ),
}
_WATCHED_CROPS = 12
_WATCHED_SIDE = 32
_LAST_LAYER = "head.weight"


_ADAPTERS = "adapters"


@dataclass(frozen=True)
class SlimDiffSROptions:
    """What a run takes beyond `TrainConfig`.

    Attributes:
        teacher: checkpoint or name of the model to imitate in stages `distill`.
        transfer: copy the teacher's weights where shapes meet, at the beginning.
    """

    teacher: str | None = None
    transfer: bool = True


@dataclass(frozen=True)
class NoStageOptions:
    """A stage without options."""


@dataclass(frozen=True)
class TeacherOptions:
    """How a stage `teacher` weighs its losses.

    Attributes:
        uncertainty_weight: of the likelihood of the HR latent.
        rank: of the low-rank adapters, in stage `teacher_lora`.
    """

    uncertainty_weight: float = 0.1
    rank: int = 4


@dataclass(frozen=True)
class LoraStage(Stage):
    """Trains what lies in adapters, and the estimator."""

    def covers(self, parameter: str) -> bool:
        """Return whether the named parameter trains."""
        return ".lora_" in parameter or super().covers(parameter)


@dataclass(frozen=True)
class SlimDiffSRTraining:
    """A student or a teacher as the training loop sees it.

    Attributes:
        architecture: of the network.
        config: the run.
        network: what is trained; a student that imitates maps carries `adapters`.
        teacher: who is imitated, if anybody.
    """

    architecture: AnyConfig
    config: TrainConfig
    network: AnyNetwork
    teacher: Teacher | None = None

    options: ClassVar[type[object]] = SlimDiffSROptions
    stages: ClassVar[Mapping[str, Stage]] = {
        "direct": Stage(("",), _LAST_LAYER),
        "distill": Stage(("",), _LAST_LAYER, DistillOptions),
        "teacher": Stage(("",), options=TeacherOptions),
        "teacher_lora": LoraStage(("estimator",), options=TeacherOptions),
    }

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        """Make a fresh network, channels last, and load its teacher if there is one."""
        assert isinstance(options, SlimDiffSROptions)
        architecture = choose_architecture(config, ARCHITECTURES)
        _check(config, architecture, options)
        network = make_network(architecture)
        teacher = None
        if options.teacher is not None:
            teacher = load_teacher(options.teacher, architecture.scale, root)
            inside = getattr(teacher, "network", None)
            if options.transfer and inside is not None:
                transfer_weights(network, inside)
            network.add_module(_ADAPTERS, make_adapters(network, teacher))
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
        return cls(architecture, config, network, teacher)

    @property
    def networks(self) -> nn.Module:
        """The network, with adapters if any."""
        return self.network

    def adopt(self, names: Collection[str]) -> None:
        """Add the low-rank adapters if any are named."""
        if any(".lora_" in name for name in names):
            self._add_lora(_rank(self.config))

    def move(self, device: torch.device) -> None:
        """Bring network and teacher to a device."""
        self.network.to(device)
        if self.teacher is not None:
            self.teacher.move(device)

    def enter(self, stage: StageConfig, draw: Draw | None) -> None:
        """Add the low-rank adapters for the stage that trains them."""
        if stage.name == "teacher_lora":
            self._add_lora(_rank(self.config))

    def loss(self, batch: Batch, generator: torch.Generator, job: Job) -> Outcome:
        """Return the loss terms of the stage."""
        lr = signed_lr(batch, self.architecture.scale)
        truth = 2.0 * batch.hr - 1.0
        if job.stage.name == "distill":
            return self._distill(lr, truth, generator, job)
        if isinstance(self.network, TeacherNetwork):
            return _teach(self.network, lr, truth, job)
        image = run_together(self.network, lr)
        return Outcome(picture_terms(image, truth, job), image, truth)

    def export(self) -> Exported:
        """Return what inference needs: no adapters, low-rank ones merged."""
        network = self.network
        if isinstance(network, TeacherNetwork) and _has_lora(network):
            network = copy.deepcopy(network)
            network.merge_lora()
        tensors = {
            name: tensor
            for name, tensor in network.state_dict().items()
            if not name.startswith(f"{_ADAPTERS}.")
        }
        mini = isinstance(self.architecture, MiniConfig)
        halo = self.config.halo if mini else None
        spec = make_spec(self.architecture, gsd=self.config.gsd, halo=halo)
        return Exported(tensors, spec, config_to_json(self.architecture))

    def validate(self, watch: Watch) -> Mapping[str, float]:
        """Return PSNR of bicubic and of the network on held-out crops, and draw both.

        In dB, after rounding to 8 bits.
        """
        scale = self.architecture.scale
        plan = PatchOptions(_WATCHED_SIDE, _WATCHED_CROPS, fixed_scales=(float(scale),))
        batch = PatchSource(watch.packs, plan, seed=1).batch(0).to(watch.device)
        lr, hr = signed_lr(batch, scale), 2.0 * batch.hr - 1.0
        bicubic = functional.interpolate(lr, hr.shape[2:], mode="bicubic")
        image = run_together(self.network, lr)
        write_picture(watch.picture, [bicubic, image, hr])
        return {
            f"psnr_bicubic_x{scale}": mean_psnr(bicubic, hr),
            f"psnr_student_x{scale}": mean_psnr(image, hr),
        }

    def _distill(
        self, lr: Tensor, truth: Tensor, generator: torch.Generator, job: Job
    ) -> Outcome:
        """Return the losses of a student beside its teacher."""
        assert self.teacher is not None
        options = cast(DistillOptions, job.options)
        seen = self.teacher.look(lr)
        made = run_with_maps(self.network, lr)
        image = matched(self.network, made.image, lr)
        terms = {
            f"{name}_{who}": weight * term
            for who, weight, picture in (
                ("truth", options.truth_weight, truth),
                ("output", options.output_weight, seen.image.float()),
            )
            if weight
            for name, term in picture_terms(image, picture, job).items()
        }
        adapters = cast(nn.ModuleList, getattr(self.network, _ADAPTERS))
        for k, (adapter, wanted) in enumerate(zip(adapters, seen.maps, strict=True)):
            adapted = adapter(made.maps[k])
            if options.feature_weight:
                loss = feature_loss(adapted, wanted)
                terms[f"feature_{k}"] = options.feature_weight * loss
            if options.mmd_weight:
                n = options.mmd_positions
                mine = draw_positions(adapted, n, generator)
                theirs = draw_positions(wanted, n, generator)
                terms[f"mmd_{k}"] = options.mmd_weight * mmd_squared(mine, theirs)
        return Outcome(terms, image, truth)

    def _add_lora(self, rank: int) -> None:
        assert isinstance(self.network, TeacherNetwork)
        if not _has_lora(self.network):
            self.network.add_lora(rank)


def _check(
    config: TrainConfig, architecture: AnyConfig, options: SlimDiffSROptions
) -> None:
    """Check that stages, data and architecture fit each other.

    Raises:
        InputError: they do not.
    """
    data, scale = config.data, float(architecture.scale)
    if (set(data.fixed_scales) or set(data.scales)) != {scale}:
        raise InputError(
            f"data: the network has one scale, {architecture.scale}; set"
            f" fixed_scales = [{scale}]."
        )
    of_teachers = isinstance(architecture, TeacherConfig)
    for stage in config.stage:
        if stage.name.startswith("teacher") != of_teachers:
            raise InputError(
                f"stage '{stage.name}' does not train architecture"
                f" '{config.architecture}'."
            )
        if stage.name == "distill" and options.teacher is None:
            raise InputError("stage 'distill': add [options] with teacher = \"PATH\".")
        if stage.adversarial_weight and not isinstance(architecture, MiniConfig):
            raise InputError(
                "adversarial_weight: only the small student takes an adversarial loss."
            )


def _rank(config: TrainConfig) -> int:
    """Return the rank that the first stage with adapters asks for."""
    ranks = [s.options.get("rank") for s in config.stage if s.name == "teacher_lora"]
    return int(ranks[0]) if ranks and ranks[0] else TeacherOptions().rank


def _has_lora(network: TeacherNetwork) -> bool:
    return any(".lora_" in name for name, _ in network.named_parameters())


def _teach(network: TeacherNetwork, lr: Tensor, truth: Tensor, job: Job) -> Outcome:
    """Return the teacher's losses: L2, LPIPS, and the likelihood of the HR latent."""
    options = cast(TeacherOptions, job.options)
    z = network.encode(lr)
    image = network.decode(network.transform(z), lr)
    terms = dict(picture_terms(image, truth, job))
    squares = (image.float() - truth).square().mean()
    terms["pixel"] = job.stage.pixel_weight * squares
    with torch.no_grad():
        wanted = network.encode_picture(truth)
    mean, log_variance = network.estimator(z.detach())
    loss = uncertainty_loss(mean.float(), log_variance.float(), wanted.float())
    terms["uncertainty"] = options.uncertainty_weight * loss
    return Outcome(terms, image, truth)


def run_together(network: AnyNetwork, lr: Tensor) -> Tensor:
    """Return the pictures of a batch that is seen as one scene, in [-1, 1]."""
    return matched(network, run_with_maps(network, lr).image, lr)


def matched(network: AnyNetwork, image: Tensor, lr: Tensor) -> Tensor:
    """Match a student's colours to those of the enlarged batch, as one picture."""
    if not isinstance(network, SlimDiffSRNetwork):
        return image.float()
    bicubic = functional.interpolate(lr, image.shape[2:], mode="bicubic")
    rows = [
        x.float().transpose(0, 1).flatten(1)[None, :, None] for x in (image, bicubic)
    ]
    colours = match_colours(rows[0], rows[1])
    b, c, height, width = image.shape
    return colours.view(c, b, height, width).transpose(0, 1)


def signed_lr(batch: Batch, scale: int) -> Tensor:
    """Return LR in [-1, 1], channels last.

    Raises:
        InputError: the batch has another scale.
    """
    if batch.scale != Fraction(scale):
        raise InputError(f"A batch of scale {batch.scale}; the network needs {scale}.")
    lr = 2.0 * batch.lr - 1.0
    return lr.contiguous(memory_format=torch.channels_last)
