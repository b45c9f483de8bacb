"""The checkpoints that ship: cards that tell the truth, and tiles that do not show."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.windows import Window

from rsupres.checkpoints.catalogue import (
    Card,
    default_model,
    list_cards,
    load_model,
    read_card,
)
from rsupres.checkpoints.file import read_spec
from rsupres.degradations.optics import (
    Kernel,
    gaussian_of,
    sample,
    sampling_matrix,
)
from rsupres.evaluation.measures.metrics import psnr
from rsupres.evaluation.measures.seams import seam_ratio, tile_borders
from rsupres.families.base import SamplerOptions
from rsupres.families.optical.config import Facts
from rsupres.families.optical.reading import estimate
from rsupres.families.optical.resolver import Optical
from rsupres.grid import Grid
from rsupres.raster.files import file_sha256
from rsupres.tile_grid import TileGrid
from rsupres.upscaling.array import load_model as load_for_arrays
from rsupres.upscaling.array import upscale_array
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import upscale_scene

ROOT = Path(__file__).resolve().parents[2]
TOWN = ROOT / "sample_data" / "town_s2.tif"
TRUTH = ROOT / "sample_data" / "town_hr.tif"
SHIPPED = [
    card for card in list_cards() if card.path and card.path.parent == ROOT / "models"
]
UPSCALERS = [
    card for card in SHIPPED if card.spec.family not in ("sharpening", "siamese")
]
LIMIT = 8 * 2**20
SCALE = Fraction(4)


def _upper_rows(path: Path, height: int = 40) -> Path:
    """Write the upper rows of the town, as larger scales take longer."""
    with rasterio.open(TOWN) as town:
        profile = {**town.profile, "height": height, "driver": "GTiff"}
        with rasterio.open(path, "w", **profile) as part:
            part.write(town.read(window=Window(0, 0, town.width, height)))
            part.descriptions = town.descriptions
            part.colorinterp = town.colorinterp
    return path


def _upscale(
    card: Card, out: Path, tile_size: int, scale: Fraction | None = None
) -> tuple[np.ndarray, TileGrid]:
    """Upscale the town; return its DN (3, H, W), 0 where invalid, and the tiling."""
    scales = card.spec.scales
    if scale is None:
        scale = SCALE if scales.offers(SCALE) else min(scales.values)
    scene = TOWN if scale == SCALE else _upper_rows(out.with_name("town.tif"))
    job = UpscaleJob(
        scenes=(str(scene),),
        output=out,
        scale=scale,
        model=card.name,
        tile_size=tile_size,
        driver="GTiff",
        other_bands="skip",
        device="cpu",
    )
    upscale_scene(job)
    with rasterio.open(scene) as town:
        grid = Grid(town.crs, town.transform, town.height, town.width)
    with rasterio.open(out) as sr:
        pixels = sr.read().astype(np.float64)
        sides = [int(n) for n in sr.tags()["RSUPRES_TILE"].split(",")]
    size, overlap, *width = sides
    spec = card.spec
    own = (spec.halo, spec.multiple, *width)
    return pixels, TileGrid.plan(grid, scale, size, overlap, *own)


@pytest.fixture(scope="module")
def whole_town(tmp_path_factory: pytest.TempPathFactory):
    """Return the town in one tile by the name of a model."""
    cards = {card.name: card for card in list_cards()}

    @cache
    def upscale(name: str) -> np.ndarray:
        folder = tmp_path_factory.mktemp("town")
        return _upscale(cards[name], folder / "whole.tif", 256)[0]

    return upscale


def test_there_is_something_that_ships() -> None:
    assert {card.name for card in SHIPPED} >= {
        "e2diffsr-small",
        "optical-small",
        "refdiff-mini",
        "s2-bands-small",
        "sgdm-mini",
        "slimdiffsr-mini",
    }
    assert sum(card.file.stat().st_size for card in SHIPPED if card.file) <= 3 * LIMIT


@pytest.mark.parametrize("card", SHIPPED, ids=lambda card: card.name)
def test_a_card_describes_its_file(card: Card) -> None:
    assert card.file is not None
    assert card.file.stat().st_size <= LIMIT
    assert card.sha256 == file_sha256(card.file)
    assert card.spec == read_spec(card.file)
    assert card.licence
    for key in ("paper", "data", "recipe", "scores"):
        assert card.text.get(key), f"the card says nothing about its {key}"


@pytest.mark.parametrize("gsd_m", [0.6, 10.0, 30.0, None])
@pytest.mark.parametrize("bands", [1, 3, 4, 13])
def test_one_model_is_the_default_for_any_optical_scene(
    bands: int, gsd_m: float | None
) -> None:
    assert default_model(bands, Fraction(4), gsd_m) == "optical-small"


def test_a_name_that_no_longer_ships_means_its_successor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert read_card("e2diffsr-small-sentinel2").name == "optical-small"
    assert "no longer ships; optical-small replaces it" in caplog.text


# The others take long, and their families have tests of tiles of their own.
@pytest.mark.parametrize(
    "card",
    [
        pytest.param(
            card, marks=() if card.name == "optical-small" else pytest.mark.slow
        )
        for card in UPSCALERS
    ],
    ids=lambda card: card.name,
)
def test_tile_size_does_not_show(card: Card, tmp_path: Path, whole_town) -> None:
    small, tiling = _upscale(card, tmp_path / "small.tif", 64)
    whole = whole_town(card.name)
    assert len(tiling) > 1
    full_range = 10000  # of the stretch: reflectance 0 to 1
    assert np.abs(small - whole).max() <= full_range / 255
    rows, cols = tile_borders(tiling)
    valid = (whole > 0).all(axis=0)
    # The town has edges of its own: the same rows and columns of the untiled picture
    # are what the tiled one is held against.
    seams = seam_ratio(small, rows, cols, valid) / seam_ratio(whole, rows, cols, valid)
    assert seams == pytest.approx(1.0, abs=0.01)


def test_the_default_model_beats_bicubic_on_the_town(whole_town) -> None:
    with rasterio.open(TRUTH) as truth:
        hr = truth.read([1, 2, 3]).astype(np.float64)
    scores = {}
    for name in ("bicubic", "optical-small"):
        sr = whole_town(name)
        valid = (sr > 0).all(axis=0)
        scores[name] = psnr(sr[:3] / 4000 * 255, hr / 4000 * 255, valid)
    assert scores["optical-small"] > scores["bicubic"] + 0.3


def _sharp_town(scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the town's truth and LR by Pillow's bicubic, (3, H, W) in [0, 1]."""
    with rasterio.open(TRUTH) as truth:
        hr = truth.read([1, 2, 3]).astype(np.float32)
    low, high = np.percentile(hr, (0.5, 99.5), axis=(1, 2), keepdims=True)
    # The brightness of photographs, which the model was made for.
    hr = np.sqrt(np.clip((hr - low) / (high - low), 0.0, 1.0)).astype(np.float32)
    size = (hr.shape[2] // scale, hr.shape[1] // scale)
    bands = [
        Image.fromarray(band).resize(size, Image.Resampling.BICUBIC) for band in hr
    ]
    return hr, np.clip(np.stack([np.asarray(band) for band in bands]), 0.0, 1.0)


@pytest.mark.parametrize(("scale", "gain_db"), [(4, 0.4), (8, 0.2)])
def test_the_student_beats_bicubic_at_both_of_its_scales(
    scale: int, gain_db: float
) -> None:
    card = read_card("slimdiffsr-mini")
    assert {str(s) for s in card.spec.scales.values} == {"4", "8"}  # type: ignore[union-attr]
    hr, lr = _sharp_town(scale)
    valid = np.ones(hr.shape[1:], bool)
    scores = {
        name: psnr(
            upscale_array(lr, load_for_arrays(name, "cpu"), scale) * 255,
            hr * 255,
            valid,
        )
        for name in ("bicubic", card.name)
    }
    assert scores[card.name] > scores["bicubic"] + gain_db


@pytest.mark.slow
def test_tile_size_does_not_show_at_x8(tmp_path: Path) -> None:
    card = read_card("slimdiffsr-mini")
    small, tiling = _upscale(card, tmp_path / "small.tif", 64, Fraction(8))
    whole, _ = _upscale(card, tmp_path / "whole.tif", 256, Fraction(8))
    assert len(tiling) > 1
    assert np.abs(small - whole).max() <= 10000 / 255


def _estimate(kernel: Kernel, noise: float) -> Facts:
    """Return what `optical-small` reads from the town, reduced and with noise."""
    model = load_model("optical-small", torch.device("cpu"), SamplerOptions())
    assert isinstance(model, Optical)
    weights = model._estimator_weights()
    assert weights is not None
    with rasterio.open(TRUTH) as truth:
        hr = truth.read([1, 2, 3]).astype(np.float64) / 4000
    matrix = sampling_matrix(hr.shape[1] // 2, hr.shape[1], kernel)
    lr = sample(hr, matrix, matrix)
    lr = lr + noise * np.random.default_rng(0).standard_normal(lr.shape)
    low, high = np.percentile(lr, (2, 98))
    facts = estimate(weights, [(lr - low) / (high - low)])
    assert facts.noise is not None
    return replace(facts, noise=facts.noise * (high - low))


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("mtf", [0.05, 0.1, 0.2, 0.3, 0.4])
def test_known_blur_and_noise_are_read_from_a_scene(mtf: float, noise: float) -> None:
    facts = _estimate(gaussian_of(mtf), noise)
    assert facts.transfer is not None
    assert facts.transfer[1] == pytest.approx(mtf, abs=0.06)
    assert facts.noise == pytest.approx(noise, abs=0.002)
    assert facts.quality == 0


def test_a_scene_that_was_thinned_is_known_by_its_aliases() -> None:
    thinned, mean = (_estimate(Kernel(kind), 0.0) for kind in ("nearest", "area"))
    assert thinned.transfer is not None
    assert mean.transfer is not None
    assert thinned.transfer[3] > 0.6
    assert mean.transfer[3] < 0.1


@pytest.mark.parametrize(
    "name", ["optical-small", pytest.param("slimdiffsr-mini", marks=pytest.mark.slow)]
)
def test_half_precision_moves_no_pixel_by_more_than_a_level(name: str) -> None:
    with rasterio.open(TOWN) as town:
        pixels = town.read((1, 2, 3)).astype(np.float32)[:, 24:72, :48]
    lr = (pixels - pixels.min()) / np.ptp(pixels)
    whole, half = (
        upscale_array(lr, load_for_arrays(name, "cpu", precision=precision))
        for precision in ("fp32", "bf16")
    )
    assert 0 < np.abs(whole - half).max() <= 1 / 255
