"""Make the page of an evaluation: models side by side, with the images that decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsupres.errors import RunConflictError
from rsupres.evaluation.comparison.paired import HIGHER_IS_BETTER, SIGNED, Difference
from rsupres.evaluation.comparison.worst import Shown
from rsupres.evaluation.measure_models import ModelsResult
from rsupres.evaluation.report import COLUMNS, Row
from rsupres.report.batch_index import page_data
from rsupres.report.page import check_page_place, render, write_page
from rsupres.report.pictures import encode


def check_models_page(path: Path) -> None:
    """Check that a page can be written, and replaces no file but a page of ours.

    Raises:
        InputError: it cannot.
        RunConflictError: it would replace another file.
    """
    check_page_place(path, "html")
    if path.exists() and page_data(path) is None:
        raise RunConflictError(
            f"{path} exists and is no page of rsupres; choose another name."
        )


def write_models_page(
    path: Path, result: ModelsResult, found: Sequence[Difference]
) -> None:
    """Write the page of models on a test set.

    Args:
        path: of the page.
        result: with the worst images kept.
        found: differences of the other models from the first.
    """
    n_images = len({(row.image or "").partition("@")[0] for row in result.rows})
    names = [n for n in COLUMNS if any(n in row.figures for row in result.means)]
    content = {
        "title": "Models side by side",
        "n_images": n_images,
        "degradation": result.degradation,
        "heads": [(COLUMNS[name].heading, _meaning(name)) for name in names],
        "means": [_mean_cells(row, names, result.means) for row in result.means],
        "other": found[0].other if found else "",
        "differences": [_difference_cells(d) for d in found],
        "worst": [
            (model, [_strip(shown) for shown in images])
            for model, images in result.worst.items()
        ],
    }
    data = {
        "means": [row.to_json() for row in result.means],
        "images": [row.to_json() for row in result.rows],
        "differences": [d.to_json() for d in found],
        "degradation": result.degradation,
    }
    write_page(path, render("models.html", content, data))


def _meaning(name: str) -> str:
    way = "" if name in SIGNED else "lower is better"
    way = "higher is better" if name in HIGHER_IS_BETTER else way
    return f"{COLUMNS[name].meaning}; {way}" if way else COLUMNS[name].meaning


def _mean_cells(
    row: Row, names: Sequence[str], rows: Sequence[Row]
) -> dict[str, object]:
    """Return a row of means; the best of its scale is marked."""
    cells = []
    for name in names:
        value = row.figures.get(name, math.nan)
        others = [r.figures.get(name, math.nan) for r in rows if r.scale == row.scale]
        known = [other for other in others if math.isfinite(other)]
        best = (max if name in HIGHER_IS_BETTER else min)(known) if known else math.nan
        is_best = value == best and name not in SIGNED and len(known) > 1
        cells.append((_number(name, value), value, is_best))
    return {"model": row.model, "scale": row.scale, "cells": cells}


def _number(name: str, value: float) -> str:
    return f"{value:.{COLUMNS[name].digits}f}" if math.isfinite(value) else "–"


def _difference_cells(found: Difference) -> dict[str, object]:
    digits = COLUMNS[found.figure].digits
    interval = "too few images"
    if math.isfinite(found.low):
        interval = f"{found.low:+.{digits}f} to {found.high:+.{digits}f}"
    return {
        "model": found.model,
        "scale": found.scale,
        "figure": COLUMNS[found.figure].heading,
        "mean": f"{found.mean:+.{digits}f}",
        "value": found.mean,
        "interval": interval,
        "wins": found.wins,
        "losses": found.losses,
        "n_images": found.n_images,
        "verdict": found.verdict,
    }


def _strip(shown: Shown) -> dict[str, object]:
    """Return one image in all versions."""
    versions = []
    for name, pixels in shown.versions.items():
        rgb = np.moveaxis(pixels, 0, 2)
        alpha = np.full((*rgb.shape[:2], 1), 255, np.uint8)
        uri = encode(np.concatenate([rgb, alpha], axis=2), lossless=False)
        versions.append((name, uri))
    return {
        "image": shown.image,
        "scale": shown.scale,
        "value": f"{shown.value:.2f} dB",
        "versions": versions,
    }
