"""Training of SGDM: its stages, its checkpoint and its validation.

The losses are in `rsupres.training.families.sgdm.losses`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from rsupres.blocks.stable_diffusion import AutoencoderConfig, UNetConfig
from rsupres.errors import InputError
from rsupres.families.sgdm.config import MINI, VARIANTS, EncoderConfig, SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.resolver import make_spec
from rsupres.families.sgdm.sampling import Sampling, sample_latent
from rsupres.families.sgdm.style import FlowConfig
from rsupres.families.sgdm.unmixing import finish
from rsupres.families.storage import config_to_json
from rsupres.training.base import DrawBatch, Exported, FamilyTraining, Stage, Validation
from rsupres.training.batches import Batch
from rsupres.training.config import PatchOptions, StageConfig, TrainConfig
from rsupres.training.families.sgdm.initialise import (
    balance_map,
    measure_latent_scale,
    trains_in_stage1,
)
from rsupres.training.families.sgdm.losses import (
    LOSSES,
    DiffusionOptions,
    Model,
    Patches,
    PictureOptions,
    prompt_contexts,
)
from rsupres.training.losses import AutoencoderOptions, Outcome, StageSetup
from rsupres.training.registry import choose_architecture, stage_options
from rsupres.training.validation import mean_psnr, write_picture

_LOG = logging.getLogger(__name__)
_LAST_LAYER = "autoencoder.decoder.conv_out.weight"
_JUDGED = 9  # picture, enlarged LR and map
_VALIDATION_CROPS = 8
_VALIDATION_LR_SIDE = 24

# For tests: every module of SGDM+ at its smallest, x4.
TINY = SgdmConfig(
    unet=UNetConfig(
        width=8,
        multipliers=(1, 2),
        blocks=1,
        attention_levels=(0,),
        head_width=8,
        context_width=8,
        groups=4,
    ),
    autoencoder=AutoencoderConfig(
        width=8, multipliers=(1, 1, 2, 2), blocks=1, groups=4
    ),
    encoder=EncoderConfig(stem=8, widths=(8, 8, 8), out=16, guide=8),
    flow=FlowConfig(8, 2, (8,)),
)
ARCHITECTURES: Mapping[str, SgdmConfig] = {
    **VARIANTS,
    "mini": MINI,
    "tiny": TINY,
    "tiny-mini": replace(
        MINI,
        unet=replace(MINI.unet, width=8, multipliers=(1, 2), blocks=1),
        encoder=replace(MINI.encoder, stem=8, widths=(8,), out=16, guide=8),
    ),
    "tiny-latent": replace(
        MINI,
        unet=replace(MINI.unet, latent=4, width=8, multipliers=(1, 2, 3), blocks=1),
        flow=None,
        picture_style=False,
        autoencoder=AutoencoderConfig(
            width=8,
            multipliers=(1, 2, 4),
            blocks=1,
            mid_attention=False,
            groups=4,
            norm="pixel",
        ),
        encoder=replace(MINI.encoder, stem=8, widths=(8, 8), out=16, guide=8),
        prediction="v",
    ),
}


class _Stage1(Stage):
    """The stage of the paper, which selects parameters by parts of their names."""

    def covers(self, parameter: str) -> bool:
        """Return whether the named parameter trains."""
        return trains_in_stage1(parameter)


@dataclass(frozen=True)
class SgdmOptions:
    """Options of an SGDM run beyond `TrainConfig`.

    Attributes:
        scale: SR pixels along an LR pixel; validation measures this scale.
        recompute: recompute the activations of the U-Net in the backward pass
            (gradient checkpointing): less memory, a third more time.
        other_scales: further scales of the model.
    """

    scale: int = 16
    recompute: bool = False
    other_scales: tuple[int, ...] = ()


@dataclass(frozen=True)
class SgdmTraining(FamilyTraining):
    """SGDM, with the encoder of its autoencoder, for the training loop."""

    architecture: SgdmConfig
    config: TrainConfig
    choices: SgdmOptions
    networks: SgdmNetworks

    options: ClassVar[type[object]] = SgdmOptions
    may_begin_fresh: ClassVar[tuple[str, ...]] = ("flow_mean.", "flow_std.")
    stages: ClassVar[Mapping[str, Stage]] = {
        "stage1": _Stage1((), options=DiffusionOptions),
        "sflow": Stage(("flow_mean", "flow_std")),
        "autoencoder": Stage(("autoencoder",), _LAST_LAYER, AutoencoderOptions),
        "diffusion": Stage(("adapter", "unet"), options=DiffusionOptions),
        "picture": Stage(
            ("adapter", "unet", "autoencoder.decoder", "autoencoder.post_quant_conv"),
            _LAST_LAYER,
            PictureOptions,
            _JUDGED,
        ),
        "pixels": Stage(
            ("adapter", "unet"), "unet.conv_out.weight", PictureOptions, _JUDGED
        ),
    }

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        """Make fresh networks, channels last."""
        assert isinstance(options, SgdmOptions)
        architecture = choose_architecture(config, ARCHITECTURES)
        networks = SgdmNetworks(architecture)
        networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
        return cls(architecture, config, options, networks)

    def prepare_stage(self, stage: StageConfig, draw: DrawBatch | None) -> None:
        """Scale the latent and balance the map's branch for `diffusion`; check flows.

        Raises:
            InputError: stage `sflow` of a model without flows.
        """
        if stage.name == "sflow" and self.networks.flow_mean is None:
            raise InputError(
                "stage 'sflow': the architecture has no flow; set one in [overrides]."
            )
        begins = stage.name == "diffusion" or (
            stage.name == "pixels" and self.config.start_from is None
        )
        if begins and draw is not None:
            options = stage_options(self, stage)
            assert isinstance(options, DiffusionOptions)
            batches = [draw(k) for k in range(options.measured_batches)]
            scale = measure_latent_scale(self.networks, batches)
            self.networks.latent_scale.fill_(scale)
            _LOG.info("latent_scale = %.4f", scale)
            maps = [b.conditions.vector_map for b in batches]
            balance_map([m for m in maps if m is not None], self.networks)

    def loss(
        self, batch: Batch, generator: torch.Generator, setup: StageSetup
    ) -> Outcome:
        """Return the loss terms of the stage."""
        model = Model(self.networks, self.architecture, self.choices.recompute)
        patches = Patches.of(batch, self.architecture)
        return LOSSES[setup.stage.name](model, patches, generator, setup)

    def export(self) -> Exported:
        """Return all networks but the encoding half of the autoencoder."""
        spec = make_spec(
            self.architecture,
            (self.choices.scale, *self.choices.other_scales),
            halo=self.config.halo,
            gsd=self.config.gsd,
        )
        tensors = {
            name: tensor
            for name, tensor in self.networks.state_dict().items()
            if not name.startswith(("autoencoder.encoder.", "autoencoder.quant_conv."))
        }
        return Exported(tensors, spec, config_to_json(self.architecture))

    def validate(self, validation: Validation) -> Mapping[str, float]:
        """Return mean PSNR in dB by name.

        Of bicubic, of the autoencoder, and of samples with and without the map. The
        picture shows bicubic, the sample with the map, the autoencoder and the truth.
        """
        scale = float(self.choices.scale)
        plan = PatchOptions(_VALIDATION_LR_SIDE, _VALIDATION_CROPS, (scale, scale))
        batch = validation.batch(plan)
        patches = Patches.of(batch, self.architecture)
        images = {"bicubic": 2.0 * patches.enlarged - 1.0}
        if self.networks.autoencoder is not None:
            z = self.networks.encode(patches.hr)
            images["autoencoder"] = self._decode(z, patches, batch.lr, None)
        if validation.stage not in ("autoencoder", "sflow"):
            charts = {"sample": patches.vector_map, "no_map": patches.empty_map}
            for name, chart in charts.items():
                z = self._sample(patches, chart)
                images[name] = self._decode(z, patches, batch.lr, chart)
        figures = {
            f"psnr_{name}": mean_psnr(image, patches.hr)
            for name, image in images.items()
        }
        shown = ("bicubic", "sample", "no_map", "autoencoder")
        rows = [images[name] for name in shown if name in images]
        write_picture(validation.picture, [*rows, patches.hr])
        return figures

    def _sample(self, patches: Patches, vector_map: Tensor | None) -> Tensor:
        """Return latents as inference samples them, always from the same noise."""
        style = None
        if self.architecture.encoder.style:
            style = self.networks.adapter.style(patches.hr)
        features = self.networks.features(patches.enlarged, vector_map, style)
        f = self.architecture.factor
        height, width = (side // f for side in patches.hr.shape[2:])
        channels = self.architecture.unet.latent
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(
            len(patches.hr), channels, height, width, generator=generator
        )
        sampling = Sampling("dpm++", min(self.architecture.sampling_steps, 10))
        context = prompt_contexts(self.networks, patches.vector_map, features[0])
        start = start.to(patches.hr.device)
        return sample_latent(self.networks, start, features, context, sampling)

    def _decode(
        self, z: Tensor, patches: Patches, lr: Tensor, chart: Tensor | None
    ) -> Tensor:
        """Return the picture of scaled latents in about [-1, 1], as inference does."""
        decoded = self.networks.decode(z, patches.enlarged)
        scale = Fraction(patches.hr.shape[2], lr.shape[2])
        given = patches.enlarged, lr, chart, scale
        return 2.0 * finish(self.architecture, decoded, *given) - 1.0
