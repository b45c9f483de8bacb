"""Models of ours and of others by degradation and land cover, beside bicubic.

``python tests/benchmarks/bench_peers.py DATA --model NAME[:DETAIL] ... [--peer NAME]``
makes LR images of the wide validation set (`wide_set`) in eight ways, enlarges them and
prints, for every way, PSNR minus that of Pillow's bicubic: mean over the images,
standard error and on how many images it is positive; then the mean by land cover. With
``--lpips FOLDER`` LPIPS (squeeze) as a share of bicubic's comes along. Everything is
measured in 8 bits without a border of ceil(scale) pixels.

``--peer`` takes the names of `peer_models`; ``--python`` is an interpreter that has
their wheels. ``--json FILE`` keeps every figure.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import wide_set
from wide_set import Pixels, Place

from rsupres.checkpoints.catalogue import load_model
from rsupres.evaluation.measures.metrics import psnr
from rsupres.evaluation.perceptual.lpips import LpipsSqueeze
from rsupres.evaluation.resize import resize_bicubic
from rsupres.families.base import SamplerOptions
from rsupres.upscaling.array import upscale_whole

CPU = torch.device("cpu")
Enlarge = Callable[[Sequence[Pixels], str, int], list[Pixels]]
Table = dict[str, dict[str, list[dict[str, float]]]]  # degradation, model, images


def main() -> None:
    """Print the tables."""
    given = _arguments()
    torch.set_num_threads(given.threads)
    logging.disable(logging.WARNING)
    places = wide_set.load(given.data)
    ways: dict[str, Enlarge] = {"bicubic": _bicubic}
    ways |= {name: _model(name, given.precision) for name in given.model}
    ways |= {name: _peer(name, given.python) for name in given.peer}
    lpips = LpipsSqueeze.load(given.lpips).eval() if given.lpips else None
    degradations = given.degradation or list(wide_set.KERNELS)
    table: Table = {}
    clock = dict.fromkeys(ways, 0.0)
    for degradation in degradations:
        lrs = [
            wide_set.degrade(place.pixels, degradation, given.scale, number)
            for number, place in enumerate(places)
        ]
        table[degradation] = {}
        for name, enlarge in ways.items():
            start = time.process_time() + _children()
            made = enlarge(lrs, degradation, given.scale)
            clock[name] += time.process_time() + _children() - start
            table[degradation][name] = [
                _figures(sr, place.pixels, given.scale, lpips)
                for sr, place in zip(made, places, strict=True)
            ]
    if given.json:
        given.json.write_text(json.dumps(table))
    _print_degradations(table, places)
    _print_covers(table, places)
    n = len(places) * len(degradations)
    print("\nCPU s an image: ", end="")
    print(", ".join(f"{name} {spent / n:.2f}" for name, spent in clock.items()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--python", type=Path)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--degradation", action="append", choices=wide_set.KERNELS)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lpips", type=Path)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _bicubic(lrs: Sequence[Pixels], degradation: str, scale: int) -> list[Pixels]:
    return [
        resize_bicubic(lr, (lr.shape[1] * scale, lr.shape[2] * scale)) for lr in lrs
    ]


def _model(name: str, precision: str) -> Enlarge:
    """Return a way to run a model of ours, ``NAME`` or ``NAME:DETAIL``."""
    name, _, detail = name.partition(":")
    options = SamplerOptions(detail=float(detail or 0), precision=precision)  # type: ignore[arg-type]  # from the command line
    model = load_model(name, CPU, options)

    def enlarge(lrs: Sequence[Pixels], degradation: str, scale: int) -> list[Pixels]:
        return [
            _to_uint8(
                upscale_whole(
                    model, lr.astype(np.float32) / np.float32(255), Fraction(scale), CPU
                )
            )
            for lr in lrs
        ]

    return enlarge


def _peer(name: str, python: Path) -> Enlarge:
    script = Path(__file__).with_name("peer_models.py")

    def enlarge(lrs: Sequence[Pixels], degradation: str, scale: int) -> list[Pixels]:
        facts = wide_set.facts_of(degradation)
        noise = 4.0 if facts.quality else facts.noise
        with tempfile.TemporaryDirectory() as folder:
            files = [f"{folder}/in.npz", f"{folder}/out.npz"]
            np.savez(files[0], lr=lrs, scale=scale, noise=[noise] * len(lrs))
            subprocess.run([python, script, name, *files], check=True)
            return list(np.load(files[1])["sr"])

    return enlarge


def _children() -> float:
    times = os.times()
    return float(times.children_user + times.children_system)


def _to_uint8(image: np.ndarray) -> Pixels:
    return np.floor(image * 255 + 0.5).clip(0, 255).astype(np.uint8)


def _figures(
    sr: Pixels, hr: Pixels, scale: int, lpips: LpipsSqueeze | None
) -> dict[str, float]:
    inner = (slice(None), slice(scale, -scale), slice(scale, -scale))
    a, b = (image[inner].astype(np.float64) / 255 for image in (sr, hr))
    figures = {"psnr": psnr(a, b)}
    if lpips is not None:
        with torch.inference_mode():
            pair = [torch.from_numpy(x).float()[None] * 2 - 1 for x in (a, b)]
            figures["lpips"] = float(lpips(*pair).mean())
    return figures


def _gains(table: Table, degradation: str, model: str) -> np.ndarray:
    ours, base = (
        np.array([image["psnr"] for image in table[degradation][name]])
        for name in (model, "bicubic")
    )
    return ours - base


def _lpips_share(table: Table, degradation: str, model: str) -> str:
    rows = [table[degradation][name] for name in (model, "bicubic")]
    if "lpips" not in rows[0][0]:
        return ""
    ours, base = (np.mean([image["lpips"] for image in row]) for row in rows)
    return f" ({ours / base:.2f})"


def _print_degradations(table: Table, places: Sequence[Place]) -> None:
    models = [name for name in next(iter(table.values())) if name != "bicubic"]
    print(f"{len(places)} images, PSNR minus bicubic in dB, standard error, wins")
    print("\n| LR made by | bicubic dB | " + " | ".join(models) + " |")
    print("|---" * (len(models) + 2) + "|")
    for degradation, row in table.items():
        base = np.mean([image["psnr"] for image in row["bicubic"]])
        cells = []
        for name in models:
            gains = _gains(table, degradation, name)
            error = gains.std(ddof=1) / len(gains) ** 0.5
            share = _lpips_share(table, degradation, name)
            cells.append(
                f"{gains.mean():+.2f} ± {error:.2f}, {(gains > 0).sum()}{share}"
            )
        print(f"| {degradation} | {base:.2f} | " + " | ".join(cells) + " |")


def _print_covers(table: Table, places: Sequence[Place]) -> None:
    covers = list(dict.fromkeys(place.cover for place in places))
    models = [name for name in next(iter(table.values())) if name != "bicubic"]
    for name in models:
        print(f"\n| {name} | " + " | ".join(covers) + " |")
        print("|---" * (len(covers) + 1) + "|")
        for degradation in table:
            gains = _gains(table, degradation, name)
            means = [
                gains[[place.cover == cover for place in places]].mean()
                for cover in covers
            ]
            cells = " | ".join(f"{mean:+.2f}" for mean in means)
            print(f"| {degradation} | {cells} |")


if __name__ == "__main__":
    main()
