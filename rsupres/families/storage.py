"""Fill networks with stored tensors; keep configurations of families as JSON."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rsupres.errors import CheckpointError
from rsupres.families.base import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_Config = TypeVar("_Config")


def fit_tensors(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Sequence[int]], path: Path
) -> None:
    """Check that tensors have exactly the names and shapes of a network.

    Args:
        tensors: weights by name.
        wanted: shapes by name.
        path: the file that they came from, for the message.

    Raises:
        CheckpointError: names the first missing, surplus or misshapen tensors.
    """
    missing = sorted(set(wanted) - set(tensors))
    surplus = sorted(set(tensors) - set(wanted))
    if missing or surplus:
        raise CheckpointError(
            f"{path}: {len(missing)} tensors missing ({', '.join(missing[:3]) or '-'}),"
            f" {len(surplus)} surplus ({', '.join(surplus[:3]) or '-'})."
        )
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != tuple(shape):
            raise CheckpointError(
                f"{path}: tensor '{name}' has shape {tuple(tensors[name].shape)}, the"
                f" architecture needs {tuple(shape)}."
            )


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a network's tensors."""
    return {name: tuple(t.shape) for name, t in network.state_dict().items()}


def fill_network(
    network: nn.Module, checkpoint: Checkpoint, device: torch.device
) -> None:
    """Give a network a checkpoint's weights in float32, on a device, channels last.

    Args:
        network: changed in place.
        checkpoint: holds its tensors.
        device: where it computes.

    Raises:
        CheckpointError: the tensors do not fit.
    """
    import torch

    fit_tensors(checkpoint.tensors, shapes_of(network), checkpoint.path)
    network.load_state_dict({k: v.float() for k, v in checkpoint.tensors.items()})
    # Pixels with their channels together: 1.5 to 3 times faster on CPUs and GPUs alike.
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch omits it
    network.eval().requires_grad_(False)


def config_to_json(config: object) -> dict[str, object]:
    """Return a configuration, a dataclass, as plain JSON values by field name."""
    values: dict[str, object] = json.loads(json.dumps(asdict(config)))  # type: ignore[call-overload]  # a dataclass
    return values


def config_from_json(
    kind: type[_Config], values: Mapping[str, object], path: Path
) -> _Config:
    """Return the configuration that `config_to_json` wrote.

    Args:
        kind: a dataclass; its fields may be dataclasses, tuples and `Literal`s.
        values: by name of the field; fields that are missing keep their default.
        path: the file that they came from, for the message.

    Raises:
        CheckpointError: an unknown name, or a value that does not fit its field.
    """
    hints = typing.get_type_hints(kind)
    built: dict[str, object] = {}
    for name, value in values.items():
        if name not in hints:
            raise CheckpointError(
                f"{path}: architecture does not fit (unknown '{name}')."
            )
        built[name] = _field_from_json(name, hints[name], value, path)
    try:
        return kind(**built)
    except TypeError as error:
        raise CheckpointError(
            f"{path}: architecture does not fit ({error})."
        ) from error


def _field_from_json(name: str, hint: Any, value: object, path: Path) -> object:
    """Return a field's value: lists become tuples, mappings dataclasses."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    choices = typing.get_args(hint) if union else (hint,)
    nested = next((choice for choice in choices if is_dataclass(choice)), None)
    if isinstance(nested, type) and isinstance(value, Mapping):
        return config_from_json(nested, value, path)
    known = [word for c in choices for word in _literals(c)]
    if isinstance(value, str) and known and value not in known:
        raise CheckpointError(
            f"{path}: architecture does not fit ({name} = '{value}' is unknown to this"
            f" version; known: {', '.join(map(str, known))})."
        )
    return tuple(value) if isinstance(value, list) else value


def _literals(hint: Any) -> tuple[object, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
