"""The contract between a model family and the rest of the package.

A family declares what it needs (`ModelSpec`), finds once per scene what all tiles share
(`SuperResolver.prepare`), and turns batches of LR tiles into batches of SR tiles
(`SuperResolver.upscale`). It knows no files, no coordinates and no tile grid beyond the
absolute windows of a batch. This module holds the types that cross that border.
Weight files are read by `rsupres.checkpoints`, samplers are in `rsupres.diffusion`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from rsupres.diffusion.noise import NoiseField
    from rsupres.grid import PixelWindow

Precision = Literal["fp32", "bf16", "fp16"]
FOUND = "found_"
# Probabilities of the quantiles in `ModelSpec.tails`.
TAILS = (0.5, 0.8, 0.9, 0.95, 0.99)
STYLE_SIDE = 1024  # pixels; longer sides of a style image are cropped


@dataclass(frozen=True)
class FixedScales:
    """A finite set of scales, such as {4, 8}."""

    values: frozenset[Fraction]

    def offers(self, scale: Fraction) -> bool:
        """Return whether `scale` is one of the set."""
        return scale in self.values

    def __str__(self) -> str:
        return ", ".join(str(value) for value in sorted(self.values))


@dataclass(frozen=True)
class ScaleRange:
    """All fractions from `low` to `high`, both included.

    `trained` is the largest scale seen in training; the pipeline warns beyond it.
    """

    low: Fraction
    high: Fraction
    trained: Fraction

    def offers(self, scale: Fraction) -> bool:
        """Return whether `low <= scale <= high`."""
        return self.low <= scale <= self.high

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


@dataclass(frozen=True)
class ModelSpec:
    """Needs and abilities of a model; stored in its checkpoint.

    Attributes:
        family: key of `rsupres.families.FAMILIES`.
        scales: the scales it offers.
        bands: roles in the model's order, such as ("red", "green", "blue"); empty when
            any number of bands will do.
        needs: names of the `Conditions` fields that must be given.
        accepts: names of the `Conditions` fields that may be given.
        tile_size: LR pixels of a tile side that suit the network by default.
        multiple: SR tile sides must be multiples of this.
        halo: width in LR pixels of the border of a tile that is not reliable.
        exact: whether a pixel inside of the halo is the same in every tile, and takes
            less time to compute than to store twice.
        gsd: smallest and largest metres per LR pixel seen in training; None = any.
        detail: whether `SamplerOptions.detail` has an effect.
        stochastic: whether the result depends on the noise.
        steps: default number of network evaluations, None when there is no sampler.
        legend: name or file of the legend of the vector maps that it was trained on,
            the default for its users; None = not known.
        classes: the class table of change masks that it was trained on; masks of other
            tables are brought to it. None = codes are taken as they are.
        sensor: whether it takes the sensor's blur and noise.
        unclipped: whether it also looks at values beyond the stretch, outside [0, 1];
            else these are enlarged by bicubic interpolation beside it.
        tails: at `TAILS`, how many predicted standard deviations hold this share of
            the errors; empty = the model predicts no standard deviation.
    """

    family: str
    scales: FixedScales | ScaleRange
    bands: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    accepts: frozenset[str] = frozenset()
    tile_size: int = 256
    multiple: int = 1
    halo: int = 0
    exact: bool = False
    gsd: tuple[float, float] | None = None
    detail: bool = False
    stochastic: bool = False
    steps: int | None = None
    legend: str | None = None
    classes: str | None = None
    sensor: bool = False
    unclipped: bool = False
    tails: tuple[float, ...] = ()


@dataclass(frozen=True)
class SamplerOptions:
    """The user's choices about sampling; None = the checkpoint's own value.

    Attributes:
        steps: number of network evaluations per tile.
        sampler: name of a sampler that the family offers.
        detail: 0 = most faithful pixels, 1 = most natural texture.
        precision: arithmetic of the networks; results leave in float32.
        style_sample: draw a style instead of following an image; only for models that
            accept a style.
        sensor_mtf: the sensor's modulation transfer at Nyquist; None = not known.
        noise: standard deviation, as a share of the stretch; None = not known.
        least_mtf: transfer at Nyquist that the platform's products have at least; None
            = the platform is not known.
        lock: make results agree with the scene through the sensor's blur.
        several: several results are drawn, to be compared or averaged.
    """

    steps: int | None = None
    sampler: str | None = None
    detail: float = 0.0
    precision: Precision = "fp32"
    style_sample: bool = False
    sensor_mtf: float | None = None
    noise: float | None = None
    least_mtf: float | None = None
    lock: bool = False
    several: bool = False


@dataclass(frozen=True)
class Conditions:
    """The inputs of a model besides the scene; None = not given.

    Attributes:
        vector_map: (b, 3, H, W) float32 in [0, 1], legend colours.
        reference: (b, c, H, W) float32 in [0, 1], an earlier high-resolution image in
            the model's bands; 0 where `reference_valid` is False.
        reference_valid: (b, 1, H, W) bool; given whenever `reference` is.
        change_mask: (b, 1, H, W) uint8: 0 = unchanged, 255 = not known, else the code
            of the land-cover class.
        style: (c, Hs, Ws) float32 in [0, 1]: one image for the whole scene, not on its
            grid; sides up to `STYLE_SIDE`.
    """

    vector_map: Tensor | None = None
    reference: Tensor | None = None
    reference_valid: Tensor | None = None
    change_mask: Tensor | None = None
    style: Tensor | None = None

    def to(self, device: torch.device) -> Conditions:
        """Return the same conditions on a device."""
        moved = {name: value.to(device) for name, value in self.given().items()}
        return Conditions(**moved)

    def given(self) -> dict[str, Tensor]:
        """Return the tensors that are there, by name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class SceneContext:
    """Findings of `SuperResolver.prepare`; stored in the run directory.

    Attributes:
        arrays: named arrays, possibly memory-mapped; read only.
        numbers: named scalars; those whose names begin with `FOUND` are shown to the
            user.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


class SceneReader(Protocol):
    """The scene as a model may see it: [0, 1], nodata filled, whole-pixel windows.

    `height` and `width` are LR pixels of the padded frame (`TileGrid.lr`); parts beyond
    the file are reflected, so that a value depends on its position alone.
    """

    @property
    def height(self) -> int:
        """Rows of the frame, LR pixels."""
        ...

    @property
    def width(self) -> int:
        """Columns of the frame, LR pixels."""
        ...

    def read(self, window: PixelWindow) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels and valid mask of an LR window inside the frame.

        Pixels are the model's bands, (c, h, w) float32 in [0, 1], nodata filled; the
        mask is (1, h, w) bool.
        """
        ...

    def read_conditions(self, window_sr: PixelWindow) -> Conditions:
        """Return the conditions on an SR window of the frame: a batch of one, CPU.

        The style, if any, is in it, too. An empty `Conditions` when none was given.
        """
        ...

    @property
    def style(self) -> Tensor | None:
        """The image whose style is to be followed: (c, Hs, Ws) in [0, 1], CPU."""
        ...

    def allocate(self, name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
        """Return a zeroed, writable array that lives beside the run (memory-mapped)."""
        ...


@dataclass(frozen=True)
class TileBatch:
    """Tiles of one size for one call of the network.

    Attributes:
        lr: (b, c, h, w) float32 in [0, 1], nodata already filled; beyond it where
            `ModelSpec.unclipped`.
        valid: (b, 1, h, w) bool.
        conditions: on the tiles' SR windows, on the batch's device; the style is the
            scene's, the same in every batch of a sample.
        noise: the noise field of the run.
        windows_lr: where each tile lies in the whole LR frame.
        windows_sr: where each tile lies in the whole SR picture.
        scene: what was found once for the whole scene.
    """

    lr: Tensor
    valid: Tensor
    conditions: Conditions
    noise: NoiseField
    windows_lr: Sequence[PixelWindow]
    windows_sr: Sequence[PixelWindow]
    scene: SceneContext


@runtime_checkable
class SuperResolver(Protocol):
    """A loaded model, on its device, ready to work."""

    @property
    def spec(self) -> ModelSpec:
        """Needs of the model: bands, scales, conditions."""
        ...

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: NoiseField
    ) -> SceneContext:
        """Find what all tiles of a scene share; called once, before the first tile.

        Args:
            scene: the whole scene, read by window.
            scale: SR pixels along an LR pixel, one that `spec` offers.
            noise: the noise of the run.
        """
        ...

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        """Return the SR of a batch of tiles.

        Args:
            batch: tiles of one size, with their conditions and what `prepare` found.
            scale: as for `prepare`.

        Returns:
            (b, c, H, W) float32 in [0, 1], on the batch's device; beyond it where
            `ModelSpec.unclipped`.
        """
        ...


@runtime_checkable
class PredictsSpread(Protocol):
    """A model whose `spec.tails` are not empty: it knows how far off it may be."""

    def upscale_with_variance(self, batch: TileBatch, scale: Fraction) -> Tensor:
        """Return SR, then its error's variance, band by band: (b, 2 c, H, W)."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A weight file in memory.

    Attributes:
        path: the file.
        spec: what the model needs from a scene.
        architecture: the family's configuration, as plain JSON values.
        tensors: weights by name, in the stored type; int8 is expanded to float32.
    """

    path: Path
    spec: ModelSpec
    architecture: Mapping[str, object]
    tensors: Mapping[str, Tensor]
