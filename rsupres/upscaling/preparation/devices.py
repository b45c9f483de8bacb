"""Find the device that a text such as "auto" or "cuda:1" names.

torch is loaded only where a device other than the CPU may be meant.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from functools import cache
from glob import glob
from pathlib import Path

from rsupres.errors import InputError, ResourceError
from rsupres.families.base import Precision

logger = logging.getLogger(__name__)

_PRECISIONS: Mapping[str, Precision] = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}
# Device files of Linux, one of which any accelerator of torch needs: NVIDIA's cards,
# those of its boards, AMD's, and cards of Windows seen from its Linux.
_ACCELERATORS = ("/dev/nvidia*", "/dev/nvhost*", "/dev/nvmap", "/dev/kfd", "/dev/dxg")


def find_device(text: str) -> str:
    """Return the device that a text names, as torch spells it.

    "auto" prefers CUDA, then MPS.

    Raises:
        InputError: no device is called so.
        ResourceError: this machine has no such device.
    """
    if text == "cpu" or (text == "auto" and not _may_have_accelerator()):
        return "cpu"
    import torch

    if text == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if not re.fullmatch(r"mps|cuda(:\d+)?", text):
        raise InputError(
            f"{text} is none of auto, cpu, cuda, cuda:1 or mps.", argument="device"
        )
    there = {
        "mps": torch.backends.mps.is_available(),
        "cuda": (torch.device(text).index or 0) < torch.cuda.device_count(),
    }
    if not there[text.partition(":")[0]]:
        raise ResourceError(
            f"{text}: this machine has no such device.", argument="device"
        )
    return text


def find_precision(text: str, device: str) -> Precision:
    """Return the arithmetic that a text names.

    "auto" is bf16 on CUDA and on processors that multiply it, else fp32.

    Args:
        text: auto, fp32, bf16 or fp16.
        device: as `find_device` returns it.

    Raises:
        InputError: no arithmetic is called so.
    """
    if text == "auto":
        if device == "cpu" and multiplies_bfloat16():
            _say_bfloat16()
            return "bf16"
        return "bf16" if device.startswith("cuda") else "fp32"
    if text not in _PRECISIONS:
        raise InputError(f"precision {text!r} is none of auto, fp32, bf16 or fp16.")
    return _PRECISIONS[text]


@cache
def _say_bfloat16() -> None:
    """Log the choice once in a process, however many jobs it settles."""
    logger.info("This processor multiplies bfloat16: networks compute in it.")


@cache
def multiplies_bfloat16() -> bool:
    """Return whether the processor has instructions for products of bfloat16.

    They are AVX-512 BF16 and AMX; where Linux does not list them, the answer is no.
    """
    listed = Path("/proc/cpuinfo")
    flags = set(listed.read_text().split()) if listed.exists() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def _may_have_accelerator() -> bool:
    """Return whether torch may find a device other than the CPU."""
    if sys.platform != "linux":
        return True
    return any(glob(pattern) for pattern in _ACCELERATORS)
