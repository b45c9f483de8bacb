"""Does a change mask keep Ref-Diff from painting in what is gone?

``python tests/benchmarks/bench_refdiff_changes.py [MODEL] [--seeds 900,901] [--pictures
DIR]`` makes invented towns (sample_data) that no model was trained on, upscales them at
x8 from LR by Pillow's bicubic with the image of the other date as reference, once
without and once with the generator's own change mask, and prints RMSE in changed and
in unchanged ground, and LPIPS (squeeze) of the squares of 100 pixels of which a fifth
or more changed. "new" looks from the earlier day to today, where buildings were added;
"gone" the other way round: there the reference shows buildings that are no more.
"""

from __future__ import annotations

import argparse
import logging
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from data_root import data_folder
from numpy.typing import NDArray
from PIL import Image

from rsupres.checkpoints.catalogue import load_model
from rsupres.evaluation.perceptual.lpips import LpipsSqueeze
from rsupres.evaluation.resize import resize_bicubic
from rsupres.families.base import Conditions, SamplerOptions, SuperResolver
from rsupres.upscaling.array import upscale_whole

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "sample_data"))

from make_town_pairs import GSD_M, SIZE_M, levels, make_town  # type: ignore[import-not-found]  # noqa: E402

SCALE = Fraction(8)
SQUARE, MIN_CHANGED_SHARE = 100, 0.2
WAYS = ("bicubic", "no reference", "reference", "reference and mask")
CPU = torch.device("cpu")
Pixels = NDArray[np.uint8]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="refdiff-mini")
    parser.add_argument("--seeds", default="900,901,902,903,904,905")
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    model = load_model(given.model, CPU, SamplerOptions())
    metrics = data_folder() / "metrics"
    lpips = LpipsSqueeze.load(metrics).eval()
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    seeds = [int(seed) for seed in given.seeds.split(",")]
    with torch.inference_mode():
        for seed in seeds:
            town = make_town(seed, SIZE_M, GSD_M)
            now, earlier, change = levels(town.now), levels(town.earlier), town.change
            was = np.where(change > 0, town.cover_earlier, 0).astype(np.uint8)
            for kind, hr, reference, mask in (
                ("new", now, earlier, change),
                ("gone", earlier, now, was),
            ):
                made = upscale(model, hr, reference, mask)
                for way, picture in made.items():
                    figures = measure(picture, hr, change > 0, lpips)
                    found.setdefault((kind, way), []).append(figures)
                if given.pictures:
                    show(
                        given.pictures / f"{seed}_{kind}.png", made, hr, reference, mask
                    )
    print(f"{given.model}, towns {given.seeds}\n")
    print("| change | shown | RMSE, changed | RMSE, unchanged | LPIPS, changed |")
    print("|---|---|---:|---:|---:|")
    for (kind, way), figures in found.items():
        changed, same, distance = np.array(figures).T
        rmse = f"{np.sqrt(changed.mean()):.4f} | {np.sqrt(same.mean()):.4f}"
        print(f"| {kind} | {way} | {rmse} | {np.nanmean(distance):.3f} |")
    print("\nRMSE in changed ground, reference without and with mask, by town:")
    for kind in ("new", "gone"):
        pairs = zip(*(found[kind, way] for way in WAYS[2:]), seeds, strict=True)
        each = (f"{s}: {a[0] ** 0.5:.4f} {b[0] ** 0.5:.4f}" for a, b, s in pairs)
        print(f"{kind}  {', '.join(each)}")


def upscale(
    model: SuperResolver, hr: Pixels, reference: Pixels, mask: Pixels
) -> dict[str, Pixels]:
    """Return the pictures of all ways."""
    size = (hr.shape[1] // 8, hr.shape[2] // 8)
    lr = resize_bicubic(hr, size)
    shown = torch.from_numpy(reference)[None].float() / 255
    valid = torch.ones_like(shown[:, :1], dtype=torch.bool)
    change = torch.from_numpy(mask)[None, None]
    bare = Conditions()
    alone = Conditions(reference=shown, reference_valid=valid)
    both = Conditions(reference=shown, reference_valid=valid, change_mask=change)
    made = {"bicubic": resize_bicubic(lr, hr.shape[1:])}
    for way, conditions in zip(WAYS[1:], (bare, alone, both), strict=True):
        unit = lr.astype(np.float32) / 255
        sr = upscale_whole(model, unit, SCALE, CPU, 0, conditions)
        made[way] = (sr * 255 + 0.5).clip(0, 255).astype(np.uint8)
    return made


def measure(
    picture: Pixels, hr: Pixels, changed: NDArray[np.bool_], lpips: LpipsSqueeze
) -> tuple[float, float, float]:
    """Return mean squares in changed and other ground, and LPIPS of changed squares."""
    a, b = (x.astype(np.float64) / 255 for x in (picture, hr))
    squares = ((a - b) ** 2).mean(0)
    distances = []
    for row in range(0, changed.shape[0], SQUARE):
        for col in range(0, changed.shape[1], SQUARE):
            part = np.s_[..., row : row + SQUARE, col : col + SQUARE]
            if changed[part].mean() >= MIN_CHANGED_SHARE:
                x, y = (torch.from_numpy(v[part])[None].float() for v in (a, b))
                distances.append(float(lpips(x * 2 - 1, y * 2 - 1)))
    distance = float(np.mean(distances)) if distances else float("nan")
    return float(squares[changed].mean()), float(squares[~changed].mean()), distance


def show(
    path: Path, made: dict[str, Pixels], hr: Pixels, reference: Pixels, mask: Pixels
) -> None:
    """Write what changed most: reference, LR, without and with mask, truth, mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    side = 250
    shares = (mask > 0).reshape(4, side, 4, side).mean((1, 3))
    row, col = divmod(int(shares.argmax()), 4)
    part = np.s_[:, row * side : (row + 1) * side, col * side : (col + 1) * side]
    marks = np.repeat((mask[None] > 0).astype(np.uint8) * 255, 3, 0)
    order = [reference, made["bicubic"], made["reference"]]
    order += [made["reference and mask"], hr, marks]
    panel = np.concatenate([picture[part] for picture in order], 2)
    panel = panel.repeat(2, 1).repeat(2, 2).transpose(1, 2, 0)
    Image.fromarray(panel).save(path)


if __name__ == "__main__":
    main()
