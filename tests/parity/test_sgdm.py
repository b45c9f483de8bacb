"""SGDM against the golden vectors of the authors' official code.

Every stored tensor that is no input is one test; weights are made from the released
parameter names and come in through the converter.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsupres.blocks.stable_diffusion import (
    AutoencoderConfig,
    UNetConfig,
    encode_moments,
)
from rsupres.blocks.stable_diffusion_keys import rename
from rsupres.blocks.stable_diffusion_run import make_context_keys, transform
from rsupres.checkpoints.convert.sgdm_names import (
    config_of,
    encoder_config,
    flow_config,
    flow_tensors,
    reference_names,
)
from rsupres.diffusion.samplers import diffuse, sample_posterior
from rsupres.diffusion.schedules import Posterior, spaced_steps, sqrt_linear_betas
from rsupres.families.sgdm.colour import correct_by_statistics, correct_by_wavelets
from rsupres.families.sgdm.config import VARIANTS, EncoderConfig, SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.prompts import prompt_number, prompt_text
from rsupres.families.sgdm.style import (
    FlowConfig,
    Statistics,
    StyleFlow,
    spatial_statistics,
)
from rsupres.training.families.sgdm.initialise import trains_in_stage1
from tests.helpers import shared_data
from tests.parity.golden import Cases, check, name_seeded_tensor, slow_unless

CASES = Cases("sgdm")
STORED = CASES.tensors
CASE = CASES.description
CONFIG = CASE["config"]
STRICT = CASE["tolerances"]["strict"]["all float32 tensors"]
SCHEDULE = CASE["tolerances"]["pass"]["schedule_float64"]
SEED_PREFIX = CASE["weights"].get("seed_prefix", "")
ROOTS = r"(adapter\.|model\.diffusion_model\.|first_stage_model\.)"
INPUTS = re.compile(
    r"(full/)?in/\w+|buffer/.+|train/noise|color/(content|style)|flow/\w+/(eps|x|perm)"
    r"|probe/(\w+_in)|vae/(noise|decode_in)|\w+/(plain|guide|sample)/(x_T|noises)"
)
VARIANT = r"(?P<variant>simu_nomap|simu|real)"
Answer = Callable[..., Tensor | np.ndarray]
Weights = dict[str, Tensor]


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


# -- weights ------------------------------------------------------------------------


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


# -- answers ------------------------------------------------------------------------


def load(name: str) -> Tensor:
    if name not in STORED:
        pytest.skip(f"the case holds no '{name}', which this tensor is made from")
    return torch.from_numpy(STORED[name])


@cache
def posterior(steps: int) -> tuple[Posterior, np.ndarray]:
    low, high = CONFIG["linear_start"], CONFIG["linear_end"]
    betas = sqrt_linear_betas(CONFIG["num_timesteps"], low, high)
    chosen = spaced_steps(len(betas), steps)
    return Posterior.spaced(betas, chosen), chosen


def answer_schedule(steps: str, column: str) -> np.ndarray:
    table, chosen = posterior(int(steps))
    return {
        "timesteps": chosen,
        "alphas_cumprod": table.alpha_bar,
        "betas": table.beta,
        "posterior_mean_coef1": table.posterior_z0,
        "posterior_mean_coef2": table.posterior_zt,
        "posterior_variance": table.variance,
        "sqrt_recip_alphas_cumprod": table.alpha_bar**-0.5,
        "sqrt_recipm1_alphas_cumprod": (1.0 / table.alpha_bar - 1.0) ** 0.5,
    }[column]


@torch.no_grad()
def answer_vae(what: str) -> Tensor:
    networks = released(present()[0])
    autoencoder = networks.autoencoder
    if what == "decode_out":
        return 2.0 * networks.decode(load("vae/decode_in")) - 1.0
    hr = load("in/hr")
    if what == "moments":
        return autoencoder.quant_conv(autoencoder.encoder(hr))
    if what == "z0":
        return networks.encode(hr, load("vae/noise"))
    mean, logvar = encode_moments(autoencoder, hr)
    return {"mean": mean, "logvar": logvar}[what]


@cache
@torch.no_grad()
def encoded(variant: str) -> Mapping[str, Tensor]:
    """Run the encoder of a variant and keep what passes its modules."""
    seen: dict[str, Tensor] = {}
    networks = released(variant)
    encoder = networks.adapter.encoder
    with listening(seen) as listen:
        for k, scale in enumerate(getattr(encoder, "scales", []), start=1):
            if hasattr(scale, "spade"):
                listen(scale.lr_down, f"lr_feat{k}")
                listen(scale.map_down, f"map_feat{k}")
                listen(scale.spade, f"spade{k}")
        listen(networks.adapter.conv_in, "f_cond", before=True)
        if variant == "real":
            listen(encoder.style, "style_feat")
            style = style_of("guide")
            seen["style_mean"], seen["style_std"] = style
        features(networks, variant, "guide")
    return seen


def style_of(kind: str, networks: SgdmNetworks | None = None) -> Statistics:
    if kind == "sample":
        n = len(load("in/sr"))
        drawn = [flow(k).sample(load(f"flow/{k}/eps"))[0][:n] for k in ("mean", "std")]
        return Statistics(drawn[0], drawn[1])
    networks = networks or released("real")
    return networks.adapter.style(2.0 * load("in/style") - 1.0)


def features(networks: SgdmNetworks, variant: str, kind: str) -> list[Tensor]:
    chart = None if variant == "simu_nomap" else load("in/map")
    style = style_of(kind, networks) if variant == "real" else None
    return networks.features(load("in/sr"), chart, style)


@cache
@torch.no_grad()
def unscaled(variant: str, kind: str) -> list[Tensor]:
    scale = CONFIG["scale_factor"]
    return [f / scale for f in features(released(variant), variant, kind)]


@cache
@torch.no_grad()
def full_features(variant: str) -> list[Tensor]:
    adapter = full_adapter(variant)
    given = {k: 2.0 * load(f"full/in/{k}") - 1.0 for k in ("sr", "map", "style")}
    style = adapter.style(given["style"]) if variant == "real" else None
    return adapter.features(adapter.content(given["sr"], given["map"]), style)


@cache
@torch.no_grad()
def unet_run(variant: str) -> Mapping[str, Tensor]:
    """Run a U-Net with features and keep the raw outputs of CompVis' blocks."""
    networks = released(variant)
    seen: dict[str, Tensor] = {}
    counts = {"input": 0, "output": 0}

    def watch(kind: str, h: Tensor) -> None:
        number = f"_{counts[kind]}" if kind in counts else ""
        seen[f"{kind}_block{number}"] = h.clone()
        counts[kind] = counts.get(kind, 0) + 1

    with listening(seen) as listen:
        listen(networks.unet.time_embedding, "time_embed")
        scaled = features(networks, variant, "guide")
        context = load("in/context")
        seen["eps"] = networks.predict(
            load("in/x_t"), load("in/t"), context, scaled, watch=watch
        )
    return seen


class listening:
    """Keeps outputs (or first inputs) of modules while it is open."""

    def __init__(self, seen: dict[str, Tensor]) -> None:
        self.seen = seen
        self.handles: list[Any] = []

    def __enter__(self) -> Callable[..., None]:
        return self.listen

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def listen(self, module: nn.Module, name: str, *, before: bool = False) -> None:
        def hook(_: nn.Module, given: Any, out: Any) -> None:
            value = given[0] if before else out
            value = value[0] if isinstance(value, tuple) else value
            self.seen[name] = value.clone()

        self.handles.append(module.register_forward_hook(hook))


@torch.no_grad()
def answer_no_features() -> Tensor:
    networks = released(present()[0])
    given = load("in/x_t"), load("in/t")
    plain = networks.predict(*given, load("in/context"), [])
    keys = make_context_keys(networks.unet, load("in/context"))
    stored = networks.predict(*given, keys, [])
    assert torch.allclose(plain, stored, atol=1e-6), "stored keys change the result"
    return plain


@cache
@torch.no_grad()
def sampled(variant: str, kind: str) -> Mapping[str, Tensor]:
    networks = released(variant)
    head = f"{variant}/{kind}"
    noises = load(f"{head}/noises")
    table, chosen = posterior(len(noises))
    scaled = features(networks, variant, kind)
    keys = make_context_keys(networks.unet, load("in/context"))
    states: list[Tensor] = []

    def eps(z: Tensor, t: int) -> Tensor:
        states.append(z)
        step = torch.tensor([chosen[t - 1]])
        return networks.predict(z, step, keys, scaled)

    def noise(t: int) -> Tensor:
        return noises[table.steps - t]

    end = sample_posterior(eps, load(f"{head}/x_T"), table, noise=noise)
    image = networks.decode(end)
    pixels = (255.0 * image).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return {
        "trajectory": torch.stack([*states[1:], end]),
        "image": image,
        "image_u8": pixels.to(torch.int16),
    }


@cache
def trained(variant: str, mode: str) -> Mapping[str, Tensor]:
    """Take one training loss, in either mode, with gradients and running statistics."""
    networks = fresh(variant)
    for name, parameter in networks.named_parameters():
        parameter.requires_grad_(trains_in_stage1(name))
    networks.train(mode == "train")
    low, high = CONFIG["linear_start"], CONFIG["linear_end"]
    betas = sqrt_linear_betas(CONFIG["num_timesteps"], low, high)
    kept = torch.from_numpy(np.cumprod(1.0 - betas))[load("in/t")]
    noise = load("train/noise")
    x_t = diffuse(load("vae/z0"), noise, kept)
    scaled = features(networks, variant, "guide")
    eps = networks.predict(x_t, load("in/t"), load("in/context"), scaled)
    loss = (eps - noise).square().mean()
    loss.backward()
    found = {f"{mode}_loss": loss.detach()}
    parameters = dict(networks.named_parameters())
    for ours, theirs in reference_names(networks).items():
        if ours in parameters and trains_in_stage1(ours):
            gradient = parameters[ours].grad
            assert gradient is not None
            found[f"{mode}_gradnorm/{theirs}"] = gradient.norm()
        elif "running" in ours:
            found[f"bn_after/{theirs}"] = networks.state_dict()[ours].clone()
    return found


def answer_train(variant: str, rest: str) -> Tensor:
    mode = "eval" if rest.startswith("eval") else "train"
    head, _, name = rest.partition("/")
    plain = next(iter(plain_names({name: 0}))) if name else ""
    return trained(variant, mode)["/".join([head, plain]) if plain else head]


@torch.no_grad()
def answer_flow(kind: str, what: str) -> Tensor:
    module = flow(kind)
    if what.startswith("fwd"):
        return module.push(load(f"flow/{kind}/eps"))[what == "fwd_logdet"]
    if what.startswith("sample"):
        return module.sample(load(f"flow/{kind}/eps"))[what == "sample_logq"]
    if what.startswith("inv"):
        return module.pull(load(f"flow/{kind}/x"))[what == "inv_logdet"]
    density = module.log_prob(load(f"flow/{kind}/x"))
    return {"log_prob": density, "nll": -density.mean()}[what]


@torch.no_grad()
def answer_probe(what: str) -> Tensor:
    networks = released("real")
    block, middle = networks.unet.down_blocks[0], networks.autoencoder.decoder.mid_block
    resnet, transformer = block.resnets[0], block.attentions[0]
    if what == "transformer_out":
        x, context = load("probe/block_in"), load("in/context")
        pairs = make_context_keys(networks.unet, context).pairs
        return transform(transformer, x, pairs[:1]) - x
    if what == "resblock_norm_out":
        x = load("probe/block_in")
        return resnet.conv1(resnet.nonlinearity(resnet.norm1(x)))
    if what == "layernorm_out":
        return transformer.transformer_blocks[0].norm1(load("probe/tokens_in"))
    if what in ("vae_res_out", "vae_attn_out"):
        x = load("probe/vae_in")
        part = middle.resnets[0] if what == "vae_res_out" else middle.attentions[0]
        return (part(x, None) if what == "vae_res_out" else part(x)) - x
    style = spatial_statistics(load("probe/style_feat_in"))
    if what == "f_cond_tiny_style":
        adapter = networks.adapter
        content = adapter.content(2 * load("in/sr") - 1, 2 * load("in/map") - 1)
        return adapter.encoder.join(content, style, None)
    return 1000 * (style.std - (0.0 if what.endswith("eps") else 1e-6))


def answer_colour(what: str) -> Tensor:
    correct = {"wavelet": correct_by_wavelets, "adain": correct_by_statistics}[what]
    return correct(load("color/content"), load("color/style"))


ANSWERS: dict[str, Answer] = {
    r"schedule/(?P<steps>\d+)/(?P<column>\w+)": answer_schedule,
    r"vae/(?P<what>moments|mean|logvar|z0|decode_out)": answer_vae,
    rf"{VARIANT}/enc/(?P<what>\w+)": lambda variant, what: encoded(variant)[what],
    rf"{VARIANT}/adapter/(?P<k>\d)": lambda variant, k: unscaled(variant, "guide")[
        int(k)
    ],
    rf"{VARIANT}/adapter_sampled/(?P<k>\d)": lambda variant, k: unscaled(
        variant, "sample"
    )[int(k)],
    rf"full/{VARIANT}/adapter/(?P<k>\d)": lambda variant, k: full_features(variant)[
        int(k)
    ],
    rf"{VARIANT}/unet/(?P<what>\w+)": lambda variant, what: unet_run(variant)[what],
    r"unet/eps_no_features": answer_no_features,
    rf"{VARIANT}/(?P<kind>plain|guide|sample)/(?P<what>trajectory|image|image_u8)": (
        lambda variant, kind, what: sampled(variant, kind)[what]
    ),
    rf"{VARIANT}/train/(?P<rest>.+)": answer_train,
    r"flow/(?P<kind>mean|std)/(?P<what>\w+)": answer_flow,
    r"probe/(?P<what>\w+)": answer_probe,
    r"color/(?P<what>wavelet|adain)": answer_colour,
}


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
