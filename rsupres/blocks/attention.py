"""Self-attention over all positions, with torch's fused kernel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.resnet import Norm, norm_layer


class SpatialAttention(nn.Module):
    """Single-head self-attention over all positions, with a residual.

    GroupNorm, 1x1 q, k, v, softmax(q k^T / sqrt(c)), 1x1 out (Rombach et al. 2022).
    """

    def __init__(self, channels: int, norm: Norm = "group") -> None:
        super().__init__()
        self.norm = norm_layer(norm, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        b, c, h, w = x.shape
        hidden = self.norm(x)
        query, key, value = (
            layer(hidden).reshape(b, 1, c, h * w).transpose(2, 3)  # (b, 1, hw, c)
            for layer in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(2, 3).reshape(b, c, h, w)
        out: Tensor = x + self.proj_out(mixed)
        return out
