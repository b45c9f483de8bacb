"""Turn the inputs of a batch into jobs: scenes, folders of scenes, folders of tiles.

Every tile of a tile folder is a scene of its own; the map, reference and change mask
tiles beside it are its conditions, as far as the model looks at them. Reads headers and
indices; nothing is upscaled here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rsupres.checkpoints.catalogue import default_model, read_card
from rsupres.errors import InputError
from rsupres.output.protect import Inputs, check_regular
from rsupres.products.catalogs import is_stac_name
from rsupres.raster.dataset import Raster
from rsupres.tiles.batches.band_files import group_bands
from rsupres.tiles.batches.inputs import Found, find_inputs
from rsupres.tiles.batches.journal import JOURNAL, BatchItem
from rsupres.tiles.index import FOLDERS, HR, INDEX, LR, read_index
from rsupres.upscaling.job import UpscaleJob

logger = logging.getLogger(__name__)


class Choose(Protocol):
    """Gives the scenes of a batch options of their own."""

    def __call__(self, scene: str, name: str, /) -> tuple[UpscaleJob, bool]:
        """Return the job of a scene, and whether its scale was asked for.

        Args:
            scene: what is opened.
            name: stem of its output.
        """
        ...

    def finish(self) -> None:
        """Take note that all scenes have their jobs."""
        ...


@dataclass(frozen=True)
class Selection:
    """Settings by which the inputs of a batch become scenes.

    Attributes:
        recursive: search subfolders of folders, too.
        group_bands: join files that differ in the band of their names alone.
    """

    recursive: bool = False
    group_bands: bool = True


def expand_inputs(
    inputs: Sequence[str],
    folder: Path,
    job: UpscaleJob,
    *,
    scale_is_given: bool,
    selection: Selection | None = None,
    choose: Choose | None = None,
) -> list[tuple[BatchItem, UpscaleJob]]:
    """Return the items of a batch with their jobs, in the order of the inputs.

    Args:
        inputs: rasters, products, patterns, folders of rasters or of `rsupres tile`.
        folder: of the outputs.
        job: options for all.
        scale_is_given: refuse tile folders of another scale; else they have their own.
        selection: how folders are searched, and files grouped to scenes.
        choose: returns the options of one scene, and whether its scale was asked for.

    Raises:
        InputError: an input cannot be found, or two have the same output.
    """
    selection = selection or Selection()
    inputs_found = [
        one
        for name in inputs
        for one in find_inputs(name, folder, recursive=selection.recursive)
    ]
    if selection.group_bands:
        inputs_found = group_bands(inputs_found)
    found: list[tuple[BatchItem, UpscaleJob]] = []
    for one in inputs_found:
        own, is_given = job, scale_is_given
        if choose is not None:
            own, has_scale = choose(one.name, _stem(one.name))
            is_given = is_given or has_scale
        found += _expand(one, folder, own, scale_is_given=is_given)
    if choose is not None:
        choose.finish()
    seen: dict[Path, str] = {}
    for item, _ in found:
        if item.output in seen:
            raise InputError(
                f"{seen[item.output]} and {item.scene} would both become {item.output};"
                " use a folder for each.",
                remedies=("folder",),
            )
        seen[item.output] = item.scene
    return found


def check_batch(
    jobs: Sequence[UpscaleJob], folder: Path, summary: Path | None = None
) -> None:
    """Check that no output of a batch is an input of any of its items.

    Args:
        jobs: of all items.
        folder: of the outputs.
        summary: a table to write, if any.

    Raises:
        ArgumentError: one is.
    """
    read: dict[str, dict[str, None]] = {}
    for job in jobs:
        for name, files in job.inputs.items():
            read.setdefault(name, {}).update(dict.fromkeys(files))
    inputs = Inputs(read)
    for job in jobs:
        for name, path in job.outputs.items():
            check_regular(path, "folder" if name == "output" else name)
            inputs.check(path, "folder" if name == "output" else name)
    inputs.check(folder / JOURNAL, "folder")
    if summary is not None:
        check_regular(summary, "summary")
        inputs.check(summary, "summary")


def _expand(
    found: Found, folder: Path, job: UpscaleJob, *, scale_is_given: bool
) -> Iterator[tuple[BatchItem, UpscaleJob]]:
    """Yield the items of one input with their jobs."""
    into = folder / found.below
    if found.is_tiles:
        path = Path(found.name)
        if not (path / LR).is_dir():
            raise InputError(f"{path}: has an index of tiles and no folder {LR}.")
        into /= path.resolve().name
        items, chosen = _expand_tiles(path, into, job, scale_is_given)
    else:
        output = into / f"{_stem(found.name)}.tif"
        items = [BatchItem(found.name, output, {}, files=found.files)]
        chosen = job
    for item in items:
        yield item, _job_of(item, chosen)


def _expand_tiles(
    path: Path, folder: Path, job: UpscaleJob, scale_is_given: bool
) -> tuple[list[BatchItem], UpscaleJob]:
    """Return the valid tiles of a folder, and the job with its scale and model."""
    index = read_index(path / INDEX)
    scale = index.plan.scale
    if scale_is_given and job.scale != scale:
        raise InputError(
            f"{path}: its tiles were cut for scale {scale}, not {job.scale}; give no "
            "scale, or cut them again.",
            remedies=(f"scale={scale}",),
        )
    job = replace(job, scale=scale)
    kinds = [kind for kind in index.kinds if kind != HR and not getattr(job, kind)]
    job, kinds = _choose_model(path, index.tiles[0].name, job, kinds)
    items = [
        BatchItem(
            str(path / LR / tile.name),
            folder / tile.name,
            {
                kind: str(path / FOLDERS[kind] / tile.name)
                for kind in kinds
                if tile.shares[kind] > 0 or kind == "vector_map"
            },
        )
        for tile in index.tiles
        if tile.valid > 0
    ]
    return items, job


def _choose_model(
    path: Path, tile: str, job: UpscaleJob, kinds: Sequence[str]
) -> tuple[UpscaleJob, list[str]]:
    """Return the job with one model for all tiles, and the conditions it looks at."""
    name = job.model
    if name is None:
        with Raster.open(path / LR / tile) as scene:
            given = job.given_conditions | set(kinds)
            n_bands, gsd_m = len(scene.data_bands), scene.grid.gsd_m
        name = default_model(n_bands, job.scale, gsd_m, given)
    spec = read_card(name).spec
    used = [kind for kind in kinds if kind in spec.accepts | spec.needs]
    if left := [FOLDERS[kind] for kind in kinds if kind not in used]:
        logger.info("%s: model %s does not look at %s.", path, name, ", ".join(left))
    return replace(job, model=name), used


def _job_of(item: BatchItem, job: UpscaleJob) -> UpscaleJob:
    """Return the job of one item."""
    tuples = ("vector_map", "reference")
    given: dict[str, object] = {
        kind: (path,) if kind in tuples else path
        for kind, path in item.conditions.items()
    }
    for name in ("uncertainty", "interval_low", "interval_high", "rgb8"):
        folder: Path | None = getattr(job, name)
        if folder is not None:
            given[name] = folder / item.output.name
    if job.reference_coverage is not None:
        covered = given.get("reference") or job.reference
        path = job.reference_coverage / item.output.name
        given["reference_coverage"] = path if covered else None
    if job.run_dir is not None:
        given["run_dir"] = job.run_dir / f"{item.output.name}.run"
    return replace(
        job,
        scenes=item.files or (item.scene,),
        output=item.output,
        update=not (job.overwrite or job.skip_existing),
        **given,  # type: ignore[arg-type]  # names and types of UpscaleJob's fields
    )


def _stem(scene: str) -> str:
    """Return a scene's name without folder and suffix; of a STAC item, its id.

    >>> _stem("https://example.org/a/scene.tif?sig=x/y.z"), _stem("b/S2A_1.SAFE/")
    ('scene', 'S2A_1')
    >>> _stem("https://example.org/items?limit=9#S2A_v1.0")
    'S2A_v1.0'
    """
    if is_stac_name(scene) and "#" in scene:
        return re.sub(r"[^\w.+-]", "_", scene.rpartition("#")[2])
    if "://" in scene:  # without the signature that a store's address may carry
        scene = re.split(r"[?#]", scene)[0]
    name = scene.rstrip("/").rsplit("/", 1)[-1]
    for suffix in (".zip", ".SAFE", ".safe"):
        name = name.removesuffix(suffix)
    return Path(name).stem if Path(name).suffix else name
