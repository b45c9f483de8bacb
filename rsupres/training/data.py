"""Packed crops on disk, and batches of LR/HR patches made from them.

A pack is one safetensors file: a uint8 tensor (3, H, W) per HR crop and a JSON header
that says where each came from. LR is made while training, because the scale is
continuous. Batch k is a function of (seed, k) alone, so a resumed run sees what an
uninterrupted one sees. Nothing here opens a georeferenced raster;
`rsupres dataset build` writes packs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsupres.errors import InputError
from rsupres.training.degradations import (
    Sentinel2Params,
    ToneParams,
    degrade_bicubic,
    degrade_sentinel2,
    tone,
)

PACK_FORMAT = 1
_HEADER = "rsupres_pack"
DEGRADATIONS = ("bicubic", "sentinel2")
_SMALLEST_LR = 12  # LR pixels; below, a patch is mostly border


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
        degradation: one of `DEGRADATIONS`, applied while training.
        parameters: parameters of the degradation, as JSON.
        licence: licence and attribution of the images.
        seed: seed of the choice of crops.
        crops: origin of each crop, in order.
        lr_scale: scale of the stored LR crops, e.g. "4"; None = none are stored.
    """

    split: str
    degradation: str
    crops: tuple[CropOrigin, ...]
    parameters: Mapping[str, object] = field(default_factory=dict)
    licence: str = ""
    seed: int = 0
    lr_scale: str | None = None


@dataclass(frozen=True)
class Pack:
    """A pack in memory: crops (3, H, W) uint8, LR crops if stored, and the header."""

    crops: tuple[np.ndarray, ...]
    meta: PackMeta
    lr: tuple[np.ndarray, ...] = ()

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
                names = range(len(meta.crops))
                crops = tuple(file.get_tensor(f"hr/{k:06d}") for k in names)
                lr: tuple[np.ndarray, ...] = ()
                if meta.lr_scale is not None:
                    lr = tuple(file.get_tensor(f"lr/{k:06d}") for k in names)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file.") from error
        except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: damaged pack ({error}); build it again."
            ) from error
        return cls(crops, meta, lr)


def write_pack(
    path: Path,
    crops: Sequence[np.ndarray],
    meta: PackMeta,
    lr: Sequence[np.ndarray] = (),
) -> None:
    """Write a pack under its name only when complete.

    Args:
        path: the file to write; replaced if there.
        crops: HR crops, (3, H, W) uint8, in the order of ``meta.crops``.
        meta: the header.
        lr: LR crops of the same order, when ``meta.lr_scale`` names their scale.
    """
    from safetensors.numpy import save_file

    tensors = {f"hr/{k:06d}": np.ascontiguousarray(c) for k, c in enumerate(crops)}
    tensors |= {f"lr/{k:06d}": np.ascontiguousarray(c) for k, c in enumerate(lr)}
    header = {"format": PACK_FORMAT, **asdict(meta)}
    partial = path.with_name(path.name + ".tmp")
    try:
        save_file(tensors, partial, metadata={_HEADER: json.dumps(header)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Batch:
    """Patches of one scale: hr (b, 3, H, W) and lr (b, 3, h, w), float32 in [0, 1]."""

    hr: Tensor
    lr: Tensor
    scale: Fraction

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return replace(self, hr=self.hr.to(device), lr=self.lr.to(device))


@dataclass(frozen=True)
class PatchPlan:
    """How batches are drawn.

    Attributes:
        lr_side: LR pixels of a patch side; less where a crop is too small for a scale.
        batch: patches per batch.
        scale_min: smallest scale.
        scale_max: largest scale.
        scale_power: density of the scale is proportional to scale ** power; with 1 the
            hard scales get more samples.
        tone: draw tone and contrast changes of the HR patch.
    """

    lr_side: int = 32
    batch: int = 6
    scale_min: float = 1.0
    scale_max: float = 4.0
    scale_power: float = 1.0
    tone: bool = False


class PatchSource:
    """Random batches from packs; batch k depends on the seed and k alone.

    Crops are grouped by size, and a batch draws from one group, chosen in proportion to
    its number of crops times `weights` (by metres per pixel), so patches stack.
    """

    def __init__(
        self,
        packs: Sequence[Pack],
        plan: PatchPlan,
        seed: int,
        weights: Mapping[float, float] | None = None,
    ) -> None:
        if not packs or not any(pack.crops for pack in packs):
            raise InputError("No crops to train on: the packs are empty.")
        self.plan = plan
        self.seed = seed
        self.groups = _group(packs, plan, weights or {})

    def batch(self, k: int) -> Batch:
        """Return batch `k`."""
        rng = np.random.default_rng([self.seed, k])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        share = np.array([group.weight for group in self.groups])
        group = self.groups[rng.choice(len(self.groups), p=share / share.sum())]
        side_hr, side_lr = self._sides(rng, group.side)
        chosen = rng.integers(len(group.crops), size=self.plan.batch)
        patches = [_cut(group.crops[c], side_hr, rng) for c in chosen]
        hr = torch.from_numpy(np.stack(patches)).float() / 255.0
        if self.plan.tone:
            hr = tone(hr, generator, ToneParams())
        return Batch(
            hr, group.degrade(hr, side_lr, generator), Fraction(side_hr, side_lr)
        )

    def _sides(self, rng: np.random.Generator, room: int) -> tuple[int, int]:
        """Draw the sides of the HR patch (a multiple of 8) and of the LR patch."""
        plan = self.plan
        low = plan.scale_min
        high = max(min(plan.scale_max, room / _SMALLEST_LR), low)
        power = plan.scale_power + 1.0
        u = rng.random()
        drawn = (low**power + u * (high**power - low**power)) ** (1.0 / power)
        side_lr = min(plan.lr_side, int(room / drawn))
        side_hr = max(8 * round(side_lr * drawn / 8), 8 * -(-side_lr // 8))
        side_hr = min(side_hr, room // 8 * 8, int(side_lr * high) // 8 * 8)
        return side_hr, min(side_lr, side_hr)


@dataclass(frozen=True)
class _Group:
    """Crops of one smaller side and one degradation."""

    side: int
    crops: tuple[np.ndarray, ...]
    weight: float
    degradation: str
    params: Sentinel2Params | None

    def degrade(self, hr: Tensor, side: int, generator: torch.Generator) -> Tensor:
        if self.params is None:
            return degrade_bicubic(hr, (side, side))
        return degrade_sentinel2(hr, (side, side), generator, self.params)


def _group(
    packs: Sequence[Pack], plan: PatchPlan, weights: Mapping[float, float]
) -> list[_Group]:
    groups = []
    for pack in packs:
        if pack.meta.degradation not in DEGRADATIONS:
            raise InputError(
                f"Unknown degradation '{pack.meta.degradation}' in a pack; known:"
                f" {', '.join(DEGRADATIONS)}."
            )
        params = (
            Sentinel2Params.from_json(pack.meta.parameters)
            if pack.meta.degradation == "sentinel2"
            else None
        )
        by_kind: dict[tuple[int, float], list[np.ndarray]] = {}
        for crop, origin in zip(pack.crops, pack.meta.crops, strict=True):
            by_kind.setdefault((min(crop.shape[1:]), origin.gsd_m), []).append(crop)
        for (side, gsd_m), crops in by_kind.items():
            weight = len(crops) * weights.get(gsd_m, 1.0)
            if side >= 2 * _SMALLEST_LR and weight > 0:
                groups.append(
                    _Group(side, tuple(crops), weight, pack.meta.degradation, params)
                )
    if not groups:
        raise InputError("No crop is large enough for a patch; build larger crops.")
    return groups


def _cut(crop: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a random square and flip, mirror and turn it, each with probability 1/2."""
    row = rng.integers(crop.shape[1] - side + 1)
    col = rng.integers(crop.shape[2] - side + 1)
    patch = crop[:, row : row + side, col : col + side]
    flip, mirror, turn = rng.random(3) < 0.5
    patch = patch[:, ::-1] if flip else patch
    patch = patch[:, :, ::-1] if mirror else patch
    return patch.transpose(0, 2, 1) if turn else patch


def _meta_from_json(header: Mapping[str, object]) -> PackMeta:
    values = dict(header)
    if values.pop("format", None) != PACK_FORMAT:
        raise KeyError("format number")
    crops = values.pop("crops")
    if not isinstance(crops, list):
        raise TypeError("crops is no list")
    return PackMeta(crops=tuple(CropOrigin(**c) for c in crops), **values)  # type: ignore[arg-type]  # wrong names raise TypeError
