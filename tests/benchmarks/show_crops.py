"""Ten crops at 1:1: LR, bicubic, a peer, the model, a draw of it, and the truth.

``python tests/benchmarks/show_crops.py DATA OUT.jpg --python PYTHON [--model NAME]``
makes LR images of places of the wide validation set (`wide_set`), enlarges them four
times and puts the results side by side. The last two rows are real Sentinel-2 scenes,
which have no truth: natural colours, and near infrared, red, green. PYTHON is an
interpreter with the wheels of `peer_models`.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import rasterio
import torch
import wide_set
from bench_peers import _peer
from PIL import Image, ImageDraw

from rsupres.checkpoints.catalogue import load_model
from rsupres.evaluation.resize import resize_bicubic
from rsupres.families.base import SamplerOptions, SuperResolver
from rsupres.upscaling.array import upscale_whole

CPU = torch.device("cpu")
SCALE, SIDE, TITLE = 4, 160, 18
# Title, file and cut among the places, degradation, row and column of the crop.
ROWS = (
    ("street grid", "riverside_2020_28@0,0", "MTF 0.2", 20, 60),
    ("dense housing", "banepa_r05_c06@0,0", "MTF 0.2", 60, 60),
    (
        "forest",
        "2019_YELL_2_528000_4978000_image_crop2_0.3m_r1_c0@0,0",
        "area mean",
        60,
        60,
    ),
    ("field edges", "banepa_r04_c10@256,256", "bicubic", 60, 60),
    ("terraces", "banepa_r01_c08@0,0", "MTF 0.2", 60, 60),
    ("shore", "zurich_e2690000_n1234000_0.5m_rgb@0,0", "bicubic", 60, 60),
    ("roads", "riverside_2020_55@0,0", "no antialias", 60, 60),
    ("semi-arid", "ngi_rgb_5m_1@400,400", "MTF 0.4", 60, 60),
    ("JPEG 75", "riverside_2020_11@0,0", "JPEG 75", 60, 60),
)
REAL = "sentinel2/oscd_valencia_20160730_S2L1C_4band_utm32630.tif"
REAL_CUT = (200, 150)  # LR row and column
TONES = (400.0, 3000.0)  # digital numbers that become black and white


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--peer", default="srmd")
    parser.add_argument("--model", default="optical-small")
    given = parser.parse_args()
    torch.set_num_threads(1)
    mean, draw = (
        load_model(given.model, CPU, SamplerOptions(detail=detail))
        for detail in (0.0, 1.0)
    )
    peer = _peer(given.peer, given.python)
    heads = ["input", "bicubic", given.peer.upper(), "model", "--detail 1", "truth"]
    places = {place.name: place.pixels for place in wide_set.load(given.data)}
    rows = []
    for title, name, degradation, row, col in ROWS:
        lr = wide_set.degrade(places[name], degradation, SCALE, 0)
        images = enlarge(lr, mean, draw)
        images.insert(2, peer([lr], degradation, SCALE)[0])
        images.append(places[name])
        crop = np.s_[:, row : row + SIDE, col : col + SIDE]
        rows.append((f"{title}, {degradation}", [image[crop] for image in images]))
    scene = read_real(given.data)
    for title, bands in (("Sentinel-2", [0, 1, 2]), ("near infrared", [3, 0, 1])):
        lr = scene[bands]
        images = enlarge(lr, mean, draw)
        images.insert(2, peer([lr], "bicubic", SCALE)[0])
        rows.append((title, [image[:, :SIDE, :SIDE] for image in images]))
    draw_sheet(heads, rows).save(given.out, quality=70, optimize=True)


def enlarge(
    lr: np.ndarray, mean: SuperResolver, draw: SuperResolver
) -> list[np.ndarray]:
    """Return LR in large pixels, bicubic, the model's mean and a draw, in 8 bits."""
    unit = lr.astype(np.float32) / 255
    made = [
        upscale_whole(model, unit, Fraction(SCALE), CPU).clip(0, 1)
        for model in (mean, draw)
    ]
    return [
        lr.repeat(SCALE, 1).repeat(SCALE, 2),
        resize_bicubic(lr, (lr.shape[1] * SCALE, lr.shape[2] * SCALE)),
        *(np.floor(image * 255 + 0.5).astype(np.uint8) for image in made),
    ]


def read_real(data: Path) -> np.ndarray:
    """Return red, green, blue and near infrared of the real scene, in 8 bits."""
    row, col = REAL_CUT
    side = SIDE // SCALE + 8
    with rasterio.open(data / REAL) as file:
        window = rasterio.windows.Window(col, row, side, side)
        pixels = file.read((1, 2, 3, 4), window=window).astype(np.float64)
    light = ((pixels - TONES[0]) / (TONES[1] - TONES[0])).clip(0, 1)
    return np.floor(255 * light + 0.5).astype(np.uint8)


def draw_sheet(
    heads: list[str], rows: list[tuple[str, list[np.ndarray]]]
) -> Image.Image:
    """Return a sheet with a line of titles over every row."""
    width, height = len(heads) * (SIDE + 4), len(rows) * (SIDE + TITLE)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (title, images) in enumerate(rows):
        top = y * (SIDE + TITLE)
        for x, (head, image) in enumerate(zip(heads, images, strict=False)):
            left = x * (SIDE + 4)
            text = f"{title}" if x == 0 else head
            pen.text((left + 2, top + 3), text, fill="black")
            picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
            sheet.paste(picture, (left, top + TITLE))
    return sheet


if __name__ == "__main__":
    main()
