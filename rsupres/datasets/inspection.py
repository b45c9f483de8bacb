"""Check packs and report their contents: crops, LR, places, repeats between splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from rsupres.datasets.chips import Pixels
from rsupres.datasets.packs import MIN_SIDE, STORED, CropOrigin, Pack, to_floats
from rsupres.datasets.splits import TRAIN, VALIDATION
from rsupres.degradations.registry import make_degradation
from rsupres.errors import InputError


@dataclass(frozen=True)
class PackReport:
    """Contents of a pack, one row of a table.

    Attributes:
        path: the pack.
        split: "train" or "validation".
        n_crops: number of HR crops.
        n_bytes: size of the HR crops.
        places: number of places.
        by_gsd: number of crops by metres per pixel.
        sides: smallest and largest side of a crop, HR pixels.
        repeats: number of crops with the pixels of an earlier crop of the pack.
        mean: mean value of all bands, 0..255 (16 bits are brought to that range).
        layers: names of the layers of every crop.
    """

    path: str
    split: str
    n_crops: int
    n_bytes: int
    places: int
    by_gsd: Mapping[float, int]
    sides: tuple[int, int]
    repeats: int
    mean: float
    layers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "pack": self.path,
            "split": self.split,
            "crops": self.n_crops,
            "bytes": self.n_bytes,
            "places": self.places,
            "by_gsd": {f"{gsd:g}": n for gsd, n in self.by_gsd.items()},
            "sides": list(self.sides),
            "repeats": self.repeats,
            "mean": round(self.mean, 3),
            "layers": list(self.layers),
        }


def _inspect_pack(path: Path) -> tuple[PackReport, frozenset[str], frozenset[str]]:
    """Return the report of a checked pack, its places, and hashes of its crops."""
    pack = Pack.load(path)
    if pack.meta.split not in (TRAIN, VALIDATION) or not pack.crops:
        raise InputError(f"{path}: split {pack.meta.split!r}, {len(pack.crops)} crops.")
    if pack.meta.degradation != STORED:
        make_degradation(pack.meta.degradation, pack.meta.parameters)
    hashes: set[str] = set()
    by_gsd: dict[float, int] = {}
    for crop, origin in zip(pack.crops, pack.meta.crops, strict=True):
        _check_crop(path, crop, origin)
        by_gsd[origin.gsd_m] = by_gsd.get(origin.gsd_m, 0) + 1
        hashes.add(_digest(crop))
    _check_lr(path, pack)
    places = frozenset(origin.place for origin in pack.meta.crops)
    sides = [side for crop in pack.crops for side in crop.shape[1:]]
    n_bytes = sum(crop.nbytes for crop in pack.crops)
    total = sum(float(to_floats(crop).sum(dtype=np.float64)) for crop in pack.crops)
    report = PackReport(
        path=str(path),
        split=pack.meta.split,
        n_crops=len(pack.crops),
        n_bytes=n_bytes,
        places=len(places),
        by_gsd=dict(sorted(by_gsd.items())),
        sides=(min(sides), max(sides)),
        repeats=len(pack.crops) - len(hashes),
        mean=255 * total / sum(crop.size for crop in pack.crops),
        layers=pack.meta.layers,
    )
    return report, places, frozenset(hashes)


def check_packs(paths: Sequence[Path]) -> list[PackReport]:
    """Check each pack, and training packs against validation packs.

    Raises:
        InputError: see `inspect_pack`; or a place or a crop is in both splits.
    """
    reports: list[PackReport] = []
    seen: list[tuple[PackReport, frozenset[str], frozenset[str]]] = []
    for path in paths:
        report, places, hashes = _inspect_pack(path)
        for other, other_places, other_hashes in seen:
            if other.split == report.split:
                continue
            if shared := sorted(places & other_places):
                raise InputError(
                    f"{path} and {other.path}: place {shared[0]!r} is in both splits "
                    f"({len(shared)} places are)."
                )
            if hashes & other_hashes:
                raise InputError(
                    f"{path} and {other.path}: {len(hashes & other_hashes)} crops are "
                    "in both splits."
                )
        seen.append((report, places, hashes))
        reports.append(report)
    return reports


def _digest(crop: Pixels) -> str:
    head = repr(crop.shape).encode()
    return hashlib.sha256(head + np.ascontiguousarray(crop).tobytes()).hexdigest()


def _check_crop(path: Path, crop: np.ndarray, origin: CropOrigin) -> None:
    problem = ""
    if crop.dtype not in (np.uint8, np.uint16) or crop.ndim != 3 or crop.shape[0] != 3:
        problem = f"is {crop.dtype} {crop.shape}, not uint8 or uint16 (3, H, W)"
    elif min(crop.shape[1:]) < MIN_SIDE:
        problem = f"has {crop.shape[2]} x {crop.shape[1]} pixels, too few for a patch"
    elif (crop == crop[:, :1, :1]).all():
        problem = "has one single colour"
    elif not origin.place:
        problem = "names no place"
    if problem:
        raise InputError(f"{path}: crop {origin.source} {problem}.")


def _check_lr(path: Path, pack: Pack) -> None:
    if pack.meta.lr_scale is None:
        return
    scale = Fraction(pack.meta.lr_scale)
    for crop, lr, origin in zip(pack.crops, pack.lr, pack.meta.crops, strict=True):
        size = [side * scale for side in lr.shape[1:]]
        hr_mean, lr_mean = (255.0 * to_floats(x).mean((1, 2)) for x in (crop, lr))
        far = 255 if pack.meta.degradation == STORED else 8  # sensors differ in tone
        if size != list(crop.shape[1:]) or np.abs(hr_mean - lr_mean).max() > far:
            raise InputError(
                f"{path}: the LR crop of {origin.source} does not fit its HR crop at "
                f"scale {scale}."
            )
