"""What a model family promises to the pipeline.

A family declares what it needs (`ModelSpec`), finds once per scene what all tiles must
share (`SuperResolver.prepare`), and turns batches of tiles into batches of SR tiles
(`SuperResolver.upscale`). It knows no files, no coordinates and no tile grid beyond the
absolute windows that a batch carries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from rsupres.diffusion.noise import NoiseField
    from rsupres.grid import PixelWindow
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsupres.grid import PixelWindow

if TYPE_CHECKING:
    import torch
    from torch import Tensor

from typing import TYPE_CHECKING

from rsupres.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Precision = Literal["fp32", "bf16", "fp16"]


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
    """What a model needs from a scene; stored in its checkpoint.

    Attributes:
        family: key of `rsupres.families.FAMILIES`.
        scales: the scales it offers.
        bands: roles in the model's order, such as ("red", "green", "blue"); empty when
            any number of bands will do.
        needs: names of `Conditions` fields that must be given.
        accepts: names of `Conditions` fields that may be given.
        tile_size: LR pixels of a tile side that suit the network by default.
        multiple: SR tile sides must be multiples of this.
        halo: LR pixels at a tile edge that must not be trusted.
        gsd: smallest and largest metres per LR pixel seen in training; None = any.
        detail: whether `SamplerOptions.detail` has an effect.
        stochastic: whether the result depends on the noise.
        steps: default number of network evaluations, None when there is no sampler.
        legend: the legend of vector maps that it was trained on: a name or file that
            `--legend` takes, and its default; None = not said.
        classes: the class table of change masks that it was trained on; masks of other
            tables are brought to it. None = codes are taken as they are.
        sensor: whether it can be told the sensor's blur and noise.
    """

    family: str
    scales: FixedScales | ScaleRange
    bands: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    accepts: frozenset[str] = frozenset()
    tile_size: int = 256
    multiple: int = 1
    halo: int = 0
    gsd: tuple[float, float] | None = None
    detail: bool = False
    stochastic: bool = False
    steps: int | None = None
    legend: str | None = None
    classes: str | None = None
    sensor: bool = False


@dataclass(frozen=True)
class SamplerOptions:
    """What a user may choose about a model's work; None = the checkpoint's own value.

    Attributes:
        steps: number of network evaluations per tile.
        sampler: name of a sampler that the family offers.
        detail: 0 = most faithful pixels, 1 = most natural texture.
        precision: arithmetic of the networks; results leave in float32.
        style_sample: draw a style instead of following an image; only for models that
            accept a style.
        sensor_mtf: the sensor's modulation transfer at Nyquist; None = not known.
        noise: standard deviation, as a share of the stretch; None = not known.
    """

    steps: int | None = None
    sampler: str | None = None
    detail: float = 0.0
    precision: Precision = "fp32"
    style_sample: bool = False
    sensor_mtf: float | None = None
    noise: float | None = None


@dataclass(frozen=True)
class SceneContext:
    """What was found once for the whole scene; stored in the run directory.

    Attributes:
        arrays: named arrays, possibly memory-mapped; read only.
        numbers: named scalars.
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
        lr: (b, c, h, w) float32 in [0, 1], nodata already filled.
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
        """What the model needs."""
        ...

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: NoiseField
    ) -> SceneContext:
        """Find once what every tile of the scene must share."""
        ...

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        """Return (b, c, H, W) float32 in [0, 1] on the batch's device."""
        ...


# SR pixels of a side beyond which a style image is cropped.
STYLE_SIDE = 1024


@dataclass(frozen=True)
class Conditions:
    """What a model looks at besides the scene; None = not given.

    Attributes:
        vector_map: (b, 3, H, W) float32 in [0, 1], legend colours.
        reference: (b, c, H, W) float32 in [0, 1], an earlier high-resolution image in
            the model's bands; 0 where it is missing, which `reference_valid` tells.
        reference_valid: (b, 1, H, W) bool; given whenever `reference` is.
        change_mask: (b, 1, H, W) uint8, 0 = unchanged, else the land-cover class, 255 =
            not known.
        style: (c, Hs, Ws) float32 in [0, 1]: one image for the whole scene, on no grid,
            sides up to `STYLE_SIDE`.
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
class Checkpoint:
    """A weight file in memory.

    Attributes:
        path: where it came from.
        spec: what the model needs from a scene.
        architecture: the family's configuration, as plain JSON values.
        tensors: weights by name, as stored; those of 8 bits in float32.
    """

    path: Path
    spec: ModelSpec
    architecture: Mapping[str, object]
    tensors: Mapping[str, Tensor]


def fit_tensors(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Sequence[int]], path: Path
) -> None:
    """Check that names and shapes are exactly the wanted ones.

    Raises:
        CheckpointError: names the first missing, surplus or misshapen tensors.
    """
    missing = sorted(set(wanted) - set(tensors))
    surplus = sorted(set(tensors) - set(wanted))
    if missing or surplus:
        raise CheckpointError(
            f"{path}: {len(missing)} tensors missing ({', '.join(missing[:3]) or '-'}),"
            f" {len(surplus)} surplus ({', '.join(surplus[:3]) or '-'})."
        )
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != tuple(shape):
            raise CheckpointError(
                f"{path}: tensor '{name}' has shape {tuple(tensors[name].shape)}, the"
                f" architecture needs {tuple(shape)}."
            )
