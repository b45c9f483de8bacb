"""Roles find their bands by name, colour or order, or say why not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rsupres.errors import BandError
from rsupres.raster.bands import BandChoice, choose_bands
from rsupres.raster.dataset import Raster
from tests.helpers import make_scene, ramp

RGB = ("red", "green", "blue")
RGBN = (*RGB, "nir")


def opaque() -> np.ndarray:
    pixels = ramp(24, 32, 4, "uint8")
    pixels[3] = 255
    return pixels


def chosen(
    path: Path, roles: Sequence[str] = RGB, **options: object
) -> tuple[int, ...]:
    with Raster.open(path) as scene:
        return choose_bands(scene, roles, **options).roles  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (["B02", "B03", "B04", "B08"], (3, 2, 1, 4)),
        (["B4", "B3", "B2", "B8"], (1, 2, 3, 4)),
        (["B01", "B02", "B03", "B04", "B05", "B8A", "B08"], (4, 3, 2, 7)),
        (["B8, central wavelength 842 nm", "B4, x", "B3, x", "B2, x"], (2, 3, 4, 1)),
        (["SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6"], (3, 2, 1, 4)),
        (["Near Infrared", "Blue", "Green", "Red", "Red Edge"], (4, 3, 2, 1)),
        (["coastal blue", "blue", "green", "red", "nir"], (4, 3, 2, 5)),
        (["R", "G", "B", "N"], (1, 2, 3, 4)),
        (["sr_blue", "sr_green", "sr_red", "sr_nir"], (3, 2, 1, 4)),
    ],
)
def test_names_decide(tmp_path: Path, names: list[str], bands: tuple[int, ...]) -> None:
    path = make_scene(tmp_path / "a.tif", bands=len(names), descriptions=names)
    assert chosen(path, RGBN) == bands


def test_landsat_5_counts_its_bands_differently(tmp_path: Path) -> None:
    path = make_scene(
        tmp_path / "a.tif",
        bands=4,
        descriptions=["B1", "B2", "B3", "B4"],
        tags={"SPACECRAFT_ID": "LANDSAT_5"},
    )
    assert chosen(path, RGBN) == (3, 2, 1, 4)


def test_colours_decide_where_there_are_no_names(tmp_path: Path) -> None:
    path = make_scene(
        tmp_path / "a.tif",
        bands=4,
        colorinterp=["blue", "green", "red", "undefined"],
    )
    with Raster.open(path) as scene:
        assert choose_bands(scene, RGB) == BandChoice((3, 2, 1), (4,))


def test_else_the_first_bands_are_taken_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_scene(tmp_path / "a.tif", bands=4)
    with caplog.at_level(logging.WARNING, "rsupres"):
        assert chosen(path) == (1, 2, 3)
    assert "red=1, green=2, blue=3" in caplog.text


def test_a_model_without_roles_takes_all_bands_but_alpha(tmp_path: Path) -> None:
    colours = ["red", "green", "blue", "alpha"]
    path = make_scene(tmp_path / "a.tif", pixels=opaque(), colorinterp=colours)
    with Raster.open(path) as scene:
        assert choose_bands(scene, ()) == BandChoice((1, 2, 3), ())


def test_numbers_go_before_names(tmp_path: Path) -> None:
    path = make_scene(
        tmp_path / "a.tif", bands=4, descriptions=["B02", "B03", "B04", "B08"]
    )
    with Raster.open(path) as scene:
        choice = choose_bands(scene, RGB, bidx=[4, 3, 2])
    assert choice == BandChoice((4, 3, 2), (1,))


def test_roles_named_by_the_user_leave_the_rest_to_be_found(tmp_path: Path) -> None:
    path = make_scene(
        tmp_path / "a.tif", bands=4, descriptions=["B02", "B03", "B04", "B08"]
    )
    assert chosen(path, named={"red": 4}) == (4, 2, 1)


def test_a_missing_role_is_named_with_what_there_is(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif", descriptions=["B03", "B04", "B08"])
    with pytest.raises(BandError, match=r"no band for blue.*B03, B04, B08"):
        chosen(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bidx": [1, 2]}, "2 bands given, but the model takes 3"),
        ({"bidx": [1, 2, 9]}, "no band 9"),
        ({"bidx": [1, 2, 0]}, "no band 0"),
        ({"bidx": [1, 2, 2]}, "one band twice"),
        ({"named": {"swir": 1}}, "no role 'swir'"),
        ({"named": {"red": 1}, "bidx": [1, 2, 3]}, "not both"),
    ],
)
def test_wrong_choices_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    path = make_scene(tmp_path / "a.tif", bands=4)
    with pytest.raises(BandError, match=message):
        chosen(path, **options)


def test_too_few_bands_are_refused(tmp_path: Path) -> None:
    path = make_scene(tmp_path / "a.tif", bands=2)
    with pytest.raises(BandError, match=r"takes 3 bands .* the file has 2 bands"):
        chosen(path)


def test_the_alpha_mask_is_no_band(tmp_path: Path) -> None:
    path = make_scene(
        tmp_path / "a.tif",
        pixels=opaque(),
        colorinterp=["red", "green", "blue", "alpha"],
    )
    with pytest.raises(BandError, match="alpha"):
        chosen(path, bidx=[1, 2, 4])


@pytest.mark.parametrize(
    ("remedies", "words"),
    [((), "-colorinterp"), (("bands", "bidx"), "choose the bands")],
    ids=["without arguments", "with arguments"],
)
def test_messages_name_what_the_caller_can_do(tmp_path, caplog, remedies, words):
    plain = make_scene(tmp_path / "a.tif", bands=3)
    with Raster.open(plain) as scene:
        choose_bands(scene, RGB, remedies=remedies)
    lacking = make_scene(
        tmp_path / "b.tif", bands=3, descriptions=("red", "green", "nir")
    )
    with Raster.open(lacking) as scene, pytest.raises(BandError) as caught:
        choose_bands(scene, RGB, remedies=remedies)
    assert words in caplog.text
    assert words in str(caught.value)
    assert caught.value.remedies == caplog.records[-1].remedies == remedies
