"""Pictures with known spectra, and LPIPS weights, for tests of measures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from rsupres.evaluation.perceptual.lpips import FEATURES_FILE, HEADS_FILE, LpipsSqueeze


def texture(height: int, width: int, seed: int = 0, bands: int = 3) -> np.ndarray:
    """A picture with power at all frequencies, in [0.1, 0.9], float32."""
    rng = np.random.default_rng(seed)
    rows, cols = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    fall = 1 / np.maximum(np.hypot(rows, cols), 0.02)
    noise = np.fft.rfft2(rng.standard_normal((bands, height, width)))
    image = np.fft.irfft2(noise * fall, (height, width))
    image -= image.min()
    return (0.1 + 0.8 * image / image.max()).astype(np.float32)


def fourier_shift(image: np.ndarray, row: float, col: float) -> np.ndarray:
    """Move (c, H, W) by a part of a pixel, circularly, downwards and to the right."""
    rows, cols = np.fft.fftfreq(image.shape[1]), np.fft.fftfreq(image.shape[2])
    turn = np.exp(-2j * np.pi * (row * rows[:, None] + col * cols))
    return np.fft.ifft2(np.fft.fft2(image) * turn).real


def write_random_weights(folder: Path) -> None:
    """Write files that load as LPIPS (squeeze) but mean nothing."""
    module = LpipsSqueeze()
    save_file(module.backbone.state_dict(), folder / FEATURES_FILE)
    heads = {f"lin{i}.model.1.weight": p.data.abs() for i, p in enumerate(module.heads)}
    torch.save(heads, folder / HEADS_FILE)


def picture(height: int, width: int, seed: int = 0, bands: int = 3) -> np.ndarray:
    """A `texture` in 8 bits."""
    return (texture(height, width, seed, bands) * 255).round().astype(np.uint8)


def psnr_by_hand(sr: np.ndarray, hr: np.ndarray, border: int) -> float:
    """PSNR of two 8-bit pictures, dB, without a border."""
    inner = np.s_[:, border:-border, border:-border] if border else np.s_[:]
    error = (sr.astype(float) - hr.astype(float))[inner]
    return 10 * math.log10(255**2 / np.mean(error**2))
