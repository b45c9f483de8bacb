"""Runs Dask schedulers and workers in processes of their own, without slow imports.

Started as a script: it imports the package once, then forks a scheduler or a worker for
every request. Each is a process of its own, which a test may kill.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Farm:
    """The tests' side.

    Attributes:
        folder: for the files of all processes.
    """

    folder: Path
    _server: subprocess.Popen[str] | None = field(default=None)
    _pids: list[int] = field(default_factory=list)

    def scheduler(self, name: str = "scheduler") -> tuple[int, Path]:
        """Start a scheduler; return its process number, and its file."""
        file = self.folder / f"{name}.json"
        file.unlink(missing_ok=True)
        pid = self._fork({"kind": "scheduler", "file": str(file)})
        _wait_for(file)
        return pid, file

    def worker(self, file: Path, *, tile_s: float = 0.0, **environment: str) -> int:
        """Start a worker, wait for it, and return its process number.

        While the file `hold_of(file)` exists, its bicubic model waits after one batch.

        Args:
            file: of the scheduler.
            tile_s: seconds that the bicubic model sleeps a batch.
            **environment: variables of the process.
        """
        ready = self.folder / f"ready-{len(self._pids)}-{time.monotonic_ns()}"
        pid = self._fork(
            {
                "kind": "worker",
                "file": str(file),
                "tile_s": tile_s,
                "environment": environment,
                "folder": str(self.folder),
                "ready": str(ready),
            }
        )
        _wait_for(ready)
        return pid

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process, unless it has ended."""
        if pid in self._pids:
            self._pids.remove(pid)
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return

    def close(self) -> None:
        """Kill all processes."""
        for pid in list(self._pids):
            self.kill(pid)
        if self._server is not None:
            with self._server as server:
                assert server.stdin is not None
                server.stdin.close()

    def _fork(self, request: dict[str, object]) -> int:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.farm"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        server = self._server
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        pid = int(server.stdout.readline())
        self._pids.append(pid)
        return pid


def hold_of(scheduler: Path) -> Path:
    """Return the file that makes the workers of a scheduler's file wait."""
    return scheduler.with_suffix(".hold")


def _wait_for(file: Path) -> None:
    until = time.monotonic() + 200
    while not file.exists():
        assert time.monotonic() < until, f"{file} does not appear"
        time.sleep(0.02)


def serve() -> None:
    import torch

    import rsupres.cluster.dask_scene
    import rsupres.cluster.workers  # noqa: F401  # so that children need not
    from tests.forkserver import spare_the_disk

    torch.set_num_threads(1)
    spare_the_disk()
    while line := sys.stdin.readline():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for children
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _work(json.loads(line))
        print(pid, flush=True)


def _work(request: dict[str, object]) -> None:
    """Be a scheduler or a worker; never return."""
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1):
            os.dup2(nothing, number)
        kinds = {"scheduler": _be_scheduler, "worker": _be_worker}
        asyncio.run(kinds[str(request["kind"])](request))
    finally:
        os._exit(0)


async def _be_scheduler(request: dict[str, object]) -> None:
    from distributed import Scheduler

    async with Scheduler(
        host="127.0.0.1",
        dashboard=False,
        dashboard_address="127.0.0.1:0",
        scheduler_file=request["file"],
    ) as scheduler:
        await scheduler.finished()


async def _be_worker(request: dict[str, object]) -> None:
    from distributed import Worker

    from tests.forkserver import hold_model, slow_down

    os.environ.update(request["environment"])
    hold_model(1, hold_of(Path(request["file"])))
    if request["tile_s"]:
        slow_down(float(request["tile_s"]))
    async with Worker(
        scheduler_file=request["file"],
        nthreads=1,
        local_directory=request["folder"],
        resources={"TEST": 1},
    ) as worker:
        Path(request["ready"]).touch()
        await worker.finished()


if __name__ == "__main__":
    serve()
