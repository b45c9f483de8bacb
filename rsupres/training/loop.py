"""The one training loop: autocast, adversarial step, EMA, save, resume, validate.

It works through the stages of a `TrainConfig` and ends in an ordinary checkpoint. The
state is one safetensors file, written under a temporary name and renamed, so a kill at
any moment costs at most the work since the last save; the same call continues. Reads
packs, never rasters, and needs torch, numpy, safetensors and tqdm only.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rsupres.checkpoints import card_text, fit_tensors, write_checkpoint
from rsupres.errors import CheckpointError, InputError, ModelOutputError
from rsupres.families.e2diffsr import make_spec
from rsupres.families.e2diffsr_network import (
    PAPER,
    SMALL,
    E2DiffSRConfig,
    E2DiffSRNetworks,
)
from rsupres.training.adversarial import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
)
from rsupres.training.config import StageConfig, TrainConfig
from rsupres.training.data import Batch, Pack, PatchPlan, PatchSource
from rsupres.training.objectives import (
    OBJECTIVES,
    Job,
    Objective,
    Outcome,
    measure_latent_scale,
)

_LOG = logging.getLogger(__name__)
_STATE = "state.safetensors"
_LATENT_SCALE_BATCHES = 200
# Fields of a configuration that a continued run may have different.
_MAY_CHANGE = (
    *("name", "stage", "out", "gsd", "halo"),
    *("save_every_s", "validate_every", "threads", "lpips_weights"),
)
Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Position:
    """How far a run is: stage index and iterations done in it."""

    stage: int = 0
    iteration: int = 0


def train(
    config: TrainConfig,
    root: Path,
    device: torch.device,
    *,
    on_progress: Progress | None = None,
    stop_after_s: float | None = None,
) -> Path | None:
    """Train, continuing from the state in the output directory if there is one.

    Args:
        config: the run.
        root: directory to which the paths of `config` are relative.
        device: where to train.
        on_progress: called with stage, iteration, iterations and mean losses.
        stop_after_s: save the state and return after so many seconds.

    Returns:
        The finished checkpoint, or None when stopped before the end. Beside it lie a
        card with what the checkpoint tells (licence and scores are to be added) and all
        networks in float32, those for training too, as they were after each stage:
        ``stage_1.safetensors`` and so on, the files that ``start_from`` takes.

    Raises:
        InputError: packs or configuration cannot be used.
        CheckpointError: the state in the output directory belongs to another run.
    """
    run = _Run(config, root, device, on_progress, stop_after_s)
    return run.execute()


class _Run:
    """Networks, packs and files of one training run."""

    def __init__(
        self,
        config: TrainConfig,
        root: Path,
        device: torch.device,
        on_progress: Progress | None,
        stop_after_s: float | None,
    ) -> None:
        self.config = config
        self.root = root
        self.device = device
        self.out = root / config.out
        self.on_progress = on_progress or _silent
        self.deadline = None if stop_after_s is None else time.time() + stop_after_s
        self.architecture = architecture_of(config)
        torch.manual_seed(config.seed)
        self.networks = E2DiffSRNetworks(self.architecture)

    def execute(self) -> Path | None:
        config = self.config
        if config.threads:
            torch.set_num_threads(config.threads)
        self.out.mkdir(parents=True, exist_ok=True)
        self._load_start()
        state = _State.load(self.out / _STATE, self._fingerprint())
        position = Position()
        if state is not None:
            if any(name.startswith("model.depsr_detail.") for name in state.tensors):
                self.networks.add_detail()
            state.restore("model", self.networks)
            position = state.position
        self.networks.to(self.device)
        packs = [Pack.load(self.root / path) for path in config.data.train]
        source = self._source(packs)
        for index in range(position.stage, len(config.stage)):
            begin = position.iteration if index == position.stage else 0
            stage = config.stage[index]
            resumed = state if index == position.stage else None
            if not self._run_stage(index, stage, begin, source, resumed):
                return None
        return self._write_checkpoint()

    def _write_checkpoint(self) -> Path:
        """Write what inference needs, in half precision."""
        config = self.config
        path = self.out / f"{config.name}.safetensors"
        tensors = {
            name: tensor.half()
            for name, tensor in _plain(self.networks).items()
            if not name.startswith("dpencoder.")
        }
        spec = make_spec(
            self.architecture,
            detail=self.networks.depsr_detail is not None,
            gsd=config.gsd,
            halo=config.halo,
        )
        origin = (
            f"trained by rsupres, configuration '{config.name}', seed {config.seed}"
        )
        architecture = json.loads(json.dumps(asdict(self.architecture)))
        sha256 = write_checkpoint(path, tensors, spec, architecture, origin)
        card = card_text(config.name, path.name, sha256, spec)
        path.with_suffix(".toml").write_text(card, encoding="utf-8")
        return path

    def _load_start(self) -> None:
        if self.config.start_from is None:
            return
        path = self.root / self.config.start_from
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}).") from error
        if any(name.startswith("depsr_detail.") for name in tensors):
            self.networks.add_detail()
        wanted = {k: tuple(v.shape) for k, v in self.networks.state_dict().items()}
        fit_tensors(tensors, wanted, path)
        self.networks.load_state_dict(tensors)

    def _source(self, packs: list[Pack]) -> PatchSource:
        data = self.config.data
        plan = PatchPlan(
            data.lr_side,
            data.batch,
            data.scales[0],
            data.scales[1],
            data.scale_power,
            data.tone,
        )
        weights = {float(k): float(v) for k, v in data.gsd_weights.items()}
        return PatchSource(packs, plan, self.config.seed, weights)

    def _run_stage(
        self,
        index: int,
        stage: StageConfig,
        begin: int,
        source: PatchSource,
        state: _State | None,
    ) -> bool:
        """Train one stage from iteration `begin`; False = stopped by the deadline."""
        objective = OBJECTIVES[self.config.family][stage.name]
        offset = sum(s.iterations for s in self.config.stage[:index])
        self._enter(stage, source, begin)
        trainer = _Trainer(self, stage, objective)
        if state is not None and begin:
            trainer.restore(state)
        saved = time.time()
        meter = _Meter()
        for k in range(begin, stage.iterations):
            batch = source.batch(offset + k)
            meter.add(trainer.step(k, batch, offset + k))
            last = k + 1 == stage.iterations
            if (k + 1) % 50 == 0 or last:
                self._log(stage, k + 1, meter.drain())
            if (k + 1) % self.config.validate_every == 0 or last:
                self._validate(stage, k + 1, trainer)
            stop = self.deadline is not None and time.time() > self.deadline
            if not last and (stop or time.time() - saved > self.config.save_every_s):
                trainer.save(Position(index, k + 1))
                saved = time.time()
            if stop and not last:
                return False
        trainer.finish()
        _save(_plain(self.networks), {}, self.out / f"stage_{index + 1}.safetensors")
        self._save_state(Position(index + 1, 0), {})
        return True

    def _save_state(self, position: Position, extra: Mapping[str, Tensor]) -> None:
        """Write the resumable state: networks, and what a running stage adds."""
        tensors = {f"model.{k}": v for k, v in _plain(self.networks).items()}
        header = {
            "position": json.dumps(asdict(position)),
            "fingerprint": self._fingerprint(),
        }
        _save({**tensors, **extra}, header, self.out / _STATE)

    def _enter(self, stage: StageConfig, source: PatchSource, begin: int) -> None:
        if stage.name == "prior" and begin == 0:
            batches = [source.batch(10**9 + k) for k in range(_LATENT_SCALE_BATCHES)]
            scale = measure_latent_scale(self.networks, batches)
            self.networks.latent_scale.fill_(scale)
            _LOG.info("latent_scale = %.4f", scale)
        if stage.name == "detail":
            self.networks.add_detail()

    def _validate(self, stage: StageConfig, iteration: int, trainer: _Trainer) -> None:
        from rsupres.training.validation import validate

        if not self.config.data.validation:
            return
        packs = [Pack.load(self.root / p) for p in self.config.data.validation]
        with trainer.averaged():
            figures = validate(
                self.networks,
                self.architecture,
                packs,
                stage.name,
                self.out / "validation" / f"{stage.name}_{iteration:06d}.png",
                self.device,
            )
        self._log(stage, iteration, figures)

    def _log(
        self, stage: StageConfig, iteration: int, figures: Mapping[str, float]
    ) -> None:
        record = {
            "time": round(time.time(), 1),
            "stage": stage.name,
            "iteration": iteration,
            **{k: round(v, 6) for k, v in figures.items()},
        }
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.on_progress(stage.name, iteration, stage.iterations, figures)

    def _fingerprint(self) -> str:
        """Return what must not change between a start and its continuation.

        Stages may be appended and saving changed; what was done must stay.
        """
        kept = asdict(self.config)
        for name in _MAY_CHANGE:
            kept.pop(name)
        return json.dumps(kept, sort_keys=True, default=str)


class _Trainer:
    """Optimisers, averages and the step of one stage."""

    def __init__(self, run: _Run, stage: StageConfig, objective: Objective) -> None:
        self.run = run
        self.stage = stage
        self.objective = objective
        self.names = [
            name
            for name, _ in run.networks.named_parameters()
            if name.split(".")[0] in objective.trains
        ]
        for name, parameter in run.networks.named_parameters():
            parameter.requires_grad_(name in set(self.names))
        self.parameters = [run.networks.get_parameter(n) for n in self.names]
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=stage.lr, betas=stage.betas
        )
        self.judge: PatchDiscriminator | None = None
        if stage.adversarial_weight:
            torch.manual_seed(run.config.seed + 1)
            self.judge = PatchDiscriminator(32, "spectral").to(run.device)
            self.judge_optimizer = torch.optim.Adam(
                self.judge.parameters(), lr=stage.lr, betas=(0.5, 0.9)
            )
        self.job = Job(run.architecture, stage, self._perceptual())

    def step(self, k: int, batch: Batch, seed: int) -> dict[str, float]:
        """Take optimiser step `k` of the stage and return its figures."""
        run, stage = self.run, self.stage
        for group in self.optimizer.param_groups:
            group["lr"] = _rate(stage, k)
        batch = replace(batch, hr=batch.hr.to(run.device), lr=batch.lr.to(run.device))
        generator = torch.Generator().manual_seed(run.config.seed * 1_000_003 + seed)
        half = run.config.precision == "bf16"
        with torch.autocast(run.device.type, torch.bfloat16, enabled=half):
            outcome = self.objective.loss(run.networks, batch, generator, self.job)
            total = torch.stack([t.float() for t in outcome.terms.values()]).sum()
            figures = {name: t.detach() for name, t in outcome.terms.items()}
            judging = self.judge is not None and k >= stage.adversarial_start
            if judging:
                extra = self._adversarial(outcome, total)
                figures["adversarial"] = extra.detach()
                total = total + extra
        if not bool(torch.isfinite(total)):
            raise ModelOutputError(
                f"Loss is not finite at iteration {k} of stage '{stage.name}'; lower"
                " its learning rate."
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.parameters, stage.clip)
        self.optimizer.step()
        if judging:
            figures["judge"] = self._train_judge(outcome)
        decay = min(stage.ema, (1.0 + k) / (10.0 + k))
        torch._foreach_lerp_(
            self.ema, [p.detach() for p in self.parameters], 1.0 - decay
        )
        return {name: float(value) for name, value in figures.items()}

    def _adversarial(self, outcome: Outcome, reconstruction: Tensor) -> Tensor:
        assert self.judge is not None
        assert outcome.fake is not None
        assert self.objective.last_layer is not None
        self.judge.requires_grad_(False)
        loss = hinge_generator(self.judge(outcome.fake).float())
        last = self.run.networks.get_parameter(self.objective.last_layer)
        return (
            self.stage.adversarial_weight
            * adaptive_weight(reconstruction, loss, last)
            * loss
        )

    def _train_judge(self, outcome: Outcome) -> Tensor:
        assert self.judge is not None
        assert outcome.fake is not None
        assert outcome.real is not None
        self.judge.requires_grad_(True)
        half = self.run.config.precision == "bf16"
        with torch.autocast(self.run.device.type, torch.bfloat16, enabled=half):
            real = self.judge(outcome.real).float()
            fake = self.judge(outcome.fake.detach()).float()
        loss = hinge_discriminator(real, fake)
        self.judge_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.judge_optimizer.step()
        return loss.detach()

    def _perceptual(self) -> nn.Module | None:
        if not self.stage.perceptual_weight:
            return None
        from rsupres.evaluation.lpips import LpipsSqueeze

        if self.run.config.lpips_weights is None:
            raise InputError(
                f"Stage '{self.stage.name}' weighs LPIPS, but 'lpips_weights' names no"
                " folder of its weights."
            )
        module = LpipsSqueeze.load(self.run.root / self.run.config.lpips_weights)
        return module.to(self.run.device).eval().requires_grad_(False)

    def averaged(self) -> _Averaged:
        """Return a context in which the networks hold the moving average."""
        return _Averaged(self.parameters, self.ema)

    def finish(self) -> None:
        """Leave the moving average in the networks."""
        for parameter, average in zip(self.parameters, self.ema, strict=True):
            parameter.data.copy_(average)

    def save(self, position: Position) -> None:
        """Write the resumable state."""
        tensors = {
            f"ema.{name}": average
            for name, average in zip(self.names, self.ema, strict=True)
        }
        tensors |= _optimizer_tensors("adam", self.optimizer)
        if self.judge is not None:
            tensors |= {f"judge.{k}": v for k, v in self.judge.state_dict().items()}
            tensors |= _optimizer_tensors("judge_adam", self.judge_optimizer)
        self.run._save_state(position, tensors)

    def restore(self, state: _State) -> None:
        """Take up optimisers and averages from a state."""
        for name, average in zip(self.names, self.ema, strict=True):
            average.copy_(state.tensors[f"ema.{name}"])
        _restore_optimizer("adam", self.optimizer, state.tensors)
        if self.judge is not None:
            state.restore("judge", self.judge)
            _restore_optimizer("judge_adam", self.judge_optimizer, state.tensors)


class _Averaged:
    """Swap parameters for their averages, and back."""

    def __init__(self, parameters: list[nn.Parameter], averages: list[Tensor]) -> None:
        self.parameters = parameters
        self.averages = averages

    def __enter__(self) -> None:
        self.kept = [p.detach().clone() for p in self.parameters]
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            parameter.data.copy_(average)

    def __exit__(self, *_: object) -> None:
        for parameter, kept in zip(self.parameters, self.kept, strict=True):
            parameter.data.copy_(kept)


@dataclass(frozen=True)
class _State:
    """A resumable state as read from disk."""

    tensors: Mapping[str, Tensor]
    position: Position

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> _State | None:
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            position = Position(**json.loads(header["position"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: damaged training state ({error}); remove it to start anew."
            ) from error
        if header.get("fingerprint") != fingerprint:
            raise CheckpointError(
                f"{path}: belongs to another configuration; use another 'out' or remove"
                " it to start anew."
            )
        return cls(tensors, position)

    def restore(self, prefix: str, module: nn.Module) -> None:
        own = {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }
        module.load_state_dict(own)


class _Meter:
    """Mean of the figures since the last drain."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}
        self.began = time.time()
        self.n = 0

    def add(self, figures: Mapping[str, float]) -> None:
        self.n += 1
        for name, value in figures.items():
            self.sums.setdefault(name, []).append(value)

    def drain(self) -> dict[str, float]:
        means = {name: float(np.mean(v)) for name, v in self.sums.items()}
        means["s_per_it"] = (time.time() - self.began) / max(self.n, 1)
        self.sums, self.began, self.n = {}, time.time(), 0
        return means


def architecture_of(config: TrainConfig) -> E2DiffSRConfig:
    """Return the architecture that a configuration names.

    Raises:
        InputError: unknown family or architecture, or an override that does not exist.
    """
    named = {"paper": PAPER, "small": SMALL}
    if config.family not in OBJECTIVES:
        raise InputError(
            f"family = '{config.family}': no training for it; known:"
            f" {', '.join(OBJECTIVES)}."
        )
    if config.architecture not in named:
        raise InputError(
            f"architecture = '{config.architecture}': known: {', '.join(named)}."
        )
    overrides = {
        k: tuple(v) if isinstance(v, list) else v for k, v in config.overrides.items()
    }
    try:
        return replace(named[config.architecture], **overrides)  # type: ignore[arg-type]  # names are checked here, values by the networks
    except TypeError as error:
        raise InputError(f"overrides: {error}.") from error


def _rate(stage: StageConfig, k: int) -> float:
    """Return the learning rate of iteration `k`: warm-up, then cosine."""
    if k < stage.warmup:
        return stage.lr * (k + 1) / stage.warmup
    done = (k - stage.warmup) / max(stage.iterations - stage.warmup, 1)
    return stage.lr_end + 0.5 * (stage.lr - stage.lr_end) * (
        1.0 + math.cos(math.pi * done)
    )


def _plain(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}


def _optimizer_tensors(
    prefix: str, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for k, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            tensors[f"{prefix}.{k}.{slot}"] = torch.as_tensor(value).detach().cpu()
    return tensors


def _restore_optimizer(
    prefix: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    state = optimizer.state_dict()
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}."):
            _, k, slot = name.split(".")
            state["state"].setdefault(int(k), {})[slot] = tensor
    optimizer.load_state_dict(state)


def _save(tensors: Mapping[str, Tensor], header: Mapping[str, str], path: Path) -> None:
    """Write a safetensors file under its name only when it is whole and on disk."""
    partial = path.with_name(path.name + ".tmp")
    unique = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(unique, partial, metadata=dict(header))
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def _silent(
    stage: str, iteration: int, total: int, figures: Mapping[str, float]
) -> None:
    """Report nothing."""
