"""The blocks of docs/how-to/nightly.md run as they stand, on sample_data."""

from __future__ import annotations

import configparser
import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import geopandas
import pytest
import rasterio
import shapely
from click.testing import CliRunner, Result

from rsupres.cli import main
from tests.forkserver import Commands

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/nightly.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', PAGE, flags=re.DOTALL))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the job file of the page, two scenes and an area; work is in it."""
    for name in ("scenes", "areas"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "sample_data/town_s2.tif", tmp_path / "scenes/T32TQM_town.tif")
    shutil.copy(ROOT / "sample_data/town_s2.tif", tmp_path / "scenes/T33UUP_town.tif")
    with rasterio.open(ROOT / "sample_data/town_s2.tif") as scene:
        west, south, east, north = scene.bounds
        area = shapely.box(west + 400, south + 400, east - 400, north - 400)
        table = geopandas.GeoDataFrame(geometry=[area], crs=scene.crs)
    table.to_file(tmp_path / "areas/T32TQM_town.geojson")
    (tmp_path / "night.toml").write_text(BLOCKS["night.toml"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str, **environment: str) -> Result:
    program, *words = shlex.split(command)
    assert program == "rsupres"
    return CliRunner().invoke(main, words, env=environment)


def statuses() -> list[str]:
    with open("sharp/night.csv", newline="") as opened:
        return [row["status"] for row in csv.DictReader(opened)]


def test_the_commands_of_the_page_run_in_their_order(data: Path) -> None:
    """Options are shown, the night is planned, and then it is run."""
    shown, planned, night = re.findall(r"^rsupres batch.*$", PAGE, flags=re.MULTILINE)
    stored = tomllib.loads(run(shown).stdout)
    assert stored["batch"]["scale"] == "2"
    assert stored["scene"][0]["scale"] == 3
    plan = run(planned)
    assert plan.exit_code == 0, plan.output
    assert "2 inputs, 0 refused" in plan.stdout
    assert not Path("sharp").exists()
    first = run(night)
    assert first.exit_code == 0, first.output
    assert statuses() == ["written", "written"]
    with rasterio.open("sharp/T32TQM_town.tif") as made:
        assert made.width < 3 * 96  # the area alone
        assert made.res[0] == pytest.approx(10 / 3)
    with rasterio.open("sharp/T33UUP_town.tif") as made:
        assert made.width == 2 * 96
    assert "2 written" in Path("night.log").read_text()


@pytest.mark.slow
def test_the_next_nights_redo_a_changed_scene_and_finish_a_killed_run(
    data: Path, commands: Commands
) -> None:
    """kill -9 in the middle of the second night; the third has the bytes of a first."""
    night = next(re.finditer(r"^rsupres (batch --config night.toml)$", PAGE, re.M))
    words = [*shlex.split(night[1]), "--tile-size", "24"]
    assert commands.run(*words, folder=data).code == 0
    old = Path("sharp/T32TQM_town.tif").read_bytes()
    with rasterio.open("scenes/T33UUP_town.tif", "r+") as scene:
        scene.write(scene.read()[:, ::-1])

    def kill(pid: int) -> None:
        strips = Path("sharp/T33UUP_town.tif.run/strips")
        commands.wait_until(lambda: list(strips.glob("*")), pid)
        os.kill(pid, signal.SIGKILL)

    killed = commands.run(*words, folder=data, n_batches=3, while_running=kill)
    assert killed.code == -signal.SIGKILL
    waiting = commands.run("status", "sharp", "--json", folder=data).out
    assert '"running": 1' not in waiting  # its process is dead
    for changed in (["existed", "written"], ["existed", "existed"]):
        done = commands.run(*words, folder=data)
        assert done.code == 0, done.err
        assert statuses() == changed
    assert Path("sharp/T32TQM_town.tif").read_bytes() == old
    found = Path("sharp/T33UUP_town.tif").read_bytes()
    assert sorted(os.listdir("sharp")) == [
        "T32TQM_town.tif",
        "T33UUP_town.tif",
        "batch.json",
        "night.csv",
    ]
    shutil.rmtree("sharp")
    assert commands.run(*words, folder=data).code == 0
    assert Path("sharp/T33UUP_town.tif").read_bytes() == found


@pytest.mark.slow
def test_the_line_of_the_crontab_runs_as_cron_runs_it(data: Path) -> None:
    """Few variables, another folder, and a shell that reads the line."""
    line = BLOCKS["crontab"].strip()
    times, command = re.split(r"  +", line, maxsplit=1)
    assert len(times.split()) == 5
    tools = data / "bin"
    tools.mkdir()
    tool = tools / "rsupres"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rsupres "$@"\n')
    tool.chmod(0o755)
    (data / "areas/T32TQM_town.geojson").unlink()  # so one scene fails
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace("/data", str(data))],
        env={"PATH": f"{tools}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        cwd="/",
        check=False,
    )
    assert done.returncode == 3, Path("night.out").read_text()
    assert statuses() == ["failed", "written"]
    assert Path("night.out").read_text().count("\n") > 2
    assert sorted(os.listdir("sharp")) == ["T33UUP_town.tif", "batch.json", "night.csv"]


def test_the_units_are_what_systemd_reads(data: Path) -> None:
    units = {}
    for name in ("rsupres-night.service", "rsupres-night.timer"):
        (data / name).write_text(BLOCKS[name])
        units[name] = configparser.ConfigParser(interpolation=None)
        units[name].optionxform = str  # type: ignore[assignment,method-assign]
        units[name].read_string(BLOCKS[name])
    service = units["rsupres-night.service"]["Service"]
    assert service["SuccessExitStatus"] == "142"
    assert units["rsupres-night.timer"]["Timer"]["OnCalendar"] == "*-*-* 02:15"
    if shutil.which("systemd-analyze"):
        text = BLOCKS["rsupres-night.service"].replace("User=rsupres\n", "User=root\n")
        (data / "rsupres-night.service").write_text(text)
        checked = subprocess.run(
            ["systemd-analyze", "verify", data / "rsupres-night.timer"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "rsupres-night" not in checked.stderr, checked.stderr
    command = service["ExecStart"].removeprefix("/usr/bin/env ")
    done = run(command)
    assert done.exit_code == 0, done.output
    assert statuses() == ["written", "written"]
    assert '"phase"' in done.stderr


@pytest.fixture
def image(data: Path) -> Iterator[Path]:
    """The file system of the container, in a folder that other users may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.slow
def test_the_container_writes_where_it_may(
    data: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps of the Containerfile in a folder: no home, all but two places fixed.

    Steps that need a network (FROM, pip) are left out; the wheel is tested by
    `make dist`. Where the test may change its user, the night runs as the user of the
    Containerfile, to whom everything but these places belongs not.
    """
    steps = [line.split(maxsplit=1) for line in BLOCKS["Containerfile"].splitlines()]
    kinds = [kind for kind, _ in steps]
    assert kinds.index("USER") < kinds.index("ENTRYPOINT")
    user = dict(steps)["USER"]
    added = next(text for kind, text in steps if text.startswith("useradd"))
    assert f"--uid {user} " in added
    (source, target) = next(
        text.split() for kind, text in steps if kind == "COPY" and "toml" in text
    )
    place = image / target.lstrip("/")
    work = image / dict(steps)["WORKDIR"].lstrip("/")
    lay_out(data, image, {source: place}, work, int(user))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    for word in shlex.split(dict(steps)["ENV"]):
        name, _, value = word.partition("=")
        environment[name] = value.replace("/tmp", str(image / "tmp"))
    before = contents(image)
    command = re.search(r"rsupres-night (batch .*?)```", PAGE, flags=re.DOTALL)
    assert command is not None
    words = shlex.split(command[1].replace("\\\n", " ").replace(target, str(place)))
    done = subprocess.run(
        [*as_user(user), sys.executable, "-m", "rsupres", *words],
        env=environment,
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(work)
    assert statuses() == ["written", "written"]
    if os.geteuid() == 0 and as_user(user):
        assert Path("sharp/T32TQM_town.tif").stat().st_uid == int(user)
    writable = (str(work / "sharp"), str(image / "tmp"))
    after = contents(image)
    assert {
        path: text for path, text in after.items() if not path.startswith(writable)
    } == before
    assert not [path for path in after if path.startswith(str(image / "tmp"))]


def lay_out(
    data: Path, image: Path, copied: dict[str, Path], work: Path, user: int
) -> None:
    """Make the files of the container, of which the user may write two folders."""
    for source, place in copied.items():
        place.parent.mkdir(parents=True)
        shutil.copy(data / source, place)
    work.mkdir()
    for name in ("scenes", "areas"):
        shutil.copytree(data / name, work / name)
    for name in (image / "tmp", work / "sharp"):
        name.mkdir()
        if os.geteuid() == 0:
            os.chown(name, user, user)


def as_user(user: str) -> list[str]:
    """Return how to run as a user who may read all files; [] where that is denied."""
    only = "-all,+dac_read_search"  # Python itself may lie in the home of root
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    words += [f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"]
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return []
    probe = subprocess.run([*words, "true"], capture_output=True, check=False)
    return [] if probe.returncode else words


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
