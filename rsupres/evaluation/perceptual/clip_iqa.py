"""CLIP-IQA: how much closer a picture is to "Good photo." than to "Bad photo.".

Wang, Chan, Loy 2023, "Exploring CLIP for Assessing the Look and Feel of Images". The
network is CLIP ViT-B/16 by transformers, filled from OpenAI's file. The paper's main
figures are those of CLIP RN50, which do not compare with them. As for CLIP, the shorter
side of a picture is resized to 224 pixels by bicubic, and the middle is cut out.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rsupres.errors import CheckpointError
from rsupres.evaluation.resize import resize_bicubic_float

# "Good photo." and "Bad photo." by CLIP's byte pairs: begin, words, point, end.
GOOD = (49406, 886, 1125, 269, 49407)
BAD = (49406, 2103, 1125, 269, 49407)
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_TURNED = ("visual.proj", "text_projection")
_SIZES = ("input_resolution", "context_length", "vocab_size")  # no weights


class ClipIqa:
    """CLIP with the two prompts.

    Args:
        path: of OpenAI's file, for messages.
        stored: its tensors.
        device: where it computes.

    Raises:
        CheckpointError: the file has other layers.
    """

    def __init__(
        self, path: Path, stored: Mapping[str, Tensor], device: str | torch.device
    ) -> None:
        self._model, self.side = _clip_model(path, stored)
        self._model.to(device)
        self._device = device
        with torch.inference_mode():
            prompts = torch.tensor([GOOD, BAD], device=device)
            self._anchors = _unit(_embed(self._model, input_ids=prompts))

    def __call__(self, sr: np.ndarray, hr: np.ndarray, valid: np.ndarray) -> float:
        """Return the share of "Good photo." in [0, 1].

        Args:
            sr: (3, H, W) in [0, 1].
            hr: not used; a `Measure` takes it.
            valid: (H, W) bool; the result is NaN unless all pixels are valid.
        """
        if not valid.all():
            return math.nan
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (_MEAN, _STD))
        pixels = torch.from_numpy((to_side(sr, self.side) - mean) / std)[None]
        with torch.inference_mode():
            looks = _unit(_embed(self._model, pixel_values=pixels.to(self._device)))
            return float((100 * looks @ self._anchors.T).softmax(1)[0, 0])


def read_clip(path: Path) -> dict[str, Tensor]:
    """Return the tensors of OpenAI's file, which is a TorchScript archive.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates TorchScript
            archive = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return {name: value.float() for name, value in archive.state_dict().items()}
    except RuntimeError as error:
        raise CheckpointError(f"{path}: is no TorchScript archive.") from error


def _clip_model(path: Path, stored: Mapping[str, Tensor]) -> tuple[Any, int]:
    """Return CLIP filled from OpenAI's tensors, and the side of its pictures."""
    from transformers import CLIPConfig, CLIPModel

    try:
        config, side = _config(stored)
        model = CLIPModel(CLIPConfig(**config))
        found, extra = model.load_state_dict(_renamed(stored), strict=False)
        missing = [name for name in found if not name.endswith("position_ids")]
        if missing or extra:
            raise KeyError((*missing, *extra)[0])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: has other layers than expected.") from error
    return model.requires_grad_(False).train(False), side


def to_side(picture: np.ndarray, side: int) -> np.ndarray:
    """Return the middle (3, side, side) of a picture whose shorter side is `side`.

    Args:
        picture: (3, H, W).
        side: pixels of the result.
    """
    height, width = picture.shape[1:]
    ratio = side / min(height, width)
    size = (max(side, round(height * ratio)), max(side, round(width * ratio)))
    small = resize_bicubic_float(picture, size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return np.clip(small[:, top : top + side, left : left + side], 0, 1)


def _embed(model: Any, **inputs: Tensor) -> Tensor:
    """Return the embedding of a picture or a text in the space that both share."""
    if "input_ids" in inputs:
        text = model.text_model(**inputs).pooler_output
        return cast(Tensor, model.text_projection(text))
    seen = model.vision_model(**inputs).pooler_output
    return cast(Tensor, model.visual_projection(seen))


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=1)


def _config(stored: Mapping[str, Tensor]) -> tuple[dict[str, Any], int]:
    """Return the configuration that OpenAI's shapes imply; a head has 64 channels."""
    patches = stored["visual.conv1.weight"]
    grid = math.isqrt(len(stored["visual.positional_embedding"]) - 1)
    side = grid * patches.shape[-1]
    n_tokens, n_text = stored["positional_embedding"].shape
    projected = stored["text_projection"].shape[1]
    common: dict[str, Any] = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    vision: dict[str, Any] = {
        "hidden_size": len(patches),
        "num_hidden_layers": _depth(stored, "visual."),
        "patch_size": patches.shape[-1],
        "image_size": side,
    }
    text: dict[str, Any] = {
        "hidden_size": n_text,
        "num_hidden_layers": _depth(stored, ""),
        "max_position_embeddings": n_tokens,
        "vocab_size": len(stored["token_embedding.weight"]),
        "bos_token_id": GOOD[0],
        "eos_token_id": GOOD[-1],
    }
    for part in (vision, text):
        width = part["hidden_size"]
        part |= common | {"projection_dim": projected, "intermediate_size": 4 * width}
        part["num_attention_heads"] = max(1, width // 64)
    return {
        "vision_config": vision,
        "text_config": text,
        "projection_dim": projected,
    }, side


def _depth(stored: Mapping[str, Tensor], prefix: str) -> int:
    start = f"{prefix}transformer.resblocks."
    return len({n.split(".")[start.count(".")] for n in stored if n.startswith(start)})


def _renamed(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return OpenAI's tensors by the names of transformers."""
    found = {}
    for name, value in stored.items():
        if name in _SIZES:
            continue
        block = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)", name)
        if block is None:
            found[_NAMES[name]] = value.T if name in _TURNED else value
            continue
        side = "vision_model" if block[1] else "text_model"
        start = f"{side}.encoder.layers.{block[2]}"
        part, kind = block[3].rsplit(".", 1)
        if part == "attn":  # in_proj_weight, in_proj_bias: of query, key and value
            kind = kind.removeprefix("in_proj_")
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                found[f"{start}.self_attn.{letter}_proj.{kind}"] = third
        else:
            found[f"{start}.{_BLOCK[part]}.{kind}"] = value
    return found
