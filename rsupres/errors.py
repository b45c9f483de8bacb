"""Exceptions of rsupres and the exit codes that they stand for.

Every error that a user can cause or meet derives from `RsupresError`; its message is
one or two sentences: what is wrong, with the value, which file, and what to do next.
The command group in `rsupres.cli` is the only place that turns one into an exit code.
This module catches nothing and prints nothing.
"""

from __future__ import annotations

from typing import ClassVar


class RsupresError(Exception):
    """Base of all errors that carry an exit code."""

    exit_code: ClassVar[int] = 1


class InputError(RsupresError):
    """The data cannot be used as asked."""

    exit_code = 3


class GridError(InputError):
    """A window, scale or transform cannot be represented in whole pixels."""


class BandError(InputError):
    """The bands of a raster do not fit the model."""


class ConditionError(InputError):
    """A map, reference, change mask or style does not fit the scene."""


class CheckpointError(RsupresError):
    """Weights are missing, damaged or of another family."""

    exit_code = 4


class RunConflictError(RsupresError):
    """The output exists, or the run directory belongs to another job."""

    exit_code = 5


class ResourceError(RsupresError):
    """Memory, disk or a worker gave out."""

    exit_code = 6


class ModelOutputError(RsupresError):
    """The model returned NaN or a wrong shape."""

    exit_code = 7


class QualityGateError(RsupresError):
    """A `--fail-if` gate was not met; the output is kept and marked."""

    exit_code = 8
