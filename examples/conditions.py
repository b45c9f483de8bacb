"""Show what a condition changes, in pictures at one screen pixel a pixel.

Usage: python examples/conditions.py OUT_DIR

Writes one row of pictures a place: the input, the conditions, the result without and
with them, and the truth. `town` comes from the sample data; with the variable
`RSUPRES_DATA` there is also `riverside`, a real place that no model was trained on.
SlimDiffSR and E2DiffSR take no condition; their rows show bicubic interpolation beside
them, and E2DiffSR with the smallest error and with natural texture.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import rsupres

Floats = NDArray[np.float32]
SAMPLES = Path(__file__).parents[1] / "sample_data"
CHIPS = "aerial/naip_ca"
SIDE, GAP, LINE = 256, 4, 16  # of a picture, between two, and of the titles


def main(out: str) -> None:
    """Write the pictures into the folder `out`."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    places = {"town": town()}
    if data := os.environ.get("RSUPRES_DATA"):
        places["riverside"] = riverside(Path(data) / CHIPS)
    for name, (truth, reference, mask) in places.items():
        for scale in (8, 16):
            row = with_reference(truth, reference, mask, scale)
            save(row, folder / f"refdiff_{name}_x{scale}.png")
        for scale in (4, 8):
            row = one_step(truth, scale)
            save(row, folder / f"slimdiffsr_{name}_x{scale}.jpg")
        save(two_details(truth, 4), folder / f"e2diffsr_{name}_x4.png")


def town() -> tuple[Floats, Floats, NDArray[np.uint8]]:
    """Return the sample town: truth, the older photograph, and what changed."""
    truth = read(SAMPLES / "town_hr.tif")
    low, high = np.percentile(truth, (0.5, 99.5), axis=(1, 2), keepdims=True)
    truth = np.sqrt(np.clip((truth - low) / (high - low), 0, 1)).astype(np.float32)
    reference = read(SAMPLES / "town_reference.tif") / 255
    return truth, reference, read(SAMPLES / "town_change.tif")[0].astype(np.uint8)


def riverside(chips: Path) -> tuple[Floats, Floats, NDArray[np.uint8]]:
    """Return a real place at two dates; nothing is known to have changed."""
    truth, reference = (
        read(chips / f"riverside_{y}_0.tif") / 255 for y in (2020, 2018)
    )
    return truth, reference, np.zeros(truth.shape[1:], np.uint8)


def read(path: Path) -> Floats:
    """Return the first three bands of a file."""
    with rasterio.open(path) as file:
        pixels: Floats = file.read((1, 2, 3)[: file.count]).astype(np.float32)
    return pixels


def with_reference(
    truth: Floats, reference: Floats, mask: NDArray[np.uint8], scale: int
) -> Mapping[str, Floats]:
    """Return the row of Ref-Diff."""
    lr = reduce(truth, scale)
    model = rsupres.load_model("refdiff-mini")
    alone = rsupres.upscale_array(lr, model, scale)
    guided = rsupres.upscale_array(
        lr, model, scale, reference=reference, change_mask=mask
    )
    row = {"input": repeat(lr, scale), "reference": reference}
    if mask.any():
        row["changed since"] = np.repeat((mask[None] > 0).astype(np.float32), 3, 0)
    return {**row, "without": alone, "with": guided, "truth": truth}


def one_step(truth: Floats, scale: int) -> Mapping[str, Floats]:
    """Return the row of SlimDiffSR."""
    lr = reduce(truth, scale)
    return {
        "input": repeat(lr, scale),
        "bicubic": rsupres.upscale_array(lr, "bicubic", scale),
        "slimdiffsr-mini": rsupres.upscale_array(lr, "slimdiffsr-mini", scale),
        "truth": truth,
    }


def two_details(truth: Floats, scale: int) -> Mapping[str, Floats]:
    """Return the row of E2DiffSR."""
    lr = reduce(truth, scale)
    row = {
        "input": repeat(lr, scale),
        "bicubic": rsupres.upscale_array(lr, "bicubic", scale),
    }
    for detail in (0, 1):
        model = rsupres.load_model("e2diffsr-small", detail=detail)
        row[f"detail {detail}"] = rsupres.upscale_array(lr, model, scale)
    return {**row, "truth": truth}


def reduce(image: Floats, scale: int) -> Floats:
    """Return an image reduced by Pillow's bicubic."""
    size = (image.shape[2] // scale, image.shape[1] // scale)
    bands = [
        Image.fromarray(band).resize(size, Image.Resampling.BICUBIC) for band in image
    ]
    return np.clip(np.stack([np.asarray(band) for band in bands]), 0, 1)


def repeat(lr: Floats, scale: int) -> Floats:
    """Return an LR image with its pixels as large squares."""
    return np.asarray(lr.repeat(scale, 1).repeat(scale, 2))


def save(row: Mapping[str, Floats], path: Path) -> None:
    """Write the middle of pictures side by side, with their titles."""
    canvas = Image.new("RGB", (len(row) * (SIDE + GAP) - GAP, SIDE + LINE), "white")
    draw = ImageDraw.Draw(canvas)
    for k, (title, picture) in enumerate(row.items()):
        top, left = ((side - SIDE) // 2 for side in picture.shape[1:])
        part = picture[:, top : top + SIDE, left : left + SIDE]
        levels = np.rint(np.clip(part, 0, 1) * 255).astype(np.uint8)
        canvas.paste(
            Image.fromarray(levels.transpose(1, 2, 0)), (k * (SIDE + GAP), LINE)
        )
        draw.text((k * (SIDE + GAP), 2), title, "black")
    canvas.save(path, quality=90)
    print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
