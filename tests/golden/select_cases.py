"""Copy a small selection of the shared golden cases into this folder.

Usage: python tests/golden/select_cases.py $RSUPRES_GOLDEN [FAMILY/NAME ...]

Cases and tensors that are here are taken anew; those named, with all tensors below
NAME, are added. The JSON stays as it is for families without cases.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file

TENSORS, CASE = "tensors.safetensors", "case.json"


def main(source: Path, added: list[str]) -> None:
    """Write the selection of every family beside this script."""
    for folder in sorted(
        path.parent for path in Path(__file__).parent.glob(f"*/{CASE}")
    ):
        names = [n.split("/", 1)[1] for n in added if n.startswith(f"{folder.name}/")]
        below = tuple(name + sign for name in names for sign in "/.")
        kept = {*names, *load_file(folder / TENSORS)}
        tensors = load_file(source / folder.name / TENSORS)
        chosen = {k: v for k, v in tensors.items() if k in kept or k.startswith(below)}
        case = json.loads((source / folder.name / CASE).read_text())
        here = json.loads((folder / CASE).read_text()).get("cases")
        if isinstance(here, dict):
            case["cases"] = {name: case["cases"][name] for name in [*here, *names]}
        elif here is not None:
            kept = {*names, *(entry["name"] for entry in here)}
            case["cases"] = [entry for entry in case["cases"] if entry["name"] in kept]
        (folder / CASE).write_text(json.dumps(case, separators=(",", ":")))
        save_file(chosen, folder / TENSORS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
