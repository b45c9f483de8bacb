"""`rsupres dataset build` from 16-bit tiles, tile folders, and SECOND."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from geopandas import GeoDataFrame
from rasterio.crs import CRS
from shapely.geometry import box

from rsupres.cli import main
from rsupres.datasets.chips import Chip, coarsen, cut, read_chip
from rsupres.datasets.packs import Pack
from rsupres.errors import InputError
from rsupres.evaluation.images import chips_of_pack
from rsupres.training.batches import PatchSource
from rsupres.training.config import PatchOptions
from tests.cli.training.chips import GSD_M, build, run, write_noise
from tests.helpers import write_image


@pytest.fixture
def reflectance(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder with an image of four bands, 0 to 4000 DN, and its DN."""
    dn = np.random.default_rng(3).integers(0, 4001, (4, 32, 32), dtype=np.uint16)
    folder = tmp_path / "scenes"
    folder.mkdir()
    write_image(folder / "a.tif", dn, 10.0, (5e5, 5e6), CRS.from_epsg(32631))
    return folder, dn


def test_16_bits_keep_the_tones_of_every_triple_of_bands(
    reflectance: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, dn = reflectance
    options = ("--bits", 16, "--stretch", "0,4000", "--bidx", "3,2,1", "-b", "4,3,2")
    assert build(tmp_path / "p.safetensors", folder, *options).exit_code == 0
    pack = Pack.load(tmp_path / "p.safetensors")
    wanted = dn / 4000 * 65535
    for crop, bands in zip(pack.crops, ([2, 1, 0], [3, 2, 1]), strict=True):
        np.testing.assert_allclose(crop, wanted[bands], rtol=0, atol=0.51)
    assert [origin.place for origin in pack.meta.crops] == ["a", "a"]
    checked = run("check", tmp_path / "p.safetensors", "--json")
    mean = json.loads(checked.stdout)["mean"]
    assert mean == pytest.approx(dn[[2, 1, 0, 3, 2, 1]].mean() / 4000 * 255, abs=0.05)
    hr = PatchSource([pack], PatchOptions(lr_side=12, batch=1), 0).batch(0).hr
    assert hr.max() <= 1
    levels = (hr * 65535).round().to(torch.int64).unique()
    assert set(levels.tolist()) <= set(np.unique(np.stack(pack.crops)).tolist())
    assert len(levels) > 256
    (chip, _) = chips_of_pack(pack)
    np.testing.assert_allclose(chip.pixels, dn[[2, 1, 0]] / 4000 * 255, atol=0.51)


def test_16_bits_are_averaged_and_reduced_as_16_bits(
    reflectance: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, dn = reflectance
    options = ("--bits", 16, "--stretch", "0,4000", "--bidx", "3,2,1")
    coarse = tmp_path / "coarse.safetensors"
    scaled = tmp_path / "scaled.safetensors"
    big = tmp_path / "big"
    big.mkdir()
    write_image(
        big / "a.tif",
        dn.repeat(2, 1).repeat(2, 2),
        10.0,
        (5e5, 5e6),
        CRS.from_epsg(32631),
    )
    assert build(coarse, big, *options, "--gsd", 20).exit_code == 0
    wanted = dn[[2, 1, 0]] / 4000 * 65535
    np.testing.assert_allclose(Pack.load(coarse).crops[0], wanted, rtol=0, atol=0.51)
    made = build(scaled, folder, *options, "--scale", 2, "--degradation", "sentinel2")
    assert made.exit_code == 0, made.output
    (lr,) = Pack.load(scaled).lr
    assert lr.dtype == np.uint16
    assert lr.mean() == pytest.approx(wanted.mean(), rel=0.05)
    assert run("check", scaled).exit_code == 0


def test_a_pixel_without_one_of_its_bands_is_in_no_crop(tmp_path: Path) -> None:
    pixels = write_noise(tmp_path / "a.tif", 1)
    pixels[1, 3, 3] = 0
    write_image(tmp_path / "a.tif", pixels, GSD_M, (5e5, 5e6), CRS.from_epsg(32631), 0)
    assert not read_chip(tmp_path / "a.tif").valid[3, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bidx", "3,2"), "three bands"),
        (("--bidx", "5,2,1"), "no band 5"),
        (("--stretch", "9,1"), "the limits must rise"),
        (("--bits", "12"), "--bits"),
        (
            ("--lr-from", "a=b", "--scale", 2, "-b", "1,2,3", "-b", "3,2,1"),
            "more than one --bidx",
        ),
    ],
)
def test_wrong_bands_and_bits_are_refused(
    reflectance: tuple[Path, np.ndarray], tmp_path: Path, options, words: str
) -> None:
    result = build(tmp_path / "p.safetensors", reflectance[0], *options)
    assert result.exit_code in (2, 3)
    assert words in result.output
    assert not (tmp_path / "p.safetensors").exists()


def test_coarsening_is_the_mean_of_the_ground_at_any_ratio() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 47), dtype=np.uint8)
    valid = np.ones((50, 47), bool)
    valid[0, 0] = False
    coarse = coarsen(Chip(pixels, valid, 1.0, "x"), 2.5)
    assert coarse.pixels.shape == (3, 20, 18)
    # row 1, column 1 covers 2.5 to 5: half of pixel 2, then 3 and 4
    weight = np.array([0.5, 1, 1]) / 2.5
    expected = (pixels[:, 2:5, 2:5] * weight[:, None] * weight).sum((1, 2))
    np.testing.assert_allclose(coarse.pixels[:, 1, 1], expected, atol=0.51)
    assert not coarse.valid[0, 0]
    assert coarse.valid.sum() == coarse.valid.size - 1
    for chip, gsd_m in ((coarse, 1.0), (Chip(pixels, valid, 0.0, "x"), 2.0)):
        with pytest.raises(InputError):
            coarsen(chip, gsd_m)


def test_cutting_covers_without_overlap_and_skips_flat_parts() -> None:
    pixels = np.zeros((3, 60, 100), np.uint8)
    pixels[0] = np.arange(6000).reshape(60, 100) % 251
    pixels[:, :30, :50] = 9
    chip = Chip(pixels, np.ones((60, 100), bool), 1.0, "x")
    parts = list(cut(chip, 50))
    assert [p.name for p in parts] == ["x@0,50", "x@30,0", "x@30,50"]
    assert {p.pixels.shape for p in parts} == {(3, 30, 50)}
    assert next(cut(chip, 100)).name == "x"


def write_raster(path: Path, pixels: np.ndarray, gsd_m: float, east: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_image(path, pixels, gsd_m, (east, 5e6), CRS.from_epsg(32631))


@pytest.fixture
def tiled(tmp_path: Path) -> list[Path]:
    """Two towns as folders of tiles, with LR of their own, a reference and a mask."""
    folders = []
    for k, town in enumerate(("ulm", "bath")):
        rng = np.random.default_rng(k)
        east = 5e5 + 1e4 * k
        lr, hr, ref = (
            write_raster(
                tmp_path / f"{town}_{name}.tif",
                rng.integers(1, 256, (3, side, side), dtype=np.uint8),
                *(gsd_m, east),
            )
            for name, side, gsd_m in (("s2", 32, 4), ("hr", 128, 1), ("ref", 128, 1))
        )
        codes = np.zeros((1, 128, 128), np.uint8)
        codes[0, 20:60, 30:70] = 5
        mask = write_raster(tmp_path / f"{town}_mask.tif", codes, 1, east)
        command = [
            *("tile", lr, tmp_path / town, "--tile-size", 16, "--overlap", 0),
            *("--hr", hr, "--reference", ref, "--change-mask", mask),
            *("--class-table", "second"),
        ]
        done = CliRunner().invoke(main, [str(word) for word in command])
        assert done.exit_code == 0, done.output
        folders.append(tmp_path / town)
    return folders


def test_tile_folders_become_packs_split_by_scene(tmp_path: Path, tiled) -> None:
    inputs = [item for folder in tiled for item in ("--hr", folder)]
    done = run("build", tmp_path / "packs", *inputs, "--validation", "bath")
    assert done.exit_code == 0, done.output
    pack = Pack.load(tmp_path / "packs" / "train.safetensors")
    assert {crop.place for crop in pack.meta.crops} == {"ulm"}
    assert len(pack.crops) == 4
    assert (pack.meta.degradation, pack.meta.lr_scale) == ("stored", "4")
    assert pack.meta.layers == ("change_mask", "reference", "reference_valid")
    for k, part in enumerate(pack.meta.crops):
        row, col = (int(text) for text in part.source.split(".")[0].split("_"))
        window = np.s_[:, 64 * row : 64 * row + 64, 64 * col : 64 * col + 64]
        for name, found in (
            ("hr", pack.crops[k]),
            ("ref", pack.layers["reference"][k]),
            ("mask", pack.layers["change_mask"][k]),
        ):
            with rasterio.open(tmp_path / f"ulm_{name}.tif") as file:
                np.testing.assert_array_equal(found, file.read()[window])
        with rasterio.open(tmp_path / "ulm_s2.tif") as file:
            small = np.s_[:, 16 * row : 16 * row + 16, 16 * col : 16 * col + 16]
            np.testing.assert_array_equal(pack.lr[k], file.read()[small])
    assert run("check", tmp_path / "packs").exit_code == 0


@pytest.fixture
def mapped(tmp_path: Path) -> Callable[..., Path]:
    """Cut a town into tiles with a drawn map and a mask; by legend and class table."""

    def cut(name: str, legend: str, table: str, code: int) -> Path:
        rng = np.random.default_rng(4)
        lr, hr = (
            write_raster(
                tmp_path / f"{name}_{side}.tif",
                rng.integers(1, 256, (3, side, side), dtype=np.uint8),
                *(gsd_m, 5e5),
            )
            for side, gsd_m in ((32, 4), (128, 1))
        )
        codes = np.zeros((1, 128, 128), np.uint8)
        codes[0, 20:60, 30:70] = code
        mask = write_raster(tmp_path / f"{name}_mask.tif", codes, 1, 5e5)
        water = box(5e5 + 20, 5e6 - 90, 5e5 + 60, 5e6 - 30)
        town = GeoDataFrame({"natural": ["water"]}, geometry=[water], crs=32631)
        town.to_file(tmp_path / f"{name}.gpkg")
        command = [
            *("tile", lr, tmp_path / name, "--tile-size", 16, "--overlap", 0),
            *("--hr", hr, "--vector-map", tmp_path / f"{name}.gpkg"),
            *("--legend", legend, "--change-mask", mask, "--class-table", table),
        ]
        done = CliRunner().invoke(main, [str(word) for word in command])
        assert done.exit_code == 0, done.output
        return tmp_path / name

    return cut


def test_a_pack_of_tiles_names_their_legend_and_class_table(tmp_path, mapped) -> None:
    # In masks of Dynamic World 3 is grass, which is code 2 of its land covers.
    folder = mapped("town", "osm-carto", "dynamic-world", 3)
    out = tmp_path / "p.safetensors"
    for options in ((), ("--class-table", "dynamic-world")):
        done = run("build", out, "--hr", folder, "--overwrite", *options)
        assert done.exit_code == 0, done.output
        pack = Pack.load(out)
        assert (pack.meta.legend, pack.meta.classes) == ("osm-carto", "dynamic-world")
        for k, part in enumerate(pack.meta.crops):
            for kind, layer in (("map", "vector_map"), ("change", "change_mask")):
                with rasterio.open(folder / kind / part.source.split("@")[0]) as file:
                    np.testing.assert_array_equal(pack.layers[layer][k], file.read())
    assert any((crop == 3).any() for crop in pack.layers["change_mask"])
    done = run(
        *("build", tmp_path / "q.safetensors", "--hr", folder),
        *("--class-table", "second"),
    )
    assert done.exit_code == 3
    assert "classes of dynamic-world, not of second" in done.stderr
    assert not (tmp_path / "q.safetensors").exists()


@pytest.mark.parametrize(
    ("legend", "table"),
    [
        ("maptiler", "second"),
        pytest.param("osm-carto", "cnam-cd", marks=pytest.mark.slow),
    ],
)
def test_tiles_of_two_legends_or_tables_are_no_pack(
    tmp_path, mapped, legend, table
) -> None:
    one, other = mapped("a", "osm-carto", "second", 3), mapped("b", legend, table, 3)
    done = run("build", tmp_path / "p.safetensors", "--hr", one, "--hr", other)
    assert done.exit_code == 3
    assert "make a pack of each" in done.stderr
    assert not (tmp_path / "p.safetensors").exists()


@pytest.mark.slow
def test_tiles_of_one_scene_are_never_in_both_splits(tmp_path: Path, tiled) -> None:
    inputs = [item for folder in tiled for item in ("--hr", folder)]
    done = run("build", tmp_path / "packs", *inputs, "--validation", "000_*")
    assert done.exit_code == 3
    assert "places are bath, ulm" in done.stderr
    done = run("build", tmp_path / "packs", "--hr", tiled[0], "--validation", "ulm")
    assert done.exit_code == 3
    assert "nothing is left to train" in done.stderr
    assert not (tmp_path / "packs" / "train.safetensors").exists()


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """SECOND as Ref-Diff's authors arrange it, one image."""
    folder = tmp_path / "SECOND" / "RefSR_dataset" / "train"
    rng = np.random.default_rng(8)
    for name, side in (("HR_512", 64), ("Ref", 64), ("real_LR_D8_64", 8)):
        pixels = rng.integers(1, 256, (3, side, side), dtype=np.uint8)
        write_raster(folder / name / "00042.tif", pixels, 1, 5e5)
    codes = np.zeros((1, 64, 64), np.uint8)
    codes[0, 5:20, 8:30] = 4
    write_raster(folder / "CD_mask" / "00042.tif", codes, 1, 5e5)
    return folder


@pytest.mark.parametrize("scale", [None, 8])
def test_second_is_read_as_it_is_arranged(tmp_path: Path, second, scale) -> None:
    out = tmp_path / "s.safetensors"
    options = () if scale is None else ("--scale", scale)
    done = run("build", out, "--hr", second, "--class-table", "second", *options)
    assert done.exit_code == 0, done.output
    pack = Pack.load(out)
    assert pack.meta.classes == "second"
    assert pack.meta.degradation == ("bicubic" if scale is None else "stored")
    assert pack.meta.crops[0].place == "00042"
    for name, layer in (("Ref", "reference"), ("CD_mask", "change_mask")):
        with rasterio.open(second / name / "00042.tif") as file:
            np.testing.assert_array_equal(pack.layers[layer][0], file.read())


def test_masks_of_second_in_its_colours(tmp_path: Path, second) -> None:
    (second / "CD_mask").rename(second / "CD_mask_RGB")
    colours = np.full((3, 64, 64), 255, np.uint8)
    colours[:, 9:30, 3:12] = np.array([0, 255, 0], np.uint8)[:, None, None]
    write_raster(second / "CD_mask_RGB" / "00042.tif", colours, 1, 5e5)
    out = tmp_path / "s.safetensors"
    done = run("build", out, "--hr", second, "--class-table", "second")
    assert done.exit_code == 0, done.output
    mask = Pack.load(out).layers["change_mask"][0]
    assert (mask[0, 9:30, 3:12] == 4).all()
    assert (mask > 0).sum() == 21 * 9


def test_mask_values_without_or_outside_their_table_are_refused(
    tmp_path: Path, second, chips
) -> None:
    out = tmp_path / "s.safetensors"
    done = run("build", out, "--hr", second)
    assert done.exit_code == 2
    assert "--class-table" in done.stderr
    codes = np.full((1, 64, 64), 77, np.uint8)
    write_raster(second / "CD_mask" / "00042.tif", codes, 1, 5e5)
    done = run("build", out, "--hr", second, "--class-table", "cnam-cd")
    assert done.exit_code == 3
    assert "77 not in class table cnam-cd" in done.stderr
    done = run("build", out, "--hr", second, "--scale", 4, "--class-table", "second")
    assert done.exit_code == 3
    assert "_LR_D4_" in done.stderr
    assert run("build", out, "--hr", chips, "--class-table", "second").exit_code == 2
    assert run("build", out, "--hr", chips, "--hr", second).exit_code == 3
    assert not out.exists()
