"""Convert SlimDiffSR's released weights, ``net_params_4x.pkl``, ``net_params_8x.pkl``.

A bare state dict, with or without ``module.`` before every name. The 12 tensors that
nothing reads may be there or not; they are dropped. The file does not say its scale:
it is taken from the name (``_4x``, ``_8x``) or from the option ``scale``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rsupres.checkpoints.convert import Converted
from rsupres.checkpoints.convert.reading import read_tensors
from rsupres.errors import CheckpointError, InputError
from rsupres.families.slimdiffsr.config import SlimDiffSRConfig, TrunkConfig
from rsupres.families.slimdiffsr.network import DEAD, SlimDiffSRNetwork
from rsupres.families.slimdiffsr.resolver import architecture_to_json, make_spec
from rsupres.families.storage import fit_tensors, shapes_of

OPTIONS = {"scale": "whole factor that the weights are for, 4 or 8"}
_ORIGIN = "SlimDiffSR (arXiv 2605.02198), weights of its authors, converted from {name}"
_MAX_SCALE = 16


def convert(sources: Sequence[Path], options: Mapping[str, str]) -> Converted:
    """Return the student's weights in our form.

    Raises:
        CheckpointError: not one file, or tensors that are missing, surplus or of other
            shapes; they are named.
        InputError: no scale, or one that cannot be.
    """
    if len(sources) != 1:
        names = ", ".join(str(path) for path in sources)
        raise CheckpointError(f"{names}: SlimDiffSR's weights are one file a scale.")
    path = sources[0]
    scale = _scale(options.get("scale"), path)
    stored = read_tensors(path).items()
    tensors = {name: one for name, one in stored if not name.startswith(DEAD)}
    config = config_of(tensors, scale, path)
    with torch.device("meta"):
        wanted = shapes_of(SlimDiffSRNetwork(config))
    fit_tensors(tensors, wanted, path)
    return Converted(
        {name: tensor.float() for name, tensor in tensors.items()},
        make_spec(config, gsd=None),
        architecture_to_json(config),
        _ORIGIN.format(name=path.name),
    )


def config_of(
    tensors: Mapping[str, Tensor], scale: int, path: Path
) -> SlimDiffSRConfig:
    """Return a configuration with the widths read off a student's tensors.

    Args:
        tensors: by released name.
        scale: of the student.
        path: of the file, for messages.

    Raises:
        CheckpointError: the tensors that show the architecture are missing.
    """
    first = "unet.down_blocks.{}.resnets.0.conv1.bottleneck.2.weight"
    query = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1."
    try:
        upper, lower = (len(tensors[first.format(k)]) for k in (0, 1))
        trunk = TrunkConfig(
            (upper, lower),
            len(tensors["unet.mid_block.mid_block.conv1.bottleneck.2.weight"]),
            sum(
                re.fullmatch(r"unet\.down_blocks\.0\.resnets\.\d+\.norm1\.bias", name)
                is not None
                for name in tensors
            ),
            len(tensors[f"{query}query"]),
            len(tensors[f"{query}q_proj.weight"]),
        )
        return SlimDiffSRConfig(scale, trunk, len(tensors["merge_conv2.weight"]))
    except KeyError as error:
        raise CheckpointError(
            f"{path}: no weights of SlimDiffSR's student; tensor {error} is missing."
        ) from error


def _scale(given: str | None, path: Path) -> int:
    found = re.search(r"_(\d+)x", path.stem)
    text = given or (found[1] if found else None)
    if text is None:
        raise InputError(
            f"{path}: the file does not say its scale; set it to 4 or 8.",
            remedies=("settings=scale=4", "settings=scale=8"),
        )
    if not text.isdecimal() or not 1 < int(text) <= _MAX_SCALE:
        raise InputError(f"{path}: scale={text} is no whole factor from 2 to 16.")
    return int(text)
