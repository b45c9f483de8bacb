"""How long `rsupres --help` takes, beside a Python that does nothing.

Run it with ``python tests/benchmarks/bench_help.py``. Nothing is asserted.
"""

from __future__ import annotations

import subprocess
import sys
import time

_COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import rsupres": [sys.executable, "-c", "import rsupres"],
    "rsupres --help": [sys.executable, "-m", "rsupres", "--help"],
    "rsupres upscale --help": [sys.executable, "-m", "rsupres", "upscale", "--help"],
}


def main() -> None:
    for name, command in _COMMANDS.items():
        best = float("inf")
        for _ in range(9):
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            best = min(best, time.perf_counter() - began)
        print(f"{name:24} {best:.3f} s, the best of 9")


if __name__ == "__main__":
    main()
