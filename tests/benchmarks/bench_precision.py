"""How far bfloat16 is from float32.

``python tests/benchmarks/bench_precision.py DATA --model NAME ...`` enlarges cuts of
112 x 112 pixels at x4: four places each of two aerial images of Zurich and of three
Sentinel-2 scenes, stretched between the percentiles 0.5 and 99.5. It prints, for each
image and model, the largest difference in levels of 255, the one that 99.9 % of the
values keep to, and the mean.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from rsupres.upscaling.array import load_model, upscale_array

SIDE = 112
IMAGES = {  # bands of red, green and blue
    "aerial/europe/zurich_1091-322_00_0.5m_rgb_jpeg.tif": (1, 2, 3),
    "aerial/europe/zurich_e2690000_n1234000_0.5m_rgb.tif": (1, 2, 3),
    "sentinel2/demmin_de_S2_4band.tif": (3, 2, 1),
    "sentinel2/india_utm44n_S2_B03B04B08.tif": (3, 2, 1),
    "sentinel2/oscd_rio_20160424_S2L1C_4band_utm32723.tif": (3, 2, 1),
}


def main() -> None:
    """Print a line for each image and model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    for name in given.model:
        exact, rounded = (load_model(name, precision=p) for p in ("fp32", "bf16"))
        for image, bands in IMAGES.items():
            errors = [
                np.abs(upscale_array(cut, exact, 4) - upscale_array(cut, rounded, 4))
                for cut in cuts(given.data / image, bands)
            ]
            levels = 255 * np.stack(errors)
            print(
                f"{name} {Path(image).stem}: {levels.max():.2f} at the largest,"
                f" {np.quantile(levels, 0.999):.2f} at 99.9 %, mean {levels.mean():.3f}"
            )


def cuts(path: Path, bands: tuple[int, ...]) -> list[np.ndarray]:
    """Return cuts (3, 112, 112) in [0, 1] at the thirds of an image's sides."""
    with rasterio.open(path) as file:
        places = [
            (row * (file.height - SIDE) // 3, col * (file.width - SIDE) // 3)
            for row, col in ((1, 1), (1, 2), (2, 1), (2, 2))
        ]
        read = [
            file.read(bands, window=Window(col, row, SIDE, SIDE)).astype(np.float32)
            for row, col in places
        ]
    low, high = np.percentile(np.stack(read), (0.5, 99.5))
    return [np.clip((cut - low) / (high - low), 0.0, 1.0) for cut in read]


if __name__ == "__main__":
    main()
