"""Whatever happens to a run, nothing wrong appears and the same command goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from rsupres.cli import main
from tests.forkserver import Commands
from tests.helpers import make_scene

SCALE = ["--scale", "3", "--model", "bicubic", "--tile-size", "24", "-q"]


def make_pixels(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 4000, (3, 130, 60)).astype(np.uint16)
    pixels[:, 40:60, 20:50] = 0
    return make_scene(folder / "scene.tif", pixels=pixels, nodata=0)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_pixels(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The output of a run that nothing disturbed, in this process."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "whole.tif"
    done = CliRunner().invoke(
        main, ["upscale", str(make_pixels(folder)), str(path), *SCALE]
    )
    assert done.exit_code == 0, done.output
    return path.read_bytes()


def once(is_so: Callable[[], bool], number: signal.Signals) -> Callable[[int], None]:
    """Send a signal as soon as something is so."""

    def send(pid: int) -> None:
        Commands.wait_until(is_so, pid)
        os.kill(pid, number)

    return send


def n_files(folder: Path) -> int:
    """Count the files below a folder, also while others come and go."""
    return sum(len(names) for _, _, names in os.walk(folder))


def kill_often(commands, scene: Path, whole: bytes, seed: int, n_runs: int) -> int:
    """Kill a run after some files each time, finish it, compare; return the kills."""
    rng = random.Random(seed)
    output = scene.with_name(f"killed{seed}.tif")
    kills = 0
    run = output.with_name(output.name + ".run")
    for _ in range(n_runs):
        before = n_files(run)
        wanted = before + rng.randint(0, 3)
        done = commands.run(
            "upscale",
            *(scene, output, *SCALE),
            while_running=once(
                lambda wanted=wanted: n_files(run) >= wanted or output.exists(),
                signal.SIGKILL,
            ),
            tile_s=0.03,
            n_batches=6,  # of 7, so that the first process does not end before
        )
        kills += done.code == -signal.SIGKILL
        if output.exists():
            assert output.read_bytes() == whole
            break
    last = commands.run("upscale", scene, output, *SCALE)
    assert last.code in (0, 5), last.err
    assert output.read_bytes() == whole
    assert not run.exists()
    assert [p.name for p in scene.parent.glob("killed*.tmp*")] == []
    output.unlink()
    return kills


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_ends_in_the_same_bytes(
    commands, scene, whole, seed
):
    assert kill_often(commands, scene, whole, seed, n_runs=4) > 0


@pytest.mark.slow
def test_runs_killed_a_hundred_times_end_in_the_same_bytes(commands, scene, whole):
    kills = 0
    for seed in range(10, 110):
        kills += kill_often(commands, scene, whole, seed, 5)
        if kills >= 100:
            break
    assert kills >= 100


@pytest.mark.parametrize("n_removed", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_a_run_killed_after_publishing_is_cleaned_up(
    commands, scene, whole, tmp_path, n_removed
):
    output = tmp_path / "out.tif"
    run = tmp_path / "out.tif.run"
    assert commands.run("upscale", scene, output, *SCALE, "--keep-run").code == 0
    assert run.exists()
    for name in ("sums", "strips", "run.json")[:n_removed]:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert commands.run("upscale", scene, output, *SCALE).code == 0
    assert not run.exists()
    assert output.read_bytes() == whole


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)],
)
def test_a_signal_stops_within_a_batch_and_the_same_command_continues(
    commands, scene, whole, tmp_path, number, code
):
    output = tmp_path / "out.tif"
    strips = tmp_path / "out.tif.run" / "strips"
    stopped = commands.run(
        *("upscale", scene, output, *SCALE),
        while_running=once(lambda: (strips / "0001.tif").exists(), number),
        n_batches=2,
    )
    assert stopped.code == code
    assert number.name in stopped.err
    assert "the same command continues" in stopped.err
    assert not output.exists()
    assert {path.name for path in strips.glob("*.tif")} == {"0000.tif", "0001.tif"}
    assert commands.run("status", strips.parent).out.count("stopped") == 1
    assert commands.run("upscale", scene, output, *SCALE).code == 0
    assert output.read_bytes() == whole


def test_finished_strips_are_not_computed_again(commands, scene, tmp_path):
    output = tmp_path / "out.tif"
    strips = tmp_path / "out.tif.run" / "strips"
    commands.run(
        *("upscale", scene, output, *SCALE),
        while_running=once(lambda: any(strips.glob("*.tif")), signal.SIGKILL),
        n_batches=2,
    )
    kept = {path.name: path.stat().st_mtime_ns for path in strips.glob("0*.tif")}
    assert kept
    assert commands.run("upscale", scene, output, *SCALE, "--keep-run").code == 0
    after_all = {path.name: path.stat().st_mtime_ns for path in strips.glob("0*.tif")}
    assert kept.items() <= after_all.items()
    assert len(after_all) > len(kept)


def test_a_second_run_is_refused_while_the_first_lives(
    commands, scene, tmp_path, hasty
):
    output = tmp_path / "out.tif"
    refused: list[Result] = []

    def begin_another(pid: int) -> None:
        Commands.wait_until((tmp_path / "out.tif.run/run.json").exists, pid)
        command = ["upscale", str(scene), str(output), *SCALE]
        refused.append(CliRunner().invoke(main, command))

    first = commands.run(
        "upscale", scene, output, *SCALE, while_running=begin_another, n_batches=0
    )
    assert first.code == 0
    assert refused[0].exit_code == 5
    assert "process" in refused[0].stderr
    assert output.exists()


def test_what_a_killed_process_left_beside_the_output_goes_away(
    commands, scene, tmp_path
):
    output = tmp_path / "out.tif"
    leftovers = [tmp_path / f"out.tif.0123abcd.tmp{end}" for end in ("", ".ovr.tmp")]
    others = [tmp_path / name for name in ("out.tif.tmp", "my_out.tif.0123abcd.tmp")]
    for path in (*leftovers, *others):
        path.touch()
    assert commands.run("upscale", scene, output, *SCALE).code == 0
    assert [path for path in leftovers if path.exists()] == []
    assert all(path.exists() for path in others)


def test_a_signal_while_the_output_is_written_leaves_nothing_beside_it(
    commands, tmp_path
):
    pixels = np.random.default_rng(0).integers(1, 4000, (4, 700, 700), np.uint16)
    scene = make_scene(tmp_path / "large.tif", pixels=pixels)
    output = tmp_path / "out.tif"
    stopped = commands.run(
        *("upscale", scene, output, "--scale", "4", "--model", "bicubic", "-q"),
        while_running=once(lambda: any(tmp_path.glob("out.tif.*tmp")), signal.SIGTERM),
        holds_output=True,
    )
    assert stopped.code == 143, stopped.err
    assert "the same command continues" in stopped.err
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["large.tif", "out.tif.run"]


def test_another_job_in_the_same_run_directory_is_refused(commands, scene, tmp_path):
    output = tmp_path / "out.tif"
    strips = tmp_path / "out.tif.run" / "strips"
    commands.run(
        *("upscale", scene, output, *SCALE),
        while_running=once(lambda: any(strips.glob("*.tif")), signal.SIGKILL),
        n_batches=2,
    )
    other = commands.run("upscale", scene, output, *SCALE, "--stretch", "0,5000")
    assert other.code == 5
    assert "stretch" in other.err
    assert not output.exists()


def test_a_changed_scene_is_another_job(commands, scene, tmp_path):
    output = tmp_path / "out.tif"
    strips = tmp_path / "out.tif.run" / "strips"
    commands.run(
        *("upscale", scene, output, *SCALE),
        while_running=once(lambda: any(strips.glob("*.tif")), signal.SIGKILL),
        n_batches=2,
    )
    with rasterio.open(scene, "r+") as dataset:
        dataset.write(np.full((3, 1, 1), 77, np.uint16), window=((0, 1), (0, 1)))
    assert commands.run("upscale", scene, output, *SCALE).code == 5


def test_a_size_limit_on_files_ends_in_6_and_leaves_no_output(
    commands, scene, whole, tmp_path
):
    output = tmp_path / "out.tif"
    limited = commands.run("upscale", scene, output, *SCALE, file_limit=20_000)
    assert limited.code == 6, limited.err
    assert len(limited.err.splitlines()) == 1
    assert "limit" in limited.err
    assert not output.exists()
    assert commands.run("upscale", scene, output, *SCALE).code == 0
    assert output.read_bytes() == whole


@pytest.fixture
def small_disk(tmp_path: Path):
    """Make a file system of a few hundred kB."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs root and the right to mount a tmpfs")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


@pytest.mark.parametrize(
    "size",
    ["64k", *(pytest.param(s, marks=pytest.mark.slow) for s in ("400k", "800k"))],
)
def test_a_full_disk_ends_in_6_and_with_room_the_same_command_continues(
    commands, scene, whole, small_disk, size
):
    folder = small_disk(size)
    output = folder / "out.tif"
    full = commands.run("upscale", scene, output, *SCALE)
    assert full.code == 6, full.err
    assert len(full.err.splitlines()) == 1
    assert "full" in full.err
    assert not output.exists()
    assert not list(folder.glob("out.tif.tmp*"))
    subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)
    assert commands.run("upscale", scene, output, *SCALE).code == 0
    assert output.read_bytes() == whole


def test_a_full_disk_while_the_output_is_written_keeps_the_strips(
    commands, scene, whole, small_disk, tmp_path
):
    output = small_disk("100k") / "out.tif"
    run = tmp_path / "elsewhere.run"
    options = [*SCALE, "--run-dir", run]
    full = commands.run("upscale", scene, output, *options)
    assert full.code == 6, full.err
    assert not output.exists()
    strips = {p.name: p.stat().st_mtime_ns for p in (run / "strips").glob("*.tif")}
    assert len(strips) > 5
    subprocess.run(["mount", "-o", "remount,size=20m", output.parent], check=True)
    assert commands.run("upscale", scene, output, *options).code == 0
    assert output.read_bytes() == whole


def test_a_read_only_file_system_is_refused_before_work(commands, scene, small_disk):
    folder = small_disk("1m")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    refused = commands.run("upscale", scene, folder / "out.tif", *SCALE)
    assert refused.code == 3
    assert "read-only" in refused.err


def test_shards_in_processes_of_their_own_make_the_same_bytes(
    commands, scene, whole, tmp_path
):
    output = tmp_path / "out.tif"
    codes = []
    for shard in ("2/3", "3/3", "1/3"):
        assert not output.exists()
        codes.append(
            commands.run("upscale", scene, output, *SCALE, "--shard", shard).code
        )
    assert codes == [0, 0, 0]
    assert output.read_bytes() == whole
    assert not (tmp_path / "out.tif.run").exists()


def test_mosaic_finishes_what_shards_left(commands, scene, whole, tmp_path):
    output = tmp_path / "out.tif"
    run = tmp_path / "out.tif.run"
    commands.run("upscale", scene, output, *SCALE, "--shard", "2/3")
    other = tmp_path / "other.tif"
    finished = commands.run("mosaic", run, other, "-q")
    assert finished.code == 0, finished.err
    assert other.read_bytes() == whole
    assert not run.exists()
    assert not output.exists()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny E2DiffSR with random weights."""
    from tests.families.e2diffsr.test_e2diffsr import TINY, _networks, _write

    path = tmp_path / "tiny.safetensors"
    _write(path, _networks(), TINY)
    return path


@pytest.mark.slow
def test_e2diffsr_killed_while_preparing_and_later_ends_in_the_same_bytes(
    commands, scene, checkpoint, tmp_path
):
    options = ["--scale", "2", "--model", checkpoint, "--tile-size", "64", "-q"]
    options += ["--batch-size", "1"]
    whole, output = tmp_path / "whole.tif", tmp_path / "out.tif"
    run = tmp_path / "out.tif.run"
    assert commands.run("upscale", scene, whole, *options).code == 0
    moments = [
        lambda: any(run.glob("context.*.tmp")),
        lambda: (run / "context").exists(),
        lambda: any((run / "strips").glob("0*.tif")),
    ]
    for moment in moments:
        killed = commands.run(
            *("upscale", scene, output, *options),
            while_running=once(moment, signal.SIGKILL),
        )
        assert killed.code == -signal.SIGKILL
        assert not output.exists()
    assert commands.run("upscale", scene, output, *options).code == 0
    assert output.read_bytes() == whole.read_bytes()
    assert not run.exists()
