"""What no GeoTIFF can hold, damaged strips, and full disks."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.crs import CRS

from rsupres.errors import InputError, ResourceError
from rsupres.output.tiff.geotiff import assemble, read_tags
from rsupres.output.tiff.profile import OutputFormat
from rsupres.output.tiff.trial import check_format
from tests.helpers import ramp
from tests.output.tiff.strips import DRIVERS, SIZE, build, make_meta, write_strips


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
from tests.output.tiff.strips import DRIVERS, SIZE, make_meta, write_strips
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
