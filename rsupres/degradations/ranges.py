"""Parameters of random draws: numbers, ranges and shares, read from and kept as JSON.

A `Ranges` is a frozen dataclass of numbers, pairs (low, high) for uniform draws, and
longer tuples of shares that add up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from rsupres.errors import InputError


@dataclass(frozen=True)
class Ranges:
    """Base of all parameters; checks numbers, pairs and shares."""

    def __post_init__(self) -> None:
        """Check that pairs are ordered, shares add up, and no number is negative."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and len(value) > 2:
                fits = min(value) >= 0 and math.isclose(sum(value), 1.0, abs_tol=1e-6)
            else:
                low, high = value if isinstance(value, tuple) else (0, value)
                fits = low <= high
            if not fits:
                raise InputError(f"{field.name} is out of range: {value}.")

    def to_json(self) -> dict[str, object]:
        """Return plain numbers and lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Self:
        """Return parameters from `to_json`'s values; missing keys keep the default.

        Raises:
            InputError: an unknown key, or a value that is no number or not as many
                numbers as the default has.
        """
        default = cls()
        known = asdict(default)
        read: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise InputError(
                    f"Unknown degradation parameter {name!r}; known:"
                    f" {', '.join(known) or 'none'}."
                )
            read[name] = _fit(name, value, known[name])
        return replace(default, **read)


def _fit(name: str, value: object, wanted: object) -> object:
    """Return a value from JSON in the form of a default."""
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    is_number = all(isinstance(v, (int, float)) for v in numbers)
    length = len(wanted) if isinstance(wanted, tuple) else 1
    if not is_number or len(numbers) != length:
        raise InputError(f"Degradation parameter {name}: {value!r} does not fit.")
    if isinstance(wanted, int) and not isinstance(value, int):
        raise InputError(f"Degradation parameter {name} is whole, not {value!r}.")
    return tuple(numbers) if isinstance(wanted, tuple) else numbers[0]
