"""Joined files whose numbers mean different things: moved exactly, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from click.testing import CliRunner

import rsupres
from rsupres.cli import main
from rsupres.errors import InputError
from rsupres.raster.dataset import Raster
from rsupres.raster.stack import open_scenes
from tests.helpers import NORTH_UP, make_scene

NAMES = ["B04", "B03", "B02"]


def _pair(
    folder: Path,
    pixels: np.ndarray,
    first: tuple[float, float],
    other: tuple[float, float],
    stored: np.ndarray,
    **more: object,
) -> list[str]:
    """Write the left part of `pixels`, and the right part as another scale has it."""
    parts = (
        ("a.tif", pixels[:, :, :12], first, 0),
        ("b.tif", stored[:, :, 8:], other, 8),
    )
    for name, numbers, (scale, offset), left in parts:
        make_scene(
            folder / name,
            pixels=numbers,
            descriptions=NAMES,
            scales=(scale,) * 3,
            offsets=(offset,) * 3,
            transform=NORTH_UP @ Affine.translation(left, 0),
            **more,
        )
    return [str(folder / "a.tif"), str(folder / "b.tif")]


def _ramp(dtype: str, start: int = 1500) -> np.ndarray:
    return (start + 7 * np.arange(3 * 8 * 20).reshape(3, 8, 20)).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "start", "other", "moved"),
    [
        ("uint16", 1500, (1e-4, -0.1), lambda dn: dn + 1000),
        ("int16", 0, (1e-4, 0.1), lambda dn: dn - 1000),
        ("uint32", 3_000_000_001, (1e-4, -0.1), lambda dn: dn + 1000),
        ("float32", 1500, (1e-4, -0.1), lambda dn: dn + 1000),
    ],
)
@pytest.mark.parametrize("how", ["stack", "mosaic"])
def test_other_offsets_are_brought_to_that_of_the_first(
    tmp_path: Path, dtype: str, start: int, other, moved, how: str
) -> None:
    pixels = _ramp(dtype, start)
    stored = moved(pixels.astype(np.int64)).astype(dtype)
    nodata = 0 if dtype[0] == "u" else -1
    names = _pair(tmp_path, pixels, (1e-4, 0), other, stored, nodata=nodata)
    if how == "mosaic":
        out = tmp_path / "out" / "m.tif"
        out.parent.mkdir()
        rsupres.mosaic(tmp_path, out)
        names = [str(out)]
    with open_scenes(names) as scene:
        dn, valid = scene.read_stored(scene.grid.window, (1, 2, 3))
        assert (scene.scales, scene.offsets) == ((1e-4,) * 3, (0.0,) * 3)
    assert valid.all()
    assert dn.dtype == dtype
    np.testing.assert_array_equal(dn, pixels)


def test_coarser_steps_become_finer_ones(tmp_path: Path) -> None:
    pixels = _ramp("uint16") * 2
    names = _pair(tmp_path, pixels, (1e-4, 0), (2e-4, 0), pixels // 2)
    with open_scenes(names) as scene:
        np.testing.assert_array_equal(
            scene.read_stored(scene.grid.window, (1, 2, 3))[0], pixels
        )


@pytest.mark.parametrize(
    ("first", "other", "lowest", "text"),
    [
        ((1e-4, 0), (1e-4, -0.1), 500, "from -5"),  # below 0 on the other scale
        ((1e-4, 0), (1e-4, -0.1), 1000, "means nodata"),
        ((2e-4, 0), (1e-4, 0), 2000, "scale 0.0001"),  # halves
        ((1e-4, 0), (1, 0), 2000, "scale 1 "),  # says nothing of its numbers
        ((1e-4, -0.1), (1e-4, 0), 65000, "beyond"),
    ],
)
@pytest.mark.parametrize("how", ["stack", "mosaic"])
def test_numbers_that_would_change_are_refused(
    tmp_path: Path, first, other, lowest: int, text: str, how: str
) -> None:
    pixels = np.full((3, 8, 20), 5000, "uint16")
    pixels[1, 4, 15] = lowest
    names = _pair(tmp_path, pixels, first, other, pixels, nodata=0)
    out = tmp_path / "out" / "m.tif"
    out.parent.mkdir()
    with pytest.raises(InputError, match=text):
        _join(names, out if how == "mosaic" else None)


def _join(names: list[str], out: Path | None) -> None:
    """Blend the files into `out`, or open them as one scene."""
    if out is not None:
        rsupres.mosaic(Path(names[0]).parent, out)
        return
    with open_scenes(names):
        pass


def test_nodata_and_masks_of_a_moved_file_stay_hidden(tmp_path: Path) -> None:
    pixels = _ramp("uint16")
    stored = pixels + 1000
    stored[:, 2, 15] = 0
    names = _pair(tmp_path, pixels, (1e-4, 0), (1e-4, -0.1), stored, nodata=0)
    mosaic = tmp_path / "out" / "m.tif"
    mosaic.parent.mkdir()
    rsupres.mosaic(tmp_path, mosaic)
    for wanted in (names, [str(mosaic)]):
        with open_scenes(wanted) as scene:
            dn, valid = scene.read_stored(scene.grid.window, (1, 2, 3))
        assert not valid[0, 2, 15]
        assert np.count_nonzero(~valid) == 1
        assert dn[0, 2, 15] == 0


def test_numbers_that_the_user_explains_are_not_moved(tmp_path: Path) -> None:
    pixels = _ramp("uint16")
    names = _pair(tmp_path, pixels, (1e-4, 0), (1e-4, -0.1), pixels + 1000)
    with (
        pytest.raises(InputError, match=r"offset -0\.1"),
        open_scenes(names, is_told=True),
    ):
        pass
    out = tmp_path / "o.tif"
    options = ["--model", "bicubic", "--scale", "1", "--dn-offset", "-1000"]
    result = CliRunner().invoke(main, ["upscale", *names, str(out), *options])
    assert result.exit_code == 3
    assert not out.exists()


@pytest.mark.parametrize("value", ["0", "-9999"])
def test_tiles_take_a_nodata_value_that_they_do_not_declare(
    tmp_path: Path, value: str
) -> None:
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    pixels = _ramp("float32")
    pixels[:, :3] = float(value)
    for name, left in (("a.tif", 0), ("b.tif", 8)):
        make_scene(
            tiles / name,
            pixels=pixels[:, :, left : left + 12],
            transform=NORTH_UP @ Affine.translation(left, 0),
        )
    out = tmp_path / "m.tif"
    plain = CliRunner().invoke(main, ["mosaic", str(tiles), str(out)])
    assert f"--input-nodata {value}" in plain.stderr
    args = ["mosaic", str(tiles), str(out), "--overwrite", "--input-nodata", value]
    told = CliRunner().invoke(main, args)
    assert (told.exit_code, "Warning" in told.stderr) == (0, False)
    with Raster.open(out) as mosaic:
        dn, valid = mosaic.read_stored(mosaic.grid.window, (1, 2, 3))
        assert mosaic.nodata == float(value)
    assert not valid[:, :3].any()
    assert valid[:, 3:].all()
    np.testing.assert_array_equal(dn, pixels)


def test_tiles_refuse_a_nodata_value_that_their_type_cannot_hold(
    tmp_path: Path,
) -> None:
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    make_scene(tiles / "a.tif")
    args = ["mosaic", str(tiles), str(tmp_path / "m.tif"), "--input-nodata", "-9999"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 3
    assert "--input-nodata" in result.stderr


def test_a_plan_looks_at_all_numbers_that_the_work_would_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One number of many does not fit the other scale; a sample misses it."""
    monkeypatch.setattr("rsupres.upscaling.preparation.work._SAMPLE_PIXELS", 16)
    pixels = _ramp("uint16")
    stored = pixels.copy()
    stored[1, 5, 13] = 500  # 1000 less are no uint16
    names = _pair(tmp_path, pixels, (1e-4, 0), (1e-4, -0.1), stored, nodata=0)
    words = [*names, str(tmp_path / "o.tif"), "--scale", "2", "--model", "bicubic"]
    answers = [CliRunner().invoke(main, [verb, *words]) for verb in ("plan", "upscale")]
    assert [answer.exit_code for answer in answers] == [3, 3]
    assert "go from -500" in answers[0].stdout
    assert "go from -500" in answers[1].stderr
