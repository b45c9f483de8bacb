"""A Ref-Diff of a few channels and random weights, and pictures for it."""

from __future__ import annotations

from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import torch

from rsupres.checkpoints.file import write_checkpoint
from rsupres.families.refdiff.config import MINI, RefDiffConfig
from rsupres.families.refdiff.network import RefDiffUNet
from rsupres.families.refdiff.resolver import make_spec
from tests.pictures import texture

SCALE = Fraction(8)
TINY = replace(MINI, channels=8, mult=(1,), sft_width=8, patch=4, steps=2, base_units=0)
BASED = replace(TINY, base_units=1, base_channels=16)


def tiny_network(seed: int = 0, config: RefDiffConfig = TINY) -> RefDiffUNet:
    torch.manual_seed(seed)
    return RefDiffUNet(config)


def write_tiny(
    path: Path,
    network: RefDiffUNet | None = None,
    config: RefDiffConfig = TINY,
    classes: str | None = None,
    gsd: tuple[float, float] | None = None,
) -> Path:
    network = network or tiny_network(config=config)
    made = make_spec(
        config, scales=frozenset({SCALE}), gsd=gsd, halo=2, classes=classes
    )
    made = replace(made, tile_size=16)
    write_checkpoint(path, network.state_dict(), made, asdict(config), "a test")
    return path


def images(height: int = 16, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth-and-textured reference, and the LR image of the same ground."""
    reference = torch.from_numpy(texture(height * 8, width * 8, 3)).float()[None]
    reference = (reference - reference.min()) / (reference.max() - reference.min())
    return torch.nn.functional.avg_pool2d(reference, 8), reference
