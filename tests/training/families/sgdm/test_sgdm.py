"""Training SGDM: every stage on a tiny configuration, losses that fall, resuming."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rsupres.checkpoints.catalogue import load_model
from rsupres.datasets.packs import CropOrigin, Pack, PackMeta, write_pack
from rsupres.errors import InputError
from rsupres.families.base import Conditions, SamplerOptions
from rsupres.families.sgdm.config import VARIANTS
from rsupres.families.sgdm.network import SgdmNetworks
from rsupres.training.base import Validation
from rsupres.training.batches import PatchSource
from rsupres.training.config import DataConfig, PatchOptions, StageConfig, TrainConfig
from rsupres.training.families.sgdm.initialise import balance_map, trains_in_stage1
from rsupres.training.families.sgdm.losses import (
    DiffusionOptions,
    Patches,
    shown_maps,
)
from rsupres.training.families.sgdm.training import (
    ARCHITECTURES,
    SgdmOptions,
    SgdmTraining,
)
from rsupres.training.loop import train as train_on
from rsupres.training.losses import StageSetup
from rsupres.training.registry import stage_options
from rsupres.upscaling.array import upscale_whole

CPU = torch.device("cpu")


def train(made: TrainConfig, root: Path) -> Path:
    path = train_on(made, root, CPU)
    assert path is not None
    return path


def write_towns(path: Path, side: int = 64, n: int = 3) -> Path:
    """Write crops whose maps tell where bright blocks lie."""
    rng = np.random.default_rng(0)
    crops, maps = [], []
    for _ in range(n):
        blocks = np.kron(rng.random((side // 8, side // 8)) < 0.4, np.ones((8, 8)))
        noise = rng.normal(0, 6, (3, side, side))
        crops.append((80 + 120 * blocks + noise).clip(0, 255).astype(np.uint8))
        there = blocks.astype(bool)
        colours = np.array([[226, 224, 210], [245, 240, 228]], np.uint8)
        maps.append(np.where(there, *colours[:, :, None, None]).astype(np.uint8))
    origins = tuple(CropOrigin("town", f"town_{k}.tif", 1.25) for k in range(n))
    meta = PackMeta(
        "train",
        "bicubic",
        origins,
        {},
        "none",
        0,
        layers=("vector_map",),
        legend="maptiler",
    )
    write_pack(path, crops, meta, layers={"vector_map": maps})
    return path


def config(architecture: str, *stages: StageConfig, **changes: object) -> TrainConfig:
    made = TrainConfig(
        name="tiny",
        family="sgdm",
        out="out",
        data=DataConfig(
            train=("towns.safetensors",), lr_side=16, batch=2, scales=(4.0, 4.0)
        ),
        stage=stages,
        architecture=architecture,
        precision="fp32",
        threads=1,
        validate_every=10_000,
        halo=2,
        options={"scale": 4},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def stage(name: str, iterations: int = 2, **changes: object) -> StageConfig:
    if name == "diffusion":  # statistics of few batches are enough here
        changes["options"] = {"measured_batches": 3, **changes.get("options", {})}  # type: ignore[dict-item]
    return StageConfig(name, iterations, lr=2e-3, warmup=1, **changes)  # type: ignore[arg-type]


def test_a_small_model_goes_through_its_stages(tmp_path: Path) -> None:
    write_towns(tmp_path / "towns.safetensors")
    stages = (
        stage("autoencoder"),
        stage("diffusion", options={"drop_map": 0.5}),
        stage("picture"),
    )
    made = config("tiny-latent", *stages)
    made = replace(
        made,
        data=replace(made.data, validation=("towns.safetensors",)),
        validate_every=2,
    )
    path = train(made, tmp_path)
    model = load_model(str(path), CPU, SamplerOptions())
    assert model.spec.accepts == {"vector_map"}
    assert model.spec.halo == 2
    sr = upscale_whole(
        model,
        np.full((3, 8, 12), 0.5, np.float32),
        next(iter(model.spec.scales.values)),
        CPU,  # type: ignore[union-attr]
    )
    assert sr.shape == (3, 32, 48)
    stored = load_file(path)
    assert not any(name.startswith("autoencoder.encoder.") for name in stored)
    assert float(stored["latent_scale"]) != 1.0
    assert list((tmp_path / "out").rglob("*.png"))


def test_a_model_on_pixels_goes_through_its_stages(tmp_path: Path) -> None:
    """The picture, with a judge that sees the map, then SFlow."""
    write_towns(tmp_path / "towns.safetensors")
    options = {"drop_map": 0.3, "foreign_map": 0.2, "measured_batches": 3}
    pixels = stage("pixels", adversarial_weight=0.3, options=options)
    scales = {"scale": 4, "other_scales": [8]}
    made = config("tiny-mini", pixels, stage("sflow"), options=scales)
    data = replace(made.data, fixed_scales=(4.0, 8.0), hr_side=64)
    path = train(replace(made, data=data), tmp_path)
    model = load_model(str(path), CPU, SamplerOptions(style_sample=True))
    assert model.spec.accepts == {"vector_map", "style"}
    assert all(model.spec.scales.offers(scale) for scale in (4, 8))
    sr = upscale_whole(model, np.full((3, 8, 12), 0.5, np.float32), Fraction(8), CPU)
    assert sr.shape == (3, 64, 96)
    assert float(load_file(path)["latent_scale"]) > 1.0


def test_validation_finishes_pictures_as_upscale_does(tmp_path: Path) -> None:
    """Mapped ground is unmixed, so the figure with the map follows `unmix`."""
    pack = Pack.load(write_towns(tmp_path / "towns.safetensors", side=128))
    made, figures = config("tiny-mini"), []
    for unmix in (True, False):
        torch.manual_seed(0)
        training = SgdmTraining.build(made, SgdmOptions(4), tmp_path)
        architecture = replace(training.architecture, unmix=unmix)
        validation = Validation([pack], "pixels", tmp_path / "crops.png", CPU)
        with torch.no_grad():
            figures.append(
                replace(training, architecture=architecture).validate(validation)
            )
    assert figures[0]["psnr_sample"] != figures[1]["psnr_sample"]
    assert figures[0]["psnr_no_map"] == figures[1]["psnr_no_map"]


def test_the_papers_stages_train_what_the_paper_trains(tmp_path: Path) -> None:
    write_towns(tmp_path / "towns.safetensors")
    start = train(config("tiny", stage("stage1", 1)), tmp_path)
    before = load_file(start)
    again = config("tiny", stage("stage1"), stage("sflow"), out="more")
    path = train(replace(again, start_from="out/stage_1.safetensors"), tmp_path)
    after = load_file(path)
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    running = {n for n in moved if "running_" in n or "num_batches" in n}
    assert any(n.startswith("flow_mean.couplings") for n in moved)
    assert any(".attn1.to_k." in n for n in moved)
    assert any(n.startswith("adapter.encoder.style.") for n in moved)
    others = {n for n in moved - running if not n.startswith("flow_")}
    assert all(trains_in_stage1(n) for n in others)


@pytest.mark.parametrize(
    ("name", "term", "iterations"),
    [
        pytest.param("autoencoder", "pixel", 20, marks=pytest.mark.slow),
        pytest.param("diffusion", "v", 20, marks=pytest.mark.slow),
        ("sflow", "nll_mean", 20),
    ],
)
def test_losses_fall(tmp_path: Path, name: str, term: str, iterations: int) -> None:
    """Measured on one batch with the same draws, before and after."""
    architecture = "tiny" if name == "sflow" else "tiny-latent"
    write_towns(tmp_path / "towns.safetensors")
    made = config(architecture, stage(name, iterations, ema=0.5))
    pack = Pack.load(tmp_path / "towns.safetensors")
    batch = PatchSource([pack], PatchOptions(16, 4, (4.0, 4.0)), seed=9).batch(0)
    setup = StageSetup(made.stage[0], stage_options(SgdmTraining, made.stage[0]), None)

    def measure(training: SgdmTraining) -> float:
        training.networks.eval()
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            return float(training.loss(batch, generator, setup).terms[term])

    torch.manual_seed(made.seed)
    training = SgdmTraining.build(made, SgdmOptions(4), tmp_path)
    train(made, tmp_path)
    state = load_file(tmp_path / "out" / "stage_1.safetensors")
    training.networks.latent_scale.copy_(state["latent_scale"])  # the same task
    before = measure(training)
    training.networks.load_state_dict(state)
    after = measure(training)
    print(f"{name}: {before:.4f} -> {after:.4f}")
    assert after < before - 0.02 * abs(before)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path: Path) -> None:
    """Stopped after every save; also between stages, whose scale was measured once."""
    write_towns(tmp_path / "towns.safetensors")
    stages = (stage("autoencoder", 1), stage("diffusion"), stage("picture", 1))
    wanted = load_file(train(config("tiny-latent", *stages), tmp_path))
    stopped = config("tiny-latent", *stages, out="stopped")
    path, n = None, 0
    while path is None:
        path = train_on(stopped, tmp_path, CPU, stop_after_s=0.0)
        n += 1
    got = load_file(path)
    assert n > 1
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_recomputing_activations_changes_no_gradient(tmp_path: Path) -> None:
    write_towns(tmp_path / "towns.safetensors")
    made = config("tiny-latent", stage("diffusion"))
    pack = Pack.load(tmp_path / "towns.safetensors")
    batch = PatchSource([pack], PatchOptions(16, 2, (4.0, 4.0)), seed=9).batch(0)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        training = SgdmTraining.build(made, SgdmOptions(4, recompute), tmp_path)
        generator = torch.Generator().manual_seed(0)
        setup = StageSetup(made.stage[0], DiffusionOptions(), None)
        sum(training.loss(batch, generator, setup).terms.values()).backward()  # type: ignore[union-attr]
        gradients.append(training.networks.unet.conv_in.weight.grad)
    torch.testing.assert_close(*gradients)


def test_a_dropped_map_is_the_empty_one(tmp_path: Path) -> None:
    """With every map dropped, the loss is that of a batch without maps."""
    write_towns(tmp_path / "towns.safetensors")
    made = config("tiny-latent", stage("diffusion"))
    pack = Pack.load(tmp_path / "towns.safetensors")
    batch = PatchSource([pack], PatchOptions(16, 2, (4.0, 4.0)), seed=9).batch(0)
    torch.manual_seed(0)
    training = SgdmTraining.build(made, SgdmOptions(4), tmp_path)
    training.networks.eval()

    def loss(share: float, seen: object) -> float:
        setup = StageSetup(made.stage[0], DiffusionOptions(share), None)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return float(training.loss(seen, generator, setup).terms["v"])  # type: ignore[arg-type]

    without = replace(batch, conditions=Conditions())
    assert loss(1.0, batch) == loss(0.0, without)
    assert loss(0.0, batch) != loss(0.0, without)


def patches_of(maps: torch.Tensor) -> Patches:
    picture = torch.zeros_like(maps)
    return Patches(picture, picture, maps, torch.zeros_like(maps))


def test_maps_that_err_are_missing_foreign_outdated_or_shifted() -> None:
    rows = torch.linspace(0.1, 0.9, 32)
    maps = torch.stack([rows.expand(3, 32, 32), 1.0 - rows.expand(3, 32, 32)])
    patches = patches_of(maps)

    def shown(seed: int = 1, **options: float) -> torch.Tensor:
        made = DiffusionOptions(**options)  # type: ignore[arg-type]
        found = shown_maps(patches, made, torch.Generator().manual_seed(seed))
        assert found is not None
        return found

    assert torch.equal(shown(), maps)
    assert torch.equal(shown(drop_map=1.0), torch.zeros_like(maps))
    assert torch.equal(shown(foreign_map=1.0), maps.flip(0))
    moved = torch.stack([(shown(seed, shift_map=3) - maps).abs() for seed in range(9)])
    assert 0.0 < float(moved.max()) <= 3 * 0.8 / 31 + 1e-6
    outdated = shown(outdated_map=1.0)
    same = (outdated == maps).float().mean()
    assert 0.2 < float(same) < 0.95


def test_a_pale_map_speaks_as_loudly_as_lr(tmp_path: Path) -> None:
    pack = Pack.load(write_towns(tmp_path / "towns.safetensors"))
    batch = PatchSource([pack], PatchOptions(16, 3, (4.0, 4.0)), seed=0).batch(0)
    drawn_map = batch.conditions.vector_map
    assert drawn_map is not None
    networks = SgdmNetworks(ARCHITECTURES["tiny-latent"])

    def loudness() -> float:
        with torch.no_grad():
            said = networks.adapter.content(batch.hr, 2.0 * drawn_map - 1.0).chart
        assert said is not None
        return float(said.std(dim=(0, 2, 3)).mean())

    assert loudness() < 0.1
    balance_map([drawn_map], networks)
    assert 0.3 < loudness() < 3.0


def test_a_model_without_flows_cannot_learn_them(tmp_path: Path) -> None:
    write_towns(tmp_path / "towns.safetensors")
    with pytest.raises(InputError, match="has no flow"):
        train(config("tiny-latent", stage("sflow")), tmp_path)


def test_the_released_variants_can_be_named() -> None:
    assert set(VARIANTS) <= set(ARCHITECTURES)
