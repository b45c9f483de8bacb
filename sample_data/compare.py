"""Put rasters of one place side by side in a PNG: the same ground, the same tones.

`compare.py OUT.png TITLE=FILE... --bounds W S E N` shows bands 1-3 of each file. Pixels
are repeated, never smoothed, so that a coarse file looks coarse. Files of 8 bits (maps,
photographs) are shown in their own colours, all others in the tones of the last one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rasterio.enums import Resampling
from rasterio.windows import from_bounds

Bounds = tuple[float, float, float, float]
GAP = 6
TITLE_HEIGHT = 18


def read_rgb(path: Path, bounds: Bounds, side: int) -> NDArray[np.generic]:
    """Return (3, h, w) of bands 1-3 inside ground bounds, the wider side `side`."""
    with rasterio.open(path) as source:
        window = from_bounds(*bounds, transform=source.transform)
        longest = max(window.height, window.width)
        shape = (
            3,
            round(window.height * side / longest),
            round(window.width * side / longest),
        )
        pixels: NDArray[np.generic] = source.read(
            (1, 2, 3), window=window, out_shape=shape, resampling=Resampling.nearest
        )
    return pixels


def find_tones(parts: Sequence[NDArray[np.generic]]) -> tuple[float, float]:
    """Return black and white for parts that are not of 8 bits: those of the last."""
    numbers = [part for part in parts if part.dtype != np.uint8]
    if not numbers:
        return 0.0, 1.0
    low, high = np.percentile(numbers[-1].astype(np.float64), (0.5, 99.5))
    return float(low), float(high)


def to_rgb(part: NDArray[np.generic], tones: tuple[float, float]) -> Image.Image:
    """Return a part (3, h, w) as a picture; 8 bits as they are."""
    if part.dtype != np.uint8:
        low, high = tones
        light = np.clip((part.astype(np.float64) - low) / (high - low), 0, 1)
        part = np.rint(255 * np.sqrt(light)).astype(np.uint8)
    return Image.fromarray(part.transpose(1, 2, 0))


def compare(
    files: Sequence[tuple[str, Path]], bounds: Bounds, side: int
) -> Image.Image:
    """Return the picture.

    Args:
        files: titles and rasters that cover the bounds, in the same units or in 8 bits.
        bounds: west, south, east, north in the files' CRS.
        side: pixels of the longer side of each part.

    Returns:
        The parts in a row, under their titles.
    """
    parts = [read_rgb(path, bounds, side) for _, path in files]
    tones = find_tones(parts)
    height, width = parts[0].shape[1:]
    sheet = Image.new(
        "RGB", (len(parts) * (width + GAP) - GAP, height + TITLE_HEIGHT), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for i, (part, (title, _)) in enumerate(zip(parts, files, strict=True)):
        sheet.paste(to_rgb(part, tones), (i * (width + GAP), TITLE_HEIGHT))
        draw.text((i * (width + GAP), 2), title, fill="black")
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture that the command line describes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="The PNG to write.")
    parser.add_argument("files", nargs="+", help="TITLE=FILE for each part.")
    parser.add_argument(
        "--bounds", nargs=4, type=float, required=True, help="W S E N of the ground."
    )
    parser.add_argument(
        "--side", type=int, default=384, help="Pixels of a part's longer side."
    )
    chosen = parser.parse_args(arguments)
    files = [(t, Path(f)) for t, _, f in (part.partition("=") for part in chosen.files)]
    compare(files, tuple(chosen.bounds), chosen.side).save(chosen.out)
    print(chosen.out)


if __name__ == "__main__":
    main()
