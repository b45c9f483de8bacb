"""Strips become one whole GeoTIFF or COG, or nothing and a clear error."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rio_cogeo import cog_validate

from rsupres.errors import InputError, ResourceError
from rsupres.grid import Grid, PixelWindow
from rsupres.output.tiff.geotiff import assemble, read_tags, write_strip
from rsupres.output.tiff.profile import OutputFormat, OutputMeta
from rsupres.output.tiff.trial import check_format
from tests.helpers import NORTH_UP, UTM, ramp

HEIGHTS = (100, 30, 470)  # of strips; no multiples of a block
WIDTH = 530
SIZE = (sum(HEIGHTS), WIDTH)
DRIVERS = ["COG", "GTiff"]


def make_meta(bands: int = 3, **changes: object) -> OutputMeta:
    meta = OutputMeta(
        grid=Grid(UTM, NORTH_UP, *SIZE),
        descriptions=(None,) * bands,
        scales=(1.0,) * bands,
        offsets=(0.0,) * bands,
        colorinterp=("gray", *("undefined",) * (bands - 1)),
    )
    return replace(meta, **changes)  # type: ignore[arg-type]


def write_strips(
    folder: Path,
    pixels: np.ndarray,
    meta: OutputMeta,
    valid: np.ndarray | None = None,
    nodata: float | None = None,
) -> list[Path]:
    paths, row = [], 0
    for number, height in enumerate(HEIGHTS):
        rows = slice(row, row + height)
        paths.append(folder / f"{number:04d}.tif.0a1b2c3d.tmp")
        write_strip(
            paths[-1],
            pixels[:, rows],
            meta.grid.crop(PixelWindow(row, 0, height, WIDTH)),
            None if valid is None else valid[:, rows],
            nodata,
        )
        row += height
    return paths


def build(
    folder: Path,
    pixels: np.ndarray,
    meta: OutputMeta,
    form: OutputFormat,
    valid: np.ndarray | None = None,
) -> Path:
    strips = write_strips(folder, pixels, meta, valid, form.nodata)
    part = folder / "out.tif.12345678.tmp"
    assemble(strips, meta, form, part)
    assert list(folder.glob("out*")) == [part]
    return part


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", None),
        ("int8", -128),
        ("uint16", 0),
        ("int16", -32768),
        ("uint32", 4294967295),
        ("int32", -9999),
        ("float32", math.nan),
        ("float64", -1.7976931348623157e308),
    ],
)
def test_every_type_comes_back(
    tmp_path: Path, driver: str, dtype: str, nodata: float | None
) -> None:
    pixels = ramp(*SIZE, 2, dtype)
    form = OutputFormat(driver, {}, dtype, nodata)  # type: ignore[arg-type]
    meta = make_meta(2)
    with rasterio.open(build(tmp_path, pixels, meta, form)) as dataset:
        assert_array_equal(dataset.read(), pixels)
        assert dataset.dtypes == (dtype, dtype)
        assert dataset.transform == meta.grid.transform
        assert dataset.crs == meta.grid.crs
        np.testing.assert_equal(dataset.nodata, nodata)
        assert dataset.compression.name == "deflate"
        assert dataset.block_shapes[0] == (512, 512)


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_the_file_says_is_kept(tmp_path: Path, driver: str) -> None:
    meta = make_meta(
        4,
        descriptions=("B04", None, 'a<b>&"c"', "Äther"),
        scales=(1e-4, 1.0, 0.1, 2.75e-5),
        offsets=(-0.1, 0.0, 0.3, -0.2),
        colorinterp=("red", "green", "blue", "nir"),
        tags={"RSUPRES_SCALE": "4", "A<&>": '"x" & <y>\nnew line', "odd": "a\x01b"},
    )
    form = OutputFormat(driver, {}, "uint16", 0)  # type: ignore[arg-type]
    path = build(tmp_path, ramp(*SIZE, 4), meta, form)
    with rasterio.open(path) as dataset:
        assert dataset.descriptions == meta.descriptions
        assert dataset.scales == meta.scales
        assert dataset.offsets == meta.offsets
        assert [c.name for c in dataset.colorinterp] == list(meta.colorinterp)
    tags = read_tags(path)
    assert tags["RSUPRES_SCALE"] == "4"
    assert tags["A<&>"] == '"x" & <y>\nnew line'
    assert tags["odd"] == "ab"


def test_gray_in_every_band_is_written_without_a_side_file(tmp_path: Path) -> None:
    meta = make_meta(3, colorinterp=("gray",) * 3)
    with rasterio.open(build(tmp_path, ramp(*SIZE), meta, OutputFormat())) as dataset:
        names = [colour.name for colour in dataset.colorinterp]
    assert names == ["gray", "undefined", "undefined"]


@pytest.mark.parametrize(
    "transform",
    [
        Affine(
            0.000108124373766, 0, 13.0720996857, 0, -0.000108194558921, 42.8068621736
        ),
        Affine.translation(4e5, 5.2e6) @ Affine.rotation(17) @ Affine.scale(2.5, -2.5),
    ],
)
def test_transforms_are_exact(tmp_path: Path, transform: Affine) -> None:
    crs = CRS.from_epsg(4326 if transform.c < 1000 else 32633)
    meta = make_meta(1, grid=Grid(crs, transform, *SIZE))
    with rasterio.open(
        build(tmp_path, ramp(*SIZE, 1), meta, OutputFormat())
    ) as dataset:
        assert dataset.transform[:6] == transform[:6]


@pytest.mark.parametrize("nodata", [0, None])
def test_a_cog_is_valid_with_overviews(tmp_path: Path, nodata: float | None) -> None:
    valid = np.ones((1, *SIZE), bool)
    valid[:, 90:300, :200] = False
    pixels = np.where(valid, ramp(*SIZE), 0).astype("uint16")
    form = OutputFormat("COG", {}, "uint16", nodata)
    path = build(tmp_path, pixels, make_meta(), form, valid)
    is_valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert is_valid, (errors, warnings)
    with rasterio.open(path) as dataset:
        assert dataset.overviews(1) == [2]
        assert_array_equal(dataset.read_masks(1) > 0, valid[0])
    with rasterio.open(path, overview_level=0) as half:
        small, seen = half.read(1), half.read_masks(1) > 0
    # Overviews average 2 x 2 pixels; ramps rise by 1 a column and 530 a row.
    np.testing.assert_allclose(small[0, :4], [267, 269, 271, 273], atol=1)
    assert_array_equal(seen, valid[0, ::2, ::2])
    assert small[seen].min() > 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_mask_goes_where_no_nodata_value_can(tmp_path: Path, driver: str) -> None:
    valid = np.ones((1, *SIZE), bool)
    valid[:, 120:, 7:300] = False  # the first strip has no mask of its own
    form = OutputFormat(driver, {}, "uint16", None)  # type: ignore[arg-type]
    path = build(tmp_path, ramp(*SIZE), make_meta(), form, valid)
    with rasterio.open(path) as dataset:
        assert dataset.nodata is None
        for band in (1, 2, 3):
            assert_array_equal(dataset.read_masks(band) > 0, valid[0])


def test_a_picture_without_invalid_pixels_gets_no_mask(tmp_path: Path) -> None:
    form = OutputFormat("COG", {}, "uint16", None)
    valid = np.ones((1, *SIZE), bool)
    path = build(tmp_path, ramp(*SIZE), make_meta(), form, valid)
    with rasterio.open(path) as dataset:
        assert dataset.mask_flag_enums[0] == [rasterio.enums.MaskFlags.all_valid]


def test_overviews_of_codes_hold_codes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.choice([3, 9], (2, SIZE[0], SIZE[1])).astype("uint16")
    form = OutputFormat("COG", {}, "uint16", None)
    path = build(tmp_path, pixels, make_meta(2, descriptions=("B04", "SCL")), form)
    with rasterio.open(path, overview_level=0) as dataset:
        assert set(np.unique(dataset.read(2))) == {3, 9}


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_same_strips_give_the_same_bytes(tmp_path: Path, driver: str) -> None:
    form = OutputFormat(driver, {}, "uint16", 0)  # type: ignore[arg-type]
    pixels = np.random.default_rng(3).integers(0, 9000, (3, *SIZE)).astype("uint16")
    digests = set()
    for turn in range(3):
        folder = tmp_path / str(turn)
        folder.mkdir()
        path = build(folder, pixels, make_meta(), form)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("driver", "creation", "compression"),
    [
        ("COG", {"COMPRESS": "zstd", "LEVEL": "3"}, "zstd"),
        ("COG", {"compress": "LZW"}, "lzw"),
        ("COG", {"BLOCKSIZE": "256"}, "deflate"),
        ("GTiff", {"COMPRESS": "NONE"}, None),
        ("GTiff", {"TILED": "NO", "ZLEVEL": "9"}, "deflate"),
    ],
)
def test_the_users_creation_options_go_first(
    tmp_path: Path, driver: str, creation: dict[str, str], compression: str | None
) -> None:
    form = OutputFormat(driver, creation, "uint16", 0)  # type: ignore[arg-type]
    check_format(form, 3, make_meta().grid)
    with rasterio.open(build(tmp_path, ramp(*SIZE), make_meta(), form)) as dataset:
        found = dataset.compression.name if dataset.compression else None
        assert found == compression
        sides = {"256": (256, 256)}.get(creation.get("BLOCKSIZE", ""))
        assert sides is None or dataset.block_shapes[0] == sides


@pytest.mark.parametrize(
    ("driver", "creation", "dtype"),
    [
        ("COG", {"NO_SUCH": "1"}, "uint16"),
        ("COG", {"COMPRESS": "NOTHING"}, "uint16"),
        ("COG", {"COMPRESS": "JPEG"}, "uint16"),
        ("GTiff", {"BLOCKXSIZE": "7"}, "uint16"),
    ],
)
def test_creation_options_are_checked_before_the_work(
    driver: str, creation: dict[str, str], dtype: str
) -> None:
    form = OutputFormat(driver, creation, dtype, 0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be written as asked"):
        check_format(form, 3, make_meta().grid)


def test_the_default_formats_pass_that_check() -> None:
    for driver in DRIVERS:
        for dtype in ("uint8", "int16", "uint16", "float32", "float64"):
            form = OutputFormat(driver, {}, dtype, None)  # type: ignore[arg-type]
            check_format(form, 4, make_meta().grid)


@pytest.mark.parametrize(
    "creation",
    [{"TILING_SCHEME": "GoogleMapsCompatible"}, {"TARGET_SRS": "EPSG:4326"}],
)
def test_options_that_move_pixels_are_refused_before_the_work(
    creation: dict[str, str],
) -> None:
    with pytest.raises(InputError, match="resamples the output"):
        check_format(OutputFormat("COG", creation, "uint16", 0), 3, make_meta().grid)


@pytest.mark.parametrize(
    ("crs", "is_held"),
    [
        ("EPSG:2056", True),
        ("EPSG:25832+7837", True),
        ("ESRI:54030", True),
        ("+proj=sinu +R=6371007.181 +nadgrids=@null +wktext", True),
        ("+proj=isea", False),
        ("+proj=tpers +h=5500000 +lat_0=40", False),
        ("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39 +lon_0=18", False),
    ],
)
def test_a_crs_that_geotiff_cannot_hold_is_refused(crs: str, is_held: bool) -> None:
    grid = replace(make_meta().grid, crs=CRS.from_user_input(crs))
    for driver in DRIVERS:
        form = OutputFormat(driver, {}, "uint16", 0)  # type: ignore[arg-type]
        refused = pytest.raises(InputError, match="cannot hold the CRS")
        with nullcontext() if is_held else refused:
            check_format(form, 1, grid)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("creation", [{}, {"SPARSE_OK": "TRUE"}])
def test_a_picture_of_nodata_alone_is_written(
    tmp_path: Path, driver: str, creation: dict[str, str]
) -> None:
    form = OutputFormat(driver, creation, "uint16", 0)  # type: ignore[arg-type]
    pixels = np.zeros((3, *SIZE), np.uint16)
    with rasterio.open(build(tmp_path, pixels, make_meta(), form)) as dataset:
        assert not dataset.read_masks().any()


def test_a_damaged_or_foreign_strip_is_refused(tmp_path: Path) -> None:
    meta, form = make_meta(), OutputFormat()
    strips = write_strips(tmp_path, ramp(*SIZE), meta)
    part = tmp_path / "out.tif"
    with pytest.raises(InputError, match="the output has 600"):
        assemble(strips[:2], meta, form, part)
    with pytest.raises(InputError, match="not 3 of 530, int16"):
        assemble(strips, meta, replace(form, dtype="int16"), part)
    strips[1].write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"0001\.tif.*delete it"):
        assemble(strips, meta, form, part)
    assert not part.exists()


def test_a_strip_that_lost_its_end_leaves_no_output(tmp_path: Path) -> None:
    meta, form = make_meta(), OutputFormat()
    strips = write_strips(tmp_path, ramp(*SIZE), meta)
    with open(strips[2], "r+b") as stream:
        stream.truncate(strips[2].stat().st_size // 2)
    part = tmp_path / "out.tif"
    with pytest.raises(ResourceError):
        assemble(strips, meta, form, part)
    assert not list(tmp_path.glob("out*"))


def test_where_room_is_scarce_every_block_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = rasterio.shutil.copy

    def copy_and_damage(source: str, path: Path, **options: object) -> None:
        copy(source, path, **options)
        with open(path, "r+b") as stream:
            stream.seek(path.stat().st_size * 2 // 3)
            stream.write(bytes(100))

    pixels = np.random.default_rng(0).integers(1, 60000, (3, *SIZE)).astype("uint16")
    meta, form = make_meta(), OutputFormat("GTiff")
    strips = write_strips(tmp_path, pixels, meta)
    monkeypatch.setattr(
        "rsupres.output.tiff.geotiff.rasterio.shutil.copy", copy_and_damage
    )
    monkeypatch.setattr("rsupres.output.tiff.verify.room_left", lambda path: 1000)
    with pytest.raises(ResourceError):
        assemble(strips, meta, form, tmp_path / "out.tif")
    assert not list(tmp_path.glob("out*"))


LIMITED = """
import resource, signal, sys
import numpy as np
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from rsupres.errors import ResourceError
from tests.output.tiff.test_geotiff import DRIVERS, SIZE, make_meta, write_strips
from rsupres.output.tiff.geotiff import assemble
from rsupres.output.tiff.profile import OutputFormat
folder = Path(sys.argv[1])
pixels = np.random.default_rng(0).integers(1, 60000, (3, *SIZE)).astype("uint16")
meta = make_meta()
strips = write_strips(folder, pixels, meta)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
for driver in DRIVERS:
    for limit in (1_000, 1_400_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        for act in (
            lambda: assemble(strips, meta, OutputFormat(driver), folder / "out.tif"),
            lambda: write_strips(folder / "more", pixels, meta),
        ):
            try:
                act()
            except ResourceError as error:
                print(driver, limit, error)
        print(sorted(path.name for path in folder.glob("out*")))
resource.setrlimit(resource.RLIMIT_FSIZE, before)
"""


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = iter(done.stdout.splitlines())
    for driver in DRIVERS:
        for limit in (1_000, 1_400_000):
            for _ in ("assemble", "write_strips"):
                line = next(lines, "")
                assert line.startswith(f"{driver} {limit} "), done
                assert "the disk is full or a size limit" in line
            assert next(lines) == "[]"


def test_tags_of_a_file_that_does_not_open_are_none(tmp_path: Path) -> None:
    assert read_tags(tmp_path / "none.tif") == {}
