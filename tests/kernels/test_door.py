"""The kernels are found at run time, and one environment variable turns them off."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from rsupres.kernels import door

INSTALLED = find_spec("numba") is not None
# A finder that hides numba, as if it was not installed.
HIDE_NUMBA = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(name, name=name)
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: (
    None if name == "numba" else found(name, *more)
)
sys.meta_path.insert(0, Hide())
"""


def arguments() -> tuple[torch.Tensor, torch.Tensor, None]:
    x = torch.ones(1, 64, 48, 48).contiguous(memory_format=torch.channels_last)
    return x, torch.ones(64, 64, 3, 3), None


def test_the_kernels_are_on_where_numba_is_installed(monkeypatch) -> None:
    monkeypatch.delenv(door.VARIABLE, raising=False)
    with torch.no_grad():
        made = door.convolve3x3(*arguments())
    assert door.available() == INSTALLED == (made is not None)
    assert (door.describe() == "on") == INSTALLED


def test_the_variable_turns_them_off(monkeypatch) -> None:
    monkeypatch.setenv(door.VARIABLE, "off")
    halves = torch.ones(2, 4, dtype=torch.bfloat16)
    assert not door.available()
    assert door.describe().startswith("off")
    with torch.no_grad():
        assert door.convolve3x3(*arguments()) is None
    assert door.subtract_to_bfloat16(halves.float(), torch.ones(4)) is None
    assert door.add_from_bfloat16(halves, torch.ones(4)) is None
    assert door.gate_by_gelu(halves) is None


@pytest.mark.parametrize("variable", ["on", "off"])
def test_everything_works_without_numba(variable: str) -> None:
    program = HIDE_NUMBA + (
        "import torch\n"
        "from rsupres.blocks.conv3x3 import Conv3x3\n"
        "from rsupres.kernels import door\n"
        "x = torch.ones(1, 64, 48, 48).contiguous(memory_format=torch.channels_last)\n"
        "with torch.no_grad():\n"
        "    assert Conv3x3(64, 64)(x).shape == (1, 64, 48, 48)\n"
        "assert not door.available()\n"
        "assert 'rsupres[fast]' in door.describe()\n"
        "assert not {'numba', 'llvmlite'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, door.VARIABLE: variable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
