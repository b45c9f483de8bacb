"""Runs the command line in fresh processes without paying for imports each time.

Started as a script by the fixture `commands`: it imports the package once, then forks a
child for every request. Each child is a process of its own with its own signals and
limits, which a test may kill.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from rsupres.cli import COMMANDS

# Slow to import, and harmless to a process that forks.
PRELOADED = (
    *("rasterio", "rasterio.warp", "rasterio.shutil", "scipy.ndimage", "scipy.fft"),
    *(
        "rsupres.upscaling.pipeline",
        "rsupres.upscaling.request",
        "rsupres.tiles.request",
    ),
    *("rsupres.families.bicubic", "rsupres.companions.request"),
)


@dataclass(frozen=True)
class Finished:
    """What a command did: its exit code (negative: killed by a signal) and texts.

    Attributes:
        code: of the exit.
        out: stdout.
        err: stderr.
        peak_bytes: largest memory that it had.
    """

    code: int
    out: str
    err: str
    peak_bytes: int = 0

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("Error")]


@dataclass
class Commands:
    """The tests' side: runs `rsupres ARGUMENTS` in a process of its own."""

    folder: Path
    _server: subprocess.Popen[str] | None = field(default=None)

    def run(
        self,
        *arguments: object,
        while_running: Callable[[int], None] | None = None,
        tile_s: float = 0.0,
        n_batches: int | None = None,
        holds_output: bool = False,
        is_restricted: bool = False,
        file_limit: int | None = None,
        time_limit_s: int | None = None,
        folder: Path | None = None,
    ) -> Finished:
        """Run a command to its end.

        Args:
            *arguments: after `rsupres`.
            while_running: called with the process number.
            tile_s: seconds that the bicubic model sleeps a batch.
            n_batches: batches after which the bicubic model waits until `while_running`
                has returned, however slow that is.
            holds_output: the output, written in full under another name, gets its own
                after `while_running` has returned.
            is_restricted: root may not write where permissions forbid it.
            file_limit: largest file in bytes that the process may write.
            time_limit_s: seconds of a processor after which it is killed.
            folder: where it runs.
        """
        texts = [self.folder / name for name in ("stdout", "stderr")]
        request = {
            "arguments": [str(argument) for argument in arguments],
            "texts": [str(path) for path in texts],
            "tile_s": tile_s,
            "n_batches": n_batches,
            "holds_output": holds_output,
            "hold": str(self.folder / "hold"),
            "is_restricted": is_restricted,
            "file_limit": file_limit,
            "time_limit_s": time_limit_s,
            "folder": None if folder is None else str(folder),
        }
        code, peak_kib = self._ask(request, while_running)
        out, err = (path.read_text(errors="replace") for path in texts)
        return Finished(code, out, err, peak_kib * 1024)

    def _ask(
        self, request: dict[str, object], while_running: Callable[[int], None] | None
    ) -> tuple[int, int]:
        """Let the server run a command; return its exit code and its largest memory."""
        server, hold = self._start(), self.folder / "hold"
        assert server.stdin is not None
        assert server.stdout is not None
        hold.touch()
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        pid = int(server.stdout.readline())
        try:
            if while_running is not None:
                while_running(pid)
        finally:
            hold.unlink()
            # Until now the number stands for the child, even if that has ended.
            server.stdin.write("collect\n")
            server.stdin.flush()
            code, peak_kib = map(int, server.stdout.readline().split())
        return code, peak_kib

    @staticmethod
    def wait_until(is_so: Callable[[], object], pid: int) -> None:
        """Wait until something is so; fail if the process ends before that.

        Args:
            is_so: looked at again and again.
            pid: number that `while_running` was called with.
        """
        while not is_so():
            assert _is_alive(pid) or is_so()
            time.sleep(0.005)

    def close(self) -> None:
        if self._server is not None:
            with self._server as server:
                assert server.stdin is not None
                server.stdin.close()

    def _start(self) -> subprocess.Popen[str]:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        return self._server


def _is_alive(pid: int) -> bool:
    """Return whether a process runs, True where this cannot be seen."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def serve() -> None:
    for module in (*PRELOADED, *(f"rsupres.cli.{name}" for name in COMMANDS.values())):
        import_module(module)
    import_module("torch").set_num_threads(1)
    spare_the_disk()
    gc.freeze()  # or each child would copy the pages of all objects
    while line := sys.stdin.readline():
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _work(request)
        print(pid, flush=True)
        sys.stdin.readline()
        _, status, used = os.wait4(pid, 0)
        print(os.waitstatus_to_exitcode(status), used.ru_maxrss, flush=True)


def _work(request: dict[str, object]) -> None:
    """Be the command; never return."""
    code = 70
    try:
        for number, name in enumerate(request["texts"], 1):
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(descriptor, number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if request["is_restricted"]:
            restrict_root()
        if request["file_limit"] is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            limit = int(request["file_limit"])
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if request["time_limit_s"] is not None:
            limit = int(request["time_limit_s"])
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        if request["folder"] is not None:
            os.chdir(str(request["folder"]))
        if request["tile_s"]:
            slow_down(float(request["tile_s"]))
        hold = Path(str(request["hold"]))
        if request["n_batches"] is not None:
            hold_model(int(request["n_batches"]), hold)
        if request["holds_output"]:
            hold_output(hold)
        from rsupres.cli import main

        try:
            main(request["arguments"], prog_name="rsupres")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def spare_the_disk() -> None:
    """Let `os.fsync` do nothing in this process and its forks.

    A sync guards files against a power cut only, which no test makes; it does not
    change what other processes see, nor what a killed one leaves. Each takes 4 ms.
    """
    os.fsync = lambda descriptor: None


def restrict_root() -> None:
    """Take from this process, if it is root's on Linux, all rights that others lack."""
    if os.geteuid() == 0:
        header = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
        assert ctypes.CDLL(None).capset(header, bytes(24)) == 0


def slow_down(tile_s: float) -> None:
    from rsupres.families.bicubic import Bicubic

    upscale = Bicubic.upscale

    def slow(self, batch, scale):
        time.sleep(tile_s)
        return upscale(self, batch, scale)

    Bicubic.upscale = slow


def hold_model(n_batches: int, hold: Path) -> None:
    """Let the bicubic model wait after some batches, as long as a file exists.

    Args:
        n_batches: that it computes while the file exists.
        hold: the file.
    """
    from rsupres.families.bicubic import Bicubic

    upscale, n_left = Bicubic.upscale, n_batches

    def held(self, batch, scale):
        nonlocal n_left
        while n_left == 0 and hold.exists():
            time.sleep(0.005)
        n_left = n_left - 1 if hold.exists() else n_batches
        return upscale(self, batch, scale)

    Bicubic.upscale = held


def hold_output(hold: Path) -> None:
    """Let outputs wait before they get their names, as long as a file exists."""
    from rsupres.output import strips

    run_interruptible = strips.run_interruptible

    def held(work):
        def write():
            work()
            while hold.exists():
                time.sleep(0.005)

        run_interruptible(write)

    strips.run_interruptible = held


if __name__ == "__main__":
    serve()
