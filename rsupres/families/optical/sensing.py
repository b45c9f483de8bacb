"""The network that reads blur, noise and JPEG from the features of a picture.

It is trained here and run by `reading`, without torch, so that plans can show what it
reads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.families.optical.features import N_FEATURES
from rsupres.families.optical.reading import N_READ

_DROPPED = (0.05, 0.1)  # shares of features and of hidden numbers, while it trains


class Estimator(nn.Module):
    """Features of a picture to the facts that the network takes."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(N_FEATURES, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, N_READ),
        )
        self.register_buffer("mean", torch.zeros(N_FEATURES))
        self.register_buffer("deviation", torch.ones(N_FEATURES))

    def forward(self, features: Tensor) -> Tensor:
        """Return (b, `N_READ`): transfers, root of the noise, JPEG."""
        x = (features - self.mean) / self.deviation
        x = functional.dropout(x, _DROPPED[0], self.training)
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.SiLU):
                x = functional.dropout(x, _DROPPED[1], self.training)
        return x


def prepare_features(estimator: Estimator, features: Tensor) -> None:
    """Let an estimator see features (n, `N_FEATURES`) with mean 0 and deviation 1.

    Args:
        estimator: whose normalisation is set.
        features: (n, `N_FEATURES`) of training pictures.
    """
    with torch.no_grad():
        estimator.mean.copy_(features.mean(0))
        estimator.deviation.copy_(features.std(0).clamp_min(1e-3))


def loss(estimated: Tensor, told: Tensor) -> Tensor:
    """Return the distance of estimates (b, `N_READ`) to the truth, as told.

    Args:
        estimated: (b, `N_READ`).
        told: the truth, see `Facts`.
    """
    return functional.smooth_l1_loss(estimated, told, beta=0.05)
