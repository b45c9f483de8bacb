"""`rsupres doctor`: versions, devices, drivers, models, and a short self-test."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from rsupres.cli.console import Console
from rsupres.cli.options.console import console_options

_PACKAGES = (
    "rsupres",
    "torch",
    "numba",
    "numpy",
    "rasterio",
    "geopandas",
    "safetensors",
)
_DRIVERS = ("GTiff", "COG", "VRT", "JP2OpenJPEG", "SENTINEL2")


@click.command()
@console_options
def doctor(console: Console) -> None:
    """Say what is installed and whether it works.

    Prints versions, devices, GDAL drivers and models, and upscales a small scene with
    every model that is there and fits it. Exits with the code of the first failure.

    \b
    Examples:
      rsupres doctor
      rsupres doctor --json
    """  # noqa: D301  # Click wants the character, not the two letters
    from rsupres.errors import RsupresError

    for name, found in _findings():
        console.emit({"check": name, "found": found}, f"{name:<12}{found}")
    failure: RsupresError | None = None
    for name, result in _self_tests():
        good = isinstance(result, float)
        text = f"good, {result:.1f} s" if good else str(result)
        console.emit(
            {"check": "self-test", "model": name, "good": good, "found": text},
            f"self-test   {name}: {text}",
        )
        if isinstance(result, RsupresError):
            failure = failure or result
    if failure is not None:
        raise failure


def _findings() -> Iterator[tuple[str, str]]:
    import rasterio
    import torch

    from rsupres.kernels.door import describe

    for package in _PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed as a package"
    yield "GDAL", rasterio.__gdal_version__
    with rasterio.Env() as env:
        there = env.drivers()
    yield (
        "drivers",
        ", ".join(
            f"{name} {'yes' if name in there else 'MISSING'}" for name in _DRIVERS
        ),
    )
    yield "kernels", describe()
    yield "cpu", f"{torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        yield f"cuda:{index}", torch.cuda.get_device_name(index)
    yield "mps", "yes" if torch.backends.mps.is_available() else "no"


def _self_tests() -> Iterator[tuple[str, object]]:
    """Yield each model with the seconds that its test took, or its error."""
    from rsupres.checkpoints.catalogue import list_cards
    from rsupres.errors import RsupresError

    try:
        cards = list_cards()
    except RsupresError as error:
        yield "catalogue", error
        return
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        _make_scene(scene)
        for card in cards:
            if not card.is_present or card.spec.needs:
                continue
            started = time.monotonic()
            try:
                _upscale(scene, card.name, card.spec.scales.offers)
            except RsupresError as error:
                yield card.name, error
            else:
                yield card.name, time.monotonic() - started


def _upscale(scene: Path, model: str, offers: Callable[[Fraction], bool]) -> None:
    """Upscale the scene and check the output's frame.

    Raises:
        RsupresError: the run failed.
        InputError: the output does not lie where it should.
    """
    from rsupres.errors import InputError
    from rsupres.raster.dataset import Raster
    from rsupres.upscaling.job import UpscaleJob
    from rsupres.upscaling.pipeline import upscale_scene

    scale = next((s for s in map(Fraction, (4, 2, 3, 8)) if offers(s)), Fraction(4))
    output = scene.with_name("out.tif")
    job = UpscaleJob(
        scenes=(str(scene),),
        output=output,
        scale=scale,
        model=model,
        device="cpu",
        overwrite=True,
    )
    upscale_scene(job)
    with Raster.open(scene) as lr, Raster.open(output) as sr:
        if sr.grid != lr.grid.refine(scale):
            raise InputError(
                f"{model}: the output lies on another grid than asked for."
            )


def _make_scene(path: Path) -> None:
    """Write a ramp of 48 x 48 pixels, 4 bands."""
    import numpy as np
    from affine import Affine
    from rasterio.crs import CRS

    from rsupres.grid import Grid
    from rsupres.output.geotiff import write_strip

    rows, cols = np.mgrid[0:48, 0:48]
    pixels = np.stack([500 + 40 * rows + 20 * cols + 100 * b for b in range(4)])
    grid = Grid(
        CRS.from_epsg(32633), Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5e6), 48, 48
    )
    write_strip(path, pixels.astype(np.uint16), grid)
