"""Damage in a run directory costs time or ends in a refusal, never in a wrong file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from rsupres.cli import main
from rsupres.output.tiff import packets
from rsupres.output.tiff.packets import Packets
from rsupres.upscaling.outputs import StripSaver
from tests.helpers import make_scene

Damage = Callable[[Path], object]
JOB = ("scene.tif", "out.tif", "--model", "bicubic", "--scale", "4", "-q")
TILES = ("--tile-size", "81", "--overlap", "9")


class Stop(Exception):
    """Ends a run, as a kill does."""


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def make_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(5).bytes(path.stat().st_size))


def make_noise_inside(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 64)
    content[middle] = np.random.default_rng(5).bytes(len(content[middle]))
    path.write_bytes(content)


def change_a_digit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = next(n for n in range(len(content) // 2, 0, -1) if 48 <= content[n] < 57)
    content[place] += 1
    path.write_bytes(content)


DAMAGES = [Path.unlink, halve, empty, make_noise, make_noise_inside, change_a_digit]


def upscale(*options: str) -> Result:
    return CliRunner().invoke(main, ["upscale", *JOB, *TILES, *options])


def stopped(owner: object, name: str, n_calls: int, *options: str) -> None:
    """Run until a function is called for one time more than `n_calls`."""
    real, calls = getattr(owner, name), []

    def counted(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) > n_calls:
            raise Stop
        return real(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, counted)
        done = upscale(*options)
    assert "Stop" in done.output, done.output


def stop_between_strips() -> None:
    stopped(StripSaver, "_end", 4)


def stop_before_the_output() -> None:
    stopped(Packets, "_begin", 0)


def stop_in_the_output() -> None:
    stopped(packets, "copy_blocks", 2)


def stop_between_shards() -> None:
    assert upscale("--shard", "2/3").exit_code == 0
    stopped(StripSaver, "_end", 1, "--shard", "1/3")


STATES = [
    stop_between_strips,
    stop_before_the_output,
    stop_in_the_output,
    stop_between_shards,
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a scene, the current one; its outputs are packed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packets, "PACKED_BYTES", 0)
    shape = np.random.default_rng(0).integers(200, 3000, (1, 420, 28))
    make_scene(tmp_path / "scene.tif", pixels=shape.astype(np.uint16), nodata=0)
    return tmp_path


def kinds_of_files(run: Path) -> list[str]:
    """Return a file of each kind: that in the middle of those in one folder."""
    kinds: dict[tuple[str, ...], list[Path]] = {}
    for file in sorted(run.rglob("*")):
        if file.is_file() and file.suffix != ".lock":
            level = file.name[0] if file.parent.name == "packets" else ""
            kind = (file.parent.name, level, file.suffix)
            kinds.setdefault(kind, []).append(file.relative_to(run))
    return [str(files[len(files) // 2]) for files in kinds.values()]


@pytest.mark.parametrize("n_damages", [1, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stop", STATES)
def test_every_damage_ends_in_the_right_file_or_a_refusal(
    folder: Path, stop: Callable[[], None], n_damages: int
) -> None:
    assert upscale().exit_code == 0
    whole = Path("out.tif").read_bytes()
    Path("out.tif").unlink()
    stop()
    run, kept = Path("out.tif.run"), Path("kept")
    shutil.copytree(run, kept)
    for index, name in enumerate(kinds_of_files(kept)):
        for damage in [*DAMAGES, *DAMAGES][index % 6 : index % 6 + n_damages]:
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(kept, run)
            try:
                damage(run / name)
            except (StopIteration, ValueError):  # it has no digit, or is empty
                continue
            done = upscale()
            told = f"{name} {damage.__name__}: {done.output}"  # type: ignore[attr-defined]
            if name == "run.json":
                assert done.exit_code == 5, told
                assert "run.json" in done.output, told
                assert "remove" in done.output, told
                continue
            assert done.exit_code == 0, told
            assert Path("out.tif").read_bytes() == whole, told
            assert not run.exists(), told
            Path("out.tif").unlink()


def test_the_last_of_several_shards_mends_what_others_wrote(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert upscale().exit_code == 0
    whole = Path("out.tif").read_bytes()
    Path("out.tif").unlink()
    for shard in ("2/3", "1/3"):
        assert upscale("--shard", shard).exit_code == 0
    packet = next(Path("out.tif.run/packets").glob("0-*.tif"))
    make_noise_inside(packet)
    make_noise_inside(Path("out.tif.run/sums/0000.json"))
    done = upscale("--shard", "3/3")
    assert done.exit_code == 0, done.output
    assert Path("out.tif").read_bytes() == whole
    assert f"{packet}: damaged or gone; made again, with" in caplog.text
