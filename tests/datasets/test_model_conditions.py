"""Sidecar files as conditions of the models that a test set compares."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from rsupres.checkpoints import catalogue as checkpoints
from rsupres.errors import InputError
from rsupres.families.base import (
    Conditions,
    ModelSpec,
    ScaleRange,
    SceneContext,
    SceneReader,
    TileBatch,
)
from rsupres.grid import PixelWindow
from rsupres.upscaling.array import upscale_whole
from tests.cli.commands import run
from tests.datasets.town import ALL, ALL_OPTIONS, picture

CPU = torch.device("cpu")
SPEC = ModelSpec(
    family="stub",
    scales=ScaleRange(Fraction(1), Fraction(8), Fraction(4)),
    bands=("red", "green", "blue"),
    needs=frozenset({"reference"}),
    accepts=frozenset({"vector_map", "change_mask", "style"}),
    multiple=8,
)


@dataclass
class Looker:
    """A model that returns its reference and remembers all that it was shown."""

    spec: ModelSpec = SPEC
    batches: list[TileBatch] = field(default_factory=list)
    read: list[Conditions] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Looker:
        """Be the model that every name stands for."""
        monkeypatch.setattr(checkpoints, "load_model", lambda *_: self)
        return self

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: object
    ) -> SceneContext:
        self.read.append(scene.read_conditions(PixelWindow(3, 5, 7, 6)))
        return SceneContext()

    def upscale(self, batch: TileBatch, scale: Fraction) -> torch.Tensor:
        self.batches.append(batch)
        assert batch.conditions.reference is not None
        return batch.conditions.reference


def test_models_on_a_test_set_get_what_belongs_to_each_image(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker = Looker().install(monkeypatch)
    result = run(
        *("evaluate", town, "--glob", "*_2020_*", "--model", "stub", "--scale", 4),
        *("--json", "-v", "--device", "cpu", *ALL_OPTIONS),
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    hr, reference = (picture(61, 70, k)[:, :60, :68] / 255.0 for k in (1, 11))
    reference[:, :4, :4] = 0
    inner = np.s_[:, 4:-4, 4:-4]
    error = np.mean((hr - reference)[inner] ** 2)
    assert rows[1]["image"] == "town_2020_1.tif"
    assert rows[1]["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-3)
    seen = looker.batches[1].conditions
    assert seen.given().keys() == {*ALL.names}
    assert seen.reference_valid is not None
    assert not seen.reference_valid[0, 0, :4, :4].any()
    assert seen.reference_valid[0, 0, 4:60, :].all()
    assert seen.change_mask is not None
    assert seen.change_mask.shape == (1, 1, 64, 72)  # as SPEC.multiple wants
    mask = picture(61, 70, 21, 1)[:, :60, :68]
    wanted = np.pad(mask, ((0, 0), (0, 4), (0, 4)), mode="symmetric")
    np.testing.assert_array_equal(seen.change_mask[0].numpy(), wanted)
    window = looker.read[1].change_mask
    assert window is not None
    np.testing.assert_array_equal(window[0].numpy(), mask[:, 3:10, 5:11])


def test_parts_of_large_images_keep_their_sidecars(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker = Looker().install(monkeypatch)
    result = run(
        *("evaluate", town, "--glob", "*_2020_0*", "--model", "stub", "--scale", 2),
        *("--max-side", 36, "--reference-from", "2020=2018", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    parts = [b.conditions.reference for b in looker.batches]
    assert len(parts) == 4
    last = parts[-1]
    assert last is not None
    wanted = picture(61, 70, 10)[:, 30:60, 35:69].astype(np.float32) / 255
    np.testing.assert_allclose(last[0, :, :30, :34].numpy(), wanted, atol=1e-6)


def test_what_no_model_looks_at_is_refused(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ("evaluate", town, "--glob", "*_2020_*", "--device", "cpu", "--model")
    result = run(*base, "bicubic", "--reference-from", "2020=2018")
    assert result.exit_code == 3
    assert "--reference-from 2020=2018: none of the models looks at it" in result.output
    Looker().install(monkeypatch)
    result = run(*base, "stub")
    assert result.exit_code == 3
    assert "needs reference" in result.output
    result = run("evaluate", town / "a", town / "b", "--reference-from", "a=b")
    assert result.exit_code == 2
    assert "--reference-from is for a test set" in result.output


def test_a_model_sees_only_what_it_looks_at() -> None:
    looker = Looker(replace(SPEC, needs=frozenset({"reference"}), accepts=frozenset()))
    lr = np.full((3, 8, 8), 0.5, np.float32)
    given = Conditions(
        reference=torch.rand(1, 3, 16, 16),
        reference_valid=torch.ones(1, 1, 16, 16, dtype=torch.bool),
        change_mask=torch.zeros(1, 1, 16, 16, dtype=torch.uint8),
    )
    upscale_whole(looker, lr, Fraction(2), CPU, conditions=given)
    seen = looker.batches[0].conditions.given()
    assert seen.keys() == {"reference", "reference_valid"}
    assert given.reference is not None
    wrong = replace(given, reference=given.reference[..., :15])
    with pytest.raises(InputError, match=r"reference has \(16, 15\) pixels"):
        upscale_whole(looker, lr, Fraction(2), CPU, conditions=wrong)


def test_packs_give_their_conditions_to_models(
    town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.safetensors"
    base = ("dataset", "build", out, "--hr", town, "--glob", "*_2020_*")
    assert run(*base, *ALL_OPTIONS).exit_code == 0
    looker = Looker().install(monkeypatch)
    model = ("--model", "stub", "--device", "cpu")
    result = run("evaluate", out, *model, "--degradation", "second-order")
    assert result.exit_code == 0, result.output
    assert looker.batches[0].conditions.given().keys() == {*ALL.names}
    result = run("evaluate", out, *model, "--reference-from", "a=b")
    assert result.exit_code == 3
    assert "a pack holds its own conditions" in result.output


def test_a_style_and_a_sampler_reach_the_models(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker, options = Looker(), []

    def load(name: str, device: torch.device, chosen: object) -> Looker:
        options.append(chosen)
        return looker

    monkeypatch.setattr(checkpoints, "load_model", load)
    base = ("evaluate", town, "--glob", "*_2020_0*", "--model", "stub")
    more = ("--device", "cpu", "--reference-from", "2020=2018")
    picked = ("--style", town / "town_2018_1.tif", "--sampler", "heun")
    result = run(*base, *more, *picked)
    assert result.exit_code == 0, result.output
    style = looker.batches[0].conditions.style
    assert style is not None
    assert style.shape == (3, 61, 70)
    np.testing.assert_allclose(
        style[:, 30:].numpy() * 255, picture(61, 70, 11)[:, 30:], atol=0.01
    )
    assert run(*base, *more, "--style-sample").exit_code == 0
    assert (options[0].sampler, options[0].style_sample) == ("heun", False)
    assert options[1].style_sample
    assert run(*base, *more, *picked, "--style-sample").exit_code == 2


def test_an_option_without_effect_is_refused(
    town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Looker(replace(SPEC, accepts=frozenset()))
    monkeypatch.setattr(checkpoints, "load_model", lambda *_: plain)
    base = ("evaluate", town, "--glob", "*_2020_*", "--model", "stub")
    more = ("--device", "cpu", "--reference-from", "2020=2018")
    for options, code in (
        (("--style-sample",), 3),
        (("--style", town / "town_2018_1.tif"), 3),
        (("--change-mask-from", "town/=mask/"), 3),
        (("--legend", "maptiler"), 2),
        (("--class-table", "second"), 2),
    ):
        result = run(*base, *more, *options)
        assert result.exit_code == code, result.output
        assert str(options[0]) in result.output
