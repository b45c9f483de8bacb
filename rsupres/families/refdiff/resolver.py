"""Ref-Diff: super-resolution with an earlier sharp image and a change mask.

Dong et al., "Building Bridges across Spatial and Temporal Resolutions: Reference-Based
Super-Resolution via Change Priors and Conditional Diffusion Model", CVPR 2024, arXiv
2403.17460.

=========================  =====================================================
Section, equation          Function or class
=========================  =====================================================
Sec. 3.2, U-Net            `rsupres.families.refdiff.network.RefDiffUNet`
Semantics-guided, texture  `rsupres.families.refdiff.blocks.SFT`
EDM preconditioning        `EdmDenoiser`, `rsupres.diffusion.precondition`
EDM sampling               `rsupres.diffusion.edm`
EDM loss                   `rsupres.training.families.refdiff.losses`
=========================  =====================================================

Where the paper and the released code differ, the code decides. Its quirks are kept
behind the sampler "released": sampling begins with 80 times the LR image, which the
network never saw in training, and takes 511 calls of the network. "heun", "dpm++" and
"euler" are few steps from noise; "mean" begins without any, which draws no random
texture; the closing stage of our own models trains exactly that.

A released model normalises over whole groups of channels and attends over the whole
tile, so its tiles differ a little; the shipped model does neither.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from rsupres.diffusion.denoiser import Denoiser, Noise
from rsupres.diffusion.edm import (
    Churn,
    karras_sigmas,
    sample_dpm_plus,
    sample_euler,
    sample_heun,
)
from rsupres.diffusion.precondition import edm_coefficients
from rsupres.errors import InputError
from rsupres.families.base import (
    FixedScales,
    ModelSpec,
    Precision,
    SamplerOptions,
    SceneContext,
    SceneReader,
    TileBatch,
)
from rsupres.families.refdiff.config import RefDiffConfig
from rsupres.families.refdiff.images import Start, make_frame, start_image
from rsupres.families.refdiff.lattice import fit_of_tiles, fit_scene
from rsupres.families.refdiff.network import (
    ConditionMaps,
    RefDiffUNet,
    freeze_,
    parameter_shapes,
)
from rsupres.families.storage import config_from_json, fit_tensors
from rsupres.grid import PixelWindow

if TYPE_CHECKING:
    from rsupres.diffusion.noise import NoiseField
    from rsupres.families.base import Checkpoint

logger = logging.getLogger(__name__)

_TYPES: Mapping[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Sampler:
    """One way from a start to a picture.

    Attributes:
        solver: "heun" calls the network ``2 steps - 1`` times, others `steps` times.
        start: what it begins with.
        churn: noise added on the way.
        steps: default, where the checkpoint names none for this sampler.
        exact: keep the state in float64 and sum convolutions in the more accurate of
            torch's layouts; hundreds of calls amplify what is lost.
    """

    solver: Literal["heun", "dpm++", "euler"]
    start: Start
    churn: Churn
    steps: int
    exact: bool = False

    def calls(self, steps: int) -> int:
        """Return how often the network is called."""
        return 2 * steps - 1 if self.solver == "heun" else steps


SAMPLERS: Mapping[str, Sampler] = {
    "released": Sampler("heun", "lr", Churn(40.0), 256, exact=True),
    "heun": Sampler("heun", "noise", Churn(), 18),
    "heun-lr": Sampler("heun", "lr", Churn(), 18),
    "dpm++": Sampler("dpm++", "noise", Churn(), 12),
    "euler": Sampler("euler", "noise", Churn(), 18),
    "mean": Sampler("euler", "zero", Churn(), 3),
}
UNROLLED = "mean"  # of models whose closing stage trained just this with its steps


@dataclass(frozen=True)
class EdmDenoiser:
    """D of one tile batch: noisy image and noise level to the clean image.

    The embedding of a noise level is found once and serves all tiles.

    Attributes:
        network: F.
        maps: conditions of the batch, resized.
        shifts: embeddings by noise level, shared by the batches of a run; grows.
    """

    network: RefDiffUNet
    maps: ConditionMaps
    shifts: dict[float, Tensor] = field(default_factory=dict)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Return the clean image, of the type of `x`, at one noise level for all."""
        level = torch.tensor([sigma], dtype=torch.float32, device=x.device)
        if sigma not in self.shifts:
            rows = edm_coefficients(level)
            self.shifts[sigma] = self.network.shifts(rows.c_noise)
        return self._denoise(x, level, self.shifts[sigma])

    def at(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the clean image with one noise level (b,) a sample.

        Args:
            x: the noisy image, (b, 3, H, W).
            sigma: (b,) noise levels.
        """
        shifts = self.network.shifts(edm_coefficients(sigma).c_noise)
        return self._denoise(x, sigma, shifts)

    def _denoise(self, x: Tensor, sigma: Tensor, shifts: Tensor) -> Tensor:
        c_skip, c_out, c_in, _ = (
            part[:, None, None, None] for part in edm_coefficients(sigma)
        )
        noisy = x.float()
        raw = self.network(c_in * noisy, shifts, self.maps)
        denoised: Tensor = c_skip * noisy + c_out * raw.float()
        return denoised.to(x.dtype)


@dataclass(frozen=True)
class RefDiff:
    """The resolver: Ref-Diff on scenes.

    Attributes:
        spec: what the model needs.
        network: on its device, in eval mode.
        config: the architecture.
        sampler: how it samples.
        sigmas: noise levels, falling to 0.
        device: of the network.
        shifts: embeddings by noise level; grows.
    """

    spec: ModelSpec
    network: RefDiffUNet
    config: RefDiffConfig
    sampler: Sampler
    sigmas: np.ndarray
    device: torch.device
    shifts: dict[float, Tensor] = field(default_factory=dict)

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: NoiseField
    ) -> SceneContext:
        """Fit the reference, where the model does that; warn of what is not given."""
        side = min(scene.height, scene.width, 4)
        corner = PixelWindow(0, 0, side, side).scaled(scale)
        given = scene.read_conditions(corner)
        if given.reference is None:
            logger.warning(
                "No reference is given: Ref-Diff then has no texture to take over and"
                " does little more than interpolate.",
                extra={"remedies": ("reference",)},
            )
        elif given.change_mask is None and "change_mask" in self.spec.accepts:
            logger.warning(
                "No change mask is given: all ground counts as unchanged since the"
                " reference.",
                extra={"remedies": ("change_mask", "change_mask=detect")},
            )
        if given.reference is None or not self.config.fit:
            return SceneContext()
        return fit_scene(scene, scale, self.config)

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        """Sample each tile; noise belongs to the ground that a tile shows."""
        given = batch.conditions
        frame = make_frame(
            batch.lr.to(self.device),
            given.reference,
            given.reference_valid,
            given.change_mask,
            scale,
            self.config,
            fit_of_tiles(batch.scene, batch.windows_lr, scale, self.device),
            self.network.base,
        )
        denoise = EdmDenoiser(
            self.network,
            self.network.maps(frame.guidance),
            self.shifts,
        )

        kind = torch.float64 if self.sampler.exact else torch.float32

        def normal(draw: int) -> Tensor:
            fields = [batch.noise.draw(draw, w, 3) for w in batch.windows_sr]
            return torch.from_numpy(np.stack(fields)).to(self.device, kind)

        x = sample(
            denoise, frame.guidance.lr.to(kind), self.sampler, self.sigmas, normal
        )
        return frame.picture(x).float().clamp(0.0, 1.0)


def sample(
    denoise: Denoiser[float],
    lr: Tensor,
    sampler: Sampler,
    sigmas: np.ndarray,
    normal: Noise,
) -> Tensor:
    """Return the picture (b, 3, H, W) in [-1, 1] that a sampler makes.

    Args:
        denoise: D.
        lr: the enlarged LR image, (b, 3, H, W) in [-1, 1]; its type is the state's.
        sampler: how.
        sigmas: noise levels, falling to 0.
        normal: maps the number of a draw to standard normals of the shape of `lr`; 0 is
            the start's, 1 + k that of step k.
    """
    x = start_image(sampler.start, float(sigmas[0]), lr, lambda: normal(0))
    if sampler.solver == "euler":
        return sample_euler(denoise, x, sigmas)
    if sampler.solver == "dpm++":
        return sample_dpm_plus(denoise, x, sigmas)
    return sample_heun(denoise, x, sigmas, sampler.churn, lambda k: normal(1 + k))


def from_checkpoint(
    checkpoint: Checkpoint, device: torch.device, options: SamplerOptions
) -> RefDiff:
    """Return the model of a checkpoint, ready for scenes.

    Raises:
        CheckpointError: architecture or tensors do not fit.
        InputError: an unknown sampler or an impossible number of steps.
    """
    config = config_from_json(RefDiffConfig, checkpoint.architecture, checkpoint.path)
    name = options.sampler or config.sampler
    if name not in SAMPLERS:
        raise InputError(
            f"{name}: unknown to Ref-Diff; known: {', '.join(SAMPLERS)}.",
            argument="sampler",
        )
    own = config.steps if name == config.sampler else SAMPLERS[name].steps
    steps = own if options.steps is None else options.steps
    if steps < 1:
        raise InputError(f"{steps}: Ref-Diff needs one or more.", argument="steps")
    if config.sampler == UNROLLED and (name, steps) != (UNROLLED, config.steps):
        logger.warning(
            "%s: its last stage trained %d steps of the sampler '%s' as a whole; "
            "%d of '%s' give poorer pictures.",
            checkpoint.path,
            config.steps,
            UNROLLED,
            steps,
            name,
        )
    fit_tensors(checkpoint.tensors, parameter_shapes(config), checkpoint.path)
    network = RefDiffUNet(config)
    network.load_state_dict({k: v.float() for k, v in checkpoint.tensors.items()})
    network.to(device)
    if not SAMPLERS[name].exact:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
    freeze_(network, _TYPES[options.precision])
    sigmas = karras_sigmas(steps, config.sigma_min, config.sigma_max, config.rho)
    return RefDiff(
        checkpoint.spec,
        network,
        config,
        SAMPLERS[name],
        sigmas,
        device,
    )


def make_spec(
    config: RefDiffConfig,
    *,
    scales: frozenset[Fraction],
    gsd: tuple[float, float] | None,
    halo: int,
    classes: str | None,
) -> ModelSpec:
    """Return the spec of a model of this architecture.

    Args:
        config: the architecture.
        scales: those that it was trained for.
        gsd: metres per LR pixel seen in training.
        halo: LR pixels at a tile edge that must not be trusted.
        classes: class table of its change masks. A model that is shown class codes
            accepts no mask without it: a wrong table would shift every condition.
    """
    sampler = SAMPLERS[config.sampler]
    mask = config.mask == "outlined" or classes is not None
    accepts = {"reference", *(("change_mask",) if mask else ())}
    return ModelSpec(
        family="refdiff",
        scales=FixedScales(scales),
        bands=("red", "green", "blue"),
        # A model that interpolates without a reference is of use there, too.
        needs=frozenset() if config.image == "detail" else frozenset({"reference"}),
        accepts=frozenset(accepts),
        # In tiles of 32, as trained, with a halo of 8 each pixel is made 16 times.
        tile_size=64,
        multiple=config.multiple,
        halo=halo,
        gsd=gsd,
        stochastic=sampler.start == "noise" or sampler.churn.amount > 0,
        steps=config.steps,
        classes=classes,
    )
