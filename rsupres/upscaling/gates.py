"""Sum up the quality figures of a run, and compare them with quality gates.

Each strip contributes sums, which are stored beside it, so that the figures of a
resumed or sharded run equal those of an uninterrupted one. A gate is comparisons joined
by ``and`` and ``or``; it is parsed here, and nothing of it is evaluated as code.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from rsupres.errors import InputError, ModelOutputError
from rsupres.output.damage.seals import read_json

FIGURES: Mapping[str, str] = {
    "consistency": "RMS difference of the result, averaged over each LR pixel, from "
    "the input; in units of the stretch's range.",
    "bias": "Mean of that difference.",
    "valid": "Share of LR pixels that are valid.",
    "clipped": "Share of valid input values outside the stretch (kept, but not seen by "
    "the model).",
    "uncertainty": "Mean standard deviation over the samples, units of the range.",
}

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_CLAUSE = re.compile(
    r"\s*([a-z_][a-z0-9_]*)\s*(>=|<=|==|!=|>|<)\s*"
    r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(%?)\s*"
)


@dataclass(frozen=True)
class StripSums:
    """Sums over one strip, from which the figures are made.

    Attributes:
        pixels: LR pixels of the scene in the strip.
        valid: those that are valid.
        values: valid pixels times bands of the model.
        clipped: those values outside the stretch.
        difference: sum of (downscaled SR - LR), units of the range.
        squares: sum of its squares.
        deviation: sum of standard deviations over valid SR values.
        deviations: their number.
    """

    pixels: int = 0
    valid: int = 0
    values: int = 0
    clipped: int = 0
    difference: float = 0.0
    squares: float = 0.0
    deviation: float = 0.0
    deviations: int = 0

    def plus(self, other: StripSums) -> StripSums:
        """Return the sums of both."""
        return StripSums(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(self))
        )

    def to_json(self) -> dict[str, float]:
        """Return plain values for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, float]) -> StripSums:
        """Return the sums that `to_json` stored.

        Raises:
            TypeError: these are none.
        """
        if not all(isinstance(value, int | float) for value in {**stored}.values()):
            raise TypeError("not all sums are numbers")
        return cls(**stored)  # type: ignore[arg-type]  # the run's own record


def read_sums(path: Path) -> StripSums:
    """Return the sums of a strip that a run keeps.

    Args:
        path: of the file, in the run directory.

    Raises:
        InputError: it is damaged.
    """
    try:
        stored = read_json(path, unsealed=True)
        return StripSums.from_json(stored)  # type: ignore[arg-type]  # it checks them
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: damaged ({error}); run the same command again."
        ) from error


class _Clause(NamedTuple):
    figure: str
    sign: str
    limit: float


@dataclass(frozen=True)
class Gate:
    """A condition under which the run counts as failed.

    Attributes:
        text: as the user gave it.
        alternatives: any of them being wholly true fails the run.
    """

    text: str
    alternatives: tuple[tuple[_Clause, ...], ...]

    @property
    def figures(self) -> frozenset[str]:
        """The figures that the gate names."""
        return frozenset(c.figure for clause in self.alternatives for c in clause)

    def fails(self, figures: Mapping[str, float]) -> bool:
        """Return whether the gate is not met; `figures` holds all that it names."""
        return any(
            all(_COMPARISONS[c.sign](figures[c.figure], c.limit) for c in clause)
            for clause in self.alternatives
        )

    def describe(self, figures: Mapping[str, float]) -> str:
        """Return the gate with the figures that it names."""
        names = sorted(self.figures)
        values = ", ".join(f"{name} = {figures[name]:.4g}" for name in names)
        return f"{self.text} ({values})"


def parse_gate(text: str, known: Collection[str] = tuple(FIGURES)) -> Gate:
    """Read `FIGURE<NUMBER`, joined by `and` and `or`; `and` binds first.

    Args:
        text: the gate.
        known: names of the figures that there are.

    Returns:
        The gate.

    Raises:
        InputError: anything else, or an unknown figure.

    >>> parse_gate("valid<90% or consistency>0.02").fails(
    ...     {"valid": 0.95, "consistency": 0.03}
    ... )
    True
    """
    alternatives = []
    for part in re.split(r"\bor\b", text.strip().lower()):
        alternatives.append(
            tuple(
                _parse_clause(piece, text, known)
                for piece in re.split(r"\band\b", part)
            )
        )
    return Gate(text, tuple(alternatives))


def parse_gates(texts: Sequence[str], *, has_uncertainty: bool) -> tuple[Gate, ...]:
    """Read gates; refuse one on a figure that is not measured.

    Args:
        texts: for `parse_gate`.
        has_uncertainty: whether the run measures uncertainty.

    Returns:
        The gates, in order.

    Raises:
        InputError: as `parse_gate`, or uncertainty is not measured.
    """
    gates = tuple(parse_gate(text) for text in texts)
    if not has_uncertainty and any("uncertainty" in gate.figures for gate in gates):
        raise InputError(
            "names uncertainty, which is not measured.",
            argument="fail_if",
            remedies=("uncertainty",),
        )
    return gates


def total_figures(strips: Iterable[StripSums]) -> dict[str, float]:
    """Return the figures of the whole run, keys as in `FIGURES`.

    The order of the strips must be theirs in the scene, so that sums round alike.
    `uncertainty` is there only when samples were drawn.
    """
    total = reduce(StripSums.plus, strips, StripSums())
    values = max(total.values, 1)
    figures = {
        "consistency": (total.squares / values) ** 0.5,
        "bias": total.difference / values,
        "valid": total.valid / max(total.pixels, 1),
        "clipped": total.clipped / values,
    }
    if total.deviations:
        figures["uncertainty"] = total.deviation / total.deviations
    return figures


def check_finite(figures: Mapping[str, float], scene: str) -> None:
    """Refuse a result whose figures show that numbers in it are not finite.

    Args:
        figures: of the run.
        scene: its name, for the message.

    Raises:
        ModelOutputError: a figure is NaN or infinite.
    """
    wrong = [name for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise ModelOutputError(
            f"{scene}: {', '.join(wrong)} of the result is not finite, so the model "
            "made NaN or infinite numbers; nothing is written."
        )


def _parse_clause(piece: str, text: str, known: Collection[str]) -> _Clause:
    match = _CLAUSE.fullmatch(piece)
    if match is None:
        raise InputError(
            f"{text!r}: {piece.strip()!r} is not a comparison such as "
            "consistency>0.02.",
            argument="fail_if",
        )
    figure, sign, number, percent = match.groups()
    if figure not in known:
        raise InputError(
            f"{text!r}: no figure {figure!r}; there are {', '.join(known)}.",
            argument="fail_if",
        )
    return _Clause(figure, sign, float(number) / (100.0 if percent else 1.0))
