"""Parameter names of Stable Diffusion in the layouts of CompVis and of `diffusers`.

Only names and trivial shapes (1x1 convolutions that are linear layers elsewhere) differ
between the layouts. Every function takes the names of a network of ours as the
authority, so a configuration of any depth is covered, and nothing passes that the
network does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
# Names that diffusers gave the projections of the autoencoder before version 0.17; the
# files of SD 2.1-base still do.
_OLD_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}
_INDEX = r"(\d+)"


def unet_names(names: Iterable[str]) -> dict[str, str]:
    """Return CompVis' name of every parameter of a `diffusers` U-Net."""
    given = list(names)
    blocks = 1 + max(
        int(m[1])
        for n in given
        if (m := re.match(r"down_blocks\.0\.resnets\.(\d+)", n))
    )
    attends = {
        int(m[1]) for n in given if (m := re.match(r"up_blocks\.(\d+)\.attentions", n))
    }
    return {name: _unet_name(name, blocks, attends) for name in given}


def autoencoder_names(names: Iterable[str]) -> dict[str, str]:
    """Return CompVis' name by name of a `diffusers` KL autoencoder."""
    given = list(names)
    levels = 1 + max(
        int(m[1]) for n in given if (m := re.match(r"encoder\.down_blocks\.(\d+)", n))
    )
    return {name: _autoencoder_name(name, levels) for name in given}


def rename(
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Tensor]:
    """Return tensors under new names, reshaped where only ones were added or dropped.

    Args:
        tensors: by old name; those that `names` does not list are left out.
        names: old name by new name.
        shapes: wanted shape by new name.

    Returns:
        By new name, those of `names` that are there; a shape that does not fit is left
        as it is, for a strict loader to name.
    """
    found = {}
    for new, old in names.items():
        if old in tensors:
            tensor = tensors[old]
            fits = _squeezed(tensor.shape) == _squeezed(shapes[new])
            found[new] = tensor.reshape(shapes[new]) if fits else tensor
    return found


def modern_autoencoder_name(name: str) -> str:
    """Return today's name of a parameter of an autoencoder that diffusers stored."""
    head, dot, rest = name.partition(".attentions.0.")
    if not dot:
        return name
    for old, new in _OLD_ATTENTION.items():
        if rest.startswith(f"{old}."):
            return f"{head}{dot}{new}{rest.removeprefix(old)}"
    return name


def _unet_name(name: str, blocks: int, attends: set[int]) -> str:
    for ours, theirs in _UNET_ENDS.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    if match := re.match(rf"mid_block\.(resnets|attentions)\.{_INDEX}\.(.*)", name):
        kind, j, rest = match[1], int(match[2]), match[3]
        if kind == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * j}.{_resnet(rest)}"
    match = re.match(rf"(down|up)_blocks\.{_INDEX}\.(\w+)\.{_INDEX}\.(.*)", name)
    assert match, name
    side, level, kind = match[1], int(match[2]), match[3]
    at, rest = match[4], match[5]
    first = 1 + level * (blocks + 1) if side == "down" else level * (blocks + 1)
    block = "input_blocks" if side == "down" else "output_blocks"
    if kind == "resnets":
        return f"{block}.{first + int(at)}.0.{_resnet(rest)}"
    if kind == "attentions":
        return f"{block}.{first + int(at)}.1.{rest}"
    if kind == "downsamplers":
        return f"{block}.{first + blocks}.0.op.{rest.removeprefix('conv.')}"
    assert kind == "upsamplers", name
    place = 2 if level in attends else 1
    return f"{block}.{first + blocks}.{place}.{rest}"


def _autoencoder_name(name: str, levels: int) -> str:
    pattern = rf"(encoder|decoder)\.(down|up)_blocks\.{_INDEX}\.(\w+)\.{_INDEX}\.(.*)"
    if match := re.match(pattern, name):
        coder, side, k, kind, j, rest = match.groups()
        level = int(k) if side == "down" else levels - 1 - int(k)
        if kind == "resnets":
            return f"{coder}.{side}.{level}.block.{j}.{_shortcut(rest)}"
        return f"{coder}.{side}.{level}.{side}sample.{rest}"
    pattern = rf"(encoder|decoder)\.mid_block\.(\w+)\.{_INDEX}\.(.*)"
    if match := re.match(pattern, name):
        coder, kind, j, rest = match.groups()
        if kind == "resnets":
            return f"{coder}.mid.block_{int(j) + 1}.{_shortcut(rest)}"
        for ours, theirs in _ATTENTION.items():
            if rest.startswith(f"{ours}."):
                return f"{coder}.mid.attn_1.{theirs}{rest.removeprefix(ours)}"
    return name.replace("conv_norm_out", "norm_out")


def _resnet(rest: str) -> str:
    part, _, kind = rest.partition(".")
    return f"{_RESNET[part]}.{kind}"


def _shortcut(rest: str) -> str:
    return rest.replace("conv_shortcut", "nin_shortcut")


def _squeezed(shape: Iterable[int]) -> list[int]:
    return [side for side in shape if side != 1]
