"""Small networks of SlimDiffSR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rsupres.families.base import SamplerOptions
from rsupres.families.slimdiffsr.config import SlimDiffSRConfig, TrunkConfig
from rsupres.families.slimdiffsr.mini import MINI
from rsupres.families.slimdiffsr.resolver import (
    Config,
    SlimDiffSR,
    make_network,
    make_spec,
)

CPU = torch.device("cpu")
SMALL = SlimDiffSRConfig(4, TrunkConfig((32, 64), 64, 1, 8, 16, "group", 8), 8)
SMALL_MINI = replace(MINI, trunk=TrunkConfig((16, 24), 32, 1, 8, 16, "pixel"), tiny=12)
CONFIGS: Mapping[str, Config] = {"student": SMALL, "mini": SMALL_MINI}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
# The mini network always, the released layout in make test-all.
mini_config = pytest.mark.parametrize(
    "config",
    [pytest.param(SMALL, marks=pytest.mark.slow), SMALL_MINI],
    ids=CONFIGS,
)


def network(config: Config) -> nn.Module:
    """Return a network of loud random weights: the whole picture matters."""
    torch.manual_seed(0)
    made = make_network(config)
    for name, parameter in made.named_parameters():
        if name.endswith(("mlp.0.weight", "mlp.2.weight")):
            parameter.data.mul_(4)
        if name == "head.weight":
            parameter.data.mul_(10)
    return made.eval().requires_grad_(False)


def model(config: Config, halo: int = 8, **options: object) -> SlimDiffSR:
    spec = make_spec(config, gsd=None, halo=halo)
    return SlimDiffSR(spec, network(config), SamplerOptions(**options), CPU)  # type: ignore[arg-type]


def picture(height: int, width: int) -> np.ndarray:
    """Return (3, h, w): ground that changes across the scene, an edge, texture."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:height, :width]
    ground = 0.3 + 0.3 * cols / width + 0.1 * np.sin(rows / 9.0) * np.cos(cols / 7.0)
    ground = ground + 0.1 * (cols > width // 3)
    return (ground + 0.1 * rng.random((3, height, width))).astype(np.float32)
