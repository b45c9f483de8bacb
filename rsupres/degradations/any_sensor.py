"""Simulate LR images of any optical sensor or product, with the facts of each image.

The blur ranges from optics that nearly lose the Nyquist frequency to files that were
subsampled without a filter. Noise may grow with the signal, bands may be displaced,
values may be rounded to 8 bits or coarser steps, JPEG blocks may begin anywhere, and
pixels may have been interpolated onto another grid. The facts of each image are
returned too, so that a model can learn to take some as input and estimate the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsupres.degradations.base import Degradation, check_size
from rsupres.degradations.jpeg import Subsampling, recompress, recompress_2000
from rsupres.degradations.optics import (
    Kernel,
    KernelKind,
    gaussian_of,
    interpolated_matrix,
    response,
    sample,
    sampling_matrix,
    sensor_of,
)

Pixels = NDArray[np.float32]
# In the order of `AnySensor.kernels`.
_KINDS: tuple[KernelKind, ...] = (
    *("gaussian", "sensor", "bicubic", "area", "bilinear"),
    *("lanczos", "nearest", "point", "point_cubic"),
)
_BLURRED = ("gaussian", "sensor")
_STEPS = (1, 1, 1, 2, 3)  # of 255, that pixels are rounded to
_SIGNAL = (0.2, 1.6)  # of noise that grows: variance at 0, and per unit of the signal


@dataclass(frozen=True)
class Taken:
    """LR images (b, 3, h, w) and the facts of each.

    Attributes:
        lr: not clipped where the sensor does not clip.
        transfer: (b, 4) at `optics.FREQUENCIES`.
        noise: (b,) standard deviation.
        quality: (b,) of JPEG, 0 = none.
        interpolated: (b,) 1 = the pixels were warped onto another grid, else 0.
    """

    lr: Tensor
    transfer: Tensor
    noise: Tensor
    quality: Tensor
    interpolated: Tensor


@dataclass(frozen=True)
class _Shot:
    """One LR image, its transfer, noise and quality, and whether it was warped."""

    lr: Pixels
    transfer: NDArray[np.float64]
    noise: float
    quality: float
    warped: bool


@dataclass(frozen=True)
class AnySensor(Degradation):
    """Ranges and shares of the sensors; pairs are (low, high).

    Attributes:
        kernels: shares of the kernels Gaussian, sensor, bicubic, area, bilinear,
            Lanczos, nearest, point and cubic point.
        mtf: of the first two at Nyquist.
        astigmatic: share of those whose axes differ.
        mtf_spread: largest difference between their axes.
        shifted: share of those whose bands are displaced.
        band_shift: largest displacement, LR pixels.
        noisy: share of images with noise.
        noise: its standard deviation, of the range, drawn evenly in its logarithm.
        growing: share of noise whose variance grows with the signal.
        grey: share of noise that is the same in all bands.
        compressed: share of images that were stored as JPEG.
        quality: of JPEG.
        wavelet: share of images that were stored as JPEG 2000.
        rate: compression ratio of JPEG 2000.
        warped: share of images that were interpolated onto another grid, linearly or
            by cubic convolution; these have a Gaussian kernel.
        step: pixels of the sensor's own grid, LR pixels.
        rounded: share of the others that are rounded to whole steps.
        alike: share of batches whose images all have the same sensor and file format,
            for networks that see a batch as one scene.
    """

    kernels: tuple[float, ...] = (
        *(0.41, 0.08, 0.24, 0.15, 0.015, 0.015, 0.05, 0.02, 0.02),
    )
    mtf: tuple[float, float] = (0.05, 0.6)
    astigmatic: float = 0.4
    mtf_spread: float = 0.08
    shifted: float = 0.15
    band_shift: float = 0.15
    noisy: float = 0.36
    noise: tuple[float, float] = (0.002, 0.05)
    growing: float = 0.35
    grey: float = 0.2
    compressed: float = 0.2
    quality: tuple[int, int] = (50, 95)
    wavelet: float = 0.04
    rate: tuple[float, float] = (4.0, 24.0)
    warped: float = 0.1
    step: tuple[float, float] = (0.94, 1.06)
    rounded: float = 0.8
    alike: float = 0.0

    def degrade(
        self, hr: Tensor, size: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Return LR images, clipped to [0, 1]."""
        return self.take(hr, size, generator).lr.clamp(0.0, 1.0).to(hr.device)

    def take(
        self, hr: Tensor, size: tuple[int, int], generator: torch.Generator
    ) -> Taken:
        """Return LR images and their facts; values of HR may leave [0, 1].

        Args:
            hr: (b, c, H, W).
            size: rows and columns of LR.
            generator: of all draws.
        """
        check_size(hr, size)
        seed = torch.randint(2**62, (1,), generator=generator).item()
        random = np.random.default_rng(int(seed))
        alike = self.alike > 0 and random.random() < self.alike
        shots = []
        for image in hr.float().cpu().numpy():
            way = np.random.default_rng([int(seed), 1]) if alike else random
            shots.append(self._shoot(image, size, way, random))
        return Taken(
            torch.from_numpy(np.stack([shot.lr for shot in shots])),
            torch.from_numpy(np.stack([shot.transfer for shot in shots])).float(),
            torch.tensor([shot.noise for shot in shots]),
            torch.tensor([shot.quality for shot in shots]),
            torch.tensor([float(shot.warped) for shot in shots]),
        )

    def _shoot(
        self,
        image: Pixels,
        size: tuple[int, int],
        random: np.random.Generator,
        grain: np.random.Generator,
    ) -> _Shot:
        """Return an LR image of a sensor drawn from `random`, noise from `grain`."""
        warped = random.random() < self.warped
        if warped:
            lr, transfer = self._warp(image, size, random)
        else:
            lr, transfer = self._sample(image, size, self._draw_kernels(random), random)
        noise, quality = 0.0, 0
        if random.random() < self.noisy:
            low, high = (math.log(v) for v in self.noise)
            noise = math.exp(random.uniform(low, high))
            lr = self._add_noise(lr, noise, random, grain)
        stored = random.random()
        if stored < self.compressed:
            quality = int(random.integers(self.quality[0], self.quality[1] + 1))
            lr = compress(lr, quality, random)
        elif stored < self.compressed + self.wavelet:
            lr = _from_bytes(recompress_2000(_as_bytes(lr), random.uniform(*self.rate)))
        elif random.random() < self.rounded:
            step = float(random.choice(_STEPS)) / 255.0
            lr = np.asarray(np.round(lr / step) * step, np.float32)
        return _Shot(lr.astype(np.float32), transfer, noise, float(quality), warped)

    def _warp(
        self, image: Pixels, size: tuple[int, int], random: np.random.Generator
    ) -> tuple[Pixels, NDArray[np.float64]]:
        """Return the image after an interpolation, and its mean transfer."""
        kernel, cubic = gaussian_of(random.uniform(*self.mtf)), random.random() < 0.5
        rows, columns = (
            interpolated_matrix(
                small,
                large,
                kernel,
                random.uniform(*self.step),
                phase=random.random(),
                cubic=cubic,
            )
            for small, large in zip(size, image.shape[1:], strict=True)
        )
        transfer = (response(rows) + response(columns)) / 2.0
        return sample(image, rows, columns), transfer

    def _draw_kernels(self, random: np.random.Generator) -> tuple[Kernel, Kernel]:
        """Return the kernels of rows and columns."""
        kind = _KINDS[int(random.choice(len(_KINDS), p=self.kernels))]
        if kind not in _BLURRED:
            return Kernel(kind), Kernel(kind)
        make = gaussian_of if kind == "gaussian" else sensor_of
        mtf = random.uniform(*self.mtf)
        if random.random() >= self.astigmatic:
            return make(mtf), make(mtf)
        low, high = self.mtf[0] * 0.8, self.mtf[1] + 0.02
        spread = random.uniform(-self.mtf_spread, self.mtf_spread, 2)
        first, second = np.clip(mtf + spread, low, high)
        return make(float(first)), make(float(second))

    def _sample(
        self,
        image: Pixels,
        size: tuple[int, int],
        kernels: tuple[Kernel, Kernel],
        random: np.random.Generator,
    ) -> tuple[Pixels, NDArray[np.float64]]:
        """Return the image on the LR grid and its transfer, mean of both axes."""
        shifts: np.ndarray = np.zeros((len(image), 2))
        if kernels[0].kind in _BLURRED and random.random() < self.shifted:
            reach = self.band_shift
            shifts = random.uniform(-reach, reach, shifts.shape)
        bands, transfer = [], np.zeros(0)
        for band, shift in zip(image, shifts, strict=True):
            rows, columns = (
                sampling_matrix(small, large, kernel, float(by))
                for small, large, kernel, by in zip(
                    size, image.shape[1:], kernels, shift, strict=True
                )
            )
            bands.append(sample(band[None], rows, columns)[0])
            transfer = (response(rows) + response(columns)) / 2.0
        return np.stack(bands), transfer

    def _add_noise(
        self,
        lr: Pixels,
        noise: float,
        random: np.random.Generator,
        grain: np.random.Generator,
    ) -> Pixels:
        deviation: np.ndarray | float = noise
        if random.random() < self.growing:
            lr = np.clip(lr, 0.0, None)
            deviation = noise * np.sqrt(_SIGNAL[0] + _SIGNAL[1] * lr.clip(0.0, 1.5))
        drawn = grain.standard_normal(lr.shape, np.float32)
        if random.random() < self.grey:
            drawn[:] = drawn[:1]
        return np.asarray(lr + deviation * drawn, np.float32)


def compress(image: Pixels, quality: int, random: np.random.Generator) -> Pixels:
    """Return an image (3, h, w) after JPEG; the grid of its blocks begins anywhere.

    Args:
        image: (3, h, w) in [0, 1].
        quality: of JPEG, 1 to 100.
        random: draws where the blocks begin.
    """
    top, left = random.integers(0, 8, 2) if random.random() < 0.6 else (0, 0)
    padded = np.pad(_as_bytes(image), ((0, 0), (top, 0), (left, 0)), mode="edge")
    choices: tuple[Subsampling, ...] = ("4:2:0", "4:4:4")
    subsampling = choices[random.integers(2)]
    return _from_bytes(recompress(padded, quality, subsampling)[:, top:, left:])


def _as_bytes(image: Pixels) -> NDArray[np.uint8]:
    return np.floor(image.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _from_bytes(image: NDArray[np.uint8]) -> Pixels:
    return image.astype(np.float32) / np.float32(255)
