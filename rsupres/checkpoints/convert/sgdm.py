"""Convert SGDM's released files: a Lightning checkpoint, a base model, two flows.

The authors' checkpoint (``SGDM-real.ckpt``) holds the adapter and the whole model
around it. A file that holds only the adapter and the trained parts needs an SD 2.1-base
beside it: ``v2-1_512-ema-pruned.ckpt``, or a folder in the layout of diffusers
(``unet``, ``vae``, ``text_encoder``). Tensors of the authors' file replace those of the
base. ``flow_mean`` and ``flow_std`` hold SFlow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from rsupres.blocks.stable_diffusion_keys import (
    autoencoder_names,
    modern_autoencoder_name,
    rename,
    unet_names,
)
from rsupres.checkpoints.convert import Converted
from rsupres.checkpoints.convert.reading import read_tensors
from rsupres.checkpoints.convert.sgdm_names import (
    ADAPTER,
    AUTOENCODER,
    TEXT,
    UNET,
    config_of,
    flow_config,
    flow_tensors,
    reference_names,
)
from rsupres.checkpoints.convert.sgdm_text import from_transformers, make_contexts
from rsupres.errors import CheckpointError, InputError
from rsupres.families.sgdm.config import LATENT_SCALE, SgdmConfig
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.families.sgdm.resolver import make_spec
from rsupres.families.storage import config_to_json

OPTIONS = {
    "scale": "SR pixels along an LR pixel (real: 16, synthetic: 32)",
    "enlarge": "bilinear or bicubic: how LR was enlarged in training",
    "colour": "none or wavelet: whether results take over LR's low frequencies",
    "head_width": "channels of an attention head of the U-Net (64)",
    "surplus": "drop: leave out tensors that belong to nothing",
}
_BASE = (
    "get stabilityai/stable-diffusion-2-1-base, either v2-1_512-ema-pruned.ckpt or the"
    " folder with unet, vae and text_encoder, put it anywhere and name it beside"
    " the authors' checkpoint"
)
_TEXT_MISSING = (
    "no text encoder in the files, and the prompts need one; " + _BASE + ", or name"
    " open_clip_pytorch_model.bin of laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
)
_UNUSED = re.compile(
    r"(betas|logvar|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?"
    r"|posterior_\w+|model_ema\..*|visual\..*|logit_scale|text_projection|attn_mask)"
)
_OPEN_CLIP = re.compile(
    r"(transformer\.resblocks\.|token_embedding\.|positional_embedding$|ln_final\.)"
)
_LICENCE = (
    "SGDM: not stated by its authors; Stable Diffusion 2.1: CreativeML OpenRAIL++-M"
)


@dataclass
class _Found:
    """Tensors of the files, under released names; later files win over earlier ones."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    text: dict[str, Tensor] = field(default_factory=dict)
    flows: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    contexts: Tensor | None = None
    surplus: list[str] = field(default_factory=list)


def convert(sources: Sequence[Path], options: Mapping[str, str]) -> Converted:
    """Read released files and return one model under our names.

    Raises:
        CheckpointError: files missing, damaged or of something else; missing and
            surplus tensors are named, and what to download.
        InputError: a value of an option that does not fit.
    """
    found = _gather(sources)
    where = ", ".join(path.name for path in sources)
    _check_parts(found, where, options)
    config = _config(found, options)
    with torch.device("meta"):
        networks = SgdmNetworks(config)
    names = reference_names(networks)
    shapes = {n: tuple(t.shape) for n, t in networks.state_dict().items()}
    tensors = rename(found.tensors, names, shapes)
    _check_fit(tensors, names, shapes, where)
    for kind, flow in found.flows.items():
        tensors |= {f"flow_{kind}.{name}": tensor for name, tensor in flow.items()}
    tensors["latent_scale"] = torch.tensor(LATENT_SCALE)
    tensors["contexts"] = _contexts(found, shapes)
    scale = _number(options, "scale", 16 if config.encoder.modulated == "lr" else 32)
    return Converted(
        tensors=tensors,
        spec=make_spec(config, (scale,)),
        architecture=config_to_json(config),
        origin=f"SGDM, converted from {where}",
        licence=_LICENCE,
    )


def _gather(sources: Sequence[Path]) -> _Found:
    """Read all files, the authors' checkpoint last."""
    found = _Found()
    files = [path for path in sources if not path.is_dir()]
    for path in sources:
        if path.is_dir():
            _read_folder(path, found)
    read = [(path, read_tensors(path)) for path in files]
    for path, tensors in sorted(read, key=lambda item: _has_adapter(item[1])):
        if "q0.loc" in tensors:
            found.flows[_flow_kind(path)] = flow_tensors(tensors, str(path))
        else:
            _sort(tensors, found)
    return found


def _has_adapter(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(ADAPTER) for name in tensors)


def _sort(tensors: Mapping[str, Tensor], found: _Found) -> None:
    """Put each tensor of a file where it belongs."""
    for name, tensor in tensors.items():
        if name.startswith((UNET, AUTOENCODER, ADAPTER)):
            found.tensors[name] = tensor
        elif name.startswith(TEXT) and not _UNUSED.fullmatch(name[len(TEXT) :]):
            found.text[name.removeprefix(TEXT)] = tensor
        elif _OPEN_CLIP.match(name):
            found.text[name] = tensor
        elif name == "contexts":
            found.contexts = tensor
        elif not _UNUSED.fullmatch(name.removeprefix(TEXT)):
            found.surplus.append(name)


def _read_folder(folder: Path, found: _Found) -> None:
    """Read a Stable Diffusion folder in the layout of diffusers."""
    unet = read_tensors(_weights(folder / "unet"))
    found.tensors |= {UNET + unet_names(unet)[n]: t for n, t in unet.items()}
    vae = {
        modern_autoencoder_name(name): tensor
        for name, tensor in read_tensors(_weights(folder / "vae")).items()
    }
    names = autoencoder_names(vae)
    found.tensors |= {AUTOENCODER + names[n]: t for n, t in vae.items()}
    text = folder / "text_encoder"
    if text.is_dir():
        tensors = read_tensors(_weights(text))
        try:
            found.text |= from_transformers(tensors)
        except KeyError as error:
            raise CheckpointError(f"{text}: lacks the tensor {error}.") from error


def _weights(folder: Path) -> Path:
    """Return the weight file of a part of a diffusers folder."""
    for stem in ("diffusion_pytorch_model", "model", "pytorch_model"):
        for suffix in (".safetensors", ".bin"):
            path = folder / f"{stem}{suffix}"
            if path.is_file():
                return path
    raise CheckpointError(
        f"{folder}: no weights (diffusion_pytorch_model.safetensors or .bin); {_BASE}."
    )


def _flow_kind(path: Path) -> str:
    kinds = [kind for kind in ("mean", "std") if kind in path.stem]
    if len(kinds) != 1:
        raise CheckpointError(
            f"{path}: an SFlow, but of means or of deviations? Its name must hold"
            " 'mean' or 'std', as the released flow_mean and flow_std do."
        )
    return kinds[0]


def _check_parts(found: _Found, where: str, options: Mapping[str, str]) -> None:
    """Refuse files that cannot make a model, and name the missing parts."""
    if options.get("surplus", "") not in ("", "drop"):
        raise InputError(
            f"surplus={options['surplus']}: only 'drop' is known.", argument="settings"
        )
    if found.surplus and not options.get("surplus"):
        raise CheckpointError(
            f"{where}: {len(found.surplus)} tensors belong to nothing, first"
            f" '{found.surplus[0]}'; drop them if they are not needed.",
            remedies=("settings=surplus=drop",),
        )
    if not _has_adapter(found.tensors):
        raise CheckpointError(
            f"{where}: no tensor begins with '{ADAPTER}', so this is no checkpoint of"
            " SGDM; name SGDM-real.ckpt, SGDM-syn.ckpt or sync_x32_no_map.ckpt."
        )
    for prefix, what in ((UNET, "U-Net"), (AUTOENCODER, "autoencoder")):
        if not any(name.startswith(prefix) for name in found.tensors):
            raise CheckpointError(
                f"{where}: the {what} of Stable Diffusion is missing; {_BASE}."
            )
    if len(found.flows) == 1:
        missing = "std" if "mean" in found.flows else "mean"
        raise CheckpointError(
            f"{where}: flow_{missing} is missing; styles need both flows, or leave both"
            " out."
        )


def _config(found: _Found, options: Mapping[str, str]) -> SgdmConfig:
    shapes = {name: tuple(t.shape) for name, t in found.tensors.items()}
    config = config_of(shapes, _number(options, "head_width", 64))
    for key, known in (
        ("enlarge", ("bilinear", "bicubic")),
        ("colour", ("none", "wavelet")),
    ):
        if key in options and options[key] not in known:
            raise InputError(
                f"{key}={options[key]}: known: {', '.join(known)}.", argument="settings"
            )
    chosen = {k: options[k] for k in ("enlarge", "colour") if k in options}
    config = replace(config, **chosen)  # type: ignore[arg-type]  # checked above
    if not found.flows:
        return config
    if not config.encoder.style:
        raise CheckpointError("flows were given, but this model follows no style.")
    return replace(config, flow=flow_config(found.flows["mean"]))


def _contexts(found: _Found, shapes: Mapping[str, Sequence[int]]) -> Tensor:
    made = found.contexts
    if made is None:
        if not found.text:
            raise CheckpointError(f"{_TEXT_MISSING}.")
        made = make_contexts(found.text)
    if tuple(made.shape) != tuple(shapes["contexts"]):
        raise CheckpointError(
            f"contexts of shape {tuple(made.shape)}, the U-Net wants"
            f" {tuple(shapes['contexts'])}; this text encoder belongs to another model."
        )
    return made


def _check_fit(
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    shapes: Mapping[str, Sequence[int]],
    where: str,
) -> None:
    missing = [theirs for ours, theirs in names.items() if ours not in tensors]
    # A counter of training steps, which some exports leave out, decides nothing.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} tensors are missing, first '{missing[0]}'; if"
            f" they are Stable Diffusion's own, {_BASE}."
        )
    for ours, tensor in tensors.items():
        if tuple(tensor.shape) != tuple(shapes[ours]):
            raise CheckpointError(
                f"{where}: '{names[ours]}' has the shape {tuple(tensor.shape)},"
                f" expected {tuple(shapes[ours])}."
            )


def _number(options: Mapping[str, str], key: str, default: int) -> int:
    text = options.get(key, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise InputError(
            f"{key}={text}: give a whole number from 1 on.", argument="settings"
        )
    return int(text)
