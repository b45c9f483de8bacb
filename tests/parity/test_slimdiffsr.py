"""SlimDiffSR against the golden vectors of the authors' published network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsupres.diffusion.schedules import sqrt_linear_betas
from rsupres.families.slimdiffsr.blocks import (
    DirectionSeparable,
    FrequencySeparable,
    GroupNorm,
    QueryAggregation,
    ResidualBlock,
    SpatialTransformer,
)
from rsupres.families.slimdiffsr.config import SlimDiffSRConfig
from rsupres.families.slimdiffsr.network import (
    DEAD,
    Downsample,
    SlimDiffSRNetwork,
    TinyDecoder,
    TinyEncoder,
    Trunk,
    Upsample,
)
from rsupres.families.slimdiffsr.released import match_colours, run_as_released
from rsupres.families.slimdiffsr.teacher import invert_variance
from rsupres.families.storage import shapes_of
from tests.helpers import shared_data
from tests.parity.golden import Cases, name_seeded_tensor, slow_unless

Case = dict[str, Any]
CASES = Cases("slimdiffsr")
BY_NAME: dict[str, Case] = {case["name"]: case for case in CASES.description["cases"]}


# pipeline_x4_pad and student_plain stay quick.
LARGE = {"pipeline_x4_512", "pipeline_x8_pad", "student_sharp"}


@pytest.mark.parametrize("name", slow_unless([*BY_NAME], BY_NAME.keys() - LARGE))
def test_case_is_reproduced(name: str) -> None:
    kinds = [kind for kind in RUNNERS if name.startswith(kind)]
    assert kinds, f"no test knows cases like '{name}'"
    RUNNERS[kinds[0]](BY_NAME[name])


def test_every_tensor_belongs_to_a_case_that_is_run() -> None:
    assert {name.split(".")[0] for name in CASES.tensors} <= BY_NAME.keys()


def test_student_has_the_released_names_and_shapes() -> None:
    shapes = full_shapes()
    dead = {name for name in shapes if name.startswith(DEAD)}
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    assert (len(shapes), sum(sizes.values())) == (596, 58_053_402)
    assert (len(dead), sum(sizes[name] for name in dead)) == (12, 2_078_600)
    with torch.device("meta"):
        live = shapes_of(SlimDiffSRNetwork(SlimDiffSRConfig()))
    assert live.keys() == shapes.keys() - dead
    published = shared_data("slimdiffsr_keys_full.json", kind="specs")
    described = json.loads(published.read_text())
    assert {k: list(v) for k, v in shapes.items()} == described["student"]
    assert dead == set(described["unused_at_inference"])


def full_shapes() -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):
        return shapes_of(SlimDiffSRNetwork(SlimDiffSRConfig(), dead=True))


def shapes_for(case: Case) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a case by names below its prefix."""
    head = f"{case['param_prefix']}." if case["param_prefix"] else ""
    named = case["params"]
    if isinstance(named, str):  # "those of slimdiffsr_keys_full.json that .."
        named = full_shapes()
    return {
        name.removeprefix(head): tuple(shape)
        for name, shape in named.items()
        if name.startswith(head)
    }


def fill(module: nn.Module, case: Case) -> nn.Module:
    """Give a module the case's weights; names and shapes must be exactly its own."""
    shapes = shapes_for(case)
    assert shapes_of(module) == shapes
    assert sum(p.numel() for p in module.parameters()) == case["n_params"]
    head = f"{case['param_prefix']}." if case["param_prefix"] else ""
    seed = CASES.description["weights"]["seed_prefix"]
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            weights = name_seeded_tensor(seed + head + name, parameter.shape)
            for pattern, factor in case["weight_multipliers"]:
                if re.fullmatch(pattern, head + name):
                    weights = weights * np.float32(factor)
            parameter.copy_(torch.from_numpy(weights))
    return module.eval()


def given(case: Case, name: str = "x") -> Tensor:
    return torch.from_numpy(CASES.tensors[f"{case['name']}.{name}"])


def compare(case: Case, results: Mapping[str, Tensor]) -> None:
    """Compare every stored output; an output nobody made is a failure."""
    assert case["outputs"].keys() <= results.keys()
    for key, stated in case["outputs"].items():
        wanted = CASES.tensors[f"{case['name']}.{key}"].astype(np.float64)
        got = thinned(results[key].detach().cpu().numpy().astype(np.float64), wanted)
        difference = np.abs(got - wanted)
        if "fraction_of_pixels_allowed_to_differ" in stated:
            assert difference.max() <= stated["max_abs_level_difference"]
            # A pixel is a place: it differs if any of its channels does.
            share = float((difference > 0).any(-1).mean())
            allowed = stated["fraction_of_pixels_allowed_to_differ"]
            print(f"{case['name']} {key}: {share:.2e} differ, allowed {allowed}")
            assert share <= allowed
            continue
        excess = difference / (stated["atol"] + stated["rtol"] * np.abs(wanted))
        print(f"{case['name']} {key}: {excess.max():.3g} of the tolerance")
        assert excess.max() <= 1.0


def thinned(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return every k-th row and column where that is what was stored."""
    if got.ndim == 4 and got.shape != wanted.shape:
        steps = [-(-a // b) for a, b in zip(got.shape, wanted.shape, strict=True)]
        got = got[:, :, :: steps[2], :: steps[3]]
    assert got.shape == wanted.shape
    return got


def run(build: Callable[[Case], nn.Module]) -> Callable[[Case], None]:
    """Return a runner of modules with one input x and one output y."""

    def runner(case: Case) -> None:
        with torch.no_grad():
            compare(case, {"y": fill(build(case), case)(given(case))})

    return runner


def run_qgam(case: Case) -> None:
    config = case["config"]
    assert config["scale"] == "dim**-0.5"
    module = QueryAggregation(
        config["dim"], config["num_queries"], config["squeeze_dim"]
    )
    fill(module, case)
    x = given(case)
    with torch.no_grad():
        results = {
            "y": module(x),
            "attn_gather": module.gather_weights(x),
            "attn_scatter": module.scatter_weights(x, module.gather(x)),
        }
    compare(case, results)


def run_student(case: Case) -> None:
    network = build_student(case)
    seen: dict[str, Tensor] = {}
    network.merge_conv1.register_forward_hook(
        lambda _, inputs, out: seen.update(enc=inputs[0], merge1=out)
    )
    network.unet.register_forward_hook(lambda _, __, out: seen.update(unet_out=out))
    with torch.no_grad():
        z, y = network(given(case))
    compare(case, {"z": z, "y": y, **seen})


def run_pipeline(case: Case) -> None:
    """The released test script from 8-bit picture to 8-bit picture."""
    network = build_student(case, case["config"]["upscale"])
    lr = given(case, "lr").permute(2, 0, 1)[None].float() / 255.0 * 2.0 - 1.0
    with torch.no_grad():
        x, image = run_as_released(network, lr)
        matched = match_colours(image, x)
    out = ((matched / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0)[0].permute(1, 2, 0).byte()
    compare(case, {"x_hr": x, "sr_raw": image, "out": out})


def build_student(case: Case, scale: int = 4) -> SlimDiffSRNetwork:
    """Build and fill the student; file to network without the dead tensors."""
    with torch.device("meta"):  # no time for random weights
        full = SlimDiffSRNetwork(SlimDiffSRConfig(scale), dead=True)
        live = SlimDiffSRNetwork(SlimDiffSRConfig(scale))
    fill(full.to_empty(device="cpu"), case)
    tensors = full.state_dict()
    alive = {k: v for k, v in tensors.items() if not k.startswith(DEAD)}
    live.load_state_dict(alive, assign=True)
    return live.eval()


def run_inversion(case: Case) -> None:
    rule = case["config"]["alphas_cumprod"]
    found = re.search(
        r"linspace\(sqrt\(([\d.e-]+)\), sqrt\(([\d.e-]+)\), (\d+)\)\*\*2", rule
    )
    assert found, f"the schedule is not understood: {rule}"
    assert case["config"]["eps"] == 1e-8
    betas = sqrt_linear_betas(int(found[3]), float(found[1]), float(found[2]))
    alpha_bar = torch.from_numpy(np.cumprod(1.0 - betas))
    t = invert_variance(given(case, "var_map"), alpha_bar)
    compare(case, {"t": t})


def group_norm(case: Case) -> Callable[[int, float], nn.Module]:
    """Return the norm of a case, after checking that the epsilons are the family's."""
    config = case["config"]

    def make(channels: int, eps: float) -> nn.Module:
        stated = config.get("gn_eps", config.get("eps", eps))
        assert eps == stated
        return GroupNorm(config.get("groups", 32), channels, eps)

    return make


def build_fsc(case: Case) -> nn.Module:
    c = case["config"]
    return FrequencySeparable(c["c_in"], c["c_out"], c["c_mid"], c["gate_hidden"])


def build_dsc(case: Case) -> nn.Module:
    c = case["config"]
    assert c["c_in"] == c["c_out"]
    return DirectionSeparable(c["c_out"], c["c_mid"], c["gate_hidden"])


def build_transformer(case: Case) -> nn.Module:
    config = case["config"]
    shapes = shapes_for(case)
    assert config["ff_hidden"] == 4 * config["dim"]
    queries = shapes["transformer_blocks.0.attn1.query"][0]
    inner = shapes["transformer_blocks.0.attn1.q_proj.weight"][0]
    return SpatialTransformer(config["dim"], queries, inner, group_norm(case))


class Bottom(nn.Module):
    """`mid_block` inside of `unet.mid_block`, as the reference nests it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        c = case["config"]
        self.mid_block = ResidualBlock(c["c_in"], c["c_out"], group_norm(case))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.mid_block(x)
        return result


def build_encoder(case: Case) -> nn.Module:
    shapes = shapes_for(case)
    latent = shapes["layers.14.weight"][0]
    return TinyEncoder(shapes["layers.0.weight"][0], latent, dead=True)


def build_decoder(case: Case) -> nn.Module:
    channels, latent = shapes_for(case)["layers.0.weight"][:2]
    return TinyDecoder(channels, latent, dead=True)


def build_trunk(case: Case) -> nn.Module:
    assert case["config"]["prune_depth"] == 2
    return Trunk(SlimDiffSRConfig().trunk, dead=True)


RUNNERS: dict[str, Callable[[Case], None]] = {
    "fsc": run(build_fsc),
    "dsc": run(build_dsc),
    "qgam": run_qgam,
    "resnet": run(
        lambda case: ResidualBlock(
            case["config"]["c_in"], case["config"]["c_out"], group_norm(case)
        )
    ),
    "transformer": run(build_transformer),
    "downsample": run(lambda case: Downsample(case["config"]["c"])),
    "upsample": run(lambda case: Upsample(case["config"]["c"])),
    "mid": run(Bottom),
    "tiny_encoder": run(build_encoder),
    "tiny_decoder": run(build_decoder),
    "unet": run(build_trunk),
    "student": run_student,
    "pipeline": run_pipeline,
    "timestep_inversion": run_inversion,
}
