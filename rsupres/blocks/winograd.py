"""3x3 convolutions of many channels by a quarter of the multiplications, on a CPU.

Winograd's minimal filtering as Lavin and Gray 2016, "Fast Algorithms for Convolutional
Neural Networks", Sec. 4, have it: F(4x4, 3x3). Each 4 x 4 block of the output is ``A^T
[(G g G^T) * (B^T d B)] A`` of the 6 x 6 pixels d around it, and the product in the
middle becomes one matrix product of channels for each of 36 places. The transforms cost
as much a channel, however many channels there are, so it pays for wide layers only.

The sums are exact in other order: in float32 about 7e-6 of the largest value off, where
torch's own convolution is 1e-6 off. Inference only; where it does not pay, or a
gradient is wanted, `conv3x3` is torch's.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK = 4  # output pixels of a block's side
_SEEN = 6  # input pixels that it reads
_WIDE = 128  # channels in and out of a group from which it pays
_LARGE = 1024  # pixels of a picture from which transforming the weights pays
_CACHED = 1 << 21  # numbers that are transformed together
# Interpolation at 0, 1, -1, 2, -2 and infinity.
_B_T = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_A_T = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor, groups: int = 1) -> Tensor:
    """Convolve with 3 x 3 weights, zero padding 1, in whichever way is faster.

    Args:
        x: (b, c, h, w).
        weight: (o, c / groups, 3, 3); where its channels lie together the result may
            be Winograd's, else it is torch's, which is more accurate.
        bias: (o,).
        groups: of channels that do not see one another.

    Returns:
        (b, o, h, w).
    """
    if pays(x, weight, groups):
        return conv_winograd(x, weight, bias, groups)
    return functional.conv2d(x, weight, bias, padding=1, groups=groups)


def pays(x: Tensor, weight: Tensor, groups: int = 1) -> bool:
    """Return whether `conv_winograd` may be used and is the faster way."""
    if torch.is_grad_enabled() or x.dtype != torch.float32 or x.device.type != "cpu":
        return False
    together = weight.is_contiguous(memory_format=torch.channels_last)
    narrowest = min(weight.shape[0] // groups, weight.shape[1])
    n_pixels = x.shape[0] * x.shape[2] * x.shape[3]
    return together and narrowest >= _WIDE and n_pixels >= _LARGE


def conv_winograd(x: Tensor, weight: Tensor, bias: Tensor, groups: int = 1) -> Tensor:
    """Convolve as `conv3x3`, in blocks; float32 on the CPU, without gradient."""
    b, c, h, w = x.shape
    down, across = -(-h // _BLOCK), -(-w // _BLOCK)
    c_out = len(weight)
    padded = functional.pad(
        x.permute(0, 2, 3, 1),
        (0, 0, 1, _BLOCK * across + 1 - w, 1, _BLOCK * down + 1 - h),
    )
    out = x.new_empty(b, down, _BLOCK, across, _BLOCK, c_out)
    ins, outs = c // groups, c_out // groups
    size = _SEEN * _SEEN * b * across * max(ins, outs)
    rows = max(1, _CACHED // size)
    for group in range(groups):
        part = slice(group * outs, (group + 1) * outs)
        filters = _transformed(weight[part])
        for top in range(0, down, rows):
            n = min(rows, down - top)
            blocks = _blocks(padded, group * ins, ins, top, n, across)
            pixels = torch.bmm(blocks, filters)  # (36, b n across, outs)
            back = _kronecker("out") @ pixels.view(_SEEN * _SEEN, -1)
            back = back.view(_BLOCK, _BLOCK, b, n, across, outs)
            place = out[:, top : top + n, ..., part]
            torch.add(back.permute(2, 3, 0, 4, 1, 5), bias[part], out=place)
    whole = out.view(b, _BLOCK * down, _BLOCK * across, c_out)
    return whole[:, :h, :w].permute(0, 3, 1, 2)


def _blocks(
    padded: Tensor, first: int, channels: int, top: int, rows: int, across: int
) -> Tensor:
    """Return the transformed pixels of rows of blocks, (36, b rows across, channels).

    Args:
        padded: (b, H + 2, W + 2, c).
        first: channel.
        channels: how many.
        top: first row of blocks.
        rows: of blocks.
        across: blocks of a row.
    """
    b = len(padded)
    whole, row, col, _ = padded.stride()
    seen = padded.as_strided(
        (_SEEN, _SEEN, b, rows, across, channels),
        (row, col, whole, _BLOCK * row, _BLOCK * col, 1),
        padded.storage_offset() + _BLOCK * top * row + first,
    )
    transformed = _kronecker("in") @ seen.reshape(_SEEN * _SEEN, -1)
    return transformed.view(_SEEN * _SEEN, b * rows * across, channels)


def _transformed(weight: Tensor) -> Tensor:
    """Return weights (o, c, 3, 3) as (36, c, o)."""
    c_out, c_in = weight.shape[:2]
    taps = weight.permute(2, 3, 1, 0).reshape(9, c_in * c_out)
    return (_kronecker("weight") @ taps).view(_SEEN * _SEEN, c_in, c_out)


@lru_cache(maxsize=3)
def _kronecker(kind: str) -> Tensor:
    """Return a transform of both directions at once, on flattened squares."""
    rows = {"in": _B_T, "weight": _G, "out": _A_T}[kind]
    with torch.inference_mode(False):
        matrix = torch.tensor(rows, dtype=torch.float64)
        return torch.kron(matrix, matrix).float()
