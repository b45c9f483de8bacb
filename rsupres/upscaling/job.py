"""What a user asks for: one `UpscaleJob`, and whether its output may be written.

A job is plain values: it can be stored as JSON, sent to another process and compared.
Nothing here opens a raster or loads a model; what the options mean for one scene and
one model is decided in `rsupres.upscaling.work`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

from rsupres.conditions.base import GivenConditions, _untuple
from rsupres.errors import InputError, RunConflictError
from rsupres.output.atomic import check_writable

OtherBands = Literal["skip", "cubic", "inject"]

# Options that do not change the picture's pixels; another value continues the same run.
_NOT_IDENTITY = frozenset(
    {
        "scenes",
        "output",
        "model",
        "aoi",
        "uncertainty",
        "reference_coverage",
        "batch_size",
        "device",
        "shard",
        "driver",
        "creation",
        "overwrite",
        "skip_existing",
        "run_dir",
        "keep_run",
        "fail_if",
        # Files: what they hold is in the run's identity, wherever they lie.
        "vector_map",
        "legend",
        "reference",
        "change_mask",
        "change_classes",
        "style",
    }
)

# Fields under the names that runs store, so that runs of earlier versions continue.
_STORED = {"class_table": "change_classes", "class_attribute": "change_attribute"}


@dataclass(frozen=True)
class UpscaleJob(GivenConditions):
    """One scene to upscale, with every option of `rsupres upscale`.

    Attributes:
        scenes: what to open: one raster, or several that make one.
        output: the file to write.
        scale: SR pixels along one LR pixel.
        model: card's name or checkpoint file, None = the default that fits.
        bidx: file bands (from 1) for the model's roles, in its order.
        named_bands: (role, file band) pairs.
        other_bands: what becomes of bands that the model does not take.
        stretch: text for `rsupres.raster.stretch.parse_stretch`.
        bounds: west, south, east, north; None = all.
        bounds_crs: CRS of `bounds`, None = the scene's.
        aoi: vector file; pixels outside its polygons become invalid.
        seed: of the noise.
        steps: network evaluations a tile, None = the model's.
        samples: how many pictures are drawn and averaged.
        uncertainty: where the standard deviation goes, None = nowhere.
        detail: 0 faithful to 1 natural, None = 0.
        lock_low_frequencies: make the result downscale back to the input.
        tile_size: LR pixels, None = the model's.
        overlap: LR pixels, None = by the model's halo.
        batch_size: tiles in one call, None = by device.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, fp32, bf16 or fp16.
        shard: (I, N), None = everything.
        driver: COG or GTiff.
        creation: creation options of the driver.
        dtype: numpy name, None = the scene's.
        nodata: None = the scene's.
        overwrite: replace an output that exists.
        skip_existing: do nothing when the output exists.
        run_dir: None = the output's name with `.run`.
        keep_run: keep the run directory after success.
        fail_if: quality gates, for `rsupres.upscaling.gates.parse_gate`.
        reference_coverage: where a raster of what the reference covers goes.
        style_sample: draw a style.
        sampler: name of a sampler that the model offers, None = the model's.
    """

    scenes: tuple[str, ...]
    output: Path
    scale: Fraction = Fraction(4)
    model: str | None = None
    bidx: tuple[int, ...] | None = None
    named_bands: tuple[tuple[str, int], ...] | None = None
    other_bands: OtherBands = "cubic"
    stretch: str = "auto"
    bounds: tuple[float, float, float, float] | None = None
    bounds_crs: str | None = None
    aoi: str | None = None
    seed: int = 0
    steps: int | None = None
    samples: int = 1
    uncertainty: Path | None = None
    detail: float | None = None
    lock_low_frequencies: bool = False
    tile_size: int | None = None
    overlap: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    shard: tuple[int, int] | None = None
    driver: str = "COG"
    creation: tuple[tuple[str, str], ...] = ()
    dtype: str | None = None
    nodata: float | None = None
    overwrite: bool = False
    skip_existing: bool = False
    run_dir: Path | None = None
    keep_run: bool = False
    fail_if: tuple[str, ...] = ()
    reference_coverage: Path | None = None
    style_sample: bool = False
    sampler: str | None = None

    @property
    def outputs(self) -> Mapping[str, Path]:
        """Files that the job writes, by what names them."""
        named = {
            "output": self.output,
            "--uncertainty": self.uncertainty,
            "--reference-coverage": self.reference_coverage,
        }
        return {name: path for name, path in named.items() if path is not None}

    @property
    def run_path(self) -> Path:
        """Where the unfinished run lives."""
        return self.run_dir or self.output.with_name(self.output.name + ".run")

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` reads back exactly; paths become absolute."""
        plain: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Path):
                value = str(value.absolute())
            elif isinstance(value, Fraction):
                value = str(value)
            plain[field.name] = value
        plain["scenes"] = [_absolute(name) for name in self.scenes]
        for key in ("vector_map", "reference"):
            plain[key] = [_absolute(name) for name in getattr(self, key)]
        for key in ("aoi", "legend", "change_mask", "class_table", "style"):
            name = getattr(self, key)
            plain[key] = None if name is None else _absolute(name)
        plain["nodata"] = None if self.nodata is None else repr(self.nodata)
        return {_STORED.get(name, name): value for name, value in plain.items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> UpscaleJob:
        """Return the job that `to_json` stored."""
        names = {key: name for name, key in _STORED.items()}
        values = {names.get(key, key): _untuple(stored[key]) for key in stored}
        for key in ("output", "uncertainty", "reference_coverage", "run_dir"):
            text = values.get(key)
            values[key] = None if text is None else Path(cast(str, text))
        values["scale"] = Fraction(cast(str, values["scale"]))
        nodata = values["nodata"]
        values["nodata"] = None if nodata is None else float(cast(str, nodata))
        return cls(**values)  # type: ignore[arg-type]  # the run's own record

    def identity(self) -> dict[str, object]:
        """Return the options that decide the picture; they must agree on resume."""
        chosen = {k: v for k, v in self.to_json().items() if k not in _NOT_IDENTITY}
        beside = {"uncertainty": self.uncertainty, "coverage": self.reference_coverage}
        return chosen | {name: path is not None for name, path in beside.items()}

    def for_output(self, output: Path) -> UpscaleJob:
        """Return the same job with another output; the run stays where it is."""
        return replace(self, output=output, run_dir=self.run_path)


def check_outputs(job: UpscaleJob) -> None:
    """Check that all files that a job writes can be made, and are different ones.

    Raises:
        InputError: as `check_writable`, or two are the same file.
    """
    seen: dict[Path, str] = {}
    for option, path in job.outputs.items():
        check_writable(path, option)
        other = seen.setdefault(path.absolute(), option)
        if other != option:
            raise InputError(f"{option} and the {other} are the same file, {path}.")


def check_vacant(job: UpscaleJob) -> None:
    """Check that nothing would be overwritten unasked.

    Raises:
        RunConflictError: an output exists, without `overwrite`.
    """
    for path in job.outputs.values():
        if path.exists() and not job.overwrite:
            raise RunConflictError(
                f"{path} exists; give --overwrite to replace it or --skip-existing to "
                "leave it."
            )


def _absolute(name: str) -> str:
    """Return a local path absolute; names that only GDAL understands as they are."""
    return str(Path(name).absolute()) if os.path.exists(name) else name
