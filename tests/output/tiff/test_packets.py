"""Packets become the file that GDAL's COG driver writes, whatever interrupts that."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal
from rio_cogeo import cog_validate

from rsupres.errors import InputError
from rsupres.grid import Grid, PixelWindow
from rsupres.output.run_dir import Run
from rsupres.output.run_state import read_state
from rsupres.output.tiff import packets as module
from rsupres.output.tiff.packets import Packets
from rsupres.output.tiff.profile import OutputFormat
from tests.helpers import NORTH_UP, UTM
from tests.output.tiff.packet_cases import EDGES, SIZE, Case, make_meta, picture


@pytest.fixture(autouse=True)
def _a_small_output_is_packed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKED_BYTES", 0)
    monkeypatch.setattr(module, "COLS", 1024)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.open(tmp_path / "out.tif.run", {"job": {}, "n_strips": len(EDGES) - 1})


@pytest.mark.parametrize(
    ("dtype", "nodata", "creation"),
    [
        pytest.param("uint8", None, {}, marks=pytest.mark.slow),
        pytest.param("uint16", 0, {}, marks=pytest.mark.slow),
        pytest.param("int16", -5, {"COMPRESS": "lzw"}, marks=pytest.mark.slow),
        pytest.param(
            "float32",
            math.nan,
            {"compress": "ZSTD", "level": "3"},
            marks=pytest.mark.slow,
        ),
        ("uint16", None, {"LEVEL": "2", "BIGTIFF": "YES"}),
    ],
)
def test_the_file_has_the_bytes_of_gdals_own(
    tmp_path: Path,
    run: Run,
    dtype: str,
    nodata: float | None,
    creation: dict[str, str],
) -> None:
    form = OutputFormat("COG", creation, dtype, nodata)
    pixels = picture(2, dtype)
    if nodata is not None:
        pixels[:, 690:1400, 200:901] = nodata
    case = Case(tmp_path, run, make_meta(2), form, pixels)
    case.packets.pack(range(3))
    case.packets.pack(range(3, 4))
    assert run.done_strips() == set(range(5))
    assert read_state(run.path).percent == 100
    assert not run.strip_path(0).exists()
    assert case.finish() == case.wanted
    assert not [*case.packets.folder.glob("*.tif"), *case.packets.folder.glob("*.raw")]


def test_four_bands_of_bytes_have_no_mask(tmp_path: Path, run: Run) -> None:
    pixels = picture(4, "uint8")
    pixels[3, :600] = 0  # what GDAL would hide, if it took the band for alpha
    form = OutputFormat("COG", {}, "uint8", None)
    case = Case(tmp_path, run, make_meta(4), form, pixels)
    assert case.finish() == case.wanted


@pytest.mark.parametrize("levels", [1, 3])
def test_the_bytes_do_not_depend_on_how_many_resolutions_are_packed(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, levels: int
) -> None:
    monkeypatch.setattr(module, "_LEVELS", levels)
    form = OutputFormat("COG", {}, "uint16", 0)
    case = Case(tmp_path, run, make_meta(2), form, picture(2, "uint16"))
    case.packets.pack(range(2, 5))
    case.packets.pack(range(2))
    assert case.finish() == case.wanted


def test_a_strip_is_emptied_as_soon_as_its_last_packet_is_there(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = OutputFormat("COG", {}, "uint16", 0)
    case = Case(tmp_path, run, make_meta(1), form, picture(1, "uint16"))
    there = []
    real = Packets._write

    def write(packets: Packets, level: int, window: PixelWindow) -> None:
        there.append([path.exists() for path in packets.strips])
        real(packets, level, window)

    monkeypatch.setattr(Packets, "_write", write)
    case.packets.pack(range(5))
    first, second, third = there[:3]
    assert (first, second) == ([True] * 5, [True] * 5)
    assert third == [False, False, True, True, True]
    assert not any(path.exists() for path in case.packets.strips)


@pytest.mark.parametrize("nodata", [0, 7, 300])
def test_means_keep_clear_of_nodata(tmp_path: Path, run: Run, nodata: int) -> None:
    form = OutputFormat("COG", {}, "uint16", nodata)
    pixels = np.resize(np.array([[6, 8], [8, 6]], np.uint16), (1, *SIZE))
    case = Case(tmp_path, run, make_meta(1), form, pixels)
    assert case.finish() == case.wanted


def test_a_mask_is_kept(tmp_path: Path, run: Run) -> None:
    valid = np.ones((1, *SIZE), bool)
    valid[:, 1000:1100, 7:900] = False
    form = OutputFormat("COG", {}, "uint8", None)
    case = Case(tmp_path, run, make_meta(1), form, picture(1, "uint8"), valid)
    case.packets.pack(range(2))
    case.finish()
    with rasterio.open(case.output) as dataset:
        assert_array_equal(dataset.read(), case.pixels)
        assert_array_equal(dataset.dataset_mask() > 0, valid[0])


class Killed(BaseException):
    pass


def test_a_later_call_goes_on_with_an_output_that_was_begun(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(
        tmp_path, run, make_meta(1), OutputFormat("COG", {}, "uint8"), picture(1, "u1")
    )
    steps = {"begin_cog": 1, "copy_blocks": 2, "check_output": 1}
    for step, call in steps.items():
        seen = 0
        real = getattr(module, step)

        def killed_after(*arguments: object, real=real, call=call) -> None:  # type: ignore[no-untyped-def]
            nonlocal seen
            seen += 1
            if seen == call:
                raise Killed
            real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(module, step, killed_after)
            with pytest.raises(Killed):
                case.finish()
        assert not case.output.exists()
        assert run.done_strips() == set(range(5))
    assert case.finish() == case.wanted


@pytest.mark.slow
def test_a_run_may_end_with_other_creation_options(tmp_path: Path, run: Run) -> None:
    form = OutputFormat("COG", {}, "uint16", 0)
    case = Case(tmp_path, run, make_meta(1), form, picture(1, "uint16"))
    case.packets.pack(range(2))
    case.finish(form=replace(form, driver="GTiff", creation={"COMPRESS": "LZW"}))
    with rasterio.open(case.output) as dataset:
        assert_array_equal(dataset.read(), case.pixels)
        assert dataset.compression.name == "lzw"


def test_other_creation_options_may_be_given_up_again(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = OutputFormat("COG", {}, "uint16", 0)
    case = Case(tmp_path, run, make_meta(1), form, picture(1, "uint16"))
    case.packets.pack(range(2))

    def killed(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "assemble", killed)
        with pytest.raises(Killed):
            case.finish(form=replace(form, creation={"COMPRESS": "ZSTD"}))
    assert case.finish() == case.wanted


def test_a_kept_run_gives_the_output_again(tmp_path: Path, run: Run) -> None:
    form = OutputFormat("COG", {}, "uint16", 0)
    case = Case(tmp_path, run, make_meta(1), form, picture(1, "uint16"))
    assert case.finish(keep=True) == case.wanted
    assert case.finish(keep=True) == case.wanted
    assert cog_validate(case.output, strict=True, quiet=True)[0]


def test_a_strip_that_is_gone_is_named(tmp_path: Path, run: Run) -> None:
    form = OutputFormat("COG", {}, "uint16", 0)
    case = Case(tmp_path, run, make_meta(1), form, picture(1, "uint16"))
    run.strip_path(1).unlink()
    with pytest.raises(InputError, match=r"0001\.tif: this strip cannot be read"):
        case.finish()


@pytest.mark.parametrize(
    ("changes", "serve"),
    [
        ({}, True),
        ({"form": OutputFormat("GTiff")}, False),
        ({"has_codes": True}, False),
        ({"form": OutputFormat("COG", {"COMPRESS": "JPEG"})}, False),
        ({"form": OutputFormat("COG", {"OVERVIEWS": "NONE"})}, False),
        ({"grid": Grid(UTM, NORTH_UP, 2309, 1036)}, False),
    ],
)
def test_packets_serve_cogs_of_even_sides(
    run: Run, changes: dict[str, object], serve: bool
) -> None:
    usual = Packets(run, make_meta(1).grid, 1, OutputFormat("COG"), EDGES)
    assert replace(usual, **changes).serve is serve  # type: ignore[arg-type]
