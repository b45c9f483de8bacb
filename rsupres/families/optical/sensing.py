"""Read blur, noise and JPEG from a scene's own pixels.

A picture's power spectrum falls off with its blur, flattens out at its noise, and stays
high at its end where nothing kept it from aliasing; JPEG leaves steps at every eighth
pixel. `describe` puts that into some fifty numbers, and a small network, trained on
pictures whose sensor is known, reads blur, noise and quality from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.degradations.optics import FREQUENCIES
from rsupres.families.optical.config import Facts

BLOCK = 32  # pixels of the blocks whose spectra are taken
_STEP = 16
_RINGS = 12  # of the spectrum, from 0 to the corner
_AXIS_BINS = 4  # along each axis
_GRID = 8  # pixels of a JPEG block
_TINY = 1e-9
_QUIET = 0.25  # share of the blocks with the least contrast
N_FEATURES = 3 * _RINGS + 2 * _AXIS_BINS + 4
_N_OUT = len(FREQUENCIES) + 2
# Estimates below this strength (quality 88) are not passed on: false alarms cost more.
_JPEG_FROM = 0.34


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
            nn.Linear(hidden, _N_OUT),
        )
        self.register_buffer("mean", torch.zeros(N_FEATURES))
        self.register_buffer("deviation", torch.ones(N_FEATURES))

    def forward(self, features: Tensor) -> Tensor:
        """Return (b, 6): transfers, root of the noise, strength of JPEG, as told."""
        out: Tensor = self.layers((features - self.mean) / self.deviation)
        return out

    def estimate(self, windows: Sequence[Tensor]) -> Facts:
        """Return the facts read from windows (3, h, w) of a picture, in its levels."""
        values = self(describe(windows)[None])[0]
        told = [float(value) for value in values]
        n = len(FREQUENCIES)
        strength = told[n + 1]
        return Facts(
            transfer=tuple(min(max(value, 0.0), 1.0) for value in told[:n]),
            noise=max(told[n], 0.0) ** 2 * Facts.LARGEST_NOISE,
            quality=0.0 if strength < _JPEG_FROM else Facts.quality_of(strength),
        )


def describe(windows: Sequence[Tensor]) -> Tensor:
    """Return the features (`N_FEATURES`,) of windows (3, h, w), sides 32 or more.

    JPEG's grid is looked for at multiples of 8 pixels from each window's corner.
    """
    blocks = torch.cat([_blocks(window) for window in windows])
    grey = blocks.mean(1)
    power = _power(grey)
    order = power.sum((1, 2)).argsort()
    quiet = power[order[: max(1, int(len(order) * _QUIET))]]
    colour = _power((blocks - grey[:, None]).flatten(0, 1))
    rings, axes = _bins()
    spectra = [_log_means(part.mean(0), rings) for part in (power, quiet, colour)]
    along = _log_means(power.mean(0), axes)
    return torch.cat([*spectra, along, _steps(windows)])


def _blocks(window: Tensor) -> Tensor:
    """Return blocks (n, 3, 32, 32) of a window."""
    parts = window.float().unfold(1, BLOCK, _STEP).unfold(2, BLOCK, _STEP)
    return parts.permute(1, 2, 0, 3, 4).flatten(0, 1)


def _power(pictures: Tensor) -> Tensor:
    """Return the power spectra (n, 32, 17) of (n, 32, 32), without their means."""
    taper = torch.hann_window(BLOCK, periodic=False)
    centred = pictures - pictures.mean((1, 2), keepdim=True)
    spectrum = torch.fft.rfft2(centred * taper[:, None] * taper)
    power: Tensor = spectrum.abs().square() / float(taper.square().sum() ** 2)
    return power


def _log_means(power: Tensor, bins: Tensor) -> Tensor:
    """Return the log of the mean power in each bin; `bins` is (n, 32, 17)."""
    sums = (power * bins).sum((1, 2)) / bins.sum((1, 2))
    return torch.log10(sums + _TINY)


@cache
def _bins() -> tuple[Tensor, Tensor]:
    """Return the masks of rings, and of stretches along the axes."""
    y = torch.fft.fftfreq(BLOCK)[:, None].abs()
    x = torch.fft.rfftfreq(BLOCK)[None]
    ring = ((y.square() + x.square()).sqrt() / 0.7072 * _RINGS).long()
    rings = torch.stack([ring == k for k in range(_RINGS)]).float()
    axes = []
    for along, across in ((y, x), (x, y)):
        place = (along / 0.5001 * _AXIS_BINS).long().expand(BLOCK, -1)
        near = (across < 0.1).expand(BLOCK, -1)
        axes += [(place == k) & near for k in range(_AXIS_BINS)]
    return rings, torch.stack(axes).float()


def _steps(windows: Sequence[Tensor]) -> Tensor:
    """Return how steps at every eighth pixel exceed others, (4,), as logarithms.

    For each axis: at JPEG's own grid, and at the strongest of the eight.
    """
    found = []
    for axis in (1, 2):
        sums, counts = torch.zeros(_GRID), torch.zeros(_GRID)
        for window in windows:
            grey = window.float().mean(0).movedim(axis - 1, 1)
            bend = grey[:, :-3] - 3 * grey[:, 1:-2] + 3 * grey[:, 2:-1] - grey[:, 3:]
            steps = bend.abs().mean(0)  # between pixels k + 1 and k + 2
            place = (torch.arange(len(steps)) + 2) % _GRID
            sums = sums.index_add(0, place, steps)
            counts = counts.index_add(0, place, torch.ones(len(steps)))
        means = sums / counts.clamp_min(1.0)
        share = torch.log10(means / means.mean().clamp_min(_TINY) + _TINY)
        found += [share[0], share.max()]
    return torch.stack(found)


def prepare_features(estimator: Estimator, features: Tensor) -> None:
    """Let an estimator see features (n, `N_FEATURES`) with mean 0 and deviation 1."""
    with torch.no_grad():
        estimator.mean.copy_(features.mean(0))
        estimator.deviation.copy_(features.std(0).clamp_min(1e-3))


def loss(estimated: Tensor, told: Tensor) -> Tensor:
    """Return the distance of estimates (b, 6) to the truth, as told."""
    return functional.smooth_l1_loss(estimated, told, beta=0.05)
