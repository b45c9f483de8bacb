"""Run models on arrays in memory: no file, no CRS, no run directory.

`load_model` and `upscale_array` are the library's public functions. An array goes
through the same tiles, batches, weights and noise as a scene of
`rsupres.upscaling.pipeline`, so that the same pixels give the same result.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from rsupres.checkpoints import catalogue
from rsupres.diffusion.noise import NoiseField
from rsupres.errors import InputError
from rsupres.execution import progress_bar
from rsupres.families.base import Conditions, SamplerOptions
from rsupres.grid import Grid, Scale, as_scale, round_up
from rsupres.tile_grid import TileGrid, lr_step
from rsupres.upscaling.inference import Counts, TileRunner, TileSource
from rsupres.upscaling.memory import (
    ArrayConditions,
    ArrayReader,
    GivenArrays,
    as_conditions,
    on_pixels,
    reflect,
)
from rsupres.upscaling.preparation.tiling import find_batch_size, plan_tiles

if TYPE_CHECKING:
    import torch

    from rsupres.families.base import ModelSpec, SuperResolver

FloatArray = NDArray[np.float32]
_SLACK = 1e-3  # how far beyond [0, 1] a value may lie


@dataclass(frozen=True)
class Model:
    """A model in memory, from `load_model`.

    Attributes:
        name: as it was asked for.
        resolver: the networks.
        device: where they are.
    """

    name: str
    resolver: SuperResolver
    device: torch.device

    @property
    def spec(self) -> ModelSpec:
        """Scales, bands, tile size and conditions of the model."""
        return self.resolver.spec


class ModelOptions(TypedDict, total=False):
    """Options of `load_model`.

    Attributes:
        precision: "fp32", "bf16", "fp16", or "auto" (default): bf16 on CUDA and on CPUs
            that multiply it, else fp32.
        detail: 0 = most faithful pixels (default), 1 = most natural texture, where
            offered.
        steps: network evaluations per tile; None = the model's own.
        sampler: one that the model offers; None = its own.
        style_sample: draw a style instead of following an image.
        sensor_mtf: the sensor's modulation transfer at Nyquist; None = estimated.
        noise: standard deviation, in the array's units; None = estimated.
    """

    precision: str
    detail: float
    steps: int | None
    sampler: str | None
    style_sample: bool
    sensor_mtf: float | None
    noise: float | None


def load_model(
    name: str,
    device: str = "auto",
    **options: Unpack[ModelOptions],
) -> Model:
    """Load a model by its name or from a checkpoint file.

    Args:
        name: a name of `rsupres models list`, or a path to a checkpoint.
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:1" or "mps".
        **options: see `ModelOptions`.

    Returns:
        The model, ready for `upscale_array`.

    Raises:
        CheckpointError: there is no such model, or its file is damaged.
        InputError: an option that the model does not have.
        ResourceError: this machine has no such device.

    Examples:
        >>> import rsupres
        >>> model = rsupres.load_model("bicubic")
        >>> model.spec.scales.offers(4)
        True
    """
    import torch

    from rsupres.upscaling.preparation.devices import find_device, find_precision

    place = find_device(device)
    where = torch.device(place)
    chosen = cast("dict[str, object]", options)
    chosen["precision"] = find_precision(options.get("precision", "auto"), place)
    made = SamplerOptions(**chosen)  # type: ignore[arg-type]  # typed by ModelOptions
    return Model(name, catalogue.load_model(name, where, made), where)


def upscale_array(
    lr: NDArray[np.number],
    model: Model | str,
    scale: Scale = 4,
    *,
    seed: int = 0,
    tile_size: int | None = None,
    overlap: int | None = None,
    progress: bool = False,
    **conditions: Unpack[GivenArrays],
) -> FloatArray:
    """Upscale an image in memory.

    The image is cut into overlapping tiles, which are blended; the same seed gives the
    same result. Memory grows with the image; use `upscale` for whole scenes.

    Args:
        lr: (c, h, w), values in [0, 1], the bands in the model's order (red, green,
            blue for the models that ship).
        model: from `load_model`, or a name.
        scale: SR pixels along one LR pixel: 4, 2.5, "10/3".
        seed: of the noise.
        tile_size: LR pixels along a tile's side; None = the model's.
        overlap: LR pixels that neighbouring tiles share; None = by the model's halo.
        progress: show a progress bar on stderr.
        **conditions: see `rsupres.upscaling.memory.GivenArrays`.

    Returns:
        (c, floor(h * scale), floor(w * scale)) float32; about [0, 1], not clipped.

    Raises:
        InputError: shapes, values, scale or conditions do not fit the model.
        ModelOutputError: the model returned NaN or another shape.

    Examples:
        >>> import numpy as np, rsupres
        >>> lr = np.random.default_rng(0).random((3, 20, 30), np.float32)
        >>> rsupres.upscale_array(lr, "bicubic", scale=2.5).shape
        (3, 50, 75)
    """
    loaded = load_model(model) if isinstance(model, str) else model
    ratio = as_scale(scale)
    unit = _check_values(lr)
    given = as_conditions(**conditions)
    _refuse_unseen(loaded.spec, given)
    _check_request(loaded.spec, unit, ratio, given)
    tiles = plan_tiles(
        _frame(unit), ratio, loaded.spec, loaded.name, tile_size, overlap
    )
    return _run(loaded.resolver, unit, tiles, loaded.device, seed, given, progress)


def upscale_whole(
    model: SuperResolver,
    lr: FloatArray,
    scale: Fraction,
    device: torch.device,
    seed: int = 0,
    conditions: Conditions | None = None,
) -> FloatArray:
    """Run a model on one image as a single tile.

    The image is reflected at the bottom and the right up to sides that the scale and
    the model allow, and the result is cropped back.

    Args:
        model: its networks.
        lr: (c, h, w) float32 in [0, 1], the bands of the model's roles in their order.
        scale: one that the model offers.
        device: where the model lives.
        seed: of the noise.
        conditions: on the SR pixels, a batch of one on the CPU; what the model does not
            look at is left out.

    Returns:
        (c, floor(h * scale), floor(w * scale)) float32, finite; not clipped.

    Raises:
        InputError: the model does not offer the scale, takes another number of bands,
            or needs a condition that is not given or not of the SR size.
        ModelOutputError: the model returned NaN or another shape.
    """
    spec = model.spec
    seen = _seen_by(spec, conditions or Conditions())
    _check_request(spec, lr, scale, seen)
    step = lr_step(scale, spec.multiple)
    side = round_up(max(lr.shape[1:]), step)
    tiles = TileGrid.plan(_frame(lr), scale, side, 0, 0, spec.multiple)
    return _run(model, lr, tiles, device, seed, seen)


def upscale_with_deviation(
    model: SuperResolver, lr: FloatArray, scale: Fraction, device: torch.device
) -> tuple[FloatArray, FloatArray]:
    """Return SR of one image, and the standard deviation of its error.

    Args:
        model: one that predicts it, see `ModelSpec.tails`.
        lr: as for `upscale_whole`; sides must suit scale and model.
        scale: as for `upscale_whole`.
        device: where the model lives.

    Returns:
        `(sr, deviation)`, both (c, h * scale, w * scale) float32.
    """
    side = max(lr.shape[1:])
    tiles = TileGrid.plan(_frame(lr), scale, side, 0, 0, model.spec.multiple)
    both = _run(model, lr, tiles, device, 0, Conditions(), has_variance=True)
    sr, variance = np.split(both, 2)
    return sr, np.sqrt(variance)


def _run(
    model: SuperResolver,
    lr: FloatArray,
    tiles: TileGrid,
    device: torch.device,
    seed: int,
    conditions: Conditions,
    progress: bool = False,
    *,
    has_variance: bool = False,
) -> FloatArray:
    """Run a model on the tiles of an image and blend them, as for a scene.

    With `has_variance`, variances follow the means, band by band.
    """
    import torch

    channels, height, width = lr.shape
    scale = tiles.scale
    below, right = tiles.lr.height - height, tiles.lr.width - width
    padded = np.pad(lr, ((0, 0), (0, below), (0, right)), mode="symmetric")
    given = on_pixels(conditions, lambda x: reflect(x, below * scale, right * scale))
    reader = ArrayReader(padded, given)
    source = TileSource(
        grid=tiles,
        n_bands=channels,
        read_rows=reader.read_rows,
        conditions=ArrayConditions(given),
        device=device,
        seed=seed,
        has_variance=has_variance,
    )
    counts = Counts(batch_size=find_batch_size(tiles, channels, str(device)))
    planes = channels * (2 if has_variance else 1)
    sr = np.empty((planes, floor(height * scale), floor(width * scale)), np.float32)
    with torch.inference_mode(), progress_bar(progress) as show:
        context = model.prepare(reader, scale, NoiseField(seed))
        runner = TileRunner(source, model, (context,), counts, show, len(tiles))
        n_rows = tiles.shape[0]
        with closing(runner.blend(range(n_rows))) as strips:
            for piece, _ in strips:
                place = sr[:, *piece.window.slices()]
                place[...] = piece.pixels[:, : place.shape[1], : place.shape[2]]
    return sr


def _frame(lr: FloatArray) -> Grid:
    from affine import Affine

    return Grid(None, Affine.identity(), *lr.shape[1:])


def _check_values(lr: NDArray[np.number]) -> FloatArray:
    """Return an image as float32, or say why it cannot be one."""
    if lr.ndim != 3 or 0 in lr.shape:
        raise InputError(f"An image is (bands, rows, columns), not {lr.shape}.")
    unit = np.ascontiguousarray(lr, np.float32)
    low, high = float(unit.min()), float(unit.max())
    if not -_SLACK <= low <= high <= 1.0 + _SLACK:  # false for NaN, too
        raise InputError(
            f"The image has values from {low:g} to {high:g}; they must lie in [0, 1]:"
            " divide digital numbers by their range, and fill or clip what lies beyond."
        )
    return unit


def _refuse_unseen(spec: ModelSpec, given: Conditions) -> None:
    """Refuse conditions that the model would not look at."""
    names = _names_seen(spec)
    unseen = sorted(set(given.given()) - names)
    if unseen:
        raise InputError(
            f"The model of family {spec.family} does not look at {', '.join(unseen)}."
        )


def _names_seen(spec: ModelSpec) -> frozenset[str]:
    names = spec.needs | spec.accepts
    return names | {"reference_valid"} if "reference" in names else names


def _seen_by(spec: ModelSpec, conditions: Conditions) -> Conditions:
    """Return the conditions that a model looks at."""
    names = _names_seen(spec)
    given = conditions.given()
    return Conditions(**{name: given[name] for name in given if name in names})


def _check_request(
    spec: ModelSpec, lr: FloatArray, scale: Fraction, conditions: Conditions
) -> None:
    if not spec.scales.offers(scale):
        raise InputError(
            f"The model of family {spec.family} offers the scales {spec.scales}, not "
            f"{scale}."
        )
    given = conditions.given()
    if missing := sorted(spec.needs - given.keys()):
        raise InputError(
            f"The model of family {spec.family} needs {', '.join(missing)}."
        )
    size = tuple(floor(side * scale) for side in lr.shape[1:])
    for name, layer in given.items():
        if name != "style" and tuple(layer.shape[2:]) != size:
            raise InputError(
                f"{name} has {tuple(layer.shape[2:])} pixels, the SR picture {size}."
            )
    if spec.bands and lr.shape[0] != len(spec.bands):
        raise InputError(
            f"The model takes {len(spec.bands)} bands ({', '.join(spec.bands)}), the "
            f"image has {lr.shape[0]}."
        )
