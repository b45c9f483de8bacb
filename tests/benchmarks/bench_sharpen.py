"""Bands of 20 m on the grid of 10 m, by Wald's protocol: bicubic, guided, network.

``python tests/benchmarks/bench_sharpen.py`` reduces the bands of the validation places
of ``sentinel2_10band`` once more, by area means or by a Gaussian of an MTF at Nyquist,
sharpens what were bands of 20 m with what were bands of 10 m, and prints the root mean
square error over that of bicubic interpolation, mean over the six bands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import torch
from data_root import data_folder
from numpy.typing import NDArray

from rsupres.checkpoints.catalogue import load_model
from rsupres.degradations.optics import Kernel, gaussian_of, sample, sampling_matrix
from rsupres.families.base import SamplerOptions
from rsupres.families.sharpening import Levels, Sharpener
from rsupres.products.sharpen import enlarge, sharpen

FloatArray = NDArray[np.float32]
Method = Callable[[FloatArray, FloatArray], FloatArray]

PLACES = ("nantes", "hongkong", "saclay")
KERNELS = {
    "area": Kernel("area"),
    "MTF 0.3": gaussian_of(0.3),
    "MTF 0.15": gaussian_of(0.15),
}
BORDER = 8


def main() -> None:
    """Print a row a place, reduction and method."""
    torch.set_num_threads(1)
    loaded = load_model("s2-bands-small", torch.device("cpu"), SamplerOptions())
    assert isinstance(loaded, Sharpener)
    methods: dict[str, Method] = {
        "guided": partial(sharpen, factor=2),
        "s2-bands-small": partial(run_network, loaded),
    }
    print("| place | reduced by | method | B05 | B06 | B07 | B8A | B11 | B12 | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for place in PLACES:
        for kind, kernel in KERNELS.items():
            fine, coarse, truth = read(
                data_folder() / "sentinel2_10band", place, kernel
            )
            base = errors(enlarge(coarse, 2), truth)
            for name, method in methods.items():
                start = time.monotonic()
                ratio = errors(method(coarse, fine), truth) / base
                took = time.monotonic() - start
                cells = " | ".join(f"{value:.3f}" for value in ratio)
                print(f"| {place} | {kind} | {name} | {cells} | {took:.1f} |")


def read(
    folder: Path, place: str, kernel: Kernel
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return fine and coarse bands, reduced by 2, and the coarse ones as they are."""
    (name,) = folder.glob(f"*_{place}*_10m_4band.tif")
    planes = []
    for path in (name, Path(str(name).replace("10m_4", "20m_6"))):
        with rasterio.open(path) as dataset:
            planes.append(np.asarray(dataset.read(), np.float32))
    fine, truth = planes
    rows, cols = (
        min(one // 4, other // 2)
        for one, other in zip(fine.shape[1:], truth.shape[1:], strict=True)
    )
    fine, truth = fine[:, : 4 * rows, : 4 * cols], truth[:, : 2 * rows, : 2 * cols]
    return reduced(fine, kernel), reduced(truth, kernel), truth


def reduced(bands: FloatArray, kernel: Kernel) -> FloatArray:
    """Return bands with pixels twice as large."""
    matrices = (sampling_matrix(n // 2, n, kernel) for n in bands.shape[1:])
    return sample(bands.astype(np.float64), *matrices).astype(np.float32)


def run_network(network: Sharpener, coarse: FloatArray, fine: FloatArray) -> FloatArray:
    """Return bands sharpened by a network."""
    return network.sharpen(coarse, fine, (Levels.of(coarse), Levels.of(fine)))


def errors(found: FloatArray, truth: FloatArray) -> NDArray[np.float64]:
    """Return the root mean square error of each band, without the border."""
    inner = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return np.sqrt(np.square(found[inner] - truth[inner]).mean(axis=(1, 2)))


if __name__ == "__main__":
    main()
