"""Conditions that do not fit a model, and how a plan shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rsupres.checkpoints.catalogue import Card
from rsupres.checkpoints.file import spec_from_json, spec_to_json
from rsupres.cli.plan import describe
from rsupres.errors import ConditionError, InputError
from rsupres.families.base import SamplerOptions
from rsupres.upscaling.estimates.planning import plan_job
from rsupres.upscaling.pipeline import upscale_scene
from rsupres.upscaling.preparation.requirements import check_conditions
from tests.conditions.looking import LOOKS, job_for, looking, tags_of
from tests.fakes import LookingModel, spec


@pytest.mark.parametrize(
    ("options", "values", "text"),
    [
        ({"reference": "r.tif"}, {"accepts": frozenset()}, "does not look at a refer"),
        ({}, {"needs": ("reference",)}, r"needs a reference image\.$"),
        ({}, {"needs": ("vector_map",)}, "needs a vector map"),
        ({"style_sample": True}, {"accepts": frozenset()}, "draws no style"),
        ({"coregister": True}, {}, "coregister needs a reference image"),
        ({"fill_reference": True}, {}, "fill_reference needs a reference image"),
        ({"legend": "maptiler"}, {}, "legend needs a vector map"),
        ({"layers": ("road",)}, {}, "layers needs a vector map"),
        ({"class_table": "second"}, {}, "class_table needs a change mask"),
        ({"class_attribute": "c"}, {}, "class_attribute needs a change mask"),
        ({"change_mask": "detect"}, {}, "change_mask=detect needs a reference"),
        ({"style": "s.tif", "style_sample": True}, {}, "style_sample draws a style"),
    ],
)
def test_conditions_that_do_not_fit_the_model_are_refused(
    scene, monkeypatch, options, values, text
):
    looking(monkeypatch, **values)
    with pytest.raises(ConditionError, match=text):
        upscale_scene(job_for(scene, **options))
    assert not scene.with_name("out.tif.run").exists()


def test_models_that_accept_a_condition_are_named(scene, monkeypatch):
    looks = Card("looks", spec(accepts=frozenset({"reference"})))
    needs = Card("needs", spec(needs=frozenset({"reference"})))
    blind = Card("blind", spec())
    absent = Card("absent", spec(accepts=frozenset({"reference"})), file=Path("/no"))
    monkeypatch.setattr(
        "rsupres.upscaling.preparation.requirements.list_cards",
        lambda: [blind, looks, needs, absent],
    )
    job = job_for(scene, reference="r.tif")
    with pytest.raises(ConditionError, match=r"these do: looks, needs\."):
        check_conditions(job, blind.spec, "blind")
    with pytest.raises(ConditionError, match="no model on this machine does"):
        check_conditions(job_for(scene, style="s.tif"), blind.spec, "blind")


def test_a_drawn_style_serves_a_model_that_needs_one(scene, monkeypatch):
    model = looking(monkeypatch, needs=("style",))
    options: list[SamplerOptions] = []

    def load(name: str, device: torch.device, chosen: SamplerOptions) -> LookingModel:
        options.append(chosen)
        return model

    monkeypatch.setattr("rsupres.upscaling.preparation.model.load_model", load)
    upscale_scene(job_for(scene, style_sample=True))
    assert options[0].style_sample is True
    assert tags_of(scene.with_name("out.tif"))["RSUPRES_STYLE_SAMPLE"] == "yes"


def test_a_sampler_reaches_a_model_that_samples_only(scene, monkeypatch):
    looking(monkeypatch)
    with pytest.raises(InputError, match="sampler heun"):
        upscale_scene(job_for(scene, sampler="heun"))


def test_a_spec_keeps_its_legend_and_classes():
    full = spec(legend="maptiler", classes="second", accepts=LOOKS)
    assert spec_from_json(json.loads(json.dumps(spec_to_json(full)))) == full
    old = {
        k: v for k, v in spec_to_json(spec()).items() if k not in ("legend", "classes")
    }
    assert spec_from_json(old) == spec()


def test_a_plan_shows_conditions_their_cost_and_what_is_refused(
    scene, reference, monkeypatch
):
    looking(monkeypatch)
    plan = plan_job(job_for(scene, reference=reference))
    assert plan.exit_code == 0
    assert "ref_2020-05-06.tif (2020-05-06); covers" in plan.conditions["reference"]
    assert plan.conditions_s > 0
    assert plan.duration_s is None  # the model was not measured
    text = describe(plan, ())
    assert "reference  ref_2020-05-06.tif" in text
    assert "of it for conditions" in text
    bare = plan_job(job_for(scene))
    assert plan.memory_bytes > bare.memory_bytes
    assert not bare.conditions
    assert "conditions" not in describe(bare, ())
    assert not scene.with_name("out.tif.run").exists()
    refused = plan_job(job_for(scene, reference="/no/such.tif"))
    assert refused.exit_code == 3
    assert "such.tif" in str(refused.refusals[0])
