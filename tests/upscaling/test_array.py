"""Arrays in memory: the same pixels as a scene of a file, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

import rsupres
from rsupres.errors import GridError, InputError
from rsupres.upscaling.array import Model
from tests.fakes import LookingModel, spec
from tests.helpers import make_scene

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def model() -> Model:
    return rsupres.load_model("e2diffsr-small")


def noise(height: int, width: int, bands: int = 3) -> np.ndarray:
    return RNG.random((bands, height, width), np.float32)


@pytest.mark.slow
def test_an_array_gives_the_pixels_of_a_scene_in_the_same_tiles(
    tmp_path: Path, model: Model
) -> None:
    dn = RNG.integers(0, 256, (3, 40, 52), np.uint8)
    scene = make_scene(tmp_path / "scene.tif", pixels=dn, photometric="RGB")
    out = tmp_path / "out.tif"
    rsupres.upscale(
        scene, out, scale=2, model="e2diffsr-small", tile_size=40, dtype="float32"
    )
    with rasterio.open(out) as file:
        wanted = file.read()
    unit = dn.astype(np.float32) / 255
    sr = rsupres.upscale_array(unit, model, scale=2, tile_size=40)
    np.testing.assert_allclose(255 * sr, wanted, atol=0.02)


def test_a_scene_of_unit_values_gives_the_array_bit_for_bit(tmp_path: Path) -> None:
    unit = noise(44, 60)
    scene = make_scene(tmp_path / "scene.tif", pixels=unit, photometric="RGB")
    options = {"scale": 2, "seed": 3, "tile_size": 40}
    out = tmp_path / "out.tif"
    rsupres.upscale(scene, out, model="e2diffsr-small", stretch="0,1", **options)
    with rasterio.open(out) as file:
        wanted = file.read()
    sr = rsupres.upscale_array(unit, "e2diffsr-small", **options)
    np.testing.assert_array_equal(sr, wanted)


def test_conditions_reach_every_tile_of_an_array() -> None:
    names = frozenset({"vector_map", "reference", "change_mask", "style"})
    fake = LookingModel(spec(bands=("red", "green", "blue"), accepts=names))
    model = Model("fake", fake, torch.device("cpu"))
    given = {
        "vector_map": noise(60, 80),
        "reference": noise(60, 80),
        "change_mask": RNG.integers(0, 3, (60, 80), np.uint8),
        "style": noise(9, 7),
    }
    lr = noise(30, 40)
    tiled = rsupres.upscale_array(lr, model, scale=2, tile_size=16, **given)
    assert len(fake.batches) > 1
    whole = rsupres.upscale_array(lr, model, scale=2, tile_size=40, **given)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    assert all(len(seen.given()) == 5 for seen in fake.seen)


def test_progress_is_shown_only_when_asked_for(model: Model, capsys) -> None:
    rsupres.upscale_array(noise(16, 16), model, scale=2)
    assert capsys.readouterr().err == ""
    rsupres.upscale_array(noise(16, 16), model, scale=2, progress=True)
    assert "Tiles" in capsys.readouterr().err


def test_an_array_of_one_tile_needs_no_seam_and_any_size_is_allowed(
    model: Model,
) -> None:
    sr = rsupres.upscale_array(noise(19, 23), model, scale="10/3")
    assert sr.shape == (3, 63, 76)
    assert sr.dtype == np.float32


def test_the_same_seed_gives_the_same_array(model: Model) -> None:
    lr = noise(16, 16)
    one, two = (rsupres.upscale_array(lr, model, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_a_reference_changes_only_where_it_is_valid() -> None:
    lr, reference = noise(32, 32), noise(256, 256)
    valid = np.zeros((256, 256), bool)
    valid[:, :96] = True
    model = rsupres.load_model("refdiff-mini", "cpu", precision="fp32")
    with_it = rsupres.upscale_array(
        lr, model, 8, reference=reference, reference_valid=valid
    )
    without = rsupres.upscale_array(lr, model, 8)
    changed = np.abs(with_it - without).max(axis=(0, 1))
    assert changed[:64].min() > 0.01
    assert changed[-32:].max() < 1e-5


@pytest.mark.parametrize(
    ("lr", "options", "message"),
    [
        (np.ones((8, 8), np.float32), {}, r"\(bands, rows, columns\)"),
        (np.full((3, 8, 8), 3000.0), {}, r"from 3000 to 3000"),
        (np.full((3, 8, 8), np.nan), {}, r"\[0, 1\]"),
        (noise(8, 8, 4), {}, "takes 3 bands"),
        (noise(8, 8), {"scale": 40}, "offers the scales"),
        (noise(8, 8), {"vector_map": noise(32, 32)}, "does not look at vector_map"),
        (noise(8, 8), {"change_mask": np.ones((32, 32), np.uint8)}, "change_mask"),
    ],
)
def test_arrays_that_cannot_work_are_refused(
    model: Model, lr: np.ndarray, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        rsupres.upscale_array(lr, model, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [0, -1, "fine", 1 / 3])
def test_scales_that_are_none_are_refused(model: Model, scale: object) -> None:
    with pytest.raises(GridError):
        rsupres.upscale_array(noise(8, 8), model, scale)  # type: ignore[arg-type]


def test_a_progress_bar_shows_tiles_on_stderr(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    rsupres.upscale_array(noise(44, 44), model, 2, tile_size=40, progress=True)
    shown = capsys.readouterr()
    assert "Tiles" in shown.err
    assert "4/4" in shown.err
    assert shown.out == ""
