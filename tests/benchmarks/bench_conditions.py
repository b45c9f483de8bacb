"""What reading conditions costs beside a diffusion run on the same tiles.

Run it with ``python tests/benchmarks/bench_conditions.py [--side N]``. It makes a scene
and references of several grids and sizes, lays the sample town's map and reference over
the sample town, reads every condition tile by tile as a run does (overlaps included),
and compares with the default E2DiffSR checkpoint, the cheapest diffusion model that
ships, on the same tiles in one go. All times are CPU seconds of the process, so that
other work on the machine matters little. Nothing is asserted: read the table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from bench_pipeline import make_scene
from rasterio.warp import calculate_default_transform, transform_bounds

from rsupres.conditions.base import ConditionRequest, TargetScene
from rsupres.conditions.open import ConditionSet, open_conditions
from rsupres.output.run_dir import Run
from rsupres.raster.open import bounded_cache
from rsupres.upscaling.inference import Counts, TileRunner
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation.context import context_of, prepare_samples
from rsupres.upscaling.preparation.work import Work, open_work

ROOT = Path(__file__).parents[2]
TOWN = ROOT / "sample_data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=384, help="side of the scene")
    parser.add_argument("--scale", type=Fraction, default=Fraction(4))
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name,
        bounded_cache(),
        torch.inference_mode(),
    ):
        compare(Path(name), arguments.side, arguments.scale)


def compare(folder: Path, side: int, scale: Fraction) -> None:
    scene = folder / "scene.tif"
    make_scene(scene, side, side)
    job = UpscaleJob(scenes=(str(scene),), output=folder / "out.tif", scale=scale)
    with open_work(job) as work:
        model_s = time_model(work, folder)
        print(f"scene {side} x {side}, x{scale}, {torch.get_num_threads()} thread(s)")
        print(f"{'':<34}{'open s':>8}{'s/Mpx':>8}{'of the run':>12}")
        print(f"{work.model.card.name:<34}{'':>8}{model_s:8.3f}", flush=True)
        for title, request in references(folder, scene, scale).items():
            report(title, work, request, model_s)
    town = UpscaleJob(
        scenes=(str(TOWN / "town_s2.tif"),), output=folder / "town.tif", scale=scale
    )
    with open_work(town) as work:
        reference = str(TOWN / "town_reference.tif")
        town_map = str(TOWN / "town.osm")
        for title, request in {
            "sample town, reference": ConditionRequest(reference=(reference,)),
            "sample town, map": ConditionRequest(vector_map=(town_map,)),
            "sample town, both": ConditionRequest(
                vector_map=(town_map,), reference=(reference,)
            ),
        }.items():
            report(title, work, request, model_s)


def report(title: str, work: Work, request: ConditionRequest, model_s: float) -> None:
    started = time.process_time()
    with opened(work, request) as conditions:
        open_s = time.process_time() - started
        started = time.process_time()
        for tile in work.grid:
            conditions.conditions([conditions.read(tile.sr)])
        read_s = (time.process_time() - started) / megapixels(work)
    share = f"{100 * read_s / model_s:11.2f} %"
    print(f"{title:<34}{open_s:8.2f}{read_s:8.4f}{share}", flush=True)


@contextmanager
def opened(work: Work, request: ConditionRequest) -> Iterator[ConditionSet]:
    roles = range(1, len(work.bands.roles) + 1)
    frame = TargetScene(
        work.scene,
        work.bands.roles,
        work.model.spec.bands,
        work.stretch.for_bands(roles),
        work.job.scale,
    )
    with open_conditions(request, frame) as conditions:
        yield conditions


def time_model(work: Work, folder: Path) -> float:
    """Return CPU seconds per SR megapixel of a whole run without conditions."""
    model = work.model.load()
    manifest = {"job": {}, "n_strips": work.grid.shape[0]}
    with Run.open(folder / "run", manifest) as run:
        started = time.process_time()
        context = run.save_context(prepare_samples(work, model, run, lambda s: None))
        counts = Counts(batch_size=work.batch_size)
        contexts = (context_of(context, 0),)
        source = work.tile_source
        runner = TileRunner(source, model, contexts, counts, lambda s: None, 1)
        strips = range(work.grid.shape[0])
        runner.compute(strips, work.rules, lambda strip: None)
        cpu_s = time.process_time() - started
        run.remove()
    return cpu_s / megapixels(work)


def megapixels(work: Work) -> float:
    return work.sr_grid.height * work.sr_grid.width / 1e6


def references(
    folder: Path, scene: Path, scale: Fraction
) -> dict[str, ConditionRequest]:
    """Return references of the SR grid, of another CRS, finer, and of many files."""
    with rasterio.open(scene) as dataset:
        transform, crs, bounds = dataset.transform, dataset.crs, dataset.bounds
        side = dataset.width
    fine = int(side * scale)
    same = transform @ Affine.scale(1 / float(scale))
    west, south, east, north = transform_bounds(crs, "EPSG:4326", *bounds)
    degrees, width, height = calculate_default_transform(
        "EPSG:4326", "EPSG:3857", fine, fine, west, south, east, north
    )
    finer = transform @ Affine.scale(1 / float(scale) / 4)
    write(folder / "same.tif", crs, same, fine, fine)
    write(folder / "mercator.tif", "EPSG:3857", degrees, height, width)
    write(folder / "finer.tif", crs, finer, 4 * fine, 4 * fine)
    pieces = []
    for row in range(3):
        for col in range(3):
            part = same @ Affine.translation(col * fine // 3, row * fine // 3)
            pieces.append(folder / f"piece_{row}{col}.tif")
            write(pieces[-1], crs, part, fine // 3 + 1, fine // 3 + 1)
    names = {
        "reference, SR grid": [folder / "same.tif"],
        "reference, EPSG:3857": [folder / "mercator.tif"],
        "reference, 4 x finer than SR": [folder / "finer.tif"],
        "reference, 9 files": pieces,
    }
    return {
        title: ConditionRequest(reference=tuple(map(str, paths)))
        for title, paths in names.items()
    }


def write(path: Path, crs: object, transform: Affine, height: int, width: int) -> None:
    """Write noise as a tiled, compressed RGB image."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(1, 255, (3, height, width), dtype=np.uint8)
    profile = {"count": 3, "dtype": "uint8", "tiled": True, "compress": "DEFLATE"}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        crs=crs,
        transform=transform,
        photometric="RGB",
        **profile,
    ) as dataset:
        dataset.write(pixels)


if __name__ == "__main__":
    main()
