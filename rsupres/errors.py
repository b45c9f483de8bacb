"""Define the exceptions of rsupres and the exit code of each.

Every error that a user can cause or meet derives from `RsupresError`. It says what is
wrong, in one or two sentences with the value and the file, and names the arguments
concerned as the Python API names them. The command line
(`rsupres.cli.terminal.wording`) turns those names into its options; no other package
names an option.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import ClassVar


class RsupresError(Exception):
    """Base of all errors that carry an exit code.

    Attributes:
        problem: what is wrong, with the value and the file.
        argument: name of the argument at fault, such as "reference"; "" when none is.
        remedies: names of arguments that help, each "name" or "name=value".

    >>> str(InputError("0.5: the model offers no choice.", argument="detail"))
    'detail 0.5: the model offers no choice.'
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, problem: str, *, argument: str = "", remedies: Sequence[str] = ()
    ) -> None:
        super().__init__(f"{argument} {problem}" if argument else problem)
        self.problem = problem
        self.argument = argument
        self.remedies = tuple(remedies)

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the fields when an error is pickled, as between two processes."""
        return _rebuilt, (type(self), self.problem, self.argument, self.remedies)


def _rebuilt(
    kind: type[RsupresError], problem: str, argument: str, remedies: Sequence[str]
) -> RsupresError:
    return kind(problem, argument=argument, remedies=remedies)


class ArgumentError(RsupresError):
    """Arguments contradict one another, or would destroy files of the user."""

    exit_code = 2


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
    """Memory or disk space is used up, or a worker process failed."""

    exit_code = 6


class ModelOutputError(RsupresError):
    """The model returned NaN, or an array of a wrong shape or type."""

    exit_code = 7


class QualityGateError(RsupresError):
    """A quality gate was not met; the output is kept and marked.

    Attributes:
        figures: quality figures of the output, by name.
    """

    exit_code = 8

    def __init__(
        self,
        problem: str,
        *,
        argument: str = "",
        remedies: Sequence[str] = (),
        figures: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(problem, argument=argument, remedies=remedies)
        self.figures = dict(figures or {})

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the figures, too, when an error is pickled."""
        return _with_figures, (self.problem, self.figures)


def _with_figures(problem: str, figures: Mapping[str, float]) -> QualityGateError:
    return QualityGateError(problem, figures=figures)


_OF_NAMES = frozenset(
    {errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS}
)
_OF_RESOURCES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE}
    | {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)


def code_of_os_error(error: OSError) -> int:
    """Return the exit code of an operating system error that nothing handled.

    >>> code_of_os_error(OSError(errno.ENAMETOOLONG, "too long"))
    3
    """
    if error.errno in _OF_NAMES:
        return InputError.exit_code
    return ResourceError.exit_code if error.errno in _OF_RESOURCES else 1
