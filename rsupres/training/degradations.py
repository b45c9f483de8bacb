"""The degradations by name: from a sharp image to what a coarser sensor recorded."""

from __future__ import annotations

from collections.abc import Mapping

from rsupres.errors import InputError
from rsupres.training.blind import RefDiffDegradation, SecondOrder
from rsupres.training.downscaling import Bicubic, Degradation
from rsupres.training.sensor import Sentinel2Params

DEGRADATIONS: Mapping[str, type[Degradation]] = {
    "bicubic": Bicubic,
    "sentinel2": Sentinel2Params,
    "refdiff": RefDiffDegradation,
    "second-order": SecondOrder,
}


def make_degradation(name: str, parameters: Mapping[str, object]) -> Degradation:
    """Return a degradation with parameters as JSON holds them.

    Raises:
        InputError: an unknown name, parameter or value.
    """
    if name not in DEGRADATIONS:
        raise InputError(
            f"Unknown degradation '{name}'; known: {', '.join(DEGRADATIONS)}."
        )
    return DEGRADATIONS[name].from_json(parameters)
