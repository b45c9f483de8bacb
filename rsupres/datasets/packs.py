"""Packs: crops of HR images with their LR and layers, in one safetensors file.

A pack has a uint8 or uint16 tensor ``hr/000000`` (3, H, W) per crop, whose largest
number means 1, and a JSON header with the origin of each. It may have ``lr/000000``, of
another sensor or of a fixed scale, and layers on the pixels of the HR crop, which are
the conditions of a model. Format 2 has layers, format 1 has none; both are read.
Nothing here opens a georeferenced raster;
`rsupres.datasets.packing` makes the crops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsupres.datasets.layers import find_fault
from rsupres.errors import InputError
from rsupres.output.tensors import write_tensors

PACK_FORMAT = 2
HR_MULTIPLE = 8  # sides of HR patches are multiples of this, for every network
MIN_SIDE = 24  # HR pixels; a smaller crop has no room for a patch
STORED = "stored"  # the degradation of a pack whose LR comes from another sensor
_HEADER = "rsupres_pack"


def to_floats(pixels: NDArray[np.uint8 | np.uint16]) -> NDArray[np.float32]:
    """Return pixels of uint8 or uint16 as float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


@dataclass(frozen=True)
class CropOrigin:
    """Origin of a crop: place (unit of the split), file name, metres per pixel."""

    place: str
    source: str
    gsd_m: float


@dataclass(frozen=True)
class PackMeta:
    """The header of a pack.

    Attributes:
        split: "train" or "validation".
        degradation: a name of `rsupres.degradations.registry`, applied while training,
            or "stored" when the stored LR comes from another sensor.
        parameters: parameters of the degradation, plain JSON values.
        licence: licence and attribution of the images.
        seed: seed of the choice of crops.
        crops: origin of each crop, in order.
        lr_scale: scale of the stored LR crops, e.g. "4"; None = none are stored.
        layers: names of `rsupres.datasets.layers.LAYERS` that every crop has.
        legend: legend of the vector maps; "" = unknown.
        classes: class table of the change masks; "" = unknown.
    """

    split: str
    degradation: str
    crops: tuple[CropOrigin, ...]
    parameters: Mapping[str, object] = field(default_factory=dict)
    licence: str = ""
    seed: int = 0
    lr_scale: str | None = None
    layers: tuple[str, ...] = ()
    legend: str = ""
    classes: str = ""

    @property
    def scale(self) -> Fraction | None:
        """Scale of the stored LR crops."""
        return None if self.lr_scale is None else Fraction(self.lr_scale)


@dataclass(frozen=True)
class Pack:
    """A pack in memory.

    Attributes:
        crops: HR, (3, H, W) uint8 or uint16 each.
        meta: the header.
        lr: LR of each crop, if stored.
        layers: by name, one (c, H, W) uint8 per crop: vector map, reference and style
            as colours; `reference_valid` 0 or 1; change mask as codes, 255 = unknown.
    """

    crops: tuple[np.ndarray, ...]
    meta: PackMeta
    lr: tuple[np.ndarray, ...] = ()
    layers: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Pack:
        """Read a pack whole.

        Raises:
            InputError: the file is missing, damaged or no pack.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                header = (file.metadata() or {}).get(_HEADER)
                if header is None:
                    raise InputError(
                        f"{path}: not a pack of crops; make one with"
                        " 'rsupres dataset build'."
                    )
                meta = _meta_from_json(json.loads(header))

                def read(kind: str) -> tuple[np.ndarray, ...]:
                    numbers = range(len(meta.crops))
                    return tuple(file.get_tensor(f"{kind}/{k:06d}") for k in numbers)

                lr = () if meta.lr_scale is None else read("lr")
                pack = cls(
                    read("hr"), meta, lr, {name: read(name) for name in meta.layers}
                )
                _check_layers(pack)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file.") from error
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: damaged pack ({error}); build it again."
            ) from error
        return pack


def write_pack(
    path: Path,
    crops: Sequence[np.ndarray],
    meta: PackMeta,
    lr: Sequence[np.ndarray] = (),
    layers: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> None:
    """Write a pack; the file has its name only when it is complete.

    Args:
        path: the file to write; replaced if there.
        crops: HR crops, (3, H, W) uint8 or uint16, in the order of ``meta.crops``.
        meta: the header.
        lr: LR crops of the same order, when ``meta.lr_scale`` names their scale.
        layers: for each of ``meta.layers`` its arrays in the same order, see `Pack`.

    Raises:
        InputError: the layers are not those that the header names, or do not fit.
        ResourceError: the disk is full.
    """
    kinds = {"hr": crops, "lr": lr, **(layers or {})}
    try:
        _check_layers(
            Pack(
                tuple(crops),
                meta,
                tuple(lr),
                {name: tuple(arrays) for name, arrays in (layers or {}).items()},
            )
        )
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from error
    tensors = {
        f"{kind}/{k:06d}": array
        for kind, arrays in kinds.items()
        for k, array in enumerate(arrays)
    }
    header = {"format": PACK_FORMAT, **asdict(meta)}
    write_tensors(path, tensors, {_HEADER: json.dumps(header)})


def _check_layers(pack: Pack) -> None:
    """Raise ValueError unless every layer has the size of its crop."""
    if set(pack.layers) != set(pack.meta.layers):
        raise ValueError(
            f"layers {sorted(pack.layers)} are not {sorted(pack.meta.layers)}"
        )
    for k, crop in enumerate(pack.crops):
        layers = {name: arrays[k] for name, arrays in pack.layers.items()}
        height, width = crop.shape[1:]
        if fault := find_fault(layers, (height, width)):
            raise ValueError(fault)


def _meta_from_json(header: Mapping[str, object]) -> PackMeta:
    values = dict(header)
    if values.pop("format", None) not in (1, PACK_FORMAT):
        raise KeyError("format number")
    crops = values.pop("crops")
    layers = values.pop("layers", [])
    if not isinstance(crops, list) or not isinstance(layers, list):
        raise TypeError("crops or layers is no list")
    return PackMeta(
        crops=tuple(CropOrigin(**c) for c in crops),
        layers=tuple(layers),
        **values,  # type: ignore[arg-type]  # wrong names raise TypeError
    )
