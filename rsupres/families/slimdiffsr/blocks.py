"""Building blocks of SlimDiffSR's trunk, some of which see the whole picture.

========================================  ============================================
Part of the paper                         Class
========================================  ============================================
frequency-separable convolution           `FrequencySeparable`
direction-separable convolution           `DirectionSeparable`
query-driven global aggregation (QGAM)    `QueryAggregation`
residual block                            `ResidualBlock`
spatial transformer                       `SpatialTransformer`
========================================  ============================================

SlimDiffSR, arXiv 2605.02198, and its public inference code. Gates, QGAM's
context and GroupNorm are found from a whole picture. `Shared` decides which: the
picture itself (None), all pictures of a batch together (`Finding`, which keeps what it
found) or values found before (`Found`), so that the tiles of a scene agree. Parameters
have the names of the released weights. Everything runs with channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_GATE_HIDDEN = 8
_NARROW = 4  # bottlenecks have a quarter of the channels


class Finding:
    """Finds values from all pictures of a batch together and keeps them in order."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def share(self, find: Callable[[], Tensor]) -> Tensor:
        """Call `find`, keep its result and return it."""
        self.values.append(find())
        return self.values[-1]


class Found:
    """Hands out values that were found before, in the same order; for one pass."""

    def __init__(self, values: Sequence[Tensor]) -> None:
        self._values = iter(values)

    def share(self, find: Callable[[], Tensor]) -> Tensor:
        """Return the next value."""
        return next(self._values)


Shared = Finding | Found | None


class GroupNorm(nn.GroupNorm):
    """GroupNorm whose moments may be shared."""

    def forward(self, x: Tensor, shared: Shared = None) -> Tensor:
        """Normalise (b, c, h, w)."""
        if shared is None:
            return functional.group_norm(
                x, self.num_groups, self.weight, self.bias, self.eps
            )
        variance, mean = shared.share(lambda: self._moments(x))
        size = self.num_channels // self.num_groups
        gain = (variance + self.eps).rsqrt().repeat_interleave(size) * self.weight
        offset = self.bias.float() - mean.repeat_interleave(size) * gain
        return torch.addcmul(_channels(offset, x), x, _channels(gain, x))

    def _moments(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        groups = self.num_groups
        grouped = x.float().reshape(b, groups, c // groups, h, w)
        return torch.stack(torch.var_mean(grouped, (0, 2, 3, 4), correction=0))


class PixelNorm(nn.Module):
    """LayerNorm over the channels of each pixel: sees nothing but that pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, shared: Shared = None) -> Tensor:
        """Normalise (b, c, h, w)."""
        pixels = x.permute(0, 2, 3, 1)
        normed = functional.layer_norm(
            pixels, self.weight.shape, self.weight, self.bias
        )
        return normed.permute(0, 3, 1, 2)


Norm = Callable[[int, float], nn.Module]


class FrequencySeparable(nn.Module):
    """FSC: a learned depthwise low filter, another of what it leaves, two gates.

    With L = low * x and H = high * (x - L) the result is B2 ReLU(B1 (g0 L + g1 H)). It
    is computed as r = x - L = (1 - low) * x, then g0 x + (g1 high - g0) * r: one pass
    over the channels less.
    """

    def __init__(
        self, c_in: int, c_out: int, narrow: int, hidden: int = _GATE_HIDDEN
    ) -> None:
        super().__init__()
        self.low_branch = nn.Sequential(_depthwise(c_in, (3, 3)))
        self.high_branch = nn.Sequential(_depthwise(c_in, (3, 3)))
        self.mlp = _gate_mlp(c_in, hidden, 2)
        self.bottleneck = nn.Sequential(
            nn.Conv2d(c_in, narrow, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(narrow, c_out, 1, bias=False),
        )

    def forward(self, x: Tensor, shared: Shared = None) -> Tensor:
        """Return (b, c_out, h, w) of (b, c_in, h, w)."""
        gates = _find_gates(self.mlp, x, shared).to(x.dtype)  # (b or 1, 2)
        low, high = _kernel(self.low_branch), _kernel(self.high_branch)
        here = torch.zeros_like(low)
        here[:, :, 1, 1] = 1.0
        rest = _depthwise_each(x, (here - low)[None])
        g0, g1 = gates[:, :, None, None, None, None].unbind(1)  # (b or 1, 1, 1, 1, 1)
        mixed = _depthwise_each(rest, g1 * high - g0 * here)
        mixed = torch.addcmul(mixed, x, g0[:, 0].to(mixed.dtype))
        result: Tensor = self.bottleneck(mixed)
        return result


class DirectionSeparable(nn.Module):
    """DSC: columns, rows and both, three gates, and a linear bottleneck.

    The three branches are depthwise with the same input and their sum is one depthwise
    3 x 3 filter, g0 v + g1 (v outer u) + g2 u with v the column and u the row: exact,
    zero padding included.
    """

    def __init__(self, channels: int, narrow: int, hidden: int) -> None:
        super().__init__()
        self.h_conv = nn.Sequential(_depthwise(channels, (3, 1)))
        self.v_conv = nn.Sequential(_depthwise(channels, (1, 3)))
        self.conv_reduce = nn.Conv2d(channels, narrow, 1, bias=False)
        self.conv_expand = nn.Conv2d(narrow, channels, 1, bias=False)
        self.mlp = _gate_mlp(channels, hidden, 3)

    def forward(self, x: Tensor, shared: Shared = None) -> Tensor:
        """Return (b, c, h, w) of the same."""
        gates = _find_gates(self.mlp, x, shared).to(x.dtype)  # (b or 1, 3)
        g0, g1, g2 = gates[:, :, None, None, None, None].unbind(1)
        column, row = _kernel(self.h_conv), _kernel(self.v_conv)
        kernel = g1 * (column * row)  # (b or 1, c, 1, 3, 3)
        kernel = kernel + g0 * functional.pad(column, (1, 1))
        kernel = kernel + g2 * functional.pad(row, (0, 0, 1, 1))
        mixed = _depthwise_each(x, kernel)
        result: Tensor = self.conv_expand(self.conv_reduce(mixed))
        return result


class QueryAggregation(nn.Module):
    """QGAM: learned queries gather a context, pixels read it; a single head.

    A = softmax_N(Q Wq (X Wk)^T s), C = A X Wv; A' = softmax_M(X Wqc (C Wkc)^T s),
    result A' C Wvc Wo + bo, with s = c^(-1/2) of the full width. Products are taken
    from the side of the few queries, so pixels meet matrices of c x M only.
    """

    def __init__(self, channels: int, queries: int, inner: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(queries, channels))
        self.q_proj = nn.Linear(channels, inner, bias=False)
        self.k_proj = nn.Linear(channels, inner, bias=False)
        self.v_proj = nn.Linear(channels, inner, bias=False)
        self.q_proj_c = nn.Linear(channels, inner, bias=False)
        self.k_proj_c = nn.Linear(inner, inner, bias=False)
        self.v_proj_c = nn.Linear(inner, inner, bias=False)
        self.out_proj = nn.Linear(inner, channels)
        self.scale = channels**-0.5

    def forward(self, x: Tensor, shared: Shared = None) -> Tensor:
        """Return (b, n, c) of tokens (b, n, c)."""
        if shared is None:
            context = self.gather(x)
        else:
            context = shared.share(lambda: self.gather(x.flatten(0, 1)[None]))
            context = context.to(self.v_proj_c.weight.dtype)
        values = self.v_proj_c(context) @ self.out_proj.weight.t()  # (b or 1, m, c)
        attention = self.scatter_weights(x, context)
        read: Tensor = attention @ values.to(attention.dtype)
        return read + self.out_proj.bias.to(x.dtype)

    def gather(self, x: Tensor) -> Tensor:
        """Return the context (b, m, d) of tokens (b, n, c)."""
        context: Tensor = self.v_proj(self.gather_weights(x) @ x)
        return context

    def gather_weights(self, x: Tensor) -> Tensor:
        """Return A, (b, m, n): how much each query takes of each token."""
        keys = self.q_proj(self.query) @ self.k_proj.weight * self.scale  # (m, c)
        weights: Tensor = (keys @ x.transpose(1, 2)).softmax(-1)
        return weights

    def scatter_weights(self, x: Tensor, context: Tensor) -> Tensor:
        """Return A', (b, n, m): how much each token takes of each query's context.

        Args:
            x: (b, n, c), the tokens.
            context: (b, m, c), one of each query.
        """
        keys = self.k_proj_c(context) @ self.q_proj_c.weight * self.scale  # (b, m, c)
        weights: Tensor = (x @ keys.transpose(1, 2).to(x.dtype)).softmax(-1)
        return weights


class ResidualBlock(nn.Module):
    """Two separable convolutions, each after norm and SiLU, beside a shortcut."""

    def __init__(self, c_in: int, c_out: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(c_in, 1e-5)
        self.conv1 = FrequencySeparable(c_in, c_out, c_in // _NARROW)
        self.norm2 = norm(c_out, 1e-5)
        self.conv2 = DirectionSeparable(c_out, c_out // _NARROW, c_out // 8)
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, shared: Shared = None) -> Tensor:
        """Return (b, c_out, h, w) of (b, c_in, h, w)."""
        y = self.conv1(functional.silu(self.norm1(x, shared)), shared)
        y = self.conv2(functional.silu(self.norm2(y, shared)), shared)
        result: Tensor = y + (
            x if self.conv_shortcut is None else self.conv_shortcut(x)
        )
        return result


class SpatialTransformer(nn.Module):
    """QGAM and a gated feed-forward on the pixels of a map, beside the map."""

    def __init__(self, channels: int, queries: int, inner: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels, 1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            [_TransformerBlock(channels, queries, inner)]
        )
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, shared: Shared = None) -> Tensor:
        """Return (b, c, h, w) of the same."""
        height = x.shape[2]
        tokens = self.norm(x, shared).permute(0, 2, 3, 1).flatten(1, 2)  # (b, n, c)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, shared)
        tokens = self.proj_out(tokens)
        added = tokens.reshape(len(x), height, -1, x.shape[1]).permute(0, 3, 1, 2)
        result: Tensor = x + added
        return result


class _TransformerBlock(nn.Module):
    def __init__(self, channels: int, queries: int, inner: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = QueryAggregation(channels, queries, inner)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = _FeedForward(channels)

    def forward(self, tokens: Tensor, shared: Shared) -> Tensor:
        tokens = tokens + self.attn1(self.norm1(tokens), shared)
        result: Tensor = tokens + self.ff(self.norm3(tokens))
        return result


class _FeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _GatedGelu(channels), nn.Identity(), nn.Linear(4 * channels, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.net(tokens)
        return result


class _GatedGelu(nn.Module):
    """a * GELU(b), a the first half of a projection; the exact GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 8 * channels)

    def forward(self, tokens: Tensor) -> Tensor:
        a, b = self.proj(tokens).chunk(2, -1)
        result: Tensor = a * functional.gelu(b)
        return result


def _find_gates(mlp: nn.Module, x: Tensor, shared: Shared) -> Tensor:
    """Return the gates of a picture, (b, k), or those that all share, (1, k)."""
    if shared is None:
        gates: Tensor = mlp(x.mean((2, 3))).sigmoid()
        return gates
    return shared.share(lambda: mlp(x.mean((0, 2, 3))[None]).sigmoid().float())


def _depthwise_each(x: Tensor, kernels: Tensor) -> Tensor:
    """Return (b, c, h, w), every channel filtered, zero padded to the same size."""
    if len(kernels) == 1:
        return functional.conv2d(x, kernels[0], padding=1, groups=x.shape[1])
    each = [
        functional.conv2d(picture[None], kernel, padding=1, groups=x.shape[1])
        for picture, kernel in zip(x, kernels, strict=True)
    ]
    return torch.cat(each)


def _channels(values: Tensor, like: Tensor) -> Tensor:
    """Return one value a channel as (c, 1, 1), in the type of `like`."""
    return values.to(like.dtype)[:, None, None]


def _kernel(branch: nn.Sequential) -> Tensor:
    return branch[0].weight  # type: ignore[return-value]  # a convolution's


def _depthwise(channels: int, kernel: tuple[int, int]) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(
        channels, channels, kernel, padding=padding, groups=channels, bias=False
    )


def _gate_mlp(channels: int, hidden: int, gates: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, gates)
    )
