"""Which device does the work."""

from __future__ import annotations

import re

import torch

from rsupres.errors import InputError, ResourceError


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
        raise InputError(f"--device {text} is none of auto, cpu, cuda, cuda:1 or mps.")
    device = torch.device(text)
    there = {
        "cpu": True,
        "mps": torch.backends.mps.is_available(),
        "cuda": (device.index or 0) < torch.cuda.device_count(),
    }
    if not there[device.type]:
        raise ResourceError(f"--device {text}: this machine has no such device.")
    return device
