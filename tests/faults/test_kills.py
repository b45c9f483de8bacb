"""kill -9 at any moment of a run, a batch, shards or assembling: the same bytes."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import make_scene

OPTIONS = ("--model", "bicubic", "--scale", "2", "--tile-size", "24", "-q")
SHARDS = [
    ("upscale", "a.tif", "out/a.tif", *OPTIONS, "--shard", f"{n}/2", "--run-dir", "run")
    for n in (1, 2)
]
# What is run, in order; each step may be killed and started again.
OPERATIONS: dict[str, list[tuple[str, ...]]] = {
    "upscale": [("upscale", "a.tif", "out/a.tif", *OPTIONS, "--update")],
    "batch": [("batch", "a.tif", "b.tif", "--out-dir", "out", *OPTIONS)],
    "shards": [(*shard, "--update") for shard in SHARDS],
    "assembling": [
        (*SHARDS[0], "--update"),
        ("mosaic", "run", "out/a.tif", "--overwrite", "-q"),
    ],
}
TILE_S = 0.02


def prepare(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    (folder / "out").mkdir(parents=True)
    for name in ("a", "b"):
        pixels = rng.integers(1, 4000, (3, 60, 50)).astype(np.uint16)
        make_scene(folder / f"{name}.tif", pixels=pixels, nodata=0)
    return folder


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("out/*.tif")}


@pytest.fixture(scope="module")
def sound(_server, tmp_path_factory) -> dict[str, tuple[dict[str, bytes], float]]:
    """Outputs of each operation that nothing disturbed, and seconds of a step."""
    found = {}
    for name, steps in OPERATIONS.items():
        folder = prepare(tmp_path_factory.mktemp("sound") / name)
        started = time.monotonic()
        for step in steps:
            assert _server.run(*step, folder=folder, tile_s=TILE_S).code == 0
        seconds = (time.monotonic() - started) / len(steps)
        found[name] = results(folder), seconds
        assert found[name][0]
    return found


def kill_and_finish(commands, folder: Path, name: str, seed: int, step_s: float) -> int:
    """Kill every step once at a random moment and finish it; return the kills."""
    rng = random.Random(seed)
    prepare(folder)
    kills = 0
    for step in OPERATIONS[name]:

        def kill(pid: int) -> None:
            time.sleep(rng.uniform(0, step_s))
            os.kill(pid, signal.SIGKILL)

        killed = commands.run(*step, folder=folder, tile_s=TILE_S, while_running=kill)
        kills += killed.code == -signal.SIGKILL
        if step[0] == "mosaic" and not (folder / "run").exists():
            continue  # it was done before the end of the process
        done = commands.run(*step, folder=folder)
        assert done.code == 0, (seed, step, done.err)
    left = {path.name for path in folder.rglob("*.tmp")}
    assert not left, (seed, left)
    return kills


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_was_killed_ends_in_the_same_bytes(commands, sound, tmp_path, name, seed):
    whole, step_s = sound[name]
    kill_and_finish(commands, tmp_path / "f", name, seed, step_s)
    assert results(tmp_path / "f") == whole


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_end_in_the_same_bytes(commands, sound, tmp_path):
    kills = 0
    for seed in range(100, 1000):
        name = list(OPERATIONS)[seed % len(OPERATIONS)]
        whole, step_s = sound[name]
        folder = tmp_path / f"{seed}"
        kills += kill_and_finish(commands, folder, name, seed, step_s)
        assert results(folder) == whole, seed
        if kills >= 100:
            break
    assert kills >= 100
