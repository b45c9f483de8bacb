"""Teachers of SlimDiffSR's students, and the losses between teacher and student.

The paper states only that features of student and teacher are aligned by maximum mean
discrepancy (MMD). Kernel, bandwidths, layers and weights are our choice
(docs/families/slimdiffsr.md#distillation):

* weights are copied wherever a tensor of the student, renamed to the teacher's layout,
  has the same shape as the teacher's;
* output: L1 and LPIPS from the student's picture to the teacher's and to the truth;
* features: squared difference of feature maps over the mean square of the teacher's;
  the student's map passes a 1 x 1 convolution and is resized first;
* MMD: between positions drawn from the same maps, with a sum of five Gaussian kernels.

A teacher of this family gives the output of the trunk (after norm and SiLU) and the
latent as feature maps; a teacher of another family gives pictures only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.checkpoints.catalogue import load_model
from rsupres.errors import InputError
from rsupres.families.base import SamplerOptions, SuperResolver
from rsupres.families.slimdiffsr.blocks import Finding
from rsupres.families.slimdiffsr.mini import MiniNetwork
from rsupres.families.slimdiffsr.network import signed_input
from rsupres.families.slimdiffsr.resolver import (
    AnyNetwork,
    AnyTeacher,
    SlimDiffSR,
    network_at,
)
from rsupres.families.slimdiffsr.teacher import TeacherNetwork
from rsupres.families.slimdiffsr.wide import WideTeacher, widen_into
from rsupres.training.config import TrainConfig, resolve_path
from rsupres.upscaling.array import upscale_whole

_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the median squared distance
_SMALL = 1e-8


@dataclass(frozen=True)
class DistillOptions:
    """Options of the stage "distill".

    Attributes:
        output_weight: weight of L1 and LPIPS to the teacher's picture.
        truth_weight: weight of L1 and LPIPS to the truth.
        feature_weight: weight of the squared difference of feature maps.
        mmd_weight: weight of the MMD of feature maps.
        mmd_positions: number of positions drawn from each map.
    """

    output_weight: float = 1.0
    truth_weight: float = 1.0
    feature_weight: float = 0.1
    mmd_weight: float = 0.1
    mmd_positions: int = 256


class NetworkOutput(NamedTuple):
    """Pictures (b, 3, H, W) in [-1, 1] and feature maps (b, c, h, w)."""

    image: Tensor
    maps: tuple[Tensor, ...]


class Teacher(Protocol):
    """The model that a student imitates."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the feature maps that it gives."""
        ...

    def run(self, lr: Tensor, scale: Fraction) -> NetworkOutput:
        """Return pictures and feature maps of a batch.

        Args:
            lr: (b, 3, h, w) in [0, 1].
            scale: SR pixels along one LR pixel.
        """
        ...

    def move(self, device: torch.device) -> None:
        """Move the network to a device."""
        ...


class FamilyTeacher:
    """A network of this family; gives pictures and feature maps."""

    def __init__(self, network: AnyNetwork) -> None:
        self.network = network.eval().requires_grad_(False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of trunk and latent."""
        return map_widths(self.network)

    @torch.no_grad()
    def run(self, lr: Tensor, scale: Fraction) -> NetworkOutput:
        """Treat the batch as one scene.

        Arguments and result are those of `Teacher.run`.
        """
        signed = signed_input(lr, scale / self.network.config.scale)
        return run_with_maps(network_at(self.network, scale), signed)

    def move(self, device: torch.device) -> None:
        """Move the network to a device."""
        self.network.to(device)


class PictureTeacher:
    """A model of any family; gives pictures only."""

    widths: tuple[int, ...] = ()

    def __init__(self, model: SuperResolver) -> None:
        self.model = model

    def run(self, lr: Tensor, scale: Fraction) -> NetworkOutput:
        """Compute each picture as a scene of one tile, without feature maps.

        Arguments and result are those of `Teacher.run`.
        """
        made = [
            upscale_whole(self.model, one, scale, torch.device("cpu"))
            for one in lr.float().contiguous().cpu().numpy()
        ]
        image = torch.from_numpy(np.stack(made)).to(lr.device)
        return NetworkOutput(2.0 * image - 1.0, ())

    def move(self, device: torch.device) -> None:
        """Do nothing: the model runs on the CPU, and `run` moves its pictures."""


def load_teacher(name_or_path: str, scales: Sequence[int], root: Path) -> Teacher:
    """Return any checkpoint as a teacher.

    Args:
        name_or_path: name of a model, or path of a checkpoint, see `resolve_path`.
        scales: of the student.
        root: folder of the configuration.

    Raises:
        InputError: the model does not offer the scales, or needs conditions.
        CheckpointError: it cannot be loaded.
    """
    model = _load(name_or_path, root)
    if not all(model.spec.scales.offers(Fraction(scale)) for scale in scales):
        raise InputError(
            f"teacher '{name_or_path}' offers the scales {model.spec.scales}, the"
            f" student's are {', '.join(map(str, scales))}."
        )
    if model.spec.needs:
        needs = ", ".join(sorted(model.spec.needs))
        raise InputError(f"teacher '{name_or_path}' needs {needs}; packs give none.")
    if isinstance(model, SlimDiffSR):
        return FamilyTeacher(model.network)
    return PictureTeacher(model)


def widen_student(network: AnyNetwork, name_or_path: str, root: Path) -> None:
    """Start a wide teacher's layers from a trained small student.

    Args:
        network: changed in place.
        name_or_path: of the student, as for `load_teacher`.
        root: folder of the configuration.

    Raises:
        InputError: one of the two is of another kind, or the student is larger.
        CheckpointError: the student cannot be loaded.
    """
    model = _load(name_or_path, root)
    small = model.network if isinstance(model, SlimDiffSR) else None
    if not isinstance(network, WideTeacher) or not isinstance(small, MiniNetwork):
        raise InputError(
            f"widen: '{name_or_path}' must be a small student, and the architecture a"
            " wide teacher."
        )
    try:
        widen_into(network.student, small.state_dict())
    except ValueError as error:
        raise InputError(f"widen: '{name_or_path}': {error}.") from error


def _load(name_or_path: str, root: Path) -> SuperResolver:
    path = resolve_path(name_or_path, root)
    name = str(path) if path.is_file() else name_or_path
    return load_model(name, torch.device("cpu"), SamplerOptions())


def check_distillation(config: TrainConfig) -> None:
    """Check that a configuration names a teacher and a stage `distill`.

    Raises:
        InputError: no teacher, or no stage `distill`.
    """
    if not config.options.get("teacher"):
        raise InputError(
            f'{config.name}: no teacher; add [options] with teacher = "PATH", or use'
            " 'rsupres train', which needs none."
        )
    if not any(stage.name.startswith("distill") for stage in config.stage):
        raise InputError(f"{config.name}: no stage is named 'distill'.")


def run_with_maps(network: AnyNetwork, lr: Tensor) -> NetworkOutput:
    """Return picture and feature maps of a batch that is treated as one scene.

    Args:
        network: student or teacher.
        lr: (b, 3, h, w) in [-1, 1].
    """
    seen: list[Tensor] = []
    unet = cast(nn.Module, network.unet)
    # diffusers' U-Net ends in norm, SiLU and a convolution; ours in norm and SiLU.
    inner = isinstance(network, AnyTeacher)
    end = unet.get_submodule("conv_act") if inner else unet
    handle = end.register_forward_hook(lambda _, __, out: seen.append(out))
    try:
        z = network.transform(network.encode(lr), Finding())
    finally:
        handle.remove()
    return NetworkOutput(network.decode(z, lr), (seen[0], z))


def map_widths(network: AnyNetwork) -> tuple[int, int]:
    """Return the channels of the feature maps: output of the trunk, latent."""
    if isinstance(network, TeacherNetwork):
        return network.config.channels[0], 4
    if isinstance(network, WideTeacher):
        return network.config.unet.channels[0], network.config.student.tiny
    return network.config.trunk.widths[0], network.config.tiny


def make_adapters(network: AnyNetwork, teacher: Teacher) -> nn.ModuleList:
    """Return a 1 x 1 convolution per feature map, student to teacher channels.

    Args:
        network: the student.
        teacher: whose maps are compared.
    """
    pairs = zip(map_widths(network), teacher.widths, strict=False)
    return nn.ModuleList([nn.Conv2d(a, b, 1) for a, b in pairs])


def transfer_weights(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Copy tensors that agree in name and shape into the student; return their names.

    A student with fewer levels takes its up blocks from the last up blocks of the
    teacher, and its middle block from the first residual block of the level below its
    last; see docs/families/slimdiffsr.md#weights-taken-over-from-the-teacher.

    Args:
        student: changed in place.
        teacher: unchanged.
    """
    source = teacher.state_dict()
    target = student.state_dict()
    shift = _count(source, r"unet\.up_blocks\.(\d+)\.") - _count(
        target, r"unet\.up_blocks\.(\d+)\."
    )
    copied = []
    with torch.no_grad():
        for name, tensor in target.items():
            other = source.get(_name_in_teacher(name, shift))
            if other is not None and other.shape == tensor.shape:
                tensor.copy_(other)
                copied.append(name)
    return copied


def _name_in_teacher(name: str, shift: int) -> str:
    if shift <= 0:
        return name
    found = re.match(r"unet\.up_blocks\.(\d+)\.", name)
    if found:
        return f"unet.up_blocks.{int(found[1]) + shift}.{name[found.end() :]}"
    return name.replace("unet.mid_block.mid_block.", "unet.down_blocks.2.resnets.0.")


def _count(names: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def feature_loss(adapted: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared difference of feature maps over the teacher's mean square.

    Args:
        adapted: the student's map with the teacher's channels, (b, c, h, w).
        wanted: the teacher's, (b, c, h', w').
    """
    resized = _match_size(adapted.float(), wanted.shape[2:])
    wanted = wanted.float()
    power = wanted.square().mean().clamp_min(_SMALL)
    return (resized - wanted).square().mean() / power


def _match_size(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return maps (b, c, *size): area means where they shrink, else bilinear."""
    height, width = size
    if x.shape[2:] == (height, width):
        return x
    if x.shape[2] >= height and x.shape[3] >= width:
        return functional.adaptive_avg_pool2d(x, (height, width))
    return functional.interpolate(x, size=(height, width), mode="bilinear")


def draw_positions(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return n rows of channels at positions drawn from maps (b, c, h, w), (n, c).

    Args:
        x: (b, c, h, w).
        n: how many.
        generator: of the draw.
    """
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    chosen = torch.randint(len(rows), (n,), generator=generator)
    return rows[chosen.to(x.device)]


def mmd_squared(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy of two samples (Gretton et al. 2012).

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over all pairs, equal ones too, with
    k(a, b) = sum_f exp(-|a - b|^2 / (f m)), f = 1/4, 1/2, 1, 2, 4, and m the median of
    the squared distances of all pairs of different elements of the joint sample; m is
    held constant in the gradient.

    Args:
        x: (n, c).
        y: (m, c).
    """
    joint = torch.cat([x, y]).float()
    squares = joint.square().sum(1)
    distance = squares[:, None] + squares[None] - 2.0 * joint @ joint.t()
    distance = distance.clamp_min(0.0)
    n = len(joint)
    upper = torch.triu_indices(n, n, 1, device=joint.device)
    median = distance.detach()[upper[0], upper[1]].median().clamp_min(_SMALL)
    kernel = torch.stack([(-distance / (f * median)).exp() for f in _BANDWIDTHS]).sum(0)
    k = len(x)
    own = kernel[:k, :k].mean() + kernel[k:, k:].mean()
    return own - 2.0 * kernel[:k, k:].mean()
