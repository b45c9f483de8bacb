"""`rsupres doctor`: versions, devices, drivers, models, and a short self-test."""

from __future__ import annotations

from collections.abc import Iterator

import click

from rsupres.cli.options.console import console_options
from rsupres.cli.terminal.console import Console
from rsupres.cli.terminal.wording import error_line
from rsupres.errors import RsupresError
from rsupres.execution import Progress

_PACKAGES = ("rsupres", "torch", "numpy", "rasterio", "geopandas", "safetensors")
_DRIVERS = ("GTiff", "COG", "VRT", "JP2OpenJPEG", "SENTINEL2")


@click.command()
@click.option(
    "--calibrate",
    is_flag=True,
    help="Measure instead how long the models take on this machine, for 'rsupres "
    "plan'; the table is kept in the user's cache.",
)
@console_options
def doctor(console: Console, calibrate: bool) -> None:
    """Print versions, devices and models, and test whether they work.

    Prints versions, GDAL drivers and devices, and upscales a small scene with every
    model whose weights are there and that needs nothing but a scene. Exits with the
    code of the first failure.

    \b
    Examples:
      rsupres doctor
      rsupres doctor --json
      rsupres doctor --calibrate
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.upscaling.estimates.self_test import run_self_tests
    from rsupres.upscaling.preparation.validity import without_warnings

    for name, found in _findings():
        console.emit({"check": name, "found": found}, f"{name:<12}{found}")
    if calibrate:
        _calibrate(console)
        return
    failure: RsupresError | None = None
    command = click.get_current_context().command
    with without_warnings():  # about made-up scenes
        for test in run_self_tests():
            failure = failure or test.error
            text = f"good, {test.duration_s:.1f} s"
            if test.error is not None:
                text = error_line(test.error, command)
            good = test.error is None
            console.emit(
                {"check": "self-test", "model": test.name, "good": good, "found": text},
                f"self-test   {test.name}: {text}",
            )
    if failure is not None:
        raise failure


def _calibrate(console: Console) -> None:
    """Measure this machine and keep the table."""
    from rsupres.upscaling.estimates.calibration import keep, measure
    from rsupres.upscaling.preparation.validity import without_warnings

    with console.work() as show, without_warnings():
        done: list[str] = []

        def on_model(name: str) -> None:
            done.append(name)
            show(Progress(f"Measure {name}", 0, 1, "models"))

        path = keep(measure(on_model))
    place = "no home folder to keep it in" if path is None else str(path)
    console.emit(
        {"check": "times", "models": done, "found": place},
        f"times       of {len(done)} models: {place}",
    )


def _findings() -> Iterator[tuple[str, str]]:
    """Yield names of packages, libraries and devices, with version or state."""
    from importlib.metadata import PackageNotFoundError, version

    import rasterio
    import torch

    from rsupres.upscaling.preparation.devices import multiplies_bfloat16

    for package in _PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed as a package"
    yield "GDAL", rasterio.__gdal_version__
    with rasterio.Env() as env:
        there = env.drivers()
    found = (f"{name} {'yes' if name in there else 'MISSING'}" for name in _DRIVERS)
    yield "drivers", ", ".join(found)
    products = "bf16" if multiplies_bfloat16() else "fp32"
    yield "cpu", f"{torch.get_num_threads()} threads, fastest in {products}"
    for index in range(torch.cuda.device_count()):
        yield f"cuda:{index}", torch.cuda.get_device_name(index)
    yield "mps", "yes" if torch.backends.mps.is_available() else "no"
