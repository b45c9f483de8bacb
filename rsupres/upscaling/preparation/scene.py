"""Open the scene of a job: its bands, what their numbers mean, what a mask hides.

The 20 m bands of Sentinel-2 are brought to the grid of the 10 m bands by the network
that ships for it; where a band that it needs is missing, by a local regression.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rsupres.checkpoints.catalogue import load_model, read_card
from rsupres.errors import CheckpointError, InputError
from rsupres.families.base import SamplerOptions
from rsupres.products.model import Radiometry, overridden
from rsupres.products.sharpen import REACH
from rsupres.raster.dataset import Raster
from rsupres.raster.place.extent import window_from_aoi, window_from_bounds
from rsupres.raster.product.describe import Sharpener
from rsupres.raster.product.mask import open_mask
from rsupres.raster.repeated import warn_of_lossy, warn_of_repeated
from rsupres.raster.stack import open_scenes
from rsupres.raster.stretch import has_scale
from rsupres.raster.undeclared import heed_undeclared
from rsupres.upscaling.job import UpscaleJob

SHARPENING = "s2-bands-small"  # name of the network's card
GUIDES = ("B02", "B03", "B04", "B08")  # that it looks at, in order
_LEVEL_PIXELS = 1_000_000  # of a scene, for the levels of its bands

FloatArray = NDArray[np.float32]

logger = logging.getLogger(__name__)


@contextmanager
def open_scene(
    job: UpscaleJob,
    sample_pixels: int | None = None,
    on_opened: Callable[[Raster], None] | None = None,
) -> Iterator[Raster]:
    """Open the scene that a job is about, and close it on leaving.

    Args:
        job: what is asked.
        sample_pixels: as in `open_scenes`.
        on_opened: called with the scene before pixels of all of it are looked at.

    Yields:
        The scene, while it is open.

    Raises:
        InputError: it cannot be opened or read as the job says.
    """
    with ExitStack() as stack:
        opened = open_scenes(
            job.scenes,
            job.input_nodata,
            job.bands_out,
            is_told=job.dn_scale is not None or job.dn_offset is not None,
            sample_pixels=sample_pixels,
        )
        scene = _with_units(stack.enter_context(opened), job)
        if job.mask is not None:
            mask = open_mask(
                job.mask,
                job.mask_classes,
                scene.product,
                scene.file_grid,
                scene.path,
            )
            scene = scene.with_mask(stack.enter_context(mask))
        elif job.mask_classes is not None:
            raise InputError("needs a mask.", argument="mask_classes")
        elif job.mask_action != "nodata":
            raise InputError("needs a mask.", argument="mask_action")
        scene = _restrict(scene, job)
        if on_opened is not None:
            on_opened(scene)
        scene = heed_undeclared(scene, ("input_nodata",))
        warn_of_repeated(scene)
        warn_of_lossy(scene)
        yield scene


def _with_units(scene: Raster, job: UpscaleJob) -> Raster:
    """Return the scene with what the user says about its numbers."""
    if job.dn_scale is None and job.dn_offset is None:
        return scene
    if job.dn_scale is not None and not job.dn_scale > 0:
        raise InputError(f"{job.dn_scale:g} is not positive.", argument="dn_scale")
    stated = None
    if has_scale(scene):
        first = scene.data_bands[0] - 1
        stated = Radiometry(scene.scales[first], scene.offsets[first])
    is_undecided = bool(scene.undecided)
    units = overridden(scene.path, stated, job.dn_scale, job.dn_offset, is_undecided)
    return scene.with_units(units)


def _restrict(scene: Raster, job: UpscaleJob) -> Raster:
    """Return the part of the scene that the job is about."""
    if job.bounds is not None:
        scene = scene.crop(window_from_bounds(scene, job.bounds, job.bounds_crs))
    if job.aoi is not None:
        scene = scene.crop(*window_from_aoi(scene, job.aoi))
    return scene


def sharpened_by(scene: Raster) -> str | None:
    """Return the name of the network that sharpens coarse bands of a scene, or None.

    Args:
        scene: open.
    """
    if 2 not in {kind.factor for kind in scene.refinement.coarse.values()}:
        return None
    wanted = {*read_card(SHARPENING).spec.bands, *GUIDES}
    return SHARPENING if wanted <= set(scene.descriptions) else None


def with_network(scene: Raster, device: str) -> Raster:
    """Return a scene whose 20 m bands are sharpened by the network.

    Weights are loaded when the first pixels are read.

    Args:
        scene: open, of which `sharpened_by` names the network.
        device: where it computes.
    """
    numbers = {name: band for band, name in enumerate(scene.descriptions, 1)}
    members = tuple(numbers[name] for name in read_card(SHARPENING).spec.bands)
    guides = tuple(numbers[name] for name in GUIDES)
    network = _Network(scene, members, guides, device)
    logger.info("%s: 20 m bands are sharpened by %s.", scene.path, SHARPENING)
    return scene.with_sharpener(Sharpener(members, guides, 2, REACH, network.run))


class _Network:
    """The network of a scene, loaded on first use; the levels of the scene's bands."""

    def __init__(
        self,
        scene: Raster,
        members: tuple[int, ...],
        guides: tuple[int, ...],
        device: str,
    ) -> None:
        self._scene = scene
        self._bands = (members, guides)
        self._device = device
        self._lock = threading.Lock()
        self._run: Callable[[FloatArray, FloatArray], FloatArray] | None = None

    def run(self, coarse: FloatArray, fine: FloatArray) -> FloatArray:
        """Sharpen coarse bands, (c, h, w) to (c, 2 h, 2 w)."""
        with self._lock:
            if self._run is None:
                self._run = self._load()
        return self._run(coarse, fine)

    def _load(self) -> Callable[[FloatArray, FloatArray], FloatArray]:

        import torch

        from rsupres.families.sharpening import Levels
        from rsupres.families.sharpening import Sharpener as Network

        device = torch.device(self._device)
        network = load_model(SHARPENING, device, SamplerOptions())
        assert isinstance(network, Network)
        if network.config.fine != GUIDES or network.halo > REACH:
            raise CheckpointError(
                f"{SHARPENING}: the network is guided by {network.config.fine} and "
                f"looks {network.halo} pixels far; {GUIDES} and {REACH} are expected."
            )
        levels = []
        for bands in self._bands:
            dn, valid = self._scene.read_decimated(bands, _LEVEL_PIXELS)
            levels.append(Levels.of(dn[:, valid.all(axis=0)]))
        return partial(network.sharpen, levels=(levels[0], levels[1]))
