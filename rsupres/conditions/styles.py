"""Images whose imaging characteristics a model shall follow: one, or a folder of them.

A style lies nowhere on the ground: only its colours and texture count, so it keeps its
pixel size and is cropped, never resampled. Of a folder, the run's seed and the sample
choose one image, so that several samples show several styles.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsupres.errors import ConditionError, InputError
from rsupres.families.base import STYLE_SIDE
from rsupres.grid import PixelWindow
from rsupres.raster.bands import choose_bands
from rsupres.raster.dataset import Raster
from rsupres.raster.files import find_images
from rsupres.raster.nodata import fill_invalid
from rsupres.raster.stretch import find_stretch, parse_stretch

logger = logging.getLogger(__name__)

_MIN_SIDE = 8  # pixels; less shows no texture


@dataclass(frozen=True)
class StyleImages:
    """Style images, read when they are picked.

    Attributes:
        name: what the user gave.
        paths: at least one, sorted by name.
        roles: bands wanted, by role; empty for the first `n_bands`.
        n_bands: of the model.
    """

    name: str
    paths: tuple[Path, ...]
    roles: tuple[str, ...]
    n_bands: int

    def pick(self, number: int) -> NDArray[np.float32]:
        """Return image `number` modulo their count: (c, Hs, Ws) in [0, 1].

        The middle `STYLE_SIDE` pixels of each side, nodata filled from beside it.

        Raises:
            InputError: unreadable, too small, or without a valid pixel.
            BandError: it lacks the model's bands.
        """
        path = self.paths[number % len(self.paths)]
        with Raster.open(path, needs_crs=False) as scene:
            window = _middle(scene)
            bands = self._bands(scene)
            stretch = find_stretch(scene, parse_stretch("auto")).for_bands(bands)
            dn, valid = scene.read(window, bands)
        if not valid.any():
            raise ConditionError(f"--style {path}: no valid pixel in its middle.")
        dn = fill_invalid(dn, valid, dn[:, valid[0]].mean(axis=1))
        return np.clip(stretch.to_unit(dn), np.float32(0), np.float32(1))

    def fingerprint(self) -> Mapping[str, object]:
        """Return names and hashes of all images."""
        marks = []
        for path in self.paths:
            with Raster.open(path, needs_crs=False) as scene:
                marks.append({"file": path.name, "sha256": _hash(scene)})
        return {"images": marks}

    def describe(self, seed: int) -> str:
        """Return what is followed."""
        chosen = self.paths[seed % len(self.paths)].name
        if len(self.paths) == 1:
            return chosen
        return f"{chosen}, chosen by the seed from {len(self.paths)} of {self.name}"

    def _bands(self, scene: Raster) -> tuple[int, ...]:
        bands = choose_bands(scene, self.roles).roles
        if len(bands) < self.n_bands:
            raise ConditionError(
                f"--style {scene.path}: {len(bands)} bands, the model works on "
                f"{self.n_bands}."
            )
        return bands[: self.n_bands]


def open_styles(name: str, roles: Sequence[str], n_bands: int) -> StyleImages:
    """Find the style images that a path names, and read each header.

    Raises:
        InputError: no such file or folder, no image in it, or one cannot be read.
        BandError: one lacks the model's bands.
    """
    try:
        paths = find_images([Path(name)])
    except InputError as error:
        raise InputError(f"--style {error}") from error
    styles = StyleImages(name, tuple(paths), tuple(roles), n_bands)
    for path in paths:
        with Raster.open(path, needs_crs=False) as scene:
            _middle(scene)
            styles._bands(scene)
    return styles


def _middle(scene: Raster) -> PixelWindow:
    """Return the middle of an image, sides up to `STYLE_SIDE`."""
    height, width = (
        min(STYLE_SIDE, side) for side in (scene.grid.height, scene.grid.width)
    )
    if min(height, width) < _MIN_SIDE:
        raise ConditionError(
            f"--style {scene.path}: {height} x {width} pixels show no texture; use at "
            f"least {_MIN_SIDE} x {_MIN_SIDE}."
        )
    row = (scene.grid.height - height) // 2
    col = (scene.grid.width - width) // 2
    return PixelWindow(row, col, height, width)


def _hash(scene: Raster) -> str:
    return scene.fingerprint()["sha256"]
