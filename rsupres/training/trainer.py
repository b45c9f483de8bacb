"""The optimiser steps of one stage: autocast, adversarial loss, moving average.

It knows no files and no stages before or after; `rsupres.training.loop` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from rsupres.errors import InputError, ModelOutputError
from rsupres.training.adversarial import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
)
from rsupres.training.base import FamilyTraining
from rsupres.training.batches import Batch
from rsupres.training.config import StageConfig, TrainConfig, resolve_path
from rsupres.training.losses import Outcome, StageSetup
from rsupres.training.registry import stage_options
from rsupres.training.state import (
    State,
    module_tensors,
    optimizer_tensors,
    restore_optimizer,
    with_prefix,
)


class Trainer:
    """Optimisers, moving average and optimiser step of one stage."""

    def __init__(
        self,
        family: FamilyTraining,
        config: TrainConfig,
        stage: StageConfig,
        root: Path,
        device: torch.device,
    ) -> None:
        self.family = family
        self.config = config
        self.stage = stage
        self.device = device
        self.plan = family.stages[stage.name]
        self.parameters: dict[str, nn.Parameter] = {}
        for name, parameter in family.networks.named_parameters():
            parameter.requires_grad_(self.plan.covers(name))
            if parameter.requires_grad:
                self.parameters[name] = parameter
        family.networks.train()
        self.ema = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(  # without decay it is Adam
            self.parameters.values(),
            stage.lr,
            stage.betas,
            weight_decay=stage.weight_decay,
        )
        self.discriminator: PatchDiscriminator | None = None
        if stage.adversarial_weight:
            torch.manual_seed(config.seed + 1)
            self.discriminator = PatchDiscriminator(
                32, "spectral", self.plan.judged
            ).to(device)
            self.discriminator_optimizer = torch.optim.Adam(
                self.discriminator.parameters(), lr=stage.lr, betas=(0.5, 0.9)
            )
        perceptual = _load_perceptual(config, stage, root, device)
        self.setup = StageSetup(stage, stage_options(family, stage), perceptual)

    def step(self, k: int, batch: Batch, number: int) -> dict[str, float]:
        """Take optimiser step `k` of the stage and return its figures by name.

        Args:
            k: iteration of the stage.
            batch: on any device.
            number: iteration of the whole run; seeds the draws of the loss.

        Raises:
            ModelOutputError: the loss is not finite.
        """
        stage = self.stage
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(stage, k)
        seed = self.config.seed * 1_000_003 + number
        generator = torch.Generator().manual_seed(seed)
        adversarial = self.discriminator is not None and k >= stage.adversarial_start
        with self._autocast():
            outcome = self.family.loss(batch.to(self.device), generator, self.setup)
            total = torch.stack([t.float() for t in outcome.terms.values()]).sum()
            figures = {name: t.detach() for name, t in outcome.terms.items()}
            if adversarial:
                extra = self._adversarial(outcome, total)
                figures["adversarial"] = extra.detach()
                total = total + extra
        if not bool(torch.isfinite(total)):
            raise ModelOutputError(
                f"Loss is not finite at iteration {k} of stage '{stage.name}'; lower"
                " its learning rate."
            )
        self._descend(total, k)
        if adversarial:
            figures["judge"] = self._train_discriminator(outcome)
        return {name: float(value) for name, value in figures.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the networks hold the moving average, in eval mode."""
        kept = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.finish()
        self.family.networks.eval()
        try:
            yield
        finally:
            self.family.networks.train()
            for name, parameter in self.parameters.items():
                parameter.data.copy_(kept[name])

    def finish(self) -> None:
        """Copy the moving average into the networks."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.ema[name])

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a running stage for a state, without the networks."""
        tensors = with_prefix("ema", self.ema)
        tensors |= with_prefix("adam", optimizer_tensors(self.optimizer))
        if self.discriminator is not None:
            tensors |= with_prefix("judge", module_tensors(self.discriminator))
            slots = optimizer_tensors(self.discriminator_optimizer)
            tensors |= with_prefix("judge_adam", slots)
        return tensors

    def restore(self, state: State) -> None:
        """Restore optimisers and moving average from a state."""
        averages = state.part("ema")
        for name, average in self.ema.items():
            average.copy_(averages[name])
        restore_optimizer(self.optimizer, state.part("adam"))
        if self.discriminator is not None:
            self.discriminator.load_state_dict(state.part("judge"))
            restore_optimizer(self.discriminator_optimizer, state.part("judge_adam"))

    def _descend(self, total: Tensor, k: int) -> None:
        """Take the optimiser step and update the moving average."""
        parameters = list(self.parameters.values())
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(parameters, self.stage.clip)
        self.optimizer.step()
        decay = min(self.stage.ema, (1.0 + k) / (10.0 + k))
        torch._foreach_lerp_(
            list(self.ema.values()), [p.detach() for p in parameters], 1.0 - decay
        )

    def _adversarial(self, outcome: Outcome, reconstruction: Tensor) -> Tensor:
        assert self.discriminator is not None
        assert outcome.fake is not None
        assert self.plan.last_layer is not None
        self.discriminator.requires_grad_(False)
        loss = hinge_generator(self.discriminator(outcome.fake).float())
        last = self.family.networks.get_parameter(self.plan.last_layer)
        weight = adaptive_weight(reconstruction, loss, last)
        return self.stage.adversarial_weight * weight * loss

    def _train_discriminator(self, outcome: Outcome) -> Tensor:
        assert self.discriminator is not None
        assert outcome.fake is not None
        assert outcome.real is not None
        self.discriminator.requires_grad_(True)
        with self._autocast():
            real = self.discriminator(outcome.real).float()
            fake = self.discriminator(outcome.fake.detach()).float()
        loss = hinge_discriminator(real, fake)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.discriminator_optimizer.step()
        return loss.detach()

    def _autocast(self) -> torch.autocast:
        half = self.config.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)


def _learning_rate(stage: StageConfig, k: int) -> float:
    """Return the learning rate of iteration `k`: linear warm-up, then cosine."""
    if k < stage.warmup:
        return stage.lr * (k + 1) / stage.warmup
    done = (k - stage.warmup) / max(stage.iterations - stage.warmup, 1)
    return stage.lr_end + 0.5 * (stage.lr - stage.lr_end) * (
        1.0 + math.cos(math.pi * done)
    )


def _load_perceptual(
    config: TrainConfig, stage: StageConfig, root: Path, device: torch.device
) -> nn.Module | None:
    if not stage.perceptual_weight:
        return None
    from rsupres.evaluation.perceptual.lpips import LpipsSqueeze

    if config.lpips_weights is None:
        raise InputError(
            f"Stage '{stage.name}' has a perceptual_weight; set lpips_weights to the"
            " folder of the LPIPS weights."
        )
    module = LpipsSqueeze.load(resolve_path(config.lpips_weights, root))
    return module.to(device).eval().requires_grad_(False)
