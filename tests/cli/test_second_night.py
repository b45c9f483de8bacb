"""The same command on the next night: what is done stays, what changed is made anew."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import rasterio

from rsupres.output.run_dir import Run
from rsupres.tiles.batches.batch import _alone
from rsupres.tiles.batches.journal import read_batch
from tests.cli.commands import run
from tests.helpers import make_scene

BICUBIC = ("--model", "bicubic", "--scale", "2")
NAMES = ("B04", "B03", "B02")


def upscale(scene: Path, output: Path, *more: object) -> tuple[int, str]:
    """Return the exit code and the status of a call, "" when it failed."""
    result = run("upscale", scene, output, *BICUBIC, *more, "--json")
    assert result.exit_code != 1, result.output
    return result.exit_code, json.loads(result.stdout.splitlines()[-1]).get(
        "status", ""
    )


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "scene.tif", 24, 32, descriptions=NAMES)


@pytest.fixture
def done(scene: Path, tmp_path: Path) -> Path:
    output = tmp_path / "out.tif"
    assert upscale(scene, output) == (0, "written")
    return output


@pytest.mark.parametrize("option", ["--skip-existing", "--update"])
def test_what_is_done_stays_with_its_figures(
    scene: Path, done: Path, option: str
) -> None:
    before = done.read_bytes()
    result = run("upscale", scene, done, *BICUBIC, option, "--json")
    record = json.loads(result.stdout)
    assert (result.exit_code, record["status"]) == (0, "existed")
    assert record["figures"]["valid"] == 1
    assert done.read_bytes() == before


def change_options(scene: Path, done: Path) -> tuple[str, ...]:
    return ("--dtype", "float32")


def change_format(scene: Path, done: Path) -> tuple[str, ...]:
    return ("--co", "COMPRESS=LZW")


def change_scene(scene: Path, done: Path) -> tuple[str, ...]:
    make_scene(scene, 30, 32, descriptions=NAMES)
    return ()


def truncate(scene: Path, done: Path) -> tuple[str, ...]:
    done.write_bytes(done.read_bytes()[:-500])
    return ()


def empty(scene: Path, done: Path) -> tuple[str, ...]:
    done.write_bytes(b"")
    return ()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (change_options, "dtype"),
        (change_format, "creation"),
        (change_scene, "scene"),
        (truncate, "truncated"),
        (empty, "damaged"),
    ],
)
def test_what_changed_is_named_or_made_anew(
    scene: Path, done: Path, change: object, word: str
) -> None:
    more = change(scene, done)  # type: ignore[operator]
    refused = run("upscale", scene, done, *BICUBIC, *more, "--skip-existing")
    assert refused.exit_code == 5
    assert word in refused.stderr
    assert upscale(scene, done, *more, "--update") == (0, "written")
    assert upscale(scene, done, *more, "--update") == (0, "existed")
    with rasterio.open(scene) as lr, rasterio.open(done) as sr:
        assert sr.shape == (2 * lr.height, 2 * lr.width)


@pytest.mark.parametrize("kind", ["text", "raster"])
def test_a_file_of_others_is_never_updated(
    scene: Path, tmp_path: Path, kind: str
) -> None:
    output = tmp_path / "mine.tif"
    output.write_text("notes") if kind == "text" else make_scene(output)
    before = output.read_bytes()
    for option in ("--update", "--skip-existing"):
        assert upscale(scene, output, option)[0] == 5
    assert output.read_bytes() == before
    (tmp_path / "out").mkdir()
    output.rename(tmp_path / "out/scene.tif")
    result = run("batch", scene, "--out-dir", tmp_path / "out", *BICUBIC)
    assert result.exit_code == 5
    assert (tmp_path / "out/scene.tif").read_bytes() == before


def test_a_failed_gate_stays_failed(scene: Path, tmp_path: Path) -> None:
    gate = ("--fail-if", "consistency>0")
    output = tmp_path / "out.tif"
    assert upscale(scene, output, *gate)[0] == 8
    for option in ("--skip-existing", "--update"):
        assert upscale(scene, output, *gate, option)[0] == 8
        assert upscale(scene, output, option) == (0, "existed")


def test_a_run_of_another_job_is_taken_over_when_asked(
    scene: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.tif"
    for more in (("--restart",), ("--overwrite",)):
        with Run.open(tmp_path / "out.tif.run", {"job": {"scale": "9"}}) as other:
            other.strip_path(0).write_bytes(b"strip")
        result = run("upscale", scene, output, *BICUBIC)
        assert result.exit_code == 5
        assert "--restart" in result.stderr
        assert upscale(scene, output, *more) == (0, "written")
        assert not (tmp_path / "out.tif.run").exists()
        output.unlink()


@pytest.mark.parametrize(("encoding", "end"), [("utf-8-sig", "\r\n"), ("utf-16", "\n")])
def test_a_list_takes_comments_blank_lines_and_a_mark(
    tmp_path: Path, encoding: str, end: str
) -> None:
    scenes = [
        make_scene(tmp_path / name, 16, 16, descriptions=NAMES)
        for name in ("a #1.tif", "ü.tif", "c.tif")
    ]
    lines = ["# scenes", "", f"  {scenes[0]}", str(scenes[1]), "  # end"]
    lines.append(f"{scenes[2]} # the last")
    (tmp_path / "list.txt").write_bytes(end.join(lines).encode(encoding))
    result = run(
        *("batch", f"@{tmp_path}/list.txt", "--out-dir", tmp_path / "o"), *BICUBIC
    )
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "o").glob("*.tif")}
    assert names == {"a #1.tif", "ü.tif", "c.tif"}


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# none\n\n")
    result = run("batch", f"@{tmp_path}/list.txt", "--out-dir", tmp_path / "o")
    assert result.exit_code == 2


def test_the_journal_keeps_what_existed_and_what_came_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("a", "b"):
        make_scene(tmp_path / f"{name}.tif", 16, 16, descriptions=NAMES)
        assert run(
            "batch", tmp_path / f"{name}.tif", "--out-dir", out, *BICUBIC
        ).exit_code in (0,)
    first = json.loads((out / "batch.json").read_text())
    assert run("batch", tmp_path / "b.tif", "--out-dir", out, *BICUBIC).exit_code == 0
    journal = json.loads((out / "batch.json").read_text())
    (item,) = journal["items"]
    assert item["status"] == "existed"
    assert item["figures"]["valid"] == 1
    assert item["finished"] == first["items"][0]["finished"] != ""
    (earlier,) = journal["earlier"]
    assert earlier["output"] == str(out / "a.tif")
    assert journal["version"]
    assert journal["started"] <= journal["updated"]
    assert journal["options"]["scale"] == "2"


def test_a_damaged_journal_is_kept(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/batch.json").write_text('{"items": [')
    result = run("batch", scene, "--out-dir", tmp_path / "out", *BICUBIC)
    assert result.exit_code == 0
    (kept,) = (tmp_path / "out").glob("batch.json.damaged-*")
    assert kept.read_text() == '{"items": ['


def test_a_folder_is_searched_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep/er").mkdir(parents=True)
    scene = make_scene(folder / "a.tif", 16, 16, descriptions=NAMES)
    with zipfile.ZipFile(folder / "b.zip", "w") as archive:
        archive.write(scene, "b.tif")
    with zipfile.ZipFile(folder / "c.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    (folder / "notes.txt").write_text("mine")
    make_scene(folder / "deep/er/a.tif", 16, 16, descriptions=NAMES)
    out = folder / "out"
    for _ in range(2):
        result = run("batch", folder, "--out-dir", out, *BICUBIC)
        assert result.exit_code == 0, result.output
        assert {p.name for p in out.glob("*.tif")} == {"a.tif", "b.tif"}
        for name in ("notes.txt", "c.zip", "deep", "--recursive"):
            assert name in result.stderr
    result = run("batch", folder, "--out-dir", out, *BICUBIC, "--recursive")
    assert result.exit_code == 0, result.output
    assert {str(p.relative_to(out)) for p in out.rglob("*.tif")} == {
        *("a.tif", "b.tif", "deep/er/a.tif"),
    }


def test_the_log_file_holds_results_progress_and_errors(
    scene: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    more = (*BICUBIC, "--log-file", log)
    output = tmp_path / "out.tif"
    for call, code in (
        (("upscale", scene, output, *more), 0),
        (("upscale", scene, output, *more), 5),
        (("upscale", scene, output, *more, "--json"), 5),
        (("upscale", scene, output, *more, "--scale", "abc"), 2),
        (("batch", scene, "--out-dir", tmp_path / "o", *more), 0),
    ):
        before = log.read_text() if log.exists() else ""
        result = run(*call)
        assert result.exit_code == code, result.output
        written = log.read_text().removeprefix(before)
        shown = result.stderr + ("" if "--json" in call else result.stdout)
        for line in shown.splitlines():
            assert line.removeprefix("Error: ") in written


def test_an_input_is_not_taken_for_a_log(scene: Path, tmp_path: Path) -> None:
    before = scene.read_bytes()
    wrong = ("--scale", "abc", "--log-file", scene)
    assert run("upscale", scene, tmp_path / "o.tif", *wrong).exit_code == 2
    assert scene.read_bytes() == before


def test_status_says_what_is_finished_and_what_is_left(
    scene: Path, done: Path, tmp_path: Path
) -> None:
    for name in (done, f"{done}.run"):
        record = json.loads(run("status", name, "--json").stdout)
        assert (record["state"], record["percent"]) == ("finished", 100)
        assert record["model"] == "bicubic"
    assert "finished" in run("status", tmp_path).stdout
    manifest = {"job": {"scale": "9"}, "n_strips": 4}
    with Run.open(tmp_path / "o.tif.run", manifest) as other:
        other.strip_path(0).write_bytes(b"strip")
    record = json.loads(run("status", tmp_path / "o.tif", "--json").stdout)
    assert record["percent"] == 25
    assert record["left_s"] >= 0
    assert "25 %" in run("status", tmp_path / "o.tif.run").stdout
    assert run("status", scene).exit_code == 3


def test_a_plan_says_what_an_existing_output_would_do(scene: Path, done: Path) -> None:
    def plan(*more: str) -> int:
        return run("plan", scene, done, *BICUBIC, *more).exit_code

    assert plan() == 5
    assert plan("--skip-existing") == 0
    assert plan("--skip-existing", "--dtype", "float32") == 5
    assert plan("--update", "--dtype", "float32") == 0


def test_shards_of_a_batch_share_the_journal(tmp_path: Path) -> None:
    """Rows of one shard are not overwritten by those of another."""
    for name in ("a", "b"):
        make_scene(tmp_path / f"{name}.tif", 40, 32, descriptions=NAMES)
    out = tmp_path / "out"
    call = ("batch", tmp_path / "a.tif", tmp_path / "b.tif", "--out-dir", out)
    tiles = ("--tile-size", 16, "--overlap", 6, *BICUBIC)
    assert run(*call, *tiles, "--shard", "1/2").exit_code == 0
    items = read_batch(out)
    assert [item.status for item in items] == ["computed", "computed"]
    (tmp_path / "b.tif").rename(tmp_path / "c.tif")
    assert run(*call, *tiles, "--shard", "2/2").exit_code == 3
    assert [item.status for item in read_batch(out)] == ["written", "failed"]
    assert run(*call, *tiles, "--shard", "1/2").exit_code == 3  # not there, either
    (tmp_path / "c.tif").rename(tmp_path / "b.tif")
    assert run(*call, *tiles, "--shard", "1/2").exit_code == 0
    items = read_batch(out)
    assert [item.status for item in items] == ["written", "failed"]
    assert {name: s["status"] for name, s in items[1].shards.items()} == {
        "1/2": "computed",
        "2/2": "failed",
    }
    assert run(*call, *tiles, "--shard", "2/2").exit_code == 0
    items = read_batch(out)
    assert [item.status for item in items] == ["existed", "written"]
    assert all(item.figures for item in items)
    assert not [*out.glob("*of*.lock")]


def test_shards_and_whole_batches_keep_each_other_out(tmp_path: Path, hasty) -> None:
    make_scene(tmp_path / "a.tif", 24, 32, descriptions=NAMES)
    out = tmp_path / "out"
    out.mkdir()
    call = ("batch", tmp_path / "a.tif", "--out-dir", out, *BICUBIC)
    with _alone(out, (1, 2)):
        assert run(*call).exit_code == 5
        assert run(*call, "--shard", "1/2").exit_code == 5
        assert run(*call, "--shard", "2/2").exit_code == 0
    with _alone(out, None):
        assert run(*call, "--shard", "1/2").exit_code == 5
