"""Results of our code for each stored tensor of the golden case of SGDM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsupres.blocks.stable_diffusion import encode_moments
from rsupres.blocks.stable_diffusion_run import make_context_keys, transform
from rsupres.checkpoints.convert.sgdm_names import reference_names
from rsupres.diffusion.samplers import diffuse, sample_posterior
from rsupres.diffusion.schedules import Posterior, spaced_steps, sqrt_linear_betas
from rsupres.families.sgdm.colour import correct_by_statistics, correct_by_wavelets
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.style import Statistics, spatial_statistics
from rsupres.training.families.sgdm.initialise import trains_in_stage1
from tests.parity.sgdm_networks import (
    CONFIG,
    flow,
    fresh,
    full_adapter,
    load,
    plain_names,
    present,
    released,
)

VARIANT = r"(?P<variant>simu_nomap|simu|real)"
Answer = Callable[..., Tensor | np.ndarray]


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
