"""Find the device that a text such as "auto" or "cuda:1" names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from rsupres.errors import InputError, ResourceError
from rsupres.families.base import Precision

_PRECISIONS: Mapping[str, Precision] = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}


def find_device(text: str) -> torch.device:
    """Return the device that a text names; auto prefers CUDA, then MPS.

    Raises:
        InputError: no device is called so.
        ResourceError: this machine has no such device.
    """
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", text):
        raise InputError(
            f"{text} is none of auto, cpu, cuda, cuda:1 or mps.", argument="device"
        )
    device = torch.device(text)
    there = {
        "cpu": True,
        "mps": torch.backends.mps.is_available(),
        "cuda": (device.index or 0) < torch.cuda.device_count(),
    }
    if not there[device.type]:
        raise ResourceError(
            f"{text}: this machine has no such device.", argument="device"
        )
    return device


def find_precision(text: str, device: torch.device) -> Precision:
    """Return the arithmetic that a text names; auto is bf16 on CUDA, else fp32.

    Raises:
        InputError: no arithmetic is called so.
    """
    if text == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    if text not in _PRECISIONS:
        raise InputError(f"precision {text!r} is none of auto, fp32, bf16 or fp16.")
    return _PRECISIONS[text]
