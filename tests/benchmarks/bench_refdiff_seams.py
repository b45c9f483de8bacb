"""Do Ref-Diff's tiles show? The same scene in tiles of two sizes.

``python tests/benchmarks/bench_refdiff_seams.py [MODEL]`` upscales a place at x8 with a
reference in small tiles and in one piece, and prints how far apart the two are, in
levels of 8 bits, and the seam ratio of the tiled one at the borders of its tiles
(`rsupres.evaluation.measures.seams.seam_ratio`; that of one piece is what the ground
itself has there). The place is an invented town, see sample_data.

MODEL "released" (the default beside `refdiff-mini`) is the released architecture,
narrower (``--channels``, modulations too), with weights that follow from the
parameters' names: its groups and its attention see a whole tile, which is what makes
tiles differ, whatever the weights. No trained weights of it are at hand.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine

from rsupres.checkpoints.file import write_checkpoint
from rsupres.evaluation.measures.seams import seam_ratio, tile_borders
from rsupres.evaluation.resize import resize_bicubic
from rsupres.families.refdiff.config import RELEASED
from rsupres.families.refdiff.network import parameter_shapes
from rsupres.families.refdiff.resolver import make_spec
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import upscale_scene
from rsupres.upscaling.preparation.work import open_work

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "sample_data"))

from make_town_pairs import levels, make_town  # type: ignore[import-not-found]  # noqa: E402

from tests.parity.golden import name_seeded_tensor  # noqa: E402

SCALE = Fraction(8)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["refdiff-mini", "released"])
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--side", type=int, default=96, help="LR pixels of the place")
    parser.add_argument("--tile", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(f"{given.side} x {given.side} LR pixels in tiles of {given.tile}\n")
    print("| model | rms | largest | levels | seam ratio | of one piece |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, reference = write_place(folder, given.side)
        for model in given.models:
            steps = None
            path = model
            if model == "released":
                steps, path = given.steps, str(write_released(folder, given.channels))
            job = UpscaleJob(
                scenes=(str(scene),),
                output=folder / "tiles.tif",
                scale=SCALE,
                model=path,
                reference=(str(reference),),
                stretch="0,255",
                dtype="float32",
                tile_size=given.tile,
                steps=steps,
                sampler=None if steps is None else "heun-lr",
                overwrite=True,
            )
            report(model, job, given.side)


def report(model: str, job: UpscaleJob, side: int) -> None:
    """Upscale both ways and print a row."""
    whole = replace(job, output=job.output.with_name("whole.tif"), tile_size=side)
    with open_work(job) as work:
        rows, cols = tile_borders(work.grid)
    pictures = []
    for each in (job, whole):
        upscale_scene(each)
        with rasterio.open(each.output) as dataset:
            pictures.append(dataset.read())
    tiled, one = pictures
    apart = np.abs(tiled - one)
    ratios = [seam_ratio(picture / 255, rows, cols) for picture in pictures]
    spread = f"{np.sqrt((apart**2).mean()):.3g} | {apart.max():.3g} | {one.std():.3g}"
    print(f"| {model} | {spread} | {ratios[0]:.4f} | {ratios[1]:.4f} |", flush=True)


def write_place(folder: Path, side: int) -> tuple[Path, Path]:
    """Write the LR scene and the reference of an invented town."""
    town = make_town(900, 600.0, 0.6)
    length = int(side * SCALE)
    hr = levels(town.now)[:, :length, :length]
    files = {
        "scene": (resize_bicubic(hr, (side, side)), 4.8),
        "reference": (levels(town.earlier)[:, :length, :length], 0.6),
    }
    for name, (pixels, gsd_m) in files.items():
        with rasterio.open(
            folder / f"{name}.tif",
            "w",
            driver="GTiff",
            count=3,
            height=pixels.shape[1],
            width=pixels.shape[2],
            dtype="uint8",
            crs="EPSG:32632",
            transform=Affine(gsd_m, 0, 4e5, 0, -gsd_m, 5e6),
        ) as file:
            file.write(pixels)
    return folder / "scene.tif", folder / "reference.tif"


def write_released(folder: Path, channels: int) -> Path:
    """Write a checkpoint of the released architecture with name-seeded weights."""
    config = replace(RELEASED, channels=channels, sft_width=2 * channels)
    weights = {
        name: torch.from_numpy(name_seeded_tensor("model." + name, shape))
        for name, shape in parameter_shapes(config).items()
    }
    spec = make_spec(
        config, scales=frozenset({SCALE}), gsd=None, halo=8, classes="second"
    )
    path = folder / "released.safetensors"
    write_checkpoint(path, weights, spec, asdict(config), "weights by name")
    return path


if __name__ == "__main__":
    main()
