"""Contexts of SGDM's sixteen prompts, computed once by the released text encoder.

Only importing needs the text encoder: a checkpoint of ours holds what it says of each
prompt. The tower is OpenCLIP's ViT-H-14 for text (laion2b_s32b_b79k): penultimate
layer, then the last normalisation, 77 tokens. The prompts use ten words, whose numbers
in CLIP's vocabulary are listed here (from the merges that open_clip_torch 3.3.0 ships),
so no tokeniser is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from rsupres.errors import CheckpointError
from rsupres.families.sgdm.network import PROMPT_TOKENS
from rsupres.families.sgdm.prompts import N_PROMPTS, prompt_text

_START, _END, _PAD = 49406, 49407, 0
_WORDS = {
    ",": 267,
    "of": 539,
    "land": 973,
    "water": 1573,
    "road": 1759,
    "building": 2307,
    "area": 2445,
    "woods": 6267,
    "regular": 6307,
    "shape": 6448,
}
_HEAD = 64
_EPS = 1e-5
# transformers' names by OpenCLIP's, as in the text_encoder folder of SD 2.1.
_TRANSFORMERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def prompt_tokens(number: int) -> list[int]:
    """Return the 77 tokens of a prompt."""
    words = re.findall(r"\w+|,", prompt_text(number))
    tokens = [_START, *(_WORDS[word] for word in words), _END]
    return tokens + [_PAD] * (PROMPT_TOKENS - len(tokens))


def make_contexts(tower: Mapping[str, Tensor], head_width: int = _HEAD) -> Tensor:
    """Return the text encoder's output for every prompt, (16, 77, width) float32.

    Args:
        tower: the encoder's weights under OpenCLIP's names, all blocks; the last one is
            not used.
        head_width: channels of an attention head.

    Raises:
        CheckpointError: a weight is missing.
    """
    tokens = torch.tensor([prompt_tokens(k) for k in range(N_PROMPTS)])
    try:
        with torch.inference_mode():
            made = _run(tower, tokens, head_width)
    except KeyError as error:
        raise CheckpointError(f"the text encoder lacks the tensor {error}.") from error
    return made.clone()


def from_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a ``text_encoder`` folder under OpenCLIP's names.

    SD 2.1's folder leaves the unused last block out; an empty one stands for it.
    """
    head = "text_model."
    inner = f"{head}encoder.layers"
    found = {
        "token_embedding.weight": tensors[f"{head}embeddings.token_embedding.weight"],
        "positional_embedding": tensors[f"{head}embeddings.position_embedding.weight"],
    }
    kinds = ("weight", "bias")
    for kind in kinds:
        found[f"ln_final.{kind}"] = tensors[f"{head}final_layer_norm.{kind}"]
    n = 0
    while f"{inner}.{n}.layer_norm1.weight" in tensors:
        block = f"transformer.resblocks.{n}"
        for ours, theirs in _TRANSFORMERS.items():
            for kind in kinds:
                found[f"{block}.{ours}.{kind}"] = tensors[
                    f"{inner}.{n}.{theirs}.{kind}"
                ]
        for kind in kinds:
            parts = [tensors[f"{inner}.{n}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            found[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
        n += 1
    found[f"transformer.resblocks.{n}.ln_1.weight"] = torch.empty(0)
    return found


def _run(tower: Mapping[str, Tensor], tokens: Tensor, head_width: int) -> Tensor:
    def linear(x: Tensor, name: str) -> Tensor:
        weight, bias = tower[f"{name}.weight"], tower[f"{name}.bias"]
        return functional.linear(x, weight.float(), bias.float())

    def normalise(x: Tensor, name: str) -> Tensor:
        weight, bias = tower[f"{name}.weight"].float(), tower[f"{name}.bias"].float()
        return functional.layer_norm(x, x.shape[-1:], weight, bias, _EPS)

    n_blocks = 0
    while f"transformer.resblocks.{n_blocks}.ln_1.weight" in tower:
        n_blocks += 1
    x = tower["token_embedding.weight"].float()[tokens]
    x = x + tower["positional_embedding"].float()
    for k in range(n_blocks - 1):
        name = f"transformer.resblocks.{k}"
        joined = functional.linear(
            normalise(x, f"{name}.ln_1"),
            tower[f"{name}.attn.in_proj_weight"].float(),
            tower[f"{name}.attn.in_proj_bias"].float(),
        )
        q, k_, v = (
            part.reshape(*part.shape[:2], -1, head_width).transpose(1, 2)
            for part in joined.chunk(3, dim=2)
        )  # (16, heads, 77, head width)
        seen = functional.scaled_dot_product_attention(q, k_, v, is_causal=True)
        x = x + linear(seen.transpose(1, 2).flatten(2), f"{name}.attn.out_proj")
        inner = functional.gelu(
            linear(normalise(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        )
        x = x + linear(inner, f"{name}.mlp.c_proj")
    return normalise(x, "ln_final")
