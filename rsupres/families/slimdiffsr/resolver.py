"""SlimDiffSR: one-step super-resolution by a pruned and distilled student.

SlimDiffSR, arXiv 2605.02198, and its public inference code.

==============================  ====================================================
Part                            Where
==============================  ====================================================
student                         `network.SlimDiffSRNetwork`
the same in bfloat16, on a CPU  `half.halve`
separable convolutions, QGAM    `blocks`
a fortieth of its size          `mini.MiniNetwork`
teacher                         `teacher`; trained by `rsupres.training.families`
==============================  ====================================================

The networks see the whole picture in three ways: GroupNorm's moments, the gates of the
separable convolutions, and QGAM's context; the released script adds a fourth, each
channel's mean and deviation are matched to those of the enlarged picture. With tiles,
all of these would differ from tile to tile. `prepare` therefore finds them once, from
windows that cover a small scene and sample a large one, all taken as one picture; the
tiles then only see their neighbourhood, and halo and overlap do the rest.

The sampler "alone" treats each tile as a picture of its own, exactly as the released
script does, padding to 256 included. It is for comparisons, not for scenes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rsupres.blocks.bfloat16 import autocast
from rsupres.blocks.fine_detail import finest_contrast, limit_finest
from rsupres.errors import CheckpointError, InputError
from rsupres.families.base import (
    FixedScales,
    ModelSpec,
    SamplerOptions,
    SceneContext,
    SceneReader,
    TileBatch,
)
from rsupres.families.slimdiffsr.blocks import Finding, Found
from rsupres.families.slimdiffsr.config import SlimDiffSRConfig
from rsupres.families.slimdiffsr.half import halve
from rsupres.families.slimdiffsr.mini import MiniConfig, MiniNetwork
from rsupres.families.slimdiffsr.network import (
    MULTIPLE,
    SlimDiffSRNetwork,
    enlarge,
    signed_input,
)
from rsupres.families.slimdiffsr.released import Moments, match_colours, run_as_released
from rsupres.families.slimdiffsr.teacher import TeacherConfig, TeacherNetwork
from rsupres.families.slimdiffsr.wide import WideTeacher, WideTeacherConfig
from rsupres.families.storage import config_from_json, config_to_json, fill_network
from rsupres.grid import PixelWindow

if TYPE_CHECKING:
    from rsupres.diffusion.noise import NoiseField
    from rsupres.families.base import Checkpoint

Network = SlimDiffSRNetwork | MiniNetwork
AnyTeacher = TeacherNetwork | WideTeacher
AnyNetwork = Network | AnyTeacher
Config = SlimDiffSRConfig | MiniConfig
AnyTeacherConfig = TeacherConfig | WideTeacherConfig
AnyConfig = Config | AnyTeacherConfig

_KINDS: Mapping[str, type[AnyConfig]] = {
    "student": SlimDiffSRConfig,
    "mini": MiniConfig,
    "teacher": TeacherConfig,
    "wide-teacher": WideTeacherConfig,
}
_SAMPLERS = ("scene", "alone")
_WINDOW_SR = 512  # sides of the windows that stand for a scene
_WINDOWS = 3  # of them along a side, at most
_MIN_VALID = 0.5  # share of valid pixels below which a window does not count
_FLAT = 1e-6
_FINEST = 0.7  # SR pixels, of the Gaussian that takes out what LR cannot tell at x8
_SMALL = 0.1  # of the LR image's finest detail: what is smaller stays


@dataclass(frozen=True)
class SlimDiffSR:
    """The resolver: SlimDiffSR on scenes; its network is in eval mode."""

    spec: ModelSpec
    network: AnyNetwork
    options: SamplerOptions
    device: torch.device

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: NoiseField
    ) -> SceneContext:
        """Find the features of the whole scene that all tiles use.

        Returns:
            arrays ``shared``, all values one after another, and ``shared_shapes``
            (n, 3) int64, 0 = no such axis; numbers ``gain_k`` and ``offset_k`` of each
            band, in [-1, 1], if the student's colours are matched.
        """
        if self.options.sampler == "alone":
            return SceneContext()
        windows = _read_windows(scene, int(scale))
        finding = Finding()
        with autocast(self.device, self._precision):
            network = network_at(self.network, scale)
            maps = [network.encode(self._signed(lr, scale)) for lr in windows]
            z = network.transform(torch.cat(maps), finding)
        numbers: dict[str, float] = {}
        if isinstance(self.network, SlimDiffSRNetwork):
            numbers = self._find_colours(windows, z, scale)
        return SceneContext(_pack(finding.values), numbers)

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        """Return SR of tiles, with what the scene shares."""
        lr = self._signed(batch.lr, scale)
        if self.options.sampler == "alone":
            return self._limited(self._upscale_alone(lr, scale), batch.lr, scale)
        values = _unpack(batch.scene.arrays, self.device)
        with autocast(self.device, self._precision):
            network = network_at(self.network, scale)
            z = network.transform(network.encode(lr), Found(values))
            image = network.decode(z, lr)
        image = image.float()
        numbers = batch.scene.numbers
        if "gain_0" in numbers:
            gain, offset = (
                torch.tensor([numbers[f"{name}_{k}"] for k in range(3)])
                .to(self.device, torch.float32)
                .view(1, 3, 1, 1)
                for name in ("gain", "offset")
            )
            image = image * gain + offset
        return self._limited(_unit(image), batch.lr, scale)

    def _limited(self, image: Tensor, lr: Tensor, scale: Fraction) -> Tensor:
        """Return a picture without dots, which LPIPS rewards, where LR was enlarged."""
        network = self.network
        if not isinstance(network, MiniNetwork) or scale <= network.config.scale:
            return image
        limit = _SMALL * finest_contrast(lr.to(self.device), scale)
        return limit_finest(image, limit, _FINEST)

    def _upscale_alone(self, lr: Tensor, scale: Fraction) -> Tensor:
        """Return SR of tiles, each a picture of its own."""
        with autocast(self.device, self._precision):
            if isinstance(self.network, SlimDiffSRNetwork):
                x, image = run_as_released(self.network, lr)
                image = match_colours(image.float(), x.float())
            else:
                image = network_at(self.network, scale)(lr)[1]
        return _unit(image.float())

    def _find_colours(
        self, windows: list[Tensor], z: Tensor, scale: Fraction
    ) -> dict[str, float]:
        """Return gain and offset that give the windows the enlarged ones' moments."""
        made, wanted = Moments(), Moments()
        for lr, one in zip(windows, z, strict=True):
            signed = self._signed(lr, scale)
            with autocast(self.device, self._precision):
                made.add(self.network.decode(one[None], signed))
            wanted.add(enlarge(signed, self.network.config.scale))
        numbers = {}
        for k in range(3):
            flat = made.deviation[k] < _FLAT
            gain = 1.0 if flat else wanted.deviation[k] / made.deviation[k]
            numbers[f"gain_{k}"] = float(gain)
            numbers[f"offset_{k}"] = float(wanted.mean[k] - gain * made.mean[k])
        return numbers

    def _signed(self, lr: Tensor, scale: Fraction) -> Tensor:
        """Return pictures in [0, 1] as the network sees them, channels last."""
        return signed_input(lr.to(self.device), scale / self.network.config.scale)

    @cached_property
    def _precision(self) -> str:
        """Precision that autocast takes care of; weights in half need none."""
        tensors = self.network.state_dict().values()
        is_whole = all(tensor.dtype == torch.float32 for tensor in tensors)
        return self.options.precision if is_whole else "fp32"


def from_checkpoint(
    checkpoint: Checkpoint, device: torch.device, options: SamplerOptions
) -> SlimDiffSR:
    """Return the model of a checkpoint, ready for scenes.

    Raises:
        CheckpointError: architecture or tensors do not fit.
        InputError: a step count or sampler that the model does not have.
    """
    if options.steps not in (None, 1):
        raise InputError(
            f"{options.steps}: SlimDiffSR takes one step; leave the number out.",
            argument="steps",
        )
    if options.sampler not in (None, *_SAMPLERS):
        raise InputError(
            f"{options.sampler}: unknown to SlimDiffSR; known: {', '.join(_SAMPLERS)}.",
            argument="sampler",
        )
    config = architecture_from_json(checkpoint.architecture, checkpoint.path)
    network = make_network(config)
    fill_network(network, checkpoint, device)
    if options.precision == "bf16":
        _halve(network, device)
    return SlimDiffSR(checkpoint.spec, network, options, device)


def _halve(network: AnyNetwork, device: torch.device) -> None:
    """Put weights into bfloat16: once, where autocast would for every tile."""
    if isinstance(network, SlimDiffSRNetwork) and device.type == "cpu":
        with torch.no_grad():
            halve(network)
    elif not isinstance(network, AnyTeacher):
        network.to(torch.bfloat16)
        if isinstance(network, MiniNetwork):  # its pixels go in and out in float32
            for layer in network.edges():
                layer.float()


def network_at(network: AnyNetwork, scale: Fraction) -> AnyNetwork:
    """Return a network with the layers that it has for a scale.

    Args:
        network: of any kind.
        scale: SR pixels along one LR pixel.
    """
    if isinstance(network, MiniNetwork | WideTeacher):
        return network.at(scale)
    return network


def make_network(config: AnyConfig) -> AnyNetwork:
    """Return a fresh network of a configuration."""
    if isinstance(config, MiniConfig):
        return MiniNetwork(config)
    if isinstance(config, TeacherConfig):
        return TeacherNetwork(config)
    if isinstance(config, WideTeacherConfig):
        return WideTeacher(config)
    return SlimDiffSRNetwork(config)


def make_spec(
    config: AnyConfig, *, gsd: tuple[float, float] | None, halo: int | None = None
) -> ModelSpec:
    """Return the spec of a student.

    Args:
        config: the architecture.
        gsd: smallest and largest metres per LR pixel of the training data.
        halo: LR pixels; None = the family's own.
    """
    mini = isinstance(config, MiniConfig)
    # Measured (tests/benchmarks/bench_slimdiffsr_seams.py, RESULTS.md), scene shared:
    # the largest difference from the untiled picture is 0.003 levels of 255 at 8 LR
    # pixels for the trained small student, 5.5 at 16 for the full one (name-seeded).
    own = 8 if mini else math.ceil(128 / config.scale)
    return ModelSpec(
        family="slimdiffsr",
        scales=FixedScales(frozenset(Fraction(scale) for scale in config.scales)),
        bands=("red", "green", "blue"),
        tile_size=256 if mini else 1024 // config.scale,
        multiple=(
            config.multiple if isinstance(config, AnyTeacherConfig) else MULTIPLE
        ),
        halo=own if halo is None else halo,
        gsd=gsd,
        steps=1,
    )


def architecture_from_json(values: Mapping[str, object], path: Path) -> AnyConfig:
    """Return the configuration that `architecture_to_json` wrote.

    Args:
        values: of the checkpoint's header.
        path: of the checkpoint, for the message.

    Raises:
        CheckpointError: an unknown key or a value that does not fit.
    """
    plain = dict(values)
    kind = plain.pop("kind", None)
    if kind not in _KINDS:
        raise CheckpointError(
            f"{path}: architecture does not fit SlimDiffSR (kind {kind!r} is unknown)."
        )
    return config_from_json(_KINDS[str(kind)], plain, path)


def architecture_to_json(config: AnyConfig) -> dict[str, object]:
    """Return a configuration as plain JSON values, with its kind."""
    kind = next(name for name, made in _KINDS.items() if isinstance(config, made))
    return {"kind": kind, **config_to_json(config)}


def _unit(image: Tensor) -> Tensor:
    return (image / 2.0 + 0.5).clamp(0.0, 1.0)


def _read_windows(scene: SceneReader, scale: int) -> list[Tensor]:
    """Return the windows (1, 3, h, w) in [0, 1] that stand for a scene."""
    side = _WINDOW_SR // scale
    sizes = [scene.height, scene.width]
    if max(sizes) <= 2 * side:
        counts = [1, 1]
    else:
        counts = [min(_WINDOWS, -(-size // side)) for size in sizes]
        sizes = [min(size, side) for size in sizes]
    rows, cols = (
        np.linspace(0, whole - size, count).astype(int)
        for whole, size, count in zip(
            (scene.height, scene.width), sizes, counts, strict=True
        )
    )
    read = [
        scene.read(PixelWindow(int(row), int(col), sizes[0], sizes[1]))
        for row in rows
        for col in cols
    ]
    shares = [float(valid.mean()) for _, valid in read]
    least = min(_MIN_VALID, max(shares))
    return [
        torch.from_numpy(pixels)[None]
        for (pixels, _), share in zip(read, shares, strict=True)
        if share >= least
    ]


def _pack(values: list[Tensor]) -> dict[str, np.ndarray]:
    shapes = np.zeros((len(values), 3), np.int64)
    for row, value in zip(shapes, values, strict=True):
        row[: value.ndim] = value.shape
    flat = torch.cat([value.float().flatten() for value in values])
    return {"shared": flat.cpu().numpy(), "shared_shapes": shapes}


def _unpack(arrays: Mapping[str, np.ndarray], device: torch.device) -> list[Tensor]:
    shapes = [tuple(int(n) for n in row if n) for row in arrays["shared_shapes"]]
    flat = torch.from_numpy(np.array(arrays["shared"])).to(device)
    parts = torch.split(flat, [math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
