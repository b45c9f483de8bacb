"""What predicted change masks give Ref-Diff on three real places, end to end.

``python tests/benchmarks/bench_refdiff_masks.py [MODEL] [--scale 8] [--figure PNG]``
reduces the later date of a place, upscales it with the earlier date as reference by
`rsupres.upscale`, and prints RMSE of [0, 1] in changed and in unchanged ground: without
a mask, with the mask that ``change_mask="detect"`` predicts, and with the true one
(table 3 of the paper, in small), and F1 of the prediction. Places:

- Hong Kong and Rennes, Sentinel-2 of 10 m (OSCD; their masks, CC BY-NC-SA, for
  measuring only, are neither stored nor drawn);
- six chips of riverside 2020 over 2018, three squares of each from another chip;
- North Dakota, 5 m, water that rose from 2012 to 2015.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from data_root import data_folder
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rasterio.crs import CRS

import rsupres
from rsupres.datasets.chips import read_chip
from rsupres.evaluation.resize import resize_bicubic_float

CITIES = ("hongkong", "rennes")
CHIPS, EVERY = 6, 15
SQUARES, SIDE = 3, 64  # pasted into each chip, and their pixels
WAYS = ("no mask", "predicted mask", "true mask")
SHOWN, GAP, LINE = 192, 4, 16  # pixels of a picture, between two, and of the titles
Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class Place:
    """Two dates of a place.

    Attributes:
        name: of the place.
        before: (c, H, W), the earlier date.
        after: the later one.
        changed: (H, W) bool.
        bands: names of the bands, None = red, green, blue.
        crs: of both.
        transform: of both.
    """

    name: str
    before: Pixels
    after: Pixels
    changed: NDArray[np.bool_]
    bands: tuple[str | None, ...]
    crs: CRS
    transform: Affine


def main() -> None:
    """Print the table, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="refdiff-mini")
    parser.add_argument("--scale", type=int, default=8)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(f"{given.model}, x{given.scale}\n")
    print("| place | changed | F1 of the prediction | mask | changed | unchanged |")
    print("|---|---:|---:|---|---:|---:|")
    rows = []
    for group in (*([city(name)] for name in CITIES), list(pasted()), [dakota()]):
        results = [run(fit(place, given.scale), given) for place in group]
        print_rows(group[0].name, results)
        rows.append(results[0][1])
    if given.figure:
        draw(rows[0::2] + rows[3:], given.figure)


def city(name: str) -> Place:
    """Return a pair of OSCD."""
    folder = data_folder() / "change/oscd"
    found = [
        next(folder.glob(f"{name}_{part}.tif"))
        for part in ("t1_*", "t2_*", "changemask")
    ]
    return read_place(name.capitalize(), *found)


def dakota() -> Place:
    """Return the pair of North Dakota."""
    folder = data_folder() / "change/naip_nd"
    found = [next(folder.glob(p)) for p in ("*_2012*rgbn*", "*_2015*rgbn*", "*water*")]
    return read_place("North Dakota", *found)


def read_place(name: str, before: Path, after: Path, mask: Path) -> Place:
    """Return a place of three files on one grid."""
    with rasterio.open(before) as one, rasterio.open(after) as two:
        images, bands = (one.read(), two.read()), two.descriptions
        crs, transform = two.crs, two.transform
    with rasterio.open(mask) as file:
        changed = file.read(1) > 0
    return Place(name, *images, changed, bands, crs, transform)


def pasted() -> Iterator[Place]:
    """Yield chips of riverside with squares of other chips: known changes."""
    folder = data_folder() / "aerial/naip_ca"
    names = sorted(folder.glob("riverside_2020_*.tif"))[::EVERY][:CHIPS]
    for k, path in enumerate(names):
        before = read_chip(path.with_name(path.name.replace("2020", "2018"))).pixels
        other = read_chip(names[(k + 1) % len(names)]).pixels
        after, changed = read_chip(path).pixels.copy(), np.zeros(before.shape[1:], bool)
        random = np.random.default_rng(k)
        for _ in range(SQUARES):
            row, col = random.integers(0, np.array(changed.shape) - SIDE)
            part = np.s_[..., row : row + SIDE, col : col + SIDE]
            after[part], changed[part] = other[part], True
        place = (CRS.from_epsg(26911), Affine(0.6, 0, 465_000, 0, -0.6, 3_760_000))
        yield Place("riverside, pasted", before, after, changed, (None,) * 3, *place)


def fit(place: Place, scale: int) -> Place:
    """Return a place cut to whole LR pixels."""
    rows, cols = (side // scale * scale for side in place.changed.shape)
    part = np.s_[..., :rows, :cols]
    cut = {k: getattr(place, k)[part] for k in ("before", "after", "changed")}
    return replace(place, **cut)


def run(
    place: Place, given: argparse.Namespace
) -> tuple[dict[str, tuple[float, float, int, int]], dict[str, Pixels], float, float]:
    """Return errors by way, pictures, F1 of the prediction, and the changed share."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {k: Path(folder) / f"{k}.tif" for k in ("scene", "reference", "mask")}
        size = tuple(side // given.scale for side in place.changed.shape)
        lr = resize_bicubic_float(place.after, (size[0], size[1]))
        lr = lr.clip(0).round().astype(place.after.dtype)
        write(paths["scene"], lr, place, given.scale)
        write(paths["reference"], place.before, place, 1)
        write(paths["mask"], place.changed[None].astype(np.uint8), place, 1)
        made = {}
        for way, mask in zip(WAYS, (None, "detect", paths["mask"]), strict=True):
            out = Path(folder) / f"{way}.tif"
            options = {"model": given.model, "reference": paths["reference"]}
            if mask is not None:
                options["change_mask"] = mask
            rsupres.upscale(paths["scene"], out, scale=given.scale, **options)
            with rasterio.open(out) as file:
                made[way] = file.read((1, 2, 3)).astype(np.float32)
        found = Path(folder) / "found.tif"
        dates = [paths["reference"], paths["scene"]]
        rsupres.change_mask(dates, found, like=paths["scene"], scale=given.scale)
        with rasterio.open(found) as file:
            predicted = file.read(1) == 1
    return measure(place, lr, predicted, made)


def measure(
    place: Place, lr: Pixels, predicted: NDArray[np.bool_], made: dict[str, Pixels]
) -> tuple[dict[str, tuple[float, float, int, int]], dict[str, Pixels], float, float]:
    """Return what `run` does."""
    unit = 255.0 if place.after.dtype == np.uint8 else 10_000.0
    truth, changed = place.after[:3].astype(np.float32), place.changed
    errors = {}
    for way, picture in made.items():
        squares = ((picture - truth) / unit) ** 2
        parts = squares[:, changed], squares[:, ~changed]
        errors[way] = (*(float(p.sum()) for p in parts), parts[0].size, parts[1].size)
    hits = float((predicted & changed).sum())
    f1 = 2 * hits / max(1.0, float(predicted.sum() + changed.sum()))
    step = truth.shape[1] // lr.shape[1]
    shown = {"input": lr[:3].repeat(step, 1).repeat(step, 2), "earlier": place.before}
    white = truth.max() * np.repeat(predicted[None].astype(np.float32), 3, 0)
    shown = {**shown, "predicted": white, **made, "truth": truth}
    return errors, cut_out(shown, changed), f1, float(changed.mean())


def cut_out(shown: dict[str, Pixels], changed: NDArray[np.bool_]) -> dict[str, Pixels]:
    """Return the squares around the most change, as levels of 8 bits."""
    side = min(SHOWN, *changed.shape)
    sums = changed.astype(float).cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    boxes = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side]
    boxes += sums[:-side, :-side]
    row, col = np.unravel_index(boxes.argmax(), boxes.shape)
    part = np.s_[:3, row : row + side, col : col + side]
    tones = shown["truth"].astype(np.float32)
    low, high = np.percentile(tones, (0.5, 99.5), axis=(1, 2), keepdims=True)
    return {
        k: (255 * np.clip((v[part] - low) / (high - low), 0, 1)).astype(np.uint8)
        for k, v in shown.items()
    }


def write(path: Path, pixels: Pixels, place: Place, step: int) -> None:
    """Write pixels whose sides are `step` times those of the place."""
    count, height, width = pixels.shape
    place_of = {"crs": place.crs, "transform": place.transform * Affine.scale(step)}
    profile = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **profile, **place_of) as file:
        file.write(pixels)
        if count == len(place.bands) and any(place.bands):
            file.descriptions = place.bands


def print_rows(name: str, results: list) -> None:  # type: ignore[type-arg]
    """Print the means over the chips of a place."""
    f1, share = (np.mean([one[k] for one in results]) for k in (2, 3))
    for way in WAYS:
        sums = np.sum([one[0][way] for one in results], axis=0)
        changed, same = np.sqrt(sums[:2] / sums[2:])
        first = (
            f"{name} | {100 * share:.1f} % | {f1:.2f}" if way == WAYS[0] else " | | "
        )
        print(f"| {first} | {way} | {changed:.4f} | {same:.4f} |")


def draw(rows: list[dict[str, Pixels]], path: Path) -> None:
    """Write the pictures of places, one row each."""
    width = len(rows[0]) * (SHOWN + GAP) - GAP
    canvas = Image.new("RGB", (width, LINE + len(rows) * (SHOWN + GAP)), "white")
    pen = ImageDraw.Draw(canvas)
    for i, row in enumerate(rows):
        for k, (title, picture) in enumerate(row.items()):
            at = (k * (SHOWN + GAP), LINE + i * (SHOWN + GAP))
            canvas.paste(Image.fromarray(picture.transpose(1, 2, 0)), at)
            pen.text((at[0], 2), title, "black")
    canvas.save(path)
    print(path)


if __name__ == "__main__":
    main()
