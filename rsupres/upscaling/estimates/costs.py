"""Tables of the memory and time that models take, and the estimates made of them.

Memory hardly depends on the machine: `memory.json` beside this module holds what
`tests/benchmarks/bench_plan.py` measured. Time does: `rsupres doctor --calibrate`
measures it, and the table lies in the user's cache. Nothing is measured here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import cast

from rsupres.execution import threads_beside
from rsupres.tile_grid import machine_memory

# Factors of time: detail of 1, detail between 0 and 1, predicted errors, one thread.
DRAWN, BETWEEN, SPREAD = "detail 1", "detail 0.5", "spread"
ONE_THREAD = "one thread"
_MEMORY = Path(__file__).with_name("memory.json")
_FORMAT = 2  # of the table in the user's cache


@dataclass(frozen=True)
class Load:
    """The parts of a job that decide its cost.

    Attributes:
        model: name of its card.
        family: of the model.
        precision: arithmetic of its networks.
        weights_bytes: size of the weight file.
        tile_sr: SR pixels of one tile.
        tile_lr: LR pixels of one tile.
        n_tiles: computed in all.
        batch: tiles in one call.
        n_bands: of the model.
        scene_sr: SR pixels of the scene.
        scene_lr: LR pixels of the scene.
        strip_values: values of one strip, all bands and samples' variances.
        written_values: of the output.
        float_values: written beside the output: predicted errors, limits.
        samples: pictures drawn.
        n_conditions: pictures that the model looks at besides the scene.
        passes: runs of the networks on a tile; bands that run apart take one each.
        detail: 0 = the mean, 1 = a draw; both are computed in between.
        sharpening: network that sharpens bands of the scene, None without.
        sharpened_lr: LR pixels that it sharpens, those that are read twice counted so.
    """

    model: str
    family: str
    precision: str
    weights_bytes: int
    tile_sr: int
    tile_lr: int
    n_tiles: int
    batch: int
    n_bands: int
    scene_sr: int
    scene_lr: int
    strip_values: int
    written_values: int
    float_values: int = 0
    samples: int = 1
    n_conditions: int = 0
    passes: int = 1
    detail: float = 0.0
    sharpening: str | None = None
    sharpened_lr: int = 0


@dataclass(frozen=True)
class ModelTimes:
    """Seconds that a model takes on this machine.

    Attributes:
        load: reading weights, and its libraries.
        prepare: fixed, per LR pixel and per SR pixel of the scene, for each sample.
        tile: fixed, per LR pixel and per SR pixel of a tile, for each pass.
        factors: how much longer tiles take otherwise, by the names of `DRAWN`,
            `BETWEEN`, `SPREAD`, `ONE_THREAD` and of the precision that was not
            measured.
        largest_prepare: seconds of preparing at the most, where parts stand for a large
            scene; None = all of it is read.
    """

    load: float
    prepare: tuple[float, float, float]
    tile: tuple[float, float, float]
    factors: Mapping[str, float] = field(default_factory=dict)
    largest_prepare: float | None = None


@dataclass(frozen=True)
class MachineTimes:
    """The measurements of `rsupres doctor --calibrate`.

    Attributes:
        date: when, ISO 8601.
        threads: of torch.
        start: seconds from the command to the first tile, without loading a model.
        value: seconds per value read, finished, written and compressed.
        models: by name.
    """

    date: str
    threads: int
    start: float
    value: float
    models: Mapping[str, ModelTimes] = field(default_factory=dict)


def memory_bytes(load: Load) -> int:
    """Return the estimated peak of a process that does a job.

    The peak is that of the tiles: libraries, weights, what the networks hold for one
    batch, strips of the output on their way to the file, and the file's own overviews.
    """
    table = _memory_table()
    models = cast(Mapping[str, Mapping[str, float]], table["models"])
    pipeline = cast(Mapping[str, float], table["pipeline"])
    row = models.get(load.model) or models.get(f"family {load.family}")
    row = row or models["family unknown"]
    networks = _networks_bytes(row, load)
    # Read ahead, in use, and as tensors; three bands in float32.
    networks += 36.0 * load.n_conditions * load.batch * load.tile_sr
    strip = 4.0 * load.strip_values
    # Strips are made in pieces of a tile; of small ones, several wait.
    piece = max(4.0 * load.tile_sr * load.n_bands, pipeline["small_piece"])
    piece = min(strip, piece)
    n_pieces = pipeline["per_piece"] + pipeline["per_thread"] * (threads_beside() - 1)
    strips = n_pieces * piece + pipeline["per_strip"] * (strip - piece)
    # What a large file takes until it is whole, with its overviews.
    file = pipeline["per_written_value"] * load.written_values
    return int(pipeline["fixed"] + networks + strips + file)


def _networks_bytes(row: Mapping[str, float], load: Load) -> float:
    """Return the bytes a model holds for a batch, or while it prepares, if more.

    Args:
        row: of the table; names that begin with "half" are for half precision.
        load: the parts of the job that decide it.
    """

    def cost(name: str) -> float:
        full = row.get(name, 0.0)
        return full if load.precision == "fp32" else row.get(f"half_{name}", full)

    # Models of any bands run on each; the table is of a job with `bands` of them.
    bands = load.n_bands / row["bands"] if "bands" in row else 1.0
    batch = cost("per_sr_pixel") * load.tile_sr + cost("per_lr_pixel") * load.tile_lr
    if load.detail:
        batch += cost("drawn_per_lr_pixel") * load.tile_lr
    batch *= load.batch * bands
    preparing = cost("prepare_per_lr_pixel") * load.scene_lr
    part = min(1.0, row.get("prepare_sr_limit", math.inf) / load.scene_sr)
    # Parts of a scene that are prepared at once take a share of the machine's memory.
    share = row.get("prepare_share", 0.0) * machine_memory()
    preparing = min(preparing, max(preparing * part, share))
    weights = row.get("per_weight_byte", 0.0) * load.weights_bytes
    return cost("fixed") + weights + max(batch, preparing)


def free_memory_bytes() -> int | None:
    """Return the bytes that a process may still take, None where that is unknown."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def file_growth(model: str, *, is_guided: bool) -> float:
    """Return by how much a model's output compresses less than bicubic's.

    Args:
        model: name of its card.
        is_guided: it looks at a map or a reference.
    """
    models = cast(Mapping[str, Mapping[str, float]], _memory_table()["models"])
    row = models.get(model, {})
    growth = row.get("file_growth", 1.0)
    return row.get("guided_file_growth", growth) if is_guided else growth


def duration_s(load: Load, times: MachineTimes | None) -> float | None:
    """Return the estimated seconds of a job without its conditions.

    None where the machine or the model was not measured.

    Args:
        load: what the job computes.
        times: of this machine, None = not measured.
    """
    if times is None or load.model not in times.models:
        return None
    model = times.models[load.model]
    once = _linear(model.prepare, load.scene_lr, load.scene_sr)
    if model.largest_prepare is not None:
        once = min(once, model.largest_prepare)
    tile = _linear(model.tile, load.tile_lr, load.tile_sr) * load.n_tiles
    networks = (once + tile) * load.samples * load.passes * _factor(model, load, times)
    if load.sharpening and load.sharpening in times.models:
        network = times.models[load.sharpening]
        slower = _of_threads(network, times)
        networks += network.load + network.tile[1] * load.sharpened_lr * slower
    # Numbers of four bytes, where those of outputs have two.
    n_values = load.written_values + 2 * load.float_values
    return times.start + model.load + networks + times.value * n_values


def _factor(model: ModelTimes, load: Load, times: MachineTimes) -> float:
    """Return how much longer a job's tiles take than those that were measured."""
    factor = _of_threads(model, times) * model.factors.get(load.precision, 1.0)
    if load.detail:
        name = DRAWN if load.detail == 1 else BETWEEN
        factor *= model.factors.get(name, 1.0)
    if load.float_values and load.samples == 1:
        factor *= model.factors.get(SPREAD, 1.0)
    return factor


def _of_threads(model: ModelTimes, times: MachineTimes) -> float:
    """Return how much longer a model takes with the threads of this process.

    A part of the work is shared by all threads (Amdahl 1967); how large it is follows
    from the time with one thread.
    """
    given, n_threads = os.environ.get("OMP_NUM_THREADS", ""), times.threads
    if given.isdecimal() and int(given) and n_threads > 1:
        share = max(0.0, (n_threads / int(given) - 1) / (n_threads - 1))
        return 1 + (model.factors.get(ONE_THREAD, 1.0) - 1) * share
    return 1.0


def table_path() -> Path | None:
    """Return the file in the user's cache; None where the system knows no home."""
    cache_home = os.environ.get("XDG_CACHE_HOME")
    if not cache_home:
        home = os.path.expanduser("~")
        if home == "~":
            return None
        cache_home = os.path.join(home, ".cache")
    return Path(cache_home) / "rsupres" / "times.json"


def read_times() -> MachineTimes | None:
    """Return the times of this machine; None where none were measured."""
    path = table_path()
    try:
        stored = json.loads(path.read_text()) if path else None
        if not stored or stored.pop("format") != _FORMAT:
            return None
        models = {
            name: ModelTimes(
                row["load"],
                tuple(row["prepare"]),
                tuple(row["tile"]),
                row["factors"],
                row["largest_prepare"],
            )
            for name, row in stored.pop("models").items()
        }
        return MachineTimes(models=models, **stored)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def times_text(times: MachineTimes) -> str:
    """Return the table as `read_times` reads it."""
    return json.dumps({"format": _FORMAT, **asdict(times)}, indent=1) + "\n"


def _linear(costs: tuple[float, float, float], lr: int, sr: int) -> float:
    return costs[0] + costs[1] * lr + costs[2] * sr


@cache
def _memory_table() -> Mapping[str, object]:
    return cast(Mapping[str, object], json.loads(_MEMORY.read_text()))
