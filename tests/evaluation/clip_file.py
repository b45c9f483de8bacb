"""Small files laid out as OpenAI's of CLIP: TorchScript archives of random tensors."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from rsupres.evaluation.perceptual.clip_iqa import GOOD

WIDTH, PATCH, GRID, TOKENS, JOINT = 64, 8, 3, 7, 16
VOCABULARY = GOOD[-1] + 1


def clip_tensors() -> dict[str, Tensor]:
    """Return the tensors of a CLIP of two layers, by OpenAI's names."""
    torch.manual_seed(0)
    found = {
        "visual.class_embedding": torch.randn(WIDTH),
        "visual.positional_embedding": torch.randn(GRID * GRID + 1, WIDTH),
        "visual.proj": torch.randn(WIDTH, JOINT),
        "visual.conv1.weight": torch.randn(WIDTH, 3, PATCH, PATCH) / 8,
        "token_embedding.weight": torch.randn(VOCABULARY, WIDTH),
        "positional_embedding": torch.randn(TOKENS, WIDTH),
        "text_projection": torch.randn(WIDTH, JOINT),
        "logit_scale": torch.tensor(4.6),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        found |= _norm(norm)
    for tower in ("visual.transformer", "transformer"):
        for number in range(2):
            found |= _block(f"{tower}.resblocks.{number}")
    return found


def _norm(name: str) -> dict[str, Tensor]:
    return {
        f"{name}.weight": 1 + torch.randn(WIDTH) / 9,
        f"{name}.bias": torch.randn(WIDTH) / 9,
    }


def _block(start: str) -> dict[str, Tensor]:
    sizes = {
        "attn.in_proj_": (3 * WIDTH, WIDTH),
        "attn.out_proj.": (WIDTH, WIDTH),
        "mlp.c_fc.": (4 * WIDTH, WIDTH),
        "mlp.c_proj.": (WIDTH, 4 * WIDTH),
    }
    found = {**_norm(f"{start}.ln_1"), **_norm(f"{start}.ln_2")}
    for name, (n_out, n_in) in sizes.items():
        found[f"{start}.{name}weight"] = torch.randn(n_out, n_in) / n_in**0.5
        found[f"{start}.{name}bias"] = torch.randn(n_out) / 9
    return found


def write_clip(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as a TorchScript archive of nested modules."""
    root = nn.Module()
    for name, value in tensors.items():
        module = root
        *parts, last = name.split(".")
        for part in parts:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, nn.Parameter(value.half(), requires_grad=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(root).save(str(path))  # type: ignore[no-untyped-call]
