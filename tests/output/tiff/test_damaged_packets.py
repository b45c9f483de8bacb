"""Damage in a run directory is an error that names the file, never a wrong output."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rsupres.errors import InputError
from rsupres.output.run_dir import Run
from rsupres.output.tiff import packets as module
from rsupres.output.tiff.profile import OutputFormat
from tests.output.tiff.packet_cases import EDGES, Case, make_meta, picture

_REMEDY = "and run the same command again"


@pytest.fixture(autouse=True)
def _a_small_output_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKED_BYTES", 0)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    run = Run.open(tmp_path / "out.tif.run", {"job": {}, "n_strips": len(EDGES) - 1})
    form = OutputFormat("COG", {}, "uint16", 0)
    return Case(tmp_path, run, make_meta(1), form, picture(1, "uint16"))


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def make_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


DAMAGES = [Path.unlink, halve, make_noise]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_packet_is_named(case: Case, damage: Callable[[Path], None]) -> None:
    case.packets.pack(range(3))
    damage(case.packets.path(0, 0))
    with pytest.raises(InputError, match=_REMEDY):
        case.finish()
    assert not case.output.exists()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["packets/0-001024.tif", "output.part"])
def test_damage_after_the_output_was_begun_is_named(
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    name: str,
) -> None:
    real, n_copied = module.copy_blocks, 0

    def killed(packet: Path, first: int, part: Path) -> range:
        nonlocal n_copied
        n_copied += 1
        if n_copied == 3:
            raise KeyboardInterrupt
        return real(packet, first, part)

    def remove_at_once(
        sink: Callable[[tuple[Path, range]], None],
    ) -> nullcontext[SimpleNamespace]:
        return nullcontext(SimpleNamespace(put=sink))

    with monkeypatch.context() as patch:
        patch.setattr(module, "copy_blocks", killed)
        # A packet that is still there would be copied again, over the damage.
        patch.setattr(module, "write_behind", remove_at_once)
        with pytest.raises(KeyboardInterrupt):
            case.finish()
    damage(case.packets.run.path / name)
    with pytest.raises(InputError, match=_REMEDY):
        case.finish()
    assert not case.output.exists()


def test_a_truncated_strip_is_named(case: Case) -> None:
    halve(case.packets.strips[3])
    with pytest.raises(InputError, match=r"0003\.tif: this strip cannot be read"):
        case.finish()


@pytest.mark.parametrize("damage", [halve, make_noise])
def test_damaged_rows_of_the_smallest_overviews_are_named(
    case: Case, damage: Callable[[Path], None]
) -> None:
    case.packets.pack(range(5))
    damage(case.packets.raw_path(2, 0))
    with pytest.raises(InputError, match=_REMEDY):
        case.finish()


def test_a_damaged_note_of_the_form_costs_only_time(case: Case) -> None:
    case.packets.pack(range(2))
    make_noise(case.packets.folder / "form.json")
    assert case.finish() == case.wanted
