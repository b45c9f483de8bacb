"""What killed processes left beside a file goes; what live ones write stays."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rsupres.cluster.token import token_in
from rsupres.output.atomic import publishing
from rsupres.output.temporary import clear, temporary
from rsupres.output.tensors import write_tensors

ENDS = ("", ".msk", ".ovr.tmp", ".msk.ovr.tmp", ".aux.xml", ".gpkg", ".gpkg-journal")


def leave(path: Path, number: str = "0a1b2c3d") -> list[Path]:
    """Make what a killed process leaves beside a file."""
    files = [path.with_name(f"{path.name}.{number}.tmp{end}") for end in ENDS]
    for file in files:
        file.write_bytes(b"half")
    return files


def test_whoever_publishes_a_file_removes_what_was_left_of_it(tmp_path):
    gone = [*leave(tmp_path / "a.tif"), *leave(tmp_path / "a.tif", "ffffffff")]
    kept = leave(tmp_path / "b.tif")
    for name in (
        "a.tif.20261130",
        "a.tif.tmp",
        "a.tif.123.tmp",
        "my_a.tif.0a1b2c3d.tmp",
    ):
        kept.append(tmp_path / name)
        kept[-1].write_bytes(b"the user's")
    with publishing(tmp_path / "a.tif") as part:
        part.write_bytes(b"whole")
    assert not any(path.exists() for path in gone)
    assert {*tmp_path.iterdir()} == {*kept, tmp_path / "a.tif"}


def test_what_is_beside_a_file_that_is_lost_goes_too(tmp_path):
    first, *others = leave(tmp_path / "a.tif")
    first.unlink()
    clear([tmp_path / "a.tif"])
    assert not any(path.exists() for path in others)


@pytest.fixture
def writer(tmp_path):
    """Another process that writes `a.tif`, and its temporary file."""
    code = (
        "from pathlib import Path; from rsupres.output.atomic import publishing\n"
        "with publishing(Path('a.tif')) as part:\n"
        "    part.write_bytes(b'half'); print(part.name, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, tmp_path / process.stdout.readline().strip()
        process.kill()


def test_the_file_of_a_live_process_stays_until_it_is_killed(tmp_path, writer):
    process, part = writer
    with publishing(tmp_path / "a.tif") as own:
        own.write_bytes(b"mine")
    assert part.read_bytes() == b"half"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert part.exists()
    clear([tmp_path / "a.tif"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_a_live_process_publishes_its_file_after_another_one_did(tmp_path, writer):
    process, _ = writer
    with publishing(tmp_path / "a.tif") as own:
        own.write_bytes(b"mine")
    process.communicate("\n")
    assert (tmp_path / "a.tif").read_bytes() == b"half"
    assert len([*tmp_path.iterdir()]) == 1


def test_an_abandoned_file_of_this_process_goes_on_request(tmp_path):
    with temporary(tmp_path / "a.tif") as part:
        clear([tmp_path / "a.tif"])
        assert part.exists()
        clear([tmp_path / "a.tif"], all_of_them=True)
        assert not part.exists()


def test_where_there_are_no_locks_nothing_is_taken_for_left(tmp_path, monkeypatch):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    files = leave(tmp_path / "a.tif")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with publishing(tmp_path / "a.tif") as part:
        part.write_bytes(b"whole")
    assert all(path.exists() for path in files)
    assert (tmp_path / "a.tif").read_bytes() == b"whole"


def test_a_file_that_a_library_replaces_is_published_with_the_usual_mode(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"a": np.ones(3)}, {})
    (tmp_path / "usual").touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
    (tmp_path / "usual").unlink()
    assert len([*tmp_path.iterdir()]) == 1


def test_a_umask_that_forbids_writing_hinders_nobody(tmp_path):
    before = os.umask(0o277)
    try:
        with publishing(tmp_path / "a.tif") as part:
            assert part.stat().st_mode & 0o777 == 0o600
            part.write_bytes(b"whole")
    finally:
        os.umask(before)
    assert (tmp_path / "a.tif").stat().st_mode & 0o777 == 0o400


def test_tokens_of_killed_processes_go(tmp_path):
    files = [*leave(tmp_path / "workers"), *leave(tmp_path / "probe")]
    with token_in(tmp_path) as token:
        assert token.fault() == ""
        assert not any(path.exists() for path in files)
    assert not [*tmp_path.iterdir()]
