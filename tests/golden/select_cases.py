"""Copy a small selection of the shared golden cases into this folder.

Usage: python tests/golden/select_cases.py ../shared/golden

Keeps, per family, the cases named in `SELECTION`; the JSON stays as it is for them.
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
