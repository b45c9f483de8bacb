"""E2DiffSR against the golden vectors of its parts' public code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rsupres.blocks.attention import SpatialAttention
from rsupres.blocks.embeddings import sinusoidal_embedding
from rsupres.blocks.resample import centre_positions, make_taps, resample
from rsupres.blocks.resnet import Downsample, ResBlock, Upsample
from rsupres.datasets.chips import to_uint8
from rsupres.diffusion.samplers import sample_posterior
from rsupres.diffusion.schedules import Posterior, linear_betas, sqrt_linear_betas
from rsupres.evaluation.report import score
from rsupres.evaluation.resize import resize_bicubic
from rsupres.families.e2diffsr.branch import CSUM, IMDB
from rsupres.families.e2diffsr.config import PAPER, enlarge_to_working_grid
from rsupres.families.e2diffsr.latent import (
    Denoiser,
    Encoder,
    PriorDecoder,
    kl_per_sample,
    split_moments,
)
from rsupres.families.e2diffsr.network import E2DiffSRNetworks
from rsupres.training.adversarial import (
    PatchDiscriminator,
    hinge_discriminator,
    hinge_generator,
)
from tests.parity.golden import Cases, check, fill_by_name

Shapes = dict[str, list[int]]
Runner = Callable[[str, dict[str, Any], Cases], None]
CASES = Cases("e2diffsr")
TABLES = {
    name: table
    for name, table in CASES.description["diffusion_schedule_float64"].items()
    if isinstance(table, dict)
}


@pytest.mark.parametrize("name", sorted(CASES.description["cases"]))
def test_case_is_reproduced(name: str) -> None:
    case = CASES.description["cases"][name]
    assert case["kind"] in RUNNERS, f"no test knows the kind '{case['kind']}'"
    RUNNERS[case["kind"]](name, case, CASES)


def test_every_tensor_belongs_to_a_case_that_is_run() -> None:
    known = {*CASES.description["cases"], "ideal"}
    assert {name.split("/")[0] for name in CASES.tensors} <= known


@pytest.mark.parametrize("schedule", sorted(TABLES))
def test_schedule_equals_the_float64_table(schedule: str) -> None:
    table = TABLES[schedule]
    posterior = _posterior(table["parameters"])
    columns = {
        "beta": posterior.beta,
        "alpha_bar": posterior.alpha_bar,
        "mean_from_eps__coef_zt": posterior.mean_zt,
        "mean_from_eps__coef_eps": posterior.mean_eps,
        "posterior_mean__coef_z0": posterior.posterior_z0,
        "posterior_mean__coef_zt": posterior.posterior_zt,
        "posterior_variance": posterior.variance,
    }
    for name, column in columns.items():
        check(f"{schedule} {name}", column, np.array(table[name]), 1e-12)


@pytest.mark.parametrize(
    "schedule",
    sorted({n.split("/")[1] for n in CASES.tensors if n.startswith("ideal/l")}),
)
@pytest.mark.parametrize("prediction", ["eps", "x0"])
def test_ideal_predictor_returns_the_clean_latent(
    schedule: str, prediction: Any
) -> None:
    """The states of every step are golden for an ideal predictor at the current z_t."""
    posterior = _posterior(TABLES[schedule]["parameters"])
    golden = CASES.group("ideal")
    z0 = torch.from_numpy(golden["z0"])
    states: dict[int, torch.Tensor] = {}

    def ideal(z: torch.Tensor, t: int) -> torch.Tensor:
        states[t] = z
        kept = float(posterior.alpha_bar[t - 1])
        return z0 if prediction == "x0" else (z - kept**0.5 * z0) / (1 - kept) ** 0.5

    start = torch.from_numpy(golden[f"{schedule}/z_T"])
    end = sample_posterior(ideal, start, posterior, prediction)
    check("end", end, golden["z0"], 1e-12)
    for step in range(1, posterior.steps):
        wanted = golden[f"{schedule}/mean_step_z{step}"]
        check(f"step {step}", states[step], wanted, 1e-12)
    noise = torch.from_numpy(golden["eps"]) * 3
    from_noise = sample_posterior(ideal, noise, posterior, prediction)
    check("from pure noise", from_noise, golden["z0"], 1e-12)


def test_paper_configuration_counts_its_parameters() -> None:
    networks = E2DiffSRNetworks(PAPER)
    count = {
        name: sum(p.numel() for p in getattr(networks, name).parameters())
        for name in ("condnet", "unet", "depsr", "dpencoder")
    }
    assert count["condnet"] == 6_071_620
    assert count["unet"] == 18_290_692
    assert count["dpencoder"] == 6_082_568
    assert count["condnet"] + count["unet"] + count["depsr"] == 31_265_886


def _run_module(build: Callable[[dict[str, Any], Shapes], nn.Module]) -> Runner:
    """Return a runner that fills a module by name and compares one output."""

    def run(name: str, case: dict[str, Any], cases: Cases) -> None:
        module = _filled(build(case["args"], case["param_shapes"]), case)
        given = cases.group(f"{name}/in")
        inputs = [torch.from_numpy(given[k]) for k in case["inputs"]]
        with torch.no_grad():
            out = module(*inputs)
        _check_outputs(name, case, cases, {"out": out})

    return run


def _run_encoder(name: str, case: dict[str, Any], cases: Cases) -> None:
    args = case["args"]
    module = _filled(_build_encoder(args, case["param_shapes"]), case)
    with torch.no_grad():
        out = module(torch.from_numpy(cases.tensors[f"{name}/in/x"]))
    outputs = {"out": out}
    if args["double_z"]:
        mean, logvar = split_moments(out)
        outputs["mean"], outputs["std"] = mean, (0.5 * logvar).exp()
        outputs["kl_per_sample"] = kl_per_sample(mean, logvar)
    _check_outputs(name, case, cases, outputs)


def _run_decoder(name: str, case: dict[str, Any], cases: Cases) -> None:
    # The reference decoder ends in a head; the maps are taken before it.
    shapes = {
        key: shape
        for key, shape in case["param_shapes"].items()
        if not key.startswith(("norm_out.", "conv_out."))
    }
    levels = _count(shapes, "up.{}.block.0.conv1.weight")
    module = PriorDecoder(
        shapes["conv_in.weight"][1],
        shapes["conv_in.weight"][0],
        levels=levels,
        blocks=_count(shapes, "up.0.block.{}.conv1.weight"),
        mid_attention="mid.attn_1.q.weight" in shapes,
    )
    _filled(module, {**case, "param_shapes": shapes})
    with torch.no_grad():
        maps = module(torch.from_numpy(cases.tensors[f"{name}/in/z"]))
    _check_outputs(name, case, cases, {f"h{k + 1}": h for k, h in enumerate(maps)})


def _run_csum(name: str, case: dict[str, Any], cases: Cases) -> None:
    args, shapes = case["args"], case["param_shapes"]
    hidden = shapes["fuse.0.weight_v"][0]
    module = CSUM(
        args["channels"], args["levels"], hidden, s_max=2 ** (args["levels"] - 1)
    )
    _filled(module, case)
    size = tuple(args["out_size"])
    x = torch.from_numpy(cases.tensors[f"{name}/in/x"])
    with torch.no_grad():
        _check_outputs(name, case, cases, {"out": module(x, size)})
        _check_outputs(name, case, cases, {"out": module(x, size, rows_at_once=5)})


def _run_unet(name: str, case: dict[str, Any], cases: Cases) -> None:
    shapes = case["param_shapes"]
    levels = _count(shapes, "down.{}.block.0.conv1.weight")
    base = shapes["conv_in.weight"][0]
    module = Denoiser(
        shapes["conv_out.weight"][0],
        base=base,
        mult=_multipliers(shapes, base),
        blocks=_count(shapes, "down.0.block.{}.conv1.weight"),
        attention_levels=[
            k for k in range(levels) if f"down.{k}.attn.0.q.weight" in shapes
        ],
        mid_attention="mid.attn_1.q.weight" in shapes,
        scaled=False,
    )
    _filled(module, case)
    given = {k: torch.from_numpy(v) for k, v in cases.group(f"{name}/in").items()}
    with torch.no_grad():
        out = module(given["z"], given["c"], given["t"])
    _check_outputs(name, case, cases, {"out": out})


def _run_embedding(name: str, case: dict[str, Any], cases: Cases) -> None:
    values = torch.from_numpy(cases.tensors[f"{name}/in/values"])
    out = sinusoidal_embedding(values, case["args"]["dim"])
    _check_outputs(name, case, cases, {"out": out})


def _run_hinge(name: str, case: dict[str, Any], cases: Cases) -> None:
    given = {k: torch.from_numpy(v) for k, v in cases.group(f"{name}/in").items()}
    real, fake = given["logits_real"], given["logits_fake"]
    got = {
        "d_loss": hinge_discriminator(real, fake),
        "g_loss": hinge_generator(fake),
    }
    assert set(case["outputs"]) == set(got)
    for key, value in got.items():
        check(f"{name} {key}", value, np.array(case["outputs"][key]), 1e-12)


def _run_reverse_toy(name: str, case: dict[str, Any], cases: Cases) -> None:
    k0, k1, k2 = case["args"]["k"]
    start = torch.from_numpy(cases.tensors[f"{name}/in/z_T"])
    cond = torch.from_numpy(cases.tensors[f"{name}/in/c"])
    for schedule, stated in case["outputs"].items():
        posterior = _posterior(TABLES[schedule]["parameters"])
        states: dict[int, torch.Tensor] = {}

        def predict(
            z: torch.Tensor, t: int, states: dict[int, torch.Tensor] = states
        ) -> torch.Tensor:
            states[t] = z
            return torch.tanh(k0 * z + k1 * t + k2 * cond)

        states[0] = sample_posterior(predict, start, posterior)
        atol = 1e-9 * stated["abs_max"]
        for step in range(posterior.steps):
            wanted = cases.tensors[f"{name}/out/{schedule}_z{step}"]
            check(f"{name} {schedule} z{step}", states[step], wanted, atol)


def _run_resize(name: str, case: dict[str, Any], cases: Cases) -> None:
    """Pillow makes the LR image; ours makes up(LR), whole and by absolute taps."""
    from PIL import Image

    args = case["args"]
    hr = cases.tensors[f"{name}/in/hr_u8"]
    low = Image.fromarray(hr).resize(args["lr"][::-1], Image.Resampling.BICUBIC)
    lr_u8 = np.asarray(low)
    check(f"{name} lr_u8", lr_u8, cases.tensors[f"{name}/out/lr_u8"], 0.0)
    lr = torch.from_numpy(lr_u8.copy()).permute(2, 0, 1)[None].float() / 255.0
    wanted = cases.tensors[f"{name}/out/lr_up"]
    atol = case["outputs"]["lr_up"]["atol"]
    rows, cols = args["working_grid"]
    check(f"{name} lr_up", enlarge_to_working_grid(lr, (rows, cols)), wanted, atol)
    taps = [
        make_taps(
            centre_positions(0, n, lr.shape[axis] / n, 0.0),
            lr.shape[axis],
            "cubic",
            torch.device("cpu"),
        )
        for axis, n in ((2, rows), (3, cols))
    ]
    check(f"{name} lr_up by taps", resample(lr, taps[0], taps[1]), wanted, atol)
    _check_psnr(name, case["outputs"], args["crop_border"], hr, lr_u8)


def _check_psnr(
    name: str, stored: dict[str, Any], border: int, hr: np.ndarray, lr: np.ndarray
) -> None:
    """PSNR of both ways up from LR (h, w, 3), as `rsupres evaluate` measures it."""
    size = (hr.shape[0], hr.shape[1])
    small = lr.transpose(2, 0, 1)
    pillow = resize_bicubic(small, size)
    unit = torch.from_numpy(small.copy())[None].float() / 255.0
    enlarged = torch.nn.functional.interpolate(unit, size, mode="bicubic")
    figures = {
        "psnr_rgb_u8_cropped_pillow_bicubic_up": (pillow, border),
        "psnr_rgb_u8_cropped_torch_bicubic_up": (to_uint8(enlarged[0].numpy()), border),
        "psnr_rgb_u8_uncropped_pillow": (pillow, 0),
    }
    assert {key for key in stored if key.startswith("psnr")} == set(figures)
    truth = hr.transpose(2, 0, 1) / 255.0
    for key, (image, edge) in figures.items():
        found = score(image / 255.0, truth, 3.4, border=edge)["psnr"]
        # Measured: equal for Pillow, 2.4e-7 dB apart for torch.
        check(f"{name} {key}", np.array(found), np.array(stored[key]), 1e-6)


def _build_encoder(args: dict[str, Any], shapes: Shapes) -> nn.Module:
    base = shapes["conv_in.weight"][0]
    return Encoder(
        args["in"],
        shapes["conv_out.weight"][0],
        base=base,
        mult=_multipliers(shapes, base),
        blocks=_count(shapes, "down.0.block.{}.conv1.weight"),
        mid_attention="mid.attn_1.q.weight" in shapes,
    )


def _multipliers(shapes: Shapes, base: int) -> list[int]:
    levels = _count(shapes, "down.{}.block.0.conv1.weight")
    return [shapes[f"down.{k}.block.0.conv1.weight"][0] // base for k in range(levels)]


def _count(shapes: Shapes, pattern: str) -> int:
    """Return how many of pattern.format(0), pattern.format(1) .. exist."""
    n = 0
    while pattern.format(n) in shapes:
        n += 1
    return n


def _filled(module: nn.Module, case: dict[str, Any]) -> nn.Module:
    fill_by_name(module, case["param_shapes"], case.get("weight_name_prefix") or "")
    return module.eval()


def _check_outputs(
    name: str, case: dict[str, Any], cases: Cases, outputs: dict[str, torch.Tensor]
) -> None:
    stored = cases.group(f"{name}/out")
    assert set(stored) <= set(outputs), "the case holds an output that is not compared"
    assert stored, "the case holds no output"
    for key, wanted in stored.items():
        atol = case["outputs"][key]["atol"]
        check(f"{name} {key}", outputs[key], wanted, atol)


def _posterior(parameters: dict[str, Any]) -> Posterior:
    betas = {"linear": linear_betas, "sqrt_linear": sqrt_linear_betas}
    return Posterior.from_betas(
        betas[parameters["schedule"]](
            parameters["steps"], parameters["beta_first"], parameters["beta_last"]
        )
    )


RUNNERS: dict[str, Runner] = {
    "imdb": _run_module(lambda args, _: IMDB(args["channels"])),
    "csum": _run_csum,
    "ldm_resnet_block": _run_module(
        lambda args, _: ResBlock(args["in"], args["out"], args.get("temb"))
    ),
    "ldm_downsample": _run_module(lambda args, _: Downsample(args["channels"])),
    "ldm_upsample": _run_module(lambda args, _: Upsample(args["channels"])),
    "ldm_attn": _run_module(lambda args, _: SpatialAttention(args["channels"])),
    "ldm_encoder": _run_encoder,
    "ldm_decoder_features": _run_decoder,
    "ldm_unet": _run_unet,
    "patch_discriminator": _run_module(
        lambda _, shapes: PatchDiscriminator(shapes["main.0.weight"][0])
    ),
    "ldm_sinusoidal_embedding": _run_embedding,
    "hinge_gan_losses": _run_hinge,
    "reverse_process_toy_predictor": _run_reverse_toy,
    "resize_and_psnr": _run_resize,
}
