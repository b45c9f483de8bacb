"""Training of E2DiffSR: its stages, its checkpoint and its validation.

The losses are in `rsupres.training.families.e2diffsr.losses`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from rsupres.families.e2diffsr.config import PAPER, SMALL, E2DiffSRConfig
from rsupres.families.e2diffsr.network import E2DiffSRNetworks
from rsupres.families.e2diffsr.resolver import make_spec
from rsupres.families.storage import config_to_json
from rsupres.training.base import (
    DrawBatch,
    Exported,
    FamilyTraining,
    NoOptions,
    Stage,
    Validation,
)
from rsupres.training.batches import Batch
from rsupres.training.config import PatchOptions, StageConfig, TrainConfig
from rsupres.training.families.e2diffsr.losses import (
    LOSSES,
    DecodingOptions,
    EncodingOptions,
    JointOptions,
    Model,
    Patches,
    PriorOptions,
    encode,
    measure_latent_scale,
    sample_from_noise,
)
from rsupres.training.losses import Outcome, StageSetup
from rsupres.training.registry import choose_architecture, stage_options
from rsupres.training.validation import mean_psnr, write_picture

_LOG = logging.getLogger(__name__)
_LAST_LAYER = "csum.fuse.8.weight_v"
_VALIDATION_SCALES = (Fraction(4), Fraction(2))
_VALIDATION_CROPS = 12


@dataclass(frozen=True)
class E2DiffSRTraining(FamilyTraining):
    """E2DiffSR for the training loop, with the networks that only training needs."""

    architecture: E2DiffSRConfig
    config: TrainConfig
    networks: E2DiffSRNetworks

    options: ClassVar[type[object]] = NoOptions
    may_begin_fresh: ClassVar[tuple[str, ...]] = ()
    stages: ClassVar[Mapping[str, Stage]] = {
        "autoencoder": Stage(
            ("dpencoder", "depsr"), f"depsr.{_LAST_LAYER}", EncodingOptions
        ),
        "prior": Stage(("condnet", "unet"), options=PriorOptions),
        "closing": Stage(("depsr",), f"depsr.{_LAST_LAYER}", DecodingOptions),
        "joint": Stage(
            ("depsr", "condnet", "unet"), f"depsr.{_LAST_LAYER}", JointOptions
        ),
        "detail": Stage(
            ("depsr_detail",), f"depsr_detail.{_LAST_LAYER}", DecodingOptions
        ),
    }

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        """Make fresh networks."""
        named = {"paper": PAPER, "small": SMALL}
        architecture = choose_architecture(config, named)
        return cls(architecture, config, E2DiffSRNetworks(architecture))

    @property
    def _model(self) -> Model:
        return Model(self.networks, self.architecture)

    def add_parts(self, names: Collection[str]) -> None:
        """Add the detail weights if any are named."""
        if any(name.startswith("depsr_detail.") for name in names):
            self.networks.add_detail()

    def move(self, device: torch.device) -> None:
        """Move the networks, channels last: that halves the time of CSUM on a CPU."""
        last = torch.channels_last
        self.networks.to(device).to(memory_format=last)  # type: ignore[call-overload]  # torch omits it

    def prepare_stage(self, stage: StageConfig, draw: DrawBatch | None) -> None:
        """Measure the scale of the latent for `prior`; add weights for `detail`."""
        if stage.name == "prior" and draw is not None:
            options = stage_options(self, stage)
            assert isinstance(options, PriorOptions)
            batches = [draw(k) for k in range(options.measured_batches)]
            scale = measure_latent_scale(self.networks, batches)
            self.networks.latent_scale.fill_(scale)
            _LOG.info("latent_scale = %.4f", scale)
        if stage.name == "detail":
            self.networks.add_detail()

    def loss(
        self, batch: Batch, generator: torch.Generator, setup: StageSetup
    ) -> Outcome:
        """Return the loss terms of the stage."""
        loss = LOSSES[setup.stage.name]
        return loss(self._model, Patches.of(batch), generator, setup)

    def export(self) -> Exported:
        """Return all networks but the encoder, which only training needs."""
        spec = make_spec(
            self.architecture,
            detail=self.networks.depsr_detail is not None,
            gsd=self.config.gsd,
            halo=self.config.halo,
        )
        tensors = {
            name: tensor
            for name, tensor in self.networks.state_dict().items()
            if not name.startswith("dpencoder.")
        }
        architecture = config_to_json(self.architecture)
        return Exported(tensors, spec, architecture)

    def validate(self, validation: Validation) -> Mapping[str, float]:
        """Return mean PSNR in dB by name and scale.

        Of bicubic, and of DEPSR with the true latent, with a zero latent and with the
        sampled latent: the sampled one is useful when it lies above zero and near the
        true one. The picture shows bicubic, result and truth at scale 4.
        """
        figures: dict[str, float] = {}
        for scale in _VALIDATION_SCALES:
            side = 48 if scale < 4 else 32
            both = (float(scale), float(scale))
            plan = PatchOptions(side, _VALIDATION_CROPS, both)
            patches = Patches.of(validation.batch(plan))
            images = self._enlarge_all(patches, validation.stage)
            for name, image in images.items():
                figures[f"psnr_{name}_x{scale}"] = mean_psnr(image, patches.hr)
            if scale == 4:
                shown = [images["bicubic"], list(images.values())[-1], patches.hr]
                write_picture(validation.picture, shown)
        return figures

    def _enlarge_all(self, patches: Patches, stage: str) -> dict[str, Tensor]:
        """Return the pictures that a validation compares by name, in [-1, 1]."""
        networks, lr, size = self.networks, patches.lr, patches.size
        detail = networks.depsr_detail if stage == "detail" else None
        depsr = detail or networks.depsr
        true = encode(networks, patches) / networks.latent_scale
        images = {
            "bicubic": functional.interpolate(lr, size, mode="bicubic"),
            "z_true": depsr(lr, true, size),
            "z_zero": depsr(lr, torch.zeros_like(true), size),
        }
        if stage != "autoencoder":
            z = sample_from_noise(
                self._model, patches, torch.Generator().manual_seed(0)
            )
            images["z_hat"] = depsr(lr, z / networks.latent_scale, size)
        return images
