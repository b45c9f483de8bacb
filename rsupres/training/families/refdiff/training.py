"""Training of Ref-Diff: its stages, its checkpoint and its validation.

The losses are in `rsupres.training.families.refdiff.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from rsupres.diffusion.edm import karras_sigmas
from rsupres.errors import InputError
from rsupres.families.base import Conditions
from rsupres.families.refdiff.config import MINI, RELEASED, RefDiffConfig
from rsupres.families.refdiff.network import RefDiffUNet, initialise_
from rsupres.families.refdiff.resolver import SAMPLERS, EdmDenoiser, make_spec, sample
from rsupres.families.storage import config_to_json
from rsupres.training.base import Exported, FamilyTraining, Stage, Validation
from rsupres.training.batches import Batch
from rsupres.training.config import PatchOptions, TrainConfig
from rsupres.training.families.refdiff.losses import (
    ClosingOptions,
    EdmOptions,
    base_loss,
    closing_loss,
    edm_loss,
    frame_of,
)
from rsupres.training.losses import Outcome, StageSetup, normal
from rsupres.training.registry import choose_architecture
from rsupres.training.validation import mean_psnr, write_picture

_VALIDATION_CROPS = 12
_VALIDATION_LR_SIDE = 16


@dataclass(frozen=True)
class RefDiffOptions:
    """Options of a Ref-Diff run beyond `TrainConfig`.

    Attributes:
        classes: class table of the change masks, stored with the weights; "" = none.
    """

    classes: str = ""


@dataclass(frozen=True)
class RefDiffTraining(FamilyTraining):
    """Ref-Diff, whose network is the denoiser F, for the training loop."""

    architecture: RefDiffConfig
    config: TrainConfig
    networks: RefDiffUNet
    classes: str | None

    options: ClassVar[type[object]] = RefDiffOptions
    may_begin_fresh: ClassVar[tuple[str, ...]] = ()
    stages: ClassVar[Mapping[str, Stage]] = {
        "base": Stage(("base",)),
        "edm": Stage(("",), options=EdmOptions),
        "closing": Stage(("",), options=ClosingOptions),
    }

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        """Make a fresh network.

        Raises:
            InputError: the data have no fixed scales.
        """
        assert isinstance(options, RefDiffOptions)
        if not config.data.fixed_scales:
            raise InputError("data.fixed_scales: Ref-Diff is trained at fixed scales.")
        architecture = choose_architecture(config, {"released": RELEASED, "mini": MINI})
        network = RefDiffUNet(architecture)
        initialise_(network)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
        return cls(architecture, config, network, options.classes or None)

    def loss(
        self, batch: Batch, generator: torch.Generator, setup: StageSetup
    ) -> Outcome:
        """Return the loss terms of the stage."""
        losses = {"base": base_loss, "edm": edm_loss, "closing": closing_loss}
        return losses[setup.stage.name](self.networks, batch, generator, setup)

    def export(self) -> Exported:
        """Return the whole network."""
        scales = frozenset(Fraction(s) for s in self.config.data.fixed_scales)
        spec = make_spec(
            self.architecture,
            scales=scales,
            gsd=self.config.gsd,
            halo=self.config.halo,
            classes=self.classes,
        )
        architecture = config_to_json(self.architecture)
        return Exported(self.networks.state_dict(), spec, architecture)

    def validate(self, validation: Validation) -> Mapping[str, float]:
        """Return mean PSNR in dB of bicubic and of results, with and without reference.

        The picture shows the enlarged LR image, the reference, the result without and
        with it, and the truth.
        """
        scale = self.config.data.fixed_scales[0]
        plan = PatchOptions(
            _VALIDATION_LR_SIDE, _VALIDATION_CROPS, fixed_scales=(scale,)
        )
        batch = validation.batch(plan)
        truth = batch.hr * 2.0 - 1.0
        bare = replace(batch, conditions=Conditions())
        shown = frame_of(batch, self.networks).guidance
        images = {
            "lr": shown.lr,
            "reference": shown.reference,
            "alone": self._picture(bare),
            "result": self._picture(batch),
        }
        write_picture(validation.picture, [*images.values(), truth])
        return {f"psnr_{name}": mean_psnr(x, truth) for name, x in images.items()}

    def _picture(self, batch: Batch) -> Tensor:
        """Return the pictures that inference makes of a batch, in [-1, 1]."""
        config = self.architecture
        frame = frame_of(batch, self.networks)
        sigmas = karras_sigmas(
            config.steps, config.sigma_min, config.sigma_max, config.rho
        )
        generator = torch.Generator().manual_seed(0)
        lr = frame.guidance.lr.float()
        denoise = EdmDenoiser(self.networks, self.networks.maps(frame.guidance))
        sampler = SAMPLERS[config.sampler]
        x = sample(denoise, lr, sampler, sigmas, lambda _: normal(lr, generator))
        return (frame.picture(x) * 2.0 - 1.0).clamp(-1.0, 1.0)
