"""Explain in words the figures of a page, the conditions of the model and its origin.

Each figure has a sentence. Most have limits between good, usual and worth a look, which
were chosen by the values in tests/benchmarks/RESULTS.md.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rsupres.raster.dataset import Raster
from rsupres.raster.files import date_of
from rsupres.report.sources import Picture, Sources
from rsupres.report.views import Shown

GOOD, USUAL, LOOK = "good", "usual", "look closer"


@dataclass(frozen=True)
class Explanation:
    """The meaning of a figure.

    Attributes:
        title: as the page shows it.
        sentence: what it says about the result.
        good: up to here it is good, or from here on where `rising`; None = no limits.
        poor: beyond here it is worth a look.
        best: value of a perfect result, where a gauge begins.
        form: how it is written, for `format`.
        factor: shown value by value.
        unit: after the shown value.
    """

    title: str
    sentence: str
    good: float | None = None
    poor: float | None = None
    best: float = 0.0
    form: str = ".4g"
    factor: float = 1.0
    unit: str = ""


def _share(
    title: str,
    sentence: str,
    good: float | None = None,
    poor: float | None = None,
    best: float = 0.0,
) -> Explanation:
    """Return the explanation of a share, which is shown in percent."""
    return Explanation(title, sentence, good, poor, best, ".2f", 100.0, " %")


EXPLANATIONS: Mapping[str, Explanation] = {
    "consistency": _share(
        "Consistency",
        "How much the result, averaged back to the input's pixels, differs from the "
        "input (root mean square, share of the range).",
        0.006,
        0.02,
    ),
    "bias": _share(
        "Bias",
        "Mean of that difference: whether the result is brighter or darker as a whole.",
        0.001,
        0.005,
    ),
    "valid": _share(
        "Valid",
        "Share of the input's pixels that hold a measurement.",
        0.999,
        0.8,
        1.0,
    ),
    "clipped": _share(
        "Clipped",
        "Share of the input's values beyond the range that the model sees; they are "
        "kept, but enlarged without it.",
        0.005,
        0.03,
    ),
    "uncertainty": _share(
        "Uncertainty",
        "Mean standard deviation over the samples: how much the drawn pictures differ.",
        0.005,
        0.02,
    ),
    "seam_over_input": Explanation(
        "Seams",
        "Gradient across the borders of tiles over that elsewhere, divided by the same "
        "of the enlarged input; 1 means that the borders do not show.",
        1.03,
        1.15,
        1.0,
        ".3f",
    ),
    "seam": Explanation(
        "Seams, by themselves",
        "Gradient across the borders of tiles over that elsewhere. In a small picture "
        "it is far from 1 also by what happens to lie there.",
        form=".3f",
    ),
    "detail": _share(
        "Fine detail",
        "Share of the picture's variation that is finer than the input could show; "
        "the model made it, or took it from a condition.",
    ),
    "hr_detail": _share(
        "Fine detail of the truth",
        "The same share of the truth: what a perfect result would have.",
    ),
    "psnr": Explanation(
        "PSNR",
        "Error against the truth over all bands, in decibels; 3 more halve the squared "
        "error.",
        32.0,
        23.0,
        41.0,
        ".2f",
        unit=" dB",
    ),
    "ssim": Explanation(
        "SSIM",
        "Likeness of local structure with the truth; 1 for equal pictures.",
        0.85,
        0.60,
        1.0,
        ".3f",
    ),
    "sam": Explanation(
        "Spectral angle",
        "Mean angle between the colours of result and truth, whatever their "
        "brightness.",
        1.5,
        4.0,
        form=".2f",
        unit="°",
    ),
    "ergas": Explanation(
        "ERGAS",
        "Error relative to the mean of each band, over all bands.",
        2.0,
        4.0,
        form=".2f",
    ),
    "edge_f1": Explanation(
        "Edges",
        "Share of edges that lie within a pixel of the truth's (F1); unrelated "
        "photographs have about 0.2.",
        0.75,
        0.5,
        1.0,
        ".3f",
    ),
    "lpips_squeeze": Explanation(
        "LPIPS (squeeze)",
        "Perceptual distance from the truth by SqueezeNet; 0 for equal pictures.",
        0.2,
        0.45,
        form=".3f",
    ),
    "shift": Explanation(
        "Shift",
        "By how many SR pixels result and truth are displaced.",
        0.25,
        1.0,
        form=".2f",
        unit=" px",
    ),
}


@dataclass(frozen=True)
class Figure:
    """A figure as a page shows it.

    Attributes:
        name: as in JSON.
        value: the number.
        title: short name.
        text: the number with its unit.
        sentence: what it means.
        verdict: "good", "usual", "look closer", or "" without experience.
        place: where it lies between perfect (0), good (1/3), worth a look (2/3) and
            worse (1), for a gauge.
        typical: the limits in words.
    """

    name: str
    value: float
    title: str
    text: str
    sentence: str
    verdict: str = ""
    place: float = 0.0
    typical: str = ""


def explain(figures: Mapping[str, float]) -> list[Figure]:
    """Return figures with their explanations, in the order of `EXPLANATIONS`.

    Figures that are not finite, or not known here, are left out.
    """
    found = dict(figures)
    if "shift_row" in found and "shift_col" in found:
        found["shift"] = math.hypot(found["shift_row"], found["shift_col"])
    return [
        _figure(name, found[name], explanation)
        for name, explanation in EXPLANATIONS.items()
        if name in found and math.isfinite(found[name])
    ]


def _figure(name: str, value: float, about: Explanation) -> Figure:
    def shown(number: float) -> str:
        text = f"{number * about.factor:{about.form}}"
        return f"{text.lstrip('-') if float(text) == 0 else text}{about.unit}"

    if about.good is None or about.poor is None:
        return Figure(name, value, about.title, shown(value), about.sentence)
    size = abs(value) if name == "bias" else value
    share = (size - about.good) / (about.poor - about.good)
    verdict = GOOD if share <= 0 else USUAL if share < 1 else LOOK
    more, less = ("below", "above") if about.good < about.poor else ("above", "below")
    typical = (
        f"Good {more} {shown(about.good)}; look closer {less} {shown(about.poor)}."
    )
    if share <= 0:  # the first third of a gauge is good, the second one usual
        place = max(0.0, (size - about.best) / (about.good - about.best) / 3)
    else:
        place = min(1.0, (share + 1) / 3)
    return Figure(
        name,
        value,
        about.title,
        shown(value),
        about.sentence,
        verdict,
        place,
        typical,
    )


@dataclass(frozen=True)
class Condition:
    """A picture that a model looked at, or that a result is compared with.

    Attributes:
        kind: such as "Reference".
        source: the file.
        date: of the picture; "" when it has none.
        share: of the result that it covers, in words.
    """

    kind: str
    source: str
    date: str
    share: str


def conditions(sources: Sources, shown: Shown) -> Iterator[Condition]:
    """Yield the input, the conditions and the truth with date, source and share.

    Args:
        sources: open.
        shown: the views that were drawn.
    """
    given, cover = sources.given, shown.coverage
    if sources.lr is not None:
        yield Condition("Input", *_dated(sources.lr), _covers(cover.get("lr")))
    for picture in sources.references:
        share = _covers(cover.get("reference"))
        yield Condition("Reference", *_dated(picture), share)
    for path in given.vector_map:
        yield Condition("Map", _base(path), _file_date(path), shown.map_words)
    if given.change_mask is not None:
        share = f"{100 * (shown.mask_share or 0):.1f} % changed"
        name = given.change_mask
        yield Condition("Change mask", _base(name), _file_date(name), share)
    if sources.hr is not None:
        yield Condition("Truth", *_dated(sources.hr), _covers(cover.get("hr")))
    yield from _recorded(sources)


def _recorded(sources: Sources) -> Iterator[Condition]:
    """Yield conditions that the result's tags name and that are not given here."""
    given = sources.given
    here = {
        "reference": bool(given.reference),
        "vector_map": bool(given.vector_map),
        "change_mask": given.change_mask is not None,
        "style": False,
    }
    for name, is_given in here.items():
        if is_given or name not in sources.tags:
            continue
        try:
            files = json.loads(sources.tags[name]).get("files", [])
        except (ValueError, AttributeError):
            continue
        for file in files:
            if isinstance(file, Mapping):
                source = str(file.get("file") or file.get("name") or "")
                date = str(file.get("date") or "")[:10]
                kind = name.replace("_", " ").capitalize()
                yield Condition(kind, source, date, "used by the model; not given here")


def _dated(picture: Picture) -> tuple[str, str]:
    date, source = date_of(picture.raster)
    day = f"{date:%Y-%m-%d}" + ("" if source != "file time" else " (file)")
    return _base(picture.raster.path), day


def _file_date(path: str) -> str:
    if path.lower().endswith((".tif", ".tiff", ".vrt")):
        with Raster.open(path, is_classes=True) as scene:
            date, source = date_of(scene)
        return f"{date:%Y-%m-%d}" + (" (file)" if source == "file time" else "")
    return ""


def _covers(share: float | None) -> str:
    return "" if share is None else f"covers {100 * share:.1f} %"


def _base(path: str) -> str:
    return os.path.basename(path.rstrip("/")) or path


def provenance(sources: Sources, run: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return where a result comes from, as rows of a table.

    Args:
        sources: open.
        run: rows known to the caller, such as the command and its duration.
    """
    tags, frame = sources.tags, sources.frame
    crs = frame.crs.to_string() if frame.crs is not None else "none"
    size = Path(sources.given.sr)
    rows = [
        ("Result", _base(sources.given.sr)),
        ("Size", f"{frame.width} × {frame.height} pixels"),
        ("Bytes", f"{size.stat().st_size:,}" if size.is_file() else ""),
        ("Pixel", f"{frame.gsd_m:.4g} m" if frame.crs is not None else ""),
        ("CRS", crs if len(crs) < 60 else crs[:57] + "…"),
        ("Model", tags.get("model", "")),
        ("Model SHA-256", tags.get("model_sha256", "")),
        ("Licence", tags.get("model_licence", "")),
        ("Scale", tags.get("scale", "")),
        ("Seed", tags.get("seed", "")),
        ("Steps", tags.get("steps", "")),
        ("Samples", tags.get("samples", "")),
        ("Detail", tags.get("detail", "")),
        ("Precision", tags.get("precision", "")),
        ("Tiles", tile_words(tags.get("tile", ""))),
        ("rsupres", tags.get("version", "")),
        ("Job", tags.get("job", "")),
    ]
    return [(name, value) for name, value in [*rows, *run.items()] if value]


def tile_words(text: str) -> str:
    """Return in words the tag of a result's tiles: rows, overlap, perhaps columns."""
    height, *more = text.split(",")
    if not more:
        return ""
    width = more[1] if len(more) > 1 else height
    return f"{width} × {height} input pixels, {more[0]} shared with each neighbour"
