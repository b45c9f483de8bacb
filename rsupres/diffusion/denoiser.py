"""The protocol between samplers and networks: one denoiser for all.

The samplers differ in the level that they pass to the network (a diffusion step, an
int, or a noise level, a float) and in the prediction that they expect (noise, or the
clean sample), which each of them states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from torch import Tensor

Level = TypeVar("Level", int, float, contravariant=True)
Prediction = Literal["eps", "x0"]
Noise = Callable[[int], Tensor]  # number of a step to standard normals of x's shape


class Denoiser(Protocol[Level]):
    """A network with its conditions, as a sampler calls it."""

    def __call__(self, x: Tensor, level: Level, /) -> Tensor:
        """Return the prediction for noisy samples, (b, c, h, w) in the type of `x`.

        Args:
            x: noisy samples, (b, c, h, w).
            level: diffusion step or noise level, the same for all of them.
        """
        ...
