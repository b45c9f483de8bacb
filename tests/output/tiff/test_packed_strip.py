"""Strips packed while their columns come give the file of strips packed afterwards."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rsupres.grid import PixelWindow
from rsupres.output.run_dir import Run
from rsupres.output.tiff import packets as module
from rsupres.output.tiff.packed_strip import PackedStrip
from rsupres.output.tiff.profile import OutputFormat
from tests.output.tiff.packet_cases import EDGES, SIZE, Case, make_meta, picture

# Where the strips' columns are cut: in a block, at its edge, at an odd column.
CUTS = (300, 512, 1035)


@pytest.fixture(autouse=True, params=["2", "16"])
def _a_small_output_is_packed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pack outputs of any size; with 16 threads, several packets at once."""
    monkeypatch.setattr(module, "PACKED_BYTES", 0)
    monkeypatch.setenv("GDAL_NUM_THREADS", request.param)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.open(tmp_path / "out.tif.run", {"job": {}, "n_strips": len(EDGES) - 1})


def make_case(
    folder: Path, run: Run, nodata: float | None, valid: np.ndarray | None = None
) -> Case:
    """Return a case of two bands, whose strips are removed again."""
    pixels = picture(2, "uint16")
    if valid is not None and nodata is not None:
        pixels[:, ~valid[0]] = nodata
    form = OutputFormat("COG", {}, "uint16", nodata)
    case = Case(folder, run, make_meta(2), form, pixels, valid)
    for path in case.packets.strips:
        path.unlink()
    return case


def write(case: Case, strip: int, begun: int, valid: np.ndarray | None) -> None:
    """Write a strip column by column, and publish its files."""
    rows = slice(EDGES[strip], EDGES[strip + 1])
    with ExitStack() as stack:
        packed = PackedStrip(case.packets, strip, stack, begun)
        parts = np.split(case.pixels[:, rows], CUTS, axis=2)
        shown = [None] * len(parts)
        if valid is not None:
            shown = np.split(valid[:, rows], CUTS, axis=2)
        for part, seen in zip(parts, shown, strict=True):
            packed.write(part, None if seen is None or seen.all() else seen)
        packed.finish()


def stored_rows(case: Case) -> list[int]:
    """Return how many rows the file of each strip holds."""
    found = []
    for path in case.packets.strips:
        if path.exists():
            with rasterio.open(path) as dataset:
                found.append(dataset.height)
        else:
            found.append(0)
    return found


@pytest.mark.parametrize("nodata", [None, 0])
def test_the_file_is_that_of_strips_packed_afterwards(
    tmp_path: Path, run: Run, nodata: float | None
) -> None:
    valid = np.ones((1, *SIZE), bool)
    if nodata is not None:
        valid[:, 690:1400, 200:901] = False
    case = make_case(tmp_path, run, nodata, valid)
    for strip in range(5):
        write(case, strip, 0, valid)
    # Rows 512 to 700, none, 1024 to 1030, 2048 to 2307, none.
    assert stored_rows(case) == [188, 0, 6, 259, 0]
    assert run.done_strips() == set(range(5))
    assert case.finish() == case.wanted


def test_a_strip_without_the_one_above_is_kept_whole(tmp_path: Path, run: Run) -> None:
    case = make_case(tmp_path, run, 0)
    for strip in (3, 4, 0, 1, 2):  # two shards, the lower one first
        write(case, strip, 3 if strip > 2 else 0, None)
    assert stored_rows(case) == [188, 0, 6, 1277, 0]
    assert case.finish() == case.wanted


def test_a_packet_that_begins_in_strips_of_another_process_is_left(
    tmp_path: Path, run: Run
) -> None:
    case = make_case(tmp_path, run, 0)
    packets = replace(case.packets, edges=(0, 300, 400, 600, SIZE[0]))
    assert packets.share(2, 1) == ([], 400)
    assert packets.share(2, 0) == ([PixelWindow(0, 0, 512, SIZE[1])], 512)


def test_a_mask_that_begins_above_the_strip_is_kept(tmp_path: Path, run: Run) -> None:
    valid = np.ones((1, *SIZE), bool)
    valid[:, 650:690, 310:900] = False
    case = make_case(tmp_path, run, None, valid)
    for strip in range(5):
        write(case, strip, 0, valid)
    case.finish()
    with rasterio.open(case.output) as dataset:
        np.testing.assert_array_equal(dataset.read(), case.pixels)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid[0])


def test_an_abandoned_strip_leaves_no_files(tmp_path: Path, run: Run) -> None:
    case = make_case(tmp_path, run, 0)
    stack = ExitStack()
    packed = PackedStrip(case.packets, 0, stack, 0)
    packed.write(case.pixels[:, : EDGES[1], :600])
    error = KeyboardInterrupt()
    stack.__exit__(type(error), error, None)
    left = [path.name for path in run.path.rglob("*") if path.is_file()]
    assert sorted(left) == ["form.json", "run.json", "run.lock"]


def test_packets_of_a_strip_that_was_not_noted_are_used(
    tmp_path: Path, run: Run
) -> None:
    case = make_case(tmp_path, run, 0)
    write(case, 0, 0, None)
    write(case, 1, 0, None)
    # As if the process was killed between publishing the packets and the strip.
    case.packets.strips[1].with_suffix(".packed").unlink()
    case.packets.pack(range(1))
    assert stored_rows(case) == [0] * 5
    for strip in range(1, 5):
        write(case, strip, 1, None)
    assert run.done_strips() == set(range(5))
    assert case.finish() == case.wanted


def test_another_form_is_not_packed(tmp_path: Path, run: Run) -> None:
    case = make_case(tmp_path, run, 0)
    case.packets.folder.mkdir()
    (case.packets.folder / "form.json").write_text("{}")
    write(case, 0, 0, None)
    assert stored_rows(case)[0] == 700
