"""Sentinel-2 at 10 m against aerial images at 5 m, and how well a filter could do.

``python tests/benchmarks/bench_real_pair.py DATA [--model NAME] [--told MTF ...]``
enlarges the Sentinel-2 scene of `pairs/s2_ngi_southafrica` twice, moves the two aerial
images of 5 m onto it by phase correlation and prints PSNR in dB and SSIM for each, in
windows of 256 pixels with matched histograms, mean over eight windows: of bicubic
interpolation; of the model, which reads the sensor from the scene; and of the model
told each MTF.

Then of linear filters of 15 x 15 pixels, one a band, after bicubic interpolation and
after the model: least squares to the very image that they are measured on, the best
that any filter can do there, and to the other image.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import rsupres
from rsupres.evaluation.measures.metrics import psnr, ssim
from rsupres.evaluation.pairs import Preparation, load_pair, match_histogram
from rsupres.raster.stretch import parse_stretch

FOLDER = "pairs/s2_ngi_southafrica"
SCENE = "sentinel2_20151003_b432_byte_10m.tif"
TRUTHS = ("ngi_rgb_5m_1.tif", "ngi_rgb_5m_2.tif")
_SIDE = 256
_RADIUS = 7  # of the filters
_EVERY = 3  # pixels of which one goes into a fit
_RIDGE = 1e-4  # of the mean diagonal
Floats = NDArray[np.float64]
Window = tuple[Floats, Floats, NDArray[np.bool_]]  # result, truth, valid


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="optical-small")
    parser.add_argument("--told", type=float, nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    scene = given.data / FOLDER / SCENE
    runs: dict[str, dict[str, object]] = {
        "bicubic": {"model": "bicubic"},
        given.model: {"model": given.model},
    }
    for mtf in given.told:
        runs[f"told {mtf:g}"] = {"model": given.model, "sensor_mtf": mtf}
    print("| result | PSNR | SSIM |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, options in runs.items():
            out = Path(folder) / "sr.tif"
            rsupres.upscale(scene, out, scale=2, overwrite=True, **options)  # type: ignore[arg-type]
            truths = [given.data / FOLDER / truth for truth in TRUTHS]
            windows = [list(cut(out, truth)) for truth in truths]
            show(name, windows)
            if name in ("bicubic", given.model):
                show_filters(name, windows)


def cut(sr: Path, truth: Path) -> Iterator[Window]:
    """Yield the windows in which both are valid, histograms matched."""
    preparation = Preparation(parse_stretch("auto"), warp=True, align=())
    pair, _, _ = load_pair(str(sr), str(truth), preparation)
    height, width = pair.valid.shape
    for row in range(0, height - _SIDE + 1, _SIDE):
        for col in range(0, width - _SIDE + 1, _SIDE):
            part = np.s_[row : row + _SIDE, col : col + _SIDE]
            valid = pair.valid[part]
            if valid.mean() > 0.98:
                made, hr = pair.sr[:, *part], pair.hr[:, *part]
                matched = match_histogram(made, hr, valid)
                yield matched.astype(np.float64), hr.astype(np.float64), valid


def show(name: str, windows: list[list[Window]]) -> None:
    """Print PSNR and SSIM of each image, mean over its windows."""
    means = [
        np.mean([(psnr(a, b, v), ssim(a, b, v)) for a, b, v in image], axis=0)
        for image in windows
    ]
    cells = [
        ", ".join(format(mean[figure], digits) for mean in means)
        for figure, digits in enumerate((".2f", ".3f"))
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def show_filters(name: str, windows: list[list[Window]]) -> None:
    """Print the figures of filters after `name`."""
    filters = [fit(image) for image in windows]
    for whose, order in (("its own", (0, 1)), ("the other", (1, 0))):
        filtered = [
            [(apply(filters[i], *window), *window[1:]) for window in image]
            for i, image in zip(order, windows, strict=True)
        ]
        show(f"{name}, filter fitted to {whose} image", filtered)


def fit(image: list[Window]) -> list[Floats]:
    """Return the weights of each band, least squares over all windows."""
    weights = []
    for band in range(image[0][0].shape[0]):
        square, product = np.zeros(()), np.zeros(())
        for made, truth, _ in image:
            around = _around(made[band])[::_EVERY]
            aim = (truth[band] - made[band].mean()).ravel()[::_EVERY]
            square = square + around.T @ around
            product = product + around.T @ aim
        ridge = _RIDGE * np.trace(square) / len(square)
        weights.append(np.linalg.solve(square + ridge * np.eye(len(square)), product))
    return weights


def apply(
    weights: list[Floats], made: Floats, truth: Floats, valid: NDArray[np.bool_]
) -> Floats:
    """Return a filtered window, its histogram matched again."""
    bands = [
        (_around(plane) @ w).reshape(plane.shape) + plane.mean()
        for plane, w in zip(made, weights, strict=True)
    ]
    return match_histogram(np.stack(bands), truth, valid).astype(np.float64)


def _around(plane: Floats) -> Floats:
    """Return the neighbourhood of each pixel of (h, w), without the mean, (h w, n)."""
    padded = np.pad(plane - plane.mean(), _RADIUS, mode="reflect")
    side = 2 * _RADIUS + 1
    return sliding_window_view(padded, (side, side)).reshape(-1, side * side)


if __name__ == "__main__":
    main()
