"""Read style images, whose colours and texture a model shall follow.

The place of a style image on the ground does not matter, so it keeps its pixel size and
is cropped, never resampled. From a folder, the run's seed and the sample number choose
one image, so several samples show several styles.
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

_MIN_SIDE = 8  # pixels; smaller images show no texture


@dataclass(frozen=True)
class StyleImages:
    """Style images; one is read each time it is picked.

    Attributes:
        name: file or folder, as the user gave it.
        paths: at least one, sorted by name.
        roles: of the wanted bands; empty for the first `n_bands`.
        n_bands: of the model.
    """

    name: str
    paths: tuple[Path, ...]
    roles: tuple[str, ...]
    n_bands: int

    def pick(self, number: int) -> NDArray[np.float32]:
        """Return image `number` modulo their count: (c, Hs, Ws) in [0, 1].

        It is the middle of the image, up to `STYLE_SIDE` pixels along each side, with
        nodata filled from its neighbours.

        Raises:
            InputError: unreadable, too small, or without a valid pixel.
            BandError: it lacks the model's bands.
        """
        path = self.paths[number % len(self.paths)]
        with Raster.open(path, needs_crs=False) as scene:
            window = _middle(scene)
            bands = self.bands_of(scene)
            stretch = find_stretch(scene, parse_stretch("auto")).for_bands(bands)
            dn, valid = scene.read(window, bands)
        if not valid.any():
            raise ConditionError(
                f"{path}: no valid pixel in its middle.", argument="style"
            )
        dn = fill_invalid(dn, valid, dn[:, valid[0]].mean(axis=1))
        return np.clip(stretch.to_unit(dn), np.float32(0), np.float32(1))

    def fingerprint(self) -> Mapping[str, object]:
        """Return names and hashes of all images."""
        images = []
        for path in self.paths:
            with Raster.open(path, needs_crs=False) as scene:
                sha256 = scene.fingerprint()["sha256"]
            images.append({"file": path.name, "sha256": sha256})
        return {"images": images}

    def describe(self, seed: int) -> str:
        """Return one line for a person: the image that is followed."""
        chosen = self.paths[seed % len(self.paths)].name
        if len(self.paths) == 1:
            return chosen
        return f"{chosen}, chosen by the seed from {len(self.paths)} of {self.name}"

    def bands_of(self, scene: Raster) -> tuple[int, ...]:
        """Return the bands of an image that the model works on.

        Raises:
            BandError: a role is missing.
            ConditionError: there are too few bands.
        """
        bands = choose_bands(scene, self.roles).roles
        if len(bands) < self.n_bands:
            raise ConditionError(
                f"{scene.path}: {len(bands)} bands, the model works on {self.n_bands}.",
                argument="style",
            )
        return bands[: self.n_bands]


def open_styles(name: str, roles: Sequence[str], n_bands: int) -> StyleImages:
    """Return a path's style images, sorted by name, their sizes and bands checked.

    Args:
        name: an image or a folder of images.
        roles: of the wanted bands; empty for the first `n_bands`.
        n_bands: of the model.

    Raises:
        InputError: no such file or folder, no image in it, or one cannot be read.
        BandError: one lacks the model's bands.
    """
    try:
        paths = find_images([Path(name)])
    except InputError as error:
        raise InputError(error.problem, argument="style") from error
    styles = StyleImages(name, tuple(paths), tuple(roles), n_bands)
    for path in paths:
        with Raster.open(path, needs_crs=False) as scene:
            _middle(scene)
            styles.bands_of(scene)
    return styles


def _middle(scene: Raster) -> PixelWindow:
    """Return the middle of an image, up to `STYLE_SIDE` pixels along each side."""
    height, width = (
        min(STYLE_SIDE, side) for side in (scene.grid.height, scene.grid.width)
    )
    if min(height, width) < _MIN_SIDE:
        raise ConditionError(
            f"{scene.path}: {width} x {height} pixels show no texture; use at least "
            f"{_MIN_SIDE} x {_MIN_SIDE}.",
            argument="style",
        )
    row = (scene.grid.height - height) // 2
    col = (scene.grid.width - width) // 2
    return PixelWindow(row, col, height, width)
