"""Damaged inputs end in a line and an exit code: no defect, no hang, bounded memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fuzz import KINDS, make_case, make_sound_files

CODES = {0, 2, 3, 4, 5, 6, 7, 8}
QUICK = range(0, len(KINDS), 4)  # one of every fourth kind
REST = [n for n in range(330) if n not in QUICK]
MAX_S = 60  # of a processor
MAX_BYTES = 2 << 30  # torch and GDAL alone take a quarter of this


@pytest.fixture(scope="module")
def sound(_server, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "sound"

    def run(*words: str) -> None:
        done = _server.run(*words, folder=folder)
        assert done.code == 0, done.err

    return make_sound_files(folder, run)


def check(commands, sound: Path, folder: Path, seed: int) -> int:
    """Run a case; return its exit code."""
    case = make_case(seed, folder, sound)
    done = commands.run(*case.arguments, folder=folder, time_limit_s=MAX_S)
    told = f"seed {seed}: {case.kind}: {case.file.name}: {done.err[-600:]}"
    assert done.code in CODES, told
    assert "Traceback" not in done.err, told
    assert (done.code != 0) == bool(done.error_lines) or "failed" in done.out, told
    assert done.peak_bytes < MAX_BYTES, told
    return done.code


@pytest.mark.parametrize("seed", [*QUICK, 312])
def test_damaged_files_end_in_a_line_and_a_code(commands, sound, tmp_path, seed):
    check(commands, sound, tmp_path / "case", seed)


@pytest.mark.slow
def test_three_hundred_more_damaged_files_do_so_too(commands, sound, tmp_path):
    seen = [check(commands, sound, tmp_path / f"{n}", n) for n in REST]
    assert len(KINDS) * 10 <= len(REST)
    assert {0, 3, 4, 5} <= set(seen)
