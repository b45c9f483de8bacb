"""Euler's method against a solution that is known."""

from __future__ import annotations

import numpy as np
import torch

from rsupres.diffusion.edm import karras_sigmas, sample_euler


def test_euler_with_the_truth_arrives_at_it() -> None:
    truth = torch.full((1, 1, 2, 2), 0.25, dtype=torch.float64)
    sigmas = karras_sigmas(4, 0.1, 10.0)
    result = sample_euler(lambda x, sigma: truth, truth + 10.0, sigmas)
    np.testing.assert_allclose(result.numpy(), truth.numpy(), atol=1e-12)
