"""SGDM against the golden vectors of the authors' official code.

Every stored tensor that is no input is one test; weights are made from the released
parameter names and come in through the converter.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsupres.checkpoints.convert.sgdm_names import config_of, reference_names
from rsupres.families.sgdm.config import VARIANTS
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.prompts import prompt_number, prompt_text
from rsupres.families.sgdm.style import FlowConfig, StyleFlow
from rsupres.training.families.sgdm.initialise import trains_in_stage1
from tests.helpers import shared_data
from tests.parity.golden import check, slow_unless
from tests.parity.sgdm_answers import ANSWERS, full_features
from tests.parity.sgdm_networks import (
    CASE,
    CONFIG,
    STORED,
    case_config,
    flow_weights,
    load,
    plain_names,
    present,
    released,
    released_unet,
    shapes_of,
)

STRICT = CASE["tolerances"]["strict"]["all float32 tensors"]
SCHEDULE = CASE["tolerances"]["pass"]["schedule_float64"]

INPUTS = re.compile(
    r"(full/)?in/\w+|buffer/.+|train/noise|color/(content|style)|flow/\w+/(eps|x|perm)"
    r"|probe/(\w+_in)|vae/(noise|decode_in)|\w+/(plain|guide|sample)/(x_T|noises)"
)

RELEASED_GROUPS = {
    "real": ("adapter_real", "trainable_real"),
    "simu": ("adapter_simu", "trainable_simu"),
    "simu_nomap": ("adapter_simu_no_map", None),
}


@cache
def released_keys() -> dict[str, Any]:
    keys = json.loads(shared_data("sgdm_keys_full.json", kind="specs").read_text())
    return dict(keys)


@pytest.mark.parametrize("variant", slow_unless([*RELEASED_GROUPS], ["real"]))
def test_every_variant_has_the_released_names_and_sizes(variant: str) -> None:
    keys, (adapter, trainable) = released_keys(), RELEASED_GROUPS[variant]
    counts = keys["counts"]
    with torch.device("meta"):
        networks = SgdmNetworks(VARIANTS[variant])
    names = reference_names(networks)
    state = networks.state_dict()
    theirs = {names[n]: list(state[n].shape) for n in names}
    wanted = keys["unet"] | keys["vae"] | keys[adapter]
    assert set(theirs) == set(wanted)
    assert [n for n in wanted if squeeze(theirs[n]) != squeeze(wanted[n])] == []
    assert count(networks.adapter) == counts[adapter]
    assert count(networks.unet) == counts["unet"]
    assert count(networks.autoencoder) == counts["vae"]
    parameters = networks.named_parameters()
    trains = sum(p.numel() for n, p in parameters if trains_in_stage1(n))
    assert trains == counts["unet_attn_trainable"] + counts[adapter]
    if trainable is not None:
        assert trains == counts[trainable]
    assert config_of(wanted) == VARIANTS[variant]


def test_the_style_flow_has_the_released_names_and_sizes() -> None:
    keys = released_keys()
    assert count(StyleFlow(FlowConfig())) == keys["counts"]["flow_each"]
    assert set(flow_weights(keys["flow"])) == set(StyleFlow(FlowConfig()).state_dict())


@pytest.mark.parametrize("number", range(len(CASE["prompts"])))
def test_prompt_follows_the_colours_of_the_map(number: int) -> None:
    case = CASE["prompts"][number]
    key = next(k for k in case if k.startswith("colours_present"))
    background = [int(v) for v in key.split("_")[-3:]]
    chart = np.empty((3, 4, 8), np.uint8)
    chart[:] = np.array(background, np.uint8)[:, None, None]
    for k, colour in enumerate(case[key]):
        chart[:, k % 4, k] = colour
    assert prompt_text(prompt_number(chart)) == case["prompt"]


def test_case_groups_are_known_and_their_shapes_are_ours() -> None:
    adapters = {f"adapter_{v}" for v in VARIANTS}
    assert set(CASE["shapes"]) <= {"flow", "vae", "unet", *adapters}
    for variant in present():
        networks = released(variant)
        names = set(reference_names(networks).values())
        assert names == set(plain_names(shapes_of(variant)))


def test_configuration_is_read_off_names_and_shapes() -> None:
    for variant in present():
        shapes = plain_names(shapes_of(variant))
        assert config_of(shapes, CONFIG["unet"]["num_head_channels"]) == (
            case_config(variant)
        )


OUTPUTS = sorted(name for name in STORED if not INPUTS.fullmatch(name))
CASES_RUN = [n for n in OUTPUTS if not n.startswith("full/") or "/adapter/" in n]
# The released size and the training run for the real variant in `make test`.
REPEATED = re.compile(r"full/simu/|simu(_nomap)?/train/")


@pytest.mark.parametrize(
    "name", slow_unless(CASES_RUN, {n for n in CASES_RUN if not REPEATED.match(n)})
)
def test_tensor_is_reproduced(name: str) -> None:
    compare(name, answer(name))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(
    not any(n.startswith("full/unet") for n in OUTPUTS), reason="not in this selection"
)
def test_released_size_is_reproduced() -> None:
    """One U-Net of 3.5 GB at a time."""
    networks = released_unet()
    given = {k: load(f"full/in/{k}") for k in ("x_t", "t", "context")}
    with torch.no_grad():
        run = (given["x_t"], given["t"], given["context"])
        plain = networks.predict(*run, [])
        compare("full/unet/eps_no_features", plain)
        if "full/real/unet/eps" in STORED:
            features = [CONFIG["scale_factor"] * f for f in full_features("real")]
            compare("full/real/unet/eps", networks.predict(*run, features))
    del networks
    gc.collect()


def answer(name: str) -> Tensor | np.ndarray:
    """Return what our code computes for a stored tensor's name."""
    for pattern, function in ANSWERS.items():
        if match := re.fullmatch(pattern, name):
            return function(**match.groupdict())
    raise AssertionError(f"no test knows the tensor '{name}'")


def compare(name: str, got: Tensor | np.ndarray) -> None:
    wanted = STORED[name]
    if wanted.dtype == np.uint8:
        check(name, got, wanted, 1.0)
    elif wanted.dtype.kind == "i":
        check(name, got, wanted, 0.0)
    else:
        relative = SCHEDULE if wanted.dtype == np.float64 else STRICT
        check(name, got, wanted, relative * float(np.abs(wanted).max()))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def squeeze(shape: Any) -> list[int]:
    return [side for side in shape if side != 1]


def _names_of_inputs() -> Iterator[str]:
    return (name for name in STORED if INPUTS.fullmatch(name))


def test_every_input_has_a_use() -> None:
    known = {"in/hr", "in/sr", "in/map", "in/style", "in/x_t", "in/t", "in/context"}
    for name in _names_of_inputs():
        head = name.removeprefix("full/")
        assert not head.startswith("in/") or head in known
