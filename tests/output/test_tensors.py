"""Files of tensors have the umask's permissions, and a full disk is told."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from rsupres.output.tensors import write_tensors


@pytest.mark.parametrize("value", [np.ones(3, "float32"), torch.ones(3)])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(
    tmp_path: Path, value: np.ndarray, umask: int
) -> None:
    path = tmp_path / "a.safetensors"
    before = os.umask(umask)
    try:
        write_tensors(path, {"a": value}, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert load_file(path)["a"].tolist() == [1.0, 1.0, 1.0]


def test_tensors_that_share_memory_are_written(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    write_tensors(tmp_path / "a", {"all": whole, "half": whole[::2]}, {"k": "v"})
    assert load_file(tmp_path / "a")["half"].tolist() == [0.0, 2.0, 4.0]


def _limit() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import numpy as np, pathlib\n"
        "from rsupres.errors import ResourceError\n"
        "from rsupres.output.tensors import write_tensors\n"
        "try: write_tensors(pathlib.Path('a'), {'a': np.ones(9999)}, {})\n"
        "except ResourceError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, preexec_fn=_limit,
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout.startswith("a: the disk is full"), done.stderr
    assert list(tmp_path.iterdir()) == []
