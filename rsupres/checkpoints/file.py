"""Write and read one weight file: safetensors with a JSON header of ours.

The header holds format number, family, architecture, `ModelSpec` and origin, so a file
needs nothing beside it. Pickles are neither written nor read;
`rsupres.checkpoints.convert` brings foreign files in. Cards are in
`rsupres.checkpoints.catalogue`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rsupres.checkpoints.int8 import unpack_weights
from rsupres.errors import CheckpointError
from rsupres.families import FAMILIES
from rsupres.families.base import Checkpoint, FixedScales, ModelSpec, ScaleRange
from rsupres.output.tensors import write_tensors
from rsupres.raster.files import file_sha256

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

CHECKPOINT_FORMAT = 1
_HEADER = "rsupres"  # key of the header's JSON among the metadata


def write_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor],
    spec: ModelSpec,
    architecture: Mapping[str, object],
    origin: str,
) -> str:
    """Write a checkpoint, which appears only when complete; return its SHA-256.

    Args:
        path: the file.
        tensors: weights by name, in the type to store.
        spec: what the model needs.
        architecture: the family's configuration as JSON values.
        origin: who made the weights from which data, one line.

    Raises:
        InputError: the folder is missing or cannot be written.
        ResourceError: the disk is full.
    """
    header = {
        "format": CHECKPOINT_FORMAT,
        "architecture": architecture,
        "spec": spec_to_json(spec),
        "origin": origin,
    }
    write_tensors(path, tensors, {_HEADER: json.dumps(header, sort_keys=True)})
    return file_sha256(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint with all its weights.

    Raises:
        CheckpointError: missing, damaged, a pickle, or not a checkpoint of rsupres.
    """
    from safetensors import SafetensorError, safe_open

    header = _read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            stored = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({error}).") from error
    architecture = header["architecture"]
    assert isinstance(architecture, dict)
    tensors = unpack_weights(stored)
    return Checkpoint(path, _spec_of(header, path), architecture, tensors)


def read_part(path: Path, prefix: str) -> dict[str, np.ndarray]:
    """Return the tensors whose names begin with a prefix, without it, as arrays.

    Args:
        path: of a checkpoint.
        prefix: that the names begin with.

    Raises:
        CheckpointError: missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = [k for k in file.keys() if k.startswith(prefix)]  # noqa: SIM118
            return {k.removeprefix(prefix): file.get_tensor(k) for k in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({error}).") from error


def read_spec(path: Path) -> ModelSpec:
    """Return the `ModelSpec` of a checkpoint without reading its weights.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    return _spec_of(_read_header(path), path)


def spec_to_json(spec: ModelSpec) -> dict[str, object]:
    """Return a spec as plain JSON values."""
    scales: dict[str, object]
    if isinstance(spec.scales, FixedScales):
        scales = {"fixed": sorted(map(str, spec.scales.values))}
    else:
        limits = spec.scales
        scales = {k: str(getattr(limits, k)) for k in ("low", "high", "trained")}
    return {
        "family": spec.family,
        "scales": scales,
        "bands": list(spec.bands),
        "needs": sorted(spec.needs),
        "accepts": sorted(spec.accepts),
        "tile_size": spec.tile_size,
        "multiple": spec.multiple,
        "halo": spec.halo,
        "exact": spec.exact,
        "gsd": None if spec.gsd is None else list(spec.gsd),
        "detail": spec.detail,
        "stochastic": spec.stochastic,
        "steps": spec.steps,
        "legend": spec.legend,
        "classes": spec.classes,
        "sensor": spec.sensor,
        "unclipped": spec.unclipped,
        "tails": list(spec.tails),
    }


def spec_from_json(values: Mapping[str, object]) -> ModelSpec:
    """Return the spec that `spec_to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: a value is missing or wrong.
    """
    plain = dict(values)
    scales = cast(Mapping[str, object], plain.pop("scales"))
    limits: FixedScales | ScaleRange
    if "fixed" in scales:
        fixed = cast(Sequence[str], scales["fixed"])
        limits = FixedScales(frozenset(Fraction(text) for text in fixed))
    else:
        limits = ScaleRange(
            *(Fraction(str(scales[k])) for k in ("low", "high", "trained"))
        )
    gsd = cast("Sequence[float] | None", plain.pop("gsd", None))
    needs, accepts = (
        frozenset(cast(Sequence[str], plain.pop(key))) for key in ("needs", "accepts")
    )
    bands = tuple(cast(Sequence[str], plain.pop("bands")))
    tails = cast(Sequence[float], plain.pop("tails", ()))
    return ModelSpec(
        scales=limits,
        bands=bands,
        gsd=None if gsd is None else (float(gsd[0]), float(gsd[1])),
        needs=needs,
        accepts=accepts,
        tails=tuple(float(value) for value in tails),
        **plain,  # type: ignore[arg-type]  # the file's own header, checked by callers
    )


def _read_header(path: Path) -> dict[str, object]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_HEADER)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint.") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {_damage(path)} ({error}).") from error
    if text is None:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a checkpoint of rsupres; convert it"
            " with 'rsupres models import'."
        )
    try:
        header = json.loads(text)
        if header["format"] != CHECKPOINT_FORMAT:
            raise CheckpointError(
                f"{path}: checkpoint format {header['format']}; this version reads"
                f" {CHECKPOINT_FORMAT}. Update rsupres."
            )
        return {key: header[key] for key in ("architecture", "spec", "origin")}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged header ({error}).") from error


def _spec_of(header: Mapping[str, object], path: Path) -> ModelSpec:
    try:
        spec = spec_from_json(cast(Mapping[str, object], header["spec"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged header ({error}).") from error
    if spec.family not in FAMILIES:
        raise CheckpointError(
            f"{path}: its family '{spec.family}' is unknown to this version;"
            f" known: {', '.join(sorted(FAMILIES))}."
        )
    return spec


def _damage(path: Path) -> str:
    """Return the fault of a file that is not safetensors, in words."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80" or start == b"PK\x03\x04":
        return (
            "a pickle or PyTorch archive, which can run code when loaded and is not"
            " accepted here; convert it with 'rsupres models import'"
        )
    return "not a readable checkpoint, damaged or cut short"
