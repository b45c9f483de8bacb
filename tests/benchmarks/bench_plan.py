"""What `rsupres plan` says beside what `rsupres upscale` takes: memory, disk, time.

Run it with ``python tests/benchmarks/bench_plan.py [--only NAME,NAME]``. Each job runs
in a process of its own with one thread: peak memory is the kernel's (maximum resident
set), peak disk is that of the job's folder, looked at every 20 ms, and time is CPU
time, which other work on the machine changes little. Nothing is asserted: read the
table. ``--clock wall`` compares wall times, for a machine that does nothing else.
``--disk`` holds every removal of a file back, with strace, so that no peak of the disk
is shorter than a look; times then mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench_pipeline import make_scene
from measuring import measure

ROOT = Path(__file__).parents[2]
_REMOVALS = "unlink,unlinkat,rename,renameat,renameat2"
_HELD_BACK = f"inject={_REMOVALS}:delay_enter=100000"  # microseconds


class Job(NamedTuple):
    """One job: the scene's height and width, and the options of `upscale`."""

    height: int
    width: int
    options: str


JOBS = {
    "bicubic 96": Job(96, 96, "--model bicubic"),
    "bicubic 512": Job(512, 512, "--model bicubic"),
    "bicubic strip": Job(200, 6000, "--model bicubic"),
    "bicubic 1500": Job(1500, 1500, "--model bicubic"),
    "optical 96": Job(96, 96, "--model optical-small"),
    "optical 256": Job(256, 256, "--model optical-small"),
    "optical batch 2": Job(
        256, 256, "--model optical-small --tile-size 128 --batch-size 2"
    ),
    "optical bf16": Job(256, 256, "--model optical-small --precision bf16"),
    "e2diffsr 96": Job(96, 96, "--model e2diffsr-small"),
    "e2diffsr 256": Job(256, 256, "--model e2diffsr-small"),
    "e2diffsr batch 4": Job(
        256, 256, "--model e2diffsr-small --tile-size 96 --batch-size 4"
    ),
    "e2diffsr bf16": Job(256, 256, "--model e2diffsr-small --precision bf16"),
    "e2diffsr x2": Job(256, 256, "--model e2diffsr-small --scale 2"),
    "slimdiffsr 256": Job(256, 256, "--model slimdiffsr-mini"),
    "slimdiffsr bf16": Job(256, 256, "--model slimdiffsr-mini --precision bf16"),
    "slimdiffsr tile 96": Job(256, 256, "--model slimdiffsr-mini --tile-size 96"),
    "sgdm 64": Job(64, 64, "--model sgdm-mini"),
    "sgdm 128": Job(128, 128, "--model sgdm-mini"),
    "refdiff 64": Job(64, 64, "--model refdiff-mini"),
    "refdiff 128": Job(128, 128, "--model refdiff-mini"),
    "refdiff reference": Job(0, 0, "--model refdiff-mini --reference TOWN"),
}
# Jobs that `memory.json` was not fitted to; `--only other` runs them.
OTHERS = {
    "sample scene": Job(0, 0, ""),
    "bicubic 2000 GTiff": Job(2000, 2000, "--model bicubic --driver GTiff"),
    "bicubic 700 x5/2": Job(700, 1300, "--model bicubic --scale 2.5"),
    "optical 300": Job(300, 420, "--model optical-small"),
    "optical x2 detail": Job(200, 330, "--scale 2 --detail 1"),
    "optical deviation": Job(160, 160, "--uncertainty UNCERTAIN"),
    "e2diffsr x3": Job(150, 350, "--model e2diffsr-small --scale 3"),
    "slimdiffsr 400": Job(400, 180, "--model slimdiffsr-mini"),
    "sgdm map": Job(0, 0, "--model sgdm-mini --scale 8 --vector-map MAP"),
    "sgdm x16": Job(48, 80, "--model sgdm-mini --scale 16"),
    "refdiff tile 64": Job(
        0, 0, "--model refdiff-mini --reference TOWN --tile-size 64"
    ),
    "refdiff 96": Job(96, 200, "--model refdiff-mini"),
    "refdiff fp32": Job(64, 100, "--model refdiff-mini --precision fp32"),
    "sgdm fp32": Job(64, 100, "--model sgdm-mini --precision fp32"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of jobs, by commas")
    parser.add_argument("--clock", default="cpu", choices=["cpu", "wall"])
    parser.add_argument("--threads", default="1", help="threads of torch")
    parser.add_argument("--disk", action="store_true", help="see every peak of it")
    parser.add_argument("--log", type=Path, help="append each row here, as JSON")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = arguments.threads
    names = [name.strip() for name in arguments.only.split(",") if name.strip()]
    print(
        f"| {'job':<20} | memory MB | plan | ratio | disk MB | plan | ratio "
        "| output MB | plan | time s | plan | ratio |"
    )
    print("|---|" + "---:|" * 11)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        for name in OTHERS if names == ["other"] else names or JOBS:
            job = {**JOBS, **OTHERS}[name]
            row = compare(Path(folder), job, arguments.clock, arguments.disk)
            print_row(name, row)
            if arguments.log:
                with arguments.log.open("a") as log:
                    log.write(json.dumps({"job": name, **row}) + "\n")


def compare(folder: Path, job: Job, clock: str, is_held: bool) -> dict[str, float]:
    """Plan a job, run it, perhaps with removals held back, and return both."""
    town = ROOT / "sample_data"
    scene = folder / f"scene_{job.height}_{job.width}.tif"
    if not job.height:
        scene = town / "town_s2.tif"
    elif not scene.exists():
        make_scene(scene, job.height, job.width)
    work = folder / "work"
    work.mkdir()
    output = work / "out.tif"
    words = job.options.replace("OUT", str(output)).split()
    files = {
        "TOWN": town / "town_reference.tif",
        "MAP": town / "town.osm",
        "UNCERTAIN": work / "deviation.tif",
    }
    words = [str(files.get(word, word)) for word in words]
    planned = plan(scene, output, words, clock)
    line = command("upscale", scene, output, words)
    if is_held:
        line = ["strace", "-f", "-qq", "-e", _HELD_BACK, "-o", "/dev/null", *line]
    measured = measure([*line, "-q"], work)
    size = output.stat().st_size
    shutil.rmtree(work)
    time_s = measured.cpu_s if clock == "cpu" else measured.wall_s
    return {
        "memory": measured.memory,
        "memory_plan": planned["memory_bytes"] or 0,
        "disk": measured.disk,
        "disk_plan": planned["disk_bytes"] or 0,
        "output": size,
        "output_plan": planned["output_bytes"] or 0,
        "time": time_s,
        "time_plan": planned["duration_s"] or 0,
    }


def command(verb: str, scene: Path, output: Path, words: Sequence[str]) -> list[str]:
    start = [sys.executable, "-m", "rsupres", verb, str(scene), str(output)]
    return [*start, *words]


# Plans have some seconds of wall time, which a machine that does other work may exceed;
# they time how conditions are read by the same clock as the job.
_UNLIMITED = (
    "import time; time.perf_counter = time.{}; "
    "from rsupres.upscaling.estimates import planning; planning.LIMIT_S = 600; "
    "from rsupres.cli import main; main()"
)


def plan(
    scene: Path, output: Path, words: Sequence[str], clock: str
) -> dict[str, float]:
    arguments = command("plan", scene, output, words)[3:]
    code = _UNLIMITED.format("process_time" if clock == "cpu" else "perf_counter")
    line = [sys.executable, "-c", code, *arguments, "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_row(name: str, row: dict[str, float]) -> None:
    cells = [f"{name:<20}"]
    for kind, unit in (("memory", 1e6), ("disk", 1e6)):
        true, said = row[kind] / unit, row[f"{kind}_plan"] / unit
        cells += [f"{true:.4g}", f"{said:.4g}", f"{said / true:.2f}"]
    cells += [f"{row['output'] / 1e6:.3g}", f"{row['output_plan'] / 1e6:.3g}"]
    true, said = row["time"], row["time_plan"]
    cells += [f"{true:.3g}", f"{said:.3g}", f"{said / true:.2f}"]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
