"""How E2DiffSR is trained: its stages, their losses, and what is watched.

Wu, Mo, Sun, Ma, arXiv 2410.22830, Eqs. 12 and 13; `closing`, `joint` and `detail` are
not in the paper and say so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.families.e2diffsr.config import (
    PAPER,
    SMALL,
    E2DiffSRConfig,
    enlarge_to_working_grid,
    latent_size,
)
from rsupres.families.e2diffsr.latent import kl_per_sample, split_moments
from rsupres.families.e2diffsr.network import E2DiffSRNetworks
from rsupres.families.e2diffsr.resolver import (
    latent_posterior,
    make_spec,
    sample_latent,
)
from rsupres.training.adapters import (
    Draw,
    Exported,
    NoOptions,
    Stage,
    Watch,
    choose_architecture,
)
from rsupres.training.batches import Batch, PatchOptions, PatchSource
from rsupres.training.config import StageConfig, TrainConfig
from rsupres.training.objectives import Job, Outcome, normal, picture_terms, uniform
from rsupres.training.validation import mean_psnr, write_picture

_LOG = logging.getLogger(__name__)
_LATENT_SCALE_BATCHES = 200
_LAST_LAYER = "csum.fuse.8.weight_v"
_WATCHED_SCALES = (Fraction(4), Fraction(2))
_WATCHED_CROPS = 12


@dataclass(frozen=True)
class E2DiffSRTraining:
    """E2DiffSR as the training loop sees it.

    Attributes:
        architecture: of the networks.
        config: the run.
        modules: all networks, those for training too.
    """

    architecture: E2DiffSRConfig
    config: TrainConfig
    modules: E2DiffSRNetworks

    options: ClassVar[type[object]] = NoOptions
    stages: ClassVar[Mapping[str, Stage]] = {
        "autoencoder": Stage(("dpencoder", "depsr"), f"depsr.{_LAST_LAYER}"),
        "prior": Stage(("condnet", "unet")),
        "closing": Stage(("depsr",), f"depsr.{_LAST_LAYER}"),
        "joint": Stage(("depsr", "condnet", "unet"), f"depsr.{_LAST_LAYER}"),
        "detail": Stage(("depsr_detail",), f"depsr_detail.{_LAST_LAYER}"),
    }

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        """Make fresh networks."""
        named = {"paper": PAPER, "small": SMALL}
        architecture = choose_architecture(config, named)
        return cls(architecture, config, E2DiffSRNetworks(architecture))

    @property
    def networks(self) -> nn.Module:
        """All networks."""
        return self.modules

    def adopt(self, names: Collection[str]) -> None:
        """Add the detail weights if any are named."""
        if any(name.startswith("depsr_detail.") for name in names):
            self.modules.add_detail()

    def move(self, device: torch.device) -> None:
        """Bring the networks to a device; channels last halves CSUM's time on a CPU."""
        last = torch.channels_last
        self.modules.to(device).to(memory_format=last)  # type: ignore[call-overload]  # torch omits it

    def enter(self, stage: StageConfig, draw: Draw | None) -> None:
        """Measure the latent's scale before the prior; add detail weights for them."""
        if stage.name == "prior" and draw is not None:
            batches = (draw(k) for k in range(_LATENT_SCALE_BATCHES))
            scale = measure_latent_scale(self.modules, list(batches))
            self.modules.latent_scale.fill_(scale)
            _LOG.info("latent_scale = %.4f", scale)
        if stage.name == "detail":
            self.modules.add_detail()

    def loss(self, batch: Batch, generator: torch.Generator, job: Job) -> Outcome:
        """Return the loss terms of the stage."""
        loss = _LOSSES[job.stage.name]
        return loss(self, _Patches.of(batch), generator, job)

    def export(self) -> Exported:
        """Return all but the encoder of differences, which only training needs."""
        spec = make_spec(
            self.architecture,
            detail=self.modules.depsr_detail is not None,
            gsd=self.config.gsd,
            halo=self.config.halo,
        )
        tensors = {
            name: tensor
            for name, tensor in self.modules.state_dict().items()
            if not name.startswith("dpencoder.")
        }
        architecture = json.loads(json.dumps(asdict(self.architecture)))
        return Exported(tensors, spec, architecture)

    def validate(self, watch: Watch) -> Mapping[str, float]:
        """Return mean PSNR in dB by name and scale.

        Of bicubic, of DEPSR with the true latent, with the latent at zero and with the
        sampled latent: they tell whether the latent carries what LR can predict. The
        picture shows bicubic, result and truth at scale 4.
        """
        figures: dict[str, float] = {}
        for scale in _WATCHED_SCALES:
            side = 48 if scale < 4 else 32
            plan = PatchOptions(side, _WATCHED_CROPS, float(scale), float(scale))
            batch = PatchSource(watch.packs, plan, seed=1).batch(0).to(watch.device)
            patches = _Patches.of(batch)
            images = self._enlarge_all(patches, watch.stage)
            for name, image in images.items():
                figures[f"psnr_{name}_x{scale}"] = mean_psnr(image, patches.hr)
            if scale == 4:
                shown = [images["bicubic"], list(images.values())[-1], patches.hr]
                write_picture(watch.picture, shown)
        return figures

    def _enlarge_all(self, patches: _Patches, stage: str) -> dict[str, Tensor]:
        """Return the pictures that a validation compares, in [-1, 1]."""
        networks, lr, size = self.modules, patches.lr, patches.size
        detail = networks.depsr_detail if stage == "detail" else None
        depsr = detail or networks.depsr
        true = encode(networks, patches) / networks.latent_scale
        images = {
            "bicubic": functional.interpolate(lr, size, mode="bicubic"),
            "z_true": depsr(lr, true, size),
            "z_zero": depsr(lr, torch.zeros_like(true), size),
        }
        if stage != "autoencoder":
            z = _sample(self, patches, torch.Generator().manual_seed(0))
            images["z_hat"] = depsr(lr, z / networks.latent_scale, size)
        return images


class _Patches(NamedTuple):
    """A batch as the networks see it, in [-1, 1]; `enlarged` on the working grid."""

    hr: Tensor
    lr: Tensor
    enlarged: Tensor
    scale: Fraction

    @property
    def size(self) -> tuple[int, int]:
        return self.hr.shape[2], self.hr.shape[3]

    @classmethod
    def of(cls, batch: Batch) -> _Patches:
        hr, lr = 2.0 * batch.hr - 1.0, 2.0 * batch.lr - 1.0
        enlarged = enlarge_to_working_grid(lr, (hr.shape[2], hr.shape[3]))
        return cls(hr, lr, enlarged, batch.scale)


_Loss = Callable[[E2DiffSRTraining, _Patches, torch.Generator, Job], Outcome]


def autoencoder_loss(
    training: E2DiffSRTraining, patches: _Patches, generator: torch.Generator, job: Job
) -> Outcome:
    """Stage 1 (Eq. 12): reconstruct HR from LR and the encoded difference."""
    stage, size = job.stage, patches.size
    mean, logvar = _moments(training.modules, patches)
    z = mean + (0.5 * logvar).exp() * normal(mean, generator)
    z = _disturb(z, stage, generator)
    image = training.modules.depsr(patches.lr, z, size)
    terms = picture_terms(image, patches.hr, job)
    pixels = 3 * size[0] * size[1]
    terms["kl"] = stage.kl_weight * kl_per_sample(mean, logvar).mean() / pixels
    return Outcome(terms, image, patches.hr)


def prior_loss(
    training: E2DiffSRTraining, patches: _Patches, generator: torch.Generator, job: Job
) -> Outcome:
    """Stage 2 (Eq. 13): L1 from the unrolled sample and the condition to the latent."""
    networks, architecture = training.modules, training.architecture
    with torch.no_grad():
        z0 = encode(networks, patches)
    cond = networks.condnet(patches.enlarged)
    signal = float(latent_posterior(architecture).alpha_bar[-1])
    noise = normal(z0, generator)
    noised = signal**0.5 * z0 + (1.0 - signal) ** 0.5 * noise
    pure = uniform(len(z0), z0, generator) < job.stage.pure_noise
    start = torch.where(pure[:, None, None, None], noise, noised)
    z = sample_latent(networks.unet, cond, start, patches.scale, architecture)
    return Outcome({"latent": (z - z0).abs().mean(), "cond": (cond - z0).abs().mean()})


def closing_loss(
    training: E2DiffSRTraining, patches: _Patches, generator: torch.Generator, job: Job
) -> Outcome:
    """Train DEPSR on the latents that inference gives it (training notes, stage 3)."""
    with torch.no_grad():
        z = _sample(training, patches, generator)
    return _decode(training, training.modules.depsr, z, patches, generator, job)


def joint_loss(
    training: E2DiffSRTraining, patches: _Patches, generator: torch.Generator, job: Job
) -> Outcome:
    """Train DEPSR, CondNet and denoiser together on the picture, as DiffIR does.

    Not in the paper. The picture's gradient runs back through the unrolled chain, so
    the latent learns what DEPSR can use of what LR tells; a small L1 to the encoded
    latent keeps it what it is.
    """
    z = _sample(training, patches, generator)
    outcome = _decode(training, training.modules.depsr, z, patches, generator, job)
    with torch.no_grad():
        z0 = encode(training.modules, patches)
    anchor = job.stage.prior_weight * (z - z0).abs().mean()
    return outcome._replace(terms={**outcome.terms, "latent": anchor})


def detail_loss(
    training: E2DiffSRTraining, patches: _Patches, generator: torch.Generator, job: Job
) -> Outcome:
    """Tune the second set of DEPSR weights for natural texture."""
    assert training.modules.depsr_detail is not None
    with torch.no_grad():
        z = _sample(training, patches, generator)
    return _decode(training, training.modules.depsr_detail, z, patches, generator, job)


_LOSSES: Mapping[str, _Loss] = {
    "autoencoder": autoencoder_loss,
    "prior": prior_loss,
    "closing": closing_loss,
    "joint": joint_loss,
    "detail": detail_loss,
}


def encode(networks: E2DiffSRNetworks, patches: _Patches) -> Tensor:
    """Return the scaled latent mean of HR pictures, sides multiples of 8."""
    return _moments(networks, patches)[0] * networks.latent_scale


def measure_latent_scale(networks: E2DiffSRNetworks, batches: list[Batch]) -> float:
    """Return 1 / std of the latent mean over all patches of the batches."""
    with torch.no_grad():
        means = [_moments(networks, _Patches.of(b))[0].flatten() for b in batches]
    return 1.0 / float(torch.cat(means).std())


def _moments(networks: E2DiffSRNetworks, patches: _Patches) -> tuple[Tensor, Tensor]:
    both = torch.cat([patches.hr, patches.enlarged], dim=1)
    return split_moments(networks.dpencoder(both))


def _sample(
    training: E2DiffSRTraining, patches: _Patches, generator: torch.Generator
) -> Tensor:
    """Return the scaled latent that inference would find, from pure noise."""
    networks = training.modules
    cond = networks.condnet(patches.enlarged)
    noise = normal(cond, generator)
    return sample_latent(
        networks.unet, cond, noise, patches.scale, training.architecture
    )


def _decode(
    training: E2DiffSRTraining,
    depsr: nn.Module,
    z: Tensor,
    patches: _Patches,
    generator: torch.Generator,
    job: Job,
) -> Outcome:
    """Return the losses of the picture that DEPSR makes of a scaled latent."""
    assert z.shape[2:] == latent_size(*patches.size)
    z = _disturb(z / training.modules.latent_scale, job.stage, generator)
    image = depsr(patches.lr, z, patches.size)
    return Outcome(picture_terms(image, patches.hr, job), image, patches.hr)


def _disturb(z: Tensor, stage: StageConfig, generator: torch.Generator) -> Tensor:
    """Zero the latent of a batch, or add noise of half its deviation, or do neither."""
    chance = float(uniform(1, z, generator))
    if chance < stage.drop_prior:
        return torch.zeros_like(z)
    if chance < stage.drop_prior + stage.noise_prior:
        return z + 0.5 * z.detach().std() * normal(z, generator)
    return z
