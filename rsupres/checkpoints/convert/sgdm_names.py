"""SGDM's released parameter names, and the architecture that their shapes imply.

The names of the released Lightning checkpoint are those of the authors' modules; ours
say what a layer does. `reference_names` is the table between them for any
configuration, in both directions; `config_of` reads a configuration off names and
shapes alone, all but the width of attention heads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rsupres.blocks.stable_diffusion import AutoencoderConfig, UNetConfig
from rsupres.blocks.stable_diffusion_keys import autoencoder_names, unet_names
from rsupres.errors import CheckpointError
from rsupres.families.sgdm.config import EncoderConfig, SgdmConfig
from rsupres.families.sgdm.style import FlowConfig

UNET = "model.diffusion_model."
AUTOENCODER = "first_stage_model."
ADAPTER = "adapter."
TEXT = "cond_stage_model.model."
_MERGED = "adapter.merge_encoder."
_CONTENT = "SR_Ref_Encoder."
_STYLE = "HR_Style_Encoder."
_Shapes = Mapping[str, Sequence[int]]

_MAPPED = {
    "lr_stem.0": "first_layer_sr.conv_in",
    "map_stem.0": "first_layer_ref.conv_in",
    "lr_conv.0": "layer{n}_sr.0.conv_in",
    "lr_res1": "layer{n}_sr.1.res_block.0",
    "lr_res2": "layer{n}_sr.1.res_block.2",
    "lr_down.conv": "layer{n}_sr.2.downsample.1",
    "map_conv.0": "layer{n}_ref.0",
    "map_down.conv": "layer{n}_ref.2.downsample.1",
    "spade.norm": "spade{n}.param_free_norm",
    "spade.shared": "spade{n}.mlp_shared.0",
    "spade.gamma": "spade{n}.mlp_gamma",
    "spade.beta": "spade{n}.mlp_beta",
    "fuse": "last_linear",
}
_PLAIN = {
    "stem": "first_layer_sr",
    "conv": "layer{n}_sr.0",
    "down": "layer{n}_sr.2",
}
_BODY = {
    "down": "down_opt.op",
    "widen": "in_conv",
    "conv1": "block1",
    "conv2": "block2",
}


def reference_names(networks: nn.Module) -> dict[str, str]:
    """Return released names by our names, of `SgdmNetworks` also on the meta device."""
    names = list(networks.state_dict())
    found: dict[str, str] = {}
    for part, prefix, table in (
        ("unet.", UNET, unet_names),
        ("autoencoder.", AUTOENCODER, autoencoder_names),
    ):
        own = [n.removeprefix(part) for n in names if n.startswith(part)]
        found |= {part + n: prefix + theirs for n, theirs in table(own).items()}
    ours = [n for n in names if n.startswith(ADAPTER)]
    mapped = any(n.startswith("adapter.encoder.map_stem.") for n in ours)
    styled = any(n.startswith("adapter.encoder.style.") for n in ours)
    return found | {n: _adapter_name(n, mapped, styled) for n in ours}


def flow_tensors(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return a released flow under our names.

    Args:
        tensors: a bare state dict.
        where: file, for messages.

    Raises:
        CheckpointError: no flow, or permutations that do not undo each other.
    """
    found: dict[str, Tensor] = {}
    orders: dict[int, Tensor] = {}
    inverse: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        if name in ("q0.loc", "q0.log_scale"):
            found[name.removeprefix("q0.")] = tensor
        elif m := re.fullmatch(r"flows\.(\d+)\.flows\.1\.param_map\.net\.(.+)", name):
            found[f"couplings.{int(m[1]) // 2}.{m[2]}"] = tensor
        elif m := re.fullmatch(r"flows\.(\d+)\.(inv_)?perm", name):
            (inverse if m[2] else orders)[int(m[1]) // 2] = tensor
        else:
            raise CheckpointError(f"{where}: '{name}' belongs to no SFlow.")
    if not orders or "loc" not in found:
        raise CheckpointError(f"{where}: holds no SFlow (q0.loc, flows.N.perm).")
    for k, order in orders.items():
        if k in inverse and not torch.equal(order.argsort(), inverse[k]):
            raise CheckpointError(
                f"{where}: flows.{2 * k + 1}.inv_perm does not undo its perm."
            )
    found["permutations"] = torch.stack([orders[k] for k in sorted(orders)])
    return found


def flow_config(tensors: Mapping[str, Tensor]) -> FlowConfig:
    """Return the size of a flow under our names."""
    couplings, dim = tensors["permutations"].shape
    hidden: list[int] = []
    while (name := f"couplings.0.{2 * len(hidden)}.weight") in tensors:
        hidden.append(int(tensors[name].shape[0]))
    return FlowConfig(dim, couplings, tuple(hidden[:-1]))


def config_of(shapes: _Shapes, head_width: int = 64) -> SgdmConfig:
    """Return the configuration that released names and shapes belong to.

    Args:
        shapes: of all tensors, U-Net, autoencoder and adapter among them.
        head_width: channels of an attention head, which no shape shows.

    Raises:
        CheckpointError: a tensor that shows the architecture is missing.
    """
    try:
        encoder = encoder_config(shapes)
        synthetic = encoder.modulated != "lr"
        return SgdmConfig(
            unet=_unet_config(shapes, head_width),
            autoencoder=_autoencoder_config(shapes),
            encoder=encoder,
            enlarge="bicubic" if synthetic else "bilinear",
        )
    except KeyError as error:
        raise CheckpointError(
            f"these are not the tensors of an SGDM model ({error} is missing)."
        ) from error


def encoder_config(shapes: _Shapes) -> EncoderConfig:
    """Return the content-style encoder of released names; KeyError if there is none."""
    styled = any(name.startswith(_MERGED + _STYLE) for name in shapes)
    head = _MERGED + (_CONTENT if styled else "")
    last = shapes[f"{head}last_linear.weight"]
    if f"{head}first_layer_ref.conv_in.weight" in shapes:
        widths = _each(shapes, head + "layer{}_ref.0.weight", first=1)
        return EncoderConfig(
            stem=shapes[f"{head}first_layer_ref.conv_in.weight"][0],
            widths=widths,
            out=last[0],
            modulated="lr" if styled else "map",
            style=styled,
            guide=shapes[f"{head}spade1.mlp_shared.0.weight"][0],
        )
    return EncoderConfig(
        stem=shapes[f"{head}first_layer_sr.weight"][0],
        widths=_each(shapes, head + "layer{}_sr.0.weight", first=1),
        out=last[0],
        modulated=None,
        style=False,
    )


def _unet_config(shapes: _Shapes, head_width: int) -> UNetConfig:
    first = shapes[f"{UNET}input_blocks.0.0.weight"]
    width, latent = first[0], first[1]
    numbers = [
        int(m[1])
        for name in shapes
        if (m := re.match(re.escape(UNET) + r"input_blocks\.(\d+)\.", name))
    ]
    downs = [
        n
        for n in sorted(set(numbers))
        if f"{UNET}input_blocks.{n}.0.op.weight" in shapes
    ]
    levels = len(downs) + 1
    blocks = (max(numbers) + 1) // levels - 1
    starts = [1 + k * (blocks + 1) for k in range(levels)]
    inner = "{}input_blocks.{}.1.transformer_blocks.{}.attn2.to_k.weight"
    attends = [k for k, n in enumerate(starts) if inner.format(UNET, n, 0) in shapes]
    middle = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    depth = len(
        _each(shapes, UNET + "middle_block.1.transformer_blocks.{}.attn2.to_k.weight")
    )
    return UNetConfig(
        latent=latent,
        width=width,
        multipliers=tuple(
            shapes[f"{UNET}input_blocks.{n}.0.out_layers.3.weight"][0] // width
            for n in starts
        ),
        blocks=blocks,
        attention_levels=tuple(attends),
        head_width=head_width,
        context_width=shapes[middle][1],
        depth=depth,
        linear=len(shapes[f"{UNET}middle_block.1.proj_in.weight"]) == 2,
    )


def _autoencoder_config(shapes: _Shapes) -> AutoencoderConfig:
    head = f"{AUTOENCODER}encoder."
    width = shapes[f"{head}conv_in.weight"][0]
    outs = _each(shapes, head + "down.{}.block.0.conv1.weight")
    return AutoencoderConfig(
        latent=shapes[f"{AUTOENCODER}post_quant_conv.weight"][0],
        width=width,
        multipliers=tuple(out // width for out in outs),
        blocks=len(_each(shapes, head + "down.0.block.{}.conv1.weight")),
        mid_attention=f"{head}mid.attn_1.q.weight" in shapes,
    )


def _each(shapes: _Shapes, pattern: str, first: int = 0) -> tuple[int, ...]:
    """Return the outputs of pattern.format(first), .format(first + 1) .. that exist."""
    found: list[int] = []
    while (name := pattern.format(first + len(found))) in shapes:
        found.append(int(shapes[name][0]))
    return tuple(found)


def _adapter_name(name: str, mapped: bool, styled: bool) -> str:
    rest = name.removeprefix(ADAPTER)
    if rest.startswith("conv_in."):
        return name
    if match := re.fullmatch(r"body\.(\d+)\.(\w+)\.(\w+)", rest):
        return f"{ADAPTER}body.{match[1]}.{_BODY[match[2]]}.{match[3]}"
    rest = rest.removeprefix("encoder.")
    if styled and rest.startswith("style."):
        return (
            _MERGED + _STYLE + _plain_name(rest.removeprefix("style."), "last_layer.0")
        )
    if not mapped:
        return _MERGED + _plain_name(rest, "last_linear")
    layer, kind = _layer(rest)
    return _MERGED + (_CONTENT if styled else "") + _fill(_MAPPED, layer) + kind


def _plain_name(rest: str, last: str) -> str:
    layer, kind = _layer(rest)
    return _fill({**_PLAIN, "last": last}, layer) + kind


def _layer(rest: str) -> tuple[str, str]:
    """Split ``scales.0.lr_res1.weight`` into its layer and ``.weight``."""
    layer, _, kind = rest.rpartition(".")
    return layer, f".{kind}"


def _fill(table: Mapping[str, str], layer: str) -> str:
    if match := re.fullmatch(r"scales\.(\d+)\.(.+)", layer):
        return table[match[2]].format(n=int(match[1]) + 1)
    return table[layer]
