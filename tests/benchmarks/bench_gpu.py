"""What a GPU gains, and what the host must do meanwhile.

Run it with ``python tests/benchmarks/bench_gpu.py [--rows N] [--threads 1,2]``; with a
GPU it takes some minutes. It prints three tables, and asserts nothing:

1. The host alone: a granule-wide strip through the whole pipeline with a model that
   returns a finished texture at once, by the number of threads with which GDAL
   compresses. What is left is reading, blending, finishing, compression and the COG.
   Then the processor time of each step, and the speed that these would allow with
   more cores: no step is faster than the threads that share it.
2. With a GPU: tiles a second of the model by batch size, as it is and replayed as a
   CUDA graph; bytes a second to the host, into pinned and into pageable memory; and the
   time of a product with a transfer, one after the other and overlapped.
3. With a GPU: the same strip with the real model.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from rsupres.cli.process import tune

tune()  # as the command line does, before torch is loaded

import numpy as np  # noqa: E402
import rasterio  # noqa: E402
import torch  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402
from torch import Tensor  # noqa: E402

from rsupres.blend import Mosaic  # noqa: E402
from rsupres.diffusion.noise import NoiseField  # noqa: E402
from rsupres.execution import threads_beside  # noqa: E402
from rsupres.families.base import Conditions, SceneContext, TileBatch  # noqa: E402
from rsupres.families.optical.resolver import Optical  # noqa: E402
from rsupres.grid import PixelWindow  # noqa: E402
from rsupres.output.tiff.packets import Packets  # noqa: E402
from rsupres.output.tiff.strip import PacketWriter  # noqa: E402
from rsupres.upscaling import inference, pipeline  # noqa: E402
from rsupres.upscaling.array import load_model  # noqa: E402
from rsupres.upscaling.finishing import Finisher  # noqa: E402
from rsupres.upscaling.inference import TileRunner  # noqa: E402
from rsupres.upscaling.job import UpscaleJob  # noqa: E402
from rsupres.upscaling.outputs import StripSaver  # noqa: E402

_SCALE = Fraction(4)
_MODEL = "optical-small"
# The functions in which each step happens.
_STEPS: tuple[tuple[str, object, str], ...] = (
    ("reading", inference, "rows_around"),
    ("model and mosaic", TileRunner, "_upscale"),
    ("model and mosaic", Mosaic, "add"),
    ("finishing", Finisher, "push"),
    ("storing", StripSaver, "take"),
    ("packets", PacketWriter, "write"),
    ("packing", Packets, "pack"),
    ("end, in one thread", Packets, "write_output"),
    ("end", pipeline, "write_finished"),
)
_SIDE = 256  # LR pixels of the tiles that are timed alone


class Spent(NamedTuple):
    wall_s: float
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=10_980)
    parser.add_argument("--rows", type=int, default=500, help="LR rows of the strip")
    parser.add_argument("--threads", default="1,2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        scene = make_scene(folder / "scene.tif", arguments.rows, arguments.width)
        mpx = arguments.rows * arguments.width * float(_SCALE) ** 2 / 1e6
        print(f"{arguments.rows} x {arguments.width} x 3 uint16, x4, {mpx:.0f} SR Mpx")
        for threads in arguments.threads.split(","):
            with finished_at_once(), watched_steps() as steps:
                spent = run(scene, folder, "cpu", threads)
            show(f"host alone, {threads} threads of GDAL", spent, mpx)
        show_steps(steps, spent, mpx)
        if torch.cuda.is_available():
            time_batches()
            time_transfers()
            show(torch.cuda.get_device_name(), run(scene, folder, "cuda"), mpx)
        else:
            print("no GPU is here: the device was not measured")


def show(name: str, spent: Spent, mpx: float) -> None:
    print(
        f"{name:<36}{spent.wall_s:8.2f} s{spent.cpu_s:8.2f} CPU s"
        f"{mpx / spent.wall_s:8.1f} SR Mpx/s{1e3 * spent.cpu_s / mpx:8.1f} CPU ms/Mpx",
        flush=True,
    )


@contextmanager
def watched_steps() -> Iterator[dict[str, float]]:
    """Sum up the CPU seconds of the threads that each step of the host runs in."""
    spent = {step: 0.0 for step, *_ in _STEPS}
    lock = threading.Lock()

    def timed(real: Callable[..., Any], clock: Callable[[], float], step: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            before = clock()
            try:
                return real(*given, **named)
            finally:
                with lock:
                    spent[step] += clock() - before

        return call

    with ExitStack() as stack:
        for step, owner, name in _STEPS:
            clock = time.process_time if step == "end" else time.thread_time
            work = timed(getattr(owner, name), clock, step)
            stack.enter_context(mock.patch.object(owner, name, work))
        yield spent


def show_steps(steps: Mapping[str, float], spent: Spent, mpx: float) -> None:
    """Print the cost of steps, and the speed that they allow with some cores."""
    cost = {step: 1e3 * seconds / mpx for step, seconds in steps.items()}
    print("CPU ms/Mpx: " + ", ".join(f"{step} {ms:.1f}" for step, ms in cost.items()))
    for cores in (2, 4, 8, 16):
        with mock.patch.dict(os.environ, GDAL_NUM_THREADS=str(cores)):
            shared = threads_beside()
        slowest = max(
            (1e3 * spent.cpu_s / mpx - cost["end"]) / cores,
            cost["reading"],
            cost["model and mosaic"],
            cost["packing"],
            cost["storing"],
            max(cost["finishing"], cost["packets"]) / shared,
        )
        at_end = max(cost["end"] / cores, cost["end, in one thread"])
        print(f"{cores:3} cores: at most {1e3 / (slowest + at_end):.0f} SR Mpx/s")


def finished_at_once() -> AbstractContextManager[object]:
    """Let the model return a texture at once, as an endlessly fast device would."""
    texture = torch.from_numpy(NoiseField(0).draw(0, PixelWindow(0, 0, 512, 512), 1))
    kept: dict[tuple[int, ...], Tensor] = {}

    def upscale(model: Optical, batch: TileBatch, scale: Fraction) -> Tensor:
        b, c, h, w = batch.lr.shape
        shape = (b, c, int(h * scale), int(w * scale))
        if shape not in kept:
            smooth = torch.nn.functional.interpolate(
                texture[None], shape[2:], mode="bicubic"
            )
            kept[shape] = (0.4 + 0.05 * smooth).expand(shape).contiguous()
        return kept[shape].clone()  # the mosaic changes it

    return mock.patch.multiple(
        Optical, upscale=upscale, prepare=lambda *given: SceneContext()
    )


def run(scene: Path, folder: Path, device: str, threads: str = "ALL_CPUS") -> Spent:
    """Upscale a scene and remove the output; loading of torch is not counted."""
    job = UpscaleJob(
        scenes=(str(scene),),
        output=folder / "out.tif",
        scale=_SCALE,
        model=_MODEL,
        device=device,
        creation=(("NUM_THREADS", threads),),
    )
    spent = timed(lambda: pipeline.upscale_scene(job))
    job.output.unlink()
    return spent


def timed(work: Callable[[], object]) -> Spent:
    before, began = os.times(), time.perf_counter()
    work()
    after = os.times()
    cpu_s = after.user + after.system - before.user - before.system
    return Spent(time.perf_counter() - began, cpu_s)


def time_batches() -> None:
    """Print tiles a second by batch size, as they come and as a CUDA graph."""
    model = load_model(_MODEL, "cuda")
    network = model.resolver
    assert isinstance(network, Optical)
    print(f"\ntiles of {_SIDE} a second: batch, plain, CUDA graph")
    for size in (1, 4, 16):
        batch = make_batch(size)
        batch = replace(batch, scene=network.prepare(_Flat(), _SCALE, batch.noise))

        def call(batch: TileBatch = batch) -> Tensor:
            return network.upscale(batch, _SCALE)

        with torch.inference_mode():
            plain = rate(call) * size
            try:
                graphed = rate(as_graph(call)) * size
            except RuntimeError as error:  # such as a copy from the host inside
                print(f"{size:6}{plain:10.1f}  no graph: {str(error).splitlines()[0]}")
                continue
        print(f"{size:6}{plain:10.1f}{graphed:10.1f}", flush=True)


def as_graph(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record a call on fixed tensors as a CUDA graph, which replays it."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def time_transfers() -> None:
    """Print what a batch's transfers cost alone, after the work, and beside it."""
    shape = (16, 3, 4 * _SIDE, 4 * _SIDE)
    there = torch.rand(shape, device="cuda")
    n_bytes = there.numel() * 4
    print("\nresults to the host, GB/s")
    for name, pinned in (("pageable", False), ("pinned", True)):
        here = torch.empty(shape, pin_memory=pinned)
        speed = rate(lambda here=here: here.copy_(there, non_blocking=True))
        print(f"{name:<12}{n_bytes * speed / 1e9:8.1f}", flush=True)
    a = torch.rand(8192, 8192, device="cuda", dtype=torch.bfloat16)
    here, side = torch.empty(shape, pin_memory=True), torch.cuda.Stream()

    def after() -> None:
        _ = a @ a
        here.copy_(there, non_blocking=True)

    def beside() -> None:
        with torch.cuda.stream(side):
            here.copy_(there, non_blocking=True)
        _ = a @ a
        torch.cuda.current_stream().wait_stream(side)

    for name, work in (("one after the other", after), ("overlapped", beside)):
        print(f"product and transfer, {name}: {1e3 / rate(work):.2f} ms", flush=True)


def rate(work: Callable[[], object], seconds: float = 2.0) -> float:
    """Return calls a second, the device's work included."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    n_calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
        n_calls += 1
        torch.cuda.synchronize()
    return n_calls / (time.perf_counter() - began)


def make_batch(size: int) -> TileBatch:
    """Return a batch of tiles of noise on the GPU, without its scene."""
    window = PixelWindow(0, 0, _SIDE, _SIDE)
    lr = torch.rand(size, 3, _SIDE, _SIDE, device="cuda")
    return TileBatch(
        lr=lr,
        valid=torch.ones_like(lr[:, :1], dtype=torch.bool),
        conditions=Conditions(),
        noise=NoiseField(0),
        windows_lr=[window] * size,
        windows_sr=[window.scaled(_SCALE)] * size,
        scene=SceneContext(),
    )


class _Flat:
    """A scene of noise, as large as a tile, for `prepare`."""

    height = width = _SIDE
    style = None

    def read(self, window: PixelWindow) -> tuple[np.ndarray, np.ndarray]:
        field = NoiseField(0).draw(0, window, 3)
        unit = np.clip(0.5 + 0.1 * field, 0, 1).astype(np.float32)
        return unit, np.ones((1, window.height, window.width), bool)

    def read_conditions(self, window_sr: PixelWindow) -> Conditions:
        return Conditions()

    def allocate(self, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.zeros(shape, dtype)


def make_scene(path: Path, rows: int, width: int) -> Path:
    """Write a scene of fields and noise, 12 bit in uint16, in blocks of 512."""
    rng = np.random.default_rng(2)
    fields = rng.normal(0, 400, (3, 64, 64))
    down, across = np.arange(rows)[:, None] // 40 % 64, np.arange(width) // 40 % 64
    pixels = 1500 + fields[:, down, across] + rng.normal(0, 20, (3, rows, width))
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=rows,
        width=width,
        count=3,
        dtype="uint16",
        crs="EPSG:32633",
        transform=from_origin(500000, 5000000, 10, 10),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        compress="DEFLATE",
    ) as scene:
        scene.write(np.clip(pixels, 1, 4095).astype(np.uint16))
        scene.descriptions = ("B04", "B03", "B02")
    return path


if __name__ == "__main__":
    main()
