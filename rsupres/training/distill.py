"""From a teacher to a student: what is copied, what is matched, and how.

The paper says that student and teacher features are aligned by maximum mean discrepancy
(MMD) and no more; kernel, bandwidths, layers and weights are ours:

* weights are copied wherever a name of the student, in the teacher's layout, has a
  tensor of the same shape (specification, section 4);
* output: L1 and LPIPS of the student's picture to the teacher's, and to the truth;
* features: squared difference of maps over the teacher map's mean square, the student's
  map through a 1 x 1 convolution and resized;
* MMD: between positions drawn from the same maps, a sum of five Gaussian kernels.

Teachers of this family show the trunk's output (after norm and SiLU) and the latent;
those of other families show pictures alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
from rsupres.families.slimdiffsr.resolver import AnyNetwork, SlimDiffSR
from rsupres.families.slimdiffsr.teacher import TeacherNetwork
from rsupres.training.config import TrainConfig
from rsupres.upscaling.array import upscale_whole

_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the median squared distance
_SMALL = 1e-8


@dataclass(frozen=True)
class DistillOptions:
    """How a stage `distill` weighs its losses.

    Attributes:
        output_weight: of L1 and LPIPS to the teacher's picture.
        truth_weight: of L1 and LPIPS to the truth.
        feature_weight: of the difference of maps.
        mmd_weight: of the discrepancy of maps.
        mmd_positions: drawn from each map.
    """

    output_weight: float = 1.0
    truth_weight: float = 1.0
    feature_weight: float = 0.1
    mmd_weight: float = 0.1
    mmd_positions: int = 256


class View(NamedTuple):
    """What a teacher shows: the picture in [-1, 1] and its maps (b, c, h, w)."""

    image: Tensor
    maps: tuple[Tensor, ...]


class Teacher(Protocol):
    """Who is imitated."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the maps that it shows."""
        ...

    def look(self, lr: Tensor) -> View:
        """Return what it makes of a batch (b, 3, h, w) in [-1, 1]."""
        ...

    def move(self, device: torch.device) -> None:
        """Go to a device."""
        ...


class FamilyTeacher:
    """A network of this family, seen inside."""

    def __init__(self, network: AnyNetwork) -> None:
        self.network = network.eval().requires_grad_(False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of trunk and latent."""
        return map_widths(self.network)

    @torch.no_grad()
    def look(self, lr: Tensor) -> View:
        """Return picture and maps of a batch that is seen as one scene."""
        return run_with_maps(self.network, lr)

    def move(self, device: torch.device) -> None:
        """Go to a device."""
        self.network.to(device)


class PictureTeacher:
    """A model of any family, of which only pictures are seen."""

    widths: tuple[int, ...] = ()

    def __init__(self, model: SuperResolver, scale: int) -> None:
        self.model = model
        self.scale = scale

    def look(self, lr: Tensor) -> View:
        """Return the model's pictures, each made as a scene of one tile."""
        unit = (lr.float() / 2.0 + 0.5).clamp(0.0, 1.0).cpu().numpy()
        made = [
            upscale_whole(
                self.model,
                np.ascontiguousarray(one),
                Fraction(self.scale),
                torch.device("cpu"),
            )
            for one in unit
        ]
        image = torch.from_numpy(np.stack(made)).to(lr.device)
        return View(2.0 * image - 1.0, ())

    def move(self, device: torch.device) -> None:
        """Stay on the CPU: pictures travel."""


def load_teacher(name_or_path: str, scale: int, root: Path) -> Teacher:
    """Load any checkpoint as a teacher.

    Args:
        name_or_path: a card's name, or a checkpoint relative to `root`.
        scale: of the student.
        root: folder of the configuration.

    Raises:
        InputError: the model does not offer the scale, or needs conditions.
        CheckpointError: it cannot be loaded.
    """
    path = root / name_or_path
    name = str(path) if path.is_file() else name_or_path
    model = load_model(name, torch.device("cpu"), SamplerOptions())
    if not model.spec.scales.offers(Fraction(scale)):
        raise InputError(
            f"teacher '{name_or_path}' offers the scales {model.spec.scales}, the"
            f" student's is {scale}."
        )
    if model.spec.needs:
        needs = ", ".join(sorted(model.spec.needs))
        raise InputError(f"teacher '{name_or_path}' needs {needs}; packs give none.")
    if isinstance(model, SlimDiffSR):
        return FamilyTeacher(model.network)
    return PictureTeacher(model, scale)


def check_distillation(config: TrainConfig) -> None:
    """Check that a configuration distils.

    Raises:
        InputError: no teacher, or no stage `distill`.
    """
    if not config.options.get("teacher"):
        raise InputError(
            f'{config.name}: no teacher; add [options] with teacher = "PATH" or train'
            " with 'rsupres train'."
        )
    if all(stage.name != "distill" for stage in config.stage):
        raise InputError(f"{config.name}: no stage is named 'distill'.")


def run_with_maps(network: AnyNetwork, lr: Tensor) -> View:
    """Run a network on a batch that is seen as one scene, and keep its maps."""
    seen: list[Tensor] = []
    unet = cast(nn.Module, network.unet)
    # diffusers' U-Net ends in norm, SiLU and a convolution; ours in norm and SiLU.
    inner = isinstance(network, TeacherNetwork)
    end = unet.get_submodule("conv_act") if inner else unet
    handle = end.register_forward_hook(lambda _, __, out: seen.append(out))
    try:
        z = network.transform(network.encode(lr), Finding())
    finally:
        handle.remove()
    return View(network.decode(z, lr), (seen[0], z))


def map_widths(network: AnyNetwork) -> tuple[int, int]:
    """Return the channels of trunk and latent."""
    if isinstance(network, TeacherNetwork):
        return network.config.channels[0], 4
    return network.config.trunk.widths[0], network.config.tiny


def make_adapters(network: AnyNetwork, teacher: Teacher) -> nn.ModuleList:
    """Return a 1 x 1 convolution for every map, from student to teacher."""
    pairs = zip(map_widths(network), teacher.widths, strict=False)
    return nn.ModuleList([nn.Conv2d(a, b, 1) for a, b in pairs])


def transfer_weights(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Copy the teacher's tensors into the student's wherever their shapes meet.

    A student that kept the upper levels of a U-Net takes its last up blocks from the
    teacher's last, and its bottom from the first residual block of the level below.

    Returns:
        Names of the student's tensors that were copied.
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
    """Return the squared difference of maps over the teacher's mean square.

    Args:
        adapted: the student's map with the teacher's channels, (b, c, h, w).
        wanted: the teacher's, (b, c, h', w').
    """
    resized = match_size(adapted.float(), wanted.shape[2:])
    wanted = wanted.float()
    power = wanted.square().mean().clamp_min(_SMALL)
    return (resized - wanted).square().mean() / power


def match_size(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize maps: area means where they shrink, else bilinear."""
    height, width = size
    if x.shape[2:] == (height, width):
        return x
    if x.shape[2] >= height and x.shape[3] >= width:
        return functional.adaptive_avg_pool2d(x, (height, width))
    return functional.interpolate(x, size=(height, width), mode="bilinear")


def draw_positions(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return n rows of channels at positions drawn from maps (b, c, h, w), (n, c)."""
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
