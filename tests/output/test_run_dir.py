"""A run directory: its manifest, locks, shards and contexts."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsupres.errors import RunConflictError
from rsupres.families.base import SceneContext
from rsupres.output.atomic import publishing
from rsupres.output.run_dir import Run
from rsupres.output.run_state import RunState, read_state
from tests.output.processes import JOB, names, put_strip
from tests.strategies import COSTLY, LETTERS

MANIFEST: dict[str, Any] = {
    "job": {"scene": "a.tif", "scale": "4", "tile": {"size": 64}},
    "n_strips": 3,
}


def test_a_new_run_writes_its_manifest_and_no_leftovers(tmp_path: Path) -> None:
    with Run.open(tmp_path / "o.run", MANIFEST) as run:
        assert run.manifest == MANIFEST
        assert run.done_strips() == frozenset()
    assert names(tmp_path / "o.run") == ["run.json", "run.lock", "strips"]
    assert Run.load(tmp_path / "o.run") == MANIFEST


def test_the_same_job_continues_with_what_is_done(tmp_path: Path) -> None:
    with Run.open(tmp_path / "o.run", {**MANIFEST, "stretch": [0, 1]}) as run:
        put_strip(run, 0)
        put_strip(run, 12345)
    with Run.open(tmp_path / "o.run", {**MANIFEST, "stretch": [5, 6]}) as again:
        assert again.done_strips() == {0, 12345}
        assert again.manifest["stretch"] == [0, 1]  # the first one stays


def test_leftovers_are_removed_on_opening(tmp_path: Path) -> None:
    with Run.open(tmp_path / "o.run", MANIFEST) as run:
        put_strip(run, 7)
    (tmp_path / "o.run/strips/0008.tif.12.tmp").write_bytes(b"half")
    (tmp_path / "o.run/strips/0008.tif.12.tmp.aux.xml").write_bytes(b"half")
    (tmp_path / "o.run/context.abcd.tmp").mkdir()
    (tmp_path / "o.run/context.abcd.tmp/latent.npy").write_bytes(b"half")
    with Run.open(tmp_path / "o.run", MANIFEST) as run:
        assert run.done_strips() == {7}
        assert names(run.path) == ["run.json", "run.lock", "strips", "strips/0007.tif"]


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"scene": "b.tif"}, "scene 'a.tif' instead of 'b.tif'"),
        ({"tile": {"size": 128}}, "tile.size 64 instead of 128"),
        ({"seed": 3}, "seed None instead of 3"),
        ({"scale": 4}, "scale '4' instead of 4"),
    ],
)
def test_another_job_is_refused_by_the_name_of_what_differs(
    tmp_path: Path, job: dict[str, object], message: str
) -> None:
    with Run.open(tmp_path / "o.run", MANIFEST):
        pass
    before = (tmp_path / "o.run/run.json").read_bytes()
    with pytest.raises(RunConflictError, match=message):
        Run.open(tmp_path / "o.run", {"job": {**MANIFEST["job"], **job}})
    assert (tmp_path / "o.run/run.json").read_bytes() == before
    with Run.open(tmp_path / "o.run", MANIFEST):  # the refusal let go of the lock
        pass


def test_tuples_and_lists_are_the_same_job(tmp_path: Path) -> None:
    with Run.open(tmp_path / "o.run", {"job": {"bands": (3, 2, 1)}}):
        pass
    with Run.open(tmp_path / "o.run", {"job": {"bands": [3, 2, 1]}}):
        pass


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"x")
    with pytest.raises(RunConflictError, match=r"no run directory .*a\.jpg"):
        Run.open(tmp_path / "photos", MANIFEST)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(RunConflictError, match="file: exists and is no run directory"):
        Run.open(tmp_path / "file", MANIFEST)
    assert names(tmp_path) == ["file", "photos", "photos/a.jpg"]


@pytest.mark.parametrize("content", ["", '{"job": {"sca', "[1, 2]"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "o.run").mkdir()
    (tmp_path / "o.run/run.json").write_text(content)
    with pytest.raises(RunConflictError, match=r"run\.json: damaged"):
        Run.open(tmp_path / "o.run", MANIFEST)


def test_a_directory_whose_maker_died_before_the_manifest_is_new(
    tmp_path: Path,
) -> None:
    (tmp_path / "o.run/strips").mkdir(parents=True)
    (tmp_path / "o.run/run.lock").write_text('{"pid": 1')
    (tmp_path / "o.run/run.json.12.tmp").write_text('{"job"')
    with Run.open(tmp_path / "o.run", MANIFEST) as run:
        assert names(run.path) == ["run.json", "run.lock", "strips"]


def test_a_shard_is_locked_against_a_second_worker_only(tmp_path, hasty) -> None:
    path = tmp_path / "o.run"
    with Run.open(path, JOB, exclusive=False) as other:
        with Run.open(path, JOB, exclusive=False) as run:
            run.lock_shard(1, 3)
            with pytest.raises(RunConflictError, match="works on this run"):
                other.lock_shard(1, 3)
            with pytest.raises(RunConflictError, match="shard-1-of-3 is being"):
                other.lock_shard(1, 4)
            other.lock_shard(2, 3)
            with pytest.raises(RunConflictError):
                Run.open(path, JOB)
        other.lock_shard(1, 3)


@pytest.mark.parametrize("shard", [0, 4])
def test_shards_that_do_not_exist_are_refused(tmp_path: Path, shard: int) -> None:
    with (
        Run.open(tmp_path / "o.run", JOB, exclusive=False) as run,
        pytest.raises(ValueError, match=f"shard {shard} of 3"),
    ):
        run.lock_shard(shard, 3)


def test_one_of_two_shards_assembles(tmp_path: Path) -> None:
    with (
        Run.open(tmp_path / "o.run", JOB, exclusive=False) as one,
        Run.open(tmp_path / "o.run", JOB, exclusive=False) as two,
    ):
        assert one.claim_assembly()
        assert not two.claim_assembly()
        one.remove()
        assert not two.claim_assembly()
    assert not (tmp_path / "o.run").exists()


def test_a_shard_keeps_the_leftovers_of_others_at_work(tmp_path: Path) -> None:
    with Run.open(tmp_path / "o.run", JOB, exclusive=False) as one:
        with (
            publishing(one.strip_path(1)) as part,
            Run.open(tmp_path / "o.run", JOB, exclusive=False),
        ):
            part.write_bytes(b"pixels")
        assert one.done_strips() == {1}


arrays = st.dictionaries(
    st.sampled_from(["latent", "mean", "levels"]),
    st.builds(
        lambda shape, dtype, seed: (
            np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
        ),
        st.lists(st.integers(0, 4), max_size=3),
        st.sampled_from(["float32", "float16", "int32", "uint8"]),
        st.integers(0, 99),
    ),
)


@COSTLY  # each one waits for the disk several times
@given(
    arrays, st.dictionaries(st.text(LETTERS, max_size=5), st.floats(allow_nan=False))
)
def test_a_context_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    content: dict[str, np.ndarray],
    numbers: dict[str, float],
) -> None:
    path = tmp_path_factory.mktemp("context")
    with Run.open(path / "o.run", JOB) as run:
        assert run.load_context() is None
        for context in (
            run.save_context(SceneContext(content, numbers)),
            run.load_context(),
        ):
            assert context is not None
            assert context.numbers == numbers
            assert context.arrays.keys() == content.keys()
            for name, array in content.items():
                assert context.arrays[name].dtype == array.dtype
                assert np.array_equal(context.arrays[name], array)
                assert not context.arrays[name].flags.writeable
    shutil.rmtree(path)


def test_allocated_arrays_are_zero_adopted_or_dropped(tmp_path: Path) -> None:
    with Run.open(tmp_path / "o.run", JOB) as run:
        latent = run.allocate("latent", (3, 200, 100), "float32")
        scratch = run.allocate("scratch", (5, 5), "float64")
        assert not latent.any()
        assert not scratch.any()
        latent[1, 2, 3] = 4.5
        context = run.save_context(SceneContext({"latent": latent, "k": np.ones(3)}))
        assert isinstance(context.arrays["latent"], np.memmap)
        assert context.arrays["latent"][1, 2, 3] == 4.5
        files = sorted(file.name for file in run.context_dir.iterdir())
        assert files == ["context.json", "k.npy", "latent.npy"]
    assert sorted(file.name for file in run.path.iterdir()) == [
        "context", "run.json", "run.lock", "strips",
    ]  # fmt: skip


def test_a_part_of_an_allocated_array_can_be_kept_under_its_name(
    tmp_path: Path,
) -> None:
    with Run.open(tmp_path / "o.run", JOB) as run:
        latent = run.allocate("latent", (300, 400), "float32")
        latent[:] = np.arange(400)
        context = run.save_context(SceneContext({"latent": latent[:, ::2]}))
        assert context.arrays["latent"].shape == (300, 200)
        assert (context.arrays["latent"] == np.arange(0, 400, 2)).all()


def test_the_first_context_of_a_run_stays(tmp_path: Path) -> None:
    with (
        Run.open(tmp_path / "o.run", JOB, exclusive=False) as one,
        Run.open(tmp_path / "o.run", JOB, exclusive=False) as two,
    ):
        one.save_context(SceneContext(numbers={"low": 1.0}))
        stored = two.save_context(SceneContext(numbers={"low": 2.0}))
        assert stored.numbers == {"low": 1.0}
    assert not list((tmp_path / "o.run").glob("*.tmp"))


def test_arrays_with_unsafe_names_or_objects_are_refused(tmp_path: Path) -> None:
    with Run.open(tmp_path / "o.run", JOB) as run:
        with pytest.raises(ValueError, match="identifier"):
            run.allocate("../latent", (3,), "float32")
        with pytest.raises(ValueError, match="pickle"):
            run.save_context(SceneContext({"a": np.array([{}])}))
        assert run.load_context() is None


def test_remove_leaves_nothing_of_ours(tmp_path: Path) -> None:
    with Run.open(tmp_path / "o.run", JOB) as run:
        put_strip(run, 0)
        run.save_context(SceneContext(numbers={"low": 1.0}))
        run.remove()
        assert not run.path.exists()
    with Run.open(tmp_path / "o.run", JOB) as run:
        (run.path / "notes.txt").write_text("mine")
        run.remove()
    assert names(tmp_path / "o.run") == ["notes.txt"]


def test_a_state_tells_what_is_done(tmp_path: Path) -> None:
    with Run.open(tmp_path / "o.run", MANIFEST) as run:
        os.utime(run.path / "run.json", (1000, 1000))
        put_strip(run, 0)
        put_strip(run, 2)
        os.utime(run.strip_path(0), (2000, 2000))
        os.utime(run.strip_path(2), (1500, 1500))
    state = read_state(tmp_path / "o.run")
    assert isinstance(state, RunState)
    assert (state.n_strips, state.done, state.owner) == (3, {0, 2}, None)
    assert (state.started.timestamp(), state.updated.timestamp()) == (1000, 2000)


def test_looking_at_a_run_does_not_stop_one_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The thread may lose its turn while it looks.
    monkeypatch.setattr("rsupres.output.locks.PATIENCE_S", 100.0)
    with Run.open(tmp_path / "o.run", MANIFEST):
        pass
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            read_state(tmp_path / "o.run")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(20):
            with Run.open(tmp_path / "o.run", MANIFEST):
                pass
    finally:
        stop.set()
        thread.join()


def test_manifests_are_plain_json(tmp_path: Path) -> None:
    with Run.open(tmp_path / "o.run", MANIFEST) as run:
        stored = json.loads((run.path / "run.json").read_text())
        assert {**MANIFEST, "checksum": stored["checksum"]} == stored
    with pytest.raises(TypeError):
        Run.open(tmp_path / "p.run", {"job": {"scale": object()}})


def test_of_several_shards_one_prepares_and_the_others_wait(tmp_path: Path) -> None:
    prepared = []

    def prepare() -> SceneContext:
        prepared.append(1)
        time.sleep(0.1)
        return SceneContext(numbers={"low": 0.5})

    manifest = {"job": {}, "n_strips": 2}
    runs = [Run.open(tmp_path / "r", manifest, exclusive=False) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda run: run.share_context(prepare), runs))
    assert [context.numbers for context in found] == [{"low": 0.5}] * 3
    assert len(prepared) == 1
