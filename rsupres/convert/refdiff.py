"""Ref-Diff's released checkpoints: names, architecture and class table.

Parameters keep their released names but for the leading ``model.``; the constant
filters of the resampling convolutions are checked and dropped. The architecture is read
off the names and shapes alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rsupres.errors import CheckpointError
from rsupres.families.refdiff_network import RELEASED, RefDiffConfig

_FILTER = ".resample_filter"
_LEVEL = re.compile(r"(enc|dec)\.(\d+)x\d+_(conv|block\d+|down|up|in0)\.")


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
        CheckpointError: a tensor that tells the architecture is missing.
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
