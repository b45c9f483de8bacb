"""No command destroys a file of the user: an output is never an input, nor a device."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

import rsupres
from tests.cli.commands import contents, run
from tests.helpers import make_scene


def polygons(path: Path, lone_scene: Path) -> Path:
    import geopandas
    from shapely.geometry import box

    with rasterio.open(lone_scene) as dataset:
        frame = {"geometry": [box(*dataset.bounds)], "building": ["yes"]}
        geopandas.GeoDataFrame(frame, crs=dataset.crs).to_file(path, driver="GPKG")
    return path


def classes(path: Path) -> Path:
    return make_scene(path, pixels=np.full((1, 16, 16), 3, "uint8"))


Call = Callable[[Path, Path], tuple[object, ...]]
CALLS: dict[str, Call] = {
    "upscale": lambda s, t: ("upscale", s, s),
    "plan": lambda s, t: ("plan", s, s, "--model", "bicubic"),
    "uncertainty": lambda s, t: (
        *("upscale", s, t / "o.tif", "--samples", 2, "--uncertainty", s),
    ),
    "coverage": lambda s, t: (
        *("upscale", s, t / "o.tif", "--model", "refdiff-mini", "--scale", 8),
        *("--reference", t / "r.tif", "--reference-coverage", t / "r.tif"),
    ),
    "reference": lambda s, t: (
        *("upscale", s, t / "r.tif", "--model", "refdiff-mini", "--scale", 8),
        *("--reference", t / "r.tif"),
    ),
    "aoi": lambda s, t: ("upscale", s, t / "map.gpkg", "--aoi", t / "map.gpkg"),
    "batch": lambda s, t: ("batch", s, "--out-dir", s.parent),
    "batch of a folder": lambda s, t: ("batch", s.parent, "--out-dir", s.parent),
    "rasterize map": lambda s, t: (
        *("rasterize", t / "map.gpkg", t / "map.gpkg", "--like", s),
    ),
    "rasterize like": lambda s, t: ("rasterize", t / "map.gpkg", s, "--like", s),
    "change source": lambda s, t: (
        *("change", t / "codes.tif", t / "codes.tif", "--like", s),
    ),
    "change like": lambda s, t: ("change", t / "codes.tif", s, "--like", s),
    "sidecar": lambda s, t: ("upscale", s, f"{s}.msk"),
    "log file": lambda s, t: ("upscale", s, t / "o.tif", "--log-file", s),
    "options": lambda s, t: (
        *("upscale", "--config", t / "job.toml", s, t / "job.toml"),
    ),
    "list": lambda s, t: ("upscale", f"@{t / 'list.txt'}", t / "list.txt"),
    "log onto options": lambda s, t: (
        *("upscale", "--config", t / "job.toml", s, t / "o.tif"),
        *("--log-file", t / "job.toml"),
    ),
    "summary onto the list": lambda s, t: (
        *("batch", f"@{t / 'list.csv'}", "--out-dir", t / "out"),
        *("--summary", t / "list.csv"),
    ),
    "picture": lambda s, t: ("upscale", s, t / "o.tif", "--rgb8", s),
    "page": lambda s, t: ("upscale", s, t / "o.tif", "--report", s),
    "page of a pair": lambda s, t: ("report", s, s),
    "mask": lambda s, t: (*("upscale", s, t / "codes.tif", "--mask", t / "codes.tif"),),
    "style": lambda s, t: (
        *("upscale", s, t / "r.tif", "--model", "sgdm-mini", "--scale", 8),
        *("--style", t / "r.tif"),
    ),
    "weights": lambda s, t: ("upscale", s, t / "w.tif", "--model", t / "w.tif"),
    "legend": lambda s, t: (
        *("rasterize", t / "map.gpkg", t / "legend.toml", "--like", s),
        *("--legend", t / "legend.toml"),
    ),
    "tiles": lambda s, t: ("tile", s, s.parent),
    "virtual": lambda s, t: ("upscale", t / "v.vrt", s),
    "virtual in virtual": lambda s, t: ("upscale", t / "w.vrt", s),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_an_output_that_is_an_input_is_refused(
    lone_scene: Path, tmp_path: Path, name: str, overwrite: bool
) -> None:
    make_scene(tmp_path / "r.tif", 16, 16)
    polygons(tmp_path / "map.gpkg", lone_scene)
    classes(tmp_path / "codes.tif")
    (tmp_path / "job.toml").write_text('model = "bicubic"\n')
    for listed in ("list.txt", "list.csv"):
        (tmp_path / listed).write_text(f"{lone_scene}\n")
    shutil.copy(Path(rsupres.__file__).parent / "legends/classes.toml", tmp_path)
    (tmp_path / "classes.toml").rename(tmp_path / "legend.toml")
    (tmp_path / "w.tif").write_bytes(b"weights")
    text = (
        '<VRTDataset rasterXSize="16" rasterYSize="16"><VRTRasterBand dataType="UInt16"'
        ' band="1"><SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "v.vrt").write_text(text.format("in/scene.tif"))
    (tmp_path / "w.vrt").write_text(text.format("v.vrt"))
    before = contents(tmp_path)
    call = CALLS[name](lone_scene, tmp_path)
    result = run(*call, *(["--overwrite"] if overwrite else []))
    assert result.exit_code == 2, result.output
    assert "existed" not in result.output
    assert contents(tmp_path) == before


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_to_the_scene_is_the_scene(
    lone_scene: Path, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    link(lone_scene, tmp_path / "other.tif")
    before = contents(tmp_path)
    for call in (
        ("upscale", lone_scene, tmp_path / "other.tif", "--overwrite"),
        ("batch", lone_scene, "--out-dir", tmp_path, "--overwrite"),
    ):
        (tmp_path / "scene.tif").unlink(missing_ok=True)
        link(lone_scene, tmp_path / "scene.tif")
        assert run(*call, "--model", "bicubic").exit_code == 2
    (tmp_path / "scene.tif").unlink()
    assert contents(tmp_path) == before


def test_a_batch_beside_its_scenes_is_no_loss(lone_scene: Path, tmp_path: Path) -> None:
    result = run("batch", lone_scene, "--out-dir", tmp_path, "--model", "bicubic")
    assert result.exit_code == 0, result.output
    assert rasterio.open(tmp_path / "scene.tif").shape == (64, 64)


@pytest.mark.parametrize("overwrite", [False, True])
def test_special_files_and_folders_are_no_outputs(
    lone_scene: Path, tmp_path: Path, overwrite: bool
) -> None:
    polygons(tmp_path / "map.gpkg", lone_scene)
    more = ["--overwrite"] if overwrite else []
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for output in (tmp_path / "pipe", tmp_path / "folder"):
        for call in (
            ("upscale", lone_scene, output, "--model", "bicubic"),
            ("rasterize", tmp_path / "map.gpkg", output, "--like", lone_scene),
            ("mosaic", lone_scene.parent, output),
        ):
            assert run(*call, *more).exit_code in (2, 3)
        assert output.is_fifo() or output.is_dir()


def test_pictures_are_not_written_among_the_images(tmp_path: Path) -> None:
    make_scene(tmp_path / "a_x2.png", 32, 32, dtype="uint8", driver="PNG")
    before = contents(tmp_path)
    result = run(
        *("evaluate", tmp_path, "--model", "bicubic", "--scale", 2),
        *("--pictures", tmp_path),
    )
    assert result.exit_code == 2, result.output
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["a_2018.png", "a_2018.png.aux.xml", "a_2020.png.ovr"])
@pytest.mark.parametrize("command", ["evaluate", "dataset"])
def test_files_that_rules_name_are_no_outputs(
    tmp_path: Path, command: str, name: str
) -> None:
    """A sidecar of an image, by OLD=NEW or of GDAL, is neither log nor picture."""
    chips = tmp_path / "chips"
    chips.mkdir()
    for year in (2018, 2020):
        make_scene(chips / f"a_{year}.png", 32, 32, dtype="uint8", driver="PNG")
    (chips / "a_2018.png.aux.xml").write_text("<PAMDataset/>")
    before = contents(tmp_path)
    rules = ("--glob", "*_2020.png", "--reference-from", "2020=2018")
    call: tuple[object, ...] = ("evaluate", chips, "--model", "bicubic", "--scale", 2)
    if command == "dataset":
        call = ("dataset", "build", tmp_path / "p.safetensors", "--hr", chips)
    result = run(*call, *rules, "--log-file", chips / name)
    assert result.exit_code == 2, result.output
    assert contents(tmp_path) == before


def test_pictures_are_not_written_among_the_references(tmp_path: Path) -> None:
    for year in (2018, 2020):
        (tmp_path / f"{year}").mkdir()
        make_scene(tmp_path / f"{year}/a.png", 32, 32, dtype="uint8", driver="PNG")
    result = run(
        *("evaluate", tmp_path / "2020", "--model", "refdiff-mini", "--scale", 8),
        *("--reference-from", "2020=2018", "--pictures", tmp_path / "2018"),
    )
    assert result.exit_code == 2, result.output
    assert "--pictures" in result.stderr


@pytest.mark.parametrize("kind", ["link", "class table"])
def test_a_pack_does_not_replace_what_it_is_made_of(tmp_path: Path, kind: str) -> None:
    chips = tmp_path / "chips"
    chips.mkdir()
    for name in ("a_2018", "a_2020"):
        make_scene(chips / f"{name}.png", 32, 32, dtype="uint8", driver="PNG")
    out = tmp_path / "p.safetensors"
    more: tuple[object, ...] = ("--reference-from", "2020=2018")
    if kind == "link":
        os.link(chips / "a_2018.png", out)
    else:
        out.write_text("not read before the refusal")
        more = ("--change-mask-from", "2020=2018", "--class-table", out)
    before = contents(tmp_path)
    result = run(
        *("dataset", "build", out, "--hr", chips, "--glob", "*_2020.png"),
        *(*more, "--overwrite"),
    )
    assert result.exit_code in (2, 3), result.output
    assert contents(tmp_path) == before


def test_an_import_does_not_replace_its_source(tmp_path: Path) -> None:
    source = tmp_path / "net.safetensors"
    source.write_bytes(b"weights")
    result = run(
        *("models", "import", source, "--family", "slimdiffsr", "--out", source),
        "--overwrite",
    )
    assert result.exit_code == 2
    assert source.read_bytes() == b"weights"


def test_a_folder_of_others_is_no_run_directory(
    lone_scene: Path, tmp_path: Path
) -> None:
    for name in ("notes.tmp", "poetry.lock", "strips/mine.tif"):
        folder = tmp_path / f"run {name[:6]}"
        file = folder / name
        file.parent.mkdir(parents=True)
        file.write_text("mine")
        result = run(
            *("upscale", lone_scene, tmp_path / "o.tif", "--model", "bicubic"),
            *("--run-dir", folder),
        )
        assert result.exit_code == 5, result.output
        assert file.read_text() == "mine"


def test_no_advice_changes_a_file_in_place() -> None:
    """What edits a file may re-encode it (JPEG 2000), and makes it another input."""
    root = Path(rsupres.__file__).parent
    text = "\n".join(path.read_text() for path in sorted(root.rglob("*.py")))
    for tool in ("gdal_edit", "edit-info", "gdaladdo", "-update ", "gdal_fillnodata"):
        assert tool not in text
    assert text.count("gdal_translate -of VRT") >= 5


def test_advice_leaves_the_file_as_it_is(lone_scene: Path, tmp_path: Path) -> None:
    bare = make_scene(tmp_path / "bare.tif", crs=None)
    result = run("upscale", bare, tmp_path / "o.tif", "--model", "bicubic")
    assert result.exit_code == 3
    assert "gdal_translate -of VRT -a_srs" in result.stderr
    points = tmp_path / "points.tif"
    corners = ((0, 0), (0, 32), (24, 0))
    gcps = [GroundControlPoint(r, c, 15 + c / 1e3, 47 - r / 1e3) for r, c in corners]
    make_scene(points, transform=None, crs=CRS.from_epsg(4326), gcps=gcps)
    result = run("upscale", points, tmp_path / "o.tif", "--model", "bicubic")
    assert result.exit_code == 3
    assert "ground control points" in result.stderr
