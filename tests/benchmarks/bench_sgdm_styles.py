"""Measure how far a style moves a result, and draw the styles that SFlow knows.

``python tests/benchmarks/bench_sgdm_styles.py [MODEL] [--out FOLDER]`` upscales places
of ``$RSUPRES_DATA`` x8 with the looks of others as `--style` and prints a table in
Markdown: the share of the way from the own means and deviations of the bands to those
of the style image that the result has gone, and the F1 of the result's edges against
those of the result without a style (1 = no edge has moved). FOLDER/styles.png shows
means and deviations of the red and blue bands of four sources of images and of 300
styles that SFlow drew. FOLDER/seeds.jpg shows the first scene without a style and with
the styles that `--style-sample` draws with the seeds 0 to 5; a second table has their
means and deviations, and how far the picture is from that of the seed before, as RMS of
[0, 1], also after both were brought to the same means and deviations: the rest is what
a seed changes besides the style. `--only seeds` and `--only plot` make one of them.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import rasterio
import torch
from data_root import data_folder
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rsupres.checkpoints.catalogue import load_model
from rsupres.degradations.registry import make_degradation
from rsupres.evaluation.measures.edges import find_edges
from rsupres.families.base import Conditions, SamplerOptions
from rsupres.families.sgdm.resolver import STYLE_TEMPERATURE, Sgdm
from rsupres.families.sgdm.style import Statistics, picture_statistics
from rsupres.upscaling.array import upscale_whole

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SCALE = 8
SIDE = 256
DRAWN = 300
SEEDS = 6
PANEL = 380  # pixels of a panel of the plot
COLOURS = ("silver", "royalblue", "firebrick", "darkorange", "seagreen")
SOURCES = {
    "NAIP, California": "aerial/naip_ca/riverside_2020_*.tif",
    "OpenAerialMap, Banepa": "aerial/oam/banepa_*_c06.tif",
    "OpenAerialMap, Philippines": "aerial/oam/oam_set4_*.tif",
    "NGI, South Africa": "osm/swellendam_za/ngi_*.tif",
}
Picture = NDArray[np.float32]


def main() -> None:
    """Print the table and write the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="sgdm-mini")
    parser.add_argument("--out", type=Path, default=ROOT / "demo" / "styles")
    parser.add_argument("--only", choices=["seeds", "plot"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    looks = {name: pictures(pattern) for name, pattern in SOURCES.items()}
    if given.only is None:
        measure_styles(given.model, looks)
    if given.only != "plot":
        show_seeds(given.model, given.out / "seeds.jpg")
    if given.only != "seeds":
        plot(looks, drawn(given.model), given.out / "styles.png")


def measure_styles(model_name: str, looks: dict[str, list[Picture]]) -> None:
    """Print how far styles move results."""
    model = load_model(model_name, CPU, SamplerOptions())
    assert isinstance(model, Sgdm)
    print("| scene | style | of the way, means | deviations | edge F1 |")
    print("|---|---|---|---|---|")
    for scene, own in looks.items():
        lr = degraded(own[0])
        plain = upscaled(model, lr, None)
        for name, others in looks.items():
            if name != scene:
                styled = upscaled(model, lr, others[0])
                shares = [way(k, plain, styled, others[0]) for k in (0, 1)]
                moved = find_edges(styled.clip(0, 1), plain.clip(0, 1)).f1()
                print(
                    f"| {scene} | {name} | {shares[0]:.2f} | {shares[1]:.2f} |"
                    f" {moved:.3f} |",
                    flush=True,
                )


def show_seeds(name: str, path: Path) -> None:
    """Draw one scene with the styles of some seeds, and print what they are."""
    (source, *_) = SOURCES.values()
    lr = degraded(pictures(source)[0])
    plain = load_model(name, CPU, SamplerOptions())
    drawing = load_model(name, CPU, SamplerOptions(style_sample=True))
    made = [upscale_whole(plain, lr, Fraction(SCALE), CPU).clip(0, 1)]
    print("\n| seed | means | deviations | from the last | the same style |")
    print("|---|---|---|---|---|")
    for seed in range(SEEDS):
        made.append(upscale_whole(drawing, lr, Fraction(SCALE), CPU, seed).clip(0, 1))
        mean, std = ((x[0].numpy()) for x in statistics(made[-1]))
        apart = [rms(*made[-2:]), rms(*(neutral(x) for x in made[-2:]))]
        cells = [" ".join(f"{v:.2f}" for v in x) for x in (mean, std)]
        print(f"| {seed} | {' | '.join(cells)} | {apart[0]:.3f} | {apart[1]:.4f} |")
    strip = np.concatenate(made, 2)[:, : SIDE // 2].transpose(1, 2, 0)
    Image.fromarray((strip * 255).round().astype(np.uint8)).save(path, quality=85)


def neutral(picture: Picture) -> Picture:
    """Return a picture whose bands have the mean 0.5 and the deviation 0.1."""
    mean, std = picture.mean((1, 2)), picture.std((1, 2))
    return 0.5 + 0.1 * (picture - mean[:, None, None]) / std[:, None, None]


def rms(one: Picture, other: Picture) -> float:
    """Return the root mean square difference of two pictures."""
    return float(np.sqrt(np.mean((one - other) ** 2)))


def pictures(pattern: str) -> list[Picture]:
    """Return the middles of up to 40 images, (3, SIDE, SIDE) in [0, 1]."""
    found = []
    for path in sorted(data_folder().glob(pattern))[:40]:
        with rasterio.open(path) as image:
            pixels = image.read((1, 2, 3)).astype(np.float32) / 255
        top, left = ((length - SIDE) // 2 for length in pixels.shape[1:])
        found.append(pixels[:, top : top + SIDE, left : left + SIDE])
    return found


def degraded(hr: Picture) -> Picture:
    """Return LR of a picture by the Sentinel-2-like sensor."""
    size = (hr.shape[1] // SCALE, hr.shape[2] // SCALE)
    generator = torch.Generator().manual_seed(0)
    sensor = make_degradation("sentinel2", {})
    lr = sensor.degrade(torch.from_numpy(hr)[None], size, generator)
    return np.asarray(lr[0].numpy(), np.float32)


def upscaled(model: Sgdm, lr: Picture, style: Picture | None) -> Picture:
    """Return the result with a style, or without."""
    given = Conditions()
    if style is not None:
        given = Conditions(style=torch.from_numpy(style))
    return upscale_whole(model, lr, Fraction(SCALE), CPU, 0, given)


def way(which: int, plain: Picture, styled: Picture, style: Picture) -> float:
    """Return the share of the way to the style's statistics, mean over the bands.

    Args:
        which: 0 = the means, 1 = the deviations.
        plain: the result without a style.
        styled: the result with it.
        style: the style image.
    """
    own, got, wanted = (statistics(x)[which][0].numpy() for x in (plain, styled, style))
    whole = wanted - own
    return float((whole * (got - own)).sum() / (whole * whole).sum())


def statistics(picture: Picture) -> Statistics:
    """Return means and deviations of the bands, averaged to LR pixels."""
    return picture_statistics(torch.from_numpy(picture)[None], SCALE)


def drawn(name: str) -> Picture:
    """Return styles that SFlow draws, (DRAWN, 2, 3)."""
    model = load_model(name, CPU, SamplerOptions(style_sample=True))
    assert isinstance(model, Sgdm)
    flows = model.networks.flow_mean, model.networks.flow_std
    generator = torch.Generator().manual_seed(0)
    found = []
    for flow in flows:
        assert flow is not None
        eps = torch.randn(DRAWN, flow.loc.shape[1], generator=generator)
        with torch.no_grad():
            found.append(flow.sample(STYLE_TEMPERATURE * eps)[0])
    return np.asarray(torch.stack(found, 1).numpy(), np.float32)


def plot(looks: dict[str, list[Picture]], styles: Picture, path: Path) -> None:
    """Plot means and deviations, red along the bottom and blue up."""
    sheet = Image.new("RGB", (2 * PANEL, PANEL + 16 * (len(looks) + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for panel, (which, span) in enumerate(((0, 1.0), (1, 0.35))):
        left = panel * PANEL
        draw.rectangle((left + 30, 10, left + PANEL - 10, PANEL - 30), outline="black")
        title = f"{('mean', 'deviation')[which]}, 0 to {span:g}: red along, blue up"
        draw.text((left + 34, PANEL - 26), title, fill="black")
        points = {"drawn by SFlow": styles[:, which]} | {
            name: np.array([statistics(x)[which][0].numpy() for x in found])
            for name, found in looks.items()
        }
        for k, (name, numbers) in enumerate(points.items()):
            for red, _, blue in numbers:
                x = left + 30 + red / span * (PANEL - 40)
                y = PANEL - 30 - blue / span * (PANEL - 40)
                draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=COLOURS[k])
            draw.text((34, PANEL + 16 * k), name, fill=COLOURS[k])
    sheet.save(path)


if __name__ == "__main__":
    main()
