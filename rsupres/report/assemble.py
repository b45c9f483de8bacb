"""Put the page of one result together: what was found, as words, plots and JSON.

`Findings` holds all measurements; its method `page` lays them out, with pictures of the
size that is asked for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rsupres.checkpoints.catalogue import read_card
from rsupres.errors import CheckpointError
from rsupres.evaluation.measure_pair import PairRequest, measure_pair
from rsupres.report.explain import conditions, explain, provenance
from rsupres.report.measure import DifferenceMap, Measured, difference_map, measure
from rsupres.report.page import render
from rsupres.report.pictures import DIVERGING_RAMP, colour_by, encode
from rsupres.report.plots import histogram_plot, outline, place_drawing, spectrum_plot
from rsupres.report.sources import Sources
from rsupres.report.views import Room, Shown, difference_top, draw
from rsupres.upscaling.gates import FIGURES

logger = logging.getLogger(__name__)

MAX_COMPARED = 4_096  # SR pixels along a side that are compared with the truth at once


class Findings:
    """The measurements that a page shows of a result."""

    def __init__(self, sources: Sources, run: dict[str, str]) -> None:
        self._sources = sources
        self._run = run
        self._halo = _halo(sources.tags)
        self._tiles = sources.tiles(self._halo)
        self._difference = difference_map(sources)
        self._measured = measure(sources, self._tiles)
        self._values = _values(sources, self._difference, self._measured, self._halo)
        self.figures = explain(self._values)

    def page(self, room: Room) -> str:
        """Return the page with pictures of a given size."""
        sources = self._sources
        shown = draw(sources, self._difference, self._tiles, room)
        rows = provenance(sources, self._run)
        looked_at = list(conditions(sources, shown))
        edge = outline(sources.frame)
        keys = [layer.key for layer in shown.views[0].layers]
        before = next(key for key in ("bicubic", "lr", "hr", "sr") if key in keys)
        content = {
            "title": Path(sources.given.sr).name,
            "facts": _facts(sources),
            "gate": sources.tags.get("gate", ""),
            "not_met": sources.tags.get("gate_not_met", ""),
            "views": shown.views,
            "names": _names(shown),
            "before": before,
            "has_nir": any(la.mode == "nir" for la in shown.views[0].layers),
            "has_tiles": any(view.rows or view.cols for view in shown.views),
            "legends": [(la.key, la.scale) for la in shown.views[0].layers if la.scale],
            "viewer_note": _viewer_note(shown, sources),
            "figures": self.figures,
            "has_truth": sources.hr is not None,
            **self._plots(),
            "measured_note": _measured_note(self._measured),
            "difference": _difference_picture(self._difference),
            "place": "" if edge is None else _markup(place_drawing(edge)),
            "place_text": "" if edge is None else _place_words(edge),
            "conditions": looked_at,
            "provenance": rows,
        }
        return render("report.html", content, self._data(shown, looked_at, rows, edge))

    def _plots(self) -> dict[str, object]:
        measured = self._measured
        spectrum = measured.spectrum
        return {
            "spectrum": "" if spectrum is None else _markup(spectrum_plot(spectrum)),
            "histograms": [
                (found.band, _markup(histogram_plot(found)))
                for found in measured.histograms
            ],
        }

    def _data(
        self,
        shown: Shown,
        looked_at: Sequence[object],
        rows: Sequence[tuple[str, str]],
        edge: Sequence[tuple[float, float]] | None,
    ) -> dict[str, object]:
        """Return everything that the page says, for programs."""
        measured, difference = self._measured, self._difference
        return {
            "figures": self._values,
            "verdicts": {f.name: f.verdict for f in self.figures if f.verdict},
            "tags": dict(self._sources.tags),
            "provenance": dict(rows),
            "conditions": [vars(condition) for condition in looked_at],
            "histograms": [vars(found) for found in measured.histograms],
            "spectrum": None if measured.spectrum is None else vars(measured.spectrum),
            "measured_share": measured.share,
            "footprint": None if edge is None else [list(point) for point in edge],
            "display": {k: limits.to_json() for k, limits in shown.limits.items()},
            "bands": {
                "rgb": list(self._sources.sr.rgb),
                "nir": list(self._sources.sr.nir),
            },
            "views": [
                {"name": view.name, "window": list(view.window), "step": view.step}
                for view in shown.views
            ],
            "difference": None
            if difference is None
            else {
                "step": difference.step,
                "values": [
                    [round(float(value), 6) for value in row]
                    for row in difference.values
                ],
            },
        }


def _values(
    sources: Sources,
    difference: DifferenceMap | None,
    measured: Measured,
    halo: int,
) -> dict[str, float]:
    """Return all figures: those of the tags first, then what was measured here."""
    values: dict[str, float] = {}
    for name in FIGURES:
        try:
            values[name] = float(sources.tags[name])
        except (KeyError, ValueError):
            continue
    if difference is not None and "consistency" not in values and difference.step == 1:
        known = difference.values[np.isfinite(difference.values)].astype(float)
        if known.size:
            values["consistency"] = float((known**2).mean() ** 0.5)
            values["bias"] = float(known.mean())
    values |= {
        "seam": measured.seam,
        "seam_over_input": measured.seam_over_input,
        "detail": measured.detail,
        "hr_detail": measured.hr_detail,
    }
    if sources.hr is not None:
        values |= _against_truth(sources, halo)
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _against_truth(sources: Sources, halo: int) -> dict[str, float]:
    """Return the figures of `rsupres evaluate`, for a result that fits into memory."""
    given, frame = sources.given, sources.frame
    assert given.hr is not None
    if max(frame.height, frame.width) > MAX_COMPARED:
        logger.warning(
            "%s: too large to compare with the truth here; 'rsupres evaluate' does it.",
            given.sr,
        )
        return {}
    found = measure_pair(PairRequest(given.sr, given.hr, resample=True))
    return dict(found.row.figures)


def _halo(tags: Mapping[str, str]) -> int:
    """Return the halo of the model that the tags name, 0 when it is not known here."""
    try:
        return read_card(tags["model"]).spec.halo
    except (KeyError, CheckpointError):
        return 0


def _facts(sources: Sources) -> list[str]:
    frame, tags = sources.frame, sources.tags
    facts = [f"{frame.width} × {frame.height} pixels"]
    if frame.crs is not None:
        facts.append(f"{frame.gsd_m:.3g} m a pixel")
    if sources.scale != 1:
        facts.append(f"×{sources.scale}")
    return facts + [tags[name] for name in ("model",) if name in tags]


def _names(shown: Shown) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for layer in shown.views[0].layers:
        found.setdefault(layer.key, layer.name)
    return list(found.items())


def _viewer_note(shown: Shown, sources: Sources) -> str:
    """Return how the pictures were made."""
    limits = "the input" if sources.lr is not None else "the result"
    text = f"Black and white are percentiles 1 and 99 of {limits}, alike in all."
    if len(shown.views) > 1:
        text += " The whole is reduced; parts are at full size, pixel by pixel."
    if sources.lr is None:
        text += " Give the input, and the page compares with it."
    return text


def _measured_note(measured: Measured) -> str:
    if measured.share > 0.98:
        return ""
    share = f"{100 * measured.share:.3g} %"
    return f"Measured on windows that are spread over {share} of the result."


def _difference_picture(difference: DifferenceMap | None) -> dict[str, object] | None:
    if difference is None:
        return None
    top = difference_top(difference)
    height, width = difference.values.shape
    middle = len(DIVERGING_RAMP) // 2
    texts = ((0, f"-{100 * top:.2g} %"), (middle, "0"), (-1, f"+{100 * top:.2g} %"))
    return {
        "uri": encode(colour_by(difference.values, -top, top, DIVERGING_RAMP)),
        "text": "Map of the difference between result and input",
        "width": width,
        "height": height,
        "scale": [
            ("#{:02x}{:02x}{:02x}".format(*DIVERGING_RAMP[place]), text)
            for place, text in texts
        ],
    }


def _place_words(edge: Sequence[tuple[float, float]]) -> str:
    lons, lats = zip(*edge, strict=True)
    return (
        f"Longitude {min(lons):.5f}° to {max(lons):.5f}°, latitude {min(lats):.5f}° to "
        f"{max(lats):.5f}° (WGS 84)."
    )


def _markup(text: str) -> object:
    from markupsafe import Markup

    return Markup(text)
