"""Configurations of checkpoints are read strictly."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from rsupres.errors import CheckpointError
from rsupres.families.storage import config_from_json, config_to_json


@dataclass(frozen=True)
class Inner:
    widths: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None
    norm: Literal["group", "pixel"] = "group"
    modulated: Literal["map", "lr"] | None = None
    size: int = 3


@pytest.mark.parametrize(
    "config", [Outer(), Outer(Inner((5,)), Inner(()), "pixel", "lr", 4)]
)
def test_a_configuration_survives_json(config: Outer) -> None:
    assert config_from_json(Outer, config_to_json(config), Path("x")) == config


def test_missing_fields_keep_their_default() -> None:
    assert config_from_json(Outer, {"size": 5}, Path("x")) == Outer(size=5)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"depth": 1}, "unknown 'depth'"),
        ({"inner": {"depth": 1}}, "unknown 'depth'"),
        ({"norm": "layer"}, "norm = 'layer'.*known: group, pixel"),
        ({"modulated": "both"}, "modulated = 'both'.*known: map, lr"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, object], reason: str) -> None:
    with pytest.raises(CheckpointError, match=rf"m\.safetensors.*{reason}"):
        config_from_json(Outer, values, Path("m.safetensors"))
