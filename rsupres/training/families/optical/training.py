"""Training of the optical family for the training loop.

====================  ===============================================================
Stage                 Trains
====================  ===============================================================
``mean``              trunk and mean tail: the expected picture
``draw``              the tail of draws on a trunk that stays, by a proper score
``spread``            the predicted error of a mean that stays
``estimator``         the reading of blur, noise and JPEG from a scene
====================  ===============================================================

LR images are made here, not by the packs, because the network takes facts of the sensor
that made them: each fact in half of the images, none in a fifth, all in a fifth of the
rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rsupres.degradations.any_sensor import AnySensor, Taken
from rsupres.degradations.spectra import SpectrumParams, change_spectra
from rsupres.evaluation.perceptual.lpips import LpipsSqueeze
from rsupres.families.optical import sensing
from rsupres.families.optical.config import FACTS, SMALL, Facts, OpticalConfig
from rsupres.families.optical.features import describe
from rsupres.families.optical.network import OpticalNetwork
from rsupres.families.optical.resolver import make_spec
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
from rsupres.training.families.optical.losses import (
    draw_loss,
    feature_loss,
    mean_loss,
    spread_loss,
)
from rsupres.training.losses import Outcome, StageSetup, image_weights
from rsupres.training.registry import choose_architecture, stage_options
from rsupres.training.validation import mean_psnr, write_picture

# "tiny" is for tests.
ARCHITECTURES: Mapping[str, OpticalConfig] = {
    "small": replace(
        SMALL,
        units=6,
        noise=16,
        texture=16,
        estimator=128,
        spread=64,
        spread_blocks=2,
    ),
    "tiny": OpticalConfig(
        *(16, 2, 1, 8), noise=2, texture=4, estimator=8, spread=8, spread_blocks=1
    ),
}
_VALIDATION_CROPS = 12
_VALIDATION_LR_SIDE = 32
_FEATURE_BATCHES = 8  # from which the estimator's inputs are scaled
_PERCENTILES = (0.02, 0.98)  # as the resolver takes levels
_MIN_SPAN = 0.02
_LPIPS_SIDE = 64  # pixels; smaller pictures have too few features


@dataclass(frozen=True)
class DrawOptions:
    """Options of the stage "draw".

    Attributes:
        fresh: the tail begins as that of the mean; otherwise it goes on.
    """

    fresh: bool = True


@dataclass(frozen=True)
class OpticalTraining(FamilyTraining):
    """An optical model for the training loop."""

    architecture: OpticalConfig
    config: TrainConfig
    networks: OpticalNetwork

    options: ClassVar[type[object]] = NoOptions
    may_begin_fresh: ClassVar[tuple[str, ...]] = (
        *("draw.", "noise_in.", "texture.", "spread."),
    )
    stages: ClassVar[Mapping[str, Stage]] = {
        "mean": Stage(("conv_in", "film", "units", "mean")),
        "draw": Stage(("draw", "noise_in", "texture"), options=DrawOptions),
        "spread": Stage(("spread",)),
        "estimator": Stage(("estimator",)),
    }

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        """Make a fresh network, channels last."""
        architecture = choose_architecture(config, ARCHITECTURES)
        network = OpticalNetwork(architecture)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
        return cls(architecture, config, network)

    def prepare_stage(self, stage: StageConfig, draw: DrawBatch | None) -> None:
        """Start draws from the mean, or scale the estimator's inputs."""
        if draw is None:
            return
        options = stage_options(self, stage)
        if isinstance(options, DrawOptions) and options.fresh:
            assert self.networks.draw is not None
            self.networks.draw.load_state_dict(self.networks.mean.state_dict())
        if stage.name == "estimator":
            generator = torch.Generator().manual_seed(self.config.seed)
            batches = [
                _describe_all(_take(draw(k), generator)[0])[0]
                for k in range(_FEATURE_BATCHES)
            ]
            assert self.networks.estimator is not None
            sensing.prepare_features(self.networks.estimator, torch.cat(batches))

    def loss(
        self, batch: Batch, generator: torch.Generator, setup: StageSetup
    ) -> Outcome:
        """Return the loss of the stage on LR images that are made here."""
        taken, truth = _take(batch, generator)
        if setup.stage.name == "estimator":
            return Outcome({"estimator": self._estimator_loss(taken)})
        told = _tell(taken, float(batch.scale), generator).to(batch.hr.device)
        lr = 2.0 * taken.lr.to(batch.hr.device) - 1.0
        lr = lr.contiguous(memory_format=torch.channels_last)
        size = (truth.shape[2], truth.shape[3])
        bicubic = functional.interpolate(lr, size, mode="bicubic") / 2.0 + 0.5
        if setup.stage.name == "spread":
            return Outcome({"spread": self._spread_loss(lr, told, truth)})
        weights = image_weights(bicubic, truth)
        if setup.stage.name == "mean":
            image = self.networks(lr, told, size) / 2.0 + 0.5
            return Outcome({"mean": mean_loss(image, truth, weights)})
        first, second = (
            self._draw(lr, told, size, generator) / 2.0 + 0.5 for _ in range(2)
        )
        terms = {"draw": draw_loss(first, second, truth, weights)}
        perceptual = setup.perceptual
        if isinstance(perceptual, LpipsSqueeze) and min(size) >= _LPIPS_SIDE:
            maps = [perceptual.maps(2.0 * x - 1.0) for x in (first, second, truth)]
            score = feature_loss(maps[0], maps[1], maps[2], weights)
            terms["perceptual"] = setup.stage.perceptual_weight * score
        return Outcome(terms)

    def export(self) -> Exported:
        """Return the network."""
        spread = self.networks.spread
        spec = make_spec(
            self.architecture,
            gsd=self.config.gsd,
            halo=self.config.halo,
            tails=() if spread is None else tuple(spread.tails.tolist()),
        )
        return Exported(self.networks.state_dict(), spec, asdict(self.architecture))

    def validate(self, validation: Validation) -> Mapping[str, float]:
        """Return PSNR of bicubic and of the mean on held-out crops, LR bicubic."""
        plan = PatchOptions(
            _VALIDATION_LR_SIDE, _VALIDATION_CROPS, fixed_scales=(float(SMALL.up),)
        )
        batch = validation.batch(plan)
        lr, hr = 2.0 * batch.lr - 1.0, 2.0 * batch.hr - 1.0
        told = torch.tensor(Facts().as_numbers(float(batch.scale)))
        told = told.expand(len(lr), -1).to(lr.device)
        size = (hr.shape[2], hr.shape[3])
        bicubic = functional.interpolate(lr, size, mode="bicubic")
        image = self.networks(lr, told, size)
        write_picture(validation.picture, [bicubic, image, hr])
        return {"psnr_bicubic": mean_psnr(bicubic, hr), "psnr": mean_psnr(image, hr)}

    def _draw(
        self,
        lr: Tensor,
        told: Tensor,
        size: tuple[int, int],
        generator: torch.Generator,
    ) -> Tensor:
        with torch.no_grad():
            features, first = self.networks.trunk(lr, told)
        shape = (len(lr), self.architecture.drawn, *lr.shape[2:])
        noise = torch.randn(shape, generator=generator).to(lr.device)
        residual = self.networks.sample(features, first, told, noise)
        return self.networks.enlarge(residual, lr, size)

    def _spread_loss(self, lr: Tensor, told: Tensor, truth: Tensor) -> Tensor:
        """Return the negative log likelihood of errors; note their shape."""
        network = self.networks
        size = (truth.shape[2], truth.shape[3])
        assert network.spread is not None
        with torch.no_grad():
            features, first = network.trunk(lr, told)
            last = network.mean.features(features, first, told)
            image = network.enlarge(network.mean.head(last), lr, size) / 2.0 + 0.5
        logs = network.fine(network.spread(last), size)
        network.spread.note(image - truth, logs)
        return spread_loss(image - truth, logs)

    def _estimator_loss(self, taken: Taken) -> Tensor:
        assert self.networks.estimator is not None
        features, told = _describe_all(taken)
        device = self.networks.estimator.mean.device
        with torch.autocast(device.type, enabled=False):
            estimated = self.networks.estimator(features.to(device))
            return sensing.loss(estimated, told.to(device))


def _take(batch: Batch, generator: torch.Generator) -> tuple[Taken, Tensor]:
    """Return LR images of any sensor, and their truth with other spectra."""
    truth = change_spectra(batch.hr.float().cpu(), generator, SpectrumParams())
    size = (batch.lr.shape[2], batch.lr.shape[3])
    return AnySensor().take(truth, size, generator), truth.to(batch.hr.device)


def _tell(taken: Taken, scale: float, generator: torch.Generator) -> Tensor:
    """Return (b, FACTS): the facts of each image that the network is given."""
    told = torch.zeros(len(taken.lr), FACTS)
    chances = torch.rand(len(taken.lr), 5, generator=generator)
    for row, chance in enumerate(chances):
        known = chance[:3] < 0.5
        if chance[3] < 0.2:
            known[:] = False
        elif chance[4] < 0.2:
            known[:] = True
        facts = _facts_of(taken, row, 1.0)
        known[0] &= not taken.interpolated[row]  # warped pixels have no single blur
        numbers = Facts(
            transfer=facts.transfer if known[0] else None,
            noise=facts.noise if known[1] else None,
            quality=facts.quality if known[2] else None,
        ).as_numbers(scale)
        told[row] = torch.tensor(numbers)
    return told


def _facts_of(taken: Taken, row: int, span: float) -> Facts:
    """Return all facts of an image whose levels are `span` apart."""
    return Facts(
        transfer=tuple(float(value) for value in taken.transfer[row]),
        noise=float(taken.noise[row]) / span,
        quality=float(taken.quality[row]),
    )


def _describe_all(taken: Taken) -> tuple[Tensor, Tensor]:
    """Return features (b, n) of images in their own levels, and the true facts."""
    features, told = [], []
    for row, image in enumerate(taken.lr):
        limits = torch.quantile(image.flatten(1), torch.tensor(_PERCENTILES), dim=1)
        low = float(limits[0].min())
        span = max(float(limits[1].max()) - low, _MIN_SPAN)
        features.append(describe([((image - low) / span).numpy()]))
        numbers = _facts_of(taken, row, span).as_numbers(1.0)
        told.append([*numbers[2:6], numbers[7], numbers[9]])
    return torch.from_numpy(np.stack(features)), torch.tensor(told)
