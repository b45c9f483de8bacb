"""Compare figures with quality gates: `rsupres evaluate --fail-if`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rsupres.errors import InputError, QualityGateError
from rsupres.evaluation.report import COLUMNS, Row
from rsupres.upscaling.gates import Gate, parse_gate

MORE = ("spread_skill", "spread_error_correlation")  # of predicted errors


def parse_gates(texts: Sequence[str]) -> list[Gate]:
    """Read gates over the figures of `rsupres evaluate`.

    Raises:
        InputError: one is no gate, or names an unknown figure.
    """
    return [parse_gate(text, (*COLUMNS, *MORE)) for text in texts]


def check_gates(
    gates: Sequence[Gate], rows: Sequence[Row], more: Mapping[str, float] | None = None
) -> None:
    """Check that no row fails a gate.

    Args:
        gates: from `parse_gates`.
        rows: of a result, or means of models.
        more: figures that are in no row.

    Raises:
        InputError: a figure that a gate names was not measured.
        QualityGateError: a gate is not met.
    """
    failed = []
    for row in rows:
        figures = {**row.figures, **(more or {})}
        for gate in gates:
            for name in sorted(gate.figures):
                # The PSNR of equal pictures is infinite, and measured.
                if math.isnan(figures.get(name, math.nan)):
                    raise InputError(
                        f"{gate.text!r}: {name} of {row.model} was not measured.",
                        argument="fail_if",
                    )
            if gate.fails(figures):
                failed.append(f"{row.model} x{row.scale}: {gate.describe(figures)}")
    if failed:
        raise QualityGateError(f"{'; '.join(failed)}.")
