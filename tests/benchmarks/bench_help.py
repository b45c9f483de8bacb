"""CPU seconds of `rsupres --help` and of small jobs, beside a Python that does nothing.

``python tests/benchmarks/bench_help.py [TIMES]`` starts each command TIMES times (7)
and prints the least CPU seconds (user and system, all threads) and wall seconds. CPU
seconds stay nearly the same on a machine that others share. Nothing is asserted.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

_RSUPRES = [sys.executable, "-m", "rsupres"]


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        _write(scene, 48)
        made = [str(scene), str(Path(folder) / "sr.tif")]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import torch": [sys.executable, "-c", "import torch"],
            "rsupres --help": [*_RSUPRES, "--help"],
            "rsupres upscale --help": [*_RSUPRES, "upscale", "--help"],
            "rsupres plan, 48 px": [*_RSUPRES, "plan", *made],
            "rsupres upscale, 48 px": [*_RSUPRES, "upscale", *made, "--overwrite"],
        }
        for name, command in commands.items():
            cpu, wall = zip(*(_timed(command) for _ in range(times)), strict=True)
            print(
                f"{name:24} {min(cpu):6.3f} CPU s, {min(wall):6.3f} s, best of {times}",
                flush=True,
            )


def _timed(command: list[str]) -> tuple[float, float]:
    """Return CPU and wall seconds of one run."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        wall,
    )


def _write(path: Path, side: int) -> None:
    pixels = np.random.default_rng(0).integers(20, 200, (3, side, side), dtype=np.uint8)
    profile = {
        "driver": "GTiff",
        "width": side,
        "height": side,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32631",
        "transform": from_origin(5e5, 5e6, 10, 10),
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)


if __name__ == "__main__":
    main()
