"""Define `UpscaleJob`, one request to upscale a scene, and store it as JSON.

A job is plain values: it can be sent to another process and compared. Nothing here
opens a raster or loads a model; `rsupres.upscaling.preparation.work` decides what the
values mean for one scene and one model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from rsupres.companions.request import Companions
from rsupres.conditions.base import CONDITIONS, FILE, GivenConditions, given_files
from rsupres.errors import ArgumentError, RunConflictError
from rsupres.output.strips import Destination

MaskAction = Literal["nodata", "keep-bicubic"]
OtherBands = Literal["auto", "model", "cubic", "inject", "skip"]

# Metadata of a field that decides no pixel: a run continues with another value of it.
FREE: Mapping[str, bool] = {"is_free": True}


@dataclass(frozen=True, kw_only=True)
class UpscaleJob(GivenConditions, Destination):
    """One scene to upscale, with every option of `rsupres upscale`.

    The fields that are not listed are options, which
    `rsupres.upscaling.request.UpscaleOptions` explains.

    Attributes:
        scenes: what to open: one raster, or several that make one.
        scale: SR pixels along one LR pixel.
        named_bands: (role, file band) pairs, the option `bands`.
        interval: share of the errors that lie between the two rasters below.
        interval_low: file for the lower limit, None = it is not written.
        interval_high: file for the upper limit.
        store: GDAL's name of the object that the output becomes when it is done, such
            as /vsis3/bucket/out.tif; None = it stays a file.
    """

    remedies_where_one_exists: ClassVar[tuple[str, ...]] = (
        "overwrite",
        "skip_existing",
        "update",
    )

    scenes: tuple[str, ...] = field(metadata=FILE)
    scale: Fraction = Fraction(4)
    model: str | None = field(default=None, metadata=FREE)
    bidx: tuple[int, ...] | None = None
    named_bands: tuple[tuple[str, int], ...] | None = None
    other_bands: OtherBands = "auto"
    bands_out: str | None = None
    dn_scale: float | None = None
    dn_offset: float | None = None
    mask: str | None = field(default=None, metadata=FILE)
    mask_classes: tuple[str, ...] | None = None
    mask_action: MaskAction = "nodata"
    stretch: str = "auto"
    input_nodata: float | None = None
    bounds: tuple[float, float, float, float] | None = None
    bounds_crs: str | None = None
    aoi: str | None = field(default=None, metadata=FILE)
    seed: int = 0
    steps: int | None = None
    samples: int = 1
    uncertainty: Path | None = field(default=None, metadata=FREE)
    interval: float | None = field(default=None, metadata=FREE)
    interval_low: Path | None = field(default=None, metadata=FREE)
    interval_high: Path | None = field(default=None, metadata=FREE)
    detail: float | None = None
    sensor_mtf: float | None = None
    noise: float | None = None
    lock_low_frequencies: bool = False
    tile_size: int | None = None
    overlap: int | None = None
    batch_size: int | None = field(default=None, metadata=FREE)
    device: str = field(default="auto", metadata=FREE)
    precision: str = "auto"
    shard: tuple[int, int] | None = field(default=None, metadata=FREE)
    dtype: str | None = None
    nodata: float | None = None
    skip_existing: bool = field(default=False, metadata=FREE)
    update: bool = field(default=False, metadata=FREE)
    fail_if: tuple[str, ...] = field(default=(), metadata=FREE)
    reference_coverage: Path | None = field(default=None, metadata=FREE)
    stac: bool = field(default=False, metadata=FREE)
    rgb8: Path | None = field(default=None, metadata=FREE)
    qml: bool = field(default=False, metadata=FREE)
    style_sample: bool = False
    sampler: str | None = None
    store: str | None = field(default=None, metadata=FREE)

    @property
    def outputs(self) -> Mapping[str, Path]:
        """Files that the job writes, by the field that names each."""
        more = {
            "uncertainty": self.uncertainty,
            "interval_low": self.interval_low,
            "interval_high": self.interval_high,
            "reference_coverage": self.reference_coverage,
        }
        given = {name: path for name, path in more.items() if path is not None}
        return {**super().outputs, **given}

    @property
    def companions(self) -> Companions:
        """Files that are made of the output when it is there."""
        return Companions(
            self.output, self.scenes, self.stac, self.rgb8, self.qml, self.overwrite
        )

    def check_before(self, *, is_kept: bool) -> None:
        """Check the names and places of everything that is written, before the work.

        Args:
            is_kept: the output is there and may stay as it is; then its folder need
                not take files.

        Raises:
            RsupresError: as `check_files` and `Companions.check`.
        """
        if self.store is not None:
            self.check_store()
        elif is_kept:
            self.check_names()
        else:
            self.check_files()
        self.companions.check(self.outputs, self.inputs, is_kept=is_kept)

    def check_vacant(self) -> None:
        """Check that no output exists, as `Destination` does; objects are asked before.

        Raises:
            RunConflictError: one exists and may not be replaced.
        """
        if self.store is None:
            super().check_vacant()

    @property
    def may_replace(self) -> bool:
        """Whether an output that exists may be replaced."""
        return self.overwrite or self.update

    @property
    def compares(self) -> bool:
        """Whether an output that exists is compared with the job.

        A shard that begins late finds the output that the others made.
        """
        is_late = self.shard is not None
        return (self.skip_existing or self.update or is_late) and not self.overwrite

    @property
    def inputs(self) -> Mapping[str, Sequence[str]]:
        """Names of the files that are read, by the field that names them."""
        model = () if self.model is None else (self.model,)
        return {
            "scenes": self.scenes,
            "model": [name for name in model if os.path.isfile(name)],
            "aoi": () if self.aoi is None else (self.aoi,),
            "mask": () if self.mask is None else (self.mask,),
            **given_files(self),
        }

    @property
    def given_conditions(self) -> frozenset[str]:
        """Names of the conditions that the model is given; a drawn style counts."""
        given = {name for name in CONDITIONS if getattr(self, name)}
        return frozenset(given | ({"style"} if self.style_sample else set()))

    def check_store(self) -> Mapping[str, str] | None:
        """Return the tags of the object that the output is to become, None = it is new.

        Raises:
            ArgumentError: the job asks for files beside the output.
            ResourceError: the store does not answer.
            RunConflictError: the object is there and may not be replaced.
        """
        from rsupres.output.store import stored_tags

        assert self.store is not None
        if self.stac or self.qml:
            raise ArgumentError(
                f"{self.store}: files beside an output are written to local folders; "
                "write the output to one, and copy all of them.",
                argument="stac" if self.stac else "qml",
            )
        tags = stored_tags(self.store)
        if tags is not None and not (self.compares or self.overwrite):
            raise RunConflictError(
                f"{self.store} exists.", remedies=self.remedies_where_one_exists
            )
        return tags

    def to_json(self) -> dict[str, object]:
        """Return plain values for `from_json`; paths become absolute."""
        plain = {
            _key(item): _to_plain(getattr(self, item.name), "is_file" in item.metadata)
            for item in fields(self)
        }
        # JSON has neither NaN nor infinity.
        return plain | {
            name: None if plain[name] is None else repr(plain[name])
            for name in _NUMBERS_AS_TEXT
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> UpscaleJob:
        """Return the job that `to_json` stored."""
        names = {key: name for name, key in _STORED_AS.items()}
        values = {names.get(key, key): _to_tuple(stored[key]) for key in stored}
        paths = ("uncertainty", "interval_low", "interval_high", "reference_coverage")
        for key in ("output", "run_dir", "rgb8", *paths):
            text = values.get(key)
            values[key] = None if text is None else Path(cast(str, text))
        values["scale"] = Fraction(cast(str, values["scale"]))
        for name in _NUMBERS_AS_TEXT:
            text = values.get(name)
            values[name] = None if text is None else float(cast(str, text))
        return cls(**values)  # type: ignore[arg-type]  # the run's own record

    def identity(self) -> dict[str, object]:
        """Return the options that decide pixels: equal in all calls of one run.

        Left out are where and how the output is stored, fields marked `FREE`, and names
        of files (`rsupres.upscaling.preparation.work` adds what the files hold). Of the
        outputs beside the main one it counts which are written.
        """
        free = {_key(item) for item in fields(Destination)}
        free |= {_key(item) for item in fields(self) if item.metadata}
        chosen = {k: v for k, v in self.to_json().items() if k not in free}
        if self.interval is not None:
            chosen["interval"] = self.interval
        return chosen | {
            "uncertainty": self.uncertainty is not None,
            "coverage": self.reference_coverage is not None,
        }


_NUMBERS_AS_TEXT = ("nodata", "input_nodata")

# Fields under the names that runs store, so that runs of earlier versions continue.
_STORED_AS = {"class_table": "change_classes", "class_attribute": "change_attribute"}


def _key(item: Field[Any]) -> str:
    """Return the name under which runs store a field."""
    return _STORED_AS.get(item.name, item.name)


def _to_plain(value: object, is_file: bool) -> object:
    """Return a value as JSON holds it; names of local files become absolute."""
    if isinstance(value, tuple) and is_file:
        return [_to_plain(item, is_file) for item in value]
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, str) and is_file:
        # Names that only GDAL understands stay as they are.
        return str(Path(value).absolute()) if os.path.exists(value) else value
    if isinstance(value, Fraction):
        return str(value)
    return value


def _to_tuple(value: object) -> object:
    """Return a value of JSON with tuples in place of lists."""
    if isinstance(value, list):
        return tuple(_to_tuple(item) for item in value)
    return value
