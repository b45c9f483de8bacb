"""Golden cases: where they lie, how their weights are made, how errors are shown.

`RSUPRES_GOLDEN=DIR` names a folder of cases. Without it `make test` uses the selection
in `tests/golden`, and `make test-all` all cases where they are found (see
`tests.helpers.find_shared`).
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from tests.helpers import find_shared


def golden_folder(family: str) -> Path:
    """Return the folder of a family's cases; skip the caller where there is none."""
    committed = Path(__file__).resolve().parents[1] / "golden" / family
    if (cases := find_shared("golden")) is not None:
        if not (cases / family / "case.json").is_file():
            pytest.skip(f"the golden folder {cases} holds no cases of {family}")
        return cases / family
    return committed


def slow_unless(names: Sequence[str], quick: Collection[str]) -> list[Any]:
    """Return names as parameters, marked slow except for some of each kind.

    Cases of one kind run the same code with other numbers, so `make test` takes one of
    each kind, and `make test-all` takes all.

    Args:
        names: of the cases.
        quick: those of `names` that are not slow.
    """
    return [
        pytest.param(name, marks=() if name in quick else pytest.mark.slow)
        for name in names
    ]


class Cases:
    """case.json and tensors.safetensors of one family."""

    def __init__(self, family: str) -> None:
        self.folder = golden_folder(family)
        self.description: dict[str, Any] = json.loads(
            (self.folder / "case.json").read_text(encoding="utf-8")
        )
        with safe_open(self.folder / "tensors.safetensors", framework="np") as file:
            self.tensors: dict[str, np.ndarray] = {
                name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118
            }

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the tensors below a prefix, without it."""
        head = prefix + "/"
        return {
            name.removeprefix(head): value
            for name, value in self.tensors.items()
            if name.startswith(head)
        }


def name_seeded_tensor(name: str, shape: Sequence[int]) -> np.ndarray:
    """Return the float32 weights that belong to a parameter name.

    Standard normals of ``RandomState(crc32(name))``; matrices divided by the root of
    the fan-in, gains ``1 + 0.1 n``, biases and scalars ``0.1 n``.
    """
    if math.prod(shape) > _LARGE:
        return _drawn(name, tuple(shape))
    return _remembered(name, tuple(shape)).copy()


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    values = stream.standard_normal(shape)
    if len(shape) >= 2:
        values = values / math.sqrt(math.prod(shape[1:]))
    elif len(shape) == 1 and name.endswith("weight"):
        values = 1.0 + 0.1 * values
    else:
        values = 0.1 * values
    return np.asarray(values, dtype=np.float32)


_LARGE = 2**22  # numbers; larger tensors are drawn anew at each call
_remembered = lru_cache(maxsize=8192)(_drawn)  # variants of a network share most


def fill_by_name(
    module: nn.Module, shapes: Mapping[str, Sequence[int]], prefix: str = ""
) -> None:
    """Give a module name-seeded weights; its parameters must be exactly `shapes`."""
    own = {name: list(p.shape) for name, p in module.named_parameters()}
    assert own == {name: list(shape) for name, shape in shapes.items()}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            weights = name_seeded_tensor(prefix + name, parameter.shape)
            parameter.copy_(torch.from_numpy(weights))


def check(
    label: str, got: Tensor | np.ndarray, wanted: np.ndarray, atol: float
) -> None:
    """Compare, and print the worst error over its tolerance."""
    values = got.detach().cpu().numpy() if isinstance(got, Tensor) else got
    assert values.shape == wanted.shape, f"{label}: {values.shape} != {wanted.shape}"
    difference = np.abs(values.astype(np.float64) - wanted.astype(np.float64))
    worst = float(difference.max()) if difference.size else 0.0
    print(f"{label}: worst error {worst:.3g}, {worst / max(atol, 1e-300):.3g} of atol")
    assert worst <= atol, f"{label}: {worst:.3g} > {atol:.3g}"
