"""The pipeline without a network beside `gdal_translate -r cubic`: time, memory, disk.

Run it with ``python tests/benchmarks/bench_pipeline.py [--side N] [--rows N,N]``. It
makes its own scenes, runs both tools in turn in one go, and prints a table; wall time
and peak memory are those of the whole process, disk is the most that output, run
directory and temporary files took together. With ``--interrupt``, rsupres is stopped
and continued, in a row each. Nothing is asserted: read the table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from measuring import measure
from rasterio.transform import from_origin

SCALE = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4000, help="side of the scene")
    parser.add_argument("--height", type=int, help="of the scene; default: its side")
    parser.add_argument("--rows", default="2000,20000", help="heights to compare")
    parser.add_argument("--width", type=int, default=2000, help="width of those")
    parser.add_argument("--driver", default="COG", choices=["COG", "GTiff"])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument(
        "--interrupt",
        action="store_true",
        help="stop rsupres by SIGTERM at half of its strips, and start it again",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        out = Path(folder) / "work" / "out.tif"
        out.parent.mkdir()
        compare_tools(Path(folder) / "scene.tif", out, arguments)
        compare_heights(Path(folder) / "tall.tif", out, arguments)


def compare_tools(scene: Path, out: Path, arguments: argparse.Namespace) -> None:
    side, height = arguments.side, arguments.height or arguments.side
    make_scene(scene, height, side)
    print(
        f"scene {height} x {side} x 4 uint16, x{SCALE}, {arguments.driver}, DEFLATE 1"
    )
    print_header()
    for turn in range(arguments.repeat):
        for name, command in commands(scene, out, arguments.driver).items():
            label = f"{name} ({turn + 1})"
            if arguments.interrupt and name.startswith("rsupres"):
                show(f"{label}, stopped", command, out, is_stopped=True)
                label = f"{label}, resumed"
            show(label, command, out)


def compare_heights(scene: Path, out: Path, arguments: argparse.Namespace) -> None:
    print(f"\nscenes {arguments.width} wide x 4 uint16, x{SCALE}")
    print_header()
    for rows in (int(text) for text in arguments.rows.split(",") if text):
        make_scene(scene, rows, arguments.width)
        command = commands(scene, out, arguments.driver)["rsupres bicubic"]
        show(f"rsupres, {rows} rows", command, out)


def commands(scene: Path, out: Path, driver: str) -> dict[str, list[str]]:
    predictor = "PREDICTOR=YES" if driver == "COG" else "PREDICTOR=2"
    level = "LEVEL=1" if driver == "COG" else "ZLEVEL=1"
    more = ["OVERVIEW_RESAMPLING=AVERAGE"] if driver == "COG" else ["TILED=YES"]
    options = ["COMPRESS=DEFLATE", predictor, level, "NUM_THREADS=ALL_CPUS", *more]
    options.append("BIGTIFF=YES")  # or COG ends with an error at 4 GB of overviews
    gdal = ["gdal_translate", "-q", "-of", driver, "-r", "cubic"]
    gdal += ["-outsize", f"{SCALE * 100}%", f"{SCALE * 100}%"]
    for option in options:
        gdal += ["-co", option]
    ours = [sys.executable, "-m", "rsupres", "upscale", str(scene), str(out)]
    ours += ["--scale", str(SCALE), "--model", "bicubic", "--driver", driver, "-q"]
    return {
        "rsupres bicubic": ours,
        "gdal_translate": [*gdal, str(scene), str(out)],
    }


def show(name: str, command: list[str], out: Path, *, is_stopped: bool = False) -> None:
    """Run a command, print what it takes, and remove its output.

    Args:
        name: of the row.
        command: with its arguments.
        out: of it, alone in its folder.
        is_stopped: it gets SIGTERM when half of its strips are done, and the sizes are
            those of the run directory that it leaves.
    """
    stop = partial(stop_at_half, run_dir=out.with_name(out.name + ".run"))
    how: dict[str, Any] = {"code": 143, "meanwhile": stop} if is_stopped else {}
    found = measure(command, out.parent, **how)
    size = 0 if is_stopped else out.stat().st_size
    out.unlink(missing_ok=True)
    cells = (found.wall_s, found.cpu_s, found.memory / 2**20, size / 1e6)
    cells = (*cells, found.disk / 1e6)
    print(f"{name:<28}" + "".join(f"{cell:9.1f}" for cell in cells), flush=True)


def stop_at_half(process: subprocess.Popen[bytes], run_dir: Path) -> None:
    """Send SIGTERM when half of the strips of a run are done."""
    manifest = run_dir / "run.json"
    while process.poll() is None:
        time.sleep(0.2)
        if manifest.exists():
            n_strips = json.loads(manifest.read_text())["n_strips"]
            if len(list(run_dir.glob("strips/*"))) * 2 >= n_strips:
                process.send_signal(signal.SIGTERM)
                return


def make_scene(path: Path, height: int, width: int) -> None:
    """Write a scene with structure from fields to sensor noise, 12 bit in uint16."""
    rng = np.random.default_rng(2)
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 4,
        "dtype": "uint16",
        "crs": "EPSG:32633",
        "transform": from_origin(500000, 5000000, 10, 10),
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "DEFLATE",
        "predictor": 2,
    }
    fields = [rng.normal(0, 400, (4, 64, 64)), rng.normal(0, 200, (4, 512, 512))]
    with rasterio.open(path, "w", **profile) as dataset:
        for band, name in enumerate(("B04", "B03", "B02", "B08"), 1):
            dataset.set_band_description(band, name)
        for top in range(0, height, 512):
            rows = np.arange(top, min(top + 512, height))
            pixels = 1500 + rng.normal(0, 20, (4, len(rows), width))
            for field, side in zip(fields, (40, 6), strict=True):
                n = field.shape[1]
                cols = np.arange(width) // side % n
                pixels += field[:, (rows // side % n)[:, None], cols]
            window = rasterio.windows.Window(0, top, width, len(rows))
            dataset.write(np.clip(pixels, 1, 4095).astype(np.uint16), window=window)


def print_header() -> None:
    print(
        f"{'':<28}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}{'file MB':>9}{'disk MB':>9}"
    )


if __name__ == "__main__":
    # The children's peak is measured, not this process' own.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
