"""Files appear whole or not at all: full disks, missing folders, forbidden ones."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rsupres.errors import InputError, ResourceError
from rsupres.output.atomic import publishing
from rsupres.output.run_dir import Run
from rsupres.output.run_state import read_state
from tests.output.processes import JOB, finish, names


def test_publishing_replaces_only_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    with publishing(target) as part:
        part.write_bytes(b"first")
        assert not target.exists()
    with pytest.raises(TypeError), publishing(target) as part:
        part.write_bytes("not bytes")  # opens the file before it fails
    assert target.read_bytes() == b"first"
    with publishing(target) as part:
        part.write_bytes(b"third")
        assert target.read_bytes() == b"first"
    assert target.read_bytes() == b"third"
    assert names(tmp_path) == ["out.tif"]


def test_pixels_are_on_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watch_fsync(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name[:5]}")
        fsync(descriptor)

    def watch_replace(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    (tmp_path / "folder").mkdir()
    with publishing(tmp_path / "folder/o.tif") as part:
        part.write_bytes(b"pixels")
    assert steps == ["sync o.tif", "rename", "sync folde"]


def test_a_full_disk_is_a_resource_error_and_leaves_nothing(tmp_path: Path) -> None:
    body = """
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        run = Run.open(path, manifest)
        for work in (
            lambda part: part.write_bytes(bytes(200_000)),
            lambda part: run.allocate('latent', (100_000,), 'float32'),
        ):
            try:
                with publishing(run.strip_path(0)) as part:
                    work(part)
            except RsupresError as error:
                tell(f'{type(error).__name__} {error}')
        tell(run.done_strips())
        tell(sorted(file.name for file in path.rglob('*.*')))
    """
    first, second, done, files = finish(tmp_path / "o.run", body).splitlines()
    assert first.startswith("ResourceError ")
    assert "strips/0000.tif: the disk is full" in first
    assert second.startswith("ResourceError ")
    assert "0.4 MB are needed" in second
    assert done == "frozenset()"
    assert ".tif" not in files
    assert ".npy" not in files


def test_no_space_on_a_device_is_a_resource_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def write(part: Path) -> None:
        part.unlink()
        part.symlink_to("/dev/full")
        part.write_bytes(b"pixels")

    with (
        pytest.raises(ResourceError, match=r"o\.tif: the disk is full"),
        publishing(tmp_path / "o.tif") as part,
    ):
        write(part)
    assert names(tmp_path) == []


def test_a_full_file_system_stops_a_run_that_then_continues(tmp_path: Path) -> None:
    body = """
        def attempt(work):
            try:
                work()
            except RsupresError as error:
                tell(f'{type(error).__name__} {error}')

        def write(size):
            with publishing(run.strip_path(1)) as part:
                part.write_bytes(bytes(size))

        other = path.with_name('other')
        with Run.open(path, manifest) as run:
            other.write_bytes(bytes(900_000))
            attempt(lambda: run.allocate('latent', (100_000,), 'float32'))
            attempt(lambda: write(300_000))
        other.unlink()
        with Run.open(path, manifest) as run:
            tell(run.done_strips())
            write(300_000)
            tell(run.done_strips())
    """
    # A file system of 1 MB in a name space of its own, which ends with the process.
    mount = 'mount -t tmpfs -o size=1m none "$1" && shift'
    space = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if (
        not shutil.which("unshare")
        or subprocess.run(
            [*space, mount, "sh", str(tmp_path)], capture_output=True
        ).returncode
    ):
        pytest.skip("cannot mount a file system here")
    program = [*space, f'{mount} && exec "$@"', "sh", str(tmp_path)]
    lines = finish(tmp_path / "o.run", body, program).splitlines()
    assert lines[0].startswith("ResourceError ")
    assert "0.4 MB are needed" in lines[0]
    assert lines[1].startswith("ResourceError ")
    assert "0001.tif: the disk is full" in lines[1]
    assert lines[2:] == ["frozenset()", "frozenset({1})"]


def test_a_folder_that_may_not_be_written_is_an_input_error(tmp_path: Path) -> None:
    body = """
        from tests.forkserver import restrict_root
        restrict_root()
        for work in (
            lambda: Run.open(path, manifest),
            lambda: publishing(path / 'o.tif').__enter__().write_bytes(b'x'),
        ):
            try:
                work()
            except (RsupresError, OSError) as error:
                tell(f'{type(error).__name__} {error}')
    """
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    first = finish(closed / "o.run", body).splitlines()[0]
    assert first.startswith("InputError ")
    assert "o.run: cannot be written (Permission denied)" in first


def test_a_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such folder"):
        Run.open(tmp_path / "absent/o.run", JOB)
    with (
        pytest.raises(InputError, match="absent: no such folder"),
        publishing(tmp_path / "absent/o.tif") as part,
    ):
        part.write_bytes(b"x")
    with pytest.raises(InputError, match="no run directory"):
        Run.load(tmp_path / "absent")
    with pytest.raises(InputError, match="no run directory"):
        read_state(tmp_path)


def test_a_missing_file_of_the_callers_is_not_explained_away(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), publishing(tmp_path / "o.tif"):
        (tmp_path / "absent").read_bytes()
