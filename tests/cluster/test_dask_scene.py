"""Dask workers make the bytes of one process; what is lost or wrong costs no result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from rsupres.checkpoints.catalogue import read_card
from rsupres.cli import main
from tests.cluster.farm import hold_of
from tests.helpers import make_scene

OPTIONS = ["--scale", "3", "--model", "bicubic", "--tile-size", "24", "-q"]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(1, 4000, (3, 250, 60)).astype("uint16")
    pixels[:, 40:60, 20:50] = 0
    return make_scene(tmp_path / "scene.tif", pixels=pixels, nodata=0)


@pytest.fixture
def whole(commands, scene: Path, tmp_path: Path) -> bytes:
    """The output of one process."""
    path = tmp_path / "whole.tif"
    assert commands.run("upscale", scene, path, *OPTIONS).code == 0
    return path.read_bytes()


def until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 200
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def held(scheduler: Path) -> Iterator[Path]:
    """Let workers wait after a batch until the block ends, or the file is removed."""
    hold = hold_of(scheduler)
    hold.touch()
    try:
        yield hold
    finally:
        hold.unlink(missing_ok=True)


def owners(run: Path) -> set[int]:
    """Return the processes that hold or held shards of a run."""
    found = set()
    for lock in run.glob("shard-*.lock"):
        text = lock.read_text()
        if text:
            found.add(json.loads(text)["pid"])
    return found


def test_two_workers_make_the_bytes_of_one_process(
    commands, scheduler, scene, whole, tmp_path
):
    output, pids = tmp_path / "out.tif", set()

    def watch(pid: int) -> None:
        until(lambda: pids.update(owners(tmp_path / "out.tif.run")) or len(pids) == 2)
        hold.unlink()

    with held(scheduler) as hold:
        done = commands.run(
            *("upscale", scene, output, *OPTIONS, "--dask-scheduler-file", scheduler),
            *("--dask-resources", "TEST=1", "--json"),
            while_running=watch,
        )
    assert done.code == 0, done.err
    assert output.read_bytes() == whole
    assert json.loads(done.out)["tiles"] > 20
    assert not (tmp_path / "out.tif.run").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_another_attempt_only(
    commands, farm, scene, whole, tmp_path
):
    output, run = tmp_path / "out.tif", tmp_path / "out.tif.run"
    _, file = farm.scheduler("killed")
    workers = {farm.worker(file) for _ in range(2)}
    killed = []

    def kill(pid: int) -> None:
        until(lambda: killed.extend(owners(run) & workers) or killed)
        farm.kill(killed[0])
        hold.unlink()

    address = json.loads(file.read_text())["address"]
    with held(file) as hold:
        done = commands.run(
            *("upscale", scene, output, *OPTIONS, "--dask", address), while_running=kill
        )
    assert done.code == 0, done.err
    assert killed
    assert output.read_bytes() == whole


@pytest.mark.slow
def test_a_scheduler_that_is_gone_leaves_a_run_that_continues(
    commands, farm, scene, whole, tmp_path
):
    output, run = tmp_path / "out.tif", tmp_path / "out.tif.run"
    pid, file = farm.scheduler("gone")
    farm.worker(file)

    def kill(command: int) -> None:
        until(lambda: list(run.glob("strips/*")))
        farm.kill(pid)

    with held(file):
        lost = commands.run(
            *("upscale", scene, output, *OPTIONS, "--dask-scheduler-file", file),
            while_running=kill,
        )
    assert lost.code == 6, lost.err
    assert "scheduler is gone" in lost.err
    assert len(lost.err.splitlines()) == 1
    kept = {path: path.stat().st_mtime_ns for path in run.glob("strips/*")}
    assert kept
    assert not list(run.glob("workers.*"))
    until(lambda: commands.run("upscale", scene, output, *OPTIONS).code == 0)
    assert output.read_bytes() == whole


@pytest.mark.slow
def test_a_command_that_is_stopped_stops_its_workers_and_continues(
    commands, scheduler, scene, whole, tmp_path
):
    output, run = tmp_path / "out.tif", tmp_path / "out.tif.run"
    arguments = ("upscale", scene, output, *OPTIONS, "--dask-scheduler-file", scheduler)

    def stop(pid: int) -> None:
        until(lambda: list(run.glob("strips/*.tif")))
        os.kill(pid, signal.SIGTERM)

    with held(scheduler):
        stopped = commands.run(*arguments, while_running=stop)
    assert stopped.code == 143, stopped.err
    assert "the same command continues" in stopped.err
    n_done = len(list(run.glob("strips/*.tif")))
    again = commands.run(*arguments, "--json")
    assert again.code == 0, again.err
    assert 0 < n_done < 14
    assert output.read_bytes() == whole


def test_a_worker_with_other_weights_is_refused(commands, farm, scene, tmp_path):
    name = "optical-small"
    card = read_card(name)
    other = tmp_path / "models"
    other.mkdir()
    shipped = Path(str(card.file)).parent
    shutil.copy(shipped / f"{name}.toml", other)
    (other / card.file.name).write_bytes(card.file.read_bytes() + b" ")
    _, file = farm.scheduler("weights")
    farm.worker(file)
    farm.worker(file, RSUPRES_MODELS=str(other))
    refused = commands.run(
        *("upscale", scene, tmp_path / "out.tif", "--dask-scheduler-file", file),
        *("--model", name, "-q"),
    )
    assert refused.code == 4, refused.err
    assert "has other weights of model optical-small" in refused.err
    assert not (tmp_path / "out.tif.run").exists()


def test_resources_that_no_worker_has_are_refused(commands, scheduler, scene, tmp_path):
    refused = commands.run(
        *("upscale", scene, tmp_path / "out.tif", *OPTIONS),
        *("--dask-scheduler-file", scheduler, "--dask-resources", "GPU=1"),
    )
    assert refused.code == 6, refused.err
    assert "--dask-resources No worker offers GPU=1" in refused.err


def upscale(scene: Path, *options: str) -> Result:
    """Run the command in this process."""
    arguments = ["upscale", str(scene), str(scene.with_name("o.tif")), *OPTIONS]
    return CliRunner().invoke(main, [*arguments, *options])


@pytest.mark.parametrize("service", ["none", "silent", "of the web"])
def test_an_address_without_a_scheduler_ends_in_6(scene, monkeypatch, service):
    """Dask's own client waits without end for a service that never answers."""
    monkeypatch.setattr("rsupres.cluster.scheduler._CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        web = threading.Thread(target=answer_as_the_web, args=[server])
        if service == "none":
            server.close()
        elif service == "of the web":
            monkeypatch.setattr("rsupres.cluster.scheduler._CONNECT_S", 100.0)
            web.start()
        refused = upscale(scene, "--dask", address)
        if service == "of the web":
            web.join()
    assert refused.exit_code == 6, refused.output
    assert f"{address}: no Dask scheduler answers" in refused.output


def answer_as_the_web(server: socket.socket) -> None:
    """Refuse one request, as a server of pages refuses what is no HTTP."""
    connection, _ = server.accept()
    with connection, suppress(ConnectionError):  # Dask may close it with all unread
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        connection.recv(1 << 16)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--dask", "a:1", "--dask-local", "2"), 2, "exclude each other"),
        (("--dask-local", "2", "--shard", "1/2"), 2, "exclude each other"),
        (("--dask-resources", "GPU=1"), 2, "needs --dask"),
        (("--dask-local", "2", "--dask-resources", "GPU"), 2, "NAME=NUMBER"),
        (("--dask-scheduler-file", "none.json"), 3, "--dask-scheduler-file none.json"),
    ],
)
def test_options_that_cannot_be_meant(scene, options, code, text):
    refused = upscale(scene, *options)
    assert refused.exit_code == code, refused.output
    assert text in refused.output
