"""Attempt the items of a batch: one after the other or several at once, with retries.

This module decides the order of attempts, keeps the journal, and stops after too many
failures. A single attempt is made by this process, or by a process of
`rsupres.tiles.batches.workers`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from rsupres.errors import RsupresError, code_of_os_error
from rsupres.execution import OnProgress, Progress
from rsupres.tiles.batches.attempts import Attempts, Effort, Outcome, Task, one_by_one
from rsupres.tiles.batches.journal import FAILED, RUNNING, BatchItem, Journal, now
from rsupres.tiles.batches.workers import run_workers
from rsupres.upscaling.job import UpscaleJob
from rsupres.upscaling.pipeline import RunSummary

logger = logging.getLogger(__name__)

# Exit codes of failures that may be gone the next time: a file that is still being
# written, a run that another process works on, memory, disk. The others stay.
RETRIED = frozenset({1, 3, 5, 6})


def _ignore(value: object) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Watch:
    """Callbacks of a batch.

    Attributes:
        on_start: called with an item when an attempt begins.
        on_item: called with an item when an attempt ends.
        on_progress: called often; phases of a scene carry its name.
        word_error: words the failure of an item for its reader.
    """

    on_start: Callable[[BatchItem], None] = _ignore
    on_item: Callable[[BatchItem], None] = _ignore
    on_progress: OnProgress = _ignore
    word_error: Callable[[RsupresError], str] = str


@dataclass
class Batch:
    """The items of a batch, their jobs, and the outcome of each.

    Attributes:
        items: in order; an item is replaced when its status changes.
        jobs: of the items.
        journal: written after each change.
        effort: how to work.
        watch: callbacks.
    """

    items: list[BatchItem]
    jobs: Sequence[UpscaleJob]
    journal: Journal
    effort: Effort
    watch: Watch

    def run(self) -> None:
        """Attempt every item, and those that failed again."""
        pending = list(range(len(self.jobs)))
        self.journal.save(self.items)
        for _ in range(self.effort.retries + 1):
            if not pending or not self._attempt_all(pending):
                return
            pending = [index for index in pending if self._may_recover(index)]
            if pending and self.effort.retries:
                logger.warning("%d inputs have failed.", len(pending))

    def _attempt_all(self, indices: Sequence[int]) -> bool:
        """Attempt items; return False when too many have failed."""
        done = len(self.jobs) - len(indices)
        self._show(done)
        with closing(self._attempts(self._started(indices))) as attempts:
            for index, outcome, duration_s in attempts:
                word = self.watch.word_error
                item = _ended(self.items[index], outcome, duration_s, word)
                self.items[index] = item
                self.journal.save(self.items)
                self.watch.on_item(item)
                done += 1
                self._show(done)
                n_failed = sum(item.status == FAILED for item in self.items)
                if self.effort.max_failures and n_failed >= self.effort.max_failures:
                    left = len(self.jobs) - done
                    logger.error(
                        "Stopped after %d failures; %d inputs are left.", n_failed, left
                    )
                    return False
        return True

    def _started(self, indices: Iterable[int]) -> Iterator[Task]:
        """Yield tasks; each is noted as running when it is asked for."""
        for index in indices:
            self.items[index] = replace(self.items[index], status=RUNNING)
            self.journal.save(self.items)
            self.watch.on_start(self.items[index])
            yield index, self.jobs[index]

    def _attempts(self, tasks: Iterator[Task]) -> Attempts:
        def show(index: int, step: Progress) -> None:
            self.watch.on_progress(replace(step, scene=self.items[index].scene))

        if self.effort.elsewhere is not None:
            return self.effort.elsewhere(self.jobs, tasks, show)
        if self.effort.jobs == 1:
            return one_by_one(tasks, show)
        return run_workers(tasks, self.effort, show)

    def _may_recover(self, index: int) -> bool:
        item = self.items[index]
        return item.status == FAILED and item.exit_code in RETRIED

    def _show(self, done: int) -> None:
        step = Progress("Inputs", done, len(self.jobs), "inputs")
        self.watch.on_progress(step)


def _ended(
    item: BatchItem,
    outcome: Outcome,
    duration_s: float,
    word_error: Callable[[RsupresError], str],
) -> BatchItem:
    """Return an item after an attempt."""
    if isinstance(outcome, RunSummary):
        return replace(
            item,
            status=outcome.status,
            exit_code=0,
            error="",
            model=outcome.model,
            duration_s=duration_s,
            figures=outcome.figures,
            finished=(outcome.status == "existed" and item.finished) or now(),
        )
    if isinstance(outcome, RsupresError):
        code, text = outcome.exit_code, word_error(outcome)
    elif isinstance(outcome, OSError) and code_of_os_error(outcome) != 1:
        code = code_of_os_error(outcome)
        text = f"{outcome.filename or 'a file'}: {outcome.strerror}."
    else:
        code, text = 1, f"{outcome} This is a defect of rsupres."
    return replace(
        item,
        status=FAILED,
        figures=getattr(outcome, "figures", None),
        exit_code=code,
        error=" ".join(text.split()),
        duration_s=duration_s,
        finished=now(),
    )
