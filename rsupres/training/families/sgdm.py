"""How SGDM is trained: its stages, their losses, and what is watched.

`stage1` and `sflow` are the paper's: the adapter and the U-Net's attention learn to
predict noise on a frozen Stable Diffusion, then two flows learn the styles of its HR
images, by exact likelihood. `autoencoder`, `diffusion` and `picture` are ours, for
small models that start from nothing: the KL autoencoder, the whole denoiser, and at
last denoiser and decoder together on the picture.

As in the released code the style image of a training patch is its HR picture, and the
prompt follows from the colours of its map.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.stable_diffusion import (
    AutoencoderConfig,
    UNetConfig,
    decode_latent,
    encode_moments,
)
from rsupres.diffusion.samplers import diffuse
from rsupres.diffusion.schedules import sqrt_linear_betas
from rsupres.errors import InputError
from rsupres.families.sgdm.network import (
    MINI,
    VARIANTS,
    ContentStyleEncoder,
    EncoderConfig,
    SgdmConfig,
    SgdmNetworks,
    trains_in_stage1,
)
from rsupres.families.sgdm.prompts import prompt_number
from rsupres.families.sgdm.resolver import (
    Sampling,
    config_to_json,
    empty_map,
    make_spec,
    sample_latent,
)
from rsupres.families.sgdm.style import FlowConfig
from rsupres.training.adapters import (
    Draw,
    Exported,
    Stage,
    Watch,
    choose_architecture,
)
from rsupres.training.batches import Batch, PatchOptions, PatchSource
from rsupres.training.config import StageConfig, TrainConfig
from rsupres.training.objectives import Job, Outcome, normal, picture_terms, uniform
from rsupres.training.validation import mean_psnr, write_picture

_LOG = logging.getLogger(__name__)
_SCALE_BATCHES = 100
_MAP_BATCHES = 8
_LAST_LAYER = "autoencoder.decoder.conv_out.weight"
_WATCHED_CROPS = 8
_WATCHED_SIDE = 24  # LR pixels

# "tiny" is for tests: every module of SGDM+ at its smallest, x4.
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
        unet=replace(MINI.unet, width=8, blocks=1),
        autoencoder=replace(MINI.autoencoder, width=8, groups=4),
        encoder=replace(MINI.encoder, stem=8, widths=(8, 8), out=16, guide=8),
    ),
}


class _Stage1(Stage):
    """The paper's choice of parameters, which goes by what a name contains."""

    def covers(self, parameter: str) -> bool:
        """Return whether the named parameter trains."""
        return trains_in_stage1(parameter)


@dataclass(frozen=True)
class SgdmOptions:
    """What SGDM takes beyond `TrainConfig`.

    Attributes:
        scale: SR pixels along an LR pixel; the only scale that the model will offer.
        recompute: keep no activations of the U-Net for the backward pass, but compute
            them again: less memory, a third more time (gradient checkpointing).
    """

    scale: int = 16
    recompute: bool = False


@dataclass(frozen=True)
class DiffusionOptions:
    """What the stages of the denoiser take.

    Attributes:
        drop_map: share of patches that see no map, so that a scene without one works.
    """

    drop_map: float = 0.0


@dataclass(frozen=True)
class SgdmTraining:
    """SGDM as the training loop sees it.

    Attributes:
        architecture: of the networks.
        config: the run.
        choices: the family's options.
        modules: all networks, the autoencoder's encoder too.
    """

    architecture: SgdmConfig
    config: TrainConfig
    choices: SgdmOptions
    modules: SgdmNetworks

    options: ClassVar[type[object]] = SgdmOptions
    stages: ClassVar[Mapping[str, Stage]] = {
        "stage1": _Stage1((), options=DiffusionOptions),
        "sflow": Stage(("flow_mean", "flow_std")),
        "autoencoder": Stage(("autoencoder",), _LAST_LAYER),
        "diffusion": Stage(("adapter", "unet"), options=DiffusionOptions),
        "picture": Stage(
            ("adapter", "unet", "autoencoder.decoder", "autoencoder.post_quant_conv"),
            _LAST_LAYER,
            options=DiffusionOptions,
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

    @property
    def networks(self) -> nn.Module:
        """All networks."""
        return self.modules

    def adopt(self, names: Collection[str]) -> None:
        """Do nothing: the networks are whole from the beginning."""

    def move(self, device: torch.device) -> None:
        """Bring the networks to a device."""
        self.modules.to(device)

    def enter(self, stage: StageConfig, draw: Draw | None) -> None:
        """Before a denoiser of our own: scale the latent, balance the map; check flows.

        Raises:
            InputError: stage `sflow` of a model without flows.
        """
        if stage.name == "sflow" and self.modules.flow_mean is None:
            raise InputError(
                "stage 'sflow': the architecture has no flow; set one in [overrides]."
            )
        if stage.name == "diffusion" and draw is not None:
            batches = [draw(k) for k in range(_SCALE_BATCHES)]
            scale = measure_latent_scale(self.modules, batches)
            self.modules.latent_scale.fill_(scale)
            _LOG.info("latent_scale = %.4f", scale)
            charts = [b.conditions.vector_map for b in batches]
            balance_map([c for c in charts if c is not None], self.modules)

    def loss(self, batch: Batch, generator: torch.Generator, job: Job) -> Outcome:
        """Return the loss terms of the stage."""
        patches = _Patches.of(batch, self.architecture)
        return _LOSSES[job.stage.name](self, patches, generator, job)

    def export(self) -> Exported:
        """Return all but the encoding half of an autoencoder of our own."""
        spec = make_spec(
            self.architecture,
            self.choices.scale,
            halo=self.config.halo,
            gsd=self.config.gsd,
        )
        tensors = {
            name: tensor
            for name, tensor in self.modules.state_dict().items()
            if not name.startswith(("autoencoder.encoder.", "autoencoder.quant_conv."))
        }
        return Exported(tensors, spec, config_to_json(self.architecture))

    def validate(self, watch: Watch) -> Mapping[str, float]:
        """Return mean PSNR in dB by name.

        Of bicubic, of the autoencoder, and of samples with and without the map; the
        picture shows bicubic, the sample with it, the autoencoder, and the truth.
        """
        scale = float(self.choices.scale)
        plan = PatchOptions(_WATCHED_SIDE, _WATCHED_CROPS, scale, scale)
        batch = PatchSource(watch.packs, plan, seed=1).batch(0).to(watch.device)
        patches = _Patches.of(batch, self.architecture)
        images = {
            "bicubic": 2.0 * patches.enlarged - 1.0,
            "autoencoder": self._decode(self.modules.encode(patches.hr)),
        }
        if watch.stage not in ("autoencoder", "sflow"):
            images["sample"] = self._decode(self._sample(patches, patches.chart))
            images["no_map"] = self._decode(self._sample(patches, patches.no_map))
        figures = {
            f"psnr_{name}": mean_psnr(image, patches.hr)
            for name, image in images.items()
        }
        shown = [images["bicubic"], *([images["sample"]] if "sample" in images else [])]
        write_picture(watch.picture, [*shown, images["autoencoder"], patches.hr])
        return figures

    def _sample(self, patches: _Patches, chart: Tensor | None) -> Tensor:
        """Return latents as inference finds them, always from the same noise."""
        style = None
        if self.architecture.encoder.style:
            style = self.modules.adapter.style(patches.hr)
        features = self.modules.features(patches.enlarged, chart, style)
        f = self.architecture.autoencoder.factor
        height, width = (side // f for side in patches.hr.shape[2:])
        channels = self.architecture.unet.latent
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(
            len(patches.hr), channels, height, width, generator=generator
        )
        sampling = Sampling("dpm++", min(self.architecture.sampling_steps, 10))
        context = self._context(patches, features[0])
        start = start.to(patches.hr.device)
        return sample_latent(self.modules, start, features, context, sampling)

    def _context(self, patches: _Patches, like: Tensor) -> Tensor | None:
        """Return the context of each patch's prompt, (b, tokens, width)."""
        if self.modules.contexts is None:
            return None
        if patches.chart is None:
            numbers = [0] * len(patches.hr)
        else:
            colours = (patches.chart * 255.0).round().byte().cpu().numpy()
            numbers = [prompt_number(chart) for chart in colours]
        chosen = torch.tensor(numbers, device=like.device)
        return self.modules.contexts[chosen]

    def _decode(self, z: Tensor) -> Tensor:
        """Return the picture of scaled latents in about [-1, 1]."""
        return 2.0 * self.modules.decode(z) - 1.0


class _Patches(NamedTuple):
    """A batch as the networks see it; `hr` in [-1, 1], the others in [0, 1].

    `chart` is the map, or the empty one; None for a model without.
    """

    hr: Tensor
    enlarged: Tensor
    chart: Tensor | None
    no_map: Tensor | None

    @classmethod
    def of(cls, batch: Batch, config: SgdmConfig) -> _Patches:
        last = torch.channels_last
        hr = (2.0 * batch.hr - 1.0).contiguous(memory_format=last)
        size = (hr.shape[2], hr.shape[3])
        enlarged = functional.interpolate(batch.lr, size, mode=config.enlarge)
        enlarged = enlarged.clamp(0.0, 1.0).contiguous(memory_format=last)
        if config.encoder.modulated is None:
            return cls(hr, enlarged, None, None)
        no_map = empty_map(config, enlarged)
        given = batch.conditions.vector_map
        return cls(hr, enlarged, no_map if given is None else given, no_map)


_Loss = Callable[[SgdmTraining, _Patches, torch.Generator, Job], Outcome]


def autoencoder_loss(
    training: SgdmTraining, patches: _Patches, generator: torch.Generator, job: Job
) -> Outcome:
    """Reconstruct HR through the sampled latent (Rombach et al. 2022, KL variant)."""
    autoencoder = training.modules.autoencoder
    mean, logvar = encode_moments(autoencoder, patches.hr)
    z = mean + (0.5 * logvar).exp() * normal(mean, generator).to(mean.dtype)
    image = decode_latent(autoencoder, z)
    terms = picture_terms(image, patches.hr, job)
    kl = 0.5 * (mean.float().square() + logvar.float().exp() - 1.0 - logvar.float())
    pixels = patches.hr[0].numel()
    terms["kl"] = job.stage.kl_weight * kl.flatten(1).sum(1).mean() / pixels
    return Outcome(terms, image, patches.hr)


def diffusion_loss(
    training: SgdmTraining, patches: _Patches, generator: torch.Generator, job: Job
) -> Outcome:
    """Predict the noise (or v) of a noised latent: mean squared error, uniform t."""
    guess = _guess(training, patches, generator, job)
    error = (guess.predicted.float() - guess.target).square().mean()
    return Outcome({training.architecture.prediction: error})


def picture_loss(
    training: SgdmTraining, patches: _Patches, generator: torch.Generator, job: Job
) -> Outcome:
    """Decode the x0 that a noised latent shows, and compare pictures.

    Not in the paper. A few steps from pure noise must end in a picture, so half of the
    patches start at the last step; a small share of the denoising loss stays.
    """
    guess = _guess(training, patches, generator, job, pure=0.5)
    image = 2.0 * training.modules.decode(guess.x0) - 1.0
    terms = picture_terms(image, patches.hr, job)
    error = (guess.predicted.float() - guess.target).square().mean()
    terms["latent"] = job.stage.prior_weight * error
    return Outcome(terms, image, patches.hr)


def sflow_loss(
    training: SgdmTraining, patches: _Patches, generator: torch.Generator, job: Job
) -> Outcome:
    """Return -mean log p of style means and deviations under their flows."""
    modules = training.modules
    assert modules.flow_mean is not None
    assert modules.flow_std is not None
    with torch.no_grad():
        style = modules.adapter.style(patches.hr)
    return Outcome(
        {
            "nll_mean": -modules.flow_mean.log_prob(style.mean.float()).mean(),
            "nll_std": -modules.flow_std.log_prob(style.std.float()).mean(),
        }
    )


_LOSSES: Mapping[str, _Loss] = {
    "stage1": diffusion_loss,
    "sflow": sflow_loss,
    "autoencoder": autoencoder_loss,
    "diffusion": diffusion_loss,
    "picture": picture_loss,
}


class _Guess(NamedTuple):
    """What the denoiser says of a noised latent, what it should, and its x0."""

    predicted: Tensor
    target: Tensor
    x0: Tensor


def _guess(
    training: SgdmTraining,
    patches: _Patches,
    generator: torch.Generator,
    job: Job,
    pure: float = 0.0,
) -> _Guess:
    """Noise the latents of a batch and let the denoiser look at them.

    Args:
        training: the networks.
        patches: the batch.
        generator: of all draws.
        job: the stage, with `DiffusionOptions`.
        pure: share of patches noised to the last step, others uniformly.
    """
    modules, config = training.modules, training.architecture
    assert isinstance(job.options, DiffusionOptions)
    n = len(patches.hr)
    size = [side // config.autoencoder.factor for side in patches.hr.shape[2:]]
    like = patches.hr.new_empty(n, config.autoencoder.latent, *size)
    with torch.no_grad():
        z0 = modules.encode(patches.hr, normal(like, generator)).float()
    t = (uniform(n, z0, generator) * config.steps).long().clamp_max(config.steps - 1)
    t = torch.where(uniform(n, z0, generator) < pure, config.steps - 1, t)
    betas = sqrt_linear_betas(config.steps, *config.beta)
    kept = torch.from_numpy(np.cumprod(1.0 - betas)).to(z0.device)[t]
    noise = normal(z0, generator)
    x_t = diffuse(z0, noise, kept)
    chart = _drop_map(patches, uniform(n, z0, generator) < job.options.drop_map)
    style = modules.adapter.style(patches.hr) if config.encoder.style else None
    features = modules.features(patches.enlarged, chart, style)
    shown = patches._replace(chart=chart)
    context = training._context(shown, z0)
    recompute = training.choices.recompute
    predicted = modules.predict(x_t, t, context, features, recompute=recompute)
    root, rest = (
        power.sqrt().to(z0.dtype)[:, None, None, None] for power in (kept, 1.0 - kept)
    )
    if config.prediction == "eps":
        return _Guess(predicted, noise, (x_t - rest * predicted) / root)
    target = root * noise - rest * z0
    return _Guess(predicted, target, root * x_t - rest * predicted.float())


def _drop_map(patches: _Patches, dropped: Tensor) -> Tensor | None:
    """Return the maps, the empty one where they are dropped."""
    if patches.chart is None or patches.no_map is None:
        return None
    where = dropped[:, None, None, None]
    return torch.where(where, patches.no_map, patches.chart)


def measure_latent_scale(networks: SgdmNetworks, batches: list[Batch]) -> float:
    """Return 1 / std of sampled latents over all patches of the batches."""
    means, variances = [], []
    with torch.no_grad():
        for batch in batches:
            moments = encode_moments(networks.autoencoder, 2.0 * batch.hr - 1.0)
            means.append(moments[0].flatten())
            variances.append(moments[1].exp().mean())
    spread = torch.cat(means).var() + torch.stack(variances).mean()
    return 1.0 / float(spread.sqrt())


@torch.no_grad()
def balance_map(charts: Sequence[Tensor], networks: SgdmNetworks) -> None:
    """Let each layer of the map's branch answer maps with mean 0 and deviation 1.

    Colours of street maps differ by a tenth of the range, so that a fresh branch says
    next to nothing beside LR's, and is never learned. Data-dependent initialisation
    (Salimans and Kingma 2016, section 3), the channels of a layer in common.

    Args:
        charts: maps of some batches, (b, 3, H, W) in [0, 1]; none = do nothing.
        networks: changed in place, where they have a map's branch.
    """
    encoder = networks.adapter.encoder
    if not charts or not isinstance(encoder, ContentStyleEncoder):
        return
    x = 2.0 * torch.cat(list(charts[:_MAP_BATCHES])) - 1.0
    x = x.contiguous(memory_format=torch.channels_last)
    found: list[tuple[Tensor, Tensor]] = []

    def remember(_conv: nn.Module, _inputs: object, answer: Tensor) -> None:
        found.append((answer.mean(dim=(0, 2, 3)), answer.std(dim=(0, 2, 3)).mean()))

    for layer in encoder.map_layers():
        conv = next(part for part in layer.modules() if isinstance(part, nn.Conv2d))
        handle = conv.register_forward_hook(remember)
        layer(x)
        handle.remove()
        mean, deviation = found[-1]
        assert conv.bias is not None
        conv.bias.sub_(mean).div_(deviation)
        conv.weight.div_(deviation)
        x = layer(x)
