"""A small optical model, and pictures for it."""

from __future__ import annotations

import numpy as np
import torch

from rsupres.degradations.optics import gaussian_of, sample, sampling_matrix
from rsupres.families.base import SamplerOptions
from rsupres.families.optical.config import OpticalConfig
from rsupres.families.optical.network import OpticalNetwork
from rsupres.families.optical.resolver import Optical, make_spec

CPU = torch.device("cpu")
CONFIG = OpticalConfig(channels=16, units=2, blocks=1, hidden=8)


def make_network(config: OpticalConfig = CONFIG) -> OpticalNetwork:
    """Return a network whose head and modulations matter."""
    torch.manual_seed(0)
    network = OpticalNetwork(config)
    for name, parameter in network.named_parameters():
        if "head" in name or ".l2.weight" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval().requires_grad_(False)


def make_model(
    config: OpticalConfig = CONFIG, options: SamplerOptions | None = None
) -> Optical:
    network = make_network(config)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
    spec = make_spec(config, gsd=None)
    return Optical(spec, network, options or SamplerOptions(), CPU)


def picture(bands: int = 3, side: int = 48, seed: int = 0) -> np.ndarray:
    """Return smooth ground with edges, (bands, side, side) in [0.2, 0.8]."""
    random = np.random.default_rng(seed)
    rows = sampling_matrix(side, 4 * side, gaussian_of(0.3))
    rough = random.random((bands, 4 * side, 4 * side)) > 0.5
    return (0.2 + 0.6 * sample(rough.astype(np.float64), rows, rows)).astype(np.float32)
