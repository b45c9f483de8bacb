"""Train the network that sharpens the 20 m bands of Sentinel-2 with its 10 m bands.

`s2_bands_small.py SCENES OUT --minutes 25` reads pairs of one place each:
`*_10m_4band.tif` (B02, B03, B04, B08) and `*_20m_6band.tif` (B05, B06, B07, B8A, B11,
B12). As there are no 10 m images of the 20 m bands, both are reduced once more (the
protocol of Wald et al. 1997): 10 m bands to 20 m, 20 m bands to 40 m, and the 20 m
bands are the truth. The blur of the reduction is drawn anew for every crop, so that the
network depends on none.

Training resumes from OUT/state.pt; the checkpoint OUT/s2-bands-small.safetensors is
written every few minutes, with the errors on the places named by --hold-out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import small_training
import torch
from numpy.typing import NDArray
from small_training import Schedule, Weights
from torch.nn import functional

from rsupres.degradations.optics import Kernel, gaussian_of, sample, sampling_matrix
from rsupres.families.sharpening import (
    Levels,
    SharpeningConfig,
    SharpeningNetwork,
    make_spec,
)

FloatArray = NDArray[np.float32]

BATCH, SIDE = 16, 48  # crops, and 40 m pixels of a side
LR, WARMUP, EMA = 1e-3, 100, 0.998
SEED = 5
AREA = Kernel("area")
GUIDES = (gaussian_of(0.2), gaussian_of(0.35), AREA)  # by which 10 m became 20 m
TESTS = {"MTF 0.3": gaussian_of(0.3), "MTF 0.15": gaussian_of(0.15), "area": AREA}


@dataclass(frozen=True)
class Pair:
    """One place: guides and truth on the 20 m grid, each band in its own levels."""

    name: str
    fine: FloatArray
    truth: FloatArray
    span: FloatArray


def main() -> None:
    """Train until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument(
        "--hold-out", nargs="*", default=["nantes", "hongkong", "saclay"]
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    names = sorted(given.scenes.glob("*_10m_4band.tif"))
    held = [n for n in names if any(place in n.name for place in given.hold_out)]
    training = [p for n in names if n not in held for p in read_pairs(n, GUIDES)]
    testing = [p for n in held for p in read_pairs(n, (gaussian_of(0.3),))]
    train(training, testing, given.out, given.minutes * 60.0)


def read_pairs(path: Path, kernels: Sequence[Kernel]) -> list[Pair]:
    """Return a place, its 10 m bands reduced by each kernel."""
    fine, coarse = (
        read(Path(str(path).replace("10m_4", k))) for k in ("10m_4", "20m_6")
    )
    rows, cols = (side // 2 * 2 for side in coarse.shape[1:])
    truth, pairs = coarse[:, :rows, :cols], []
    for kernel in kernels:
        guide = reduce(fine, coarse.shape[1:], [kernel] * len(fine))[:, :rows, :cols]
        levels = Levels.of(truth)
        unit = Levels.of(guide).to_unit(guide)
        pairs.append(Pair(path.name, unit, levels.to_unit(truth), levels.span))
    return pairs


def read(path: Path) -> FloatArray:
    """Return the bands of a file."""
    with rasterio.open(path) as dataset:
        pixels: FloatArray = dataset.read(out_dtype="float32")
    return pixels


def reduce(
    bands: FloatArray,
    shape: Sequence[int],
    kernels: Sequence[Kernel],
    shift: Sequence[float] | NDArray[np.float64] = (0.0, 0.0),
) -> FloatArray:
    """Return bands on a coarser grid of this shape, each by its own kernel."""
    made = [
        sample(
            band[None],
            *(
                sampling_matrix(n, whole, kernel, by)
                for n, whole, by in zip(shape, band.shape, shift, strict=True)
            ),
        )[0]
        for band, kernel in zip(bands, kernels, strict=True)
    ]
    return np.stack(made)


def crops(pairs: Sequence[Pair], step: int) -> tuple[torch.Tensor, ...]:
    """Return coarse, fine and true crops of a step: a function of the step alone."""
    random = np.random.default_rng([SEED, step])
    sizes = np.array([pair.truth[0].size for pair in pairs], float)
    made: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    n = len(pairs[0].fine)
    for k in random.choice(len(pairs), BATCH, p=sizes / sizes.sum()):
        both = np.concatenate([pairs[k].fine, pairs[k].truth])
        row, col = (random.integers(0, s - 2 * SIDE + 1) for s in both.shape[1:])
        both = both[:, row : row + 2 * SIDE, col : col + 2 * SIDE]
        both = np.rot90(both, int(random.integers(4)), (1, 2))
        both = both[:, :, :: 1 - 2 * int(random.integers(2))].clip(-1, 4)
        if random.random() < 0.5:  # tones: each band its own gain and offset
            gain = np.exp(random.normal(0, 0.15, (len(both), 1, 1)))
            both = both * gain + random.normal(0, 0.08, (len(both), 1, 1))
        fine, truth = both[:n].astype(np.float32), both[n:].astype(np.float32)
        made.append((degrade(truth, random), fine, truth))
    coarse, fine, truth = (np.stack(parts) for parts in zip(*made, strict=True))
    return torch.from_numpy(coarse), torch.from_numpy(fine), torch.from_numpy(truth)


def degrade(truth: FloatArray, random: np.random.Generator) -> FloatArray:
    """Return bands reduced by 2, by a blur that is drawn."""
    mtf = random.uniform(0.12, 0.45) + random.uniform(-0.05, 0.05, len(truth))
    is_area = random.random() < 0.25
    kernels = [AREA if is_area else gaussian_of(m) for m in mtf.clip(0.08, 0.5)]
    coarse = reduce(truth, (SIDE, SIDE), kernels, random.normal(0, 0.03, 2))
    noise = random.normal(0, 0.006, coarse.shape) * (random.random() < 0.3)
    return (coarse + noise).astype(np.float32)


def train(
    pairs: Sequence[Pair], tests: Sequence[Pair], out: Path, seconds: float
) -> None:
    """Train for the time given; resume where a state is."""
    torch.manual_seed(SEED)
    config = SharpeningConfig()
    network = SharpeningNetwork(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(step: int) -> torch.Tensor:
        coarse, fine, truth = crops(pairs, step)
        with torch.autocast("cpu", torch.bfloat16):
            error = network(coarse, fine) - truth
        return ((error.square() + 1e-4).sqrt() - 1e-2).mean()

    def keep(mean: Weights, step: int, spent: float) -> None:
        small_training.save("s2-bands-small", config, make_spec(config), mean, out)
        print(step, round(spent), json.dumps(test(config, mean, tests)), flush=True)

    plan = Schedule(seconds, LR, WARMUP, EMA)
    small_training.train(network, loss_of, plan, out / "state.pt", keep)


def test(
    config: SharpeningConfig, mean: Weights, tests: Sequence[Pair]
) -> dict[str, float]:
    """Return root mean square errors over those of bicubic, mean over the bands."""
    network = SharpeningNetwork(config)
    network.load_state_dict(mean)
    found = {}
    for pair in tests:
        for name, kernel in TESTS.items():
            shape = [side // 2 for side in pair.truth.shape[1:]]
            coarse = reduce(pair.truth, shape, [kernel] * len(pair.truth))
            lr = torch.from_numpy(coarse)[None]
            with torch.inference_mode():
                made = network(lr, torch.from_numpy(pair.fine)[None])[0].numpy()
            plain = functional.interpolate(lr, scale_factor=2, mode="bicubic")[0]
            errors = [
                np.sqrt(np.square(image - pair.truth).mean((1, 2))) * pair.span
                for image in (made, plain.numpy())
            ]
            found[f"{pair.name[:16]} {name}"] = round(
                float(errors[0].mean() / errors[1].mean()), 3
            )
    return found


if __name__ == "__main__":
    main()
