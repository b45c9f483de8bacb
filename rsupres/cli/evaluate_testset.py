"""`rsupres evaluate DATASET --model`: models side by side on degraded HR images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsupres.cli.console import Console
from rsupres.cli.options.evaluation import Options, find_lpips
from rsupres.errors import ConditionError, InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from rsupres.datasets.chips import Chip
    from rsupres.datasets.packs import Pack
    from rsupres.datasets.sidecars import Sidecars
    from rsupres.degradations.base import Degradation as Sensor
    from rsupres.evaluation.report import Row
    from rsupres.evaluation.testset import Candidate, Degradation, Pixels
    from rsupres.families.base import ModelSpec

STORED = "stored"  # as `rsupres.datasets.packs` calls another sensor's LR


def evaluate_testset(
    console: Console, inputs: Sequence[Path], options: Options
) -> None:
    """Run models on the degraded images of a test set and show the table."""
    from rsupres.evaluation.report import mean_rows, table_lines
    from rsupres.evaluation.testset import run_testset
    from rsupres.execution import Progress
    from rsupres.upscaling.devices import find_device

    device = find_device(options.device)
    candidates, specs = _load_candidates(options, device)
    companions = _companions(options, specs)
    chips, n_chips, degradation = _find_chips(inputs, options, companions)
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    seen: set[str] = set()
    with console.progress() as show:
        for row in run_testset(
            chips,
            candidates,
            options.scales,
            degradation,
            border=options.border,
            lpips=find_lpips(options, str(device)),
            pictures=options.pictures,
        ):
            rows.append(row)
            seen.add((row.image or "").partition("@")[0])
            show(Progress("Images", len(seen) - 1, n_chips, "images"))
    if not rows:
        raise InputError(f"{inputs[0]}: no image is fit for the test.")
    means = sorted(mean_rows(rows), key=lambda row: -Fraction(row.scale))
    shown = [*rows, *means] if console.verbosity > 0 else means
    head, *lines = table_lines(shown)
    if not console.as_json:
        click.echo(head)
    for row, line in zip(shown, lines, strict=True):
        console.emit(row.to_json() | {"degradation": degradation.name}, line)


def _load_candidates(
    options: Options, device: torch.device
) -> tuple[list[Candidate], list[ModelSpec]]:
    """Return what is compared, and the specs of its models."""
    from rsupres.checkpoints.catalogue import load_model
    from rsupres.evaluation.testset import (
        BICUBIC,
        bicubic_candidate,
        model_candidate,
        without,
    )
    from rsupres.families.base import SamplerOptions
    from rsupres.upscaling.devices import find_precision

    style = _read_style(options)
    candidates, specs = [], []
    for name in dict.fromkeys(options.models):
        if name == BICUBIC:
            candidates.append(bicubic_candidate())
            continue
        for detail in options.details or (0.0,):
            sampling = SamplerOptions(
                steps=options.steps,
                sampler=options.sampler,
                detail=detail,
                precision=find_precision(options.precision, device),
                style_sample=options.style_sample,
            )
            model = load_model(name, device, sampling)
            label = Path(name).stem if name.endswith(".safetensors") else name
            label += f" detail {detail:g}" if model.spec.detail else ""
            made = model_candidate(label, model, device, options.seed, style)
            candidates.append(made)
            hidden = [name.replace("-", "_") for name in options.without]
            candidates += [without(made, h) for h in hidden if h in model.spec.accepts]
            specs.append(model.spec)
    return candidates, specs


def _read_style(options: Options) -> NDArray[np.float32] | None:
    """Return the picture that all images follow, of several the one of the seed."""
    if options.style is None:
        return None
    if options.style_sample:
        raise click.UsageError("--style and --style-sample exclude each other.")
    from rsupres.conditions.styles import open_styles
    from rsupres.datasets.chips import ROLES

    return open_styles(options.style, ROLES, len(ROLES)).pick(options.seed)


def _companions(options: Options, specs: Sequence[ModelSpec]) -> Sidecars:
    """Return where conditions are found; refuse those that no model looks at."""
    from rsupres.datasets.sidecars import DEFAULT_LEGEND, Sidecars

    for hidden in options.without:
        if not any(hidden.replace("-", "_") in spec.accepts for spec in specs):
            raise ConditionError(
                f"--without {hidden}: none of the models could do without it, or looks"
                " at it at all."
            )
    looked_at = {name for spec in specs for name in spec.needs | spec.accepts}
    for option, name in (
        ("reference_from", "reference"),
        ("vector_map_from", "vector_map"),
        ("change_mask_from", "change_mask"),
        ("style", "style"),
        ("style_sample", "style"),
    ):
        if getattr(options, option) and name not in looked_at:
            flag = option.replace("_", "-")
            raise ConditionError(f"--{flag}: none of the models looks at it.")
    legends = {spec.legend for spec in specs if spec.legend}
    if options.legend is None and len(legends) > 1:
        raise InputError(
            f"The models know different legends ({', '.join(sorted(legends))}); measure"
            " them one by one, or name one with --legend."
        )
    return Sidecars(
        options.reference_from,
        options.vector_map_from,
        options.change_mask_from,
        options.legend or next(iter(legends), DEFAULT_LEGEND),
        options.class_table,
    )


def _find_chips(
    inputs: Sequence[Path], options: Options, companions: Sidecars
) -> tuple[Iterator[Chip], int, Degradation]:
    """Return the images, their number (before cutting), and the degradation."""
    from rsupres.datasets.packs import Pack
    from rsupres.evaluation.testset import load_chips
    from rsupres.raster.files import find_images

    if len(inputs) == 1 and inputs[0].suffix == ".safetensors":
        if companions.names:
            raise InputError(
                f"{inputs[0]}: a pack has its own conditions; build it with"
                " --reference-from and the like instead."
            )
        pack = Pack.load(inputs[0])
        every = slice(None, None, options.every)
        name = options.degradation or pack.meta.degradation
        if name == pack.meta.degradation == STORED:
            made = _stored(pack.lr[every])
        else:
            is_own = name == pack.meta.degradation
            params = pack.meta.parameters if is_own else {}
            made = _degradation(name, options.seed, params)
        chips = _chips_of(pack)[every]
        return iter(chips), len(chips), made
    images = find_images(inputs, options.glob, options.exclude)[:: options.every]
    name = options.degradation or "bicubic"
    found = load_chips(images, options.max_side, companions)
    return found, len(images), _degradation(name, options.seed, {})


def _chips_of(pack: Pack) -> list[Chip]:
    import numpy as np

    from rsupres.datasets.chips import Chip

    return [
        Chip(
            crop,
            np.ones(crop.shape[1:], bool),
            origin.gsd_m,
            f"{origin.source} {origin.gsd_m:g} m",
            layers={name: arrays[k] for name, arrays in pack.layers.items()},
        )
        for k, (crop, origin) in enumerate(
            zip(pack.crops, pack.meta.crops, strict=True)
        )
    ]


def _degradation(name: str, seed: int, params: Mapping[str, object]) -> Degradation:
    """Return Pillow's bicubic, or another one with draws of its own per image.

    SR is brought back by the same sensor without draws, or by bicubic where a
    degradation is made of nothing else.
    """
    import numpy as np
    import torch

    from rsupres.datasets.chips import to_uint8
    from rsupres.degradations.registry import make_degradation
    from rsupres.evaluation.resize import resize_bicubic_float
    from rsupres.evaluation.testset import BICUBIC, Degradation, bicubic_degradation

    if name == BICUBIC:
        return bicubic_degradation()
    drawn = make_degradation(name, params)
    still = drawn.still()

    def record(
        image: np.ndarray, size: tuple[int, int], number: int, sensor: Sensor
    ) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        hr = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None]
        return sensor.degrade(hr, size, generator)[0].numpy()

    def shrink(sr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if still is None:
            return resize_bicubic_float(sr, size)
        return record(sr, size, 0, still)

    def degrade(hr: Pixels, size: tuple[int, int], number: int) -> Pixels:
        return to_uint8(record(hr / np.float32(255), size, number, drawn))

    return Degradation(name, degrade, shrink)


def _stored(images: Sequence[Pixels]) -> Degradation:
    """Return the LR that a pack holds of another sensor."""
    from rsupres.evaluation.resize import resize_bicubic_float
    from rsupres.evaluation.testset import Degradation

    def look_up(hr: Pixels, size: tuple[int, int], number: int) -> Pixels:
        lr = images[number]
        if lr.shape[1:] != size:
            scale = Fraction(hr.shape[1], lr.shape[1])
            raise InputError(
                f"The pack holds LR of another sensor at scale {scale} only; give"
                f" --scale {scale}, or --degradation to make LR."
            )
        return lr

    return Degradation(STORED, look_up, resize_bicubic_float)
