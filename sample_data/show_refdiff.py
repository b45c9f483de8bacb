"""Show Ref-Diff on a real place of the validation city, through the command line.

``python sample_data/show_refdiff.py OUT_DIR [--place 36] [--model refdiff-mini]``
makes the LR scene of riverside 2020 (bicubic, 4.8 m), takes three quarters of the image
of 2018 as reference, runs `rsupres upscale --reference --reference-coverage`, and
writes ``OUT_DIR/place_36.png``: LR, reference, result, truth, and the coverage raster.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

from rsupres.evaluation.resize import resize_bicubic

CHIPS = Path(os.environ["RSUPRES_DATA"]) / "aerial/naip_ca"
FACTOR, ENLARGED = 8, 2


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--place", type=int, default=36)
    parser.add_argument("--model", default="refdiff-mini")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with rasterio.open(CHIPS / f"riverside_2020_{given.place}.tif") as chip:
        truth, profile = chip.read(), chip.profile
    with rasterio.open(CHIPS / f"riverside_2018_{given.place}.tif") as chip:
        earlier = chip.read()
    side = truth.shape[1] // FACTOR
    lr = resize_bicubic(truth, (side, side))
    part = earlier.shape[2] * 3 // 4
    names = {name: given.out / f"{name}.tif" for name in ("lr", "ref", "sr", "covered")}
    place = {"crs": profile["crs"], "transform": profile["transform"]}
    coarse = place["transform"] @ Affine.scale(FACTOR)
    write(names["lr"], lr, place | {"transform": coarse})
    write(names["ref"], earlier[:, :, :part], place)
    command = ["upscale", names["lr"], names["sr"], "--model", given.model]
    command += ["--scale", FACTOR, "--reference", names["ref"], "--overwrite"]
    command += ["--reference-coverage", names["covered"]]
    print("rsupres", *command)
    subprocess.run([sys.executable, "-m", "rsupres", *map(str, command)], check=True)
    with rasterio.open(names["sr"]) as made, rasterio.open(names["covered"]) as marks:
        sr, covered, palette = made.read(), marks.read(1), marks.colormap(1)
        assert made.transform.almost_equals(profile["transform"])
        assert marks.transform == made.transform
    colours = np.zeros_like(truth)
    for value in np.unique(covered):
        colours[:, covered == value] = np.array(palette[value][:3], np.uint8)[:, None]
    shown = np.zeros_like(truth)
    shown[:, :, :part] = earlier[:, :, :part]
    blocky = lr.repeat(FACTOR, 1).repeat(FACTOR, 2)
    panel = np.concatenate([blocky, shown, sr, truth, colours], 2)
    panel = panel.repeat(ENLARGED, 1).repeat(ENLARGED, 2).transpose(1, 2, 0)
    Image.fromarray(panel).save(given.out / f"place_{given.place}.png")


def write(path: Path, pixels: np.ndarray, place: dict[str, object]) -> None:
    """Write a GeoTIFF."""
    shape = dict(zip(("count", "height", "width"), pixels.shape, strict=True))
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", photometric="RGB", **shape, **place
    ) as file:
        file.write(pixels)


if __name__ == "__main__":
    main()
