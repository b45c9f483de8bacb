"""The main job from Python: keyword arguments become an `UpscaleJob`.

The command line calls the functions here with what it parsed, so both do the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

from rsupres.checkpoints.catalogue import read_card
from rsupres.conditions.base import ConditionOptions
from rsupres.errors import CheckpointError
from rsupres.execution import OnProgress, progress_bar
from rsupres.families.base import FixedScales
from rsupres.grid import Scale, as_scale
from rsupres.output.strips import WritingOptions
from rsupres.raster.files import StrPath, as_names
from rsupres.upscaling.job import MaskAction, OtherBands, UpscaleJob

if TYPE_CHECKING:
    from rsupres.upscaling.estimates.planning import Plan
    from rsupres.upscaling.pipeline import Compute, RunSummary


class UpscaleOptions(ConditionOptions, WritingOptions, total=False):
    """Options of `upscale`, `plan` and `batch`: those of the command, by its names.

    Options that are left out have the command's defaults. Conditions are those of
    `rsupres.conditions.base.ConditionOptions`; the output's format, and what may be
    replaced, are in `rsupres.output.strips.WritingOptions`.

    Attributes:
        model: a name or a checkpoint; None = the shipped model that fits.
        bidx: file bands (from 1) for the model's roles, in its order.
        bands: file bands by role, such as ``{"red": 3}``.
        other_bands: treatment of bands that the model does not take: "auto", "model",
            "cubic", "inject" or "skip".
        input_nodata: value of invalid pixels in the scene; None = as it declares.
        bands_out: "10m", "all" or names, such as "B02,B8A,SCL", of bands of a product;
            None = its finest.
        dn_scale: physical value of one digital number; None = from the metadata.
        dn_offset: digital numbers added before the multiplication; None = likewise.
        mask: "scl", "qa60" or a file that hides pixels.
        mask_classes: names or numbers of the classes that are hidden; None = clouds,
            their shadows, and pixels without a measurement.
        mask_action: make hidden pixels "nodata", or "keep-bicubic".
        stretch: "auto", "reflectance", "percentile:2,98" or "LO,HI".
        bounds: west, south, east, north; None = the whole scene.
        bounds_crs: CRS of `bounds`; None = the scene's.
        aoi: vector file; pixels outside its polygons become nodata.
        style: an image or a folder of images.
        style_sample: draw a style instead of following an image.
        reference_coverage: file for a raster of where the reference covers the scene.
        stac: write a STAC item beside the output.
        rgb8: picture of 8 bits in true colours to write.
        qml: write a style for QGIS beside the output.
        seed: of the noise.
        steps: network evaluations a tile; None = the model's.
        sampler: name of a sampler of the model; None = the model's.
        samples: pictures to draw and average.
        uncertainty: file for the standard deviation.
        interval: a probability, and files for the limits between which the truth lies
            with it: ``(0.9, "low.tif", "high.tif")``.
        detail: 0 faithful to 1 natural; None = 0.
        sensor_mtf: modulation transfer of the sensor at Nyquist; None = estimated.
        noise: standard deviation in digital numbers; None = estimated.
        lock_low_frequencies: make the result downscale back to the input.
        tile_size: LR pixels; None = the model's.
        overlap: LR pixels; None = by the model's halo.
        batch_size: tiles in one call of the model; None = by device.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        shard: (I, N) computes share I of N of the strips.
        dtype: numpy name of the output's type; None = the scene's.
        nodata: value of invalid pixels in the output; None = the scene's.
        skip_existing: do nothing when the output exists and is that of this job.
        update: as `skip_existing`, but make an output of another job anew.
        fail_if: quality gates, such as "consistency>0.02".
    """

    model: str | None
    bidx: Sequence[int] | None
    bands: Mapping[str, int] | Sequence[tuple[str, int]] | None
    other_bands: OtherBands
    input_nodata: float | None
    bands_out: str | None
    dn_scale: float | None
    dn_offset: float | None
    mask: StrPath | None
    mask_classes: Sequence[str] | None
    mask_action: MaskAction
    stretch: str
    bounds: tuple[float, float, float, float] | None
    bounds_crs: str | None
    aoi: StrPath | None
    style: StrPath | None
    style_sample: bool
    reference_coverage: StrPath | None
    stac: bool
    rgb8: StrPath | None
    qml: bool
    seed: int
    steps: int | None
    sampler: str | None
    samples: int
    uncertainty: StrPath | None
    interval: tuple[float, StrPath, StrPath] | None
    detail: float | None
    sensor_mtf: float | None
    noise: float | None
    lock_low_frequencies: bool
    tile_size: int | None
    overlap: int | None
    batch_size: int | None
    device: str
    precision: str
    shard: tuple[int, int] | None
    dtype: str | None
    nodata: float | None
    skip_existing: bool
    update: bool
    fail_if: Sequence[str]


# Fields of `UpscaleJob` by option, where the two differ.
_FIELDS = {"bands": "named_bands", "co": "creation"}
_FILES = ("rgb8", "uncertainty", "reference_coverage", "run_dir")
_LISTS = ("vector_map", "reference")
_NAMES = ("aoi", "mask", "legend", "change_mask", "class_table", "style")


def make_job(
    scenes: StrPath | Sequence[StrPath],
    output: StrPath,
    scale: Scale | None,
    options: UpscaleOptions,
) -> UpscaleJob:
    """Return the job that keyword arguments describe.

    Args:
        scenes: what to open.
        output: the file to write, or the name of an object, such as s3://bucket/a.tif.
        scale: None = the only one of the model that is named, else 4.
        options: see `UpscaleOptions`.

    Raises:
        GridError: the scale is none.
        InputError: the output is in a store, but its name lacks a part.
    """
    from rsupres.output.store import place

    values: dict[str, object] = {}
    for name, value in options.items():
        if name == "interval" and value is not None:
            share, low, high = cast("tuple[float, StrPath, StrPath]", value)
            values |= {"interval_low": Path(low), "interval_high": Path(high)}
            value = share
        if isinstance(value, Mapping):
            value = value.items()
        if name in _LISTS:
            value = as_names(cast("StrPath | Sequence[StrPath]", value or ()))
        elif value is None:
            pass
        elif name in _FILES:
            value = Path(cast(StrPath, value))
        elif name in _NAMES:
            value = os.fspath(cast(StrPath, value))
        elif not isinstance(value, str) and hasattr(value, "__iter__"):
            value = tuple(value)
        values[_FIELDS.get(name, name)] = value
    path, store = place(output, cast("Path | None", values.get("run_dir")))
    return UpscaleJob(
        scenes=as_names(scenes),
        output=path,
        store=store,
        scale=find_scale(scale, options.get("model")),
        **values,  # type: ignore[arg-type]  # typed by UpscaleOptions
    )


def find_scale(scale: Scale | None, model: str | None) -> Fraction:
    """Return the scale that is meant: where none is given, 4, or the model's smallest.

    Args:
        scale: as given.
        model: a name or a checkpoint; None = the default.

    Raises:
        GridError: the scale is none.
    """
    if scale is not None:
        return as_scale(scale)
    with suppress(CheckpointError):  # which is raised where the model is needed
        offered = read_card(model).spec.scales if model else None
        if isinstance(offered, FixedScales) and not offered.offers(Fraction(4)):
            return min(offered.values)
    return Fraction(4)


def upscale(
    scene: StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    scale: Scale | None = None,
    progress: bool = False,
    on_progress: OnProgress | None = None,
    elsewhere: Compute | None = None,
    **options: Unpack[UpscaleOptions],
) -> RunSummary:
    """Upscale a scene into a georeferenced raster, as `rsupres upscale` does.

    The output appears under its name only when it is complete. After an interruption
    the same call continues.

    Args:
        scene: what to open: one raster, or several that make one.
        output: the file to write; also an object of a store, s3://bucket/out.tif.
        scale: SR pixels along one LR pixel: 4, 2.5, "10/3"; None = the only one of
            the model, else 4.
        progress: show a progress bar on stderr.
        on_progress: called often with how far the work is, instead of a bar.
        elsewhere: has other processes compute, such as
            `rsupres.cluster.dask_scene.OnDask`.
        **options: see `UpscaleOptions`.

    Returns:
        What was done, with the run's quality figures.

    Raises:
        RsupresError: see `rsupres.errors`; without output under its name, except
            `QualityGateError`, which comes after writing.

    Examples:
        >>> import rsupres
        >>> summary = rsupres.upscale(
        ...     "scene.tif", "scene_x4.tif", scale=4, bounds=(5.1, 52.0, 5.2, 52.1)
        ... )  # doctest: +SKIP
        >>> summary.figures["consistency"]  # doctest: +SKIP
        0.0050
    """
    from rsupres.upscaling.pipeline import upscale_scene

    job = make_job(scene, output, scale, options)
    with progress_bar(progress) as show:
        return upscale_scene(job, on_progress=on_progress or show, elsewhere=elsewhere)


def plan(
    scene: StrPath | Sequence[StrPath],
    output: StrPath | None = None,
    *,
    scale: Scale | None = None,
    **options: Unpack[UpscaleOptions],
) -> Plan:
    """Say what `upscale` would do with the same arguments; write nothing.

    Args:
        scene: as for `upscale`.
        output: the file that would be written; None = none is checked.
        scale: as for `upscale`.
        **options: see `UpscaleOptions`.

    Returns:
        Tiles, sizes, memory, disk, a time estimate, and why the job would be refused.
    """
    from rsupres.upscaling.estimates.planning import plan_job

    job = make_job(scene, "out.tif" if output is None else output, scale, options)
    return plan_job(job, has_output=output is not None)
