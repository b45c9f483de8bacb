"""Describe the result of a run, for its caller and for programs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rsupres.upscaling.inference import Counts
from rsupres.upscaling.preparation.work import Work


@dataclass(frozen=True)
class RunSummary:
    """The result of a run.

    Attributes:
        output: the file.
        status: written, existed (skipped), or computed (a shard, others are missing).
        figures: quality figures, empty unless the output is there.
        tiles: tiles computed by this process.
        skipped: those of them without a valid pixel.
        duration_s: wall time of this process.
        model: name of the model.
        missing_strips: strips that other shards still owe.
    """

    output: Path
    status: str
    figures: Mapping[str, float]
    tiles: int
    skipped: int
    duration_s: float
    model: str
    missing_strips: int = 0

    def to_json(self) -> dict[str, object]:
        """Return JSON-able values."""
        return {
            "output": str(self.output),
            "status": self.status,
            "figures": dict(self.figures),
            "tiles": self.tiles,
            "tiles_skipped": self.skipped,
            "duration_s": round(self.duration_s, 3),
            "model": self.model,
            "missing_strips": self.missing_strips,
        }


def summarise(
    work: Work,
    status: str,
    figures: Mapping[str, float],
    counts: Counts,
    started: float,
    missing: int,
) -> RunSummary:
    """Return the summary of a run that ends now.

    Args:
        work: the settled job.
        status: written, existed or computed.
        figures: of the output, empty where there is none yet.
        counts: of tiles.
        started: when it began, by `time.monotonic`.
        missing: strips that others owe.
    """
    return RunSummary(
        output=work.job.output,
        status=status,
        figures=figures,
        tiles=counts.tiles,
        skipped=counts.skipped,
        duration_s=time.monotonic() - started,
        model=work.model.card.name,
        missing_strips=missing,
    )
