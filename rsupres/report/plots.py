"""Draw plots and the place on the globe as plain SVG, coloured by the page's styles.

Lines differ in dashes as well as in colour, and every drawing has a title and a text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from rsupres.grid import Grid
from rsupres.report.measure import Histogram, Spectrum

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 38
RELIABILITY = "Reliability of predicted errors"
# Styles of a drawing outside of a page.
_ALONE = (
    "text{font:11px sans-serif;fill:#333}.grid{stroke:#ddd}.line{fill:none;"
    "stroke-width:2}.result{stroke:#00695c}.input{stroke:#777;stroke-dasharray:7 3}"
)
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
Points = Sequence[tuple[float, float]]


def histogram_plot(histogram: Histogram) -> str:
    """Return the shares of values of one band as lines."""
    edges = histogram.edges
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    lines = {
        name: list(zip(middles, (100 * s for s in shares), strict=True))
        for name, shares in histogram.shares.items()
    }
    text = f"Histogram of {histogram.band}: {_names(lines)}"
    return _plot(lines, "value", "% of the pixels", text, floor=0.0)


def spectrum_plot(spectrum: Spectrum) -> str:
    """Return power by frequency as lines, with the input's limit marked."""
    lines = {
        name: [
            (f, p)
            for f, p in zip(spectrum.frequency, power, strict=True)
            if p is not None
        ]
        for name, power in spectrum.power_db.items()
    }
    text = f"Power by frequency: {_names(lines)}"
    return _plot(
        lines, "cycles per input pixel", "power, dB", text, mark=(0.5, "input's limit")
    )


def reliability_plot(bins: Points) -> str:
    """Return predicted against real deviations (`Calibration.bins`), as an SVG file.

    On the dashed line a prediction is exact, above it too sure.
    """
    ends = [value for point in bins for value in point]
    exact = [(value, value) for value in (0.0, max(ends, default=1.0))]
    lines = {"result": [(0.0, 0.0), *bins], "input": exact}
    drawn = _plot(
        lines,
        "predicted deviation, share of the range",
        "error made (RMS)",
        RELIABILITY,
        floor=0.0,
    )
    style = f"<style>{_ALONE}</style>"
    head = '<svg xmlns="http://www.w3.org/2000/svg"'
    return head + drawn.removeprefix("<svg").replace("><title>", f">{style}<title>", 1)


def _names(lines: Mapping[str, Points]) -> str:
    return ", ".join(lines)


def _plot(
    lines: Mapping[str, Points],
    x_name: str,
    y_name: str,
    text: str,
    *,
    floor: float | None = None,
    mark: tuple[float, str] | None = None,
) -> str:
    """Return lines in a frame with ticks; each line's name is also its class."""
    xs = [x for points in lines.values() for x, _ in points] or [0.0, 1.0]
    ys = [y for points in lines.values() for _, y in points] or [0.0, 1.0]
    low_y = min(ys) if floor is None else floor
    x_of = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_of = _Axis(low_y, max(ys), HEIGHT - BOTTOM, TOP)
    parts = [*_x_ticks(x_of, x_name), *_y_ticks(y_of, y_name)]
    if mark is not None:
        x = x_of(mark[0])
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" '
            f'y2="{HEIGHT - BOTTOM}"/><text class="tick" x="{x + 4:.1f}" '
            f'y="{TOP + 10}">{escape(mark[1])}</text>'
        )
    for name, points in lines.items():
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line {name}" points="{path}"/>')
    return _svg(WIDTH, HEIGHT, text, "plot", parts)


class _Axis:
    """Maps numbers to places along one side of a drawing."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self.low, self.high = low, high if high > low else low + 1
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self._start + share * (self._stop - self._start)

    def ticks(self, n: int) -> list[float]:
        """Return about `n` round numbers along the axis."""
        step = round_step((self.high - self.low) / n)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def round_step(step: float) -> float:
    """Return 1, 2, 2.5 or 5 times a power of ten, at least `step`.

    >>> round_step(0.3), round_step(7)
    (0.5, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(max(step, 1e-12)))
    return next(power * part for part in _STEPS if power * part >= step * (1 - 1e-9))


def _x_ticks(axis: _Axis, name: str) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = [
        f'<text class="tick" text-anchor="middle" x="{axis(value):.1f}" '
        f'y="{bottom + 15}">{value:g}</text>'
        for value in axis.ticks(5)
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="axis" text-anchor="middle" x="{middle:.0f}" '
        f'y="{HEIGHT - 6}">{escape(name)}</text>'
    )
    return parts


def _y_ticks(axis: _Axis, name: str) -> list[str]:
    parts = []
    for value in axis.ticks(4):
        y = axis(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><text class="tick" text-anchor="end" x="{LEFT - 6}" '
            f'y="{y + 4:.1f}">{value:g}</text>'
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="axis" text-anchor="middle" '
        f'transform="translate(11 {middle:.0f}) rotate(-90)">{escape(name)}</text>'
    )
    return parts


def _svg(width: int, height: int, text: str, kind: str, parts: Sequence[str]) -> str:
    """Return a drawing with its text for screen readers."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(text)}"><title>{escape(text)}</title>'
        f"{''.join(parts)}</svg>"
    )


def outline(grid: Grid) -> list[tuple[float, float]] | None:
    """Return longitudes and latitudes along the edge of a frame; None without any."""
    share = np.linspace(0, 1, 9)[:-1]
    zero, one = np.zeros_like(share), np.ones_like(share)
    cols = np.concatenate([share, one, 1 - share, zero]) * grid.width
    rows = np.concatenate([zero, share, one, 1 - share]) * grid.height
    a, b, c, d, e, f = grid.transform[:6]
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    if grid.crs is None:
        return None
    try:
        lon, lat = transform_points(grid.crs, "EPSG:4326", x.tolist(), y.tolist())
    except RasterioError:
        return None
    is_known = all(math.isfinite(value) for value in (*lon, *lat))
    return list(zip(lon, lat, strict=True)) if is_known else None


def place_drawing(points: Points) -> str:
    """Return a footprint of (longitude, latitude) on a map of both and on the globe."""
    lons, lats = zip(*points, strict=True)
    middle = ((min(lons) + max(lons)) / 2, (min(lats) + max(lats)) / 2)
    reach = max(max(lats) - min(lats), (max(lons) - min(lons)) * _shrink(middle[1]))
    half = max(reach * 1.2, 1e-4)
    text = (
        f"Footprint around longitude {middle[0]:.4f} and latitude {middle[1]:.4f} "
        "degrees, on lines of both"
    )
    near = _near(points, middle, half)
    return _svg(430, 214, text, "place", [*near, *_globe(middle)])


def _shrink(latitude: float) -> float:
    """Return a degree of longitude in degrees of latitude."""
    return max(math.cos(math.radians(latitude)), 0.05)


def _near(points: Points, middle: tuple[float, float], half: float) -> list[str]:
    """Return a map of the surroundings, 190 pixels high and wide, at (20, 4)."""
    wide = half / _shrink(middle[1])
    x_of = _Axis(middle[0] - wide, middle[0] + wide, 20, 210)
    y_of = _Axis(middle[1] - half, middle[1] + half, 194, 4)
    parts = ['<rect class="sea" x="20" y="4" width="190" height="190"/>']
    for lon in x_of.ticks(3):
        x = x_of(lon)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="194"/>'
            f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="208">'
            f"{_degrees(lon, 'EW', 2 * wide)}</text>"
        )
    for lat in y_of.ticks(3):
        y = y_of(lat)
        parts.append(
            f'<line class="grid" x1="20" x2="210" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" text-anchor="middle" transform="translate(14 {y:.1f})'
            f' rotate(-90)">{_degrees(lat, "NS", 2 * half)}</text>'
        )
    path = " ".join(f"{x_of(lon):.1f},{y_of(lat):.1f}" for lon, lat in points)
    return [*parts, f'<polygon class="footprint" points="{path}"/>']


def _globe(middle: tuple[float, float]) -> list[str]:
    """Return the half of the globe that shows the place: lines every 30 degrees."""
    turn = round(middle[0] / 30) * 30.0
    tilt = max(-60.0, min(60.0, round(middle[1] / 2 / 10) * 10.0))
    parts = ['<circle class="sea" cx="325" cy="99" r="92"/>']
    fine = np.linspace(-180, 180, 121)
    for lat in range(-60, 61, 30):
        parts += _arc([(lon, lat) for lon in fine], turn, tilt)
    for lon in range(-180, 180, 30):
        parts += _arc([(lon, lat) for lat in fine[30:91]], turn, tilt)
    x, y, _ = _on_globe(middle, turn, tilt)
    return [*parts, f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/>']


def _arc(points: Sequence[tuple[float, float]], turn: float, tilt: float) -> list[str]:
    """Return the visible runs of a line on the globe."""
    runs: list[list[str]] = [[]]
    for point in points:
        x, y, depth = _on_globe(point, turn, tilt)
        if depth > 0:
            runs[-1].append(f"{x:.1f},{y:.1f}")
        elif runs[-1]:
            runs.append([])
    return [f'<polyline class="grid" points="{" ".join(r)}"/>' for r in runs if r]


def _on_globe(
    point: tuple[float, float], turn: float, tilt: float
) -> tuple[float, float, float]:
    """Return x, y and depth (positive = in front) of an orthographic view."""
    lon, lat = math.radians(point[0] - turn), math.radians(point[1])
    up = math.radians(tilt)
    x = math.cos(lat) * math.sin(lon)
    y = math.cos(up) * math.sin(lat) - math.sin(up) * math.cos(lat) * math.cos(lon)
    depth = math.sin(up) * math.sin(lat) + math.cos(up) * math.cos(lat) * math.cos(lon)
    return 325 + 92 * x, 99 - 92 * y, depth


def _degrees(value: float, sides: str, span: float) -> str:
    """Return a coordinate with its side, with as many digits as the span needs."""
    digits = max(0, math.ceil(-math.log10(span / 5)))
    return f"{abs(value):.{digits}f}° {sides[0] if value >= 0 else sides[1]}"
