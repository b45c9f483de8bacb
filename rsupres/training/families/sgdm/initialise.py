"""Values that SGDM's own denoiser needs before its training: latent scale, map gain.

Both are measured on batches when the stage `diffusion` begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.stable_diffusion import encode_moments
from rsupres.families.sgdm.network import ContentStyleEncoder, SgdmNetworks
from rsupres.training.batches import Batch

_MAP_BATCHES = 8


def measure_latent_scale(networks: SgdmNetworks, batches: list[Batch]) -> float:
    """Return 1 / std of sampled latents over all patches of the batches.

    Args:
        networks: of the model.
        batches: of training data.
    """
    if networks.autoencoder is None:
        scale, networks.latent_scale = networks.latent_scale, torch.tensor(1.0)
        latents = []
        for batch in batches:
            size = batch.hr.shape[-2:]
            enlarged = functional.interpolate(
                batch.lr, size, mode=networks.config.enlarge
            )
            latents.append(
                networks.encode(2.0 * batch.hr - 1.0, enlarged=enlarged).flatten()
            )
        networks.latent_scale = scale
        return 1.0 / float(torch.cat(latents).std())
    means, variances = [], []
    with torch.no_grad():
        for batch in batches:
            moments = encode_moments(networks.autoencoder, 2.0 * batch.hr - 1.0)
            means.append(moments[0].flatten())
            variances.append(moments[1].exp().mean())
    spread = torch.cat(means).var() + torch.stack(variances).mean()
    return 1.0 / float(spread.sqrt())


@torch.no_grad()
def balance_map(maps: Sequence[Tensor], networks: SgdmNetworks) -> None:
    """Scale the map's branch so that each layer's output has mean 0 and deviation 1.

    The colours of street maps differ by a tenth of the range only, so the output of a
    fresh branch is too weak beside that of LR, and training never uses it.
    Data-dependent initialisation (Salimans and Kingma 2016, section 3) with one
    deviation per layer; see docs/families/sgdm.md#balancing-the-maps-branch.

    Args:
        maps: of some batches, (b, 3, H, W) in [0, 1]; empty = do nothing.
        networks: changed in place, where they have a map's branch.
    """
    encoder = networks.adapter.encoder
    if not maps or not isinstance(encoder, ContentStyleEncoder):
        return
    chosen = maps[:_MAP_BATCHES]
    side = min(min(m.shape[2:]) for m in chosen)
    x = 2.0 * torch.cat([m[:, :, :side, :side] for m in chosen]) - 1.0
    x = x.contiguous(memory_format=torch.channels_last)
    found: list[tuple[Tensor, Tensor]] = []

    def remember(_conv: nn.Module, _inputs: object, answer: Tensor) -> None:
        found.append((answer.mean(dim=(0, 2, 3)), answer.std(dim=(0, 2, 3)).mean()))

    for layer in encoder.map_layers():
        conv = next(part for part in layer.modules() if isinstance(part, nn.Conv2d))
        handle = conv.register_forward_hook(remember)
        layer(x)
        handle.remove()
        mean, deviation = found[-1]
        assert conv.bias is not None
        conv.bias.sub_(mean).div_(deviation)
        conv.weight.div_(deviation)
        x = layer(x)


def trains_in_stage1(parameter: str) -> bool:
    """Return whether a parameter trains in stage 1: the adapter, the U-Net's attention.

    Of the U-Net every name that contains ``attn``, that is queries, keys, values and
    outputs of self- and cross-attention; feed-forwards and norms stay (released code;
    the paper says "linear layers").
    """
    if parameter.startswith("unet."):
        return "attn" in parameter
    return parameter.startswith("adapter.")
