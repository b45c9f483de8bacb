"""Copy a small selection of the shared golden cases into this folder.

Usage: python tests/golden/select_cases.py $RSUPRES_GOLDEN

Keeps, per family, the cases named in `SELECTION`, and of a family that has tensors but
no cases those in `TENSORS`; the JSON stays as it is for them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file

SELECTION = {
    "e2diffsr": [
        "csum_x2",
        "csum_x3p4",
        "condnet",
        "discriminator",
        "downsample_128_odd",
        "dpencoder",
        "embedding64",
        "hinge",
        "imdb32",
        "resblock_temb",
        "resize_x3p4",
        "reverse_toy",
        "unet_t_only",
    ],
}
# Names of tensors, or of all below them with a "/" at the end.
TENSORS = {
    "refdiff": [
        "in/",
        "f/dec.64x64_in0",
        "f/dec.64x64_in0.sft0",
        "f/dec.64x64_in0.sft0.mul_conv2",
        "f/dec.64x64_in0.sft1.add_conv2",
        "f/dec.64x64_in0.qkv",
        "f/dec.128x128_up",
        "f/enc.128x128_down",
        "f/map_noise",
        "f/sigma",
        "f/c_noise",
        "f/out",
        "d/mixed/out",
        "pre/lr_up_train_u8",
        "schedule/",
        "sample/lr_init_det/net_sigmas",
        "sample/lr_init_det/net_x_slices",
        "train/",
    ],
    "sgdm": [
        *(
            "in/sr",
            "in/map",
            "in/hr",
            "vae/noise",
            "in/style",
            "in/x_t",
            "in/t",
            "in/context",
        ),
        *("buffer/", "schedule/", "flow/", "train/", "unet/", "real/unet/"),
        *("real/adapter/", "real/train/", "simu_nomap/adapter/"),
        *("real/enc/lr_feat3", "real/enc/map_feat3", "real/enc/spade3"),
        *("real/enc/style_feat", "real/enc/style_mean", "real/enc/style_std"),
        *("real/guide/x_T", "real/guide/noises", "real/guide/trajectory"),
        *("real/guide/image_u8", "vae/z0", "vae/decode_in"),
        *("probe/block_in", "probe/transformer_out", "probe/resblock_norm_out"),
        *("probe/tokens_in", "probe/layernorm_out", "probe/vae_in"),
        *("probe/vae_res_out", "probe/vae_attn_out", "probe/style_feat_in"),
        *("probe/style_tiny_std", "probe/style_tiny_std_eps"),
    ],
}
LISTED = {
    "slimdiffsr": [
        "mid",
        "pipeline_x4_pad",
        "tiny_decoder",
        "timestep_inversion",
        "transformer_down0_0",
        "transformer_small_input",
    ],
}  # as SELECTION, for families whose cases are a list and name tensors <case>.<tensor>
_ALWAYS = {"e2diffsr": ["ideal"]}  # tensors that belong to no case of the list


def main(source: Path) -> None:
    """Write the subset of every family beside this script."""
    for family, names in SELECTION.items():
        case = json.loads((source / family / "case.json").read_text())
        case["cases"] = {name: case["cases"][name] for name in names}
        kept = {*names, *_ALWAYS[family]}
        tensors = load_file(source / family / "tensors.safetensors")
        chosen = {k: v for k, v in tensors.items() if k.split("/")[0] in kept}
        folder = Path(__file__).parent / family
        folder.mkdir(exist_ok=True)
        (folder / "case.json").write_text(json.dumps(case, separators=(",", ":")))
        save_file(chosen, folder / "tensors.safetensors")
    for family, names in TENSORS.items():
        _select_tensors(source / family, Path(__file__).parent / family, names)

    for family, names in LISTED.items():
        _select_listed(source / family, Path(__file__).parent / family, names)


def _select_listed(source: Path, folder: Path, names: list[str]) -> None:
    """Copy the named cases of a list, with their tensors."""
    case = json.loads((source / "case.json").read_text())
    case["cases"] = [entry for entry in case["cases"] if entry["name"] in names]
    tensors = load_file(source / "tensors.safetensors")
    chosen = {k: v for k, v in tensors.items() if k.split(".")[0] in names}
    folder.mkdir(exist_ok=True)
    (folder / "case.json").write_text(json.dumps(case, separators=(",", ":")))
    save_file(chosen, folder / "tensors.safetensors")


def _select_tensors(source: Path, folder: Path, names: list[str]) -> None:
    """Copy the named tensors of a family without cases, and its JSON."""
    case = json.loads((source / "case.json").read_text())
    tensors = load_file(source / "tensors.safetensors")
    folders = tuple(name for name in names if name.endswith("/"))
    chosen = {k: v for k, v in tensors.items() if k in names or k.startswith(folders)}
    folder.mkdir(exist_ok=True)
    (folder / "case.json").write_text(json.dumps(case, separators=(",", ":")))
    save_file(chosen, folder / "tensors.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
