"""SlimDiffSR's training: students, teachers, and runs from one to the other."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from rsupres.checkpoints.catalogue import load_model
from rsupres.cli import main
from rsupres.datasets.packs import CropOrigin, PackMeta, write_pack
from rsupres.errors import InputError
from rsupres.families.base import SamplerOptions
from rsupres.families.slimdiffsr.mini import MiniNetwork
from rsupres.families.slimdiffsr.resolver import make_network
from rsupres.families.slimdiffsr.wide import WideTeacher, widen_into
from rsupres.training.config import DataConfig, StageConfig, TrainConfig
from rsupres.training.families.slimdiffsr.training import ARCHITECTURES
from rsupres.training.loop import train
from rsupres.upscaling.array import upscale_whole

CPU = torch.device("cpu")


def pack(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:64, :64]
    # Sharp fields, which bicubic blurs and a network can sharpen.
    fields = np.sign(np.sin(rows / 5.0) * np.cos(cols / 6.0))
    crops = 120 + 60 * fields + 5 * rng.random((4, 3, 64, 64))
    origins = (CropOrigin("here", "a.tif", 0.6),) * 4
    meta = PackMeta("train", "bicubic", origins)
    write_pack(folder / "p.safetensors", list(crops.astype(np.uint8)), meta)


def config(architecture: str, *stages: StageConfig, **changes: object) -> TrainConfig:
    made = TrainConfig(
        name="tiny",
        family="slimdiffsr",
        architecture=architecture,
        out="out",
        data=DataConfig(
            train=("p.safetensors",), lr_side=8, batch=2, fixed_scales=(4.0,)
        ),
        stage=stages,
        precision="fp32",
        threads=1,
        validate_every=1000,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


TEACHER = (
    StageConfig("teacher", 1),
    StageConfig("teacher_lora", 2, warmup=1, options={"rank": 2}),
)


def trained_teacher(folder: Path, *stages: StageConfig) -> Path:
    made = config("tiny-teacher", *(stages or TEACHER[:1]), out="teacher")
    path = train(made, folder, CPU)
    assert path is not None
    return path


def test_a_teacher_trains_and_upscales(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft: rsupres[distill]")
    pack(tmp_path)
    path = trained_teacher(tmp_path, *TEACHER)
    model = load_model(str(path), CPU, SamplerOptions())
    lr = np.random.default_rng(0).random((3, 20, 17), np.float32)
    assert upscale_whole(model, lr, Fraction(4), CPU).shape == (3, 80, 68)


DISTILL = (
    StageConfig("direct", 1),
    StageConfig("distill", 3, warmup=1, options={"mmd_positions": 64}),
)


@pytest.mark.parametrize(
    ("student", "adversarial"),
    [pytest.param("tiny", 0.0, marks=pytest.mark.slow), ("tiny-mini", 0.1)],
)
def test_a_student_is_distilled_and_a_stopped_run_continues(
    tmp_path: Path, student: str, adversarial: float
) -> None:
    """Every call stops after one iteration; the weights are those of one go."""
    pack(tmp_path)
    trained_teacher(tmp_path)
    last = replace(DISTILL[1], adversarial_weight=adversarial)
    made = config(
        student,
        DISTILL[0],
        last,
        options={"teacher": "teacher/tiny.safetensors"},
        out="whole",
    )
    whole = train(made, tmp_path, CPU)
    assert whole is not None
    path = None
    for _ in range(20):
        path = train(replace(made, out="parts"), tmp_path, CPU, stop_after_s=0.0)
        if path is not None:
            break
    assert path is not None
    wanted, got = load_file(whole), load_file(path)
    assert not any("adapters" in name for name in wanted)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    terms = {key for line in log_of(tmp_path / "whole") for key in line}
    assert {"pixel_truth", "pixel_output", "feature_0", "feature_1", "mmd_0"} <= terms
    sr = load_model(str(whole), CPU, SamplerOptions())
    lr = np.random.default_rng(0).random((3, 16, 12), np.float32)
    assert upscale_whole(sr, lr, Fraction(4), CPU).shape == (3, 64, 48)


def log_of(folder: Path) -> list[dict[str, float]]:
    return [
        json.loads(line) for line in (folder / "log.jsonl").read_text().split("\n")[:-1]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("student", ["tiny", "tiny-mini"])
def test_the_loss_falls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, student: str
) -> None:
    monkeypatch.setattr("rsupres.training.loop.PROGRESS_EVERY", 15)
    pack(tmp_path)
    seen: list[float] = []

    def watch(name: str, k: int, total: int, figures: object) -> None:
        assert isinstance(figures, dict)
        seen.append(figures["pixel"])

    made = config(student, StageConfig("direct", 30, lr=3e-3, warmup=2))
    made = replace(made, data=replace(made.data, lr_side=16))
    train(made, tmp_path, CPU, on_progress=watch)
    assert len(seen) == 2  # means over 15 iterations each
    assert seen[1] < 0.9 * seen[0]


@pytest.mark.parametrize(
    "scales", [pytest.param((4.0,), marks=pytest.mark.slow), (4.0, 8.0)]
)
def test_any_model_can_teach_by_its_pictures(
    tmp_path: Path, scales: tuple[float, ...]
) -> None:
    pack(tmp_path)
    stage = StageConfig("distill", 4, warmup=1)
    data = DataConfig(train=("p.safetensors",), lr_side=8, batch=2, fixed_scales=scales)
    made = config(
        "tiny-mini",
        stage,
        data=data,
        overrides={"scales": [int(scale) for scale in scales]},
        options={"teacher": "bicubic"},
    )
    assert train(made, tmp_path, CPU) is not None
    terms = {key for line in log_of(tmp_path / "out") for key in line}
    assert "pixel_output" in terms
    assert not any(key.startswith(("mmd", "feature")) for key in terms)


def wide_teacher() -> WideTeacher:
    teacher = make_network(ARCHITECTURES["tiny-wide-teacher"])
    assert isinstance(teacher, WideTeacher)
    return teacher


def test_a_widened_student_does_the_same() -> None:
    """Twice the channels, the same pictures, until training uses the new ones."""
    torch.manual_seed(0)
    student = make_network(ARCHITECTURES["tiny-mini"])
    assert isinstance(student, MiniNetwork)
    for parameter in student.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    wide = wide_teacher().student
    assert wide.config.tiny > student.config.tiny
    widen_into(wide, student.state_dict())
    lr = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(wide(lr)[1], student(lr)[1], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="does not fit"):
        widen_into(student, wide.state_dict())


def test_the_wide_teacher_takes_a_step_that_follows_the_uncertainty() -> None:
    teacher = wide_teacher().eval()
    lr = torch.rand(1, 3, 16, 16) * 2 - 1
    steps = []
    unet = teacher.get_submodule("unet")
    unet.register_forward_pre_hook(lambda _, given: steps.append(given[1]))
    with torch.no_grad():
        z = teacher.student.transform(teacher.encode(lr))
        before = teacher(lr)[0]
        # The U-Net adds nothing at first; the step only scales the map a little.
        ratio = before / z
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
        # The last row makes the log-variance.
        teacher.get_parameter("estimator.units.4.shortcut.weight")[-1] += 1.0
        teacher(lr)
    assert not torch.equal(steps[0], steps[1])


def test_the_likelihood_is_of_the_detail_that_bicubic_lacks() -> None:
    """With a mean of zero and a variance of 0.01 everywhere, it has a closed form."""
    teacher = wide_teacher().eval()
    for parameter in teacher.estimator.parameters():
        parameter.data.zero_()
    lr = torch.rand(1, 3, 16, 16) * 2 - 1
    bicubic = torch.nn.functional.interpolate(lr, scale_factor=4.0, mode="bicubic")
    with torch.no_grad():
        features = teacher.encode(lr)
        none, some = (
            float(teacher.likelihood_loss(features, lr, bicubic + detail))
            for detail in (0.0, 0.2)
        )
    assert abs(none - 0.5 * np.log(0.01)) < 1e-4
    assert abs(some - none - 0.5 * 0.2**2 / 0.01) < 1e-3


BOTH = DataConfig(
    train=("p.safetensors",), lr_side=8, hr_side=64, batch=2, fixed_scales=(4.0, 8.0)
)


def test_a_student_of_two_scales_is_distilled_from_a_wide_teacher(
    tmp_path: Path,
) -> None:
    pack(tmp_path)
    small = config("tiny-mini", StageConfig("direct", 1), out="small")
    assert train(small, tmp_path, CPU) is not None
    teacher = config(
        "tiny-wide-teacher",
        StageConfig("teacher", 4, warmup=1),
        data=replace(BOTH, validation=BOTH.train),
        options={"widen": "small/tiny.safetensors"},
        out="teacher",
    )
    assert train(teacher, tmp_path, CPU) is not None
    measured = log_of(tmp_path / "teacher")[-1]
    assert {"psnr_bicubic_x4", "psnr_student_x8"} <= measured.keys()
    made = config(
        "tiny-mini",
        StageConfig("distill", 4, warmup=1, options={"mmd_positions": 64}),
        data=BOTH,
        overrides={"scales": [4, 8]},
        start_from="small/stage_1.safetensors",
        options={"teacher": "teacher/tiny.safetensors", "transfer": False},
    )
    path = train(made, tmp_path, CPU)
    assert path is not None
    terms = {key for line in log_of(tmp_path / "out") for key in line}
    assert {"feature_0", "feature_1", "mmd_0", "mmd_1"} <= terms
    lr = np.random.default_rng(0).random((3, 16, 12), np.float32)
    sr = load_model(str(path), CPU, SamplerOptions())
    for scale in (4, 8):
        whole = upscale_whole(sr, lr, Fraction(scale), CPU)
        assert whole.shape == (3, 16 * scale, 12 * scale)


@pytest.mark.parametrize(
    "kind", [pytest.param("direct", marks=pytest.mark.slow), "distill"]
)
def test_ends_train_and_the_trunk_stays(tmp_path: Path, kind: str) -> None:
    pack(tmp_path)
    teacher = config("tiny-wide-teacher", StageConfig("teacher", 1), data=BOTH)
    assert train(replace(teacher, out="teacher"), tmp_path, CPU) is not None
    options = {"teacher": "teacher/tiny.safetensors"} if kind == "distill" else {}
    made = config(
        "tiny-mini",
        StageConfig(kind, 1, warmup=0),
        StageConfig(f"{kind}_ends", 6, warmup=0, lr=1e-2),
        data=BOTH,
        overrides={"scales": [4, 8], "own_ends": True},
        options=options,
    )
    assert train(made, tmp_path, CPU) is not None
    first, last = (load_file(tmp_path / f"out/stage_{k}.safetensors") for k in (1, 2))
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    wanted = {
        name
        for name in first
        if name.startswith(("encoder", "decoder", "head", "ends.8.", "adapters"))
    }
    # Positions and scales are drawn, so both scales trained.
    assert moved == wanted


def test_what_cannot_teach_or_be_widened_is_told(tmp_path: Path) -> None:
    pack(tmp_path)
    distill = StageConfig("distill", 1)
    two = {"data": BOTH, "overrides": {"scales": [4, 8]}}
    for made, told in (
        (
            config("tiny-mini", distill, options={"teacher": "refdiff-mini"}, **two),
            "offers the scales 8.*, the student's are 4, 8",
        ),
        (
            config("tiny-mini", StageConfig("direct", 1), options={"widen": "bicubic"}),
            "must be a small student",
        ),
        (
            config(
                "tiny-wide-teacher",
                StageConfig("teacher", 1),
                data=BOTH,
                options={"widen": "slimdiffsr-mini"},
            ),
            "does not fit into the network",
        ),
    ):
        with pytest.raises(InputError, match=told):
            train(made, tmp_path, CPU)


def test_what_cannot_be_trained_is_told(tmp_path: Path) -> None:
    pack(tmp_path)
    direct = StageConfig("direct", 1)
    scales = DataConfig(train=("p.safetensors",), scales=(1.0, 4.0))
    for made, told in (
        (config("tiny", direct, data=scales), r"fixed_scales = \[4.0\]"),
        (config("tiny-teacher", direct), "does not train"),
        (config("tiny", StageConfig("teacher", 1)), "does not train"),
        (config("tiny", StageConfig("distill", 1)), r"\[options\] with teacher"),
        (config("tiny-mini", StageConfig("distill_ends", 1)), "with teacher"),
        (config("tiny", StageConfig("direct_ends", 1)), "only the small student"),
        (config("tiny", replace(direct, adversarial_weight=0.1)), "only the small"),
        (config("tiny", replace(direct, options={"alone": True})), "alone: only"),
    ):
        with pytest.raises(InputError, match=told):
            train(made, tmp_path, CPU)


TOML = """
name = "student"
family = "slimdiffsr"
architecture = "tiny-mini"
out = "out"
precision = "fp32"
{options}
[data]
train = ["p.safetensors"]
lr_side = 16
batch = 2
fixed_scales = [4.0]
[[stage]]
name = "{stage}"
iterations = 2
"""


@pytest.mark.parametrize(
    ("options", "stage", "code"),
    [
        ('options = { teacher = "bicubic" }', "distill", 0),
        ("", "distill", 3),
        ('options = { teacher = "bicubic" }', "direct", 3),
        ('options = { teacher = "absent" }', "distill", 4),
    ],
)
def test_the_command_distils_or_says_why_not(
    tmp_path: Path, options: str, stage: str, code: int
) -> None:
    pack(tmp_path)
    path = tmp_path / "config.toml"
    path.write_text(TOML.format(options=options, stage=stage))
    result = CliRunner().invoke(main, ["distill", str(path), "--device", "cpu"])
    assert result.exit_code == code, result.output
    assert (tmp_path / "out/student.safetensors").is_file() == (code == 0)
