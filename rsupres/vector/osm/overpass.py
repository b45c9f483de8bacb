"""Download the OpenStreetMap features of a footprint from Overpass.

`osmnx` asks Overpass and Nominatim and builds the geometries. Here large areas are
split; a busy server is asked again after a pause, after a timeout for smaller parts.
The answer is kept by `rsupres.vector.osm.copies`. `RSUPRES_OVERPASS_URL` names another
server.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely
from shapely.geometry.base import BaseGeometry

from rsupres.errors import ConditionError
from rsupres.grid import Grid
from rsupres.legends.legend import Legend
from rsupres.output.atomic import translate_os_errors
from rsupres.vector import LIVE
from rsupres.vector.osm.copies import Copy, Query, find_copy, keep_copy
from rsupres.version import __version__

if TYPE_CHECKING:
    import geopandas
    import requests

URL_VARIABLE = "RSUPRES_OVERPASS_URL"
PART_SIDE_DEG = 0.25  # of the parts into which a large area is split
MIN_PART_DEG = 0.01  # smaller parts are not split
MAX_VALUES = 12  # a key with more wanted values is asked for with any value
MARGIN_DEG = 0.001  # about 100 m around the scene, for features that reach into it
ATTEMPTS = 6
FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 120.0
CONNECT_TIMEOUT_S = 10.0
CACHE = ".overpass-parts"  # folder of answers until all parts are there

logger = logging.getLogger(__name__)
pause = time.sleep  # replaced in tests


class _Busy(Exception):
    """The server answered 429 (too many requests) or 504 (timeout)."""

    def __init__(self, status: int, wait_s: float | None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.wait_s = wait_s


def resolve(
    paths: Sequence[str], grid: Grid, legend: Legend, folder: Path | None
) -> tuple[str, ...]:
    """Return the files to read; `overpass` is replaced by a download of the scene.

    Args:
        paths: files and `overpass`.
        grid: of the scene.
        legend: its tags are asked for.
        folder: where copies are kept; None = the working folder.

    Raises:
        ConditionError: there is no copy and the server cannot be reached.
    """
    if LIVE not in paths:
        return tuple(paths)
    copy = download(footprint(grid), legend, folder or Path.cwd())
    return tuple(str(copy.path) if path == LIVE else path for path in paths)


def footprint(grid: Grid) -> BaseGeometry:
    """Return a grid's bounds with a margin, in longitude and latitude."""
    import pyproj

    from rsupres.vector.geometry import PixelPlane

    boxes = PixelPlane(grid, 0).boxes_in(pyproj.CRS.from_epsg(4326))
    return shapely.union_all(
        [
            shapely.box(w - MARGIN_DEG, s - MARGIN_DEG, e + MARGIN_DEG, n + MARGIN_DEG)
            for w, s, e, n in boxes
        ]
    )


def place_area(name: str, grid: Grid) -> BaseGeometry:
    """Return the part of a named place that lies in the scene, longitude and latitude.

    Args:
        name: as Nominatim finds it.
        grid: of the scene.

    Raises:
        ConditionError: unknown place, no network, or a place outside the scene.
    """
    import osmnx
    import requests

    try:
        found = osmnx.geocode_to_gdf(name)
    except (
        requests.exceptions.RequestException,
        osmnx._errors.ResponseStatusCodeError,
    ) as error:
        raise ConditionError(
            f"{name!r}: the place search cannot be reached ({_short(error)}); work "
            "offline with a file of features, or with a box and a kept copy.",
            argument="place",
            remedies=("bbox",),
        ) from error
    except (osmnx._errors.InsufficientResponseError, TypeError, ValueError) as error:
        raise ConditionError(
            f"{name!r}: no such place with an area ({_short(error)}).",
            argument="place",
        ) from error
    place = found.geometry.union_all()
    area: BaseGeometry = shapely.intersection(place, footprint(grid))
    if area.is_empty:
        raise ConditionError(
            f"{name!r}: does not touch the scene: it covers {_text(place.bounds)}, the "
            f"scene {_text(footprint(grid).bounds)} (EPSG:4326).",
            argument="place",
        )
    return area


def bbox_area(bounds: Sequence[float], grid: Grid) -> BaseGeometry:
    """Return the part of a box that lies in the scene, longitude and latitude.

    Args:
        bounds: west, south, east, north in degrees.
        grid: of the scene.

    Raises:
        ConditionError: the numbers do not rise, or the box lies outside the scene.
    """
    west, south, east, north = bounds
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise ConditionError(
            f"{_text(bounds)}: give west, south, east, north in degrees, rising.",
            argument="bbox",
        )
    scene = footprint(grid)
    area = shapely.intersection(shapely.box(west, south, east, north), scene)
    if area.is_empty:
        raise ConditionError(
            f"{_text(bounds)}: does not touch the scene, which covers "
            f"{_text(scene.bounds)} (EPSG:4326).",
            argument="bbox",
        )
    return area


def download(area: BaseGeometry, legend: Legend, folder: Path) -> Copy:
    """Return an earlier copy of OpenStreetMap's features in an area, or a new one.

    Args:
        area: longitude and latitude.
        legend: its tags are asked for.
        folder: where copies are looked for and kept.

    Raises:
        ConditionError: the server cannot be reached, stays busy, or has no feature.
    """
    query = wanted_tags(legend)
    kept = find_copy(folder, area, query)
    if kept is not None:
        logger.warning(
            "OpenStreetMap of %s is read from %s; delete it to download again.",
            kept.date,
            kept.path,
        )
        return kept
    with translate_os_errors(folder), _osmnx_settings(folder / CACHE) as url:
        _check_reachable(url)
        frame = _fetch(area, query, url)
        copy = keep_copy(frame, area, query, folder, url)
    shutil.rmtree(folder / CACHE, ignore_errors=True)
    return copy


def wanted_tags(legend: Legend) -> dict[str, bool | list[str]]:
    """Return the tags that a legend needs, in the form that osmnx takes."""
    values: dict[str, set[str] | None] = {}
    for entry in legend.classes:
        for wanted in entry.tags:
            key, asked = next(iter(wanted.items()))
            before = values.get(key, set())
            values[key] = None if asked is None or before is None else before | asked
    return {
        key: True if chosen is None or len(chosen) > MAX_VALUES else sorted(chosen)
        for key, chosen in sorted(values.items())
    }


def _fetch(area: BaseGeometry, query: Query, url: str) -> geopandas.GeoDataFrame:
    """Ask for an area part by part."""
    import geopandas
    import pandas as pd

    waiting = deque((part, 0) for part in _parts(area, PART_SIDE_DEG))
    if len(waiting) > 1:
        logger.warning("The scene is asked for from %s in %d parts.", url, len(waiting))
    frames: list[geopandas.GeoDataFrame] = []
    while waiting:
        part, attempt = waiting.popleft()
        try:
            frame = _request(part, query)
        except _Busy as busy:
            if attempt + 1 >= ATTEMPTS:
                raise ConditionError(
                    f"{url}: stays busy ({busy}); try again later, or work "
                    "offline with an extract, for example of download.geofabrik.de."
                ) from busy
            _wait(busy, attempt, url)
            smaller = _quarters(part) if busy.status == 504 else [part]
            waiting.extendleft((piece, attempt + 1) for piece in reversed(smaller))
            continue
        if frame is not None:
            frames.append(frame)
    if not frames:
        raise ConditionError(
            f"{url}: OpenStreetMap has none of the legend's features in "
            f"{_text(area.bounds)}."
        )
    whole = pd.concat(frames)
    assert isinstance(whole, geopandas.GeoDataFrame)
    return whole[~whole.index.duplicated()]


def _request(area: BaseGeometry, query: Query) -> geopandas.GeoDataFrame | None:
    """Ask once; return None when the area has no such feature."""
    import osmnx
    import requests

    try:
        assert isinstance(area, shapely.Polygon | shapely.MultiPolygon)
        return osmnx.features_from_polygon(area, dict(query))
    except osmnx._errors.InsufficientResponseError as error:
        if "No matching features" in str(error) or "no data" in str(error).lower():
            return None
        raise ConditionError(
            f"The answer of Overpass cannot be used: {_short(error)}."
        ) from error
    except osmnx._errors.ResponseStatusCodeError as error:
        raise ConditionError(f"Overpass refused: {_short(error)}.") from error
    except requests.exceptions.Timeout as error:
        raise _Busy(504, None) from error
    except requests.exceptions.RequestException as error:
        raise _unreachable(error) from error


def _wait(busy: _Busy, attempt: int, url: str) -> None:
    wait_s = busy.wait_s
    if wait_s is None:
        wait_s = FIRST_PAUSE_S * 2**attempt
    wait_s = min(wait_s, MAX_PAUSE_S)
    logger.warning("%s is busy (%s); waiting %.0f s.", url, busy, wait_s)
    pause(wait_s)


def _parts(area: BaseGeometry, side: float) -> list[BaseGeometry]:
    """Return an area cut into boxes of at most `side` degrees."""
    west, south, east, north = area.bounds
    n_cols = max(1, -int(-(east - west) // side))
    n_rows = max(1, -int(-(north - south) // side))
    width, height = (east - west) / n_cols, (north - south) / n_rows
    boxes = [
        shapely.box(
            west + col * width,
            south + row * height,
            west + (col + 1) * width,
            south + (row + 1) * height,
        )
        for row in range(n_rows)
        for col in range(n_cols)
    ]
    pieces = [shapely.intersection(area, box) for box in boxes]
    return [piece for piece in pieces if piece.area > 0]


def _quarters(area: BaseGeometry) -> list[BaseGeometry]:
    west, south, east, north = area.bounds
    side = max(east - west, north - south)
    return [area] if side < MIN_PART_DEG else _parts(area, side / 2 * (1 + 1e-9))


@contextmanager
def _osmnx_settings(cache: Path) -> Iterator[str]:
    """Configure osmnx while the context is open; yield the URL of the server."""
    from osmnx import settings

    changes: dict[str, Any] = {
        "use_cache": True,
        "cache_folder": cache,
        "log_console": False,
        "requests_kwargs": {**settings.requests_kwargs, "hooks": {"response": _listen}},
        "http_user_agent": f"rsupres/{__version__} (osmnx)",
        "max_query_area_size": 1e15,  # areas are split in `_fetch`
    }
    if os.environ.get(URL_VARIABLE):
        changes["overpass_url"] = os.environ[URL_VARIABLE]
    before = {name: getattr(settings, name) for name in changes}
    for name, value in changes.items():
        setattr(settings, name, value)
    try:
        yield str(settings.overpass_url)
    finally:
        for name, value in before.items():
            setattr(settings, name, value)


def _listen(response: requests.Response, *args: object, **kwargs: object) -> None:
    """Raise `_Busy` before osmnx sees the answer, which would wait without end."""
    if response.status_code in (429, 504):
        wait = response.headers.get("Retry-After", "")
        raise _Busy(response.status_code, float(wait) if wait.isdecimal() else None)


def _check_reachable(url: str) -> None:
    """Ask for the server's state, so that a missing network is found at once."""
    import requests

    try:
        requests.get(f"{url.rstrip('/')}/status", timeout=CONNECT_TIMEOUT_S)
    except requests.exceptions.RequestException as error:
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> ConditionError:
    return ConditionError(
        f"OpenStreetMap's Overpass server cannot be reached ({_short(error)}). To work "
        "offline, give a file instead, such as an .osm.pbf extract of "
        "download.geofabrik.de, or a copy that an earlier run kept (osm_*.gpkg)."
    )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:100]}"


def _text(box: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in box)
