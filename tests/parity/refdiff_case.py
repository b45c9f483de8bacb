"""The golden case of Ref-Diff: its network, inputs, and comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from rsupres.checkpoints.convert.refdiff import own_names
from rsupres.diffusion.edm import Churn
from rsupres.diffusion.precondition import edm_coefficients
from rsupres.families.refdiff.config import RELEASED, RefDiffConfig
from rsupres.families.refdiff.images import enlarge_lr, raw_values
from rsupres.families.refdiff.network import Guidance, RefDiffUNet
from rsupres.families.refdiff.resolver import EdmDenoiser
from tests.parity.golden import Cases, name_seeded_tensor

CASES = Cases("refdiff")
CONFIG = CASES.description["config"]
PASS = CASES.description["tolerances"]["pass"]


class Sampling(NamedTuple):
    """How the samples of one name are made."""

    start: str
    steps: int
    churn: Churn | None


def sampling(name: str) -> Sampling:
    known = {
        "noise_init_det": Sampling("noise", CONFIG["deterministic_steps"], None),
        "lr_init_det": Sampling("lr", CONFIG["deterministic_steps"], None),
        "lr_init_churn": Sampling("lr", CONFIG["churn_steps"], Churn(40.0)),
    }
    assert name in known, f"no test knows the sampling '{name}'"
    return known[name]


def config_of_case() -> RefDiffConfig:
    return replace(
        RELEASED,
        nominal=CONFIG["nominal_img_resolution"],
        channels=CONFIG["model_channels"],
        mult=tuple(CONFIG["channel_mult"]),
        blocks=CONFIG["num_blocks"],
        attention=tuple(CONFIG["attn_resolutions"]),
    )


@cache
def network() -> RefDiffUNet:
    """The network with name-seeded weights, through the converter's names."""
    shapes = CASES.description["shapes"]
    weights = {
        name: torch.from_numpy(name_seeded_tensor(name, shape))
        for name, shape in shapes.items()
    }
    unet = RefDiffUNet(config_of_case()).eval()
    unet.load_state_dict(own_names(weights))
    return unet


def golden(name: str) -> Tensor:
    """Return a stored tensor; the test is skipped where the folder lacks it."""
    if name not in CASES.tensors:
        pytest.skip(f"{CASES.folder} holds no {name}")
    return torch.from_numpy(CASES.tensors[name])


def names_in(prefix: str) -> list[str]:
    return sorted(name for name in CASES.tensors if name.startswith(prefix))


def given(name: str, make: Callable[[], Tensor], *needs: str) -> Tensor:
    """Return what follows from other tensors, else (those missing) the stored one."""
    return make() if CASES.tensors.keys() >= set(needs) else golden(name)


def guidance() -> Guidance:
    size = tuple(CONFIG["image_HxW"])
    return Guidance(
        given(
            "pre/lr_up_infer",
            lambda: enlarge_lr(unit(golden("in/lr_u8")), size, "nearest") * 2 - 1,
            "in/lr_u8",
        ),
        given("pre/ref", lambda: unit(golden("in/ref_u8")) * 2 - 1, "in/ref_u8"),
        given("pre/mask", lambda: raw_values(golden("in/mask_u8")), "in/mask_u8"),
    )


def clean() -> Tensor:
    return unit(golden("in/hr_u8")) * 2 - 1


def noisy(sigma: Tensor) -> Tensor:
    """Return the noisy image at one noise level a sample."""
    return clean() + sigma[:, None, None, None] * golden("in/latents")


def noisy_at_hooks() -> Tensor:
    return given("f/x", lambda: noisy(golden("f/sigma")), "in/hr_u8", "in/latents")


def scaled_at_hooks() -> Tensor:
    c_in = edm_coefficients(golden("f/sigma")).c_in
    return noisy_at_hooks() * c_in[:, None, None, None]


@cache
def denoiser() -> EdmDenoiser:
    unet = network()
    with torch.no_grad():
        return EdmDenoiser(unet, unet.maps(guidance()))


def unit(values: Tensor) -> Tensor:
    return values.float() / 255.0


def compare(name: str, got: Tensor, tolerance: float, first: int | None = None) -> None:
    """Hold a tensor against the stored one, or against the first rows of that."""
    wanted = golden(name).double()[:first]
    assert tuple(got.shape) == tuple(wanted.shape), f"{name}: {tuple(got.shape)}"
    scale = float(wanted.abs().max()) or 1.0
    worst = float((got.detach().double() - wanted).abs().max()) / scale
    print(f"{name}: worst error {worst:.3g}, {worst / tolerance:.3g} of tolerance")
    assert worst <= tolerance, f"{name}: {worst:.3g} > {tolerance:.3g}"


def cut(name: str, whole: Tensor) -> Tensor:
    """Take the slice of a module's output that is stored."""
    text = CASES.description["stats"][name].get("slice")
    if text is None:
        return whole
    steps = [int(part.strip(" :[]") or 1) for part in text.split(",")]
    return whole[tuple(slice(None, None, step) for step in steps)]
