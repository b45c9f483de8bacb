"""Make the pages of a batch: one for each output, and an index, failed inputs first.

The index takes its figures from the pages, so that both show the same. A page that is
newer than its output is kept.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from rsupres.errors import QualityGateError, RsupresError, RunConflictError
from rsupres.grid import ceil_div
from rsupres.output.atomic import make_folder
from rsupres.raster.dataset import Raster
from rsupres.report.explain import LOOK, explain
from rsupres.report.page import render, write_page
from rsupres.report.pictures import encode, find_limits, shade
from rsupres.report.request import given_of, write_report
from rsupres.report.sources import Given, Picture, read_on
from rsupres.tiles.batches.journal import DONE, FAILED, BatchItem
from rsupres.upscaling.job import UpscaleJob

logger = logging.getLogger(__name__)

INDEX = "index.html"
SHOWN = (
    "consistency",
    "bias",
    "valid",
    "clipped",
    "uncertainty",
    "seam_over_input",
    "detail",
)
THUMB = 96  # pixels along a side
MAX_THUMBS = 1_000  # more would make the index too large
_DATA = re.compile(r'<script type="application/json" id="rsupres-data">(.*?)</script>')


@dataclass(frozen=True)
class Row:
    """One input of a batch, as the index shows it.

    Attributes:
        item: what became of it.
        page: its page, relative to the index; "" without one.
        thumb: a small picture; "" without one.
        figures: by name.
        looks: names of figures that are worth a look.
        gate: "failed", "passed" or "".
    """

    item: BatchItem
    page: str
    thumb: str
    figures: Mapping[str, float]
    looks: tuple[str, ...]
    gate: str

    @property
    def rank(self) -> int:
        """Place among the rows: failures, then doubts, then the rest."""
        if self.item.status == FAILED:
            return 0
        return 1 if self.looks else 2


class BatchPages:
    """Writes the pages of a batch into a folder."""

    def __init__(self, folder: Path, job: UpscaleJob) -> None:
        """Check that the folder can be used.

        Args:
            folder: of the pages; made if it is missing.
            job: of the batch; its output is the folder of the outputs.

        Raises:
            RunConflictError: a file there would be replaced that is no page of ours.
        """
        self._folder = folder
        self._job = job
        make_folder(folder, "report")
        self._check(folder / INDEX)

    def add(self, item: BatchItem) -> None:
        """Write the page of an item that has an output; a fault is logged."""
        path = self._page(item)
        if not item.output.exists() or item.status not in (*DONE, FAILED):
            return
        if path.exists() and path.stat().st_mtime >= item.output.stat().st_mtime:
            return
        if item.status == FAILED and item.exit_code != QualityGateError.exit_code:
            return  # the output is not of this run
        try:
            self._check(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            run = {"Run time": f"{item.duration_s:.1f} s", "Finished": item.finished}
            write_report(self._given(item), path, run)
        except (RsupresError, OSError) as error:
            logger.warning("%s: has no page: %s", item.output, error)

    def finish(self, items: Sequence[BatchItem]) -> Path:
        """Write the index of all items, and return its path."""
        with_thumbs = len(items) <= MAX_THUMBS
        rows = sorted(
            (self._row(item, with_thumb=with_thumbs) for item in items),
            key=lambda row: row.rank,
        )
        names = [n for n in SHOWN if any(n in row.figures for row in rows)]
        counts: dict[str, int] = {}
        for row in rows:
            counts[row.item.status] = counts.get(row.item.status, 0) + 1
        content = {
            "title": f"Batch {self._job.output.name}",
            "rows": [self._cells(row, names) for row in rows],
            "names": [(name, explain({name: 0.0})[0]) for name in names],
            "counts": counts,
            "n_failed": counts.get(FAILED, 0),
            "n_looks": sum(1 for row in rows if row.rank == 1),
        }
        data = {
            "items": [row.item.to_json() | {"page": row.page} for row in rows],
            "figures": {str(row.item.output): dict(row.figures) for row in rows},
        }
        path = self._folder / INDEX
        write_page(path, render("index.html", content, data))
        return path

    def _page(self, item: BatchItem) -> Path:
        name = os.path.relpath(item.output, self._job.output)
        return self._folder / Path(name).with_suffix(".html")

    def _check(self, path: Path) -> None:
        """Refuse to replace a file that is no page of ours."""
        if path.exists() and not self._job.overwrite and page_data(path) is None:
            raise RunConflictError(
                f"{path} exists and is no page of rsupres; choose another folder.",
                remedies=("report",),
            )

    def _given(self, item: BatchItem) -> Given:
        """Return the files of an item's page."""
        scenes = item.files or (item.scene,)
        job = replace(self._job, scenes=scenes, output=item.output)
        own: dict[str, object] = {}
        for kind, path in item.conditions.items():
            own[kind] = path if kind == "change_mask" else (path,)
        given = replace(given_of(job), **own)  # type: ignore[arg-type]
        if self._job.uncertainty is None:
            return given
        return replace(given, uncertainty=str(self._job.uncertainty / item.output.name))

    def _row(self, item: BatchItem, *, with_thumb: bool) -> Row:
        path = self._page(item)
        data = page_data(path) if path.exists() else None
        data = data if item.status in (*DONE, FAILED) else None
        figures = dict(item.figures or {})
        looks: tuple[str, ...] = ()
        gate = ""
        if data is not None:
            figures |= {k: v for k, v in data["figures"].items() if v is not None}
            verdicts = data["verdicts"]
            looks = tuple(name for name in SHOWN if verdicts.get(name) == LOOK)
            gate = data["tags"].get("gate", "")
        relative = "" if data is None else os.path.relpath(path, self._folder)
        thumb = _thumbnail(item) if with_thumb else ""
        return Row(item, relative, thumb, figures, looks, gate)

    def _cells(self, row: Row, names: Sequence[str]) -> dict[str, object]:
        """Return a row as the template shows it."""
        item = row.item
        explained = {figure.name: figure for figure in explain(row.figures)}
        cells = [(explained.get(name), name in row.looks) for name in names]
        return {
            "scene": Path(item.scene.rstrip("/")).name,
            "path": item.scene,
            "status": item.status,
            "page": row.page,
            "thumb": row.thumb,
            "model": item.model,
            "seconds": item.duration_s,
            "finished": item.finished,
            "error": item.error,
            "looks": [explained[name].title for name in row.looks if name in explained],
            "cells": cells,
            "rank": row.rank,
        }


def page_data(path: Path) -> dict[str, Any] | None:
    """Return the JSON inside of a page; None for a file that is no page of ours."""
    try:
        found = _DATA.search(path.read_text(encoding="utf-8"))
        return None if found is None else json.loads(found.group(1))
    except (OSError, ValueError):
        return None


def _thumbnail(item: BatchItem) -> str:
    """Return a small picture of the output, or of the scene where there is none."""
    for name in (str(item.output), item.scene):
        if name == str(item.output) and not item.output.exists():
            continue
        try:
            with Raster.open(name) as raster:
                picture = Picture.of(raster)
                step = ceil_div(max(raster.grid.height, raster.grid.width), THUMB)
                grid = raster.grid.refine(Fraction(1, step))
                pixels = read_on(raster, picture.rgb, grid)
        except (RsupresError, OSError):
            continue
        return encode(shade(pixels, find_limits(pixels)), lossless=False)
    return ""
