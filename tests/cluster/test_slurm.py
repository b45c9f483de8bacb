"""The scripts of examples/ run as Slurm runs them: processes, signals, restarts.

`sbatch` is replaced by a script that starts every task of the array at once.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import make_scene

ROOT = Path(__file__).parents[2]
OPTIONS = ("--scale", "2", "--model", "bicubic", "--tile-size", "24", "-q")
PAGE = (ROOT / "docs/how-to/cluster.md").read_text(encoding="utf-8")
SBATCH = """#!/bin/bash
# sbatch --array=1-N SCRIPT ARGUMENT...: the last task starts first.
count=${1#--array=1-} script=$2
shift 2
export SLURM_ARRAY_TASK_COUNT=$count
SLURM_CPUS_PER_TASK=$(sed -n 's/^#SBATCH --cpus-per-task=//p' "$script")
export SLURM_CPUS_PER_TASK
pids=()
for ((id = count; id > 0; id--)); do
    SLURM_ARRAY_TASK_ID=$id bash "$script" "$@" 2>"task-$id.err" &
    pids+=($!)
done
code=0
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
exit $code
"""
RSUPRES = """#!/bin/sh
exec "{python}" "{code}" "$@"
"""
CODE = """import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.forkserver import hold_model
hold_model(1, Path("hold"))
from rsupres.cli import main
main(prog_name="rsupres")
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared folder with two scenes, where `sbatch` and `rsupres` are found."""
    tools = tmp_path / "bin"
    tools.mkdir()
    texts = {
        "sbatch": SBATCH,
        "rsupres": RSUPRES.format(python=sys.executable, code=tools / "code.py"),
        "code.py": CODE.format(root=str(ROOT)),
    }
    for name, text in texts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = rng.integers(1, 4000, (3, 70, 40)).astype(np.uint16)
        make_scene(tmp_path / f"{name}.tif", pixels=pixels, nodata=0)
    (tmp_path / "scenes.txt").write_text("a.tif\nb.tif\n")
    return tmp_path


def sbatch(script: str, n_tasks: int, *words: str) -> int:
    command = ["sbatch", f"--array=1-{n_tasks}", str(ROOT / "examples" / script)]
    return subprocess.run([*command, *words], check=False, timeout=300).returncode


@pytest.mark.slow
def test_an_array_makes_the_bytes_of_one_process(cluster, commands):
    for _ in range(2):  # an array that is submitted again finds its output
        assert sbatch("slurm_scene.sh", 3, "a.tif", "a2.tif", *OPTIONS) == 0
    assert (
        commands.run("upscale", "a.tif", "one.tif", *OPTIONS, folder=cluster).code == 0
    )
    assert Path("a2.tif").read_bytes() == Path("one.tif").read_bytes()
    assert not Path("a2.tif.run").exists()


@pytest.mark.slow
def test_an_array_shares_the_scenes_of_a_list(cluster, commands):
    assert sbatch("slurm_batch.sh", 2, "scenes.txt", "sharp", *OPTIONS) == 0
    for name in ("a.tif", "b.tif"):
        done = commands.run("upscale", name, "one.tif", *OPTIONS, folder=cluster)
        assert done.code == 0
        assert (cluster / "sharp" / name).read_bytes() == Path("one.tif").read_bytes()
        os.remove("one.tif")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGUSR1, 138), (signal.SIGTERM, 143)]
)
def test_a_task_that_is_preempted_ends_clean_and_is_finished(
    cluster, commands, number, code
):
    words = ["a.tif", "a2.tif", *OPTIONS]
    environment = {
        **os.environ,
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_ARRAY_TASK_COUNT": "1",
        "SLURM_CPUS_PER_TASK": "1",
    }
    Path("hold").touch()  # the model waits after a batch
    with subprocess.Popen(
        ["bash", str(ROOT / "examples/slurm_scene.sh"), *words],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as task:
        end = time.monotonic() + 200
        while not list(Path("a2.tif.run/strips").glob("*")):
            assert time.monotonic() < end
            time.sleep(0.02)
        task.send_signal(number)  # the script became the command
        _, text = task.communicate()
    Path("hold").unlink()
    assert task.returncode == code, text
    assert f"Stopped by {number.name}" in text
    assert sbatch("slurm_scene.sh", 1, *words) == 0
    assert (
        commands.run("upscale", "a.tif", "one.tif", *OPTIONS, folder=cluster).code == 0
    )
    assert Path("a2.tif").read_bytes() == Path("one.tif").read_bytes()


@pytest.mark.parametrize("script", ["slurm_scene.sh", "slurm_batch.sh"])
def test_the_page_shows_the_scripts(script: str) -> None:
    text = (ROOT / "examples" / script).read_text(encoding="utf-8")
    assert f'```bash title="{script}"\n{text}```' in PAGE
    assert re.search(r"^#SBATCH --array=1-\d+$", text, flags=re.MULTILINE)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", ROOT / "examples" / script], check=True)
