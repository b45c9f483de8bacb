"""How Ref-Diff is trained: its stages and what is watched.

Dong et al., CVPR 2024; see `rsupres.training.families.refdiff_objectives` for the
losses. The stage "edm" is the released one; "closing" is ours.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from rsupres.diffusion.edm import karras_sigmas
from rsupres.errors import InputError
from rsupres.families.base import Conditions
from rsupres.families.refdiff.config import MINI, RELEASED, RefDiffConfig
from rsupres.families.refdiff.network import RefDiffUNet, initialise_
from rsupres.families.refdiff.resolver import SAMPLERS, EdmDenoiser, make_spec, sample
from rsupres.training.adapters import (
    Draw,
    Exported,
    Stage,
    Watch,
    choose_architecture,
)
from rsupres.training.batches import Batch, PatchOptions, PatchSource
from rsupres.training.config import StageConfig, TrainConfig
from rsupres.training.families.refdiff_objectives import (
    ClosingOptions,
    EdmOptions,
    closing_loss,
    edm_loss,
    frame_of,
)
from rsupres.training.objectives import Job, Outcome, normal
from rsupres.training.validation import mean_psnr, write_picture

_WATCHED_CROPS = 12
_WATCHED_LR_SIDE = 16


@dataclass(frozen=True)
class RefDiffOptions:
    """What a Ref-Diff run may say beyond `TrainConfig`.

    Attributes:
        classes: class table of the change masks, kept with the weights.
    """

    classes: str = ""


@dataclass(frozen=True)
class RefDiffTraining:
    """Ref-Diff as the training loop sees it.

    Attributes:
        architecture: of the network.
        config: the run.
        network: F.
        classes: class table of the change masks, None when none is stated.
    """

    architecture: RefDiffConfig
    config: TrainConfig
    network: RefDiffUNet
    classes: str | None

    options: ClassVar[type[object]] = RefDiffOptions
    stages: ClassVar[Mapping[str, Stage]] = {
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

    @property
    def networks(self) -> nn.Module:
        """The network."""
        return self.network

    def adopt(self, names: Collection[str]) -> None:
        """Grow nothing: fresh networks are whole."""

    def move(self, device: torch.device) -> None:
        """Bring the network to a device."""
        self.network.to(device)

    def enter(self, stage: StageConfig, draw: Draw | None) -> None:
        """Measure nothing."""

    def loss(self, batch: Batch, generator: torch.Generator, job: Job) -> Outcome:
        """Return the loss terms of the stage."""
        losses = {"edm": edm_loss, "closing": closing_loss}
        return losses[job.stage.name](self.network, batch, generator, job)

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
        architecture = json.loads(json.dumps(asdict(self.architecture)))
        return Exported(self.network.state_dict(), spec, architecture)

    def validate(self, watch: Watch) -> Mapping[str, float]:
        """Return mean PSNR in dB of bicubic and of results, with and without reference.

        The picture shows the enlarged LR image, the reference, the result without it,
        the result, the truth.
        """
        scale = self.config.data.fixed_scales[0]
        plan = PatchOptions(_WATCHED_LR_SIDE, _WATCHED_CROPS, fixed_scales=(scale,))
        batch = PatchSource(watch.packs, plan, seed=1).batch(0).to(watch.device)
        truth = batch.hr * 2.0 - 1.0
        bare = replace(batch, conditions=Conditions())
        shown = frame_of(batch, self.architecture).guidance
        images = {
            "lr": shown.lr,
            "reference": shown.reference,
            "alone": self._picture(bare),
            "result": self._picture(batch),
        }
        write_picture(watch.picture, [*images.values(), truth])
        return {f"psnr_{name}": mean_psnr(x, truth) for name, x in images.items()}

    def _picture(self, batch: Batch) -> Tensor:
        """Return what inference would make of a batch, in [-1, 1]."""
        config = self.architecture
        frame = frame_of(batch, config)
        sigmas = karras_sigmas(
            config.steps, config.sigma_min, config.sigma_max, config.rho
        )
        generator = torch.Generator().manual_seed(0)
        lr = frame.guidance.lr.float()
        denoise = EdmDenoiser(self.network, self.network.maps(frame.guidance))
        sampler = SAMPLERS[config.sampler]
        x = sample(denoise, lr, sampler, sigmas, lambda _: normal(lr, generator))
        return (frame.picture(x) * 2.0 - 1.0).clamp(-1.0, 1.0)
