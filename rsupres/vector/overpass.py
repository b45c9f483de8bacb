"""OpenStreetMap live: what a footprint needs becomes a dated, hashed file.

`osmnx` asks Overpass and Nominatim and builds the geometries. Here large areas are
split, refusals are waited for or split further, and the answer is kept as a
GeoPackage with a JSON file beside it, which serves the same question again without a
network. `RSUPRES_OVERPASS_URL` names another server.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely
from shapely.geometry.base import BaseGeometry

from rsupres.errors import ConditionError
from rsupres.grid import Grid
from rsupres.legends.legend import Legend
from rsupres.output.atomic import publishing, sync, translate_os_errors
from rsupres.vector.tags import TELLING_KEYS
from rsupres.version import __version__

if TYPE_CHECKING:
    import geopandas
    import requests

LIVE = "overpass"
URL_VARIABLE = "RSUPRES_OVERPASS_URL"
ATTRIBUTION = "(c) OpenStreetMap contributors, ODbL 1.0"
SIDE_DEG = 0.25  # of the parts that a large area is asked for in
MIN_DEG = 0.01  # parts are not split below this
MANY_VALUES = 12  # a key with more wanted values is asked for whole
MARGIN_DEG = 0.001  # about 100 m around the scene, for what reaches in
ATTEMPTS = 6
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 120.0
CONNECT_S = 10.0
CACHE = ".overpass-parts"

# What Overpass is asked for: key -> any value, or these.
Query = Mapping[str, bool | list[str]]

logger = logging.getLogger(__name__)
_pause = time.sleep


@dataclass(frozen=True)
class Copy:
    """A file of downloaded features.

    Attributes:
        path: GeoPackage.
        date: when it was downloaded, UTC, ISO 8601.
        sha256: of the file.
    """

    path: Path
    date: str
    sha256: str


class _Busy(Exception):
    """The server answered 429 or 504."""

    def __init__(self, status: int, wait_s: float | None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.wait_s = wait_s


def resolve(
    paths: Sequence[str], grid: Grid, legend: Legend, folder: Path | None
) -> tuple[str, ...]:
    """Return the files to read: `overpass` becomes a copy of the scene's surroundings.

    Args:
        paths: files and `overpass`.
        grid: the scene's.
        legend: whose tags are asked for.
        folder: where copies are kept; None = the working folder.

    Raises:
        ConditionError: there is no copy and the server cannot be reached.
    """
    if LIVE not in paths:
        return tuple(paths)
    copy = download(footprint(grid), legend, folder or Path.cwd())
    return tuple(str(copy.path) if path == LIVE else path for path in paths)


def footprint(grid: Grid) -> BaseGeometry:
    """Return a grid's bounds in longitude and latitude, with a little around."""
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

    Raises:
        ConditionError: unknown place, no network, or a place elsewhere.
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
            f"--place {name!r}: the place search cannot be reached ({_short(error)}); "
            "work offline with a file of features, or give --bbox and a kept copy."
        ) from error
    except (osmnx._errors.InsufficientResponseError, TypeError, ValueError) as error:
        raise ConditionError(
            f"--place {name!r}: no such place with an area ({_short(error)})."
        ) from error
    place = found.geometry.union_all()
    area: BaseGeometry = shapely.intersection(place, footprint(grid))
    if area.is_empty:
        raise ConditionError(
            f"--place {name!r}: does not touch the scene: it covers "
            f"{_text(place.bounds)}, the scene {_text(footprint(grid).bounds)} "
            "(EPSG:4326)."
        )
    return area


def bbox_area(bounds: Sequence[float], grid: Grid) -> BaseGeometry:
    """Return a box of west, south, east, north in degrees, as far as the scene goes.

    Raises:
        ConditionError: the numbers do not rise, or the box lies elsewhere.
    """
    west, south, east, north = bounds
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise ConditionError(
            f"--bbox {_text(bounds)}: give west, south, east, north in degrees, rising."
        )
    scene = footprint(grid)
    area = shapely.intersection(shapely.box(west, south, east, north), scene)
    if area.is_empty:
        raise ConditionError(
            f"--bbox {_text(bounds)}: does not touch the scene, which covers "
            f"{_text(scene.bounds)} (EPSG:4326)."
        )
    return area


def download(area: BaseGeometry, legend: Legend, folder: Path) -> Copy:
    """Return a copy of OpenStreetMap's features in an area; a kept one where it serves.

    Args:
        area: longitude and latitude.
        legend: whose tags are asked for.
        folder: where copies are looked for and kept.

    Raises:
        ConditionError: the server cannot be reached, refuses for long, or has nothing.
    """
    query = wanted_tags(legend)
    kept = _find_copy(folder, area, query)
    if kept is not None:
        logger.warning(
            "OpenStreetMap as of %s out of %s; delete it to download anew.",
            kept.date,
            kept.path,
        )
        return kept
    with translate_os_errors(folder), _osmnx_settings(folder / CACHE) as url:
        _check_reachable(url)
        frame = _fetch(area, query, url)
        copy = _keep(frame, area, query, folder, url)
    _remove_cache(folder / CACHE)
    return copy


def wanted_tags(legend: Legend) -> dict[str, bool | list[str]]:
    """Return what a legend needs, as osmnx asks for it."""
    values: dict[str, set[str] | None] = {}
    for entry in legend.classes:
        for wanted in entry.tags:
            key, asked = next(iter(wanted.items()))
            before = values.get(key, set())
            values[key] = None if asked is None or before is None else before | asked
    return {
        key: True if chosen is None or len(chosen) > MANY_VALUES else sorted(chosen)
        for key, chosen in sorted(values.items())
    }


def date_of(path: str) -> str | None:
    """Return when a downloaded copy was made; None for other files."""
    record = _read_record(Path(path).with_suffix(".json"))
    return None if record is None else str(record["date"])


def _find_copy(folder: Path, area: BaseGeometry, query: Query) -> Copy | None:
    """Return the newest copy whose area and tags cover the question."""
    found: list[Copy] = []
    for path in folder.glob("osm_*.json"):
        record = _read_record(path)
        if record is None:
            continue
        there = shapely.from_geojson(json.dumps(record["area"]))
        copy = Copy(path.with_suffix(".gpkg"), record["date"], record["sha256"])
        if not copy.path.exists() or not _covers_tags(record["tags"], query):
            continue
        if not shapely.buffer(there, 1e-9).covers(area):
            continue
        if _digest(copy.path) != copy.sha256:
            logger.warning("%s was changed since its download; not used.", copy.path)
            continue
        found.append(copy)
    return max(found, key=lambda copy: copy.date, default=None)


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    keys = {"source", "date", "sha256", "area", "tags"}
    return record if isinstance(record, dict) and keys <= record.keys() else None


def _covers_tags(there: Query, asked: Query) -> bool:
    for key, values in asked.items():
        kept = there.get(key, [])
        if kept is True:
            continue
        if values is True or not set(values or []) <= set(kept or []):
            return False
    return True


def _fetch(area: BaseGeometry, query: Query, url: str) -> geopandas.GeoDataFrame:
    """Ask for an area part by part."""
    import geopandas
    import pandas as pd

    waiting = deque((part, 0) for part in _parts(area, SIDE_DEG))
    if len(waiting) > 1:
        logger.warning("%s is asked for the scene in %d parts.", url, len(waiting))
    frames: list[geopandas.GeoDataFrame] = []
    while waiting:
        part, attempt = waiting.popleft()
        try:
            frame = _request(part, query)
        except _Busy as busy:
            if attempt + 1 >= ATTEMPTS:
                raise ConditionError(
                    f"{url}: refuses for long ({busy}); try again later, or work "
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
    """Ask once; None when nothing is there."""
    import osmnx
    import requests

    try:
        assert isinstance(area, shapely.Polygon | shapely.MultiPolygon)
        return osmnx.features_from_polygon(area, dict(query))
    except osmnx._errors.InsufficientResponseError as error:
        if "No matching features" in str(error) or "no data" in str(error).lower():
            return None
        raise ConditionError(
            f"Overpass answered what cannot be used: {_short(error)}."
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
    wait_s = min(wait_s, LONGEST_PAUSE_S)
    logger.warning("%s is busy (%s); waiting %.0f s.", url, busy, wait_s)
    _pause(wait_s)


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
    return [area] if side < MIN_DEG else _parts(area, side / 2 * (1 + 1e-9))


def _keep(
    frame: geopandas.GeoDataFrame,
    area: BaseGeometry,
    query: Query,
    folder: Path,
    url: str,
) -> Copy:
    """Write the copy, and its record last."""
    keys = sorted({*query, *TELLING_KEYS, "bridge", "tunnel", "layer", "location"})
    keys += ["width", "lanes", "area", "parking", "generator:source"]
    columns = [key for key in dict.fromkeys(keys) if key in frame.columns]
    plain = frame[[*columns, "geometry"]]
    plain = plain[~plain.geom_type.isin(["Point", "MultiPoint"])].reset_index()
    now = datetime.now(UTC)
    part = folder / f"osm_{now:%Y%m%dT%H%M%SZ}_{secrets.token_hex(4)}.gpkg"
    try:
        plain.to_file(part, layer="osm", driver="GPKG", engine="pyogrio")
        digest = _digest(part)
        path = folder / f"osm_{now:%Y%m%dT%H%M%SZ}_{digest[:8]}.gpkg"
        sync(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    date = now.isoformat(timespec="seconds")
    record = {
        "source": url,
        "date": date,
        "sha256": digest,
        "features": len(plain),
        "area": json.loads(shapely.to_geojson(area)),
        "tags": dict(query),
        "attribution": ATTRIBUTION,
        "rsupres": __version__,
    }
    with publishing(path.with_suffix(".json")) as draft:
        draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    logger.info("%d features of OpenStreetMap are kept in %s.", len(plain), path)
    return Copy(path, date, digest)


@contextmanager
def _osmnx_settings(cache: Path) -> Iterator[str]:
    """Set osmnx up for our ways of waiting, and restore it; yields the server's URL."""
    from osmnx import settings

    changes: dict[str, Any] = {
        "use_cache": True,
        "cache_folder": cache,
        "log_console": False,
        "requests_kwargs": {**settings.requests_kwargs, "hooks": {"response": _listen}},
        "http_user_agent": f"rsupres/{__version__} (osmnx)",
        "max_query_area_size": 1e15,  # parts are ours
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
    """Take refusals before osmnx does, which would wait for them without end."""
    if response.status_code in (429, 504):
        told = response.headers.get("Retry-After", "")
        raise _Busy(response.status_code, float(told) if told.isdecimal() else None)


def _check_reachable(url: str) -> None:
    """Ask for the server's state, so that no network shows at once."""
    import requests

    try:
        requests.get(f"{url.rstrip('/')}/status", timeout=CONNECT_S)
    except requests.exceptions.RequestException as error:
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> ConditionError:
    return ConditionError(
        f"OpenStreetMap's Overpass server cannot be reached ({_short(error)}). To work "
        "offline, give a file instead, such as an .osm.pbf extract of "
        "download.geofabrik.de, or a copy that an earlier run kept (osm_*.gpkg)."
    )


def _remove_cache(cache: Path) -> None:
    for path in sorted(cache.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    if cache.is_dir():
        cache.rmdir()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:100]}"


def _text(box: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in box)
