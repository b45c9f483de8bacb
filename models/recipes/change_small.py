"""Train the network that finds what was built or removed between two images.

`change_small.py PAIRS OUT --minutes 40` reads the pairs that `change_pairs.py` wrote.
Training resumes from OUT/state.pt; the checkpoint OUT/change-small.safetensors is
written every few minutes, with F1 on the towns of kind "check" and on the last pairs of
the other kinds, none of which is trained on. The threshold of the checkpoint is the one
whose mean F1 on these is best.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import small_training
import torch
from numpy.typing import NDArray
from small_training import Schedule, Weights
from torch.nn import functional

from rsupres.families.siamese import (
    SiameseConfig,
    SiameseNetwork,
    make_spec,
    with_presence,
)

Floats = NDArray[np.float32]
Pair = tuple[torch.Tensor, torch.Tensor]

BATCH, SIDE = 12, 64
LR, WARMUP, EMA = 2e-3, 100, 0.997
SEED = 11
SHARES = {"town": 0.5, "city": 0.35, "dates": 0.15}
HELD = 20  # last pairs of each kind, to check on
THRESHOLDS = tuple(np.arange(0.2, 0.75, 0.05).round(2).tolist())


def main() -> None:
    """Train until the time is up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=40.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    kinds = {kind: read_pairs(given.pairs, kind) for kind in (*SHARES, "check")}
    training = {kind: kinds[kind][:-HELD] for kind in SHARES}
    checks = {kind: kinds[kind][-HELD:] for kind in kinds}
    train(training, checks, given.out, given.minutes * 60.0)


def read_pairs(folder: Path, kind: str) -> list[Pair]:
    """Return inputs (9, h, w) and shares (h, w) of all pairs of a kind, float16."""
    pairs = []
    for path in sorted(folder.glob(f"{kind}_*.npz")):
        with np.load(path) as pair:
            names = ("inputs", "share")
            pairs.append(tuple(torch.from_numpy(pair[name]) for name in names))
    return pairs  # type: ignore[return-value]  # two names, two tensors


def crops(training: Mapping[str, list[Pair]], step: int) -> tuple[torch.Tensor, ...]:
    """Return inputs and shares of a step's crops: a function of the step alone."""
    random = np.random.default_rng([SEED, step])
    made = []
    for kind in random.choice(list(SHARES), BATCH, p=list(SHARES.values())):
        pairs = training[str(kind)]
        inputs, share = pairs[random.integers(len(pairs))]
        height, width = share.shape
        row, col = random.integers(0, (height, width))
        changed = torch.nonzero(share > 0.5)
        if len(changed) and random.random() < 0.6:
            row, col = changed[random.integers(len(changed))].tolist()
            row, col = np.array((row, col)) + random.integers(-24, 25, 2)
        top, left = (
            int(np.clip(at - SIDE // 2, 0, side - SIDE))
            for at, side in ((row, height), (col, width))
        )
        both = torch.cat([inputs, share[None]]).float()
        both = both[:, top : top + SIDE, left : left + SIDE]
        both = both.rot90(int(random.integers(4)), (1, 2))
        made.append(both.flip(2) if random.random() < 0.5 else both)
    stacked = torch.stack(made)
    return stacked[:, :-1], stacked[:, -1:]


def forward(network: SiameseNetwork, inputs: torch.Tensor) -> torch.Tensor:
    """Return logits (b, 1, h, w) of inputs (b, 2 n + 1, h, w)."""
    before, after, size = inputs.split([4, 4, 1], 1)
    logits: torch.Tensor = network(with_presence(before), with_presence(after), size)
    return logits


def train(
    training: Mapping[str, list[Pair]],
    checks: Mapping[str, list[Pair]],
    out: Path,
    seconds: float,
) -> None:
    """Train for the time given; resume where a state is."""
    torch.manual_seed(SEED)
    config = SiameseConfig()
    network = SiameseNetwork(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(step: int) -> torch.Tensor:
        inputs, share = crops(training, step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(network, inputs)
        return functional.binary_cross_entropy_with_logits(logits.float(), share)

    def keep(mean: Weights, step: int, spent: float) -> None:
        found, threshold = check(config, mean, checks)
        told = replace(config, threshold=threshold)
        small_training.save("change-small", told, make_spec(told), mean, out)
        print(step, round(spent), threshold, json.dumps(found), flush=True)

    plan = Schedule(seconds, LR, WARMUP, EMA)
    small_training.train(network, loss_of, plan, out / "state.pt", keep)


def check(
    config: SiameseConfig,
    mean: Weights,
    checks: Mapping[str, list[Pair]],
) -> tuple[dict[str, list[float]], float]:
    """Return precision, recall and F1 of each kind at the best threshold, and that."""
    network = SiameseNetwork(config)
    network.load_state_dict(mean)
    counts = {kind: np.zeros((len(THRESHOLDS), 3)) for kind in checks}
    for kind, pairs in checks.items():
        for inputs, share in pairs:
            with torch.inference_mode():
                made = forward(network, inputs[None].float())[0, 0].sigmoid()
            truth = share > 0.5
            for k, threshold in enumerate(THRESHOLDS):
                found = made > threshold
                hits = (found & truth).sum()
                counts[kind][k] += [int(n) for n in (hits, found.sum(), truth.sum())]
    scores = {
        kind: 2 * n[:, 0] / np.maximum(n[:, 1] + n[:, 2], 1)
        for kind, n in counts.items()
    }
    best = int(np.argmax(np.mean([scores["check"], scores["city"]], axis=0)))
    found_at = {
        kind: [
            round(float(value), 3)
            for value in (n[best, 0] / n[best, 1:].clip(1)).tolist()
        ]
        + [round(float(scores[kind][best]), 3)]
        for kind, n in counts.items()
    }
    return found_at, float(THRESHOLDS[best])


if __name__ == "__main__":
    main()
