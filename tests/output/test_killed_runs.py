"""Run directories whose processes were killed, one or many."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from rsupres.errors import RunConflictError
from rsupres.output.run_dir import Run
from rsupres.output.run_state import read_state
from tests.output.processes import JOB, child, finish, names, put_strip


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


HOLD = "run = Run.open(path, manifest); tell('held'); time.sleep(600)"


def test_a_live_run_is_refused_with_its_process(tmp_path: Path, hasty) -> None:
    with child(tmp_path / "o.run", HOLD) as process:
        assert next_line(process) == "held"
        with pytest.raises(RunConflictError, match=f"process {process.pid} on "):
            Run.open(tmp_path / "o.run", JOB)
        owner = read_state(tmp_path / "o.run").owner
        assert owner is not None
        assert owner.pid == process.pid


def test_the_run_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with child(tmp_path / "o.run", HOLD) as process:
        assert next_line(process) == "held"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert read_state(tmp_path / "o.run").owner is None
        with Run.open(tmp_path / "o.run", JOB):
            owner = read_state(tmp_path / "o.run").owner
            assert owner is not None
            assert owner.pid == os.getpid()


def test_a_kill_while_writing_leaves_no_strip_under_its_name(tmp_path: Path) -> None:
    body = """
        run = Run.open(path, manifest)
        with publishing(run.strip_path(0)) as part:
            part.write_bytes(b'whole')
        with publishing(run.strip_path(1)) as part:
            part.write_bytes(b'half'); tell('writing'); time.sleep(600)
    """
    with child(tmp_path / "o.run", body) as process:
        assert next_line(process) == "writing"
        process.send_signal(signal.SIGKILL)
        process.wait()
    halves = list((tmp_path / "o.run/strips").glob("0001.tif.*.tmp"))
    assert [half.read_bytes() for half in halves] == [b"half"]
    with Run.open(tmp_path / "o.run", JOB) as run:
        assert run.done_strips() == {0}
        assert names(run.path / "strips") == ["0000.tif"]


def test_kills_at_any_moment_leave_a_run_that_continues(tmp_path: Path) -> None:
    # A child is killed after ever more calls of functions, until one survives.
    body = """
        import signal
        from rsupres.families.base import SceneContext

        def work():
            with Run.open(path, manifest) as run:
                if run.load_context() is None:
                    latent = run.allocate('latent', (50, 2000), 'float32')
                    latent[:] = 7
                    run.save_context(SceneContext({'latent': latent}, {'low': 0.5}))
                for strip in sorted(set(range(20)) - run.done_strips()):
                    with publishing(run.strip_path(strip)) as part:
                        part.write_bytes(bytes([strip]) * 10000)

        def is_killed(n_calls):
            pid = os.fork()
            if pid == 0:
                calls = iter(range(n_calls))
                def count(*event):
                    if next(calls, None) is None:
                        os.kill(os.getpid(), signal.SIGKILL)
                sys.setprofile(count)
                work()
                os._exit(0)
            return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

        n_calls, n_kills = 40, 0
        while is_killed(n_calls):
            n_calls += n_calls // 6
            n_kills += 1
        tell(n_kills)
    """
    path = tmp_path / "o.run"
    assert int(finish(path, body)) > 20
    with Run.open(path, JOB) as run:
        assert run.done_strips() == set(range(20))
        for strip in range(20):
            assert run.strip_path(strip).read_bytes() == bytes([strip]) * 10000
        context = run.load_context()
        assert context is not None
        assert (context.arrays["latent"] == 7).all()
        assert context.numbers == {"low": 0.5}
        expected = ["context", "run.json", "run.lock", "strips"]
        assert sorted(file.name for file in path.iterdir()) == expected


def test_a_second_run_in_one_process_is_refused_too(tmp_path: Path, hasty) -> None:
    with (
        Run.open(tmp_path / "o.run", JOB),
        pytest.raises(RunConflictError, match=f"process {os.getpid()}"),
    ):
        Run.open(tmp_path / "o.run", JOB)


def test_many_processes_may_open_a_run_at_once_as_shards(tmp_path: Path) -> None:
    failures: list[Exception] = []
    barrier = threading.Barrier(8)

    def work(shard: int) -> None:
        try:
            barrier.wait()
            with Run.open(tmp_path / "o.run", JOB, exclusive=False) as run:
                run.lock_shard(shard, 8)
                put_strip(run, shard)
                barrier.wait()
        except Exception as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(shard,)) for shard in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert read_state(tmp_path / "o.run").done == set(range(1, 9))
