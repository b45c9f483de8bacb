"""Upscale a small made-up scene with every model, to see whether it works here."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from rsupres.checkpoints.catalogue import list_cards
from rsupres.errors import InputError, RsupresError
from rsupres.grid import Grid
from rsupres.output.tiff.geotiff import write_strip
from rsupres.raster.dataset import Raster
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import upscale_scene

if TYPE_CHECKING:
    from rsupres.checkpoints.catalogue import Card

_SIDE = 48  # pixels of the scene
_SCALES = (4, 2, 3, 8)  # the first that a model offers is tested


@dataclass(frozen=True)
class SelfTest:
    """Result of a model in the self-test.

    Attributes:
        name: of the model; "catalogue" when the cards cannot be read.
        duration_s: wall time.
        error: why it failed, None when it did not.
    """

    name: str
    duration_s: float
    error: RsupresError | None = None


def run_self_tests() -> Iterator[SelfTest]:
    """Upscale a scene on the CPU with each model that needs nothing beside a scene.

    Models whose weights are missing, and those that need a map or a reference, are left
    out.

    Yields:
        One result a model, as soon as it is known.
    """
    try:
        cards = list_cards()
    except RsupresError as error:
        yield SelfTest("catalogue", 0.0, error)
        return
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        write_scene(scene, _SIDE)
        for card in cards:
            if not card.is_present or card.spec.needs:
                continue
            started = time.monotonic()
            failure: RsupresError | None = None
            try:
                _upscale(scene, card)
            except RsupresError as error:
                failure = error
            yield SelfTest(card.name, time.monotonic() - started, failure)


def _upscale(scene: Path, card: Card) -> None:
    """Upscale the scene; refuse an output on another grid than asked for."""
    offered = (s for s in map(Fraction, _SCALES) if card.spec.scales.offers(s))
    scale = next(offered, Fraction(_SCALES[0]))
    output = scene.with_name("out.tif")
    upscale_scene(
        UpscaleJob(
            scenes=(str(scene),),
            output=output,
            scale=scale,
            model=card.name,
            device="cpu",
            overwrite=True,
        )
    )
    with Raster.open(scene) as lr, Raster.open(output) as sr:
        if sr.grid != lr.grid.refine(scale):
            raise InputError(
                f"{card.name}: the output lies on another grid than asked for."
            )


def write_scene(path: Path, side: int, noise: float = 0.0) -> None:
    """Write a square scene: a ramp of four bands.

    Args:
        path: of a GeoTIFF; replaced if it exists.
        side: pixels.
        noise: standard deviation, in digital numbers.
    """
    rows, cols = np.mgrid[0:side, 0:side]
    ramp = np.stack([500 + 40 * rows + 20 * cols + 100 * b for b in range(4)])
    pixels = ramp + np.random.default_rng(0).normal(0, noise, ramp.shape)
    corner = Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5e6)
    grid = Grid(CRS.from_epsg(32633), corner, side, side)
    write_strip(path, pixels.astype(np.uint16), grid)
