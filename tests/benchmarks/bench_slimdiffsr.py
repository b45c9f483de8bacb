"""The full student, 128 to 512: what each way of running it gains and costs.

Run it with ``python tests/benchmarks/bench_slimdiffsr.py [--side N] [--threads N]``.
Name-seeded weights, so anyone can repeat it. Starting from the network as the paper
draws it (branches one by one, attention through the inner width, channels first,
float32, all tensors), one thing is changed after the other. For each: wall and CPU
seconds of the best of three runs, the gain over the first, and how far the final
picture (colours matched, 8-bit levels) is from the first. Then batches, peak memory,
and, with a GPU, tiles per second against the count of operations. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import re
import resource
import time
from collections.abc import Callable, Mapping
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from rsupres.families.slimdiffsr_blocks import (
    DirectionSeparable,
    FrequencySeparable,
    QueryAggregation,
    _FeedForward,
)
from rsupres.families.slimdiffsr_network import (
    DEAD,
    SlimDiffSRConfig,
    SlimDiffSRNetwork,
    TinyBlock,
    Upsample,
    enlarge,
    match_colours,
)
from tests.parity.golden import name_seeded_tensor

_REPEATS = 3


def build() -> SlimDiffSRNetwork:
    """Return the student with name-seeded weights, dead tensors included."""
    network = SlimDiffSRNetwork(SlimDiffSRConfig(4), dead=True)
    for name, parameter in network.named_parameters():
        parameter.data = torch.from_numpy(name_seeded_tensor(name, parameter.shape))
    return network.eval().requires_grad_(False)


def separate_branches(network: nn.Module) -> None:
    """Make the network run branch by branch, as the paper draws it."""
    for module in network.modules():
        if isinstance(module, FrequencySeparable):
            module.forward = MethodType(_fsc, module)
        elif isinstance(module, DirectionSeparable):
            module.forward = MethodType(_dsc, module)
        elif isinstance(module, QueryAggregation):
            module.forward = MethodType(_qgam, module)
        elif isinstance(module, Upsample):
            module.forward = MethodType(_double, module)


def join(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Undo `separate_branches` for some kinds of modules."""
    for module in network.modules():
        if isinstance(module, kinds):
            del module.forward


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


def _double(self: Upsample, x: Tensor) -> Tensor:
    return self.conv(functional.interpolate(x, scale_factor=2.0))


def drop_dead(network: nn.Module) -> SlimDiffSRNetwork:
    """Return a network without the tensors that nothing reads, channels last."""
    live = SlimDiffSRNetwork(SlimDiffSRConfig(4)).eval().requires_grad_(False)
    tensors = network.state_dict()
    live.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(DEAD)})
    return live


def halve(network: nn.Module, kinds: tuple[type[nn.Module], ...], part: str) -> None:
    """Let some modules multiply in bfloat16, between them everything is float32."""
    for name, module in network.named_modules():
        if isinstance(module, kinds) and re.search(part, name):
            inner = module.conv if isinstance(module, TinyBlock) else module.net
            inner.to(torch.bfloat16)
            module.forward = MethodType(
                _half_block if isinstance(module, TinyBlock) else _half_ff, module
            )


def _half_block(self: TinyBlock, x: Tensor) -> Tensor:
    return torch.relu_(self.conv(x.bfloat16()) + x)


def _half_ff(self: _FeedForward, tokens: Tensor) -> Tensor:
    return self.net(tokens.bfloat16()).float()


def measure(
    run: Callable[[], Tensor], synchronise: Callable[[], None] = lambda: None
) -> tuple[float, float, Tensor]:
    """Return the least wall and CPU seconds of some runs, and the result."""
    result = run()
    synchronise()
    times = []
    for _ in range(_REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        synchronise()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(t[0] for t in times), min(t[1] for t in times), result


def stages(network: SlimDiffSRNetwork) -> Mapping[str, Callable[[], nn.Module]]:
    """Return what is changed, one after the other; each call changes and returns."""
    live: list[SlimDiffSRNetwork] = []

    def fused() -> nn.Module:
        join(network, (FrequencySeparable, DirectionSeparable, QueryAggregation))
        return network

    def phases() -> nn.Module:
        join(network, (Upsample,))
        return network

    def last() -> nn.Module:
        live.append(drop_dead(network))
        live[0].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return live[0]

    def feed_forward() -> nn.Module:
        halve(live[0], (_FeedForward,), "")
        return live[0]

    def fine_blocks() -> nn.Module:
        # Blocks at half and full size: most of the work, few roundings in a row.
        fine = r"encoder\.layers\.[1345]$|decoder\.layers\.1[2347]$"
        halve(live[0], (TinyBlock,), fine)
        return live[0]

    def everything() -> nn.Module:
        half = drop_dead(network).to(torch.bfloat16)
        return half.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    return {
        "as drawn, channels first, fp32": lambda: network,
        "+ fused depthwise and aggregation": fused,
        "+ doubling folded into its filter": phases,
        "+ channels last, dead tensors dropped": last,
        "+ feed-forward in bf16": feed_forward,
        "+ fine tiny blocks in bf16": fine_blocks,
        "all weights and maps in bf16": everything,
    }


def compare(side: int) -> None:
    """Print the table of the changes."""
    torch.manual_seed(0)
    small = torch.rand(1, 3, side // 4, side // 4)
    lr = functional.interpolate(small, scale_factor=4.0, mode="bicubic").clamp(0, 1)
    x = enlarge(2.0 * lr - 1.0, 4)
    network = build()
    separate_branches(network)
    first: tuple[float, float, Tensor] | None = None
    print(f"{'':40} wall s   CPU s   gain   mean   max (levels)")
    for name, change in stages(network).items():
        made = change()
        kind = next(made.parameters()).dtype
        given = x.to(kind)
        if "first" not in name and "+ fused" not in name and "folded" not in name:
            given = given.contiguous(memory_format=torch.channels_last)
        wall, cpu, image = measure(lambda made=made, given=given: made(given)[1])
        final = (match_colours(image.float(), x) / 2 + 0.5).clamp(0, 1) * 255
        first = first or (wall, cpu, final)
        error = (final - first[2]).abs()
        print(
            f"{name:40} {wall:6.2f}  {cpu:6.2f}  {first[1] / cpu:5.2f}  "
            f"{float(error.mean()):5.2f}  {float(error.max()):5.1f}",
            flush=True,
        )


def sweep(side: int, device: torch.device, sizes: tuple[int, ...]) -> None:
    """Print tiles per second by batch, in bf16, and the share of the matrix rate."""
    network = drop_dead(build()).to(device, torch.bfloat16)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    n = 4096 if device.type == "cuda" else 1024
    a = torch.rand(n, n, device=device, dtype=torch.bfloat16)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    rate = 2 * n**3 / measure(lambda: a @ a, wait)[0]
    for size in sizes:
        x = torch.rand(size, 3, 4 * side, 4 * side, device=device).bfloat16()
        x = x.contiguous(memory_format=torch.channels_last)
        with FlopCounterMode(display=False) as counter:
            network(x)
        wall = measure(lambda x=x: network(x)[1], wait)[0]
        floor = counter.get_total_flops() / rate
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"batch {size}: {size / wall:.3f} tiles/s, {wall / size:.2f} s a tile, "
            f"{counter.get_total_flops() / size / 1e9:.0f} GFLOP a tile, "
            f"{floor / wall:.0%} of the matrix rate, peak {peak:.2f} GiB",
            flush=True,
        )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=128, help="LR pixels of a side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        compare(options.side)
        sweep(options.side, torch.device("cpu"), tuple(options.batches))
        if torch.cuda.is_available():
            sweep(options.side, torch.device("cuda"), (1, 4, 16))


if __name__ == "__main__":
    main()
