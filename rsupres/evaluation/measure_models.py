"""Compare models on degraded HR images, as `rsupres evaluate` does with a test set.

A request says which images, which models and which figures; the result is a row of
figures for each image, scale and model, and their means. This module loads the models,
finds the images and refuses conditions that no model uses;
`rsupres.evaluation.testset` measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rsupres.datasets.chips import ROLES, Chip
from rsupres.datasets.packs import STORED, Pack
from rsupres.datasets.sidecars import Sidecars
from rsupres.errors import ArgumentError, ConditionError, InputError
from rsupres.evaluation.candidates import load_candidates
from rsupres.evaluation.comparison.worst import Shown, WorstImages
from rsupres.evaluation.images import (
    Degradation,
    chips_of_pack,
    load_chips,
    named_degradation,
    stored_degradation,
)
from rsupres.evaluation.perceptual.sets import Sets
from rsupres.evaluation.perceptual.weights import load_measures
from rsupres.evaluation.report import Row, mean_rows
from rsupres.evaluation.testset import run_testset
from rsupres.execution import OnProgress, Progress
from rsupres.families.base import ModelSpec, SamplerOptions
from rsupres.legends.legend import DEFAULT_COLOUR_LEGEND
from rsupres.output.atomic import make_folder
from rsupres.raster.files import find_images
from rsupres.upscaling.preparation.devices import find_device, find_precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ModelsRequest:
    """Request to compare models on the images of a test set.

    Attributes:
        inputs: image files, folders of them, or one pack.
        models: names of cards or checkpoint files; "bicubic" is Pillow's.
        scales: of the test, each at least 1.
        every: take every N-th image, from the first.
        glob: which files of a folder.
        exclude: patterns of file names that are left out.
        max_side: larger images are cut into parts of at most this side, HR pixels.
        degradation: how LR images are made; None = a pack's own, else bicubic.
        details: detail of the models, each in [0, 1]; empty = 0.
        steps: sampling steps; None = each model's.
        sampler: name of a sampler; None = each model's.
        seed: of the noise and of the degradation.
        device: such as "auto", "cpu" or "cuda:1".
        precision: "auto", "fp32", "bf16" or "fp16".
        border: SR pixels left out at every side; None = the scale, rounded up.
        pictures: folder for panels of LR, results and HR; None = none.
        lpips_weights: folder of the LPIPS weights; None = `RSUPRES_LPIPS`.
        metric_weights: folder of weights of all measures; None =
            `RSUPRES_METRIC_WEIGHTS`.
        all_figures: measure MS-SSIM, UIQI, NIQE and those of opensr-test.
        middle: take only the middle of each image, this many HR pixels a side; None =
            all of it.
        lr_from: rules "OLD=NEW" from an image's path to an LR image of the same ground;
            empty = LR is computed.
        reference_from: rules "OLD=NEW" from an image's path to its reference.
        vector_map_from: such rules to its map, or vector files for all images.
        change_mask_from: such rules to its change mask.
        class_table: class table of the change masks; None = codes as they are.
        legend: how vector files are drawn; None = the models', else the default.
        without: conditions; a model that accepts one runs once more without it.
        style: image, or folder of images, whose look all results follow.
        style_sample: draw a style by the seed instead.
    """

    inputs: tuple[Path, ...]
    models: tuple[str, ...]
    scales: tuple[Fraction, ...] = (Fraction(4),)
    every: int = 1
    glob: str = "*"
    exclude: tuple[str, ...] = ()
    max_side: int = 1024
    degradation: str | None = None
    details: tuple[float, ...] = ()
    steps: int | None = None
    sampler: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    border: int | None = None
    pictures: Path | None = None
    lpips_weights: Path | None = None
    metric_weights: Path | None = None
    all_figures: bool = False
    middle: int | None = None
    lr_from: tuple[str, ...] = ()
    reference_from: tuple[str, ...] = ()
    vector_map_from: tuple[str, ...] = ()
    change_mask_from: tuple[str, ...] = ()
    class_table: str | None = None
    legend: str | None = None
    without: tuple[str, ...] = ()
    style: str | None = None
    style_sample: bool = False


@dataclass(frozen=True)
class ModelsResult:
    """Figures of models on a test set.

    Attributes:
        rows: one for each image, scale and model, in that order.
        means: over the images, by model and scale, largest scale first.
        degradation: how the LR images were made.
        worst: the images on which each model is worst, where they were kept.
    """

    rows: tuple[Row, ...]
    means: tuple[Row, ...]
    degradation: str
    worst: Mapping[str, Sequence[Shown]] = field(default_factory=dict)


def measure_models(
    request: ModelsRequest,
    *,
    on_progress: OnProgress | None = None,
    keep_worst: bool = False,
) -> ModelsResult:
    """Run models on the degraded images of a test set; return their figures.

    Args:
        request: which images, models and figures.
        on_progress: called after each result.
        keep_worst: keep parts of the images on which each model is worst.

    Raises:
        InputError: no image is fit, a scale is not offered, or legends differ.
        RsupresError: a model cannot be loaded, or looks at no condition that is given.
    """
    device = find_device(request.device)
    candidates, specs = load_candidates(
        *(request.models, _samplings(request, device)),
        *(torch.device(device), request.seed),
        style=_read_style(request),
        hidden=request.without,
    )
    _check_conditions(request, specs)
    chips, n_images, degradation = _find_images(request, _sidecars(request, specs))
    if request.pictures is not None:
        make_folder(request.pictures, "pictures")
    worst = WorstImages() if keep_worst else None
    weights = load_measures(request.metric_weights, request.lpips_weights, device)
    sets = Sets(weights.features) if weights.features is not None else None
    rows: list[Row] = []
    seen: set[str] = set()
    for row in run_testset(
        *(chips, candidates, request.scales, degradation),
        border=request.border,
        perceptual=weights.measures,
        pictures=request.pictures,
        worst=worst,
        sets=sets,
        all_figures=request.all_figures,
    ):
        rows.append(row)
        seen.add((row.image or "").partition("@")[0])
        if on_progress:
            on_progress(Progress("Images", len(seen) - 1, n_images, "images"))
    if not rows:
        raise InputError(f"{request.inputs[0]}: no image is fit for the test.")
    kept = {} if worst is None else worst.by_model()
    return ModelsResult(tuple(rows), _means(rows, sets), degradation.name, kept)


def _means(rows: list[Row], sets: Sets | None) -> tuple[Row, ...]:
    means = sorted(mean_rows(rows), key=lambda row: -Fraction(row.scale))
    return tuple(means if sets is None else sets.complete(means))


def _samplings(request: ModelsRequest, device: str) -> list[SamplerOptions]:
    precision = find_precision(request.precision, device)
    return [
        SamplerOptions(
            steps=request.steps,
            sampler=request.sampler,
            detail=detail,
            precision=precision,
            style_sample=request.style_sample,
        )
        for detail in request.details or (0.0,)
    ]


def _read_style(request: ModelsRequest) -> NDArray[np.float32] | None:
    """Return the picture that all images follow, of several the one of the seed."""
    if request.style is None:
        return None
    from rsupres.conditions.styles import open_styles

    return open_styles(request.style, ROLES, len(ROLES)).pick(request.seed)


def _check_conditions(request: ModelsRequest, specs: Sequence[ModelSpec]) -> None:
    """Refuse conditions that change no result."""
    for hidden in request.without:
        if not any(hidden in spec.accepts for spec in specs):
            raise ConditionError(
                f"{hidden.replace('_', ' ')}: none of the models accepts it as an "
                "option, so none can run without it.",
                argument="without",
            )
    looked_at = {name for spec in specs for name in spec.needs | spec.accepts}
    for argument, given, condition in (
        ("reference_from", " ".join(request.reference_from), "reference"),
        ("vector_map_from", " ".join(request.vector_map_from), "vector_map"),
        ("change_mask_from", " ".join(request.change_mask_from), "change_mask"),
        ("style", request.style or "", "style"),
        ("style_sample", "(a drawn style)" * request.style_sample, "style"),
    ):
        if given and condition not in looked_at:
            raise ConditionError(
                f"{given}: none of the models looks at it.", argument=argument
            )


def _sidecars(request: ModelsRequest, specs: Sequence[ModelSpec]) -> Sidecars:
    """Return where the conditions of each image are found."""
    legends = {spec.legend for spec in specs if spec.legend}
    if request.legend is None and len(legends) > 1:
        raise InputError(
            f"The models know different legends ({', '.join(sorted(legends))}); measure"
            " them one by one, or name one legend for all.",
            remedies=("legend",),
        )
    return Sidecars(
        reference=request.reference_from,
        vector_map=request.vector_map_from,
        change_mask=request.change_mask_from,
        legend=request.legend or next(iter(legends), DEFAULT_COLOUR_LEGEND),
        class_table=request.class_table,
        lr=request.lr_from,
    )


def _find_images(
    request: ModelsRequest, sidecars: Sidecars
) -> tuple[Iterator[Chip], int, Degradation]:
    """Return the images, their number (before cutting), and the degradation."""
    first = request.inputs[0]
    if len(request.inputs) == 1 and first.suffix == ".safetensors":
        if sidecars.names or sidecars.lr:
            raise InputError(
                f"{first}: a pack holds its own conditions; give their rules when the "
                "pack is built."
            )
        return _open_pack(Pack.load(first), request)
    found = find_images(request.inputs, request.glob, request.exclude)
    images = found[:: request.every]
    if request.pictures is not None:
        beside = [path for image in images for path in _beside(image, sidecars)]
        _check_pictures(request.pictures, [*images, *beside])
    degradation = named_degradation(request.degradation or "bicubic", request.seed, {})
    chips = load_chips(images, request.max_side, sidecars, request.middle)
    return chips, len(images), degradation


def _beside(image: Path, sidecars: Sidecars) -> list[Path]:
    """Return the files that are read with an image."""
    return [Path(n) for names in sidecars.files_of(image).values() for n in names]


def _check_pictures(folder: Path, images: Sequence[Path]) -> None:
    """Refuse to write pictures among the images, which they could replace."""
    place = folder.resolve()
    for image in images:
        if image.resolve().parent == place:
            raise ArgumentError(
                f"{folder}: holds images that are measured ({image.name}), and a "
                "picture could replace one; name another folder.",
                argument="pictures",
            )


def _open_pack(
    pack: Pack, request: ModelsRequest
) -> tuple[Iterator[Chip], int, Degradation]:
    """Return the crops of a pack, their number, and the degradation."""
    chips = chips_of_pack(pack)[:: request.every]
    own = pack.meta.degradation
    name = request.degradation or own
    if name == own == STORED:
        made = stored_degradation(pack.lr[:: request.every])
    else:
        parameters = pack.meta.parameters if name == own else {}
        made = named_degradation(name, request.seed, parameters)
    return iter(chips), len(chips), made
