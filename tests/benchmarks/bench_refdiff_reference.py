"""What a reference gives Ref-Diff at x8 and x16, and whether a poor one hurts.

``python tests/benchmarks/bench_refdiff_reference.py [MODEL] [--scales 8,16]`` upscales
every sixth chip of riverside 2020 from LR by Pillow's bicubic with the chip of 2018 as
reference, and prints PSNR (without a border of an LR pixel) and LPIPS (squeeze):
bicubic, no reference, the reference, the same displaced by 2 pixels down and right, the
same with another tone, with clouds over a third, without its right half, and the chip
of another place as reference, with no mask, a mask that marks all as changed, and one
that says that nothing is known.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import torch
from data_root import data_folder
from numpy.typing import NDArray
from scipy import ndimage

from rsupres.checkpoints.catalogue import load_model
from rsupres.datasets.chips import read_chip
from rsupres.evaluation.candidates import bicubic_candidate, model_candidate
from rsupres.evaluation.images import bicubic_degradation
from rsupres.evaluation.perceptual.weights import load_measures
from rsupres.evaluation.report import score
from rsupres.families.base import SamplerOptions

CPU = torch.device("cpu")
Pixels = NDArray[np.uint8]
Layers = Mapping[str, Pixels]
Figures = tuple[float, float]  # PSNR and LPIPS
CLOUD_SHARE = 0.33


def main() -> None:
    """Print a table for each scale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="refdiff-mini")
    parser.add_argument("--scales", default="8,16")
    parser.add_argument("--every", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    bench = Bench(given.model, given.every)
    for scale in (Fraction(text) for text in given.scales.split(",")):
        found: dict[str, list[Figures]] = {}
        for k in range(len(bench.names)):
            for way, figures in bench.measure(k, scale).items():
                found.setdefault(way, []).append(figures)
        show(given.model, scale, found)


class Bench:
    """The chips of both years, and the model."""

    def __init__(self, name: str, every: int) -> None:
        folder = data_folder() / "aerial/naip_ca"
        self.names = sorted(folder.glob("riverside_2020_*.tif"))[::every]
        model = load_model(name, CPU, SamplerOptions())
        self.ours = model_candidate("ours", model, CPU, seed=0)
        self.measures = load_measures(None, data_folder() / "metrics", CPU).measures

    def pixels(self, k: int, year: str) -> Pixels:
        """Return the pixels of a chip in a year."""
        path = self.names[k % len(self.names)]
        return read_chip(path.with_name(path.name.replace("2020", year))).pixels

    def measure(
        self, k: int, scale: Fraction, ways: Sequence[str] | None = None
    ) -> dict[str, Figures]:
        """Return PSNR and LPIPS of a chip by way, of all or of some."""
        truth = self.pixels(k, "2020")
        size = (truth.shape[1], truth.shape[2])
        small = (int(size[0] / scale), int(size[1] / scale))
        lr = bicubic_degradation().degrade(truth, small, k)
        shown = references(self.pixels(k, "2018"), self.pixels(k + 7, "2018"), k)
        made = {"bicubic": bicubic_candidate().enlarge(lr, scale, size, {})}
        for way in ways or list(shown):
            made[way] = self.ours.enlarge(lr, scale, size, shown[way])
        found = {}
        for way, picture in made.items():
            figures = score(
                picture / 255.0,
                truth / 255.0,
                float(scale),
                border=int(scale),
                perceptual=self.measures,
            )
            found[way] = (figures["psnr"], figures["lpips_squeeze"])
        return found


def references(own: Pixels, other: Pixels, seed: int) -> dict[str, Layers]:
    """Return the layers of each way to show a reference, by its name."""
    random = np.random.default_rng(seed)
    everywhere = np.ones((1, *own.shape[1:]), np.uint8)
    half = everywhere.copy()
    half[..., own.shape[2] // 2 :] = 0
    field = ndimage.gaussian_filter(random.normal(size=own.shape[1:]), 20)
    cloud = field > np.quantile(field, 1 - CLOUD_SHARE)
    unit = own / 255.0
    toned = np.clip(0.1 + 0.6 * unit ** np.array([0.8, 1.0, 1.2])[:, None, None], 0, 1)

    def layers(image: Pixels, valid: Pixels, mask: int | None = None) -> Layers:
        made = {"reference": image, "reference_valid": valid}
        if mask is not None:
            made["change_mask"] = np.full_like(everywhere, mask)
        return made

    return {
        "no reference": {},
        "reference": layers(own, everywhere),
        "displaced by 2": layers(np.roll(own, (2, 2), (1, 2)), everywhere),
        "another tone": layers((toned * 255).astype(np.uint8), everywhere),
        "clouds": layers(np.where(cloud, 230, own).astype(np.uint8), everywhere),
        "left half": layers(own * half, half),
        "another place": layers(other, everywhere),
        "another place, all changed": layers(other, everywhere, 1),
        "another place, unknown": layers(other, everywhere, 255),
    }


def show(model: str, scale: Fraction, found: Mapping[str, Sequence[Figures]]) -> None:
    """Print the means."""
    base = np.mean(found["bicubic"], axis=0)
    alone = np.mean(found["no reference"], axis=0)
    print(f"\n{model}, x{scale}, {len(found['bicubic'])} chips\n")
    print("| shown | PSNR dB | over bicubic | over none | LPIPS | of bicubic's |")
    print("|---|---:|---:|---:|---:|---:|")
    for way, rows in found.items():
        psnr, distance = np.mean(rows, axis=0)
        print(
            f"| {way} | {psnr:.2f} | {psnr - base[0]:+.2f} | {psnr - alone[0]:+.2f} |"
            f" {distance:.4f} | {distance / base[1]:.3f} |"
        )


if __name__ == "__main__":
    main()
