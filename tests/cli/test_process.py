"""What the command line asks of the libraries below torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rsupres.cli import process as processor

# Blocks of 32 MiB, filled and freed: how many pages does the system hand out for them?
_FAULTS = """
import ctypes, resource
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages, of which there are few
import numpy as np
from rsupres.cli.process import tune
tune()
np.ones(1 << 23, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(1 << 23, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(**settings: str) -> int:
    environment = {k: v for k, v in os.environ.items() if "MALLOC" not in k}
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings are Linux's")
def test_freed_memory_is_used_again_unless_the_user_has_other_wishes() -> None:
    kept = count_faults()
    theirs = count_faults(MALLOC_MMAP_THRESHOLD_="1048576")
    assert kept < 0.1 * theirs


@pytest.mark.parametrize(
    ("set_by_user", "wanted"),
    [
        ({}, "1000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
    ],
)
def test_threads_sleep_soon_unless_the_user_has_other_wishes(
    monkeypatch, set_by_user, wanted
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_by_user.items():
        monkeypatch.setenv(name, value)
    processor.wait_quietly()
    assert os.environ.get("GOMP_SPINCOUNT") == wanted


def test_another_c_library_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(processor.ctypes, "CDLL", lambda name: object())
    processor.keep_freed_memory()


# A command line that fails, with more to do when the process ends.
_LEAVING = """
import atexit, logging, sys, threading, time
from rsupres.cli import main
class Late:
    def __del__(self):
        print("taken apart")
kept = sys.modules["kept"] = Late()
late = threading.Thread(target=lambda: (time.sleep(0.1), print("joined")))
late.start()
sys.argv = ["rsupres", *sys.argv[1:]]
try:
    main()
finally:
    atexit.register(print, "registered")
"""


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["upscael"], 2)])
def test_a_command_line_leaves_once_all_work_is_done(
    words: list[str], code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LEAVING, *words], capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout.splitlines()[-2:] == ["joined", "registered"]
    assert ("upscael" in done.stderr) == bool(code)


def test_python_code_that_calls_a_command_goes_on() -> None:
    code = "from rsupres.cli import main\ntry:\n    main(['--version'])\n"
    code += "except SystemExit:\n    pass\nraise SystemExit(7)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
