"""E2DiffSR: continuous-scale super-resolution by a latent of the HR-LR difference.

Wu, Mo, Sun, Ma, "Latent Diffusion, Implicit Amplification: Efficient Continuous-Scale
Super-Resolution for Remote Sensing Images", arXiv 2410.22830.

=====================  =========================================================
Equation, section      Function or class
=====================  =========================================================
Eq. 1                  `Encoder` as DPEncoder, `split_moments`
Eq. 2                  `PriorDecoder`
Eqs. 3-5               `SRBranch`, `FRU`, `IMDB`
Sec. III-C             `CSUM`
Eqs. 7-10, Alg. 1, 2   `latent_posterior`, `sample_latent`
Eq. 12, 13             `rsupres.training.families.e2diffsr`
=====================  =========================================================

The networks are in `network`, `latent` and `branch`, positions in `geometry`. This
module runs them on scenes: `prepare` finds
the latent of the whole scene once, in its own tiles, blended in latent space; `upscale`
runs DEPSR on a tile, reading the shared latent at absolute positions. So the
user's tile size changes neither noise nor latent; only DEPSR's halo depends on tiles.

Corrections of the paper: the signs of Eq. 10, the order of the variances (rising with
t), no noise at the last step, Eq. 4 normalised as the text means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blend import Mosaic
from rsupres.blocks.bfloat16 import autocast
from rsupres.blocks.resample import resample
from rsupres.diffusion.denoiser import Noise
from rsupres.diffusion.samplers import sample_posterior
from rsupres.diffusion.schedules import Posterior, linear_betas, sqrt_linear_betas
from rsupres.errors import InputError
from rsupres.families.base import (
    ModelSpec,
    SamplerOptions,
    ScaleRange,
    SceneContext,
    SceneReader,
    TileBatch,
)
from rsupres.families.e2diffsr.config import CELL, E2DiffSRConfig, conditioning_scale
from rsupres.families.e2diffsr.geometry import Geometry, latent_tiles, span_taps
from rsupres.families.e2diffsr.network import E2DiffSRNetworks
from rsupres.families.levels import band_levels, scene_levels
from rsupres.families.storage import config_from_json, fill_network
from rsupres.grid import PixelWindow
from rsupres.tile_grid import machine_memory

if TYPE_CHECKING:
    from rsupres.diffusion.noise import NoiseField
    from rsupres.families.base import Checkpoint

_ROWS_AT_ONCE = 16  # SR rows of CSUM's MLP at a time: exact, and kind to caches


def latent_posterior(config: E2DiffSRConfig) -> Posterior:
    """Return the coefficients of the model's reverse chain."""
    betas = linear_betas if config.schedule == "linear" else sqrt_linear_betas
    return Posterior.from_betas(betas(config.steps, *config.beta))


def sample_latent(
    unet: nn.Module,
    cond: Tensor,
    start: Tensor,
    scale: Fraction,
    config: E2DiffSRConfig,
    noise: Noise | None = None,
) -> Tensor:
    """Return the scaled latent z_0, (b, C, n, m) float32, of the reverse chain.

    Args:
        unet: the denoiser.
        cond: CondNet's output, (b, C, n, m).
        start: z_T, same shape.
        scale: true scale; clipped for conditioning.
        config: the architecture.
        noise: see `sample_posterior`.
    """
    conditioning = torch.full(
        (len(cond),), conditioning_scale(scale, config.s_max), device=cond.device
    )

    def predict(z: Tensor, t: int) -> Tensor:
        step = torch.full((len(z),), t - 1, device=z.device)
        predicted: Tensor = unet(z, cond, step, conditioning)
        return predicted

    posterior = latent_posterior(config)
    return sample_posterior(predict, start.float(), posterior, config.prediction, noise)


@dataclass(frozen=True)
class E2DiffSR:
    """The resolver: E2DiffSR on scenes; `depsr` is mixed for the detail already."""

    spec: ModelSpec
    networks: E2DiffSRNetworks
    config: E2DiffSRConfig
    options: SamplerOptions
    device: torch.device
    # Prior maps of zeros by place in the cells of the latent.
    priors: dict[tuple[object, ...], list[Tensor]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: NoiseField
    ) -> SceneContext:
        """Find the latent of the whole scene, if it is wanted, and its bands' levels.

        The latent is made in tiles of its own (`latent_tiles`), blended in latent space
        after the last step
        (docs/families/e2diffsr.md#the-latent-of-a-scene).

        Returns:
            array ``latent`` (C, H/8, W/8) float32, unscaled, unless it is zero; numbers
            ``low_k`` and ``high_k`` per band, in [0, 1], ``height`` and ``width`` of
            the LR frame.
        """
        levels = scene_levels(scene) if self.config.normalise == "scene" else {}
        frame_size = {"height": float(scene.height), "width": float(scene.width)}
        numbers = {**levels, **frame_size}
        if self._latent_is_zero:
            return SceneContext({}, numbers)
        used = self._used_scale(scale)
        geometry = Geometry.of(scene.height, scene.width, used)
        latent = scene.allocate(
            "latent", (self.config.latent, *geometry.cells), "float32"
        )
        tiles = latent_tiles(
            geometry,
            self.options.precision,
            machine_memory(),
            self.networks.unet.multiple,
            is_local=self.config.has_local_latent,
        )
        mosaic = Mosaic(tiles, self.config.latent)
        whole = PixelWindow(0, 0, *geometry.cells)
        for tile in tiles:
            cells = tile.lr.intersection(whole)
            assert cells is not None
            z = self._latent_tile(scene, cells, geometry, levels, used, noise)
            below, right = tile.lr.height - cells.height, tile.lr.width - cells.width
            mosaic.add(tile, np.pad(z, ((0, 0), (0, below), (0, right))))
            for piece in mosaic.finished():
                if inside := piece.window.intersection(whole):
                    pixels = piece.pixels[:, : inside.height, : inside.width]
                    latent[:, *inside.slices()] = pixels
        return SceneContext({"latent": latent}, numbers)

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        """Run DEPSR on tiles, with the scene's latent at their absolute positions."""
        latent = batch.scene.arrays.get("latent")
        used = self._used_scale(scale)
        rows, cols = (int(batch.scene.numbers[name]) for name in ("height", "width"))
        geometry = Geometry.of(rows, cols, used)
        low, high = band_levels(batch.scene.numbers, self.device)
        lr = (batch.lr.to(self.device) - low) / (high - low) * 2.0 - 1.0
        lr = lr.contiguous(memory_format=torch.channels_last)
        height, width = lr.shape[2:]
        size = (int(height * used), int(width * used))
        with autocast(self.device, self.options.precision):
            if latent is None:
                priors = self._zero_priors(geometry, batch.windows_lr)
            else:
                priors = self._priors(latent, geometry, batch.windows_lr)
            sr = self.networks.depsr.amplify(lr, priors, size, _ROWS_AT_ONCE)
        sr = sr.float()
        if self.config.residual_bicubic:
            sr = sr + functional.interpolate(lr, size, mode="bicubic")
        if used != scale:
            final = (int(height * scale), int(width * scale))
            sr = functional.interpolate(sr, final, mode="bicubic")
        return ((sr + 1.0) / 2.0 * (high - low) + low).clamp(0.0, 1.0)

    @property
    def _latent_is_zero(self) -> bool:
        """Whether the latent is not wanted, as it would hardly change the result."""
        options = self.options
        is_chosen = options.sampler is not None or options.several
        is_zero = self.config.mean_latent == "zero"
        return is_zero and options.detail == 0.0 and not is_chosen

    def _used_scale(self, scale: Fraction) -> Fraction:
        """Return the scale of the networks, up to 1.5 x the largest trained one."""
        # See docs/families/e2diffsr.md#beyond-the-largest-trained-scale.
        trained = Fraction(self.config.s_max)
        return scale if scale <= trained * 3 / 2 else trained

    def _latent_tile(
        self,
        scene: SceneReader,
        cells: PixelWindow,
        geometry: Geometry,
        levels: Mapping[str, float],
        scale: Fraction,
        noise: NoiseField,
    ) -> np.ndarray:
        """Return the unscaled latent (C, n, m) of a window of cells."""
        window = geometry.lr_window(cells)
        pixels, _ = scene.read(window)
        low, high = band_levels(levels, self.device)
        lr = torch.from_numpy(pixels).to(self.device)[None]
        lr = (lr - low) / (high - low) * 2.0 - 1.0
        rows, cols = geometry.enlarging_taps(cells, window, self.device)
        start = self._normal(noise, 0, cells)
        with autocast(self.device, self.options.precision):
            enlarged = resample(lr, rows, cols)
            cond = self.networks.condnet(
                enlarged.contiguous(memory_format=torch.channels_last)
            )
            z = sample_latent(
                self.networks.unet,
                cond,
                start,
                scale,
                self.config,
                None
                if self.options.sampler != "ancestral"
                else lambda t: self._normal(noise, t, cells),
            )
        unscaled: np.ndarray = (z / self.networks.latent_scale)[0].cpu().numpy()
        return unscaled

    def _normal(self, noise: NoiseField, draw: int, cells: PixelWindow) -> Tensor:
        values = noise.draw(draw, cells, self.config.latent)
        return torch.from_numpy(values).to(self.device)[None]

    def _priors(
        self, latent: np.ndarray, geometry: Geometry, windows: Sequence[PixelWindow]
    ) -> list[Tensor]:
        """Return h1 .. h4 on the LR grid of each tile, each (b, c, h, w)."""
        crops = [geometry.cell_window(window) for window in windows]
        z = torch.stack(
            [torch.from_numpy(np.array(latent[:, *crop.slices()])) for crop in crops]
        )
        z = z.to(self.device).contiguous(memory_format=torch.channels_last)
        maps = self.networks.depsr.decoder(z)
        priors = []
        for k, h in enumerate(maps):
            per_cell = CELL // 2**k
            on_lr = [
                self._read_map(h[i], per_cell, crop, window, geometry)
                for i, (crop, window) in enumerate(zip(crops, windows, strict=True))
            ]
            on_grid = torch.stack(on_lr)
            priors.append(on_grid.contiguous(memory_format=torch.channels_last))
        return priors

    def _zero_priors(
        self, geometry: Geometry, windows: Sequence[PixelWindow]
    ) -> list[Tensor]:
        """Return the prior maps of a latent of zeros; most tiles have the same ones."""
        found = []
        for window in windows:
            crop = geometry.cell_window(window)
            spans = geometry.map_spans(window, crop, CELL)
            key = (crop.height, crop.width, window.height, window.width, *spans)
            if key not in self.priors:
                shape = (self.config.latent, *geometry.cells)
                zeros = np.broadcast_to(np.float32(0), shape)
                self.priors.clear()  # of other places in the cells: one is kept
                self.priors[key] = self._priors(zeros, geometry, [window])
            found.append(self.priors[key])
        if len(found) == 1:
            return found[0]
        return [torch.cat(maps) for maps in zip(*found, strict=True)]

    def _read_map(
        self,
        h: Tensor,
        per_cell: int,
        crop: PixelWindow,
        window: PixelWindow,
        geometry: Geometry,
    ) -> Tensor:
        """Sample a prior map (c, n, m) at the LR pixels of a window, (c, h, w)."""
        # Absolute taps are exact and slower; whole pixels of the map need none.
        spans = geometry.map_spans(window, crop, per_cell)
        grid = (window.height, window.width)
        if all(value.denominator == 1 for span in spans for value in span):
            rows, cols = (slice(int(a), int(a + n)) for a, n in spans)
            part = h[None, :, rows, cols]
            return functional.interpolate(part, grid, mode="bicubic")[0]
        return resample(h, *span_taps(spans, grid, h.shape[1:], self.device))


def from_checkpoint(
    checkpoint: Checkpoint, device: torch.device, options: SamplerOptions
) -> E2DiffSR:
    """Return the model of a checkpoint, ready for scenes.

    Raises:
        CheckpointError: architecture or tensors do not fit.
        InputError: a step count or sampler that the model does not have.
    """
    config = config_from_json(E2DiffSRConfig, checkpoint.architecture, checkpoint.path)
    if options.steps is not None and options.steps != config.steps:
        raise InputError(
            f"{options.steps}: this E2DiffSR model was trained for exactly"
            f" {config.steps}; leave the number out.",
            argument="steps",
        )
    if options.sampler not in (None, "mean", "ancestral"):
        raise InputError(
            f"{options.sampler}: unknown to E2DiffSR; known: mean, ancestral.",
            argument="sampler",
        )
    networks = E2DiffSRNetworks(config, training_parts=False)
    has_detail = any(name.startswith("depsr_detail.") for name in checkpoint.tensors)
    if has_detail:
        networks.add_detail()
    fill_network(networks, checkpoint, device)
    if has_detail:
        _mix_detail(networks, options.detail)
    return E2DiffSR(checkpoint.spec, networks, config, options, device)


def make_spec(
    config: E2DiffSRConfig, *, detail: bool, gsd: tuple[float, float] | None, halo: int
) -> ModelSpec:
    """Return the spec of a model of this architecture.

    Args:
        config: the architecture.
        detail: whether it holds a second set of weights for texture.
        gsd: smallest and largest metres per LR pixel that it was trained for.
        halo: LR pixels at a tile's sides that are not used.
    """
    trained = Fraction(config.s_max)
    return ModelSpec(
        family="e2diffsr",
        scales=ScaleRange(Fraction(1), max(Fraction(32), trained), trained),
        bands=("red", "green", "blue"),
        tile_size=256,
        multiple=CELL,
        halo=halo,
        gsd=gsd,
        detail=detail,
        stochastic=True,
        steps=config.steps,
    )


def _mix_detail(networks: E2DiffSRNetworks, detail: float) -> None:
    """Put ``(1 - detail) * depsr + detail * depsr_detail`` into `depsr`."""
    assert networks.depsr_detail is not None
    for mine, other in zip(
        networks.depsr.parameters(), networks.depsr_detail.parameters(), strict=True
    ):
        mine.data.lerp_(other.data, detail)
    networks.depsr_detail = None
