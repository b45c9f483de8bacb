"""Batches that run every night: inputs, retries, summaries, limits, logs, processes."""

from __future__ import annotations

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
from affine import Affine

from rsupres.execution import Interrupted, Progress
from rsupres.tiles.batches import attempts, workers
from rsupres.tiles.batches.journal import JOURNAL, read_batch
from tests.cli.commands import lines, run
from tests.helpers import NORTH_UP, make_scene

BICUBIC = ("--model", "bicubic", "--scale", "2")


def test_band_files_become_one_scene(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    for band in ("B02", "B03", "B04"):
        make_scene(folder / f"T32_20200101_{band}_10m.tif", 16, 16, bands=1)
    coarse = NORTH_UP @ Affine.scale(2)
    for band in ("B04", "B11", "SCL"):  # B04 is there with smaller pixels
        path = folder / f"T32_20200101_{band}_20m.tif"
        make_scene(path, 8, 8, bands=1, transform=coarse)
    make_scene(folder / "T32_20200202_B04_10m.tif", 16, 16, bands=1)  # no partner
    make_scene(folder / "rgb_B04.tif", 16, 16)
    make_scene(folder / "rgb_B03.tif", 16, 16)  # three bands each
    out = tmp_path / "out"
    done = run("batch", folder, "--out-dir", out, *BICUBIC)
    assert done.exit_code == 0, done.output
    assert "left out" in done.stderr
    assert "B04_20m.tif" in done.stderr
    assert "SCL_20m.tif" in done.stderr
    assert sorted(path.name for path in out.glob("*.tif")) == [
        *("T32_20200101.tif", "T32_20200202_B04_10m.tif"),
        *("rgb_B03.tif", "rgb_B04.tif"),
    ]
    with rasterio.open(out / "T32_20200101.tif") as made:
        assert made.descriptions == ("B02", "B03", "B04", "B11")
        assert made.shape == (32, 32)
    item = read_batch(out)[0]
    assert [Path(name).name[13:16] for name in item.files] == [
        *("B02", "B03", "B04", "B11")
    ]
    assert run("batch", folder, "--out-dir", out, *BICUBIC, "--plan").exit_code == 0
    again = run("batch", folder, "--out-dir", out, *BICUBIC, "--json")
    assert lines(again.stdout)[-1]["existed"] == 4
    alone = run(
        *("batch", folder, "--out-dir", tmp_path / "a", "--no-group-bands", *BICUBIC),
        *("--plan", "--json"),
    )
    assert lines(alone.stdout)[-1]["inputs"] == 9


def test_patterns_of_names_are_inputs(scenes: Path) -> None:
    (scenes / "deep").mkdir()
    make_scene(scenes / "deep" / "T32TQM_2.tif", 16, 16)
    (scenes / "T32TQM_1.txt").write_text("no raster")

    def names(*patterns: str) -> list[str]:
        done = run("batch", *patterns, "--out-dir", "o", *BICUBIC, "--plan", "--json")
        return [Path(str(line["scene"])).name for line in lines(done.stdout)[:-1]]

    assert names("scenes/T32*") == ["T32TQM_1.tif"]
    assert names("scenes/**/T32*") == ["T32TQM_1.tif", "T32TQM_2.tif"]
    assert names("scenes/**") == ["T32TQM_1.tif", "T33UUP_1.tif", "T32TQM_2.tif"]
    refused = run("batch", "scenes/T99*", "--out-dir", "o")
    assert (refused.exit_code, "matches no" in refused.stderr) == (3, True)


def test_a_plan_sums_up_and_writes_nothing(scenes: Path) -> None:
    (scenes / "bad.tif").write_text("no raster")
    call = ("batch", "scenes", "--out-dir", "out", *BICUBIC, "--plan")
    shown = run(*call, "--json")
    *rows, total = lines(shown.stdout)
    assert shown.exit_code == total["exit_code"] == 3
    assert [bool(row["refused"]) for row in rows] == [False, False, True]
    assert (total["inputs"], total["refused"]) == (3, 1)
    written = sum(int(str(row["output_bytes"] or 0)) for row in rows)
    assert total["output_bytes"] == written > 0
    assert not Path("out").exists()
    assert "3 inputs, 1 refused" in run(*call).stdout


def test_what_took_too_long_to_plan_is_unknown_not_nothing(scenes, monkeypatch) -> None:
    from rsupres.upscaling.estimates import planning

    whole = planning.plan_job

    def plan(job, **options):
        known = {"duration_s": 60.0, "output_bytes": 1000, "left_out": ""}
        if Path(job.scenes[0]).stem == sorted(p.stem for p in scenes.iterdir())[0]:
            known = {"duration_s": None, "output_bytes": None, "left_out": "too long"}
        return replace(whole(job, **options), **known)

    monkeypatch.setattr(planning, "plan_job", plan)
    call = ("batch", "scenes", "--out-dir", "out", *BICUBIC, "--plan")
    first, second, total = run(*call).stdout.splitlines()
    assert first.endswith("time unknown, size unknown (too long)")
    assert second.endswith("60 s, 1 kB")
    assert "0 refused: time unknown, outputs of 1 kB" in total
    assert total.endswith("and those of 1 of unknown size.")
    assert lines(run(*call, "--json").stdout)[-1]["duration_s"] is None


def fails(monkeypatch: pytest.MonkeyPatch, times: dict[str, int]) -> list[str]:
    """Let scenes fail so many times, by the start of their names; note all attempts."""
    tried: list[str] = []
    whole = attempts.upscale_scene

    def upscale(job, **options):
        name = Path(job.scenes[0]).stem
        tried.append(name)
        left = times.get(name, 0)
        if left:
            times[name] = left - 1
            raise OSError("it is gone")
        return whole(job, **options)

    monkeypatch.setattr(attempts, "upscale_scene", upscale)
    return tried


def test_what_failed_is_tried_again_after_the_others(scenes, monkeypatch) -> None:
    tried = fails(monkeypatch, {"T32TQM_1": 2})
    call = ("batch", "scenes", "--out-dir", "out", *BICUBIC, "--json")
    assert run(*call, "--retry", 1).exit_code == 1
    assert tried == ["T32TQM_1", "T33UUP_1", "T32TQM_1"]
    done = run(*call, "--retry", 1)
    assert done.exit_code == 0
    assert tried[3:] == ["T32TQM_1", "T33UUP_1"]
    tried.clear()
    # A failed gate stays failed, so it is not tried again.
    gate = run(*call, "--overwrite", "--retry", 3, "--fail-if", "valid>0.5")
    assert (gate.exit_code, len(tried)) == (8, 2)


def test_a_batch_stops_at_so_many_failures(scenes, monkeypatch) -> None:
    make_scene(scenes / "T30_1.tif", 16, 16)
    tried = fails(monkeypatch, {"T30_1": 9, "T32TQM_1": 9})
    call = ("batch", "scenes", "--out-dir", "out", *BICUBIC)
    stopped = run(*call, "--max-failures", 2, "--retry", 5, "--summary", "s.json")
    assert stopped.exit_code == 1
    assert "Stopped after 2 failures; 1 inputs are left." in stopped.stderr
    assert len(tried) == 2
    assert [i.status for i in read_batch(Path("out"))] == [
        "failed",
        "failed",
        "waiting",
    ]
    assert json.loads(Path("s.json").read_text())["waiting"] == 1


@pytest.mark.parametrize(
    "form", ["csv", pytest.param("json", marks=pytest.mark.slow), "md"]
)
def test_summaries_have_a_row_for_each_input(scenes: Path, form: str) -> None:
    (scenes / "bad|.tif").write_text("no raster")
    path = Path(f"summary.{form}")
    done = run("batch", "scenes", "--out-dir", "out", *BICUBIC, "--summary", path)
    assert done.exit_code == 3
    text = path.read_text()
    if form == "json":
        rows = json.loads(text)["inputs"]
        assert [row["status"] for row in rows] == ["written", "written", "failed"]
        assert rows[0]["figures"]["valid"] == 1
    elif form == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert [row["status"] for row in rows] == ["written", "written", "failed"]
        assert (rows[0]["valid"], rows[2]["valid"], rows[2]["exit_code"]) == (
            "1",
            "",
            "3",
        )
    else:
        table = [line for line in text.splitlines() if line.startswith("|")]
        assert len(table) == 5
        cells = {line.replace("\\|", "").count("|") for line in table}
        assert cells == {table[0].count("|")}
    refused = run("batch", "scenes", "--out-dir", "out", "--summary", "s.txt")
    assert refused.exit_code == 2
    over = run("batch", scenes, "--out-dir", "o", "--summary", scenes / "x.tif.json")
    assert over.exit_code == 3  # no input is replaced, a new file may be written


@pytest.mark.parametrize("form", ["csv", "json", "md"])
def test_names_that_are_no_utf_8_cost_their_scene_alone(scenes: Path, form) -> None:
    bad = os.fsdecode(b"scenes/b\xff.tif")
    (scenes / "T33UUP_1.tif").rename(bad)
    done = run(
        *("batch", "scenes", "--out-dir", "out", *BICUBIC, "--log-file", "log"),
        *("--summary", f"s.{form}"),
    )
    assert done.exit_code == 3, done.output
    assert [i.status for i in read_batch(Path("out"))] == ["written", "failed"]
    assert "lacks lines" not in done.stderr
    assert "not UTF-8" in Path("log").read_text()
    assert "not UTF-8" in Path(f"s.{form}").read_text()


def test_a_summary_does_not_replace_an_input(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "a.tif", 16, 16)
    os.link(scene, tmp_path / "s.csv")
    before = scene.read_bytes()
    call = (
        "batch",
        scene,
        "--out-dir",
        tmp_path / "o",
        "--summary",
        tmp_path / "s.csv",
    )
    assert run(*call, *BICUBIC).exit_code == 2
    assert scene.read_bytes() == before


def test_a_batch_stops_in_time_and_goes_on(scenes: Path, monkeypatch) -> None:
    whole = attempts.upscale_scene
    limits: list[float] = []

    def slow(job, **options):
        if "T33" in job.scenes[0]:
            limits.append(signal.getitimer(signal.ITIMER_REAL)[0])
            signal.raise_signal(signal.SIGALRM)  # the hour is over
        return whole(job, **options)

    monkeypatch.setattr(attempts, "upscale_scene", slow)
    call = ("batch", "scenes", "--out-dir", "out", *BICUBIC, "--summary", "s.csv")
    before = signal.getsignal(signal.SIGALRM)
    stopped = run(*call, "--time-limit", "1h", "--log-file", "log")
    assert 3000 < limits[0] <= 3600
    assert stopped.exit_code == 142
    assert "Stopped by the time limit. The same command continues." in stopped.stderr
    assert "Exit code 142" in Path("log").read_text()
    assert signal.getsignal(signal.SIGALRM) is before
    assert [i.status for i in read_batch(Path("out"))] == ["written", "waiting"]
    with open("s.csv", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["status"] for row in rows] == ["written", "waiting"]
    monkeypatch.setattr(attempts, "upscale_scene", whole)
    assert run(*call).exit_code == 0
    assert [i.status for i in read_batch(Path("out"))] == ["existed", "written"]


@pytest.mark.parametrize("text", ["5", "h", "0s", "1m1h", "-1s"])
def test_times_without_a_unit_are_refused(scenes: Path, text: str) -> None:
    refused = run("upscale", "a.tif", "b.tif", f"--time-limit={text}")
    assert (refused.exit_code, "--time-limit" in refused.stderr) == (2, True)


def test_logs_in_json_have_time_run_scene_and_counters(scenes: Path) -> None:
    (scenes / "bad.tif").write_text("no raster")
    done = run(
        *("batch", "scenes", "--out-dir", "out", *BICUBIC, "--log-file", "log"),
        *("--log-format", "json", "--retry", 1),
    )
    assert done.exit_code == 3
    shown, kept = lines(done.stderr), lines(Path("log").read_text())
    assert len({line["run"] for line in [*shown, *kept]}) == 1
    assert all({"time", "level", "message", "scene"} <= line.keys() for line in kept)
    tiles = [line for line in shown if line.get("phase") == "Tiles"]
    assert tiles[-1]["done"] == tiles[-1]["total"] == 1
    assert str(tiles[0]["scene"]).endswith("T32TQM_1.tif")
    inputs = [line for line in kept if line.get("phase") == "Inputs"]
    assert inputs[-1]["total"] == 3
    results = [line["result"] for line in kept if "result" in line]
    assert [r.get("status") for r in results] == [
        *["written"] * 2,
        "failed",
        "failed",
        None,
    ]
    broken = run(
        "upscale", "no.tif", "o.tif", "--log-format", "json", "--log-file", "log"
    )
    assert lines(broken.stderr)[-1]["exit_code"] == 3
    assert lines(Path("log").read_text())[-1]["level"] == "ERROR"
    early = run("upscale", "no.tif", "--log-format", "json", "--log-file", "log")
    assert early.exit_code == 2
    assert lines(Path("log").read_text())[-1]["level"] == "ERROR"


def test_lines_of_a_batch_name_the_scene(scenes: Path) -> None:
    done = run("batch", "scenes", "--out-dir", "out", *BICUBIC)
    assert "T32TQM_1.tif: Tiles" in done.stderr
    assert "\nInputs: 2/2 inputs" in done.stderr


def test_bars_are_those_of_the_batch_and_of_scenes(capsys) -> None:
    from rsupres.cli.terminal.progress import progress_bars

    with progress_bars() as show:
        show(Progress("Inputs", 0, 2, "inputs"))
        show(Progress("Tiles", 1, 4, "tiles", "in/a.tif"))
        show(Progress("Write", 0, 1, "files", "in/a.tif"))
        show(Progress("Tiles", 2, 4, "tiles", "in/b.tif"))
        bar = show.__closure__
        assert bar is not None
        tasks = next(
            cell.cell_contents for cell in bar if hasattr(cell.cell_contents, "tasks")
        ).tasks
        visible = [task.description for task in tasks if task.visible]
        assert visible == ["Inputs", "a.tif: Write", "b.tif: Tiles"]
        show(Progress("Inputs", 1, 2, "inputs"))
        assert [task.description for task in tasks if task.visible] == ["Inputs"]


def test_several_processes_do_what_one_does(scenes: Path, monkeypatch) -> None:
    """The bits are the same; a process that is killed costs its scene an attempt."""
    (scenes / "bad.tif").write_text("no raster")
    (scenes / "kill.tif").write_text("kill")
    assert run("batch", "scenes", "--out-dir", "one", *BICUBIC).exit_code == 3
    started = workers._Worker.give

    def give(worker, task):
        if task[1].scenes[0].endswith("kill.tif"):
            os.kill(worker.process.pid, signal.SIGKILL)
            worker.process.join()
        started(worker, task)

    monkeypatch.setattr(workers._Worker, "give", give)
    done = run(
        *("batch", "scenes", "--out-dir", "two", *BICUBIC, "--jobs", 2, "--json"),
        *("--log-file", "log", "--log-format", "json"),
    )
    assert done.exit_code == 3, done.output
    items = {item.output.stem: item for item in read_batch(Path("two"))}
    assert items["kill"].exit_code == 6
    assert "SIGKILL" in items["kill"].error
    assert items["bad"].exit_code == 3
    assert "Error" not in items["bad"].error
    for name in ("T32TQM_1.tif", "T33UUP_1.tif"):
        assert Path("two", name).read_bytes() == Path("one", name).read_bytes()
    kept = lines(Path("log").read_text())
    said = {Path(str(line["scene"])).name for line in kept if line.get("phase")}
    assert {"T32TQM_1.tif", "T33UUP_1.tif"} <= said
    assert any("reflectance" in str(line["message"]) for line in kept)  # of a worker
    assert all(line["scene"] for line in kept if "reflectance" in str(line["message"]))


def test_processes_stop_with_the_batch(scenes: Path, monkeypatch) -> None:
    seen: list[int] = []
    started = workers._Worker.give

    def give(worker, task):
        started(worker, task)
        seen.append(worker.process.pid)
        raise Interrupted(15)

    monkeypatch.setattr(workers._Worker, "give", give)
    stopped = run("batch", "scenes", "--out-dir", "o", *BICUBIC, "--jobs", 2)
    assert stopped.exit_code == 143
    assert len(seen) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)
    assert {item.status for item in read_batch(Path("o"))} == {"waiting"}
    assert sorted(path.name for path in Path("o").iterdir()) == [JOURNAL]
