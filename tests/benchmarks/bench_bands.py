"""Every band of real imagery by Wald's protocol: the scene itself is the truth.

``python tests/benchmarks/bench_bands.py DATA --model NAME ...`` reduces the validation
scenes of Sentinel-2 (10 m bands, reflectance) and two images of NAIP with near infrared
through a Gaussian point spread function (``--mtf``, at Nyquist of the reduced grid),
enlarges them 2 and 4 times and prints PSNR minus that of cubic interpolation: visible
bands together, and near infrared; and the root mean square error of NDVI and NDWI over
that of cubic interpolation. A model of three bands gets near infrared as a grey
picture; ``--told`` tells a model the MTF.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import rasterio
import torch

from rsupres.checkpoints.catalogue import load_model
from rsupres.degradations.optics import gaussian_of, sample, sampling_matrix
from rsupres.evaluation.measures.indices import INDICES, index_figures
from rsupres.evaluation.measures.metrics import psnr
from rsupres.families.base import SamplerOptions, SuperResolver
from rsupres.upscaling.array import upscale_whole

CPU = torch.device("cpu")
SCENES = (
    "sentinel2_10band/oscd_nantes_20171014_S2L1C_10m_4band.tif",
    "sentinel2_10band/oscd_hongkong_20180323_S2L1C_10m_4band.tif",
    "sentinel2_10band/oscd_saclay_e_20170829_S2L1C_10m_4band.tif",
    "aerial/naip_nd/m_4709963_se_14_1_20170827.tif",
    "aerial/other/naip_va_3607717_1m_rgbn.tif",
)
_SIDE = 512  # pixels of the cut
_ROLES = ("red", "green", "blue", "nir")
_BORDER = 8
_INNER = (slice(None), slice(_BORDER, -_BORDER), slice(_BORDER, -_BORDER))


def main() -> None:
    """Print a row a scene, scale and model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--mtf", type=float, default=0.25)
    parser.add_argument("--told", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cubic = load_model("bicubic", CPU, SamplerOptions())
    options = SamplerOptions(sensor_mtf=given.mtf if given.told else None)
    models = {name: load_model(name, CPU, options) for name in given.model}
    print("| scene | scale | model | visible dB | near infrared dB | NDVI | NDWI |")
    print("|---|---|---|---|---|---|---|")
    for scale in (2, 4):
        for name in SCENES:
            hr = read(given.data / name)
            matrices = [
                sampling_matrix(side // scale, side, gaussian_of(given.mtf))
                for side in hr.shape[1:]
            ]
            lr = sample(hr.astype(np.float64), *matrices).astype(np.float32)
            plain = run(cubic, lr, scale)
            for model, resolver in models.items():
                made = run(resolver, lr, scale)
                gain = measure(made, hr) - measure(plain, hr)
                share = index_errors(made, hr) / index_errors(plain, hr)
                row = f"{Path(name).stem[:24]} | {scale} | {model}"
                cells = f"{gain[0]:+.2f} | {gain[1]:+.2f} | {share[0]:.2f}"
                print(f"| {row} | {cells} | {share[1]:.2f} |", flush=True)


def read(path: Path) -> np.ndarray:
    """Return red, green, blue, near infrared (4, H, W) in [0, 1]."""
    with rasterio.open(path) as file:
        pixels = file.read()[:, :_SIDE, :_SIDE].astype(np.float32)
        names = [str(name) for name in file.descriptions]
    if "_S2L1C_" in path.name:
        order = [names.index(name) for name in ("B04", "B03", "B02", "B08")]
        pixels = (pixels[order] / 10000.0).clip(0.0, 1.0)
    else:
        pixels = pixels / 255.0
    rows, cols = (side // 8 * 8 for side in pixels.shape[1:])
    return np.asarray(pixels[:, :rows, :cols])


def run(model: SuperResolver, lr: np.ndarray, scale: int) -> np.ndarray:
    """Return all four bands; a model of three sees near infrared as grey."""
    if not model.spec.bands:
        return upscale_whole(model, lr, Fraction(scale), CPU)
    visible = upscale_whole(model, lr[:3], Fraction(scale), CPU)
    grey = upscale_whole(model, lr[3:].repeat(3, 0), Fraction(scale), CPU)
    return np.concatenate([visible, grey.mean(0, keepdims=True)])


def measure(sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Return PSNR of the visible bands and of near infrared, range of the scene."""
    a, b = sr[_INNER].astype(np.float64), hr[_INNER].astype(np.float64)
    return np.array([psnr(a[:3], b[:3]), psnr(a[3:], b[3:])])


def index_errors(sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Return the root mean square errors of NDVI and NDWI."""
    everywhere = np.ones(hr[_INNER].shape[1:], bool)
    errors = []
    for name, roles in INDICES.items():
        pair = [_ROLES.index(role) for role in roles]
        a, b = sr[_INNER][pair], hr[_INNER][pair]
        errors.append(index_figures(name, a, b, everywhere)[f"{name}_rmse"])
    return np.array(errors)


if __name__ == "__main__":
    main()
