"""The blocks of docs/how-to/nightly.md run as they stand, on sample_data."""

from __future__ import annotations

import configparser
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import geopandas
import pytest
import rasterio
import shapely
from click.testing import CliRunner, Result

from rsupres.cli import main

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
    """The second night changes nothing; a changed scene and a killed run are redone."""
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


def test_the_container_writes_where_it_may(data: Path, monkeypatch) -> None:
    """The steps of the Containerfile in a folder: no home, all but two places fixed.

    Steps that need a network (FROM, pip) are left out; the wheel is tested by
    `make dist`.
    """
    steps = [line.split(maxsplit=1) for line in BLOCKS["Containerfile"].splitlines()]
    kinds = [kind for kind, _ in steps]
    assert kinds.index("USER") < kinds.index("ENTRYPOINT")
    assert dict(steps)["USER"] != "root"
    root = data / "root"
    place = {"/etc/rsupres/night.toml": root / "etc/rsupres/night.toml"}
    place["/etc/rsupres/night.toml"].parent.mkdir(parents=True)
    shutil.copy(data / "night.toml", place["/etc/rsupres/night.toml"])
    work = root / dict(steps)["WORKDIR"].lstrip("/")
    work.mkdir()
    for name in ("scenes", "areas"):
        shutil.copytree(data / name, work / name)
    for name in (root / "tmp", work / "sharp"):
        name.mkdir()
    for word in shlex.split(dict(steps)["ENV"]):
        name, _, value = word.partition("=")
        monkeypatch.setenv(name, value.replace("/tmp", str(root / "tmp")))
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.chdir(work)
    before = contents(root)
    command = re.search(r"rsupres-night (batch .*?)```", PAGE, flags=re.DOTALL)
    assert command is not None
    words = command[1].replace("\\\n", " ")
    for inside, outside in place.items():
        words = words.replace(inside, str(outside))
    done = run(f"rsupres {words}")
    assert done.exit_code == 0, done.output
    assert statuses() == ["written", "written"]
    writable = (str(work / "sharp"), str(root / "tmp"))
    after = contents(root)
    assert {
        path: text for path, text in after.items() if not path.startswith(writable)
    } == before
    assert not [path for path in after if path.startswith(str(root / "tmp"))]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
