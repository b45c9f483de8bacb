"""SGDM through the command line: what users asked for in vain, and what cannot work."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from click.testing import CliRunner

from rsupres.checkpoints.convert.sgdm_names import TEXT
from rsupres.checkpoints.file import write_checkpoint
from rsupres.cli import main
from rsupres.families.sgdm.config import SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.resolver import make_spec
from rsupres.families.storage import config_to_json
from tests.checkpoints.convert.test_sgdm import REAL, Weights, released, save, tower
from tests.families.sgdm.test_sgdm import LATENT, MINI, SCALE, STYLED, checkpoint
from tests.helpers import NORTH_UP, make_scene

NOMAP = replace(
    STYLED,
    encoder=replace(STYLED.encoder, modulated=None, style=False),
    flow=None,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights of every variant, and weights that are no numbers."""
    kinds = {
        "mini": MINI,
        "latent": LATENT,
        "styled": STYLED,
        "flowless": replace(STYLED, flow=None),
        "nomap": NOMAP,
    }
    found = {
        name: checkpoint(tmp_path_factory.mktemp(name), config, halo=2)
        for name, config in kinds.items()
    }
    for name, config in (("nan mini", MINI), ("nan styled", STYLED)):
        path = tmp_path_factory.mktemp("nan") / "nan.safetensors"
        found[name] = broken(path, config)
    return found


def broken(path: Path, config: SgdmConfig) -> Path:
    networks = SgdmNetworks(config)
    networks.unet.conv_out.weight.data[0, 0, 0, 0] = math.nan
    tensors = dict(networks.state_dict())
    spec = make_spec(config, (int(SCALE),), halo=2)
    write_checkpoint(path, tensors, spec, config_to_json(config), "broken")
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """10 m, sides that are no multiple of anything."""
    pixels = np.random.default_rng(0).integers(300, 4000, (3, 13, 19))
    return make_scene(tmp_path / "scene.tif", pixels=pixels.astype(np.uint16))


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """One building and one road, in the scene."""
    x, y = NORTH_UP.c, NORTH_UP.f
    corners = ((30, 30), (90, 30), (90, 80), (30, 80), (30, 30))
    ring = [[x + east, y - south] for east, south in corners]
    road = [[x + 5, y - 5], [x + 180, y - 110]]
    shapes = (
        ({"building": "yes"}, {"type": "Polygon", "coordinates": [ring]}),
        ({"highway": "primary"}, {"type": "LineString", "coordinates": road}),
    )
    document = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}},
        "features": [
            {"type": "Feature", "properties": tags, "geometry": geometry}
            for tags, geometry in shapes
        ],
    }
    path = tmp_path / "town.geojson"
    path.write_text(json.dumps(document))
    return path


def run(*arguments: object) -> tuple[int, str]:
    """Run `rsupres`; return exit code and what was said."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.stderr


def upscale(scene: Path, model: Path, *options: object) -> tuple[int, str, Path]:
    """Return exit code, what was said, and the output."""
    output = scene.with_name("out.tif")
    base = ("upscale", scene, output, "--model", model, "--scale", 8, "--overwrite")
    return *run(*base, *options), output


def pixels_of(result: tuple[int, str, Path]) -> np.ndarray:
    code, told, output = result
    assert code == 0, told
    with rasterio.open(output) as dataset:
        return np.asarray(dataset.read())


@pytest.mark.parametrize("model", ["nan mini", "nan styled"])
def test_numbers_that_are_none_end_in_7_and_leave_no_output(
    scene: Path, models: dict[str, Path], model: str
) -> None:
    code, told, output = upscale(scene, models[model])
    assert code == 7, told
    assert "NaN or infinity" in told.splitlines()[-1]
    assert not output.exists()
    assert not output.with_name("out.tif.run").exists()


@pytest.mark.parametrize("model", ["mini", "styled", "nomap"])
def test_any_side_is_padded_and_cropped_back(
    scene: Path, models: dict[str, Path], model: str
) -> None:
    """Stable Diffusion's U-Net alone takes multiples of 64 SR pixels."""
    code, told, output = upscale(scene, models[model])
    assert code == 0, told
    with rasterio.open(output) as dataset:
        assert (dataset.height, dataset.width) == (13 * 8, 19 * 8)
        assert dataset.transform.almost_equals(NORTH_UP @ Affine.scale(1 / 8))
        assert len(np.unique(dataset.read(1))) > 100


def test_a_map_changes_what_comes_out(
    scene: Path, town: Path, models: dict[str, Path]
) -> None:
    for model in ("mini", "styled"):
        without = pixels_of(upscale(scene, models[model]))
        shown = upscale(scene, models[model], "--vector-map", town)
        assert not np.array_equal(pixels_of(shown), without)
        with rasterio.open(shown[2]) as dataset:
            assert "town.geojson" in dataset.tags()["RSUPRES_VECTOR_MAP"]


@pytest.mark.slow
def test_a_map_in_other_colours_is_warned_about(
    scene: Path, town: Path, models: dict[str, Path]
) -> None:
    options = ("--vector-map", town, "--legend", "osm-carto")
    code, told, output = upscale(scene, models["styled"], *options)
    assert code == 0, told
    assert "maptiler" in told
    assert "prompt" in told
    assert output.exists()
    _, told, _ = upscale(scene, models["styled"], "--vector-map", town)
    assert "none of the colours" not in told


@pytest.mark.slow
def test_what_released_scripts_ignore_works(
    scene: Path, tmp_path: Path, models: dict[str, Path]
) -> None:
    """Steps, seed, device, sampler; a style given, drawn, and switched off."""
    style = make_scene(tmp_path / "style.png", 40, 50, dtype="uint8", driver="PNG")
    model = models["styled"]
    options = (
        (),
        ("--steps", 5),
        ("--steps", 5, "--sampler", "unipc"),
        ("--style", style),
        ("--style-sample",),
        ("--style-sample", "--seed", 1),
    )
    made = [
        pixels_of(upscale(scene, model, "--device", "cpu", *more)) for more in options
    ]
    for k, one in enumerate(made):
        assert not any(np.array_equal(one, two) for two in made[:k]), options[k]


def refused(result: tuple[int, str, Path], code: int, *words: str) -> None:
    got, told, output = result
    assert got == code, told
    last = told.splitlines()[-1]
    assert all(word in last for word in words), told
    assert "Traceback" not in told
    assert not output.exists()
    assert not output.with_name("out.tif.run").exists()


def test_styles_and_maps_that_cannot_be_are_refused(
    scene: Path,
    town: Path,
    tmp_path: Path,
    models: dict[str, Path],
) -> None:
    def attempt(model: str, *options: object) -> tuple[int, str, Path]:
        return upscale(scene, models[model], *options)

    grey = make_scene(tmp_path / "grey.tif", 40, 50, 2, "uint8")
    refused(attempt("styled", "--style", grey), 3, "grey.tif", "2 band")
    drawn = attempt("flowless", "--style-sample")
    refused(drawn, 3, "flow_mean and flow_std")
    refused(attempt("latent", "--style", grey), 3, "--style")
    refused(attempt("nomap", "--vector-map", town), 3, "--vector-map")
    refused(attempt("styled", "--steps", 1001), 3, "1 to 1000")
    refused(attempt("styled", "--sampler", "heun"), 3, "unipc")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("model.diffusion_model.", ("U-Net", "v2-1_512-ema-pruned.ckpt")),
        ("first_stage_model.", ("autoencoder", "stable-diffusion-2-1-base")),
        (TEXT, ("text encoder", "open_clip_pytorch_model.bin")),
    ],
)
def test_an_import_without_the_base_says_what_to_get_and_where_to_put_it(
    tmp_path: Path, missing: str, words: tuple[str, ...]
) -> None:
    whole: Weights = released(REAL) | {TEXT + n: t for n, t in tower().items()}
    kept = {n: t for n, t in whole.items() if not n.startswith(missing)}
    source = save(tmp_path / "SGDM-real.ckpt", kept)
    out = tmp_path / "x.safetensors"
    code, told = run("models", "import", source, "--family", "sgdm", "--out", out)
    assert code == 4, told
    last = told.splitlines()[-1]
    assert all(word in last for word in words), last
    assert "name it beside the authors' checkpoint" in last
    assert not out.exists()


@pytest.mark.slow
def test_an_import_upscales(tmp_path: Path, scene: Path) -> None:
    """The base in a file of its own, as a user has it."""
    whole = released(REAL)
    base = {n: t for n, t in whole.items() if not n.startswith("adapter.")}
    base |= {TEXT + n: t for n, t in tower().items()}
    adapter = {n: t for n, t in whole.items() if n not in base}
    sources = [
        save(tmp_path / "SGDM-real.ckpt", adapter),
        save(tmp_path / "v2-1_512-ema-pruned.ckpt", base),
    ]
    out = tmp_path / "x.safetensors"
    options = ("--family", "sgdm", "--out", out, "--set", "scale=8")
    code, told = run("models", "import", *sources, *options)
    assert code == 0, told
    torch.manual_seed(0)
    pixels_of(upscale(scene, out, "--steps", 2))
