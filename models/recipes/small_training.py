"""Train a small network for a given time: the loop of `change_small`, `s2_bands_small`.

The rate falls as a cosine over the time; the averaged weights are kept. Training
resumes where a state lies.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rsupres.checkpoints.file import write_checkpoint
from rsupres.families.base import ModelSpec
from rsupres.families.storage import config_to_json

SAVE_EVERY_S = 180.0
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long a network trains, and how fast it moves.

    Attributes:
        seconds: of the whole training, all calls together.
        rate: largest learning rate of Adam.
        warmup: steps until it is reached.
        ema: share of the averaged weights that a step keeps.
    """

    seconds: float
    rate: float
    warmup: int
    ema: float


def save(name: str, config: object, spec: ModelSpec, mean: Weights, out: Path) -> None:
    """Write the checkpoint of a model's averaged weights, in half precision."""
    write_checkpoint(
        out / f"{name}.safetensors",
        {k: v.to(torch.float16).contiguous() for k, v in mean.items()},
        spec,
        config_to_json(config),
        f"rsupres, models/recipes/{name.replace('-', '_')}.py",
    )


def train(
    network: nn.Module,
    loss_of: Callable[[int], Tensor],
    plan: Schedule,
    stored: Path,
    keep: Callable[[Weights, int, float], None],
) -> None:
    """Train until the time is up.

    Args:
        network: with fresh weights; changed in place.
        loss_of: returns the loss of a step, by its number.
        plan: time and rates.
        stored: file of the state, from which training resumes.
        keep: called every few minutes and at the end, with the averaged weights, the
            number of steps and the seconds spent.
    """
    optimiser = torch.optim.Adam(network.parameters(), plan.rate, betas=(0.9, 0.99))
    mean = {k: v.clone() for k, v in network.state_dict().items()}
    step, spent = 0, 0.0
    if stored.exists():
        state = torch.load(stored, weights_only=True)
        network.load_state_dict(state["net"])
        optimiser.load_state_dict(state["opt"])
        mean, step, spent = state["ema"], state["step"], state["spent"]
    last = saved = time.monotonic()
    while spent < plan.seconds:
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(spent / plan.seconds, 1.0))
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * min((step + 1) / plan.warmup, 1.0) * cosine + 1e-6
        loss = loss_of(step)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimiser.step()
        step += 1
        with torch.no_grad():
            for name, value in network.state_dict().items():
                mean[name].lerp_(value, 1.0 - min(plan.ema, (1 + step) / (10 + step)))
        now = time.monotonic()
        spent, last = spent + now - last, now
        if now - saved > SAVE_EVERY_S or spent >= plan.seconds:
            state = {"net": network.state_dict(), "opt": optimiser.state_dict()}
            torch.save(state | {"ema": mean, "step": step, "spent": spent}, stored)
            keep(mean, step, spent)
            last = saved = time.monotonic()
