"""Job files: what they may hold, how they are printed, and scenes by pattern."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click
import pytest
import rasterio

from rsupres.cli.batch import batch as batch_command
from rsupres.cli.options.job_file import option_keys
from tests.cli.commands import lines, run


def night(folder: Path, text: str) -> Path:
    path = folder / "night.toml"
    path.write_text(text, encoding="utf-8")
    return path


JOB = """
scale = 2
[batch]
inputs = ["scenes"]
out-dir = "sharp"
model = "bicubic"
fail_if = "valid<0.5"
[upscale]
seed = 7
"""


def test_a_job_file_is_a_whole_batch(scenes: Path) -> None:
    night(scenes.parent, JOB)
    done = run("batch", "--config", "night.toml", "--json")
    assert done.exit_code == 0, done.output
    assert lines(done.stdout)[-1]["written"] == 2
    with rasterio.open("sharp/T32TQM_1.tif") as made:
        assert made.shape == (32, 32)
    again = run("batch", "--config", "night.toml", "--json")
    assert lines(again.stdout)[-1]["existed"] == 2


def test_the_command_line_counts_more_than_the_environment_and_the_file(
    scenes: Path,
) -> None:
    night(scenes.parent, JOB)

    def scale_of(*more: object, **environment: str) -> object:
        shown = run(
            "batch", "--config", "night.toml", "--print-config", *more, **environment
        )
        assert shown.exit_code == 0, shown.output
        return tomllib.loads(shown.stdout)["batch"]["scale"]

    assert scale_of() == "2"
    assert scale_of(RSUPRES_BATCH_SCALE="3") == "3"
    assert scale_of("--scale", "5/2", RSUPRES_BATCH_SCALE="3") == "5/2"
    shown = run("batch", "--print-config", RSUPRES_BATCH_CONFIG="night.toml")
    assert tomllib.loads(shown.stdout)["batch"]["scale"] == "2"


VALUES: dict[str, object] = {
    "inputs": ["scenes"],
    "scale": "10/3",
    "bidx": "3,2,1",
    "bands": "red=3,green=2",
    "bounds": ["1", "2", "3.5", "4"],
    "layers": "building,road",
    "shard": "2/3",
    "batch-size": "4",
    "co": ["COMPRESS=ZSTD", "BIGTIFF=YES"],
    "nodata": "-5.0",
    "interval": ["0.9", "low", "high"],
    "jobs": "2",
    "samples": "2",
    "sensor-mtf": "0.3",
    "time-limit": "1h30m",
    "summary": "s.csv",
    "log-file": "log",
    "dask-resources": "GPU=1",
}


def arguments_of(key: str, parameter: click.Parameter) -> list[str]:
    """Return words that give a parameter another value than its default."""
    value = VALUES.get(key)
    if isinstance(parameter, click.Argument):
        return ["scenes"]
    option = f"--{key}"
    if isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count):
        others = parameter.secondary_opts
        return [others[0] if others and parameter.default else option]
    if value is None and isinstance(parameter.type, click.Choice):
        value = str(parameter.type.choices[-1])
    value = "1" if value is None else value
    if isinstance(value, list):
        if parameter.nargs > 1:
            return [option, *value]
        return [word for text in value for word in (option, text)]
    return [option, str(value)]


@pytest.mark.parametrize("key", option_keys(batch_command))
def test_what_is_printed_gives_the_same_options_again(scenes: Path, key: str) -> None:
    parameter = option_keys(batch_command)[key]
    words = arguments_of(key, parameter)
    if key != "inputs":
        words += ["scenes"]
    if key != "out-dir":
        words += ["--out-dir", "out"]
    shown = run("batch", *words, "--print-config")
    assert shown.exit_code == 0, shown.output
    chosen = tomllib.loads(shown.stdout)["batch"]
    plain = tomllib.loads(run("batch", "x", "--out-dir", "y", "--print-config").stdout)
    assert key in chosen
    assert chosen[key] != plain["batch"].get(key)
    night(scenes.parent, shown.stdout)
    again = run("batch", "--config", "night.toml", "--print-config")
    assert tomllib.loads(again.stdout)["batch"] == chosen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[batch]\nscle = 2",
            "scle is no option of 'rsupres batch'; did you mean scale?",
        ),
        ("[batch]\noverwrite = 1", "overwrite takes true or false"),
        ("[batch]\nscale = true", "scale takes a value"),
        ("[batch]\nscale = 'big'", "Invalid value for '--scale'"),
        ("[batch]\nbounds = [1, 2]", "Invalid value for '--bounds'"),
        ("[batch", "is no TOML"),
        ("[scene]\nmatch = '*'", "two brackets"),
        ("[[scene]]\nscale = 3", "has no match"),
        ("[[scene]]\nmatch = '*'\njobs = 2", "jobs is no option"),
        ("[[scene]]\nmatch = '*'\nscale = 'big'", "'big'"),
    ],
)
def test_a_wrong_job_file_is_refused(scenes: Path, text: str, said: str) -> None:
    night(scenes.parent, text)
    done = run("batch", "scenes", "--out-dir", "out", "--config", "night.toml")
    assert done.exit_code == 2
    assert said in done.stderr
    assert not Path("out").exists()


def test_job_files_in_other_encodings(scenes: Path) -> None:
    text = "[batch]\nscale = 3\n"
    Path("bom.toml").write_text(text, encoding="utf-8-sig")
    shown = run(
        "batch", "x", "--out-dir", "y", "--config", "bom.toml", "--print-config"
    )
    assert tomllib.loads(shown.stdout)["batch"]["scale"] == "3"
    Path("u16.toml").write_text(text, encoding="utf-16")
    refused = run("batch", "x", "--out-dir", "y", "--config", "u16.toml")
    assert (refused.exit_code, "UTF-8" in refused.stderr) == (2, True)


def test_homes_are_expanded_where_no_shell_does_it(scenes, monkeypatch) -> None:
    night(scenes.parent, "[batch]\nout-dir = '~/sharp'\n")
    home = scenes.parent / "home"
    monkeypatch.setenv("HOME", str(home))
    shown = run("batch", "x", "--config", "night.toml", "--print-config")
    assert tomllib.loads(shown.stdout)["batch"]["out-dir"] == f"{home}/sharp"
    shown = run("batch", "x", "--out-dir=~/sharp", "--print-config")
    assert tomllib.loads(shown.stdout)["batch"]["out-dir"] == f"{home}/sharp"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    refused = run("batch", "x", "--config", "night.toml", "--print-config")
    assert (refused.exit_code, "no home" in refused.stderr) == (2, True)


def test_patterns_give_options_to_scenes(scenes: Path) -> None:
    """Later tables count more, and the command line most; {name} is the scene's."""
    night(
        scenes.parent,
        JOB
        + """
        [[scene]]
        match = "*"
        tile-size = 32
        fail-if = ["valid<0.1"]
        [[scene]]
        match = ["T32TQM*", "T99*"]
        scale = 3
        aoi = "maps/{name}.geojson"
        [[scene]]
        match = "T32TOM*"
        seed = 3
        """,
    )
    Path("maps").mkdir()
    Path("maps/T32TQM_1.geojson").write_text("{}")
    made = run("batch", "--config", "night.toml", "--json")
    assert "[[scene]] 3: no scene matches T32TOM*" in made.stderr
    assert "[[scene]] 2" not in made.stderr
    first, second, _ = lines(made.stdout)
    assert (first["status"], second["status"]) == ("failed", "written")
    assert "maps/T32TQM_1.geojson" in str(first["error"])
    call = ("batch", "--config", "night.toml", "--plan", "--json")
    plans = lines(run(*call).stdout)
    assert plans[0]["refused"]
    night(scenes.parent, Path("night.toml").read_text().replace("aoi =", "# aoi ="))
    assert run("batch", "--config", "night.toml").exit_code == 0
    sizes = {}
    for path in Path("sharp").glob("*.tif"):
        with rasterio.open(path) as dataset:
            sizes[path.stem] = dataset.width
    assert sizes == {"T32TQM_1": 48, "T33UUP_1": 32}
    typed = run("batch", "--config", "night.toml", "--out-dir", "two", "--scale", 2)
    assert typed.exit_code == 0
    with rasterio.open("two/T32TQM_1.tif") as dataset:
        assert dataset.width == 32


def test_other_commands_take_job_files_and_variables(scenes: Path) -> None:
    night(scenes.parent, JOB)
    scene = scenes / "T32TQM_1.tif"
    shown = run("upscale", scene, "o.tif", "--config", "night.toml", "--print-config")
    stored = tomllib.loads(shown.stdout)["upscale"]
    assert (stored["seed"], stored["scale"]) == (7, "2")
    done = run("upscale", scene, "o.tif", RSUPRES_UPSCALE_MODEL="bicubic")
    assert done.exit_code == 0
    with rasterio.open("o.tif") as made:
        assert made.tags()["RSUPRES_MODEL"] == "bicubic"
    Path("n.toml").write_text("[dataset.build]\nhr = 'scenes'\nlicence = 'CC0'\n")
    shown = run("dataset", "build", "p", "--config", "n.toml", "--print-config")
    stored = tomllib.loads(shown.stdout)["dataset"]["build"]
    assert (stored["hr"], stored["licence"]) == (["scenes"], "CC0")
    assert run("--help", RSUPRES_VERSION="0.1").stdout.startswith("Usage")
