"""The resumable state of a training run: one safetensors file, read and written.

The file is written under a temporary name, synced and renamed, so a kill at any moment
costs at most the work since the last save.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rsupres.checkpoints.int8 import unpack_weights
from rsupres.errors import CheckpointError
from rsupres.output.tensors import write_tensors

_IDENTITY = "fingerprint"  # key in the header since the first files


@dataclass(frozen=True)
class Position:
    """Progress of a run: index of the stage and iterations done in it."""

    stage: int = 0
    iteration: int = 0


@dataclass(frozen=True)
class State:
    """A resumable state: named tensors, and the position of the run."""

    tensors: Mapping[str, Tensor]
    position: Position

    @classmethod
    def load(cls, path: Path, identity: str) -> State | None:
        """Read a state; return None without a file.

        Args:
            path: the file.
            identity: of the run, as given to `save`.

        Raises:
            CheckpointError: damaged, or of a run with another identity.
        """
        if not path.exists():
            return None
        try:
            tensors, header = _read(path)
            position = Position(**json.loads(header["position"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: damaged training state ({error}); remove it to start anew."
            ) from error
        if header.get(_IDENTITY) != identity:
            raise CheckpointError(
                f"{path}: belongs to another configuration; use another 'out' or remove"
                " it to start anew."
            )
        return cls(tensors, position)

    def save(self, path: Path, identity: str) -> None:
        """Write the state.

        Args:
            path: the file.
            identity: text that must be equal for a run to continue from the state.
        """
        header = {
            "position": json.dumps(asdict(self.position)),
            _IDENTITY: identity,
        }
        write_tensors(path, self.tensors, header)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors below a prefix, without it."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with names below a prefix; `State.part` is the inverse.

    Args:
        prefix: put before each name, with a dot.
        tensors: by name.
    """
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers on the CPU."""
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimiser, named ``<parameter>.<slot>``."""
    return {
        f"{k}.{slot}": torch.as_tensor(value).detach().cpu()
        for k, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Restore an optimiser from the tensors of `optimizer_tensors`.

    Args:
        optimizer: changed in place.
        tensors: of `optimizer_tensors`, by name.
    """
    state = optimizer.state_dict()
    for name, tensor in tensors.items():
        k, slot = name.split(".")
        state["state"].setdefault(int(k), {})[slot] = tensor
    optimizer.load_state_dict(state)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file; 8-bit weights become float32.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return unpack_weights(_read(path)[0])
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
