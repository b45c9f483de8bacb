"""Prepare a scene for a model, once for every sample.

The result is one `SceneContext`, which the run directory keeps; nothing is upscaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rsupres.diffusion.noise import NoiseField
from rsupres.execution import OnProgress, Progress
from rsupres.families.base import Conditions, SceneContext, SuperResolver
from rsupres.grid import PixelWindow
from rsupres.upscaling.preparation.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from rsupres.output.run_dir import Run

Value = TypeVar("Value")


@dataclass(frozen=True)
class PreparedScene:
    """The scene as a model reads it while it prepares: a `SceneReader`.

    Attributes:
        work: the settled job.
        prefix: of the names of arrays, one per sample.
        run: where the arrays live; None = the scene is read only.
        show: called with how many rows the model has read.
        sample: which of the run's samples is prepared.
    """

    work: Work
    prefix: str
    run: Run | None
    show: OnProgress
    sample: int = 0
    _deepest: list[int] = field(default_factory=lambda: [0])

    @property
    def height(self) -> int:
        """LR rows of the padded frame."""
        return self.work.grid.lr.height

    @property
    def width(self) -> int:
        """LR columns of the padded frame."""
        return self.work.grid.lr.width

    def read(self, window: PixelWindow) -> tuple[np.ndarray, np.ndarray]:
        """Return (c, h, w) float32 in [0, 1], filled, and (1, h, w) bool valid.

        Valid are pixels that all bands measure, or any where none has all of them.
        """
        work = self.work
        roles = work.bands.roles
        joint = min(work.n_joint, len(roles))
        dn, apart = work.scene.read_filled(window, roles, joint)
        valid = np.asarray(apart.all(axis=0, keepdims=True))
        if not valid.any():
            valid = np.asarray(apart.any(axis=0, keepdims=True))
        first = work.stretch.for_bands(range(1, len(roles) + 1))
        deepest = max(self._deepest[0], window.row_stop)
        self._deepest[0] = deepest
        self.show(Progress("Prepare", deepest, self.height, "rows"))
        return work.split_excess(first.to_unit(dn))[0], valid

    def read_conditions(self, window_sr: PixelWindow) -> Conditions:
        """Return the conditions on an SR window as a batch of one, on the CPU."""
        return self.work.conditions.read_conditions(window_sr, self.sample)

    @property
    def style(self) -> Tensor | None:
        """The style image of this sample, (c, Hs, Ws) in [0, 1]."""
        return self.work.conditions.conditions((), self.sample).style

    def allocate(self, name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
        """Return a zeroed array that lives in the run directory."""
        assert self.run is not None
        return self.run.allocate(f"{self.prefix}{name}", shape, dtype)


def prepare_samples(
    work: Work, model: SuperResolver, run: Run, show: OnProgress
) -> SceneContext:
    """Let the model prepare every sample of a run.

    Args:
        work: the settled job.
        model: loaded.
        run: open; arrays of the model live in its directory.
        show: called with how many rows the model has read.

    Returns:
        One context; names begin with ``s<sample>_``, see `context_of`.
    """
    arrays: dict[str, np.ndarray] = {}
    numbers: dict[str, float] = {}
    for sample in range(work.job.samples):
        prefix = f"s{sample}_"
        scene = PreparedScene(work, prefix, run, show, sample)
        noise = NoiseField(work.job.seed, sample)
        context = model.prepare(scene, work.grid.scale, noise)
        arrays |= {prefix + name: value for name, value in context.arrays.items()}
        numbers |= {prefix + name: value for name, value in context.numbers.items()}
    return SceneContext(arrays, numbers)


def context_of(whole: SceneContext, sample: int) -> SceneContext:
    """Return one sample's part of the context from `prepare_samples`.

    Args:
        whole: context of all samples.
        sample: number of the sample, from 0.
    """
    prefix = f"s{sample}_"
    return SceneContext(_part(whole.arrays, prefix), _part(whole.numbers, prefix))


def _part(values: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """Return the values whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }
