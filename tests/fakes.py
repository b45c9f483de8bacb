"""Models without weights that misbehave, or show what they were given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from rsupres.blocks.separable import enlarge
from rsupres.checkpoints.catalogue import Card
from rsupres.families.base import (
    Conditions,
    ModelSpec,
    SamplerOptions,
    ScaleRange,
    SceneContext,
    SceneReader,
    TileBatch,
)
from rsupres.grid import PixelWindow

RANGE = ScaleRange(Fraction(1), Fraction(8), Fraction(4))


def spec(**values: object) -> ModelSpec:
    """Return a small model's spec: any bands, tiles of 16, halo 2."""
    plain: dict[str, object] = {
        "family": "bicubic",
        "scales": RANGE,
        "tile_size": 16,
        "halo": 2,
    }
    return ModelSpec(**{**plain, **values})


@dataclass
class FakeModel:
    """Enlarges by bicubic interpolation and then does `twist` to the result."""

    spec: ModelSpec = field(default_factory=spec)
    twist: Callable[[Tensor, TileBatch], Tensor] = lambda sr, batch: sr
    batches: list[int] = field(default_factory=list)

    def prepare(self, scene: SceneReader, scale: Fraction, noise) -> SceneContext:
        return SceneContext()

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        self.batches.append(len(batch.lr))
        return self.twist(enlarge(batch.lr, scale), batch)

    def install(self, monkeypatch) -> FakeModel:
        """Be the model that every name stands for."""
        card = Card("fake", self.spec)
        monkeypatch.setattr(
            "rsupres.upscaling.preparation.model.read_card", lambda name: card
        )
        monkeypatch.setattr(
            "rsupres.upscaling.preparation.model.load_model", lambda *args: self
        )
        return self


@dataclass
class SureModel(FakeModel):
    """Predicts that its error has a standard deviation of 0.01 in every band."""

    def upscale_with_variance(self, batch: TileBatch, scale: Fraction) -> Tensor:
        sr = self.upscale(batch, scale)
        return torch.cat([sr, torch.full_like(sr, 1e-4)], 1)


@dataclass
class PreparingModel(FakeModel):
    """Adds an array that it found for the whole scene, noise of the SR grid in it."""

    prepared: int = 0

    def prepare(self, scene: SceneReader, scale: Fraction, noise) -> SceneContext:
        self.prepared += 1
        whole = PixelWindow(0, 0, scene.height, scene.width)
        unit, _ = scene.read(whole)
        field_ = scene.allocate("field", unit.shape, "float32")
        field_[...] = noise.draw(0, whole, len(unit))
        return SceneContext({"field": field_}, {"mean": float(unit.mean())})

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        self.batches.append(len(batch.lr))
        field_ = batch.scene.arrays["field"]
        parts = [field_[(slice(None), *w.slices())] for w in batch.windows_lr]
        noise = torch.from_numpy(np.stack(parts))
        return enlarge(batch.lr + 0.02 * noise + batch.scene.numbers["mean"], scale)


def noisy(sr: Tensor, batch: TileBatch) -> Tensor:
    """Add noise of the run's field, a hundredth of the range."""
    drawn = [batch.noise.draw(0, window, sr.shape[1]) for window in batch.windows_sr]
    return sr + 0.01 * torch.from_numpy(np.stack(drawn))


@dataclass
class LookingModel(FakeModel):
    """Enlarges the scene and adds a tenth of every condition that it is given.

    Keeps the batches' conditions, and what `prepare` was shown.
    """

    seen: list[Conditions] = field(default_factory=list)
    windows: list[PixelWindow] = field(default_factory=list)
    prepared: list[Conditions] = field(default_factory=list)

    def prepare(self, scene: SceneReader, scale: Fraction, noise) -> SceneContext:
        whole = PixelWindow(0, 0, scene.height, scene.width).scaled(scale)
        self.prepared.append(scene.read_conditions(whole))
        style = scene.style
        return SceneContext({}, {} if style is None else {"style": float(style.mean())})

    def upscale(self, batch: TileBatch, scale: Fraction) -> Tensor:
        self.batches.append(len(batch.lr))
        self.seen.append(batch.conditions)
        self.windows += batch.windows_sr
        sr = enlarge(batch.lr, scale) + 0.1 * batch.scene.numbers.get("style", 0.0)
        given = batch.conditions.given()
        for name in ("vector_map", "reference", "change_mask"):
            if name in given:
                sr = sr + 0.1 * given[name].float().mean(1, keepdim=True)
        if "reference_valid" in given:
            sr = sr + 0.05 * (~given["reference_valid"]).float()
        return self.twist(sr, batch)


@dataclass
class RepeatingModel:
    """A model that repeats pixels and remembers how it was called."""

    spec: ModelSpec
    options: SamplerOptions = field(default_factory=SamplerOptions)
    batches: list[TileBatch] = field(default_factory=list)
    answer: float | None = None

    def prepare(
        self, scene: SceneReader, scale: Fraction, noise: object
    ) -> SceneContext:
        return SceneContext(numbers={"height": float(scene.height)})

    def upscale(self, batch: TileBatch, scale: Fraction) -> torch.Tensor:
        self.batches.append(batch)
        size = [int(n * scale) for n in batch.lr.shape[2:]]
        sr = torch.nn.functional.interpolate(batch.lr, size=size, mode="nearest")
        return sr if self.answer is None else torch.full_like(sr, self.answer)
