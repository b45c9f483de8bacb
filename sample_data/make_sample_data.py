"""Make the sample data: an invented town seen by satellite, aircraft and mapper.

`make_sample_data.py OUT_DIR` writes six files about one place on a UTM grid, byte for
byte the same each time with the same library versions. `make_town` gives any number of
other towns as arrays, with the true shapes that they were painted from. The town is
invented, the imagery is computed: no licence but this project's applies to either.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from town_canvas import Floats, shrunk
from town_cover import LAND_COVER, land_cover
from town_layout import lay_out_town, park_cars
from town_map import osm_document
from town_render import Sun, render
from town_sensor import aerial_numbers, display_tones, sentinel2
from town_shapes import Town

Number = TypeVar("Number", bound=np.generic)
SEED = 7
EXTENT_M = 960.0
# Drawn around the files, so that the satellite's blur sees real ground at their edges.
MARGIN_M = 40.0
FINEST_GSD_M = 0.625
CRS_UTM = CRS.from_epsg(32632)
UPPER_LEFT = (563200.0, 5393120.0)
BANDS = ("B04", "B03", "B02", "B08")
# A July morning, and a May noon five years before.
SUN_NOW = Sun(azimuth_deg=152, elevation_deg=52)
SUN_EARLIER = Sun(azimuth_deg=196, elevation_deg=58)
AERIAL_STEP_DN = 32
AERIAL_CROP_M = (330.0, 330.0, 320.0)


@dataclass(frozen=True)
class TownScene:
    """A town's true shapes and what they look like at two dates.

    Attributes:
        town: the shapes of both eras in local metres, x east, y north.
        gsd_m: metres per pixel of all arrays; they are north up and cover the square.
        now: (4, H, W) float32 reflectance, bands B04, B03, B02, B08.
        earlier: the same five years before, without what is new.
        cover: (H, W) uint8 land cover now, classes of `town_cover.LAND_COVER`.
        cover_earlier: the same five years before.
    """

    town: Town
    gsd_m: float
    now: Floats
    earlier: Floats
    cover: NDArray[np.uint8]
    cover_earlier: NDArray[np.uint8]

    @property
    def change(self) -> NDArray[np.uint8]:
        """(H, W) uint8: 0 where the cover stayed, else the class that it is now."""
        stayed = self.cover == self.cover_earlier
        return np.where(stayed, 0, self.cover).astype(np.uint8)


def make_town(seed: int, size_m: float, gsd_m: float) -> TownScene:
    """Draw and paint the town that belongs to a seed.

    Args:
        seed: any whole number that is not negative.
        size_m: side of the square in metres, 600 or more, a multiple of `gsd_m`.
        gsd_m: metres per pixel; texture goes down to 0.6 m.

    Returns:
        The scene, the same for the same arguments.

    Raises:
        ValueError: when the size does not suit the town or the pixels.
    """
    town = lay_out_town(seed, size_m)
    now, earlier = town.now(), town.earlier()
    return TownScene(
        town,
        gsd_m,
        render(now, gsd_m, SUN_NOW, "summer", park_cars(now, 1)),
        render(earlier, gsd_m, SUN_EARLIER, "spring", park_cars(earlier, 2)),
        land_cover(now, gsd_m),
        land_cover(earlier, gsd_m),
    )


def write_sample_data(out_dir: Path) -> list[Path]:
    """Write the sample files and return their paths.

    Args:
        out_dir: an existing folder; files of the same names are replaced.

    Returns:
        The six paths.
    """
    town = lay_out_town(SEED, EXTENT_M + 2 * MARGIN_M)
    now, earlier = town.now(), town.earlier()
    finest = render(now, FINEST_GSD_M, SUN_NOW, "summer", park_cars(now, 1))
    hr_gsd_m = 4 * FINEST_GSD_M
    before = render(earlier, hr_gsd_m, SUN_EARLIER, "spring", park_cars(earlier, 2))
    cover, cover_before = (land_cover(t, hr_gsd_m) for t in (now, earlier))
    change = np.where(cover == cover_before, 0, cover).astype(np.uint8)
    aerial, aerial_origin = _crop_aerial(finest)
    scene = _inner(sentinel2(finest, FINEST_GSD_M, SEED), 10.0)
    sensed = {"SOURCE": f"make_sample_data.py, seed {SEED}; an invented place"}
    return [
        _write_scene(out_dir / "town_s2.tif", _without_corner(scene), 10.0, 0, sensed),
        _write_scene(
            out_dir / "town_hr.tif",
            aerial_numbers(_inner(shrunk(finest, 4), hr_gsd_m), AERIAL_STEP_DN),
            hr_gsd_m,
            None,
            sensed,
        ),
        _write_photo(
            out_dir / "town_aerial.tif", aerial, FINEST_GSD_M, aerial_origin, sensed
        ),
        _write_photo(
            out_dir / "town_reference.tif",
            display_tones(_inner(before, hr_gsd_m)[:3], 0.38, 0.05),
            hr_gsd_m,
            UPPER_LEFT,
            sensed | {"ACQUISITION_DATE": "2018-05-14"},
        ),
        _write_change(out_dir / "town_change.tif", _inner(change, hr_gsd_m), hr_gsd_m),
        _write_map(out_dir / "town.osm", now),
    ]


def _inner(image: NDArray[Number], gsd_m: float) -> NDArray[Number]:
    """Return the image without the margin."""
    edge = int(MARGIN_M / gsd_m)
    return np.ascontiguousarray(image[..., edge:-edge, edge:-edge])


def _crop_aerial(finest: Floats) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Return the photograph of a part of town, and its upper left corner."""
    right, down, side = AERIAL_CROP_M
    rows, cols, n = (int(v / FINEST_GSD_M) for v in (down, right, side))
    part = _inner(finest, FINEST_GSD_M)[:3, rows : rows + n, cols : cols + n]
    return display_tones(part, 0.36, 0.0), (UPPER_LEFT[0] + right, UPPER_LEFT[1] - down)


def _without_corner(scene: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the scene cut by the slanting edge of the satellite's swath."""
    _, h, w = scene.shape
    rows, cols = np.mgrid[:h, :w]
    outside = (cols - (w - 15)) * 3 > rows
    return np.where(outside, 0, scene).astype(np.uint16)


# Files


def _write_scene(
    path: Path,
    numbers: NDArray[np.uint16],
    gsd_m: float,
    nodata: int | None,
    tags: Mapping[str, str],
) -> Path:
    """Write reflectance x 10000 with band names and the scale that undoes it."""
    profile = _profile(numbers, gsd_m, UPPER_LEFT) | {"nodata": nodata}
    with rasterio.open(
        path, "w", **profile, compress="deflate", predictor=2, zlevel=9
    ) as out:
        out.write(numbers)
        out.descriptions = BANDS
        out.scales = (0.0001,) * len(BANDS)
        out.offsets = (0.0,) * len(BANDS)
        out.update_tags(
            **tags, ACQUISITION_DATE="2023-07-12", QUANTIFICATION_VALUE=10000
        )
    return path


def _write_photo(
    path: Path,
    rgb: NDArray[np.uint8],
    gsd_m: float,
    upper_left: tuple[float, float],
    tags: Mapping[str, str],
) -> Path:
    profile = _profile(rgb, gsd_m, upper_left)
    profile |= {"tiled": True, "blockxsize": 128, "blockysize": 128}
    with rasterio.open(
        path,
        "w",
        **profile,
        compress="jpeg",
        jpeg_quality=88,
        photometric="ycbcr",
        interleave="pixel",
    ) as out:
        out.write(rgb)
        out.update_tags(**tags)
    return path


def _write_change(path: Path, change: NDArray[np.uint8], gsd_m: float) -> Path:
    profile = _profile(change[None], gsd_m, UPPER_LEFT)
    with rasterio.open(path, "w", **profile, compress="deflate", zlevel=9) as out:
        out.write(change, 1)
        out.descriptions = ("land cover where it changed since the reference",)
        out.write_colormap(1, {v: (*c.colour, 255) for v, c in LAND_COVER.items()})
        out.update_tags(**{f"CLASS_{v}": c.name for v, c in LAND_COVER.items()})
    return path


def _write_map(path: Path, town: Town) -> Path:
    left, top = UPPER_LEFT
    origin = (left - MARGIN_M, top - EXTENT_M - MARGIN_M)
    edge = (MARGIN_M, MARGIN_M, MARGIN_M + EXTENT_M, MARGIN_M + EXTENT_M)
    path.write_text(osm_document(town, CRS_UTM, origin, edge), encoding="utf-8")
    return path


def _profile(
    image: NDArray[np.generic], gsd_m: float, upper_left: tuple[float, float]
) -> dict[str, object]:
    count, height, width = image.shape
    return {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": image.dtype.name,
        "crs": CRS_UTM,
        "transform": Affine(gsd_m, 0, upper_left[0], 0, -gsd_m, upper_left[1]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=Path, help="Folder for the files.")
    out_dir = parser.parse_args(arguments).out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    for path in write_sample_data(out_dir):
        print(f"{path} {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
