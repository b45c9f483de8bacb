"""Read tags and geometries from vector files, only inside the bounds that are needed.

Any format of GDAL's vector drivers is read through pyogrio and filtered by bounds while
reading. The driver of OSM extracts is configured for the wanted tags, and for another
index of nodes when ids are not sorted. GeoParquet is read by pyarrow. The legend
interprets the tags; geometries stay WKB here.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import logging
import os
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyproj
from numpy.typing import NDArray
from pyogrio.errors import CRSError as PyogrioCRSError
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError

from rsupres.errors import InputError
from rsupres.legends.legend import DRAWING_KEYS
from rsupres.raster.files import file_sha256
from rsupres.vector.features import BoxesIn, Features
from rsupres.vector.geometry import Box
from rsupres.vector.osm.files import checked_osm, history_error, is_history
from rsupres.vector.osm.tags import TagReader, osm_configuration

logger = logging.getLogger(__name__)

OSM_LAYERS = ("lines", "multipolygons")
OSM_SUFFIXES = (".osm", ".pbf")
PARQUET_SUFFIXES = (".parquet", ".geoparquet", ".pq")
PACKED = {".gz": "/vsigzip/", ".zip": "/vsizip/"}
READ_ERRORS = (DataSourceError, DataLayerError, FeatureError, FieldError, OSError)
# pyogrio's configuration of GDAL belongs to the process.
_CONFIGURATION = threading.Lock()


def read_features(
    path: str, keys: Collection[str], areas: Collection[str], boxes_in: BoxesIn
) -> Iterator[Features]:
    """Yield the layers of a vector file, each once per box.

    Args:
        path: file, or a name that GDAL opens, such as `/vsizip/...`.
        keys: the tags to read.
        areas: tags (`key` or `key=value`) whose closed ways are areas, for OSM files.
        boxes_in: returns the bounds to read, in a layer's CRS.

    Raises:
        InputError: missing, damaged, not a vector file, without CRS or any layer.
    """
    if is_history(path):
        raise history_error(path)
    with _located(path) as name:
        suffix = Path(path.removesuffix(".bz2").removesuffix(".gz")).suffix.lower()
        if suffix in PARQUET_SUFFIXES:
            from rsupres.vector.geoparquet import read_parquet

            yield read_parquet(name, path, keys, boxes_in)
        elif suffix in OSM_SUFFIXES:
            with checked_osm(name, path, {*keys} - {*DRAWING_KEYS}) as plain:
                yield from _read_osm(plain, path, keys, areas, boxes_in)
        else:
            yield from _read_layers(name, path, keys, boxes_in)


def source_sha256(path: str) -> str:
    """Return the SHA-256 of a file; of the name where only GDAL can open it."""
    try:
        return file_sha256(path)
    except OSError:  # such as /vsizip/...
        return hashlib.sha256(path.encode()).hexdigest()


def _read_layers(
    name: str, path: str, keys: Collection[str], boxes_in: BoxesIn
) -> Iterator[Features]:
    with _explained(path):
        layers = [
            str(layer) for layer, kind in pyogrio.list_layers(name) if kind is not None
        ]
    if not layers:
        raise InputError(f"{path}: holds no layer with geometries.")
    for layer in layers:
        what = path if len(layers) == 1 else f"{path}, layer {layer}"
        with _explained(what):
            meta = pyogrio.read_info(name, layer=layer)
        if meta["features"] == 0:
            logger.info("%s is empty.", what)
        crs = _crs(meta, what)
        reader = TagReader(keys, [str(f) for f in meta["fields"]], layer, path)
        extent = _box(meta["total_bounds"])
        for boxes in _one_by_one(boxes_in(crs)):
            with _explained(what):
                fields, wkb, columns = _read(name, layer, reader.columns, boxes[0])
            if extent is None:
                extent = _extent_by_reading(name, layer)
            tags = reader.tags(fields, columns, len(wkb))
            is_way = reader.closed_ways(fields, columns, len(wkb))
            yield Features(what, crs, wkb, tags, extent, boxes, is_way)


def _read_osm(
    name: str,
    path: str,
    keys: Collection[str],
    areas: Collection[str],
    boxes_in: BoxesIn,
) -> Iterator[Features]:
    crs = pyproj.CRS.from_epsg(4326)
    with tempfile.TemporaryDirectory(prefix="rsupres-osm-") as folder:
        configuration = Path(folder) / "osmconf.ini"
        configuration.write_text(osm_configuration(keys, areas), encoding="utf-8")
        options = {"OSM_CONFIG_FILE": str(configuration)}
        with gdal_options(options), _explained(path):
            meta = pyogrio.read_info(name, layer=OSM_LAYERS[0])
        extent = _box(meta["total_bounds"])  # as its header has them
        for layer in OSM_LAYERS:
            for boxes in _one_by_one(boxes_in(crs)):
                fields, wkb, columns = _read_osm_box(
                    name, path, layer, options, boxes[0]
                )
                whole = extent
                if whole is None and not len(wkb):
                    with gdal_options(options), _explained(path):
                        whole = _extent_by_reading(name, layer)
                reader = TagReader(keys, fields, layer, path)
                tags = reader.tags(fields, columns, len(wkb))
                is_way = reader.closed_ways(fields, columns, len(wkb))
                yield Features(path, crs, wkb, tags, whole, boxes, is_way)


def _read_osm_box(
    name: str, path: str, layer: str, options: dict[str, str], box: Box
) -> tuple[list[str], NDArray[np.object_], list[NDArray[Any]]]:
    """Read one OSM layer; `options` is changed when ids are not sorted."""
    try:
        with gdal_options(options):
            return _read(name, layer, None, box)
    except READ_ERRORS as error:
        if "OSM_USE_CUSTOM_INDEXING" not in str(error):
            raise _unreadable(path, error) from error
    logger.info(
        "%s: ids are not sorted; reading it without the index of sorted ids.", path
    )
    options["OSM_USE_CUSTOM_INDEXING"] = "NO"
    with gdal_options(options), _explained(path):
        return _read(name, layer, None, box)


def _read(
    name: str, layer: str, columns: Sequence[str] | None, box: Box
) -> tuple[list[str], NDArray[np.object_], list[NDArray[Any]]]:
    """Read one layer inside bounds; GDAL's warnings go to the log."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        meta, _, wkb, values = pyogrio.raw.read(
            name, layer=layer, columns=columns, bbox=box, force_2d=True
        )
    for text in sorted({str(warning.message) for warning in caught}):
        logger.info("%s: %s", name, text)
    shapes = np.empty(0, object) if wkb is None else np.asarray(wkb, object)
    return [str(field) for field in meta["fields"]], shapes, list(values)


def _extent_by_reading(name: str, layer: str) -> Box | None:
    """Return the bounds of a layer whose file has none; reads all of it once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meta = pyogrio.read_info(name, layer=layer, force_total_bounds=True)
        extent = _box(meta["total_bounds"])
        if extent is not None:
            return extent
        _, bounds = pyogrio.read_bounds(name, layer=layer)  # (4, n)
    bounds = bounds[:, np.isfinite(bounds).all(axis=0)]
    if not bounds.size:
        return None
    return _box([*bounds[:2].min(axis=1), *bounds[2:].max(axis=1)])


def _box(bounds: Sequence[float] | None) -> Box | None:
    # GDAL gives zeros for a layer in which no feature has a geometry.
    if bounds is None or not np.isfinite(bounds).all() or not np.any(bounds):
        return None
    west, south, east, north = (float(value) for value in bounds)
    return west, south, east, north


def _one_by_one(boxes: Sequence[Box]) -> Iterator[list[Box]]:
    for box in boxes:
        if not np.isfinite(box).all():
            raise InputError(
                "The scene's footprint cannot be brought to the map's CRS; reproject "
                "the map to the CRS of the scene."
            )
        yield [box]


def _crs(meta: Mapping[str, Any], what: str) -> pyproj.CRS:
    if not meta["crs"]:
        raise InputError(
            f"{what}: the file has no CRS; assign one, for example with "
            "ogr2ogr -a_srs EPSG:4326 OUT IN."
        )
    return pyproj.CRS.from_user_input(meta["crs"])


@contextmanager
def gdal_options(options: Mapping[str, str]) -> Iterator[None]:
    """Set GDAL's configuration for pyogrio while the context is open."""
    with _CONFIGURATION:
        before = {key: pyogrio.get_gdal_config_option(key) for key in options}
        pyogrio.set_gdal_config_options(dict(options))
        try:
            yield
        finally:
            pyogrio.set_gdal_config_options(before)


@contextmanager
def _located(path: str) -> Iterator[str]:
    """Yield the name by which GDAL opens a file; bzip2 is unpacked to a copy."""
    is_local = not path.startswith("/vsi") and "://" not in path
    if is_local and not os.path.exists(path):
        raise InputError(f"{path}: no such file.")
    lower = path.lower()
    if lower.endswith((".bz2", ".osm.gz")) and is_local:
        opened: Any = bz2 if lower.endswith(".bz2") else gzip
        with tempfile.TemporaryDirectory(prefix="rsupres-map-") as folder:
            plain = Path(folder) / Path(path).with_suffix("").name
            try:
                with opened.open(path) as packed, plain.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1 << 20)
            except (OSError, EOFError) as error:
                raise InputError(
                    f"{path}: cannot be unpacked ({error}); copy or download it again."
                ) from error
            yield str(plain)
        return
    prefix = next((p for end, p in PACKED.items() if lower.endswith(end)), "")
    yield f"{prefix}{os.path.abspath(path)}" if is_local and prefix else path


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what}: its text is not in the encoding that it names ({error.reason}); "
            "for a Shapefile, name another one in a .cpg file beside it, such as "
            "ISO-8859-1."
        ) from error
    except (*READ_ERRORS, PyogrioCRSError) as error:
        raise _unreadable(what, error) from error


def _unreadable(what: str, error: Exception) -> InputError:
    reason = " ".join(str(error).splitlines()[0].split())
    if re.search(r"not recognized as being in a supported file format", reason):
        return InputError(
            f"{what}: not a vector file that GDAL can read; use .osm.pbf, .osm, "
            ".osm.bz2, .gpkg, .geojson, .geojsonl, .fgb, .shp or .parquet."
        )
    return InputError(
        f"{what}: cannot be read, it may be truncated or damaged "
        f"({reason.rstrip('.')})."
    )
