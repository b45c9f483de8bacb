"""Commands killed between publishing the output and removing the run directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from rsupres.cli import main
from rsupres.output.run_dir import Run
from tests.helpers import make_scene

SAMPLE = Path(__file__).parents[2] / "sample_data"
COMMANDS = {
    "rasterize": "rasterize town.osm out.tif --like town.tif --scale 2",
    "change": "change one.tif two.tif out.tif --like scene.tif --scale 2"
    " --class-table worldcover",
    "mosaic": "mosaic tiles/lr out.tif",
    "tile": "tile scene.tif out --tile-size 16 --overlap 4 --scale 2",
}


class Killed(BaseException):
    """Stands for the end of a process that nothing in it notices."""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "-q"])


def files(folder: Path) -> dict[str, bytes]:
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*.tif"))
    return {str(path): path.read_bytes() for path in paths}


@pytest.fixture(params=COMMANDS)
def killed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Return the words of a command that was killed when its output had appeared."""
    monkeypatch.chdir(tmp_path)
    make_scene(Path("scene.tif"), 40, 30)
    Path("town.osm").symlink_to(SAMPLE / "town.osm")
    Path("town.tif").symlink_to(SAMPLE / "town_s2.tif")
    for name, code in (("one", 10), ("two", 50)):
        make_scene(Path(f"{name}.tif"), pixels=np.full((1, 40, 30), code, np.uint8))
    if request.param == "mosaic":
        cut = COMMANDS["tile"].replace(" out ", " tiles ").split()
        assert invoke(*cut).exit_code == 0

    def die(run: Run) -> None:
        raise Killed

    words = COMMANDS[request.param].split()
    with monkeypatch.context() as patched:
        patched.setattr(Run, "remove", die)
        with pytest.raises(Killed):
            invoke(*words)
    (output,) = (word for word in words if word.startswith("out"))
    assert Path(f"{output}.run/run.json").exists()
    assert files(Path(output))
    return [output, *words]


def test_the_same_command_says_that_the_output_exists_and_clears_up(killed):
    output, *words = killed
    before = files(Path(output))
    result = invoke(*words)
    assert result.exit_code == 5, result.output
    assert f"{output} exists" in result.output
    assert not Path(f"{output}.run").exists()
    assert files(Path(output)) == before


def test_with_overwrite_it_makes_the_same_files_again(killed):
    output, *words = killed
    before = files(Path(output))
    result = invoke(*words, "--overwrite")
    assert result.exit_code == 0, result.output
    assert not Path(f"{output}.run").exists()
    assert files(Path(output)) == before


def test_a_run_that_goes_on_in_another_process_stays(killed):
    output, *words = killed
    with Run.open(Path(f"{output}.run"), Run.load(Path(f"{output}.run"))):
        assert invoke(*words).exit_code == 5
        assert Path(f"{output}.run/run.json").exists()


def test_strips_that_are_newer_than_the_output_stay(killed):
    """They are of a command with --overwrite, which was interrupted."""
    output, *words = killed
    if Path(output).is_dir():
        shutil.copytree(output, f"{output}.run/tiles")
    else:
        os.utime(output, (1000, 1000))
    assert invoke(*words).exit_code == 5
    assert Path(f"{output}.run/run.json").exists()
