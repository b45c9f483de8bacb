"""Training of SlimDiffSR: students, teachers, and students from teachers.

====================  ===============================================================
Stage                 Trains
====================  ===============================================================
``direct``            a student on pairs: L1 and LPIPS of the picture
``distill``           a student on a teacher, see the module `distillation`
``direct_ends``,      the same, but of the small student only what stands before and
``distill_ends``      after its trunk, which several scales may have each of their own
``teacher``           a teacher: L2, LPIPS, and the likelihood of the latent
``teacher_lora``      the same, the U-Net through low-rank adapters alone
====================  ===============================================================

The paper distils and published no training code; `direct` is not in it
(docs/families/slimdiffsr.md#training). Gates, norms and context treat a batch as one
picture, as inference treats a scene.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.errors import InputError
from rsupres.families.slimdiffsr.config import SlimDiffSRConfig, TrunkConfig
from rsupres.families.slimdiffsr.mini import MINI, MiniConfig
from rsupres.families.slimdiffsr.network import SlimDiffSRNetwork, signed_input
from rsupres.families.slimdiffsr.released import match_colours
from rsupres.families.slimdiffsr.resolver import (
    AnyConfig,
    AnyNetwork,
    AnyTeacher,
    AnyTeacherConfig,
    architecture_to_json,
    make_network,
    make_spec,
    network_at,
)
from rsupres.families.slimdiffsr.teacher import (
    TeacherConfig,
    TeacherNetwork,
    UnetConfig,
)
from rsupres.families.slimdiffsr.wide import WideTeacherConfig
from rsupres.training.base import DrawBatch, Exported, FamilyTraining, Stage, Validation
from rsupres.training.batches import Batch
from rsupres.training.config import PatchOptions, StageConfig, TrainConfig
from rsupres.training.families.slimdiffsr.distillation import (
    DistillOptions,
    FamilyTeacher,
    Teacher,
    draw_positions,
    feature_loss,
    load_teacher,
    make_adapters,
    mmd_squared,
    run_with_maps,
    transfer_weights,
    widen_student,
)
from rsupres.training.losses import (
    Outcome,
    PictureOptions,
    StageSetup,
    picture_terms,
    picture_weights,
)
from rsupres.training.registry import choose_architecture
from rsupres.training.validation import mean_psnr, write_picture

# Names with "tiny" are for tests: all modules at their smallest.
ARCHITECTURES: Mapping[str, AnyConfig] = {
    "mini": MINI,
    "paper": SlimDiffSRConfig(),
    "teacher": TeacherConfig(),
    "wide-teacher": WideTeacherConfig(),
    "tiny": SlimDiffSRConfig(
        4, TrunkConfig((16, 32), 64, 1, 4, 8, "group", 4), 8, latent=4
    ),
    "tiny-mini": MiniConfig(4, TrunkConfig((16, 16), 32, 1, 4, 8, "pixel"), 8, 1, 1),
    "tiny-teacher": TeacherConfig(
        (16, 32, 64), 1, (2, 2, 2), 4, 8, 3, 4, "tiny", (8,), 8
    ),
    "tiny-wide-teacher": WideTeacherConfig(
        MiniConfig(4, TrunkConfig((16, 16), 32, 1, 4, 8, "pixel"), 12, 1, 1, (4, 8)),
        UnetConfig((16, 32), 1, (2, 2), 4, 8, 3),
        8,
    ),
}
_VALIDATION_CROPS = 12
_VALIDATION_LR_SIDE = 32
_LAST_LAYER = "head.weight"
_ADAPTERS = "adapters"
_ENDS = ("encoder", "decoder", "head", "ends")  # of the small student, by scale
_DISTILLING = ("distill", "distill_ends")


@dataclass(frozen=True)
class SlimDiffSROptions:
    """Options of a SlimDiffSR run beyond `TrainConfig`.

    Attributes:
        teacher: checkpoint or name of the teacher of stages `distill`.
        transfer: start from the teacher's weights where names and shapes agree.
        widen: checkpoint or name of a small student whose weights are the start of a
            wide teacher's layers.
    """

    teacher: str | None = None
    transfer: bool = True
    widen: str | None = None


@dataclass(frozen=True)
class TeacherOptions:
    """Options of the stages that train a teacher.

    Attributes:
        uncertainty_weight: weight of the likelihood of the HR latent.
        rank: of the low-rank adapters, in stage `teacher_lora`.
    """

    uncertainty_weight: float = 0.1
    rank: int = 4


@dataclass(frozen=True)
class LoraStage(Stage):
    """A stage that trains low-rank adapters and the estimator."""

    def covers(self, parameter: str) -> bool:
        """Return whether the named parameter trains."""
        return ".lora_" in parameter or super().covers(parameter)


@dataclass(frozen=True)
class SlimDiffSRTraining(FamilyTraining):
    """A student or a teacher for the training loop.

    A student of the stage `distill` has a teacher; the network of one that matches
    feature maps holds the convolutions `adapters`.
    """

    architecture: AnyConfig
    config: TrainConfig
    networks: AnyNetwork
    teacher: Teacher | None = None

    options: ClassVar[type[object]] = SlimDiffSROptions
    may_begin_fresh: ClassVar[tuple[str, ...]] = (f"{_ADAPTERS}.",)
    stages: ClassVar[Mapping[str, Stage]] = {
        "direct": Stage(("",), _LAST_LAYER, PictureOptions),
        "direct_ends": Stage(_ENDS, _LAST_LAYER, PictureOptions),
        "distill": Stage(("",), _LAST_LAYER, DistillOptions),
        "distill_ends": Stage((*_ENDS, _ADAPTERS), _LAST_LAYER, DistillOptions),
        "teacher": Stage(("",), options=TeacherOptions),
        "teacher_lora": LoraStage(("estimator",), options=TeacherOptions),
    }

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        """Make a fresh network, channels last, and load its teacher."""
        assert isinstance(options, SlimDiffSROptions)
        architecture = choose_architecture(config, ARCHITECTURES)
        _check(config, architecture, options)
        network = make_network(architecture)
        teacher = None
        if options.widen is not None:
            widen_student(network, options.widen, root)
        if options.teacher is not None:
            teacher = load_teacher(options.teacher, architecture.scales, root)
            if options.transfer and isinstance(teacher, FamilyTeacher):
                transfer_weights(network, teacher.network)
            network.add_module(_ADAPTERS, make_adapters(network, teacher))
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
        return cls(architecture, config, network, teacher)

    def add_parts(self, names: Collection[str]) -> None:
        """Add the low-rank adapters if any are named."""
        if any(".lora_" in name for name in names):
            self._add_lora(_rank(self.config))

    def move(self, device: torch.device) -> None:
        """Move network and teacher to a device."""
        self.networks.to(device)
        if self.teacher is not None:
            self.teacher.move(device)

    def prepare_stage(self, stage: StageConfig, draw: DrawBatch | None) -> None:
        """Add the low-rank adapters for the stage that trains them."""
        if stage.name == "teacher_lora":
            self._add_lora(_rank(self.config))

    def loss(
        self, batch: Batch, generator: torch.Generator, setup: StageSetup
    ) -> Outcome:
        """Return the loss terms of the stage."""
        lr = _signed_lr(batch, self.architecture)
        truth = 2.0 * batch.hr - 1.0
        if setup.stage.name in _DISTILLING:
            return self._distill(lr, batch, generator, setup)
        network = network_at(self.networks, batch.scale)
        if isinstance(network, AnyTeacher):
            return _teach(network, lr, truth, setup)
        options = setup.options
        alone = isinstance(options, PictureOptions) and options.alone
        image = network(lr)[1] if alone else _run_as_one_scene(network, lr)
        weights = picture_weights(batch.lr, batch.hr, options)
        return Outcome(picture_terms(image, truth, setup, weights), image, truth)

    def export(self) -> Exported:
        """Return the network without adapters, the low-rank ones merged into it."""
        network = self.networks
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
        return Exported(tensors, spec, architecture_to_json(self.architecture))

    def validate(self, validation: Validation) -> Mapping[str, float]:
        """Return PSNR of bicubic and of the network on held-out crops, and draw both.

        In dB, after rounding to 8 bits.
        """
        figures: dict[str, float] = {}
        shown: list[Tensor] = []
        for scale in self.architecture.scales:
            side = _VALIDATION_LR_SIDE * self.architecture.scale // scale
            plan = PatchOptions(side, _VALIDATION_CROPS, fixed_scales=(float(scale),))
            batch = validation.batch(plan)
            lr, hr = _signed_lr(batch, self.architecture), 2.0 * batch.hr - 1.0
            plain = 2.0 * batch.lr - 1.0
            bicubic = functional.interpolate(plain, hr.shape[2:], mode="bicubic")
            image = _run_as_one_scene(network_at(self.networks, batch.scale), lr)
            shown += [bicubic, image, hr]
            figures[f"psnr_bicubic_x{scale}"] = mean_psnr(bicubic, hr)
            figures[f"psnr_student_x{scale}"] = mean_psnr(image, hr)
        write_picture(validation.picture, shown)
        return figures

    def _distill(
        self, lr: Tensor, batch: Batch, generator: torch.Generator, setup: StageSetup
    ) -> Outcome:
        """Return the losses of a student against its teacher and the truth."""
        truth = 2.0 * batch.hr - 1.0
        assert self.teacher is not None
        options = cast(DistillOptions, setup.options)
        taught = self.teacher.run(batch.lr, batch.scale)
        made = run_with_maps(network_at(self.networks, batch.scale), lr)
        image = _match_batch_colours(self.networks, made.image, lr)
        terms = {
            f"{name}_{who}": weight * term
            for who, weight, picture in (
                ("truth", options.truth_weight, truth),
                ("output", options.output_weight, taught.image.float()),
            )
            if weight
            for name, term in picture_terms(image, picture, setup).items()
        }
        adapters = cast(nn.ModuleList, getattr(self.networks, _ADAPTERS))
        for k, (adapter, wanted) in enumerate(zip(adapters, taught.maps, strict=True)):
            adapted = adapter(made.maps[k])
            if options.feature_weight:
                loss = feature_loss(adapted, wanted)
                terms[f"feature_{k}"] = options.feature_weight * loss
            if options.mmd_weight:
                n = options.mmd_positions
                student = draw_positions(adapted, n, generator)
                teacher = draw_positions(wanted, n, generator)
                terms[f"mmd_{k}"] = options.mmd_weight * mmd_squared(student, teacher)
        return Outcome(terms, image, truth)

    def _add_lora(self, rank: int) -> None:
        assert isinstance(self.networks, TeacherNetwork)
        if not _has_lora(self.networks):
            self.networks.add_lora(rank)


def _check(
    config: TrainConfig, architecture: AnyConfig, options: SlimDiffSROptions
) -> None:
    """Check that stages, data and architecture fit each other."""
    data = config.data
    scales = [float(scale) for scale in architecture.scales]
    if not set(data.fixed_scales or data.scales) <= set(scales):
        raise InputError(
            f"data: the network's scales are {', '.join(map(str, architecture.scales))}"
            f"; set fixed_scales = {scales}."
        )
    of_teachers = isinstance(architecture, AnyTeacherConfig)
    for stage in config.stage:
        if stage.name.startswith("teacher") != of_teachers:
            raise InputError(
                f"stage '{stage.name}' does not train architecture"
                f" '{config.architecture}'."
            )
        if stage.name in _DISTILLING and options.teacher is None:
            raise InputError(
                f"stage '{stage.name}': add [options] with teacher = \"PATH\"."
            )
        if stage.name.endswith("_ends") and not isinstance(architecture, MiniConfig):
            raise InputError(
                f"stage '{stage.name}': only the small student has such layers."
            )
        if stage.adversarial_weight and not isinstance(architecture, MiniConfig):
            raise InputError(
                "adversarial_weight: only the small student takes an adversarial loss."
            )
        if stage.options.get("alone") and not isinstance(architecture, MiniConfig):
            raise InputError("alone: only the small student trains on single pictures.")


def _rank(config: TrainConfig) -> int:
    """Return the rank of the first stage with low-rank adapters."""
    ranks = [s.options.get("rank") for s in config.stage if s.name == "teacher_lora"]
    return int(ranks[0]) if ranks and ranks[0] else TeacherOptions().rank


def _has_lora(network: TeacherNetwork) -> bool:
    return any(".lora_" in name for name, _ in network.named_parameters())


def _teach(
    network: AnyTeacher, lr: Tensor, truth: Tensor, setup: StageSetup
) -> Outcome:
    """Return the teacher's losses: L2, LPIPS, and the likelihood of the HR latent."""
    options = cast(TeacherOptions, setup.options)
    z = network.encode(lr)
    image = network.decode(network.transform(z), lr)
    terms = dict(picture_terms(image, truth, setup))
    squares = (image.float() - truth).square().mean()
    terms["pixel"] = setup.stage.pixel_weight * squares
    loss = network.likelihood_loss(z, lr, truth)
    terms["uncertainty"] = options.uncertainty_weight * loss
    return Outcome(terms, image, truth)


def _run_as_one_scene(network: AnyNetwork, lr: Tensor) -> Tensor:
    """Return the pictures of a batch as one scene; see `run_with_maps`."""
    return _match_batch_colours(network, run_with_maps(network, lr).image, lr)


def _match_batch_colours(network: AnyNetwork, image: Tensor, lr: Tensor) -> Tensor:
    """Return pictures with the colours of LR, a batch as one picture."""
    if not isinstance(network, SlimDiffSRNetwork):
        return image.float()
    bicubic = functional.interpolate(lr, image.shape[2:], mode="bicubic")
    rows = [
        x.float().transpose(0, 1).flatten(1)[None, :, None] for x in (image, bicubic)
    ]
    colours = match_colours(rows[0], rows[1])
    b, c, height, width = image.shape
    return colours.view(c, b, height, width).transpose(0, 1)


def _signed_lr(batch: Batch, architecture: AnyConfig) -> Tensor:
    """Return LR in [-1, 1], enlarged to the network's own factor, channels last."""
    if batch.scale not in architecture.scales:
        scales = ", ".join(map(str, architecture.scales))
        raise InputError(
            f"A batch of scale {batch.scale}; the network's scales are {scales}."
        )
    return signed_input(batch.lr, batch.scale / architecture.scale)
