"""Jobs survive storage and know what makes them differ."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import pytest

from rsupres.errors import InputError, ResourceError, RunConflictError
from rsupres.output.atomic import check_writable, translate_os_errors
from rsupres.raster.dataset import Raster
from rsupres.upscaling.job import UpscaleJob

FULL = UpscaleJob(
    scenes=("/vsicurl/https://x.org/a.tif", "/b.tif"),
    output=Path("/tmp/out.tif"),
    store="/vsis3/bucket/out.tif",
    scale=Fraction(10, 3),
    model="m",
    bidx=(3, 2, 1),
    named_bands=(("red", 3), ("green", 2)),
    other_bands="inject",
    stac=True,
    rgb8=Path("/tmp/p.png"),
    qml=True,
    bands_out="B02,B11",
    dn_scale=1e-4,
    dn_offset=-1000.0,
    mask="/m.tif",
    mask_classes=("clouds", "2"),
    mask_action="keep-bicubic",
    stretch="0,4000",
    bounds=(1.0, 2.0, 3.5, 4.0),
    bounds_crs="EPSG:4326",
    aoi="/aoi.gpkg",
    seed=5,
    steps=4,
    samples=8,
    uncertainty=Path("/tmp/u.tif"),
    interval=0.8,
    interval_low=Path("/tmp/l.tif"),
    interval_high=Path("/tmp/h.tif"),
    detail=0.5,
    sensor_mtf=0.2,
    noise=12.0,
    lock_low_frequencies=True,
    tile_size=64,
    overlap=12,
    batch_size=2,
    device="cpu",
    precision="bf16",
    shard=(2, 3),
    driver="GTiff",
    creation=(("COMPRESS", "LZW"),),
    dtype="float32",
    nodata=float("-inf"),
    input_nodata=255.0,
    overwrite=True,
    run_dir=Path("/tmp/r"),
    keep_run=True,
    fail_if=("valid<0.9",),
    vector_map=("/a.osm.pbf", "/b.gpkg"),
    legend="osm-carto",
    layers=("road", "water"),
    reference=("/r.tif",),
    coregister=True,
    fill_reference=True,
    reference_coverage=Path("/tmp/c.tif"),
    change_mask="detect",
    class_table="second",
    class_attribute="class",
    style="/s.tif",
    style_sample=True,
    sampler="heun",
)


def test_a_job_survives_json():
    stored = json.loads(json.dumps(FULL.to_json()))
    assert UpscaleJob.from_json(stored) == FULL
    plain = UpscaleJob(scenes=("/a.tif",), output=Path("/tmp/o.tif"))
    assert UpscaleJob.from_json(json.loads(json.dumps(plain.to_json()))) == plain


def test_stored_names_of_fields_stay():
    stored = FULL.to_json()
    assert stored["change_classes"] == "second"
    assert stored["change_attribute"] == "class"
    assert FULL.identity()["change_attribute"] == "class"


def test_every_field_of_the_full_job_differs_from_its_default():
    plain = UpscaleJob(scenes=("/a.tif",), output=Path("/o.tif"))
    same = {
        f.name for f in fields(plain) if getattr(plain, f.name) == getattr(FULL, f.name)
    }
    assert same == {"skip_existing", "update", "restart"}


def test_what_changes_the_picture_changes_the_identity():
    for name, value in {
        "seed": 6,
        "scale": Fraction(3),
        "stretch": "0,1",
        "bands_out": "all",
        "dn_scale": 2e-4,
        "dn_offset": 0.0,
        "mask_classes": None,
        "mask_action": "nodata",
        "dtype": None,
        "tile_size": 32,
        "lock_low_frequencies": False,
        "layers": ("road",),
        "coregister": False,
        "fill_reference": False,
        "style_sample": False,
        "sampler": None,
    }.items():
        assert replace(FULL, **{name: value}).identity() != FULL.identity()


def test_what_does_not_change_the_picture_does_not_change_the_identity():
    for name, value in {
        "device": "auto",
        "batch_size": 9,
        "driver": "COG",
        "shard": None,
        "output": Path("/x.tif"),
        "fail_if": (),
        "reference": ("/moved/r.tif",),  # what is in it counts, see `Work.identity`
        "vector_map": ("/moved/a.osm.pbf",),
    }.items():
        assert replace(FULL, **{name: value}).identity() == FULL.identity()


def test_the_run_lives_beside_the_output(tmp_path):
    job = UpscaleJob(scenes=("a",), output=tmp_path / "out.tif")
    assert job.run_path == tmp_path / "out.tif.run"


def test_missing_folders_and_folders_as_files_are_refused(tmp_path):
    check_writable(tmp_path / "o.tif", "output")
    with pytest.raises(InputError, match="no folder"):
        check_writable(tmp_path / "no" / "o.tif", "output")
    with pytest.raises(InputError, match="is a folder"):
        check_writable(tmp_path, "output")


def test_names_that_leave_no_room_for_temporary_ones_are_refused(tmp_path):
    check_writable(tmp_path / ("x" * 226 + ".tif"), "output")
    for length in (227, 300):
        with pytest.raises(InputError, match="too long"):
            check_writable(tmp_path / ("x" * length + ".tif"), "output")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, InputError),  # as below /proc, where nothing can be made
        (errno.ENAMETOOLONG, InputError),
        (errno.EIO, ResourceError),
        (errno.ENOSPC, ResourceError),
    ],
)
def test_what_the_system_refuses_is_no_defect(tmp_path, number, kind):
    with pytest.raises(kind, match=r"o\.tif"), translate_os_errors(tmp_path / "o.tif"):
        raise OSError(number, os.strerror(number))


def test_a_pipe_is_no_scene(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a device, a pipe or a socket"):
        Raster.open(tmp_path / "pipe")


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user who owns nothing, when root; root may write everywhere."""
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)


def test_a_folder_that_may_not_be_written_is_refused():
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to others
        folder = Path(name)
        folder.chmod(0o555)
        try:
            with nobody(), pytest.raises(InputError, match="is read-only"):
                check_writable(folder / "o.tif", "output")
        finally:
            folder.chmod(0o755)


def test_existing_files_are_not_overwritten_unasked(tmp_path):
    output, deviation = tmp_path / "o.tif", tmp_path / "u.tif"
    deviation.touch()
    UpscaleJob(scenes=("a",), output=output).check_vacant()
    UpscaleJob(
        scenes=("a",), output=output, uncertainty=deviation, overwrite=True
    ).check_vacant()
    with pytest.raises(RunConflictError, match=r"u\.tif exists"):
        UpscaleJob(scenes=("a",), output=output, uncertainty=deviation).check_vacant()
