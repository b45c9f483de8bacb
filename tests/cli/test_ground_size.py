"""Every door to the size of a pixel, on a scene of EPSG:3857 at 60 degrees north.

There, the projection shows lengths 1 / 0.50084 times as long as they are on the ground
(geometric mean of both directions on the ellipsoid).
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner, Result
from geopandas import GeoDataFrame
from rasterio.crs import CRS

from rsupres.cli import main
from rsupres.datasets.packs import Pack
from rsupres.products.sentinel2 import MIN_MTF
from rsupres.raster.dataset import Raster
from rsupres.tiles.batches import jobs as batch_jobs
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.preparation import model
from rsupres.upscaling.preparation.requirements import sampler_options
from tests.helpers import make_scene, ramp, write_image, write_vector

MERCATOR = CRS.from_epsg(3857)
CORNER = (1_100_000.0, 8_399_738.0)
ON_THE_GROUND = 0.50084  # metres of the ground in a metre of the projection


def placed(side: float) -> Affine:
    return Affine(side, 0, CORNER[0], 0, -side, CORNER[1])


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Pixels of 20 m in the file, 10 m on the ground."""
    return make_scene(tmp_path / "town.tif", crs=MERCATOR, transform=placed(20.0))


def run(*arguments: object) -> Result:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done


def test_plan_shows_the_size_on_the_ground(scene: Path) -> None:
    arguments = ("plan", scene, "--scale", 2, "--model", "bicubic")
    assert "32 x 24 pixels of 10.02 m" in run(*arguments).stdout
    planned = json.loads(run(*arguments, "--json").stdout)
    assert planned["gsd_m"] == pytest.approx(20 * ON_THE_GROUND, rel=1e-4)


def test_the_warning_of_another_pixel_size_looks_at_the_ground(tmp_path: Path) -> None:
    """SlimDiffSR was trained on 2.4 to 4.8 m."""
    arguments = ("--model", "slimdiffsr-mini", "--scale", 4)
    path = make_scene(tmp_path / "a.tif", crs=MERCATOR, transform=placed(8.0))
    assert "trained on" not in run("plan", path, *arguments).output  # 4.01 m
    near = make_scene(tmp_path / "b.tif", crs=MERCATOR, transform=placed(4.0))
    words = "2 m; model slimdiffsr-mini was trained on 2.4 to 4.8 m"
    assert words in run("plan", near, *arguments).output


def test_a_product_is_known_by_its_size_on_the_ground(tmp_path: Path) -> None:
    found = []
    for side in (10.0, 20.0):
        path = tmp_path / f"S2B_MSIL2A_{side:.0f}.tif"
        make_scene(path, crs=MERCATOR, transform=placed(side))
        job = UpscaleJob(
            scenes=(str(path),), output=tmp_path / "o.tif", scale=Fraction(4)
        )
        with Raster.open(str(path)) as opened:
            found.append(sampler_options(job, "cpu", opened, span=1.0).least_mtf)
    assert found == [None, MIN_MTF]


@pytest.mark.parametrize("place", [model, batch_jobs])
def test_the_default_model_is_chosen_by_the_ground(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: ModuleType
) -> None:
    asked = []

    def choose(bands: int, scale: Fraction, gsd_m: float, given: object) -> str:
        asked.append(gsd_m)
        return "bicubic"

    monkeypatch.setattr(place, "default_model", choose)
    run("tile", scene, tmp_path / "tiles", "--tile-size", 32, "--overlap", 8)
    given = scene if place is model else tmp_path / "tiles"
    run("batch", given, "--out-dir", tmp_path / "out", "--scale", 4)
    assert asked[0] == pytest.approx(20 * ON_THE_GROUND, rel=1e-4)


def test_a_pack_has_crops_of_the_size_on_the_ground(tmp_path: Path) -> None:
    folder = tmp_path / "hr"
    folder.mkdir()
    pixels = ramp(64, 64, 3, "uint8")
    write_image(folder / "town_1.tif", pixels, 0.6, CORNER, MERCATOR)
    out = tmp_path / "p.safetensors"
    run("dataset", "build", out, "--hr", folder, "--gsd", "0.3,0.6", "--crop-size", 32)
    crops = Pack.load(out)
    sizes = [origin.gsd_m for origin in crops.meta.crops]
    assert sizes == [0.3] * 4 + [0.6]  # 0.3 m: the file's own pixels, 0.6 m: each 2 x 2
    run("dataset", "build", out, "--hr", folder, "--crop-size", 64, "--overwrite")
    assert Pack.load(out).meta.crops[0].gsd_m == pytest.approx(
        0.6 * ON_THE_GROUND, abs=6e-4
    )


def test_roads_are_as_wide_as_on_the_ground(tmp_path: Path) -> None:
    """A road of 8 m has 16 pixels of 0.501 m; pixels of 1 m in the file would be 8."""
    path = make_scene(tmp_path / "a.tif", 40, 40, crs=MERCATOR, transform=placed(4.0))
    left, top = CORNER
    road = shapely.LineString([(left - 50, top - 80), (left + 500, top - 80)])
    roads = GeoDataFrame(
        {"highway": ["service"], "width": ["8"]}, geometry=[road], crs=MERCATOR
    )
    roads.to_file(tmp_path / "roads.gpkg", layer="roads")
    out = tmp_path / "m.tif"
    arguments = ("--like", path, "--scale", 4)
    done = run("rasterize", tmp_path / "roads.gpkg", out, *arguments)
    assert "160 x 160 pixels of 0.501 m" in done.stdout
    with rasterio.open(out) as file:
        column = file.read()[:, :, 80]
    drawn = (column != column[:, :1]).any(axis=0)
    assert np.count_nonzero(drawn) == 16


def test_areas_of_change_are_those_on_the_ground(scene: Path, tmp_path: Path) -> None:
    left, top = CORNER
    changed = shapely.box(left + 40, top - 120, left + 120, top - 40)  # 4 x 4 pixels
    polygons = write_vector(tmp_path / "c.gpkg", changed, crs=MERCATOR)
    out = tmp_path / "mask.tif"
    arguments = ("change", polygons, out, "--like", scene, "--scale", 1, "--json")
    (area,) = json.loads(run(*arguments).stdout)["changed"]
    assert area["pixels"] == 16
    assert area["area_m2"] == pytest.approx(16 * (20 * ON_THE_GROUND) ** 2, rel=1e-3)


@pytest.mark.parametrize(("minimum", "pixels"), [(1550, 16), (1700, 0)])
def test_the_smallest_change_is_measured_on_the_ground(
    scene: Path, tmp_path: Path, minimum: int, pixels: int
) -> None:
    """16 pixels of 10.02 m are 1,605 m2; by the file's metres, they were 6,400 m2."""
    before = np.full((1, 24, 32), 10, np.uint8)
    after = before.copy()
    after[0, 4:8, 6:10] = 50
    covers = [
        make_scene(
            tmp_path / f"{name}.tif",
            pixels=cover,
            crs=MERCATOR,
            transform=placed(20.0),
        )
        for name, cover in (("before", before), ("after", after))
    ]
    out = tmp_path / "mask.tif"
    arguments = ("--class-table", "worldcover", "--minimum-area", minimum)
    run("change", *covers, out, "--like", scene, "--scale", 1, *arguments)
    with rasterio.open(out) as file:
        assert np.count_nonzero(file.read(1) == 50) == pixels


def test_report_and_item_show_the_size_on_the_ground(
    scene: Path, tmp_path: Path
) -> None:
    output, page = tmp_path / "x2.tif", tmp_path / "x2.html"
    run(
        *("upscale", scene, output, "--scale", 2, "--model", "bicubic"),
        *("--stac", "--report", page),
    )
    item = json.loads((tmp_path / "x2.json").read_text())
    assert item["properties"]["gsd"] == pytest.approx(10 * ON_THE_GROUND, rel=1e-4)
    text = page.read_text()
    assert "5.01 m a pixel" in text
    assert "5.009 m" in text  # of the middle of the result
