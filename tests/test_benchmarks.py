"""Benchmarks import: they keep up with the names of the package. None is run here."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted(Path(__file__).with_name("benchmarks").glob("bench_*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_imports_without_its_data(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RSUPRES_DATA", raising=False)
    module = importlib.import_module(path.stem)
    assert module.__doc__
    assert callable(module.main)
