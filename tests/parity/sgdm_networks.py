"""The golden case of SGDM and its networks, filled by names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsupres.blocks.stable_diffusion import AutoencoderConfig, UNetConfig
from rsupres.blocks.stable_diffusion_keys import rename
from rsupres.checkpoints.convert.sgdm_names import (
    encoder_config,
    flow_config,
    flow_tensors,
    reference_names,
)
from rsupres.families.sgdm.config import VARIANTS, EncoderConfig, SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.style import StyleFlow
from tests.parity.golden import Cases, name_seeded_tensor

CASES = Cases("sgdm")
STORED = CASES.tensors
CASE = CASES.description
CONFIG = CASE["config"]

SEED_PREFIX = CASE["weights"].get("seed_prefix", "")
ROOTS = r"(adapter\.|model\.diffusion_model\.|first_stage_model\.)"

Weights = dict[str, Tensor]


def present() -> list[str]:
    return [v for v in VARIANTS if f"adapter_{v}" in CASE["shapes"]]


def shapes_of(variant: str) -> dict[str, list[int]]:
    shapes = CASE["shapes"]
    return shapes["unet"] | shapes["vae"] | shapes[f"adapter_{variant}"]


def plain_names(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what a case may put before the released names."""
    return {re.sub(rf"^.*?(?={ROOTS})", "", n, count=1): v for n, v in shapes.items()}


def seeded(shapes: Mapping[str, list[int]], variant: str = "") -> Weights:
    """Return name-seeded weights under released names, with the case's exceptions."""
    found: Weights = {}
    for name, shape in shapes.items():
        stored = STORED.get(f"buffer/{variant}/{name}")
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(0)
            continue
        values = name_seeded_tensor(SEED_PREFIX + name, shape)
        if name.endswith("running_var"):
            values = values + np.float32(1)
        found[name] = torch.from_numpy(values if stored is None else stored.copy())
    return plain_names(found)


def case_config(variant: str) -> SgdmConfig:
    unet, vae = CONFIG["unet"], CONFIG["vae"]
    factors = [2**k for k in range(len(unet["channel_mult"]))]
    assert vae["attn_resolutions"] == []
    assert vae["double_z"]
    assert CONFIG["parameterization"] == "eps"
    encoder: EncoderConfig = encoder_config(
        plain_names(CASE["shapes"][f"adapter_{variant}"])
    )
    config = SgdmConfig(
        unet=UNetConfig(
            latent=unet["in_channels"],
            width=unet["model_channels"],
            multipliers=tuple(unet["channel_mult"]),
            blocks=unet["num_res_blocks"],
            attention_levels=tuple(
                k for k, f in enumerate(factors) if f in unet["attention_resolutions"]
            ),
            head_width=unet["num_head_channels"],
            context_width=unet["context_dim"],
            depth=unet["transformer_depth"],
            linear=unet["use_linear_in_transformer"],
        ),
        autoencoder=AutoencoderConfig(
            latent=vae["z_channels"],
            width=vae["ch"],
            multipliers=tuple(vae["ch_mult"]),
            blocks=vae["num_res_blocks"],
        ),
        encoder=encoder,
        steps=CONFIG["num_timesteps"],
        beta=(CONFIG["linear_start"], CONFIG["linear_end"]),
        feature_scale=CONFIG["scale_factor"],
        enlarge=VARIANTS[variant].enlarge,
    )
    assert config.adapter_widths == tuple(CONFIG["adapter_channels"])
    return config


def build(config: SgdmConfig, weights: Weights) -> SgdmNetworks:
    """Make networks without wasting time on random weights, and fill them strictly."""
    with torch.device("meta"):
        networks = SgdmNetworks(config)
    names = reference_names(networks)
    shapes = {n: tuple(t.shape) for n, t in networks.state_dict().items()}
    state = rename(weights, names, shapes)
    state["latent_scale"] = torch.tensor(float(CONFIG["scale_factor"]))
    if networks.contexts is not None:
        state["contexts"] = torch.zeros(shapes["contexts"])
    networks.load_state_dict(state, assign=True)
    return networks.eval().requires_grad_(False)


@cache
def released(variant: str) -> SgdmNetworks:
    return build(case_config(variant), seeded(shapes_of(variant), variant))


def fresh(variant: str) -> SgdmNetworks:
    """Networks of a variant that a test may change."""
    return build(case_config(variant), seeded(shapes_of(variant), variant))


def full_adapter(variant: str) -> nn.Module:
    config = VARIANTS[variant]
    with torch.device("meta"):
        networks = SgdmNetworks(config)
    names = {n: t for n, t in reference_names(networks).items() if n[:8] == "adapter."}
    shapes = {n: tuple(t.shape) for n, t in networks.state_dict().items()}
    weights = seeded({names[n]: list(shapes[n]) for n in names})
    adapter = networks.adapter
    state = rename(weights, names, shapes)
    adapter.load_state_dict(
        {n.removeprefix("adapter."): t for n, t in state.items()}, assign=True
    )
    return adapter.eval()


def released_unet() -> SgdmNetworks:
    """Networks whose U-Net alone has weights."""
    with torch.device("meta"):
        networks = SgdmNetworks(VARIANTS["real"])
    names = {n: t for n, t in reference_names(networks).items() if n[:5] == "unet."}
    state = networks.state_dict()
    for name, theirs in names.items():
        values = name_seeded_tensor(SEED_PREFIX + theirs, state[name].shape)
        part = {name: torch.from_numpy(values)}
        networks.load_state_dict(part, strict=False, assign=True)
    return networks.eval()


@cache
def flow(kind: str) -> StyleFlow:
    weights = flow_weights(CASE["shapes"]["flow"], STORED[f"flow/{kind}/perm"])
    module = StyleFlow(flow_config(weights))
    module.load_state_dict(weights)
    return module.eval().requires_grad_(False)


def flow_weights(shapes: Mapping[str, Any], perm: np.ndarray | None = None) -> Weights:
    found: Weights = {}
    for name, shape in shapes.items():
        if match := re.fullmatch(r"flows\.(\d+)\.(inv_)?perm", name):
            k = int(match[1]) // 2
            order = np.arange(shape[0]) if perm is None else perm[k]
            found[name] = torch.from_numpy(np.argsort(order) if match[2] else order)
            continue
        values = torch.from_numpy(name_seeded_tensor(SEED_PREFIX + name, shape))
        found[name] = values * np.float32(0.1) if ".net.4." in name else values
    return flow_tensors(found, "case")


def load(name: str) -> Tensor:
    if name not in STORED:
        pytest.skip(f"the case holds no '{name}', which this tensor is made from")
    return torch.from_numpy(STORED[name])
