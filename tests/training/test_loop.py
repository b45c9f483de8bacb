"""Training: configurations, packs, batches, stages, resume."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rsupres.checkpoints.catalogue import load_model
from rsupres.datasets.packs import CropOrigin, Pack, PackMeta, write_pack
from rsupres.errors import CheckpointError, InputError, RunConflictError
from rsupres.families.base import SamplerOptions
from rsupres.output.locks import Lock
from rsupres.training.batches import PatchSource
from rsupres.training.config import (
    DataConfig,
    PatchOptions,
    StageConfig,
    TrainConfig,
    parse_config,
    read_config,
)
from rsupres.training.loop import train
from rsupres.upscaling.array import upscale_whole

CPU = torch.device("cpu")
TINY = {
    "enc_base": 8,
    "mult": [1, 1, 1, 2],
    "dec_channels": 8,
    "sr_channels": 16,
    "imdbs": 1,
    "csum_channels": 16,
    "csum_hidden": 16,
    "unet_base": 8,
}


def _pack(path: Path, degradation: str = "bicubic", side: int = 64, n: int = 3) -> Path:
    """Write crops of stripes and blocks, so there is something to learn."""
    rng = np.random.default_rng(0)
    crops = [
        np.kron(rng.integers(40, 216, (3, side // 8, side // 8)), np.ones((8, 8)))
        .round()
        .astype(np.uint8)
        for _ in range(n)
    ]
    origins = tuple(CropOrigin("town", f"town_{k}.tif", 0.6) for k in range(n))
    write_pack(path, crops, PackMeta("train", degradation, origins, {}, "none", 0))
    return path


def _config(*stages: StageConfig, **changes: object) -> TrainConfig:
    config = TrainConfig(
        name="tiny",
        family="e2diffsr",
        out="out",
        data=DataConfig(
            train=("p.safetensors",), lr_side=16, batch=2, scales=(1.5, 4.0)
        ),
        stage=stages,
        overrides=TINY,
        precision="fp32",
        threads=1,
        validate_every=1000,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


FEW = {"measured_batches": 2}
ALL_STAGES = (
    StageConfig("autoencoder", 2, warmup=1),
    StageConfig("prior", 2, warmup=1, options=FEW),
    StageConfig("closing", 2, warmup=1, options={"drop_prior": 0.3}),
    StageConfig("detail", 4, warmup=1, adversarial_weight=0.1, adversarial_start=1),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pack and of a run of all stages with validation."""
    folder = tmp_path_factory.mktemp("trained")
    _pack(folder / "p.safetensors")
    config = _config(*ALL_STAGES)
    data = replace(config.data, validation=("p.safetensors",))
    path = train(replace(config, data=data), folder, CPU)
    assert path == folder / "out" / "tiny.safetensors"
    return folder


def test_all_stages_end_in_a_checkpoint_that_upscales(trained: Path) -> None:
    path = trained / "out" / "tiny.safetensors"
    model = load_model(str(path), CPU, SamplerOptions(detail=1.0))
    lr = np.random.default_rng(0).random((3, 16, 12)).astype(np.float32)
    assert upscale_whole(model, lr, Fraction(4), CPU).shape == (3, 64, 48)
    log = [
        json.loads(line)
        for line in (trained / "out/log.jsonl").read_text().splitlines()
    ]
    assert [r["stage"] for r in log if "s_per_it" in r] == [s.name for s in ALL_STAGES]
    figures = {k for r in log for k in r}
    assert {
        "psnr_bicubic_x4",
        "psnr_z_true_x4",
        "psnr_z_zero_x4",
        "psnr_z_hat_x4",
    } <= figures
    assert (trained / "out/validation/detail_000004.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "prediction"),
    [("autoencoder", "eps"), ("prior", "eps"), ("closing", "x0")],
)
def test_the_loss_falls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, prediction: str
) -> None:
    monkeypatch.setattr("rsupres.training.loop.PROGRESS_EVERY", 15)
    _pack(tmp_path / "p.safetensors", n=1)
    seen: list[float] = []

    def watch(name: str, k: int, total: int, figures: object) -> None:
        assert isinstance(figures, dict)
        seen.append(
            sum(v for n, v in figures.items() if n in ("pixel", "latent", "cond"))
        )

    options = FEW if stage == "prior" else {}
    config = _config(StageConfig(stage, 30, lr=3e-3, warmup=2, options=options))
    small = replace(config.data, lr_side=12, fixed_scales=(2.0,))
    # Without the bicubic residual, the networks start far from the picture; with x0
    # prediction, the latent of an untrained denoiser is small.
    changes = {"residual_bicubic": False, "prediction": prediction}
    config = replace(config, overrides={**TINY, **changes}, data=small)
    train(config, tmp_path, CPU, on_progress=watch)
    assert len(seen) == 2  # means over 15 iterations each
    assert seen[1] < 0.9 * seen[0]


def test_a_killed_run_continues_to_the_same_weights(
    tmp_path: Path, trained: Path
) -> None:
    """Validation, which this run goes without, changes no weight."""
    _pack(tmp_path / "p.safetensors")
    config = _config(*ALL_STAGES)
    path = None
    for _ in range(100):  # every call stops after one iteration
        path = train(config, tmp_path, CPU, stop_after_s=0.0)
        if path is not None:
            break
    assert path is not None
    wanted, got = load_file(trained / "out" / path.name), load_file(path)
    assert wanted.keys() == got.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, atol=0, rtol=0)


def test_a_leftover_of_a_kill_does_not_hurt(tmp_path: Path) -> None:
    _pack(tmp_path / "p.safetensors")
    config = _config(*ALL_STAGES[:1])
    assert train(config, tmp_path, CPU, stop_after_s=0.0) is None
    (tmp_path / "out/state.safetensors.tmp").write_bytes(b"half a file")
    assert train(config, tmp_path, CPU) is not None


def test_another_configuration_does_not_continue_a_run(tmp_path: Path) -> None:
    _pack(tmp_path / "p.safetensors")
    train(_config(*ALL_STAGES[:1]), tmp_path, CPU, stop_after_s=0.0)
    with pytest.raises(CheckpointError, match="another configuration"):
        train(_config(*ALL_STAGES[:1], seed=7), tmp_path, CPU)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    _pack(tmp_path / "p.safetensors")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/state.safetensors").write_bytes(b"nonsense that is no header")
    with pytest.raises(CheckpointError, match=r"state\.safetensors"):
        train(_config(*ALL_STAGES[:1]), tmp_path, CPU)


def test_weights_of_a_stage_can_start_another_run(tmp_path: Path) -> None:
    _pack(tmp_path / "p.safetensors")
    train(_config(*ALL_STAGES[:2]), tmp_path, CPU)
    second = _config(
        StageConfig("prior", 1, lr=1e-9, options=FEW),
        out="two",
        start_from="out/stage_2.safetensors",
    )
    train(second, tmp_path, CPU)
    before = load_file(tmp_path / "out/stage_2.safetensors")
    after = load_file(tmp_path / "two/stage_1.safetensors")
    same = [n for n in before if n != "latent_scale"]
    assert all(torch.allclose(before[n], after[n], atol=1e-6) for n in same)


def test_batches_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    pack = Pack.load(_pack(tmp_path / "p.safetensors"))
    plan = PatchOptions(lr_side=16, batch=2)
    first, again, other = (
        PatchSource([pack], plan, seed=s).batch(k) for s, k in ((1, 5), (1, 5), (1, 6))
    )
    assert torch.equal(first.hr, again.hr)
    assert torch.equal(first.lr, again.lr)
    assert first.hr.shape != other.hr.shape or not torch.equal(first.hr, other.hr)


@pytest.mark.parametrize("degradation", ["bicubic", "sentinel2"])
@pytest.mark.parametrize("side", [24, 40, 64, 200])
def test_patches_fit_their_crops_at_every_scale(
    tmp_path: Path, degradation: str, side: int
) -> None:
    pack = Pack.load(_pack(tmp_path / "p.safetensors", degradation, side))
    source = PatchSource([pack], PatchOptions(lr_side=32, batch=2, tone=True), seed=0)
    for k in range(15):
        batch = source.batch(k)
        assert batch.hr.shape[2] % 8 == 0
        assert batch.hr.shape[2] <= side
        assert batch.lr.shape[2] * batch.scale == batch.hr.shape[2]
        assert 1 <= batch.scale <= Fraction(9, 2)
        assert batch.lr.min() >= 0
        assert batch.lr.max() <= 1


def test_packs_come_back_as_written(tmp_path: Path) -> None:
    path = _pack(tmp_path / "p.safetensors", n=2)
    pack = Pack.load(path)
    assert len(pack.crops) == 2
    assert pack.crops[0].shape == (3, 64, 64)
    assert pack.meta.crops[1] == CropOrigin("town", "town_1.tif", 0.6)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="damaged"):
        Pack.load(path)
    with pytest.raises(InputError, match="no such file"):
        Pack.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 1", "expected str"),
        ('nme = "x"', "unknown key 'nme'"),
        ('precision = "fp8"', "'fp8' is not one of bf16, fp32"),
        ("stage = 3", "expected a list"),
        ('[[stage]]\nname = "autoencoder"\niterations = 1.5', "expected int"),
        ('[[stage]]\nname = "autoencoder"', "missing"),
        ("[data]\nscales = [1.0]", "expected 2 values"),
        ("seed = true", "expected int"),
        ("= 3", "not valid TOML"),
    ],
)
def test_wrong_configurations_are_named(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(path)


def test_a_configuration_reads_into_its_dataclasses() -> None:
    config = parse_config(
        TrainConfig,
        {
            "name": "a",
            "family": "e2diffsr",
            "out": "o",
            "data": {"train": ["p"], "gsd_weights": {"0.6": 1.0}, "scales": [1, 2]},
            "stage": [{"name": "prior", "iterations": 3}],
        },
        "x",
    )
    assert config.data.scales == (1.0, 2.0)
    assert config.stage == (StageConfig("prior", 3),)


def test_lpips_without_weights_is_refused(tmp_path: Path) -> None:
    _pack(tmp_path / "p.safetensors")
    config = _config(StageConfig("closing", 1, perceptual_weight=1.0))
    with pytest.raises(InputError, match="lpips_weights"):
        train(config, tmp_path, CPU)


@pytest.mark.parametrize(
    "change", [{"family": "none"}, {"architecture": "none"}, {"overrides": {"none": 1}}]
)
def test_unknown_families_and_architectures_are_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    with pytest.raises(InputError, match="none"):
        train(_config(*ALL_STAGES[:1], **change), tmp_path, CPU)


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    _pack(tmp_path / "a.safetensors")
    config = _config(StageConfig("autoencoder", 1), out="run")
    (tmp_path / "run").mkdir()
    lock = Lock.take(tmp_path / "run" / "train.lock", [fcntl.LOCK_EX], 0)
    try:
        with pytest.raises(RunConflictError):
            train(config, tmp_path, CPU)
    finally:
        lock.release()
