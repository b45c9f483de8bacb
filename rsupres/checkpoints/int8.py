"""Store weights in 8 bits, half the size of float16, and read them back.

Symmetric rounding with one step per output channel (Krishnamoorthi 2018, section 2.1.2,
weights only): a tensor becomes int8 under its own name, and its steps stand beside it
as ``<name>::step``. Small tensors and whole numbers stay as they are, and networks
never see 8 bits: they are undone where a file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_STEP = "::step"
_MAX_CODE = 127
_MIN_TENSOR = 1024  # elements; below, the steps are not worth it


def pack_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by name, weights of two and more dimensions in 8 bits.

    Each weight, output channels first, moves by at most half a step: 1/254 of the
    largest of its channel.
    """
    import torch

    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        packed[name] = tensor
        if (
            tensor.is_floating_point()
            and tensor.ndim > 1
            and tensor.numel() >= _MIN_TENSOR
        ):
            weight = tensor.float()
            step = weight.flatten(1).abs().amax(dim=1).clamp_min(1e-12) / _MAX_CODE
            shaped = step.view(-1, *[1] * (tensor.ndim - 1))
            packed[name] = (weight / shaped).round().to(torch.int8)
            packed[name + _STEP] = step
    return packed


def unpack_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `pack_weights`, in float32; tensors that are not packed pass through."""
    unpacked: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_STEP):
            continue
        step = tensors.get(name + _STEP)
        if step is not None:
            tensor = tensor.float() * step.view(-1, *[1] * (tensor.ndim - 1))
        unpacked[name] = tensor
    return unpacked
