"""The wide validation set: 32 cuts of 256 pixels of places that no model trains on.

Each has a land cover, judged by eye. `degrade` makes its LR image in one of the ways
that users' files are made; what is known of the way goes along, for models that take
such conditions.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image

from rsupres.degradations.optics import Kernel, gaussian_of, sample, sampling_matrix

Pixels = NDArray[np.uint8]
SIDE = 256
_NAIP = "aerial/naip_ca/riverside_2020_{}.tif"
_BANEPA = "aerial/oam/banepa_{}.tif"
_S2 = "sentinel2_10band/oscd_{}_S2L1C_10m_4band.tif"
_SOUTH = "osm/swellendam_za/ngi_{}_rgb_2.8m.tif"
_KAROO = "pairs/s2_ngi_southafrica/ngi_rgb_5m_1.tif"
_DAKOTA = "aerial/naip_nd/m_4709963_se_14_1_20170827.tif"
_ZURICH = "aerial/europe/zurich_{}.tif"
_YELLOW = "aerial/neon_yell/2019_YELL_2_528000_4978000_image_crop2_0.3m_r1_c0.png"
# Land cover: file, row and column of the cut.
PLACES: Mapping[str, tuple[tuple[str, int, int], ...]] = {
    "built-up": (
        (_NAIP.format("11"), 0, 0),
        (_NAIP.format("28"), 0, 0),
        (_NAIP.format("55"), 0, 0),
        (_BANEPA.format("r05_c06"), 0, 0),
        (_BANEPA.format("r07_c06"), 0, 0),
        (_ZURICH.format("1091-322_00_0.5m_rgb_jpeg"), 0, 256),
        ("aerial/oam/oam_set4_2_z19eq.tif", 0, 0),
        ("aerial/oam/oam_set4_2_z19eq.tif", 0, 256),
    ),
    "forest": (
        ("aerial/other/naip_va_3607717_1m_rgbn.tif", 0, 0),
        (_YELLOW, 0, 0),
        (_YELLOW, 0, 256),
        (_SOUTH.format("3420B_2010_328"), 512, 512),
        (_SOUTH.format("3420B_2010_328"), 512, 0),
        ("aerial/oam/oam_set4_1_z19eq.tif", 0, 0),
    ),
    "farmland": (
        (_BANEPA.format("r01_c08"), 0, 0),
        (_BANEPA.format("r01_c09"), 0, 0),
        (_BANEPA.format("r04_c10"), 256, 256),
        (_BANEPA.format("r05_c10"), 0, 0),
        (_SOUTH.format("3420B_2010_328"), 1024, 512),
        (_DAKOTA, 300, 600),
    ),
    "semi-arid": (
        (_KAROO, 400, 400),
        (_KAROO, 800, 400),
        (_SOUTH.format("3320D_2010_315"), 400, 400),
        (_SOUTH.format("3320D_2010_315"), 800, 800),
        (_SOUTH.format("3420B_2010_328"), 1536, 512),
        (_SOUTH.format("3420B_2010_328"), 2048, 0),
    ),
    "water": (
        (_ZURICH.format("e2690000_n1234000_0.5m_rgb"), 0, 0),
        (_DAKOTA, 300, 300),
        (_DAKOTA, 300, 0),
    ),
    "Sentinel-2": (
        (_S2.format("nantes_20171014"), 256, 0),
        (_S2.format("hongkong_20180323"), 256, 0),
        (_S2.format("saclay_e_20170829"), 300, 0),
    ),
}
_REFLECTANCE = 3000  # of Sentinel-2's digital numbers, shown as 255
KERNELS: Mapping[str, Kernel] = {
    "bicubic": Kernel("bicubic"),
    "area mean": Kernel("area"),
    "MTF 0.4": gaussian_of(0.4),
    "MTF 0.2": gaussian_of(0.2),
    "MTF 0.1": gaussian_of(0.1),
    "noise sd 4": Kernel("bicubic"),
    "JPEG 75": Kernel("bicubic"),
    "no antialias": Kernel("nearest"),
}


@dataclass(frozen=True)
class Place:
    """A cut of the set: its name, land cover, and (3, 256, 256) pixels."""

    name: str
    cover: str
    pixels: Pixels


@dataclass(frozen=True)
class Facts:
    """What is known of a degradation.

    Attributes:
        kernel: blur and sampling.
        noise: standard deviation, of 255 levels.
        quality: of JPEG; 0 = not compressed.
    """

    kernel: Kernel
    noise: float = 0.0
    quality: int = 0


def facts_of(degradation: str) -> Facts:
    """Return what is known of a degradation of `KERNELS`."""
    return Facts(
        KERNELS[degradation],
        4.0 if degradation == "noise sd 4" else 0.0,
        75 if degradation == "JPEG 75" else 0,
    )


def load(data: Path) -> list[Place]:
    """Return the set from the folder of the shared data."""
    return [
        Place(f"{Path(file).stem}@{row},{col}", cover, _cut(data / file, row, col))
        for cover, cuts in PLACES.items()
        for file, row, col in cuts
    ]


def degrade(hr: Pixels, degradation: str, scale: int, number: int) -> Pixels:
    """Return the LR image in 8 bits; the noise depends on the image's number."""
    facts = facts_of(degradation)
    matrices = [
        sampling_matrix(side // scale, side, facts.kernel) for side in hr.shape[1:]
    ]
    lr = sample(hr.astype(np.float64), *matrices)
    if facts.noise:
        random = np.random.default_rng([20261129, number])
        lr = lr + facts.noise * random.standard_normal(lr.shape)
    rounded = np.clip(np.floor(lr + 0.5), 0, 255).astype(np.uint8)
    return _recompress(rounded, facts.quality) if facts.quality else rounded


def _recompress(image: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as again:
        return np.asarray(again).transpose(2, 0, 1).copy()


def _cut(path: Path, row: int, col: int) -> Pixels:
    with rasterio.open(path) as file:
        bands = (3, 2, 1) if "_S2L1C_" in path.name else (1, 2, 3)
        window = rasterio.windows.Window(col, row, SIDE, SIDE)
        pixels = file.read(bands, window=window)
    assert pixels.shape == (3, SIDE, SIDE), path
    if pixels.dtype == np.uint8:
        return np.asarray(pixels)
    shown = np.floor(pixels.astype(np.float64) * (255 / _REFLECTANCE) + 0.5)
    return shown.clip(0, 255).astype(np.uint8)
