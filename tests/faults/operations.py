"""Operations that `rsupres` must survive at any moment: what is run, and its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.helpers import make_scene

Step = tuple[str, ...]

OPTIONS = ("--model", "bicubic", "--scale", "2", "--tile-size", "24", "-q")
COMPANIONS = ("--stac", "--qml", "--rgb8", "out/a_rgb.png")
BATCH = ("batch", "a.tif", "b.tif", "--out-dir", "out", *OPTIONS)
SUMMED = (*BATCH, "--summary", "summary.csv", "--rgb8", "rgb8", "--stac")
SHARDS = [
    ("upscale", "a.tif", "out/a.tif", *OPTIONS, "--shard", f"{n}/2", "--run-dir", "run")
    for n in (1, 2)
]
DASK = ("upscale", "a.tif", "out/a.tif", *OPTIONS, "--update", "--dask-scheduler-file")
# What is run, in order; each step may be killed and started again.
OPERATIONS: dict[str, Sequence[Step]] = {
    "upscale": [("upscale", "a.tif", "out/a.tif", *OPTIONS, *COMPANIONS, "--update")],
    "batch": [SUMMED],
    "shards": [(*shard, "--update") for shard in SHARDS],
    "batch shards": [
        (*BATCH, "--shard", f"{n}/2", "--summary", f"summary{n}.md") for n in (1, 2)
    ],
    "dask": [DASK],
    "assembling": [
        (*SHARDS[0], "--update"),
        ("mosaic", "run", "out/a.tif", "--overwrite", "-q"),
    ],
}
TILE_S = 0.02
# Files whose content tells when they were made.
DATED = (
    *("batch.json", "batch.json.lock", "summary.csv", "summary1.md", "summary2.md"),
    *("a.json", "b.json"),
)


def prepare(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    (folder / "out").mkdir(parents=True)
    for name in ("a", "b"):
        pixels = rng.integers(1, 4000, (3, 60, 50)).astype(np.uint16)
        make_scene(folder / f"{name}.tif", pixels=pixels, nodata=0)
    return folder


def results(folder: Path) -> dict[str, bytes]:
    """Return all files with their content; without it where that is dated."""
    return {
        str(path.relative_to(folder)): b"" if path.name in DATED else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
