"""SGDM's sampling against a straightforward loop, gain by gain; memory at full size.

Run it with ``python tests/benchmarks/bench_sgdm.py [--steps N] [--repeat N]``. Both
sides have the weights, start, noise and number of steps of one golden configuration
(``RSUPRES_GOLDEN`` as in the tests), fp32, in one process, taken in turn. The plain
loop does at every step what does not depend on it: the encoders and the adapter, keys
and values of the context, a schedule table from float64, and before the first step the
autoencoder's encoding of HR, which the released script makes and drops. Then each waste
is taken away alone. The text encoder is not among them: it is no part of the case.

``--memory fp32|bf16`` measures peak memory of one 256 px tile with the released sizes
and random weights instead, in this process, which is why it is asked for alone.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # the golden case is a test's

from rsupres.blocks.stable_diffusion_run import make_context_keys
from rsupres.diffusion.schedules import Posterior, spaced_steps, sqrt_linear_betas
from rsupres.families.sgdm.config import VARIANTS
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.sampling import Sampling, sample_latent

WASTES = {
    "hr": "encoding of HR that nobody uses",
    "adapter": "encoders and adapter at every step",
    "context": "keys and values of the context at every step",
    "tables": "schedule tables from float64 at every step",
    "layout": "channels first instead of last",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--variant", default="real", choices=sorted(VARIANTS))
    parser.add_argument("--memory", choices=("fp32", "bf16"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        if arguments.memory:
            measure_memory(arguments.variant, arguments.memory)
        else:
            compare(arguments.variant, arguments.steps, arguments.repeat)


def compare(variant: str, steps: int, repeat: int) -> None:
    """Print the time of both sides, and of the plain loop less one waste each."""
    from tests.parity import sgdm_networks as case
    from tests.parity.sgdm_answers import features as guide

    networks, last = (case.fresh(variant).requires_grad_(False) for _ in range(2))
    last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    context = case.load("in/context")
    start = case.load("in/x_t")
    torch.manual_seed(0)
    noise = torch.randn(steps + 1, *start.shape)

    def ours() -> Tensor:
        features = guide(last, variant, "guide")
        keys = make_context_keys(last.unet, context)
        return sample_latent(
            last, start, features, keys, Sampling("ddpm", steps), lambda t: noise[t]
        )

    def plain(saved: Collection[str] = ()) -> Tensor:
        which = last if "layout" in saved else networks
        if "hr" not in saved:
            which.encode(case.load("in/hr"), start)
        features = guide(which, variant, "guide")
        keys = make_context_keys(which.unet, context)
        table = tables(which, steps)
        chosen = spaced_steps(which.config.steps, steps)
        z = start
        for t in range(steps, 0, -1):
            if "adapter" not in saved:
                features = guide(which, variant, "guide")
            if "tables" not in saved:
                table = tables(which, steps)
            step = torch.full((len(z),), int(chosen[t - 1]))
            seen = keys if "context" in saved else context
            eps = which.predict(z, step, seen, features)
            recip, recipm1, first, second, variance = (c[t - 1] for c in table)
            x0 = recip * z - recipm1 * eps
            z = first * x0 + second * z
            if t > 1:
                z = z + variance.sqrt() * noise[t]
        return z

    runs: dict[str, Callable[[], Tensor]] = {"plain loop": plain, "ours": ours}
    for key, what in WASTES.items():
        runs[f"plain less {what}"] = lambda key=key: plain([key])  # type: ignore[misc]
    difference = float((plain() - ours()).abs().max() / plain().abs().max())
    print(f"{variant}, {steps} steps, {tuple(start.shape)}, fp32, 1 thread, CPU s")
    print(f"largest difference of the results: {difference:.1e} of the largest value")
    show_times(runs, repeat)


def show_times(runs: dict[str, Callable[[], Tensor]], repeat: int) -> None:
    """Print the median CPU seconds of each, and how often the first one's they are."""
    seconds = {name: [] for name in runs}  # type: dict[str, list[float]]
    for _ in range(repeat):
        for name, run in runs.items():
            began = time.process_time()
            run()
            seconds[name].append(time.process_time() - began)
    base = statistics.median(seconds["plain loop"])
    for name, values in seconds.items():
        mine = statistics.median(values)
        print(f"{mine:8.3f} s  {base / mine:5.2f} x  {name}")


def tables(networks: SgdmNetworks, steps: int) -> list[Tensor]:
    """Return the released code's five tables, made from float64."""
    config = networks.config
    betas = sqrt_linear_betas(config.steps, *config.beta)
    table = Posterior.spaced(betas, spaced_steps(config.steps, steps))
    columns = (
        table.alpha_bar**-0.5,
        (1.0 / table.alpha_bar - 1.0) ** 0.5,
        table.posterior_z0,
        table.posterior_zt,
        table.variance,
    )
    return [torch.from_numpy(np.asarray(c)).float() for c in columns]


def measure_memory(variant: str, precision: str) -> None:
    """Print the peak of this process for one 256 px tile, one step, released sizes."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    with torch.device("meta"):
        networks = SgdmNetworks(VARIANTS[variant], encodes=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for part in (networks.unet, networks.autoencoder):
        torch.nn.Module.to(part, dtype)
    networks.to_empty(device="cpu")
    for tensor in networks.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_(std=0.02)
    networks.latent_scale.fill_(0.18215)
    networks.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = sum(p.numel() * p.element_size() for p in networks.parameters()) / 2**30
    image = torch.rand(1, 3, 256, 256)
    assert networks.contexts is not None
    features = networks.features(image, image)
    keys = make_context_keys(networks.unet, networks.contexts[:1])
    z = torch.randn(1, 4, 32, 32)
    began = time.process_time()
    z = sample_latent(networks, z, features, keys, Sampling("ddim", 1))
    step = time.process_time() - began
    networks.decode(z)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{variant} {precision}, one 256 px tile: peak {peak:.2f} GiB ({before:.2f} GiB"
        f" before any weight), weights {weights:.2f} GiB, one step {step:.1f} CPU s"
    )


if __name__ == "__main__":
    main()
