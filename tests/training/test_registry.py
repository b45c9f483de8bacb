"""Families behind the loop: registry, stages, options, and a family made up here."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from rsupres.datasets.packs import CropOrigin, PackMeta, write_pack
from rsupres.errors import CheckpointError, InputError
from rsupres.families.base import FixedScales, ModelSpec
from rsupres.training import registry
from rsupres.training.base import DrawBatch, Exported, Stage, Validation
from rsupres.training.batches import Batch
from rsupres.training.config import (
    DataConfig,
    StageConfig,
    TrainConfig,
    read_config,
    resolve_path,
)
from rsupres.training.loop import train
from rsupres.training.losses import Outcome, StageSetup
from rsupres.training.registry import (
    TRAINABLE,
    build_training,
    stage_options,
    training_of,
)

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "models" / "recipes").glob("*.toml"))


@dataclass(frozen=True)
class GainOptions:
    start: float = 0.5


@dataclass(frozen=True)
class BiasOptions:
    pull: float = 0.0


class GainTraining:
    """A family with one gain and one bias: enlarged LR * gain + bias."""

    options: ClassVar[type[object]] = GainOptions
    stages: ClassVar[Mapping[str, Stage]] = {
        "gain": Stage(("gain",)),
        "bias": Stage(("bias",), options=BiasOptions),
    }

    def __init__(self, start: float) -> None:
        self.modules = nn.ParameterDict(
            {"gain": torch.tensor(start), "bias": torch.tensor(0.0)}
        )
        self.measured: list[float] = []
        self.modes: list[bool] = []

    @classmethod
    def build(cls, config: TrainConfig, options: object, root: Path) -> Self:
        assert isinstance(options, GainOptions)
        return cls(options.start)

    @property
    def networks(self) -> nn.Module:
        return self.modules

    def add_parts(self, names: Collection[str]) -> None:
        return

    def move(self, device: torch.device) -> None:
        self.modules.to(device)

    def prepare_stage(self, stage: StageConfig, draw: DrawBatch | None) -> None:
        if draw is not None:
            self.measured.append(float(draw(0).hr.mean()))

    def loss(
        self, batch: Batch, generator: torch.Generator, setup: StageSetup
    ) -> Outcome:
        large = nn.functional.interpolate(batch.lr, batch.hr.shape[2:])
        made = large * self.modules["gain"] + self.modules["bias"]
        terms = {"pixel": (made - batch.hr).abs().mean()}
        if isinstance(setup.options, BiasOptions):
            terms["pull"] = setup.options.pull * self.modules["bias"].square()
        return Outcome(terms)

    def export(self) -> Exported:
        spec = ModelSpec("bicubic", FixedScales(frozenset({Fraction(4)})))
        return Exported(self.modules.state_dict(), spec, {"kind": "gain"})

    def validate(self, validation: Validation) -> Mapping[str, float]:
        self.modes.append(self.modules.training)
        return {"gain": float(self.modules["gain"])}


@pytest.fixture
def gain(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(
        registry, "TRAINABLE", {"gain": f"{__name__}:{GainTraining.__name__}"}
    )
    return "gain"


def _config(*stages: StageConfig, family: str = "gain") -> TrainConfig:
    data = DataConfig(
        train=("p.safetensors",), validation=("p.safetensors",), lr_side=12, batch=2
    )
    return TrainConfig("tiny", family, "out", data, stages, precision="fp32")


def _write_pack(folder: Path) -> None:
    crops = [np.random.default_rng(0).integers(0, 256, (3, 48, 48), np.uint8)]
    meta = PackMeta("train", "bicubic", (CropOrigin("a", "a.tif", 1.0),))
    write_pack(folder / "p.safetensors", crops, meta)


def test_any_family_trains_in_the_loop(tmp_path: Path, gain: str) -> None:
    _write_pack(tmp_path)
    stages = StageConfig("gain", 40, lr=0.05, warmup=0), StageConfig("bias", 2)
    path = train(_config(*stages), tmp_path, CPU)
    assert path is not None
    first, second = (load_file(tmp_path / f"out/stage_{n}.safetensors") for n in (1, 2))
    assert first["gain"] > 0.6  # it started at 0.5
    assert first["bias"] == 0.0
    assert second["gain"] == first["gain"]
    assert second["bias"] != 0.0


def test_options_of_family_and_stage_arrive(tmp_path: Path, gain: str) -> None:
    _write_pack(tmp_path)
    stage = StageConfig("bias", 60, lr=0.05, warmup=0, options={"pull": 1e4})
    config = replace(_config(stage), options={"start": 0.0})
    train(config, tmp_path, CPU)
    pulled = load_file(tmp_path / "out/stage_1.safetensors")
    train(
        replace(config, stage=(replace(stage, options={}),), out="two"), tmp_path, CPU
    )
    free = load_file(tmp_path / "two/stage_1.safetensors")
    assert pulled["gain"] == free["gain"] == 0.0
    assert abs(float(pulled["bias"])) < 0.1 < float(free["bias"])


def test_networks_are_validated_in_eval_mode_and_go_on_in_train_mode(
    tmp_path: Path, gain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_pack(tmp_path)
    built: list[GainTraining] = []

    def build(cls: type, config: TrainConfig, options: object, root: Path) -> object:
        built.append(GainTraining(0.5))
        return built[0]

    monkeypatch.setattr(GainTraining, "build", classmethod(build))
    train(_config(StageConfig("gain", 2)), tmp_path, CPU)
    assert built[0].modes == [False]
    assert built[0].modules.training
    assert len(built[0].measured) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (_config(StageConfig("detail", 1)), "stage 1: family 'gain' has no stage"),
        (_config(StageConfig("gain", 1, options={"pull": 1.0})), "unknown key 'pull'"),
        (_config(StageConfig("bias", 1, options={"pull": "x"})), "expected float"),
        (_config(StageConfig("bias", 1, adversarial_weight=1.0)), "no adversarial"),
        (replace(_config(), options={"strat": 1.0}), "unknown key 'strat'"),
        (replace(_config(), family="none"), "no training for it; known: gain"),
    ],
)
def test_what_a_family_does_not_know_is_refused(
    tmp_path: Path, gain: str, config: TrainConfig, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_training(config, tmp_path)


@pytest.mark.parametrize("family", TRAINABLE)
def test_every_trainable_family_answers(family: str) -> None:
    kind = training_of(family)
    assert kind.stages
    assert isinstance(kind.options, type)
    # A family may decide by another rule than names; see `Stage.covers`.
    assert all(
        stage.trains or type(stage).covers is not Stage.covers
        for stage in kind.stages.values()
    )
    for name in (
        "build",
        "add_parts",
        "move",
        "prepare_stage",
        "loss",
        "export",
        "validate",
    ):
        assert callable(getattr(kind, name))


def test_the_stages_of_e2diffsr_name_parameters_that_exist(tmp_path: Path) -> None:
    training = build_training(_config(family="e2diffsr"), tmp_path)
    training.add_parts(["depsr_detail.decoder.conv_in.weight"])
    names = [name for name, _ in training.networks.named_parameters()]
    for stage in training.stages.values():
        assert any(stage.covers(name) for name in names)
        if stage.last_layer is not None:
            assert stage.last_layer in names
            assert stage.covers(stage.last_layer)


def test_a_stage_covers_whole_names_only() -> None:
    stage = Stage(("depsr", "unet.conv_in"))
    assert stage.covers("depsr.branch.weight")
    assert stage.covers("unet.conv_in.weight")
    assert not stage.covers("depsr_detail.branch.weight")
    assert not stage.covers("unet.conv_in2.weight")
    assert Stage(("",)).covers("anything")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.name)
def test_every_recipe_loads_to_the_values_that_it_states(recipe: Path) -> None:
    stated = tomllib.loads(recipe.read_text(encoding="utf-8"))
    config = read_config(recipe)
    kind = training_of(config.family)
    for table, stage in zip(stated["stage"], config.stage, strict=True):
        options = stage_options(kind, stage)
        for key, value in table.pop("options", {}).items():
            assert getattr(options, key) == value
        assert {key: getattr(stage, key) for key in table} == table
    assert {*stated["data"]["train"]} == {*config.data.train}
    folder = config.lpips_weights
    assert folder is None or folder.startswith("${RSUPRES_DATA}/")


def test_options_that_a_stage_held_directly_in_old_recipes_are_read(
    tmp_path: Path,
) -> None:
    recipe = ROOT / "models" / "recipes" / "sgdm-mini.2.toml"
    text = recipe.read_text(encoding="utf-8")
    old = text.replace(
        "options = { prior_weight = 0.02, ",
        "prior_weight = 0.02\noptions = { ",
    )
    assert old != text
    path = tmp_path / "old.toml"
    path.write_text(old)
    assert read_config(path) == read_config(recipe)


def test_paths_hold_variables_and_unset_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RSUPRES_DATA", "/images")
    root = Path("/recipes")
    assert resolve_path("${RSUPRES_DATA}/metrics", root) == Path("/images/metrics")
    assert resolve_path("packs/$a.safetensors", root) == root / "packs/$a.safetensors"
    monkeypatch.delenv("RSUPRES_DATA")
    with pytest.raises(InputError, match="RSUPRES_DATA is not set"):
        resolve_path("${RSUPRES_DATA}/metrics", root)


def test_states_of_older_versions_go_on(tmp_path: Path, gain: str) -> None:
    """The fingerprint does not tell of options that came later and are not used."""
    _write_pack(tmp_path)
    config = _config(StageConfig("gain", 3))
    assert train(config, tmp_path, CPU, stop_after_s=0.0) is None
    with safe_open(tmp_path / "out/state.safetensors", "np") as file:
        known = json.loads(file.metadata()["fingerprint"])
    assert known.keys() == {
        *("architecture", "data", "family", "overrides", "precision", "seed"),
        "start_from",
    }
    assert known["data"].keys() == {
        *("batch", "gsd_weights", "lr_side", "scale_power", "scales", "tone"),
        *("train", "validation"),
    }
    changed = replace(config, data=replace(config.data, fixed_scales=(2.0,)))
    with pytest.raises(CheckpointError, match="another configuration"):
        train(changed, tmp_path, CPU)
