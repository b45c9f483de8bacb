"""How good a Ref-Diff is against how often it calls its network.

``python tests/benchmarks/bench_refdiff_quality.py MODEL [NAME:STEPS ...]`` upscales
every sixth chip of riverside 2020 at x8 with the chip of 2018 as reference, LR by
Pillow's bicubic, by each sampler and number of steps, and prints PSNR, LPIPS (squeeze),
both in 8 bits without a border of 8 pixels, calls, and CPU seconds a chip.

What the samplers from noise draw is texture, so their PSNR is lower by nature; a model
that was trained on one sampler as a whole (`refdiff-mini`: "mean", three steps) shows
how little is left of the others. The released network has no weights here.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from data_root import data_folder

from rsupres.checkpoints.catalogue import load_model
from rsupres.datasets.chips import read_chip
from rsupres.datasets.sidecars import Sidecars
from rsupres.evaluation.candidates import (
    Candidate,
    Pixels,
    bicubic_candidate,
    model_candidate,
)
from rsupres.evaluation.images import bicubic_degradation
from rsupres.evaluation.perceptual.weights import load_measures
from rsupres.evaluation.testset import run_testset
from rsupres.families.base import SamplerOptions
from rsupres.families.refdiff.resolver import SAMPLERS

WAYS = (
    *("mean:1", "mean:2", "mean:3", "mean:5"),
    *("euler:3", "euler:8", "dpm++:6", "dpm++:12", "heun:8", "heun:12", "heun:18"),
)
CPU = torch.device("cpu")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("ways", nargs="*", default=WAYS)
    parser.add_argument("--every", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # it would warn of every sampler
    candidates, calls = [bicubic_candidate()], {"bicubic": 0}
    for way in given.ways:
        name, steps = way.split(":")
        options = SamplerOptions(sampler=name, steps=int(steps))
        model = load_model(given.model, CPU, options)
        candidates.append(model_candidate(way, model, CPU, seed=0))
        calls[way] = SAMPLERS[name].calls(int(steps))
    folder = data_folder() / "aerial/naip_ca"
    images = sorted(folder.glob("riverside_2020_*.tif"))[:: given.every]
    companions = Sidecars(reference=("2020=2018",))
    chips = (companions.attach(read_chip(path), path) for path in images)
    measures = load_measures(None, data_folder() / "metrics", CPU).measures
    rows: dict[str, list[tuple[float, float]]] = {}
    clock: dict[str, float] = {}
    timed = [with_clock(c, clock) for c in candidates]
    with torch.inference_mode():
        for row in run_testset(
            chips, timed, [Fraction(8)], bicubic_degradation(), perceptual=measures
        ):
            figures = (row.figures["psnr"], row.figures["lpips_squeeze"])
            rows.setdefault(row.model, []).append(figures)
    print(f"{given.model}, {len(images)} chips\n")
    print("| sampler:steps | calls | PSNR dB | LPIPS | CPU s a chip |")
    print("|---|---:|---:|---:|---:|")
    for name, figures in rows.items():
        psnr, distance = np.mean(figures, axis=0)
        seconds = clock[name] / len(images)
        print(
            f"| {name} | {calls[name]} | {psnr:.2f} | {distance:.4f} | {seconds:.2f} |"
        )


def with_clock(candidate: Candidate, clock: dict[str, float]) -> Candidate:
    """Return the candidate; its CPU seconds are added up in `clock`."""

    def enlarge(*given: Any) -> Pixels:
        before = time.process_time()
        made = candidate.enlarge(*given)
        spent = time.process_time() - before
        clock[candidate.name] = clock.get(candidate.name, 0.0) + spent
        return made

    return replace(candidate, enlarge=enlarge)


if __name__ == "__main__":
    main()
