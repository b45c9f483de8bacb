"""A model on a scene: speed, the share that is not the network, and the floor.

Run it with ``python tests/benchmarks/bench_model.py [--model NAME] [--side N]``. It
upscales a crop of the sample scene tiled to N x N pixels through the whole pipeline, in
each precision, with the time inside the model measured beside the whole, and sets both
against the time that the counted operations would take at the machine's measured matrix
rate. Nothing is asserted: read the table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

from rsupres.cli.process import tune

tune()  # as the command line does, before torch is loaded

import numpy as np  # noqa: E402
import rasterio  # noqa: E402
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from rsupres.families.base import (  # noqa: E402
    SceneContext,
    SuperResolver,
    TileBatch,
)
from rsupres.upscaling.job import UpscaleJob  # noqa: E402
from rsupres.upscaling.pipeline import upscale_scene  # noqa: E402
from rsupres.upscaling.preparation import work as decisions  # noqa: E402

_TOWN = Path(__file__).resolve().parents[2] / "sample_data" / "town_s2.tif"
_SCALE = Fraction(4)


@dataclass
class Timed:
    """A model that adds up the time spent in it."""

    model: SuperResolver
    seconds: float = 0.0
    calls: list[str] = field(default_factory=list)

    @property
    def spec(self) -> object:
        return self.model.spec

    def prepare(self, *arguments: object) -> SceneContext:
        return self._run("prepare", lambda: self.model.prepare(*arguments))

    def upscale(self, batch: TileBatch, scale: Fraction) -> torch.Tensor:
        return self._run("upscale", lambda: self.model.upscale(batch, scale))

    def _run(self, name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds += time.perf_counter() - began
            self.calls.append(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="optical-small")
    parser.add_argument("--side", type=int, default=480)
    parser.add_argument("--tile-size", type=int)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(
        f"{arguments.model}, scene {arguments.side} x {arguments.side} x 3 uint16,"
        f" x{_SCALE}, {torch.get_num_threads()} threads"
    )
    print("precision  whole s  model s  rest %  SR Mpx/s  GFLOP/Mpx  floor s")
    with tempfile.TemporaryDirectory() as folder:
        scene = make_scene(Path(folder) / "scene.tif", arguments.side)
        for precision in ("fp32", "bf16"):
            row(scene, Path(folder), precision, arguments)


def row(
    scene: Path, folder: Path, precision: str, arguments: argparse.Namespace
) -> None:
    """Upscale twice, the second time counting operations; print one line."""
    whole, inside = upscale(scene, folder, precision, arguments)
    with FlopCounterMode(display=False) as counter:
        upscale(scene, folder, precision, arguments)
    mpx = (arguments.side * float(_SCALE)) ** 2 / 1e6
    flop = counter.get_total_flops()
    floor = flop / matrix_rate(precision)
    print(
        f"{precision:9}  {whole:7.2f}  {inside:7.2f}  {100 * (1 - inside / whole):6.1f}"
        f"  {mpx / whole:8.3f}  {flop / mpx / 1e9:9.0f}  {floor:7.2f}",
        flush=True,
    )


def upscale(
    scene: Path, folder: Path, precision: str, arguments: argparse.Namespace
) -> tuple[float, float]:
    """Return seconds of the whole run and inside the model; loading not counted."""
    job = UpscaleJob(
        scenes=(str(scene),),
        output=folder / "out.tif",
        scale=_SCALE,
        model=arguments.model,
        tile_size=arguments.tile_size,
        precision=precision,
        overwrite=True,
    )
    timed: list[Timed] = []
    loading = 0.0
    load = decisions.load_model

    def load_timed(*inputs: object) -> object:
        nonlocal loading
        began = time.perf_counter()
        timed.append(Timed(load(*inputs)))  # type: ignore[arg-type]
        loading += time.perf_counter() - began
        return timed[-1]

    with mock.patch.object(decisions, "load_model", load_timed):
        began = time.perf_counter()
        upscale_scene(job)
        whole = time.perf_counter() - began - loading
    return whole, sum(t.seconds for t in timed)


def matrix_rate(precision: str) -> float:
    """Return FLOP/s of a large matrix product in this precision, the best of five."""
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    a = torch.randn(1024, 1024, dtype=kind)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * 1024**3 / best


def make_scene(path: Path, side: int) -> Path:
    """Tile the sample town's red, green and blue to a scene without nodata."""
    with rasterio.open(_TOWN) as town:
        pixels = town.read([1, 2, 3])[:, 24:, :72]
        profile = {**town.profile, "count": 3, "height": side, "width": side}
    repeats = -(-side // 72)
    tiled = np.tile(pixels, (1, repeats, repeats))[:, :side, :side]
    with rasterio.open(path, "w", **profile) as scene:
        scene.write(np.maximum(tiled, 1))
        scene.descriptions = ("B04", "B03", "B02")
    return path


if __name__ == "__main__":
    main()
