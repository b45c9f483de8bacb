"""kill -9 at any moment of runs, batches, shards, Dask, assembling: the same files."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import cache
from pathlib import Path

import pytest

from tests.faults.operations import (
    DASK,
    OPERATIONS,
    SHARDS,
    TILE_S,
    Step,
    prepare,
    results,
)
from tests.parity.golden import slow_unless


@pytest.fixture(scope="module")
def sound(_server, scheduler, tmp_path_factory):
    """Return files of an operation that nothing disturbed, and seconds of a step."""

    @cache
    def run(name: str) -> tuple[dict[str, bytes], float]:
        folder = prepare(tmp_path_factory.mktemp("sound") / "f")
        started = time.monotonic()
        for step in OPERATIONS[name]:
            step = with_scheduler(step, scheduler)
            done = _server.run(*step, folder=folder, tile_s=TILE_S)
            assert done.code == 0, done.err
        seconds = (time.monotonic() - started) / len(OPERATIONS[name])
        found = results(folder)
        assert "out/a.tif" in found
        return found, seconds

    return run


def with_scheduler(step: Step, scheduler: Path) -> Step:
    return (*step, str(scheduler)) if step[-1] == DASK[-1] else step


def kill_and_finish(
    commands, scheduler, folder: Path, name: str, seed: int, step_s: float
) -> int:
    """Kill every step once at a random moment and finish it; return the kills."""
    rng = random.Random(seed)
    prepare(folder)
    kills = 0
    for step in OPERATIONS[name]:
        step = with_scheduler(step, scheduler)

        def kill(pid: int) -> None:
            time.sleep(rng.uniform(0, step_s))
            os.kill(pid, signal.SIGKILL)

        killed = commands.run(*step, folder=folder, tile_s=TILE_S, while_running=kill)
        kills += killed.code == -signal.SIGKILL
        if step[0] == "mosaic" and not (folder / "run").exists():
            continue  # it was done before the end of the process
        done = finish(commands, step, folder)
        assert done.code == 0, (seed, step, done.err)
    return kills


def finish(commands, step: Step, folder: Path):
    """Run a step to its end; workers may still be at a shard of the client killed."""
    until = time.monotonic() + 200
    while True:
        done = commands.run(*step, folder=folder)
        if done.code != 5 or step[0] != DASK[0] or time.monotonic() > until:
            return done


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    slow_unless(
        [name for name in OPERATIONS if name != "shards"],
        {"upscale", "dask", "assembling"},
    ),
)
def test_what_was_killed_ends_in_the_same_files(
    commands, scheduler, sound, tmp_path, name, seed
):
    whole, step_s = sound(name)
    kill_and_finish(commands, scheduler, tmp_path / "f", name, seed, step_s)
    assert results(tmp_path / "f") == whole


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_end_in_the_same_files(commands, scheduler, sound, tmp_path):
    kills = 0
    for seed in range(100, 1000):
        name = list(OPERATIONS)[seed % len(OPERATIONS)]
        whole, step_s = sound(name)
        folder = tmp_path / f"{seed}"
        kills += kill_and_finish(commands, scheduler, folder, name, seed, step_s)
        assert results(folder) == whole, seed
        if kills >= 100:
            break
    assert kills >= 100


@pytest.mark.parametrize("step", [*SHARDS[:1], (*SHARDS[0], "--update")])
def test_a_shard_killed_after_it_wrote_the_output_leaves_no_run(
    commands, sound, tmp_path, step
):
    """The run directory as it is between the output and the end of the process."""
    folder = prepare(tmp_path / "f")
    kept = (*SHARDS[0], "--keep-run"), (*SHARDS[1], "--keep-run")
    for shard in kept:
        assert commands.run(*shard, folder=folder).code == 0
    assert (folder / "run/run.json").exists()
    done = commands.run(*step, folder=folder)
    assert done.code == 0, done.err
    whole, _ = sound("shards")
    assert results(folder) == whole
