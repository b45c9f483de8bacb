"""The training loop of all families: run the stages, save, resume, validate, export.

It runs the stages of a `TrainConfig` and ends in an ordinary checkpoint. A kill at any
moment costs at most the work since the last save; the same call continues. It reads
packs, not rasters, so it needs torch, numpy, safetensors and tqdm only.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from rsupres.checkpoints.catalogue import card_text
from rsupres.checkpoints.file import write_checkpoint
from rsupres.checkpoints.int8 import pack_weights
from rsupres.datasets.packs import Pack
from rsupres.families.storage import fit_tensors, shapes_of
from rsupres.output.atomic import translate_os_errors
from rsupres.output.locks import Lock
from rsupres.output.tensors import write_tensors
from rsupres.training.base import FamilyTraining, Validation
from rsupres.training.batches import PatchSource
from rsupres.training.config import StageConfig, TrainConfig, resolve_path
from rsupres.training.outputs import LOG, STATE, check_outputs, write_card
from rsupres.training.registry import build_training
from rsupres.training.state import (
    Position,
    State,
    module_tensors,
    read_tensors,
    with_prefix,
)
from rsupres.training.trainer import Trainer

_LOCK = "train.lock"
PROGRESS_EVERY = 50  # iterations; their mean is logged and reported
_FIRST_MEASURED = 10**9  # batches from here on measure statistics, none trains
# Fields of a configuration that may change when a run continues.
_MAY_CHANGE = (
    *("eight_bits", "name", "stage", "out", "gsd", "halo"),
    *("save_every_s", "validate_every", "threads", "lpips_weights"),
)
Progress = Callable[[str, int, int, Mapping[str, float]], None]


def train(
    config: TrainConfig,
    root: Path,
    device: torch.device,
    *,
    source: Path | None = None,
    on_progress: Progress | None = None,
    stop_after_s: float | None = None,
) -> Path | None:
    """Train, continuing from the state in the output directory if there is one.

    Args:
        config: the run.
        root: directory to which the paths of `config` are relative.
        device: where to train.
        source: the file that `config` was read from, which no output may replace.
        on_progress: called every `PROGRESS_EVERY` iterations with stage, iteration,
            number of iterations and mean losses. None = a progress bar on a terminal.
        stop_after_s: save the state and return after so many seconds.

    Returns:
        The finished checkpoint, or None when stopped before the end. Its folder also
        holds a card (licence and scores are to be added; what was added stays) and,
        for each stage, ``stage_1.safetensors`` and so on: all networks in float32,
        those for training too, which another run takes as ``start_from``.

    Raises:
        ArgumentError: an output would replace a file that the run reads.
        InputError: packs or configuration cannot be used.
        CheckpointError: the state in the output directory belongs to another run.
    """
    check_outputs(config, root, source)
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
        self.out = resolve_path(config.out, root)
        self.on_progress = on_progress
        self.deadline = None if stop_after_s is None else time.time() + stop_after_s
        torch.manual_seed(config.seed)
        self.family: FamilyTraining = build_training(config, root)

    def execute(self) -> Path | None:
        """Train in a folder that this process alone works in."""
        with translate_os_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            lock = Lock.take(self.out / _LOCK, [fcntl.LOCK_EX], patience_s=0)
        try:
            return self._train()
        finally:
            lock.release()

    def _train(self) -> Path | None:
        config = self.config
        if config.threads:
            torch.set_num_threads(config.threads)
        state = State.load(self.out / STATE, self._identity())
        position = Position()
        if state is not None:
            weights = state.part("model")
            self.family.add_parts(weights.keys())
            self.family.networks.load_state_dict(weights)
            position = state.position
        elif config.start_from is not None:
            self._load_start(resolve_path(config.start_from, self.root))
        self.family.move(self.device)
        source = self._source()
        for index in range(position.stage, len(config.stage)):
            resumed = state if index == position.stage else None
            if not self._run_stage(index, source, resumed):
                return None
        return self._write_checkpoint()

    def _write_checkpoint(self) -> Path:
        """Write the weights that inference needs, in half precision or 8 bits."""
        config = self.config
        path = self.out / f"{config.name}.safetensors"
        made = self.family.export()
        tensors = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in made.tensors.items()
        }
        if config.eight_bits:
            tensors = pack_weights(tensors)
        origin = (
            f"trained by rsupres, configuration '{config.name}', seed {config.seed}"
        )
        sha256 = write_checkpoint(path, tensors, made.spec, made.architecture, origin)
        card = card_text(config.name, path.name, sha256, made.spec)
        write_card(path.with_suffix(".toml"), card, sha256)
        return path

    def _load_start(self, path: Path) -> None:
        """Load the start; parts that the family lets begin fresh may be missing."""
        tensors = read_tensors(path)
        self.family.add_parts(tensors.keys())
        networks = self.family.networks
        fresh = self.family.may_begin_fresh
        if not any(name.startswith(fresh) for name in tensors):
            own = networks.state_dict().items()
            tensors |= {k: v for k, v in own if k.startswith(fresh)}
        fit_tensors(tensors, shapes_of(networks), path)
        networks.load_state_dict(tensors)

    def _source(self) -> PatchSource:
        data = self.config.data
        packs = [Pack.load(resolve_path(path, self.root)) for path in data.train]
        weights = {float(k): float(v) for k, v in data.gsd_weights.items()}
        return PatchSource(packs, data, self.config.seed, weights)

    def _run_stage(self, index: int, source: PatchSource, state: State | None) -> bool:
        """Train a stage, from `state` or from its beginning; False = stopped."""
        stage = self.config.stage[index]
        begin = 0 if state is None else state.position.iteration
        self.family.prepare_stage(
            stage,
            None
            if begin
            else lambda k: source.batch(_FIRST_MEASURED + k).to(self.device),
        )
        trainer = Trainer(self.family, self.config, stage, self.root, self.device)
        if state is not None and begin:
            trainer.restore(state)
        if not self._iterate(index, begin, source, trainer):
            return False
        trainer.finish()
        weights = module_tensors(self.family.networks)
        write_tensors(self.out / f"stage_{index + 1}.safetensors", weights, {})
        self._save_state(Position(index + 1, 0), None)
        return True

    def _iterate(
        self, index: int, begin: int, source: PatchSource, trainer: Trainer
    ) -> bool:
        """Take the steps of a stage from iteration `begin` on; False = stopped."""
        stage = self.config.stage[index]
        offset = sum(s.iterations for s in self.config.stage[:index])
        saved = time.time()
        meter = _Meter()
        for k in self._shown(range(begin, stage.iterations), stage):
            meter.add(trainer.step(k, source.batch(offset + k), offset + k))
            last = k + 1 == stage.iterations
            if (k + 1) % PROGRESS_EVERY == 0 or last:
                self._log(stage, k + 1, meter.drain())
            if (k + 1) % self.config.validate_every == 0 or last:
                self._validate(stage, k + 1, trainer)
            stop = self.deadline is not None and time.time() > self.deadline
            if not last and (stop or time.time() - saved > self.config.save_every_s):
                self._save_state(Position(index, k + 1), trainer)
                saved = time.time()
            if stop and not last:
                return False
        return True

    def _shown(self, iterations: range, stage: StageConfig) -> Iterable[int]:
        """Return the iterations behind a progress bar, if the caller shows none."""
        if self.on_progress is not None:
            return iterations
        return tqdm(
            iterations,
            desc=stage.name,
            initial=iterations.start,
            total=stage.iterations,
            disable=None,  # no bar where stderr is no terminal
        )

    def _save_state(self, position: Position, trainer: Trainer | None) -> None:
        """Write the resumable state: networks, and optimisers of a running stage."""
        tensors = with_prefix("model", module_tensors(self.family.networks))
        if trainer is not None:
            tensors |= trainer.tensors()
        State(tensors, position).save(self.out / STATE, self._identity())

    def _validate(self, stage: StageConfig, iteration: int, trainer: Trainer) -> None:
        if not self.config.data.validation:
            return
        paths = self.config.data.validation
        packs = [Pack.load(resolve_path(path, self.root)) for path in paths]
        picture = self.out / "validation" / f"{stage.name}_{iteration:06d}.png"
        with trainer.averaged(), torch.no_grad():
            figures = self.family.validate(
                Validation(packs, stage.name, picture, self.device)
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
        with open(self.out / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self.on_progress is not None:
            self.on_progress(stage.name, iteration, stage.iterations, figures)

    def _identity(self) -> str:
        """Return the configuration that must be equal to continue a run."""
        # Without unused options, so that runs of older versions continue.
        kept = asdict(self.config)
        for name in _MAY_CHANGE:
            kept.pop(name)
        for table, name in (
            (kept, "options"),
            (kept["data"], "fixed_scales"),
            (kept["data"], "hr_side"),
        ):
            if not table[name]:
                table.pop(name)
        return json.dumps(kept, sort_keys=True, default=str)


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
