"""The arithmetic that is chosen for a device."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsupres.errors import InputError
from rsupres.upscaling.preparation import devices
from rsupres.upscaling.preparation.devices import find_precision, multiplies_bfloat16


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx2 avx512f", "fp32"),
        ("fpu avx512f avx512_bf16", "bf16"),
        ("fpu amx_tile amx_bf16 amx_int8", "bf16"),
        (None, "fp32"),
    ],
)
def test_auto_is_bf16_where_the_processor_multiplies_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    flags: str | None,
    precision: str,
) -> None:
    listed = tmp_path / "cpuinfo"
    if flags is not None:
        listed.write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(devices, "Path", lambda name: listed)
    multiplies_bfloat16.cache_clear()
    devices._say_bfloat16.cache_clear()
    with caplog.at_level("INFO"):
        assert find_precision("auto", "cpu") == precision
        assert find_precision("auto", "cpu") == precision
    assert caplog.text.count("multiplies bfloat16") == (precision == "bf16")
    multiplies_bfloat16.cache_clear()


def test_an_arithmetic_that_is_named_is_taken() -> None:
    assert find_precision("fp32", "cpu") == "fp32"
    assert find_precision("fp16", "cuda:1") == "fp16"
    assert find_precision("auto", "cuda") == "bf16"
    assert find_precision("auto", "mps") == "fp32"
    with pytest.raises(InputError, match="fp8"):
        find_precision("fp8", "cpu")
