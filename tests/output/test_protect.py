"""No output destroys an input, by whatever name it is reached."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rsupres.errors import ArgumentError, InputError
from rsupres.output.atomic import check_writable
from rsupres.output.protect import also_protected, check_apart, local_files
from rsupres.raster.open import open_dataset


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    path.write_bytes(b"pixels")
    return path


def spelled(scene: Path, way: str) -> str:
    folder, name = scene.parent, scene.name
    near = os.path.relpath(scene)
    return {
        "plain": str(scene),
        "dots": f"{folder}/../{folder.name}/{name}",
        "zip member": f"/vsizip/{scene}/a/b.tif",
        "braces": f"/vsizip/{{{scene}}}/a.tif",
        "subdataset": f"GTIFF_DIR:1:{scene}",
        "quoted": f'NETCDF:"{scene}":band',
        "file URL": f"file://{scene}",
        "zip URL": f"zip+file://{scene}!a/b.tif",
        "relative zip member": f"/vsizip/{near}/a/b.tif",
        "relative zip URL": f"zip://{near}!a/b.tif",
    }[way]


WAYS = ("plain", "dots", "zip member", "braces", "subdataset", "quoted", "file URL")
ZIP_WAYS = ("zip URL", "relative zip member", "relative zip URL")


@pytest.mark.parametrize("way", [*WAYS, *ZIP_WAYS])
def test_an_output_that_is_an_input_is_refused(scene: Path, way: str) -> None:
    inputs = {"scenes": [spelled(scene, way)]}
    with pytest.raises(ArgumentError, match=r"^output .*scene\.tif: is the input"):
        check_apart({"output": scene}, inputs)
    check_apart({"output": scene.with_name("out.tif")}, inputs)


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("to_output", [True, False])
def test_links_are_seen_through(scene: Path, link: object, to_output: bool) -> None:
    other = scene.with_name("other.tif")
    link(scene, other)  # type: ignore[operator]
    given, written = (scene, other) if to_output else (other, scene)
    with pytest.raises(ArgumentError):
        check_apart({"uncertainty": written}, {"reference": [str(given)]})


@pytest.mark.parametrize("end", [".aux.xml", ".msk", ".ovr"])
@pytest.mark.parametrize("exists", [True, False])
def test_sidecars_of_an_input_are_no_outputs(
    scene: Path, end: str, exists: bool
) -> None:
    sidecar = scene.with_name(scene.name + end)
    if exists:
        sidecar.write_bytes(b"")
    with pytest.raises(ArgumentError):
        check_apart({"output": sidecar}, {"scenes": [str(scene)]})


def test_the_parts_of_a_shapefile_are_no_outputs(tmp_path: Path) -> None:
    for end in (".shp", ".dbf"):
        (tmp_path / f"roads{end}").write_bytes(b"")
    inputs = {"vector_map": [str(tmp_path / "roads.shp")]}
    with pytest.raises(ArgumentError):
        check_apart({"output": tmp_path / "roads.dbf"}, inputs)
    check_apart({"output": tmp_path / "roads.tif"}, inputs)


def test_nothing_is_written_into_a_product(tmp_path: Path) -> None:
    product = tmp_path / "S2A.SAFE"
    (product / "GRANULE").mkdir(parents=True)
    inputs = {"scenes": [str(product)]}
    with pytest.raises(ArgumentError, match="lies in the folder"):
        check_apart({"output": product / "GRANULE" / "x.tif"}, inputs)
    check_apart({"output": tmp_path / "x.tif"}, inputs)


def test_special_files_are_no_outputs(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (pipe, tmp_path / "socket", Path("/dev/null")):
            with pytest.raises(ArgumentError, match="device"):
                check_apart({"output": path}, {})


def test_stdout_is_no_output() -> None:
    with pytest.raises(ArgumentError, match=r"^output - would be a file of that name"):
        check_apart({"output": Path("-")}, {})


def test_files_that_were_read_before_are_no_outputs(scene: Path) -> None:
    with (
        also_protected({"config": [str(scene)]}),
        pytest.raises(ArgumentError, match=r"the input .*scene\.tif \(config\)"),
    ):
        check_apart({"output": scene}, {})
    check_apart({"output": scene}, {})


def test_names_without_local_files_are_let_through() -> None:
    for name in ("/vsicurl/https://example.org/a.tif", "s3://bucket/a.tif", "overpass"):
        assert local_files(name) == []


def test_a_name_that_is_no_utf8_is_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not UTF-8"):
        check_writable(tmp_path / "caf\udce9.tif", "output")
    path = tmp_path / "caf\udce9.tif"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="not UTF-8"):
        open_dataset(str(path), str(path))
