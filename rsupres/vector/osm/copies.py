"""Keep downloaded OpenStreetMap features as dated, hashed files, and find them again.

A copy is a GeoPackage with a JSON file beside it that records source, date, hash, area
and tags. A copy that covers a later question serves it without a network.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely
from shapely.geometry.base import BaseGeometry

from rsupres.output.atomic import publishing
from rsupres.output.temporary import sync, temporary
from rsupres.raster.files import file_sha256
from rsupres.vector.osm.tags import MAIN_KEYS
from rsupres.version import __version__

if TYPE_CHECKING:
    import geopandas

ATTRIBUTION = "(c) OpenStreetMap contributors, ODbL 1.0"
# Keys that decide how a feature is drawn, besides those that say what it is.
_LEVEL_KEYS = ("bridge", "tunnel", "layer", "location")
_SHAPE_KEYS = ("width", "lanes", "area", "parking", "generator:source")

# The tags of a question: key -> True for any value, or the wanted values.
Query = Mapping[str, bool | list[str]]

logger = logging.getLogger(__name__)


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


def download_date(path: str) -> str | None:
    """Return when a copy was downloaded, ISO 8601; None for other files."""
    record = _read_record(Path(path).with_suffix(".json"))
    return None if record is None else str(record["date"])


def find_copy(folder: Path, area: BaseGeometry, query: Query) -> Copy | None:
    """Return the newest copy that covers a question; None when there is none.

    Args:
        folder: where copies are kept.
        area: longitude and latitude.
        query: the wanted tags.
    """
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
        if file_sha256(copy.path) != copy.sha256:
            logger.warning(
                "%s was changed after its download; it is not used.", copy.path
            )
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


def keep_copy(
    frame: geopandas.GeoDataFrame,
    area: BaseGeometry,
    query: Query,
    folder: Path,
    url: str,
) -> Copy:
    """Write downloaded features as a copy, and return it.

    The record is written last, so a GeoPackage without one is not used.

    Args:
        frame: the features.
        area: that was asked for, longitude and latitude.
        query: the tags that were asked for.
        folder: where the copy is kept.
        url: of the server.
    """
    keys = (*sorted({*query, *MAIN_KEYS, *_LEVEL_KEYS}), *_SHAPE_KEYS)
    columns = [key for key in dict.fromkeys(keys) if key in frame.columns]
    plain = frame[[*columns, "geometry"]]
    plain = plain[~plain.geom_type.isin(["Point", "MultiPoint"])].reset_index()
    copy = _write_geopackage(plain, folder)
    record = {
        "source": url,
        "date": copy.date,
        "sha256": copy.sha256,
        "features": len(plain),
        "area": json.loads(shapely.to_geojson(area)),
        "tags": dict(query),
        "attribution": ATTRIBUTION,
        "rsupres": __version__,
    }
    with publishing(copy.path.with_suffix(".json")) as draft:
        draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    logger.info("%d features of OpenStreetMap are kept in %s.", len(plain), copy.path)
    return copy


def _write_geopackage(frame: geopandas.GeoDataFrame, folder: Path) -> Copy:
    """Write features to a file whose name holds the time and the hash."""
    now = datetime.now(UTC)
    with temporary(folder / "osm.gpkg") as empty:
        part = empty.with_name(f"{empty.name}.gpkg")
        frame.to_file(part, layer="osm", driver="GPKG", engine="pyogrio")
        digest = file_sha256(part)
        path = folder / f"osm_{now:%Y%m%dT%H%M%SZ}_{digest[:8]}.gpkg"
        sync(part)
        part.replace(path)
    return Copy(path, now.isoformat(timespec="seconds"), digest)
