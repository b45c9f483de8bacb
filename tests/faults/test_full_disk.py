"""A disk full at any moment: exit 6 in one line, and with room the same files."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from functools import cache, partial
from pathlib import Path

import pytest

from tests.faults.operations import DASK, OPERATIONS, TILE_S, prepare, results
from tests.parity.golden import slow_unless

NAMES = [name for name, steps in OPERATIONS.items() if DASK not in steps]
PAGE = 4096
ROOM = "64m"


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A file system whose size `resize` changes; empty for each test."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], capture_output=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(
        ["mount", "-o", f"remount,size={size}", str(disk)],
        check=True,
        capture_output=True,
    )


def used(disk: Path) -> int:
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.fixture(scope="module")
def sound(_server, disk):
    """Return files of an operation, and the largest space that it took of the disk."""

    @cache
    def run(name: str) -> tuple[dict[str, bytes], int]:
        folder = prepare(disk / name)
        peak = [used(disk)]
        for step in OPERATIONS[name]:
            done = _server.run(
                *step,
                folder=folder,
                tile_s=TILE_S / 4,
                while_running=partial(watch, disk, peak),
            )
            assert done.code == 0, done.err
        found = results(folder), max(peak)
        shutil.rmtree(folder)
        return found

    return run


def watch(disk: Path, peak: list[int], pid: int) -> None:
    """Note how much of the disk is used while a process runs."""
    while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        peak.append(used(disk))
        time.sleep(0.001)


def fill_and_finish(commands, disk: Path, name: str, seed: int, peak: int) -> int:
    """Do an operation on a disk too small at some moment; return the failures."""
    folder = prepare(disk / name)
    pages = random.Random(seed).randint(used(disk) // PAGE, peak // PAGE)
    resize(disk, str(pages * PAGE))
    failures = 0
    for step in OPERATIONS[name]:
        full = commands.run(*step, folder=folder)
        if full.code:
            failures += 1
            assert full.code == 6, (seed, pages, step, full)
            # A batch shows the failure of each scene in its table, on stdout.
            text = full.err + (full.out if step[0] == "batch" else "")
            assert "Traceback" not in text, (seed, pages, step, text)
            assert "disk is full" in text, (seed, pages, step, text)
            assert len(full.err.splitlines()) <= 1, (seed, pages, step, text)
            resize(disk, ROOM)
            done = commands.run(*step, folder=folder)
            assert done.code == 0, (seed, pages, step, done.err)
    return failures


@pytest.mark.parametrize("name", slow_unless(NAMES, {"upscale", "batch"}))
def test_what_a_full_disk_stopped_ends_in_the_same_files(commands, disk, sound, name):
    whole, peak = sound(name)
    try:
        fill_and_finish(commands, disk, name, 0, peak)
        assert results(disk / name) == whole
    finally:
        resize(disk, ROOM)
        shutil.rmtree(disk / name)


@pytest.mark.slow
def test_a_disk_full_at_twenty_moments_ends_in_the_same_files(commands, disk, sound):
    failures = 0
    for seed in range(100, 1000):
        name = NAMES[seed % len(NAMES)]
        whole, peak = sound(name)
        failures += fill_and_finish(commands, disk, name, seed, peak)
        assert results(disk / name) == whole, seed
        resize(disk, ROOM)
        shutil.rmtree(disk / name)
        if failures >= 20:
            break
    assert failures >= 20
