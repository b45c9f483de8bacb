"""Measure what a shard costs beside its strips, and the bytes and files of a run.

Not part of `make bench`: it prints the figures of docs/scale.md, as JSON. CPU seconds
are those of this process, with the bicubic model.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from rsupres.tiles.batches.journal import BatchItem, Journal
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import compute_shard, upscale_scene
from tests.helpers import make_scene

SIZE = 1024  # LR pixels along a side
N_SCENES = 3000


def cpu_s(work: Callable[[], object], times: int) -> float:
    """Return CPU seconds of a call."""
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times


def moved() -> dict[str, int]:
    """Return the bytes that this process has read and written so far."""
    text = Path("/proc/self/io").read_text()
    return {name: int(n) for name, n in re.findall(r"^([rw]char): (\d+)", text, re.M)}


def _scene(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    smooth = rng.integers(500, 3000, (3, SIZE // 16, SIZE // 16)).astype("uint16")
    pixels = np.kron(smooth, np.ones((1, 16, 16), dtype="uint16"))
    pixels += rng.integers(0, 200, pixels.shape).astype("uint16")
    return make_scene(folder / "scene.tif", pixels=pixels, nodata=0)


def _journal(folder: Path) -> dict[str, object]:
    """Return what the journal of a large batch costs."""
    items = [
        BatchItem(f"/in/{i:05d}.SAFE", folder / f"{i:05d}.tif", {})
        for i in range(N_SCENES)
    ]
    journal = Journal.begin(folder, {}, None)
    return {
        "cpu_s_of_saving_the_journal": round(cpu_s(lambda: journal.save(items), 5), 4),
        "journal_bytes": (folder / "batch.json").stat().st_size,
    }


def measure(folder: Path) -> dict[str, object]:
    """Return all figures."""
    scene = _scene(folder)
    job = UpscaleJob(
        scenes=(str(scene),),
        output=folder / "out.tif",
        scale=Fraction(4),
        model="bicubic",
        tile_size=128,
        keep_run=True,
    )
    found: dict[str, object] = {"scene_bytes": scene.stat().st_size}

    def elsewhere(work, run, show, counts):
        n = work.grid.shape[0]

        def shard(index: int, count: int) -> UpscaleJob:
            return replace(job, run_dir=run.path, shard=(index, count))

        compute_shard(shard(1, n))  # what is loaded on first use
        idle = cpu_s(lambda: compute_shard(shard(1, n)), 5)
        single = iter(range(2, n // 2 + 1))
        one = cpu_s(lambda: compute_shard(shard(next(single), n)), n // 2 - 1)
        rest = cpu_s(lambda: compute_shard(shard(2, 2)), 1) / (n - n // 2)
        task = json.dumps(shard(1, n).to_json())
        found.update(
            strips=n,
            task_bytes=len(task),
            cpu_s_of_a_shard_without_strips=round(idle, 4),
            cpu_s_a_strip_in_shards_of_one=round(one, 4),
            cpu_s_a_strip_in_one_shard=round(rest, 4),
        )

    before = moved()
    upscale_scene(job, elsewhere=elsewhere)
    after = moved()
    found.update(
        bytes_read=after["rchar"] - before["rchar"],
        bytes_written=after["wchar"] - before["wchar"],
        output_bytes=job.output.stat().st_size,
        files_in_the_run=sum(path.is_file() for path in job.run_path.rglob("*")),
    )
    found |= _journal(folder)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(Path(name)), indent=1))
