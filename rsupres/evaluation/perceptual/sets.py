"""Distances between sets of pictures: FID and KID, by torchmetrics.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local
Nash Equilibrium"; Binkowski et al. 2018, "Demystifying MMD GANs". Both compare the
features of all results with those of all truths, so they belong to the means of a test.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rsupres.errors import InputError
from rsupres.evaluation.perceptual.inception import Features
from rsupres.evaluation.report import Row

logger = logging.getLogger(__name__)

FEW_IMAGES = 1000  # below it FID depends on their number
KID_SUBSET = 1000  # images that KID draws at a time, at most
KID_DRAWS = 100
KID_SEED = 0
_TRUTH = ""


class Sets:
    """Collects the features of results and truths, and compares the sets.

    Args:
        features: of a picture (3, H, W) of 8 bits.
    """

    def __init__(self, features: Features) -> None:
        self._features = features
        self._found: dict[tuple[str, str], list[NDArray[np.float32]]] = {}

    def add(
        self, scale: str, made: Mapping[str, NDArray[np.uint8]], hr: NDArray[np.uint8]
    ) -> None:
        """Take the results of models, by name, and the truth of one image.

        Args:
            scale: of the results, as text.
            made: results (3, H, W) by the name of their model.
            hr: the truth, (3, H, W).
        """
        for name, picture in [(_TRUTH, hr), *made.items()]:
            found = self._features(picture)
            self._found.setdefault((name, scale), []).append(found)

    def complete(self, means: Sequence[Row]) -> list[Row]:
        """Return the means of a test with FID and KID, where they have two images."""
        n_images = max((len(found) for found in self._found.values()), default=0)
        if 2 <= n_images < FEW_IMAGES:
            logger.warning(
                "FID of %d images is no measure of its own: it falls with their "
                "number. Compare it among models of this test only.",
                n_images,
            )
        return [replace(row, figures={**row.figures, **self._of(row)}) for row in means]

    def _of(self, row: Row) -> dict[str, float]:
        truths, made = (
            np.stack(self._found[name, row.scale]) for name in (_TRUTH, row.model)
        )
        return {} if len(truths) < 2 else set_distances(truths, made)


def set_distances(truths: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """Return FID and KID of two sets of features (n, c).

    KID is the mean over `KID_DRAWS` subsets; of 1,000 images or fewer each is the
    whole set, so that it does not depend on the draw.

    Args:
        truths: (n, c) features of the true pictures.
        made: (m, c) features of the results.

    Raises:
        InputError: torchmetrics is not installed.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance
    except ImportError as error:
        raise InputError(
            "FID and KID need torchmetrics: pip install 'rsupres[eval]'."
        ) from error
    size = min(KID_SUBSET, len(truths))
    passed = _Passed(truths.shape[1])
    fid = FrechetInceptionDistance(passed)
    draws = 1 if size == len(truths) else KID_DRAWS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of memory: features are small
        kid = KernelInceptionDistance(passed, subsets=draws, subset_size=size)
    for metric in (fid, kid):
        for values, is_real in ((truths, True), (made, False)):
            metric.update(torch.from_numpy(values.astype(np.float64)), real=is_real)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(KID_SEED)
        kid_mean, _ = kid.compute()
    return {"fid": float(fid.compute()), "kid": float(kid_mean)}


class _Passed(nn.Module):
    """Takes the place of torchmetrics' network and returns its input unchanged."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        return features
