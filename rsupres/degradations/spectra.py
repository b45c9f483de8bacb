"""Other spectra for HR images: mixed, single, swapped and inverted bands, other tones.

An augmentation with which a model learns from shapes, not from colours, so that it
serves any band or triple of bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rsupres.degradations.ranges import Ranges


@dataclass(frozen=True)
class SpectrumParams(Ranges):
    """Probability and size of changes of bands; pairs are (low, high).

    Attributes:
        kinds: shares of images that keep their bands, have them mixed at random, become
            one band as a grey picture, and have them in another order.
        reversed: share of the first kind whose bands come in the reverse order.
        negative: share of mixtures with weights that may be negative.
        inverted: share of inverted images.
        toned: share with another gamma.
        gamma: exponent.
        stretched: share with another contrast and brightness.
        contrast: factor about 0.5.
        brightness: added.
        clipped: share clipped to [0, 1]; the others may go beyond.
    """

    kinds: tuple[float, ...] = (0.45, 0.25, 0.22, 0.08)
    reversed: float = 0.3
    negative: float = 0.5
    inverted: float = 0.12
    toned: float = 0.3
    gamma: tuple[float, float] = (0.7, 1.4)
    stretched: float = 0.5
    contrast: tuple[float, float] = (0.5, 1.65)
    brightness: tuple[float, float] = (-0.2, 0.2)
    clipped: float = 0.4


def change_spectra(
    hr: Tensor, generator: torch.Generator, params: SpectrumParams
) -> Tensor:
    """Return (b, 3, H, W) in [0, 1], each image with another spectrum.

    Args:
        hr: (b, c, H, W) in [0, 1].
        generator: of all draws.
        params: how often each change is drawn.
    """
    seed = torch.randint(2**62, (1,), generator=generator).item()
    random = np.random.default_rng(int(seed))
    changed = [_change(image, random, params) for image in hr]
    return torch.stack(changed).clamp(-1.0, 3.0)


def _change(
    image: Tensor, random: np.random.Generator, params: SpectrumParams
) -> Tensor:
    x = _choose_bands(image, random, params)
    if random.random() < params.inverted:
        x = 1.0 - x
    if random.random() < params.toned:
        x = x.sign() * x.abs() ** random.uniform(*params.gamma)
    if random.random() < params.stretched:
        factor = np.exp(random.uniform(*np.log(params.contrast)))
        x = (x - 0.5) * factor + 0.5 + random.uniform(*params.brightness)
    return x.clamp(0.0, 1.0) if random.random() < params.clipped else x


def _choose_bands(
    image: Tensor, random: np.random.Generator, params: SpectrumParams
) -> Tensor:
    n = len(image)
    kind = random.choice(len(params.kinds), p=params.kinds)
    if kind == 0:
        return image[:3].flip(0) if random.random() < params.reversed else image[:3]
    if kind == 1:
        weights = random.dirichlet(np.ones(n), 3)
        if random.random() < params.negative:
            weights = weights + random.normal(0.0, 0.3, weights.shape)
        return torch.einsum("kc,chw->khw", torch.from_numpy(weights).to(image), image)
    if kind == 2:
        return image[random.integers(n)].expand(3, -1, -1)
    return image[random.permutation(n)[:3].tolist()]
