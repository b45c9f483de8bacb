"""Install the wheel into an environment of its own and run it outside the checkout.

    python tests/smoke_wheel.py dist/rsupres-VERSION-py3-none-any.whl

The environment borrows the dependencies of the Python that runs this, not its rsupres.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "town_s2.tif"


def main(wheel: Path) -> None:
    """Check that models are found and that a scene is upscaled."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        run(folder, python, "-m", "pip", "install", "-q", "--no-deps", wheel.resolve())
        site = next((folder / "venv" / "lib").glob("python*/site-packages"))
        # Entries of a .pth file are not searched for .pth files in turn, so the
        # editable install of the borrowed environment stays out.
        borrowed = sysconfig.get_path("purelib")
        (site / "borrowed.pth").write_text(f"{borrowed}\n")
        rsupres = folder / "venv" / "bin" / "rsupres"
        where = run(folder, python, "-c", "import rsupres; print(rsupres.__file__)")
        assert where.startswith(str(folder)), where
        models = run(folder, rsupres, "models", "list")
        assert "optical-small" in models, models
        run(folder, rsupres, "models", "verify")
        run(folder, rsupres, "upscale", SAMPLE, "out.tif", "--scale", "4")
        assert (folder / "out.tif").stat().st_size > 100_000
        run(folder, rsupres, "rasterize", SAMPLE.with_name("town.osm"), "map.tif",
            "--like", SAMPLE, "--scale", "4")  # fmt: skip
    print(f"{wheel.name}: installed, models found, a scene upscaled, a map drawn.")


def run(folder: Path, *command: object) -> str:
    """Run a command in `folder`; return what it prints to stdout."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
