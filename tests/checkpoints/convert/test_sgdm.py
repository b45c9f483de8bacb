"""SGDM's released files: Lightning checkpoint, Stable Diffusion base, flows, text."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from rsupres.blocks.stable_diffusion import AutoencoderConfig, UNetConfig
from rsupres.checkpoints.catalogue import load_model
from rsupres.checkpoints.convert import import_checkpoint
from rsupres.checkpoints.convert.sgdm_names import TEXT, config_of, reference_names
from rsupres.checkpoints.convert.sgdm_text import make_contexts, prompt_tokens
from rsupres.checkpoints.file import read_checkpoint
from rsupres.errors import CheckpointError, InputError
from rsupres.families.base import SamplerOptions
from rsupres.families.sgdm.config import EncoderConfig, SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.prompts import N_PROMPTS, prompt_text
from rsupres.families.sgdm.style import FlowConfig, StyleFlow
from rsupres.upscaling.array import upscale_whole
from tests.parity.golden import name_seeded_tensor

CPU = torch.device("cpu")
WIDTH = 64  # of the text encoder: one head
UNET = UNetConfig(
    width=32, multipliers=(1, 2), blocks=1, attention_levels=(0,), context_width=WIDTH
)
VAE = AutoencoderConfig(width=32, multipliers=(1, 1, 1, 2), blocks=1)
REAL = SgdmConfig(
    UNET,
    VAE,
    EncoderConfig(stem=8, widths=(8, 8, 8), out=16, guide=8),
    FlowConfig(8, 2),
)
NOMAP = SgdmConfig(
    UNET,
    VAE,
    EncoderConfig(stem=8, widths=(8, 8, 8), out=16, modulated=None, style=False),
    enlarge="bicubic",
)
Weights = dict[str, Tensor]


def seeded(shapes: Mapping[str, tuple[int, ...]]) -> Weights:
    found = {}
    for name, shape in shapes.items():
        values = torch.from_numpy(name_seeded_tensor(name, shape))
        found[name] = values.abs() + 0.5 if name.endswith("running_var") else values
    return found


@cache
def released(config: SgdmConfig) -> Weights:
    """Return U-Net, autoencoder and adapter under released names and shapes."""
    with torch.device("meta"):
        networks = SgdmNetworks(config)
    state = networks.state_dict()
    weights = {}
    for ours, theirs in reference_names(networks).items():
        shape = tuple(state[ours].shape)
        if ".mid.attn_1." in theirs and len(shape) == 2:
            shape = (*shape, 1, 1)
        if theirs.endswith("num_batches_tracked"):
            weights[theirs] = torch.tensor(7)
        else:
            weights |= seeded({theirs: shape})
    return weights


@cache
def tower(blocks: int = 2) -> Weights:
    """Return a text encoder of `blocks` blocks, the last unused, under its names."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (49408, WIDTH),
        "positional_embedding": (77, WIDTH),
        "text_projection": (WIDTH, WIDTH),
        "ln_final.weight": (WIDTH,),
        "ln_final.bias": (WIDTH,),
    }
    for k in range(blocks):
        head = f"transformer.resblocks.{k}"
        for norm in ("ln_1", "ln_2"):
            shapes |= {
                f"{head}.{norm}.weight": (WIDTH,),
                f"{head}.{norm}.bias": (WIDTH,),
            }
        for name, shape in {
            "attn.in_proj_": (3 * WIDTH, WIDTH),
            "attn.out_proj.": (WIDTH, WIDTH),
            "mlp.c_fc.": (4 * WIDTH, WIDTH),
            "mlp.c_proj.": (WIDTH, 4 * WIDTH),
        }.items():
            shapes |= {f"{head}.{name}weight": shape, f"{head}.{name}bias": shape[:1]}
    return seeded(shapes)


def flow(seed: int) -> Weights:
    torch.manual_seed(seed)
    made = StyleFlow(FlowConfig(8, 2))
    found: Weights = {
        "q0.loc": made.loc.detach(),
        "q0.log_scale": made.log_scale.detach(),
    }
    for k, order in enumerate(made.permutations):
        for j in (0, 2, 4):
            layer = made.couplings[k][j]
            head = f"flows.{2 * k}.flows.1.param_map.net.{j}"
            found[f"{head}.weight"] = layer.weight.detach()
            found[f"{head}.bias"] = layer.bias.detach()
        found[f"flows.{2 * k + 1}.perm"] = order
        found[f"flows.{2 * k + 1}.inv_perm"] = order.argsort()
    return found


def save(path: Path, weights: Weights, **around: object) -> Path:
    torch.save({"state_dict": weights, **around}, path)
    return path


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The authors' three files."""
    folder = tmp_path_factory.mktemp("authors")
    whole = released(REAL) | {TEXT + n: t for n, t in tower().items()}
    whole |= {"betas": torch.zeros(1000), "posterior_mean_coef1": torch.zeros(1000)}
    checkpoint = save(folder / "SGDM-real.ckpt", whole, epoch=3, global_step=119_999)
    for kind, seed in (("mean", 1), ("std", 2)):
        torch.save(flow(seed), folder / f"flow_{kind}")
    return [checkpoint, folder / "flow_mean", folder / "flow_std"]


@pytest.fixture
def files(tmp_path: Path, originals: list[Path]) -> list[Path]:
    """The authors' three files, for a test that may change them."""
    return [Path(shutil.copy(file, tmp_path)) for file in originals]


def bring_in(sources: list[Path], **options: str) -> Path:
    out = sources[0].with_name("x.safetensors")
    import_checkpoint("sgdm", sources, out, "x", options, overwrite=True)
    return out


def test_the_authors_files_become_a_model_that_runs(files: list[Path]) -> None:
    out = bring_in(files)
    stored = read_checkpoint(out)
    weights = released(REAL)
    assert config_of({n: tuple(t.shape) for n, t in weights.items()}).unet == UNET
    with torch.device("meta"):
        names = reference_names(SgdmNetworks(REAL))
    for ours, theirs in names.items():
        assert torch.equal(stored.tensors[ours].flatten(), weights[theirs].flatten())
    assert torch.equal(stored.tensors["flow_std.loc"], flow(2)["q0.loc"])
    assert sorted(stored.spec.accepts) == ["style", "vector_map"]
    assert stored.spec.legend == "maptiler"
    assert stored.spec.steps == 50
    model = load_model(str(out), CPU, SamplerOptions(steps=2, style_sample=True))
    sr = upscale_whole(model, np.full((3, 4, 4), 0.5, np.float32), 16, CPU)  # type: ignore[arg-type]
    assert sr.shape == (3, 64, 64)
    card = out.with_suffix(".toml").read_text(encoding="utf-8")
    assert "OpenRAIL" in card
    assert "flow_mean" in card


def test_a_base_in_either_layout_completes_what_was_trained(
    files: list[Path], tmp_path: Path
) -> None:
    """The authors' tensors win; of the base come those that they left out."""
    wanted = read_checkpoint(bring_in(files)).tensors
    weights = released(REAL)
    trained = {n: t for n, t in weights.items() if "attn" in n or n[:8] == "adapter."}
    small = save(tmp_path / "adapter.ckpt", trained)
    base = {n: t for n, t in weights.items() if n[:8] != "adapter."}
    lost = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    base[lost] = torch.zeros_like(base[lost])
    ckpt = save(
        tmp_path / "v2-1_512-ema-pruned.ckpt",
        base | {TEXT + n: t for n, t in tower().items()},
    )
    folder = write_folder(tmp_path / "stable-diffusion-2-1-base", base)
    for source in (ckpt, folder):
        got = read_checkpoint(bring_in([small, source, *files[1:]])).tensors
        assert got.keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(got[name], tensor, atol=1e-5, rtol=0)


def write_folder(folder: Path, base: Weights) -> Path:
    """Write a base in the layout of diffusers, projections named as of old."""
    with torch.device("meta"):
        names = reference_names(SgdmNetworks(REAL))
    parts: dict[str, Weights] = {"unet": {}, "vae": {}}
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for ours, theirs in names.items():
        part, _, name = ours.partition(".")
        if part == "unet":
            parts["unet"][name] = base[theirs]
        elif part == "autoencoder":
            if "mid_block.attentions" in name:
                for new, before in old.items():
                    name = name.replace(f".{new}.", f".{before}.")
            tensor = base[theirs]
            parts["vae"][name] = (
                tensor[..., 0, 0]
                if ".attn_1." in theirs and (tensor.ndim == 4)
                else tensor
            )
    for part, weights in parts.items():
        (folder / part).mkdir(parents=True)
        contiguous = {n: t.contiguous() for n, t in weights.items()}
        save_file(contiguous, folder / part / "diffusion_pytorch_model.safetensors")
    (folder / "text_encoder").mkdir()
    save_file(transformers_tower(), folder / "text_encoder" / "model.safetensors")
    return folder


def transformers_tower() -> Weights:
    """Return the same text encoder as transformers names it: no unused block."""
    given = tower()
    head = "text_model."
    found = {
        f"{head}embeddings.token_embedding.weight": given["token_embedding.weight"],
        f"{head}embeddings.position_embedding.weight": given["positional_embedding"],
    }
    inner, ours = f"{head}encoder.layers.0", "transformer.resblocks.0"
    for kind in ("weight", "bias"):
        found[f"{head}final_layer_norm.{kind}"] = given[f"ln_final.{kind}"]
        found[f"{inner}.layer_norm1.{kind}"] = given[f"{ours}.ln_1.{kind}"]
        found[f"{inner}.layer_norm2.{kind}"] = given[f"{ours}.ln_2.{kind}"]
        found[f"{inner}.mlp.fc1.{kind}"] = given[f"{ours}.mlp.c_fc.{kind}"]
        found[f"{inner}.mlp.fc2.{kind}"] = given[f"{ours}.mlp.c_proj.{kind}"]
        out = given[f"{ours}.attn.out_proj.{kind}"]
        found[f"{inner}.self_attn.out_proj.{kind}"] = out
        parts = given[f"{ours}.attn.in_proj_{kind}"].chunk(3)
        for name, part in zip("qkv", parts, strict=True):
            found[f"{inner}.self_attn.{name}_proj.{kind}"] = part.clone()
    return found


def test_the_text_encoder_says_what_torch_says() -> None:
    """Built of torch's own transformer layers, another way to the same numbers."""
    weights = tower(3)
    tokens = torch.tensor([prompt_tokens(k) for k in range(N_PROMPTS)])
    x = weights["token_embedding.weight"][tokens] + weights["positional_embedding"]
    mask = nn.Transformer.generate_square_subsequent_mask(77)
    for k in range(2):
        head = f"transformer.resblocks.{k}."
        layer = nn.TransformerEncoderLayer(
            WIDTH, 1, 4 * WIDTH, 0.0, functional.gelu, batch_first=True, norm_first=True
        )
        theirs = {
            "self_attn.in_proj_": "attn.in_proj_",
            "self_attn.out_proj.": "attn.out_proj.",
            "linear1.": "mlp.c_fc.",
            "linear2.": "mlp.c_proj.",
            "norm1.": "ln_1.",
            "norm2.": "ln_2.",
        }
        layer.load_state_dict(
            {
                f"{ours}{kind}": weights[f"{head}{name}{kind}"]
                for ours, name in theirs.items()
                for kind in ("weight", "bias")
            }
        )
        x = layer(x, src_mask=mask)
    gain, bias = weights["ln_final.weight"], weights["ln_final.bias"]
    wanted = functional.layer_norm(x, (WIDTH,), gain, bias).detach()
    torch.testing.assert_close(make_contexts(weights), wanted, atol=1e-4, rtol=1e-4)
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'ln_final\.bias'"):
        make_contexts({n: t for n, t in weights.items() if n != "ln_final.bias"})


def test_prompts_become_the_numbers_of_their_words() -> None:
    assert prompt_text(0b0010) == "land, road, "
    assert prompt_tokens(0b0010)[:7] == [49406, 973, 267, 1759, 267, 49407, 0]
    assert len({tuple(prompt_tokens(k)) for k in range(N_PROMPTS)}) == N_PROMPTS


def test_a_model_without_map_or_style_takes_neither(tmp_path: Path) -> None:
    source = save(tmp_path / "sync_x32_no_map.ckpt", released(NOMAP))
    contexts = tmp_path / "contexts.safetensors"
    save_file({"contexts": torch.zeros(16, 77, WIDTH)}, contexts)
    stored = read_checkpoint(bring_in([source, contexts]))
    assert stored.spec.accepts == frozenset()
    assert str(stored.spec.scales) == "32"
    flows = []
    for kind in ("mean", "std"):
        flows.append(tmp_path / f"flow_{kind}.pt")
        torch.save(flow(1), flows[-1])
    with pytest.raises(CheckpointError, match="follows no style"):
        bring_in([source, contexts, *flows])


Change = Callable[[Weights], Weights]


def without(*starts: str) -> Change:
    return lambda given: {n: t for n, t in given.items() if not n.startswith(starts)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("adapter."), "no tensor begins with 'adapter"),
        (
            without("model."),
            r"U-Net of Stable Diffusion is missing.*stable-diffusion-2-1",
        ),
        (without("first_stage_model."), r"autoencoder of Stable Diffusion is missing"),
        (without("cond_stage"), r"no text encoder.*open_clip_pytorch_model\.bin"),
        (
            without("adapter.body.1.block1.bias"),
            r"1 tensors are missing, first 'adapter\.body\.1\.block1\.bias'",
        ),
        (
            lambda w: w | {"lpips.x": torch.ones(1)},
            r"1 tensors belong to nothing.*drop",
        ),
        (
            lambda w: w | {"adapter.conv_in.bias": torch.ones(3)},
            r"'adapter\.conv_in\.bias' has the shape \(3,\), expected \(32,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    files: list[Path], change: Change, told: str
) -> None:
    weights = torch.load(files[0], weights_only=True)["state_dict"]
    save(files[0], change(weights))
    with pytest.raises(CheckpointError, match=told):
        bring_in(files)


def test_surplus_is_dropped_when_asked(files: list[Path]) -> None:
    weights = torch.load(files[0], weights_only=True)["state_dict"]
    save(files[0], weights | {"lpips.x": torch.ones(1)})
    assert bring_in(files, surplus="drop").is_file()
    with pytest.raises(InputError, match="enlarge=nearest"):
        bring_in(files, surplus="drop", enlarge="nearest")
    with pytest.raises(InputError, match=r"scale=2\.5"):
        bring_in(files, surplus="drop", scale="2.5")


def test_flows_must_come_in_pairs_and_be_named(files: list[Path]) -> None:
    with pytest.raises(CheckpointError, match="flow_std is missing"):
        bring_in(files[:2])
    nameless = files[1].rename(files[1].with_name("flow"))
    with pytest.raises(CheckpointError, match="means or of deviations"):
        bring_in([files[0], nameless, files[2]])
    broken = flow(1)
    broken["flows.1.inv_perm"] = broken["flows.1.perm"].roll(1)
    torch.save(broken, files[1])
    with pytest.raises(CheckpointError, match="does not undo"):
        bring_in(files)


def test_a_folder_without_weights_says_what_to_get(files: list[Path]) -> None:
    folder = files[0].parent / "empty"
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"no weights.*stable-diffusion-2-1-base"):
        bring_in([folder, *files])
