"""The public functions: what `import rsupres` offers, and that it works."""

from __future__ import annotations

import inspect
import runpy
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio

import rsupres
from rsupres.change.write import ChangeMaskOptions
from rsupres.cli import main as command_line
from rsupres.errors import InputError
from rsupres.output.strips import WritingOptions
from rsupres.tiles.request import BatchOptions, TileOptions
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.request import UpscaleOptions
from rsupres.vector.rasterize import RasterizeOptions

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "sample_data"
SCENE = SAMPLE / "town_s2.tif"
# What only the command line has.
OF_THE_TERMINAL = {
    *("verbose", "quiet", "as_json", "log_file", "log_format", "debug"),
    *("config", "print_config", "time_limit_s", "is_plan", "threads"),
}
OF_THE_TERMINAL |= {"report"}  # `make_report` does it
OF_PYTHON = {"progress", "on_progress", "on_item", "elsewhere"}
# Python has `elsewhere` in their place.
OF_CLUSTERS = {"dask", "dask_scheduler_file", "dask_local", "dask_resources"}


def options_of(command: str) -> set[str]:
    found = command_line.get_command(click.Context(command_line), command)
    assert found is not None
    names = {p.name or "" for p in found.params if not getattr(p, "hidden", False)}
    return names - OF_THE_TERMINAL - OF_CLUSTERS


def arguments_of(function: str, *more: type) -> set[str]:
    parameters = inspect.signature(getattr(rsupres, function)).parameters.values()
    names = {p.name for p in parameters if p.kind != p.VAR_KEYWORD}
    for kind in more:
        names |= set(kind.__annotations__)
    return names - OF_PYTHON


def test_dir_shows_exactly_the_public_names() -> None:
    assert dir(rsupres) == sorted(rsupres.__all__)
    for name in rsupres.__all__:
        assert getattr(rsupres, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rsupres.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("name", "command", "kinds", "positional"),
    [
        ("upscale", "upscale", (UpscaleOptions,), {"scene": "scenes"}),
        ("plan", "plan", (UpscaleOptions,), {"scene": "paths", "output": "paths"}),
        ("tile", "tile", (TileOptions,), {"scene": "scenes"}),
        ("mosaic", "mosaic", (WritingOptions,), {}),
        ("rasterize", "rasterize", (RasterizeOptions,), {}),
        ("change_mask", "change", (ChangeMaskOptions,), {}),
        ("make_report", "report", (), {}),
    ],
)
def test_arguments_are_the_options_of_the_command(
    name: str, command: str, kinds: Sequence[type], positional: dict[str, str]
) -> None:
    arguments = {positional.get(n, n) for n in arguments_of(name, *kinds)}
    assert arguments == options_of(command)


def test_batch_takes_the_options_of_upscale() -> None:
    assert arguments_of("batch", BatchOptions) == options_of("batch")


def test_options_are_the_fields_of_a_job() -> None:
    renamed = {"bands": "named_bands", "co": "creation"}
    options = {renamed.get(name, name) for name in UpscaleOptions.__annotations__}
    wanted = {field.name for field in fields(UpscaleJob)}
    assert options == wanted - {
        *("scenes", "output", "store", "scale", "interval_low", "interval_high")
    }


def test_upscale_takes_paths_mappings_and_fractions_as_people_write_them(
    tmp_path: Path,
) -> None:
    summary = rsupres.upscale(
        [SCENE],
        tmp_path / "out.tif",
        scale=1.5,
        model="bicubic",
        bands=None,
        bidx=[2, 1],
        other_bands="skip",
        bounds=(563400, 5392400, 563700, 5392700),
        co={"COMPRESS": "LZW"},
        driver="GTiff",
        fail_if=["valid<0.1"],
    )
    assert summary.status == "written"
    assert summary.figures["valid"] == 1.0
    with rasterio.open(summary.output) as file:
        assert (file.count, file.height, file.width) == (2, 45, 45)
        assert file.compression.name == "lzw"


def test_plan_writes_nothing_and_knows_the_model(tmp_path: Path) -> None:
    plan = rsupres.plan(SCENE, tmp_path / "out.tif", scale="4")
    assert plan.model == "optical-small"
    assert list(tmp_path.iterdir()) == []


def test_rasterize_burns_classes(tmp_path: Path) -> None:
    made = rsupres.rasterize(
        SAMPLE / "town.osm", tmp_path / "map.tif", like=SCENE, scale=2
    )
    assert made.counts["building"] > 50
    with rasterio.open(made.output) as file:
        assert set(np.unique(file.read())) > {0, 1, 2}


def test_change_mask_tells_how_much_changed(tmp_path: Path) -> None:
    made = rsupres.change_mask(
        SAMPLE / "town_change.tif",
        tmp_path / "mask.tif",
        like=SCENE,
        class_table="second",
    )
    assert 0.0 < made.share < 0.2
    with pytest.raises(InputError, match="threshold has no effect for one source"):
        rsupres.change_mask(
            SCENE, tmp_path / "none.tif", like=SCENE, method="auto", threshold=3.0
        )


def test_a_run_has_its_format_already(tmp_path: Path) -> None:
    run = tmp_path / "out.tif.run"
    rsupres.upscale(
        SCENE,
        tmp_path / "out.tif",
        model="bicubic",
        tile_size=32,
        shard=(1, 2),
        run_dir=run,
    )
    with pytest.raises(InputError, match="dtype was settled"):
        rsupres.mosaic(run, tmp_path / "out.tif", dtype="float32")
    made = rsupres.mosaic(run, tmp_path / "out.tif")
    assert made.output.is_file()


def test_tile_refuses_an_option_without_its_condition(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="legend needs a ") as found:
        rsupres.tile(SCENE, tmp_path / "tiles", legend="maptiler")
    assert found.value.remedies == ("vector_map",)


def run_example(name: str, *arguments: object) -> None:
    before = sys.argv
    sys.argv = [name, *map(str, arguments)]
    try:
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    finally:
        sys.argv = before


def test_the_example_of_an_array_runs(tmp_path: Path) -> None:
    run_example("numpy_array.py", SCENE, tmp_path / "sr.npy")
    assert np.load(tmp_path / "sr.npy").shape == (3, 384, 384)


def test_the_example_of_a_scene_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("scene.py", SCENE, tmp_path / "x4.tif", SAMPLE / "town_hr.tif")
    assert "PSNR 33." in capsys.readouterr().out


def test_the_example_of_a_folder_of_tiles_runs(tmp_path: Path) -> None:
    run_example("tile_folder.py", SCENE, SAMPLE / "town.osm", tmp_path)
    with rasterio.open(tmp_path / "mosaic.tif") as file:
        assert (file.height, file.width) == (384, 384)
