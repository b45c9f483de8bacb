"""Convert Ref-Diff's released checkpoints: names, architecture and class table.

Parameters keep their released names but for the leading ``model.``; the constant
filters of the resampling convolutions are checked and dropped. The architecture is read
off the names and shapes alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from rsupres.checkpoints.convert import Converted
from rsupres.checkpoints.convert.modules import read_module_tensors
from rsupres.checkpoints.convert.reading import read_tensors
from rsupres.errors import CheckpointError, InputError
from rsupres.families.refdiff.config import RELEASED, RefDiffConfig
from rsupres.families.refdiff.network import parameter_shapes
from rsupres.families.refdiff.resolver import make_spec
from rsupres.families.storage import config_to_json

OPTIONS = {
    "scale": "scale that the weights were trained for: 8 (default) or 16",
    "classes": "class table of its change masks, such as second or cnam-cd; without"
    " it the model accepts no change mask, because the released values are not"
    " published and a wrong table shifts every condition",
    "network": "ema (default, what the authors sample with) or net",
}
_SCALES = ("8", "16")
_NETWORKS = ("ema", "net")
# The authors' own classes that their persistence does not wrap.
_CLASSES = frozenset({"UNetBlock_Ref", "SFTLayer"})
_HALO = 8  # LR pixels; the network sees its whole tile, see `families.refdiff`
_LICENCE = (
    "none stated; the code's EDM parts are CC BY-NC-SA 4.0 (NVIDIA): assume"
    " non-commercial, no redistribution"
)
_FILTER = ".resample_filter"
_LEVEL = re.compile(r"(enc|dec)\.(\d+)x\d+_(conv|block\d+|down|up|in0)\.")


def convert(sources: Sequence[Path], options: Mapping[str, str]) -> Converted:
    """Return weights of a training state, ``SECOND_X8.pt``, ``.pkl`` or safetensors.

    Raises:
        CheckpointError: damaged, unsafe or another network; missing and surplus tensors
            are named.
        InputError: more than one file, or a value of an option that does not fit.
    """
    if len(sources) != 1:
        raise InputError(f"Ref-Diff is one file, not {len(sources)}.")
    path = sources[0]
    scale = _choice("scale", options, _SCALES)
    part = _choice("network", options, _NETWORKS)
    try:
        tensors = own_names(_read(path, part))
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        config = config_of(shapes)
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(
            text if text.startswith(str(path)) else f"{path}: {text}"
        ) from error
    from rsupres.families.storage import fit_tensors

    fit_tensors(tensors, parameter_shapes(config), path)
    spec = make_spec(
        config,
        scales=frozenset({Fraction(scale)}),
        gsd=None,
        halo=_HALO,
        classes=options.get("classes"),
    )
    architecture = config_to_json(config)
    origin = f"Ref-Diff (Dong et al. 2024), '{part}' of {path.name}"
    return Converted(tensors, spec, architecture, origin, _LICENCE)


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters under our names, without the constant filters.

    Raises:
        CheckpointError: a filter is not the 2x2 mean that our network computes.
    """
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(_FILTER):
            if tuple(tensor.shape[-2:]) != (2, 2) or not torch.all(tensor == 0.25):
                raise CheckpointError(
                    f"tensor '{name}' is no 2x2 mean; this is not Ref-Diff's U-Net."
                )
            continue
        found[name.removeprefix("model.")] = tensor
    return found


def config_of(shapes: Mapping[str, Sequence[int]]) -> RefDiffConfig:
    """Return the architecture that parameters of these names and shapes belong to.

    Attention resolutions are those of levels whose encoder blocks hold attention.

    Raises:
        CheckpointError: a tensor that shows the architecture is missing.
    """
    found = [match for name in shapes if (match := _LEVEL.match(name))]
    sides = sorted({int(match[2]) for match in found}, reverse=True)
    try:
        channels = int(shapes["map_layer0.weight"][1])
        head = {side: f"enc.{side}x{side}_" for side in sides}
        blocks = 0
        while f"{head[sides[0]]}block{blocks}.conv0.weight" in shapes:
            blocks += 1
        return replace(
            RELEASED,
            nominal=sides[0],
            channels=channels,
            mult=tuple(
                shapes[f"{head[side]}block0.conv0.weight"][0] // channels
                for side in sides
            ),
            blocks=blocks,
            attention=tuple(
                side for side in sides if f"{head[side]}block0.qkv.weight" in shapes
            ),
            middle_attention=f"dec.{sides[-1]}x{sides[-1]}_in0.qkv.weight" in shapes,
            sft_width=int(
                shapes[f"dec.{sides[-1]}x{sides[-1]}_in0.sft0.mul_conv1.weight"][0]
            ),
        )
    except (KeyError, IndexError) as error:
        raise CheckpointError(
            f"these are not the tensors of Ref-Diff's U-Net ({error} is missing)."
        ) from error


def _read(path: Path, part: str) -> dict[str, Tensor]:
    """Read plain tensors, or a pickled module without running it."""
    with open(path, "rb") as file:
        start = file.read(9)
    if start[:4] != b"PK\x03\x04" and start[:1] != b"\x80":
        return read_tensors(path)
    return read_module_tensors(path, part, _CLASSES)


def _choice(key: str, options: Mapping[str, str], known: Sequence[str]) -> str:
    value = options.get(key, known[0])
    if value not in known:
        raise InputError(
            f"{key}={value}: known: {', '.join(known)}.", argument="settings"
        )
    return value
