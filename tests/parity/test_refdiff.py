"""Ref-Diff against the golden vectors of the authors' published network."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rsupres.checkpoints.convert.refdiff import config_of
from rsupres.diffusion.edm import karras_sigmas, sample_heun
from rsupres.diffusion.precondition import draw_sigma, edm_coefficients, edm_weight
from rsupres.families.refdiff.config import RELEASED
from rsupres.families.refdiff.images import start_image, to_uint8
from rsupres.families.refdiff.network import parameter_shapes
from rsupres.training.families.refdiff.losses import released_loss
from tests.helpers import shared_data
from tests.parity.golden import slow_unless
from tests.parity.refdiff_case import (
    CASES,
    CONFIG,
    PASS,
    clean,
    compare,
    config_of_case,
    cut,
    denoiser,
    given,
    golden,
    guidance,
    names_in,
    network,
    noisy,
    noisy_at_hooks,
    sampling,
    scaled_at_hooks,
    unit,
)

GROUPS = {"in", "pre", "f", "d", "schedule", "sample", "rng", "train"}


def test_every_tensor_belongs_to_a_group_that_is_compared() -> None:
    assert {name.split("/")[0] for name in CASES.tensors} <= GROUPS
    for name in CASES.tensors:
        head, *rest = name.split("/")
        if head == "sample":
            sampling(rest[0])
            assert rest[1] in SAMPLE_PARTS
        elif head == "schedule":
            assert rest[0].startswith("edm_")
        elif head == "d":
            assert rest[0] == "mixed" or rest[0].startswith("sigma_")
            assert rest[1] in ("x", "out")
        elif head in KNOWN_NAMES:
            assert rest[0] in KNOWN_NAMES[head], f"no test knows {name}"
        else:
            assert head == "f"
            known = {"x", "x_scaled", "c_noise", "sigma", "out"}
            assert rest[0] in known | CASES.description["stats"].keys()


KNOWN_NAMES = {
    "in": {"hr_u8", "ref_u8", "lr_u8", "mask_u8", "latents"},
    "pre": {"lr_up_infer", "ref", "mask", "lr_up_train_u8"},
    "rng": {"first_draw_f64_corner"},
    "train": {
        "rnd_normal",
        "noise",
        "sigma",
        "weight",
        "loss_sum_per_sample",
        "objective",
        "grad_l2",
    },
}
SAMPLE_PARTS = {"noise", "net_sigmas", "net_x_slices", "out_f64", "out_u8"}


def test_names_are_those_of_the_case() -> None:
    shapes = parameter_shapes(config_of_case())
    stated = CASES.description["shapes"]
    assert {f"model.{k}": list(v) for k, v in shapes.items()} == stated
    assert sum(map(math.prod, shapes.values())) == CONFIG["n_params"]
    assert config_of(shapes) == replace(
        config_of_case(), attention=config_of(shapes).attention
    )


def test_released_configuration_has_116_740_739_parameters_in_690_tensors() -> None:
    shapes = parameter_shapes(RELEASED)
    assert len(shapes) == 690
    assert sum(map(math.prod, shapes.values())) == 116_740_739
    assert config_of(shapes) == replace(RELEASED, attention=())
    table = shared_data("refdiff_keys_full.json", kind="specs")
    stated = json.loads(table.read_text())["parameters"]
    assert {f"model.{k}": list(v) for k, v in shapes.items()} == stated


def test_images_enter_as_the_released_code_prepares_them() -> None:
    tolerance = PASS["pre/* float32"]
    entered = guidance()
    for name, got in zip(("lr_up_infer", "ref", "mask"), entered, strict=True):
        if f"pre/{name}" in CASES.tensors:
            compare(f"pre/{name}", got, tolerance)


@pytest.mark.parametrize("name", names_in("schedule/"))
def test_noise_levels_are_those_of_edm(name: str) -> None:
    steps = int(name.rsplit("_", 1)[1])
    compare(name, torch.from_numpy(karras_sigmas(steps)), 1e-12)


@cache
def traced() -> dict[str, Tensor]:
    """Return every module's output in one call of F at the two noise levels.

    What the network fuses (the branches of a modulation, the embeddings) is taken apart
    here, from the inputs that reached it: so both ways are compared.
    """
    unet = network()
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            found[name] = out
            if name.endswith((".sft0", ".sft1")):
                found.update(branches(name, module, inputs))

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in unet.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            c_noise = golden("f/c_noise")
            maps = unet.maps(guidance())
            found["out"] = unet(scaled_at_hooks(), unet.shifts(c_noise), maps)
    finally:
        for handle in handles:
            handle.remove()
    embedded = functional.silu(found["map_layer1"])
    for name, module in unet.named_modules():
        if name.endswith(".affine"):
            found[name] = module(embedded)
    return found


def branches(
    name: str, sft: Any, inputs: tuple[Tensor, ...]
) -> Iterator[tuple[str, Tensor]]:
    both = torch.cat(inputs, 1)
    for branch in ("mul", "add"):
        first = getattr(sft, f"{branch}_conv1")(both)
        hidden = functional.leaky_relu(first, 0.1)
        yield f"{name}.{branch}_conv1", first
        yield f"{name}.lrelu", hidden
        yield f"{name}.{branch}_conv2", getattr(sft, f"{branch}_conv2")(hidden)


@pytest.mark.parametrize("name", names_in("f/"))
def test_network_repeats_every_module(name: str) -> None:
    tolerance = PASS["f/* and d/*"]
    module = name.removeprefix("f/")
    sigma = golden("f/sigma")
    rows = edm_coefficients(sigma)
    if module == "sigma":
        assert sigma.tolist() == pytest.approx(CONFIG["hook_sigma"])
    elif module == "c_noise":
        compare(name, rows.c_noise, tolerance)
    elif module == "x":
        compare(name, noisy(sigma), tolerance)
    elif module == "x_scaled":
        compare(name, scaled_at_hooks(), tolerance)
    elif module == "map_noise":
        # The reference swaps its halves (cos, sin) after the module.
        unet = network()
        seen: list[Tensor] = []
        handle = unet.map_layer0.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0])
        )
        with torch.no_grad():
            unet.shifts(golden("f/c_noise"))
        handle.remove()
        compare(name, torch.cat(seen[0].chunk(2, 1)[::-1], 1), tolerance)
    else:
        compare(
            name,
            cut(module, traced()[module]) if module != "out" else traced()[module],
            tolerance,
        )


@pytest.mark.slow
def test_channels_together_give_the_same_picture() -> None:
    """The fast layout sums in another order: 8.8e-6 were seen, 3.5e-6 without it."""
    unet = copy.deepcopy(network()).to(memory_format=torch.channels_last)
    with torch.no_grad():
        shifts = unet.shifts(golden("f/c_noise"))
        out = unet(scaled_at_hooks(), shifts, unet.maps(guidance()))
    assert out.is_contiguous(memory_format=torch.channels_last)
    compare("f/out", out, 5e-5)


@pytest.mark.parametrize(
    "name",
    slow_unless(names_in("d/"), []),
)
def test_denoiser_repeats_every_noise_level(name: str) -> None:
    tolerance = PASS["f/* and d/*"]
    kind, part = name.split("/")[1:]
    if kind == "mixed":
        x, sigma = noisy_at_hooks(), golden("f/sigma")
    else:
        levels = [float(kind.removeprefix("sigma_"))] * CONFIG["batch"]
        sigma = torch.tensor(levels)
        x = given(f"d/{kind}/x", lambda: noisy(sigma), "in/hr_u8", "in/latents")
    if part == "x":
        compare(name, x, tolerance)
        return
    with torch.no_grad():
        compare(name, denoiser().at(x, sigma), tolerance)


SAMPLES = sorted({n.split("/")[1] for n in names_in("sample/")})


class _EnoughError(Exception):
    """Ends a sampling run of which only the first calls are looked at."""


def sample(name: str, most: int) -> tuple[list[tuple[float, Tensor]], Tensor | None]:
    """Return the network's first `most` calls (level, pixels); of all, the result."""
    how = sampling(name)
    noise = CASES.tensors.get(f"sample/{name}/noise")
    if how.churn is not None and noise is None:
        pytest.skip(f"sample/{name} lacks the noise that it was made with")
    calls: list[tuple[float, Tensor]] = []
    own = denoiser()

    def watched(x: Tensor, sigma: float) -> Tensor:
        calls.append((sigma, x[:, :, ::4, ::4]))
        if len(calls) == most:
            raise _EnoughError
        return own(x, sigma)

    sigmas = karras_sigmas(how.steps)
    start = start_image(
        how.start,
        sigmas[0],
        guidance().lr.double(),
        lambda: golden("in/latents").double(),
    )
    draws = None if noise is None else lambda k: torch.from_numpy(noise[k]).double()
    with torch.no_grad(), contextlib.suppress(_EnoughError):
        return calls, sample_heun(watched, start, sigmas, how.churn, draws)
    return calls, None


def compare_calls(name: str, calls: list[tuple[float, Tensor]]) -> None:
    """Hold calls against the first ones of the golden case."""
    parts = {
        "net_sigmas": torch.tensor([sigma for sigma, _ in calls], dtype=torch.float64),
        "net_x_slices": torch.stack([x for _, x in calls]),
    }
    limits = (1e-12, PASS["sample/*/out_f64 and net_x_slices"])
    for (part, got), tolerance in zip(parts.items(), limits, strict=True):
        if f"sample/{name}/{part}" in CASES.tensors:
            compare(f"sample/{name}/{part}", got, tolerance, first=len(calls))


@pytest.mark.parametrize("name", slow_unless(SAMPLES, ["lr_init_det"]))
def test_the_first_steps_of_sampling_repeat_every_call(name: str) -> None:
    calls, _ = sample(name, most=2)  # both of a step of Heun's
    assert len(calls) == 2
    compare_calls(name, calls)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_sampling_repeats_every_call(name: str) -> None:
    calls, out = sample(name, most=1000)
    assert out is not None
    assert len(calls) == 2 * sampling(name).steps - 1
    compare_calls(name, calls)
    head = f"sample/{name}"
    if f"{head}/out_f64" in CASES.tensors:
        compare(f"{head}/out_f64", out, PASS["sample/*/out_f64 and net_x_slices"])
    if f"{head}/out_u8" in CASES.tensors:
        off = (to_uint8(out).int() - golden(f"{head}/out_u8").int()).abs()
        assert int(off.max()) <= 1
        assert float((off > 0).float().mean()) < 1e-3


def test_noise_is_the_stream_of_one_generator_a_sample() -> None:
    """Without it the stored noise would prove nothing of the released seeds."""
    corner = golden("rng/first_draw_f64_corner")
    noise = golden("sample/lr_init_churn/noise")
    for k, seed in enumerate(CONFIG["seeds"]):
        stream = torch.Generator().manual_seed(seed % 2**32)
        shape = noise.shape[2:]
        draws = [
            torch.randn(shape, generator=stream, dtype=torch.float64) for _ in noise
        ]
        assert torch.equal(draws[0][:, :4, :4], corner[k])
        assert torch.equal(torch.stack(draws).float(), noise[:, k])


@cache
def training() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return loss per sample, objective, and gradients by name."""
    unet = network()
    sigma = draw_sigma(golden("train/rnd_normal").flatten())
    enlarged = unit(golden("pre/lr_up_train_u8")) * 2 - 1
    entered = guidance()._replace(lr=enlarged)
    noise = golden("train/noise")
    per_sample = released_loss(unet, clean(), entered, sigma, noise)
    objective = per_sample.sum() / 256
    names = [name for name, _ in unet.named_parameters()]
    found = torch.autograd.grad(objective, list(unet.parameters()))
    return per_sample, objective, dict(zip(names, found, strict=True))


TRAINING = names_in("train/")
# These need gradients of the whole network.
LARGE = {f"train/{part}" for part in ("grad_l2", "loss_sum_per_sample", "objective")}


@pytest.mark.parametrize("name", slow_unless(TRAINING, {*TRAINING} - LARGE))
def test_training_repeats_loss_and_gradients(name: str) -> None:
    part = name.removeprefix("train/")
    if part in ("rnd_normal", "noise"):
        assert golden(name).isfinite().all()
    elif part in ("sigma", "weight"):
        sigma = draw_sigma(golden("train/rnd_normal").flatten())
        compare(name, sigma if part == "sigma" else edm_weight(sigma), 1e-6)
    elif part == "grad_l2":
        wanted = golden(name)
        norms = [
            training()[2][key.removeprefix("model.")].double().norm()
            for key in CONFIG["grad_names"]
        ]
        off = ((torch.stack(norms) - wanted) / wanted).abs()
        print(f"{name}: worst {float(off.max()):.3g}, median {float(off.median()):.3g}")
        assert float(off.max()) <= PASS["train/grad_l2 (relative, each; float32)"]
        assert float(off.median()) <= PASS["train/grad_l2 (median; float32)"]
    else:
        assert part in ("loss_sum_per_sample", "objective")
        per_sample, objective, _ = training()
        got = per_sample if part == "loss_sum_per_sample" else objective.reshape(1)
        compare(name, got, PASS["train/loss,objective"])
