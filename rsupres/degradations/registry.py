"""The degradations that users choose by name."""

from __future__ import annotations

from collections.abc import Mapping

from rsupres.degradations.any_sensor import AnySensor
from rsupres.degradations.base import Bicubic, Degradation
from rsupres.degradations.blind import RefDiffDegradation, SecondOrder
from rsupres.degradations.sentinel2 import Sentinel2Params
from rsupres.errors import InputError

DEGRADATIONS: Mapping[str, type[Degradation]] = {
    "bicubic": Bicubic,
    "sentinel2": Sentinel2Params,
    "refdiff": RefDiffDegradation,
    "second-order": SecondOrder,
    "any-sensor": AnySensor,
}


def make_degradation(name: str, parameters: Mapping[str, object]) -> Degradation:
    """Return a degradation with some of its parameters set.

    Args:
        name: of `DEGRADATIONS`.
        parameters: plain JSON values; the others keep their defaults.

    Raises:
        InputError: an unknown name, parameter or value.
    """
    if name not in DEGRADATIONS:
        raise InputError(
            f"Unknown degradation '{name}'; known: {', '.join(DEGRADATIONS)}."
        )
    return DEGRADATIONS[name].from_json(parameters)
