"""Tiles, mosaics and batches from Python: keyword arguments are the commands' options.

The command line calls the functions here with what it parsed, so both do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from rsupres.conditions.base import ConditionOptions, ConditionRequest
from rsupres.errors import ArgumentError, InputError
from rsupres.execution import OnProgress, progress_bar
from rsupres.grid import Scale, round_up
from rsupres.output.strips import WritingOptions, make_destination
from rsupres.raster.files import StrPath, as_name, as_names
from rsupres.tile_grid import lr_step
from rsupres.upscaling.request import UpscaleOptions

if TYPE_CHECKING:
    from rsupres.families.base import ModelSpec
    from rsupres.tiles.batches.batch import BatchRequest
    from rsupres.tiles.batches.journal import BatchItem
    from rsupres.tiles.cut import TileJob, TileSummary
    from rsupres.upscaling.pipeline import RunSummary


class TileOptions(ConditionOptions, total=False):
    """Options of `tile`, by the command's names; what to cut along is a condition.

    Attributes:
        model: cut for this model: its tile size, halo, multiple, bands, legend and
            class table; None = for none.
        tile_size: LR pixels along a tile's side; None = the model's, else 128.
        overlap: LR pixels that neighbours share; None = 16, or more for the halo.
        halo: LR pixels at inner sides that weigh nothing in `mosaic`; None = the
            model's, else 0.
        input_nodata: value of invalid pixels in the scene; None = as it declares.
        bands_out: bands of a product or a STAC item, such as "all"; coarse ones are
            brought to the grid of 10 m. None = its finest.
        stretch: how numbers of the scene become [0, 1].
        bounds: west, south, east, north; None = all.
        bounds_crs: CRS of `bounds`; None = the scene's.
        hr: a sharp image on the SR grid, cut along.
        overwrite: replace a folder that exists.
    """

    model: str | None
    tile_size: int | None
    overlap: int | None
    halo: int | None
    input_nodata: float | None
    bands_out: str | None
    stretch: str
    bounds: tuple[float, float, float, float] | None
    bounds_crs: str | None
    hr: StrPath | None
    overwrite: bool


class BatchOptions(UpscaleOptions, total=False):
    """Options of `batch`: those of `upscale`, and of the batch as a whole.

    `uncertainty`, `reference_coverage` and `run_dir` name folders.

    Attributes:
        recursive: search subfolders of folders, too.
        group_bands: join files whose names differ in the band alone; by default True.
        jobs: scenes at a time, each in a process of its own; a script that asks for
            several needs ``if __name__ == "__main__":``.
        retry: how often inputs that failed are tried again, after all others.
        max_failures: stop when so many inputs have failed; None = never.
        summary: a .csv, .json or .md file to write; None = none.
    """

    recursive: bool
    group_bands: bool
    jobs: int
    retry: int
    max_failures: int | None
    summary: StrPath | None


def tile(
    scene: StrPath | Sequence[StrPath],
    folder: StrPath,
    *,
    scale: Scale | None = None,
    progress: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[TileOptions],
) -> TileSummary:
    """Cut a scene into overlapping tiles, as `rsupres tile` does.

    Args:
        scene: what to open: one raster, or several that make one.
        folder: to make.
        scale: SR pixels along one LR pixel: 4, 2.5, "10/3"; None = the only one of
            the model, else 4.
        progress: show a progress bar on stderr.
        on_progress: called after each row of tiles, instead of a bar.
        **options: see `TileOptions` and `rsupres.conditions.base.ConditionOptions`.

    Returns:
        How the scene was cut, and what the tiles hold.

    Raises:
        ConditionError: an option without the condition that it is about.
        RsupresError: as `rsupres.tiles.cut.tile_scene`.
    """
    from rsupres.tiles.cut import tile_scene

    job = _tile_job(as_names(scene), Path(folder), scale, options)
    with progress_bar(progress) as show:
        return tile_scene(job, on_progress=on_progress or show)


def _tile_job(
    scenes: tuple[str, ...], folder: Path, scale: Scale | None, options: TileOptions
) -> TileJob:
    from rsupres.tiles.cut import TileJob
    from rsupres.upscaling.request import find_scale

    check_tile_options(options)
    model, halo = options.get("model"), options.get("halo")
    ratio = find_scale(scale, model)
    spec = None if model is None else _spec(model, ratio)
    tile_size, multiple, roles = options.get("tile_size"), 1, None
    if spec is not None:
        multiple, roles = spec.multiple, spec.bands or None
        tile_size = tile_size or round_up(spec.tile_size, lr_step(ratio, multiple))
        halo = spec.halo if halo is None else halo
    found = {"tile_size", "halo", "model", "hr", *ConditionOptions.__annotations__}
    return TileJob(
        scenes=scenes,
        folder=folder,
        scale=ratio,
        tile_size=tile_size,
        halo=halo or 0,
        multiple=multiple,
        roles=roles,
        conditions=_request(folder, spec, options),
        hr=as_name(options.get("hr")),
        **{name: v for name, v in options.items() if name not in found},  # type: ignore[arg-type]
    )


def mosaic(
    source: StrPath,
    output: StrPath | None = None,
    *,
    dtype: str | None = None,
    nodata: float | None = None,
    input_nodata: float | None = None,
    progress: bool = False,
    on_progress: OnProgress | None = None,
    **writing: Unpack[WritingOptions],
) -> RunSummary:
    """Blend a folder of tiles, or finish a run; return the summary.

    Args:
        source: a folder of georeferenced tiles, or a run directory, whose format stays.
        output: the raster to write; None = that of the run.
        dtype: numpy name; None = the tiles'.
        nodata: None = the tiles'; needed when tiles leave gaps.
        input_nodata: value of invalid pixels in the tiles; None = as they declare.
        progress: show a progress bar on stderr.
        on_progress: called after each strip, instead of a bar.
        **writing: see `rsupres.output.strips.WritingOptions`.

    Raises:
        ArgumentError: no output, where no run says which.
        InputError: no tiles, tiles that do not fit, or an option that is settled.
        RsupresError: as `rsupres.upscaling.pipeline.upscale_scene`.
    """
    from rsupres.tiles.mosaic import mosaic_tiles

    folder = Path(source)
    if output is None and not is_run(folder):
        raise ArgumentError(
            f"{folder}: holds no run that says which; name a file.", argument="output"
        )
    with progress_bar(progress) as bar:
        show = on_progress or bar
        if output is not None and not _was_run(folder):
            into = make_destination(output, writing)
            return mosaic_tiles(
                folder,
                into,
                show,
                dtype=dtype,
                nodata=nodata,
                input_nodata=input_nodata,
            )
        settled = {"dtype": dtype, "nodata": nodata, "input_nodata": input_nodata}
        path = None if output is None else Path(output)
        return _finish(folder, path, {**writing, **settled}, show)


def _was_run(folder: Path) -> bool:
    """Return whether a folder is a run directory, or what is left of one."""
    from rsupres.output.run_state import is_ended

    return is_run(folder) or is_ended(folder)


def _finish(
    run: Path, output: Path | None, options: Mapping[str, object], show: OnProgress
) -> RunSummary:
    """Finish a run; refuse what was settled when it began."""
    from rsupres.tiles.ended import finish_ended
    from rsupres.upscaling.pipeline import finish_run

    if output is not None and not is_run(run):
        return finish_ended(run, output)
    ends = {name: bool(options.get(name)) for name in ("overwrite", "keep_run")}
    for name, value in options.items():
        if name not in (*ends, "restart") and value is not None:
            raise InputError(
                "was settled when the run began; it is for folders of tiles.",
                argument=name,
            )
    return finish_run(run, output, **ends, on_progress=show)


def batch(
    inputs: StrPath | Sequence[StrPath],
    folder: StrPath,
    *,
    scale: Scale | None = None,
    progress: bool = False,
    on_progress: OnProgress | None = None,
    on_item: Callable[[BatchItem], None] | None = None,
    **options: Unpack[BatchOptions],
) -> list[BatchItem]:
    """Upscale many scenes into a folder, as `rsupres batch` does.

    An output that exists is skipped when it is whole and of the same scene, model and
    options, else made anew, see `update` and `skip_existing`. A failure does not stop
    the other inputs; the status of each item tells which failed.

    Args:
        inputs: scenes, folders of scenes, and folders of `tile`.
        folder: of the outputs; made if it is missing.
        scale: SR pixels along one LR pixel; None = 4, and the scale of folders of
            tiles.
        progress: show a progress bar on stderr.
        on_progress: called often, instead of a bar.
        on_item: called with each item when it is done.
        **options: see `BatchOptions` and `rsupres.upscaling.request.UpscaleOptions`.

    Returns:
        All items with their status, in the order of the inputs.

    Raises:
        ArgumentError: an output is an input.
        InputError: an input cannot be found, or two have the same output.
        RunConflictError: another batch works on the folder.
    """
    from rsupres.tiles.batches.batch import run_batch
    from rsupres.tiles.batches.run import Watch

    request = _batch_request(as_names(inputs), Path(folder), scale, options)
    with progress_bar(progress) as show:
        watch = Watch(
            on_item=on_item or (lambda item: None), on_progress=on_progress or show
        )
        return run_batch(request, watch)


def _batch_request(
    inputs: tuple[str, ...], folder: Path, scale: Scale | None, options: BatchOptions
) -> BatchRequest:
    from rsupres.tiles.batches.attempts import Effort
    from rsupres.tiles.batches.batch import BatchRequest
    from rsupres.tiles.batches.jobs import Selection
    from rsupres.upscaling.request import make_job

    summary = options.pop("summary", None)
    selection = Selection(
        recursive=options.pop("recursive", False),
        group_bands=options.pop("group_bands", True),
    )
    effort = Effort(
        options.pop("jobs", 1),
        options.pop("retry", 0),
        options.pop("max_failures", None),
    )
    return BatchRequest(
        inputs=inputs,
        folder=folder,
        job=make_job((), folder, scale, options),
        scale_is_given=scale is not None,
        selection=selection,
        effort=effort,
        summary=None if summary is None else Path(summary),
    )


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run directory."""
    return (folder / "run.json").exists()


def check_tile_options(conditions: ConditionOptions) -> None:
    """Check that no option lacks the condition that it is about.

    Raises:
        ConditionError: one does.
    """
    from rsupres.upscaling.preparation.requirements import check_condition_options

    check_condition_options(_request(Path(), None, conditions))


def _spec(model: str, scale: Fraction) -> ModelSpec:
    from rsupres.checkpoints.catalogue import read_card

    card = read_card(model)
    if not card.spec.scales.offers(scale):
        raise InputError(
            f"{scale}: model {card.name} offers {card.spec.scales}.", argument="scale"
        )
    return card.spec


def _request(
    folder: Path, spec: ModelSpec | None, given: ConditionOptions
) -> ConditionRequest:
    """Return which conditions are cut along."""
    legend = given.get("legend") or (spec.legend if spec else None)
    layers = given.get("layers")
    return ConditionRequest(
        vector_map=as_names(given.get("vector_map") or ()),
        legend=as_name(legend),
        layers=None if layers is None else tuple(layers),
        reference=as_names(given.get("reference") or ()),
        coregister=given.get("coregister", False),
        fill_reference=given.get("fill_reference", False),
        change_mask=as_name(given.get("change_mask")),
        class_table=as_name(given.get("class_table")),
        class_attribute=given.get("class_attribute"),
        change_table=spec.classes if spec else None,
        folder=folder.absolute().parent,
    )
