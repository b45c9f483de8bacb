"""Noise as a function of seed, draw and absolute position, so that tiles agree.

Two windows that share ground draw the same noise there, for any tile size, order and
machine. The bits come from a counter-based generator (Philox 4x64,
Salmon et al. 2011, as numpy has it) whose key is (seed, sample) and whose counter is
(column block, row, channel, draw). This module holds no state and does not use torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.random import Philox

from rsupres.grid import PixelWindow, ceil_div

# One Philox block of four 64-bit words gives eight normals, 32 bits each.
_WORDS_PER_BLOCK = 4
_COLS_PER_BLOCK = 8
# Keeps the counter of the leftmost block positive: numpy carries from word to word.
_FIRST_BLOCK = 1 << 62
_WORD = (1 << 64) - 1
# Rows turned into normals at once; a few hundred kB, which stay in the cache.
_ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class NoiseField:
    """Standard normal noise on the whole plane, drawn window by window.

    Attributes:
        seed: of the run; taken modulo 2**64.
        sample: which of several pictures of the same scene; taken modulo 2**64.
    """

    seed: int
    sample: int = 0

    def draw(self, draw: int, window: PixelWindow, channels: int) -> np.ndarray:
        """Return the noise of one draw on a window, float32 (channels, h, w).

        Values depend on (seed, sample, draw, channel, absolute row, absolute column)
        and on nothing else, bit for bit on every machine. None exceeds 6.2 in
        magnitude.

        Args:
            draw: number of the draw; a sampler counts its steps.
            window: in pixels of the model's noise grid; may begin at negative rows or
                columns.
            channels: how many channels; fewer channels are the first of more.

        Raises:
            ValueError: if the window is empty or `channels` is not positive.
        """
        if min(window.height, window.width, channels) < 1:
            raise ValueError(f"cannot draw {channels} channels on {tuple(window)}.")
        first, offset = divmod(window.col, _COLS_PER_BLOCK)
        n_blocks = ceil_div(offset + window.width, _COLS_PER_BLOCK)
        bits = _BlockBits(self.seed, self.sample)
        noise = np.empty((channels, window.height, window.width), np.float32)
        for channel in range(channels):
            for top in range(0, window.height, _ROWS_AT_ONCE):
                rows = noise[channel, top : top + _ROWS_AT_ONCE]
                start = window.row + top
                pairs = np.stack(
                    [
                        bits.read((first, row, channel, draw), n_blocks)
                        for row in range(start, start + len(rows))
                    ]
                )  # (rows, 8 * n_blocks, 2)
                _fill_normals(rows, pairs[:, offset : offset + window.width])
        return noise


class _BlockBits:
    """The random bits of any row of blocks; one at a time, so not for two threads."""

    def __init__(self, seed: int, sample: int) -> None:
        self._generator = Philox(key=[seed & _WORD, sample & _WORD])
        self._state = self._generator.state
        self._counter = self._state["state"]["counter"]

    def read(self, position: tuple[int, int, int, int], n_blocks: int) -> np.ndarray:
        """Return pairs of 16-bit numbers, uint16 (8 * n_blocks, 2).

        Args:
            position: (column block, row, channel, draw) of the first block.
            n_blocks: how many blocks to read eastwards.
        """
        block, *rest = position
        self._counter[:] = [word & _WORD for word in (block + _FIRST_BLOCK, *rest)]
        self._generator.state = self._state
        words = self._generator.random_raw(n_blocks * _WORDS_PER_BLOCK)
        return np.asarray(words).view(np.uint16).reshape(-1, 2)


def _fill_normals(noise: np.ndarray, pairs: np.ndarray) -> None:
    """Turn pairs of 16-bit numbers (h, w, 2) into normals (h, w).

    The sum of two independent normals is normal. Each comes from a table of quantiles,
    so that the result needs one addition and is the same on every machine; its
    steps are those of 32 bits, not of 16.
    """
    table = _half_normals()
    np.take(table, pairs[..., 0], out=noise, mode="wrap")
    noise += np.take(table, pairs[..., 1], mode="wrap")


@cache
def _half_normals() -> np.ndarray:
    """Return 2**16 equally likely values of a normal with variance 1/2, float32."""
    normal = NormalDist()
    n_upper = 1 << 15
    upper = [
        normal.inv_cdf((n_upper + i + 0.5) / (2 * n_upper)) for i in range(n_upper)
    ]
    both = np.concatenate([np.negative(upper[::-1]), upper])
    # Bins' midpoints vary a little less than the normal that they stand for.
    table: np.ndarray = (both / (both.std() * np.sqrt(2.0))).astype(np.float32)
    return table
