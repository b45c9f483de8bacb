"""Ref-Diff beside a straightforward implementation of its equations.

`python tests/benchmarks/bench_refdiff.py` samples a picture in several ways with the
same weights, start and calls of the network, one after the other and that `--repeat`
times, and prints the least seconds of processor time (which other programs on the
machine disturb less than the clock), the ratio, and how far apart the results are. The
ways add one measure after the other, so that each one's gain shows. `--flops` prints
the operation count of the released configuration and the time that it takes one H200 at
least.

The straightforward network follows docs/families/refdiff.md line by line: channels
apart, four convolutions a modulation, conditions resized in each, one embedding a
block, attention as two matrix products.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from rsupres.cli.process import wait_quietly  # noqa: E402

wait_quietly()  # before torch is loaded

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from rsupres.diffusion.edm import karras_sigmas, sample_heun  # noqa: E402
from rsupres.families.refdiff.config import MINI, RELEASED, RefDiffConfig  # noqa: E402
from rsupres.families.refdiff.network import Guidance, RefDiffUNet, freeze_  # noqa: E402
from rsupres.families.refdiff.resolver import EdmDenoiser  # noqa: E402

H200_BF16 = 989e12  # operations a second, dense, as NVIDIA states it
ROOT_HALF = 0.5**0.5
Context = AbstractContextManager[None]


class Straightforward:
    """F as docs/families/refdiff.md describes it, on a state dict."""

    def __init__(self, network: RefDiffUNet) -> None:
        self.config = network.config
        self.weights = {
            k: v.clone().contiguous() for k, v in network.state_dict().items()
        }

    def conv(self, x: Tensor, name: str) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        bias = self.weights[f"{name}.bias"]
        return functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(
            x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        )

    def norm(self, x: Tensor, name: str) -> Tensor:
        groups = min(32, x.shape[1] // 4)
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.group_norm(x, groups, weight, bias, 1e-6)

    def sft(self, x: Tensor, name: str, image: Tensor, mask: Tensor) -> Tensor:
        conditions = torch.cat([image, mask], 1)
        small = functional.interpolate(conditions, x.shape[2:], mode="nearest")
        both = torch.cat([x, small], 1)
        gain = functional.leaky_relu(self.conv(both, f"{name}.mul_conv1"), 0.1)
        gain = torch.sigmoid(self.conv(gain, f"{name}.mul_conv2"))
        shift = functional.leaky_relu(self.conv(both, f"{name}.add_conv1"), 0.1)
        return x * gain + self.conv(shift, f"{name}.add_conv2")

    def resampled(self, x: Tensor, block: str) -> Tensor:
        if block.endswith("_down"):
            kernel = torch.full((x.shape[1], 1, 2, 2), 0.25)
            return functional.conv2d(x, kernel, stride=2, groups=x.shape[1])
        if block.endswith("_up"):
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return x

    def attention(self, x: Tensor, block: str) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.conv(self.norm(x, f"{block}.norm2"), f"{block}.qkv")
        q, k, v = qkv.reshape(b, c, 3, h * w).unbind(2)
        weights = torch.einsum("bcq,bck->bqk", q, k / c**0.5).softmax(2)
        mixed = torch.einsum("bqk,bck->bcq", weights, v).reshape(b, c, h, w)
        return (self.conv(mixed, f"{block}.proj") + x) * ROOT_HALF

    def block(self, x: Tensor, block: str, e: Tensor, guidance: Guidance) -> Tensor:
        lr, reference, mask = guidance
        shift = self.linear(e, f"{block}.affine")[:, :, None, None]
        h = self.norm(x, f"{block}.norm0")
        decodes = f"{block}.sft0.mul_conv1.weight" in self.weights
        if decodes:
            h = self.sft(h, f"{block}.sft0", lr, mask)
        h = self.conv(self.resampled(functional.silu(h), block), f"{block}.conv0")
        if decodes:
            h = self.sft(
                self.norm(h, f"{block}.norm1"), f"{block}.sft1", reference, mask
            )
            h = functional.silu(h + shift)
        else:
            h = functional.silu(self.norm(h + shift, f"{block}.norm1"))
        h = self.conv(h, f"{block}.conv1")
        if f"{block}.skip.weight" in self.weights:
            x = self.conv(self.resampled(x, block), f"{block}.skip")
        h = (h + x) * ROOT_HALF
        return self.attention(h, block) if f"{block}.qkv.weight" in self.weights else h

    def __call__(self, x: Tensor, c_noise: Tensor, guidance: Guidance) -> Tensor:
        config = self.config
        half = torch.arange(config.channels // 2)
        angles = c_noise[:, None] * 10000.0 ** (-half / (config.channels // 2 - 1))
        e = torch.cat([angles.sin(), angles.cos()], 1)
        for name in ("map_layer0", "map_layer1"):
            e = functional.silu(self.linear(e, name))
        sides = [config.nominal >> level for level in range(len(config.mult))]
        x = self.conv(torch.cat([x, *guidance], 1), f"enc.{sides[0]}x{sides[0]}_conv")
        skips = [x]
        for level, side in enumerate(sides):
            names = ["down"] if level else []
            for name in [*names, *(f"block{k}" for k in range(config.blocks))]:
                x = self.block(x, f"enc.{side}x{side}_{name}", e, guidance)
                skips.append(x)
        for side in reversed(sides):
            for name in ["in0", "in1"] if side == sides[-1] else ["up"]:
                x = self.block(x, f"dec.{side}x{side}_{name}", e, guidance)
            for k in range(config.blocks + 1):
                x = torch.cat([x, skips.pop()], 1)
                x = self.block(x, f"dec.{side}x{side}_block{k}", e, guidance)
        head = f"dec.{sides[0]}x{sides[0]}_aux_"
        return self.conv(functional.silu(self.norm(x, head + "norm")), head + "conv")


def plain_denoiser(
    network: Straightforward, guidance: Guidance
) -> Callable[..., Tensor]:
    """Return D around F, the coefficients found anew in each call."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        total = sigma**2 + 0.25
        level = torch.full((len(x),), sigma).log() / 4
        raw = network((x / total**0.5).float(), level, guidance)
        return 0.25 / total * x + sigma * 0.5 / total**0.5 * raw

    return denoise


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    """Return a result, processor seconds and clock seconds."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, time.process_time() - cpu, time.perf_counter() - clock


def random_guidance(side: int) -> Guidance:
    """Return conditions of one tile."""
    image = torch.rand(2, 1, 3, side, side) * 2 - 1
    mask = (torch.rand(1, 1, side, side) > 0.8).float() * 3 / 255
    return Guidance(image[0], image[1], mask)


def frozen(network: RefDiffUNet, together: bool, dtype: torch.dtype) -> RefDiffUNet:
    """Return a copy for inference, its channels together or apart."""
    made = copy.deepcopy(network)
    if together:
        made.to(memory_format=torch.channels_last)
    freeze_(made, dtype)
    return made


@contextmanager
def mkldnn_bf16() -> Iterator[None]:
    """Let torch's float32 convolutions compute in bf16, where they can."""
    setting = torch.backends.mkldnn.conv
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


@torch.inference_mode()
def compare(config: RefDiffConfig, side: int, steps: int, repeat: int) -> None:
    """Sample in all ways and print a table."""
    torch.manual_seed(0)
    network = RefDiffUNet(config).eval()
    plain = Straightforward(network)
    apart = frozen(network, False, torch.float32)
    whole = frozen(network, True, torch.float32)
    half = frozen(network, True, torch.bfloat16)
    guidance, sigmas = random_guidance(side), karras_sigmas(steps)
    start = torch.randn(1, 3, side, side) * float(sigmas[0])

    def straightforward() -> Tensor:
        return sample_heun(plain_denoiser(plain, guidance), start, sigmas)

    def ours(unet: RefDiffUNet, how: Callable[[], Context] = nullcontext) -> Tensor:
        with how():
            return sample_heun(EdmDenoiser(unet, unet.maps(guidance)), start, sigmas)

    ways: dict[str, Callable[[], Tensor]] = {
        "straightforward, fp32": straightforward,
        "+ fused, resized once": lambda: ours(apart),
        "same, `mkldnn.conv.fp32_precision` bf16": lambda: ours(whole, mkldnn_bf16),
        "+ channels together (`--precision fp32`)": lambda: ours(whole),
        "bf16 (`--precision bf16`)": lambda: ours(half),
    }
    results, seconds = {}, {name: [] for name in ways}
    for run in ways.values():
        run()  # torch makes its kernels on the first call
    for _ in range(repeat):
        for name, run in ways.items():
            results[name], cpu, clock = timed(run)
            seconds[name].append((cpu, clock))
    print(f"{side} x {side} pixels, M = {config.channels}, {2 * steps - 1} calls,")
    print(f"least of {repeat}\n")
    print("| way | processor s | ratio | clock s | ratio | largest difference |")
    print("|---|---:|---:|---:|---:|---:|")
    wanted = results["straightforward, fp32"]
    least = [min(k) for k in zip(*seconds["straightforward, fp32"], strict=True)]
    for name, result in results.items():
        cpu, clock = (min(values) for values in zip(*seconds[name], strict=True))
        off = float((result - wanted).abs().max() / wanted.abs().max())
        ratios = least[0] / cpu, least[1] / clock
        print(
            f"| {name} | {cpu:.2f} | {ratios[0]:.2f} | {clock:.2f} | {ratios[1]:.2f} |"
            f" {off:.1e} |"
        )


@torch.inference_mode()
def flops() -> None:
    """Print operations a call, counted by torch on shapes alone."""
    for name, config in (("released", RELEASED), ("mini", MINI)):
        with torch.device("meta"):
            network = RefDiffUNet(config).eval()
            guidance = random_guidance(256)
            if config.mask == "outlined":
                guidance = guidance._replace(mask=guidance.mask.expand(-1, 3, -1, -1))
            maps = network.maps(guidance)
            x = torch.empty(1, 3, 256, 256)
            with FlopCounterMode(display=False) as counter:
                network(x, network.shifts(torch.empty(1)), maps)
        count = counter.get_total_flops()
        print(f"{name}: {count / 1e12:.4g} TFLOP a call for a 256 x 256 tile")
        for calls in (1, 12, 35, 511):
            floor = count * calls / H200_BF16
            print(
                f"  {calls} calls: {count * calls / 1e15:.4g} PFLOP, H200 {floor:.4g} s"
            )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--flops", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.flops:
        flops()
        return
    config = replace(RELEASED, channels=given.channels)
    compare(config, given.side, given.steps, given.repeat)


if __name__ == "__main__":
    main()
