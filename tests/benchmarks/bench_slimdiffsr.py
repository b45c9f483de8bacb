"""The full student, 128 to 512: what each way of running it gains and costs.

Run it with ``python tests/benchmarks/bench_slimdiffsr.py [PICTURE] [--weights FILE]
[--side N] [--threads N] [--batches 1 2 4] [--rounds N]``. Without weights (those of a
training state) they are name-seeded, so anyone can repeat it; without a picture (8-bit
RGB, reduced four times by area means) the input is smooth noise. Starting from the
network as the paper draws it (branches one by one, attention through the inner width,
channels first, float32, all tensors), one thing is changed after the other. All
variants run in turn, `--rounds` times over; those with freed memory kept afterwards, as
this cannot be undone, and the first one again. For each: the least wall and CPU
seconds, the gain over the first of all, and how far the final picture (colours matched,
in 8-bit levels) is from the first: mean, 99.9 % and largest. Then, each in a process of
its own, batches with seconds a tile and peak memory; and, with a GPU, eager, CUDA
graphs and torch.compile against the count of operations. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import MethodType

from rsupres.cli.process import keep_freed_memory, wait_quietly

wait_quietly()  # before torch is loaded

import numpy as np  # noqa: E402
import rasterio  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from rsupres.families.slimdiffsr.blocks import (  # noqa: E402
    DirectionSeparable,
    FrequencySeparable,
    QueryAggregation,
)
from rsupres.families.slimdiffsr.config import SlimDiffSRConfig  # noqa: E402
from rsupres.families.slimdiffsr.half import halve  # noqa: E402
from rsupres.families.slimdiffsr.network import (  # noqa: E402
    DEAD,
    DoublingConv,
    SlimDiffSRNetwork,
    enlarge,
)
from rsupres.families.slimdiffsr.released import match_colours  # noqa: E402
from tests.parity.golden import name_seeded_tensor  # noqa: E402

Run = Callable[[], Tensor]
FIRST = "as drawn, channels first, fp32"
_FUSED = (FrequencySeparable, DirectionSeparable, QueryAggregation)


def build(weights: Path | None) -> SlimDiffSRNetwork:
    """Return the student, dead tensors included; what no file holds is name-seeded."""
    network = SlimDiffSRNetwork(SlimDiffSRConfig(4), dead=True)
    for name, parameter in network.named_parameters():
        parameter.data = torch.from_numpy(name_seeded_tensor(name, parameter.shape))
    if weights is not None:
        trained = load_file(weights)
        averages = {k: v for k, v in trained.items() if k.startswith("ema.")}
        named = {k.removeprefix("ema."): v for k, v in (averages or trained).items()}
        extra = network.load_state_dict(named, strict=False).unexpected_keys
        assert not extra, extra[:3]
    return network.eval().requires_grad_(False)


def separate(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> nn.Module:
    """Make some kinds of modules run step by step, as the paper draws them."""
    for module in network.modules():
        if isinstance(module, kinds):
            module.forward = MethodType(_STEPS[type(module)], module)
    return network


def _fsc(self: FrequencySeparable, x: Tensor, shared: object = None) -> Tensor:
    low = self.low_branch(x)
    high = self.high_branch(x - low)
    gates = self.mlp(x.mean((2, 3))).sigmoid()[:, :, None, None, None]
    return self.bottleneck(gates[:, 0] * low + gates[:, 1] * high)


def _dsc(self: DirectionSeparable, x: Tensor, shared: object = None) -> Tensor:
    h, v = self.h_conv(x), self.v_conv(x)
    gates = self.mlp(x.mean((2, 3))).sigmoid()[:, :, None, None, None]
    mixed = gates[:, 0] * h + gates[:, 1] * self.v_conv(h) + gates[:, 2] * v
    return self.conv_expand(self.conv_reduce(mixed))


def _qgam(self: QueryAggregation, x: Tensor, shared: object = None) -> Tensor:
    gathered = (self.q_proj(self.query) @ self.k_proj(x).mT * self.scale).softmax(-1)
    context = gathered @ self.v_proj(x)
    read = (self.q_proj_c(x) @ self.k_proj_c(context).mT * self.scale).softmax(-1)
    return self.out_proj(read @ self.v_proj_c(context))


def _double(self: DoublingConv, x: Tensor) -> Tensor:
    return nn.Conv2d.forward(self, functional.interpolate(x, scale_factor=2.0))


_STEPS: dict[type[nn.Module], Callable[..., Tensor]] = {
    FrequencySeparable: _fsc,
    DirectionSeparable: _dsc,
    QueryAggregation: _qgam,
    DoublingConv: _double,
}


def live(network: nn.Module) -> SlimDiffSRNetwork:
    """Return a copy without the tensors that nothing reads, channels last."""
    copied = SlimDiffSRNetwork(SlimDiffSRConfig(4)).eval().requires_grad_(False)
    tensors = network.state_dict()
    copied.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(DEAD)})
    copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copied


def shared(network: nn.Module) -> SlimDiffSRNetwork:
    """Return a network of the same tensors."""
    other = SlimDiffSRNetwork(SlimDiffSRConfig(4), dead=True)
    other.load_state_dict(network.state_dict(), assign=True)
    return other.eval().requires_grad_(False)


def variants(x: Tensor, weights: Path | None) -> dict[str, Run]:
    """Return the ways of running; each keeps what the one before changed."""
    network = build(weights)
    last = x.contiguous(memory_format=torch.channels_last)
    first = x.contiguous()

    def run(made: nn.Module, given: Tensor) -> Run:
        return lambda: made(given)[1]

    drawn = separate(shared(network), (*_FUSED, DoublingConv))
    fused = separate(shared(network), (DoublingConv,))
    return {
        FIRST: run(drawn, first),
        "+ fused depthwise and aggregation": run(fused, first),
        "+ doubling within its filter": run(network, first),
        "+ channels last, dead tensors dropped": run(live(network), last),
        "+ trunk in bf16": run(halve(live(network)), last),
        "all in bf16, plain": run(live(network).bfloat16(), last.bfloat16()),
    }


def read(picture: Path | None, side: int) -> Tensor:
    """Return the network's input, (1, 3, 4 side, 4 side)."""
    if picture is None:
        torch.manual_seed(0)
        small = torch.rand(1, 3, side // 4, side // 4)
        lr = functional.interpolate(small, scale_factor=4.0, mode="bicubic")
        return enlarge(2.0 * lr.clamp(0, 1) - 1.0, 4)
    with rasterio.open(picture) as source:
        pixels = source.read([1, 2, 3]).astype(np.float32) / 255.0
    reduced = functional.avg_pool2d(torch.from_numpy(pixels)[None], 4)
    while min(reduced.shape[2:]) < side:  # mirrored until it is large enough
        reduced = torch.cat([reduced, reduced.flip(3)], 3)
        reduced = torch.cat([reduced, reduced.flip(2)], 2)
    return enlarge(2.0 * reduced[:, :, :side, :side] - 1.0, 4)


def compare(x: Tensor, weights: Path | None, rounds: int) -> None:
    """Print the table of the changes."""
    runs = variants(x, weights)
    pictures = {}
    for name, run in runs.items():  # warms up, too
        matched = match_colours(run().float(), x)
        pictures[name] = (matched / 2 + 0.5).clamp(0, 1) * 255
    print(f"{'':38} wall s   CPU s   gain by each   mean  99.9 %   max (levels)")
    seconds = measure(runs, rounds)
    least = seconds[FIRST]
    for name in runs:
        error = (pictures[name] - pictures[FIRST]).abs().flatten()
        most = error.kthvalue(int(0.999 * len(error))).values
        print(
            f"{name:38} {describe(seconds[name], least)}  {float(error.mean()):5.3f}  "
            f"{float(most):6.3f}  {float(error.max()):6.3f}",
            flush=True,
        )
    keep_freed_memory()
    print("freed memory kept:")
    for name, taken in measure(runs, rounds).items():
        print(f"{name:38} {describe(taken, least)}", flush=True)


def measure(runs: dict[str, Run], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the least wall and CPU seconds of each, run in turn."""
    seconds = {name: (math.inf, math.inf) for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            taken = time.perf_counter() - wall, time.process_time() - cpu
            pairs = zip(seconds[name], taken, strict=True)
            seconds[name] = tuple(min(pair) for pair in pairs)  # type: ignore[assignment]
    return seconds


def describe(taken: tuple[float, float], least: tuple[float, float]) -> str:
    """Return wall and CPU seconds and the gains over the first."""
    wall, cpu = taken
    return f"{wall:6.2f}  {cpu:6.2f}  {least[0] / wall:6.2f} {least[1] / cpu:6.2f}"


def sweep_cpu(x: Tensor, size: int) -> None:
    """Print tiles per second and peak memory of a batch, as `--precision bf16`."""
    keep_freed_memory()
    network = halve(live(build(None)))
    batch = x.expand(size, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        network(batch)
        seconds.append(time.perf_counter() - begin)
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 2**20
    print(
        f"batch {size}: {min(seconds) / size:.2f} s a tile, peak {peak:.2f} GiB",
        flush=True,
    )


def sweep_cuda(x: Tensor, sizes: tuple[int, ...]) -> None:
    """Print tiles per second on a GPU, and the share of the rate of matrix products."""
    network = live(build(None)).to("cuda", torch.bfloat16)
    a = torch.rand(8192, 8192, device="cuda", dtype=torch.bfloat16)
    rate = 2 * len(a) ** 3 / _seconds(lambda: a @ a)
    for size in sizes:
        batch = x.to("cuda", torch.bfloat16).expand(size, -1, -1, -1)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with FlopCounterMode(display=False) as counter:
            network(batch)
        flops = counter.get_total_flops()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            network(batch)
        compiled = torch.compile(network)
        ways: dict[str, Callable[[], object]] = {
            "eager": lambda batch=batch: network(batch),
            "CUDA graph": graph.replay,
            "compiled": lambda batch=batch, compiled=compiled: compiled(batch),
        }
        for name, way in ways.items():
            torch.cuda.reset_peak_memory_stats()
            seconds = _seconds(way)
            peak = torch.cuda.max_memory_allocated() / 2**30
            print(
                f"batch {size}, {name}: {size / seconds:.1f} tiles/s, "
                f"{flops / size / 1e9:.0f} GFLOP a tile, "
                f"{flops / rate / seconds:.0%} of the matrix rate, peak {peak:.2f} GiB",
                flush=True,
            )


def _seconds(run: Callable[[], object]) -> float:
    """Return the least of some runs' seconds on the GPU; two warm up."""
    times = []
    for _ in range(7):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[2:])


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("picture", type=Path, nargs="?")
    parser.add_argument("--weights", type=Path, help="safetensors, a state's too")
    parser.add_argument("--side", type=int, default=128, help="LR pixels of a side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--alone", type=int, help="measure this batch and no more")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        x = read(options.picture, options.side)
        if options.alone is not None:
            sweep_cpu(x, options.alone)
            return
        compare(x, options.weights, options.rounds)
        fixed = [f"--side={options.side}", f"--threads={options.threads}"]
        for size in options.batches:
            command = [sys.executable, __file__, *fixed, f"--alone={size}"]
            subprocess.run(command, check=True)
        if torch.cuda.is_available():
            sweep_cuda(x, (1, 4, 16))
        else:
            print("no GPU here: its table was not measured")


if __name__ == "__main__":
    main()
