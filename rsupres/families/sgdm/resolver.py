"""SGDM and SGDM+: super-resolution by Stable Diffusion, guided by a vector map.

Wang, Sun, "Semantic Guided Large Scale Factor Remote Sensing Image Super-resolution
with Generative Diffusion Prior", ISPRS 2025; where paper and released code differ, the
code is followed, because the weights can match nothing else.

========================  ======================================================
Paper                     Function or class
========================  ======================================================
content encoder, SPADE    `network.ContentStyleEncoder`, `Spade`
style correction, AdaIN   `style.PlainEncoder`, `spatial_statistics`, `restyle`
SFlow                     `style.StyleFlow`
adapter                   `network.Adapter`
U-Net, autoencoder        `rsupres.blocks.stable_diffusion`
sampling                  `sampling.sample_latent`
training                  `rsupres.training.families.sgdm`
========================  ======================================================

On scenes: `prepare` finds what tiles must share: the prompt (colours anywhere on the
map), the statistics of the style, and those of the content that it replaces. `upscale`
samples latents from noise that belongs to the ground. SD's group norms and attention
still see a tile, which halo and blending hide; the small model that ships has neither.
Tiles are blended when decoded: blending the latent at every step gains nothing
(`tests/benchmarks/RESULTS.md`) and would keep all of a scene in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.stable_diffusion_run import ContextKeys, make_context_keys
from rsupres.errors import InputError
from rsupres.families.base import (
    FixedScales,
    ModelSpec,
    SamplerOptions,
    SceneContext,
    SceneReader,
    TileBatch,
)
from rsupres.families.levels import band_levels, scene_levels
from rsupres.families.sgdm.config import SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.prompts import prompt_number, prompt_text
from rsupres.families.sgdm.sampling import Sampling, choose_sampling, sample_latent
from rsupres.families.sgdm.style import Statistics, picture_statistics, restyle
from rsupres.families.sgdm.unmixing import finish
from rsupres.families.storage import config_from_json, fit_tensors, shapes_of
from rsupres.grid import PixelWindow

if TYPE_CHECKING:
    from rsupres.diffusion.noise import NoiseField
    from rsupres.families.base import Checkpoint

logger = logging.getLogger(__name__)

LEGEND = "maptiler"
_START_DRAW = 0  # of the noise field; step t of the ancestral sampler draws t
_STYLE_DRAW = 1 << 20
_PREPARE_SR = 512  # SR pixels of a window side while statistics are gathered
_TILE_SR = 512
STYLE_TEMPERATURE = 0.7  # of drawn picture styles, as Kingma and Dhariwal 2018 (Glow)
_MIN_DEVIATION = 0.02  # of a drawn picture style; the flow may draw negative ones
_STYLE_MULTIPLE = 8  # pixels; the style encoder halves three times


@dataclass(frozen=True)
class Sgdm:
    """The resolver: SGDM on scenes.

    Attributes:
        spec: what the model needs.
        networks: on their device, in eval mode.
        config: the architecture.
        options: the user's choices.
        sampling: sampler and steps, settled.
        device: of the networks.
    """

    spec: ModelSpec
    networks: SgdmNetworks
    config: SgdmConfig
    options: SamplerOptions
    sampling: Sampling
    device: torch.device

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: NoiseField
    ) -> SceneContext:
        """Find prompt, style and content statistics of the whole scene.

        Returns:
            number ``prompt``, and levels of the bands; arrays ``style`` and
            ``content``, (2, c) means and deviations, when a style is followed or drawn.
        """
        numbers = scene_levels(scene) if self.config.normalise == "scene" else {}
        arrays: dict[str, np.ndarray] = {}
        if self.networks.contexts is not None:
            number = self._scene_prompt(scene, scale)
            numbers["prompt"] = float(number)
            logger.info("Prompt of the scene: '%s'.", prompt_text(number))
        style = self._wanted_style(scene, scale, noise)
        if style is not None:
            arrays["style"] = _to_array(style)
            found = self._content_statistics(scene, scale, numbers)
            arrays["content"] = _to_array(found)
        return SceneContext(arrays, numbers)

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        """Sample latents of tiles and decode them."""
        low, high = band_levels(batch.scene.numbers, self.device)
        lr = (batch.lr.to(self.device) - low) / (high - low)
        enlarged = self._enlarge(lr, scale)
        chart = self._chart(batch.conditions.vector_map, enlarged)
        cell = Fraction(1, self.config.factor)
        cells = [window.scaled(cell) for window in batch.windows_sr]
        style, own = (
            self._statistics(batch.scene.arrays, name) for name in ("style", "content")
        )
        z = sample_latent(
            self.networks,
            self._noise(batch.noise, _START_DRAW, cells),
            self.networks.features(
                enlarged,
                chart,
                *((style, own) if self.config.encoder.style else ()),
            ),
            self._context(batch.scene.numbers),
            self.sampling,
            lambda t: self._noise(batch.noise, t, cells),
        )
        decoded = self.networks.decode(z, enlarged)
        image = finish(self.config, decoded, enlarged, lr, chart, scale)
        if self.config.picture_style and style is not None and own is not None:
            return restyle(image, own, style).clamp(0.0, 1.0)  # in the style's tones
        return (low + (high - low) * image).clamp(0.0, 1.0)

    def _enlarge(self, lr: Tensor, scale: Fraction) -> Tensor:
        """Bring LR (b, 3, h, w) to SR pixels, as in training."""
        size = [int(side * scale) for side in lr.shape[2:]]
        large = functional.interpolate(lr, size, mode=self.config.enlarge)
        if self.config.normalise == "none":
            large = large.clamp(0.0, 1.0)  # bicubic overshoots
        return large.contiguous(memory_format=torch.channels_last)

    def _chart(self, chart: Tensor | None, like: Tensor) -> Tensor | None:
        """Return the map on SR pixels, or the empty one; None for a model without."""
        if self.config.encoder.modulated is None:
            return None
        if chart is None:
            return empty_map(self.config, like)
        chart = chart.to(self.device)
        return chart.contiguous(memory_format=torch.channels_last)

    def _noise(
        self, noise: NoiseField, draw: int, cells: Sequence[PixelWindow]
    ) -> Tensor:
        """Return one draw on the latent cells of tiles, (b, c, h, w)."""
        channels = self.config.unet.latent
        drawn = np.stack([noise.draw(draw, window, channels) for window in cells])
        tensor = torch.from_numpy(drawn).to(self.device)
        return tensor.contiguous(memory_format=torch.channels_last)

    def _context(self, numbers: Mapping[str, float]) -> ContextKeys | None:
        """Return keys and values of the scene's prompt."""
        if self.networks.contexts is None:
            return None
        context = self.networks.contexts[int(numbers["prompt"])]
        return make_context_keys(self.networks.unet, context[None])

    def _statistics(
        self, arrays: Mapping[str, np.ndarray], name: str
    ) -> Statistics | None:
        if name not in arrays:
            return None
        mean, std = torch.from_numpy(np.array(arrays[name])).to(self.device)
        return Statistics(mean[None], std[None])

    def _scene_prompt(self, scene: SceneReader, scale: Fraction) -> int:
        """Return the prompt that the map of the whole scene calls for."""
        number, colours = 0, 0
        for window in _windows(scene, scale):
            chart = scene.read_conditions(window.scaled(scale)).vector_map
            if chart is None:
                return 0
            pixels = (chart[0] * 255.0).round().to(torch.uint8).numpy()
            number |= prompt_number(pixels)
            red, green, blue = pixels.astype(np.uint32)
            colours = max(colours, len(np.unique((red << 16) | (green << 8) | blue)))
        if number == 0 and colours > 1:
            logger.warning(
                "The map has none of the colours that this model's prompts know, so the"
                " prompt stays '%s'; draw it with the legend '%s'.",
                prompt_text(0),
                LEGEND,
                extra={"argument": "vector_map", "remedies": (f"legend={LEGEND}",)},
            )
        return number

    def _wanted_style(
        self, scene: SceneReader, scale: Fraction, noise: NoiseField
    ) -> Statistics | None:
        """Return the statistics to take on: drawn, those of an image, or none."""
        if not self.config.has_style:
            return None
        if self.options.style_sample:
            return self._drawn_style(noise)
        if scene.style is None:
            return None
        if self.config.picture_style:
            image = scene.style[None].to(self.device)
            return picture_statistics(image, int(scale))
        height, width = (n - n % _STYLE_MULTIPLE for n in scene.style.shape[1:])
        image = scene.style[None, :, :height, :width].to(self.device)
        return self.networks.adapter.style(2.0 * image - 1.0)

    def _drawn_style(self, noise: NoiseField) -> Statistics:
        """Draw a style by SFlow; the seed and the sample decide which."""
        first, second = self.networks.flow_mean, self.networks.flow_std
        assert first is not None
        assert second is not None
        assert self.config.flow is not None
        flows = first, second
        window = PixelWindow(0, 0, 1, self.config.flow.dim)
        drawn = noise.draw(_STYLE_DRAW, window, len(flows))[:, 0]
        spread = STYLE_TEMPERATURE if self.config.picture_style else 1.0
        eps = spread * torch.from_numpy(drawn).to(self.device)
        mean, std = (f.sample(e[None])[0] for f, e in zip(flows, eps, strict=True))
        if self.config.picture_style:
            std = std.clamp_min(_MIN_DEVIATION)
        return Statistics(mean, std)

    def _content_statistics(
        self, scene: SceneReader, scale: Fraction, levels: Mapping[str, float]
    ) -> Statistics:
        """Return mean and deviation of the content over the whole scene."""
        low, high = band_levels(levels, self.device)
        n = 0
        total = square = torch.zeros((), dtype=torch.float64)
        for window in _windows(scene, scale):
            lr = torch.from_numpy(scene.read(window)[0])[None].to(self.device)
            enlarged = self._enlarge((lr - low) / (high - low), scale)
            found = self._content(enlarged, window.scaled(scale), scene)
            flat = found.double().cpu().flatten(2)[0]  # (c, n)
            n += flat.shape[1]
            total, square = total + flat.sum(1), square + flat.square().sum(1)
        mean = total / n
        variance = (square - n * mean.square()) / max(n - 1, 1)
        std = variance.clamp_min(0.0).sqrt() + 1e-6
        return Statistics(mean[None].float(), std[None].float())

    def _content(
        self, enlarged: Tensor, window_sr: PixelWindow, scene: SceneReader
    ) -> Tensor:
        """Return the input that a style changes: picture, or features of LR and map."""
        if self.config.picture_style:
            return enlarged
        chart = self._chart(scene.read_conditions(window_sr).vector_map, enlarged)
        whole = None if chart is None else 2.0 * chart - 1.0
        return self.networks.adapter.content(2.0 * enlarged - 1.0, whole).lr


def from_checkpoint(
    checkpoint: Checkpoint, device: torch.device, options: SamplerOptions
) -> Sgdm:
    """Return the model of a checkpoint, ready for scenes.

    Raises:
        CheckpointError: architecture or tensors do not fit.
        InputError: a sampler that does not exist, too many steps, or a style to be
            drawn by a model without SFlow.
    """
    config = config_from_json(SgdmConfig, checkpoint.architecture, checkpoint.path)
    sampling = choose_sampling(config, options)
    if options.style_sample and config.flow is None:
        raise InputError(
            f"cannot be drawn: {checkpoint.path.name} holds no SFlow; import the model"
            " again with flow_mean and flow_std among its files, or give a style.",
            argument="style_sample",
            remedies=("style",),
        )
    with torch.device("meta"):
        networks = SgdmNetworks(config, encodes=False)
    shapes = shapes_of(networks)
    tensors = {
        name: tensor if tensor.dtype == torch.int64 else tensor.float()
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith(("autoencoder.encoder.", "autoencoder.quant_conv."))
    }
    for name in shapes:
        if name.endswith("num_batches_tracked"):  # decides nothing at inference
            tensors.setdefault(name, torch.tensor(0))
    fit_tensors(tensors, shapes, checkpoint.path)
    networks.load_state_dict(tensors, assign=True)
    networks.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
    networks.eval().requires_grad_(False)
    _halve(networks, options)
    return Sgdm(checkpoint.spec, networks, config, options, sampling, device)


def empty_map(config: SgdmConfig, like: Tensor) -> Tensor:
    """Return the picture (b, 3, H, W) in [0, 1] that is used where no map is given.

    Args:
        config: of the model.
        like: (b, 3, H, W), gives size, type and device.
    """
    colour = like.new_tensor(config.empty_map) / 255.0
    return colour[None, :, None, None].expand_as(like)


def make_spec(
    config: SgdmConfig,
    scales: Sequence[int],
    *,
    halo: int | None = None,
    gsd: tuple[float, float] | None = None,
) -> ModelSpec:
    """Return the spec of a model of this architecture.

    Args:
        config: the architecture.
        scales: SR pixels along an LR pixel, each that the model knows.
        halo: LR pixels at a tile edge not to trust; None = 32 SR pixels.
        gsd: smallest and largest metres per LR pixel seen in training.
    """
    accepts = {"vector_map"} if config.encoder.modulated is not None else set()
    if config.has_style:
        accepts.add("style")
    halvings = len(config.unet.multipliers) - 1
    return ModelSpec(
        family="sgdm",
        scales=FixedScales(frozenset(Fraction(scale) for scale in scales)),
        bands=("red", "green", "blue"),
        accepts=frozenset(accepts),
        tile_size=_TILE_SR // min(scales),
        multiple=config.factor * 2**halvings,
        halo=max(32 // min(scales), 1) if halo is None else halo,
        gsd=gsd,
        stochastic=True,
        steps=config.sampling_steps,
        legend=LEGEND if "vector_map" in accepts else None,
    )


def _halve(networks: SgdmNetworks, options: SamplerOptions) -> None:
    """Put U-Net and decoder into half precision; the decoder needs bfloat16's range."""
    # diffusers' own `to` warns of layers to keep in float32, of which there are none.
    if options.precision == "bf16":
        nn.Module.to(networks.unet, torch.bfloat16)
        if networks.autoencoder is not None:
            nn.Module.to(networks.autoencoder, torch.bfloat16)
    elif options.precision == "fp16":
        nn.Module.to(networks.unet, torch.float16)


def _windows(scene: SceneReader, scale: Fraction) -> Iterator[PixelWindow]:
    """Yield LR windows that cover the frame, up to `_PREPARE_SR`, none of them thin."""
    side = max(int(_PREPARE_SR / scale), 1)
    rows, cols = (
        [length * k // n for k in range(n + 1)]
        for length, n in (
            (length, -(-length // side)) for length in (scene.height, scene.width)
        )
    )
    for top, bottom in pairwise(rows):
        for left, right in pairwise(cols):
            yield PixelWindow(top, left, bottom - top, right - left)


def _to_array(statistics: Statistics) -> np.ndarray:
    pair = torch.cat([statistics.mean, statistics.std])
    return pair.detach().float().cpu().numpy()
