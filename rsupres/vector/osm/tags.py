"""Find OSM tags in the columns of a vector file.

They are in columns named like tags, in GDAL's `other_tags` and in maps of tags, or in
Geofabrik's `fclass` and BBBike's `type`. A layer without any of these is taken by a
whole word of its name, with a warning: a layer called buildings holds buildings. GDAL's
OSM driver is configured here too, for the tags that are wanted.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsupres.legends.legend import DRAWING_KEYS
from rsupres.vector.osm.providers import BBBIKE_LAYERS, SHORT_TAGS, geofabrik_key

logger = logging.getLogger(__name__)

Columns = dict[str, NDArray[np.object_]]
# Keys that say what a feature is, for the count of features that are in no class.
MAIN_KEYS = (
    *("building", "highway", "railway", "waterway", "natural", "landuse", "leisure"),
    *("amenity", "aeroway", "man_made", "power", "barrier", "place", "tourism", "shop"),
    *("historic", "office", "aerialway", "boundary", "public_transport"),
)
MAPS_OF_TAGS = ("other_tags", "all_tags", "tags")
# Keys of lines: a closed way with one of them is a ring unless a value says more.
LINE_KEYS = frozenset(
    {"highway", "railway", "waterway", "barrier", "aeroway", "public_transport"}
)
LINE_KEY_AREAS = {
    "highway": ("platform", "services", "rest_area"),
    "railway": ("platform", "station", "turntable"),
    "waterway": ("riverbank", "dock", "boatyard"),
    "aeroway": ("aerodrome", "apron", "hangar", "helipad", "runway", "terminal"),
    "public_transport": ("platform", "station"),
}
# Words, singular, that say what a layer without tags holds.
NAMED_LAYERS: Mapping[tuple[str, str], frozenset[str]] = {
    ("building", "yes"): frozenset({"building", "footprint"}),
    ("railway", "rail"): frozenset({"rail", "railway", "railroad"}),
    ("highway", "road"): frozenset({"road", "street", "highway"}),
    ("waterway", "river"): frozenset({"river", "stream", "waterway"}),
    ("natural", "water"): frozenset({"water", "waterbody", "lake", "pond"}),
    ("landuse", "forest"): frozenset({"forest", "wood", "woodland", "tree"}),
}
# Words, singular, that follow the name of a water or a road when a layer holds other
# things: lake district, road sign, Salt Lake county parcels.
OTHER_LAYERS = frozenset(
    {
        *("address", "basin", "block", "border", "boundary", "catchment", "census"),
        *("contour", "county", "crossing", "district", "fire", "flood", "gauge"),
        *("inventory", "light", "limit", "main", "meter", "park", "parcel", "permit"),
        *("plan", "plot", "precinct", "project", "quality", "service", "shed", "sign"),
        *("station", "tenure", "trail", "ward", "zone", "zoning"),
    }
)
# Values of flag columns that mean no: `bridge=F` of Geofabrik, 0, boolean columns.
NO_VALUES = frozenset(
    {
        *("0", "0.0", "f", "false", "n", "no", "none", "off", "nein"),
        *("", "null", "<null>", "nan", "n/a"),  # exports of missing values
    }
)
_NUMBER_KEYS = frozenset({"layer", "width", "lanes", "level"})
_WAY_COLUMNS = ("osm_way_id", "element", "element_type", "osm_type")
_HSTORE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*=>\s*(?:"((?:[^"\\]|\\.)*)"|NULL)')
_MAX_DBASE_NAME = 10  # letters of a column's name in a shapefile


class TagReader:
    """Finds tags among the columns of one layer.

    Args:
        keys: the tags that are wanted.
        fields: the layer's columns.
        layer: its name.
        path: the file's name.
    """

    def __init__(
        self, keys: Collection[str], fields: Sequence[str], layer: str, path: str
    ) -> None:
        self._keys = sorted({*keys, *MAIN_KEYS})
        self._is_short = path.lower().endswith((".shp", ".dbf", ".zip"))
        self._where = f"{path}, layer {layer}"
        self._is_short &= max(map(len, fields), default=0) <= _MAX_DBASE_NAME
        self._fields = fields
        found = {key: self._field_of(key) for key in self._keys}
        self._by_key = {key: field for key, field in found.items() if field}
        named = {self._plain(field): field for field in fields}
        self._maps = [named[name] for name in MAPS_OF_TAGS if name in named]
        self._fclass = named.get("fclass")
        self._way = next((named[name] for name in _WAY_COLUMNS if name in named), None)
        self._theme = geofabrik_key(layer, path)
        has_tags = bool(
            set(self._by_key) - set(DRAWING_KEYS) or self._maps or self._fclass
        )
        names = (layer.lower(), Path(path).stem.lower())
        of_names = (BBBIKE_LAYERS[name] for name in names if name in BBBIKE_LAYERS)
        self._bbbike = None if has_tags else next(of_names, None)
        self._type = named.get("type") if self._bbbike else None
        self._guess = None
        if not has_tags:
            guess = _by_name(layer, path)
            self._guess = guess if guess and guess[0] in keys else None

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        extra = [name for name in (self._fclass, self._type, self._way) if name]
        return list(dict.fromkeys([*self._by_key.values(), *self._maps, *extra]))

    def tags(
        self, fields: Sequence[str], columns: Sequence[NDArray[Any]], n: int
    ) -> Columns:
        """Return tags of features that were read: key -> (n,) texts, None without tag.

        Args:
            fields: names of the columns that were read.
            columns: their values, (n,) each.
            n: number of features.
        """
        read = dict(zip(fields, columns, strict=True))
        tags = {key: np.full(n, None, object) for key in self._keys}
        for key, field in self._by_key.items():
            if field in read:
                tags[key] = _texts(read[field])
        for field in self._maps:
            _spread(tags, read.get(field))
        if self._fclass in read and self._theme:
            self._spread_classes(tags, _texts(read[self._fclass]), self._theme)
        elif self._type in read and self._spread_types(tags, _texts(read[self._type])):
            return tags
        if self._guess and n:
            key, value, word = self._guess
            logger.warning(
                "%s: has no columns of OpenStreetMap tags; %d features are taken as "
                "%s=%s, because its name has the word %s. If they are something else, "
                "leave the layer out or rename it.",
                self._where,
                n,
                key,
                value,
                word,
            )
            tags[key] = np.full(n, value, object)
        return tags

    def closed_ways(
        self, fields: Sequence[str], columns: Sequence[NDArray[Any]], n: int
    ) -> NDArray[np.bool_]:
        """Return which features are ways of OpenStreetMap, as far as the file says.

        Args:
            fields: names of the columns that were read.
            columns: their values, (n,) each.
            n: number of features.
        """
        read = dict(zip(fields, columns, strict=True))
        if self._way is None or self._way not in read:
            return np.zeros(n, bool)
        values = _texts(read[self._way])
        if self._way.lower() == "osm_way_id":
            return np.array([value is not None for value in values], bool)
        return np.array([str(v).lower() in ("way", "w") for v in values], bool)

    def _field_of(self, key: str) -> str | None:
        """Return the column of a key, None where there is none or several may be it."""
        if key in self._fields:
            return key
        plain = self._plain(key)
        found = [field for field in self._fields if self._plain(field) == plain]
        if self._is_short and len(key) > _MAX_DBASE_NAME:
            cut = re.compile(
                f"{re.escape(plain[:8])}_\\d|{re.escape(plain[:7])}_\\d\\d"
            )
            found += [f for f in self._fields if cut.fullmatch(f.lower())]
        if len(found) > 1:
            logger.warning(
                "%s: %s may be any of the columns %s, whose names the format cut; none "
                "is used. Name the column as the file has it.",
                self._where,
                key,
                ", ".join(found),
            )
            return None
        return found[0] if found else None

    def _plain(self, name: str) -> str:
        plain = name.lower().replace(":", "_")
        return plain[:_MAX_DBASE_NAME] if self._is_short else plain

    def _spread_types(self, tags: Columns, types: NDArray[np.object_]) -> bool:
        """Fill tags from BBBike's `type`, if half of it is common; return whether."""
        assert self._bbbike is not None
        key, common = self._bbbike
        given = [value for value in types if value is not None]
        if 2 * sum(value in common for value in given) < max(len(given), 1):
            return False
        if key == "building":  # one without a type is a building, too
            types = np.array([value or "yes" for value in types], object)
        self._spread_classes(tags, types, key)
        return True

    @staticmethod
    def _spread_classes(tags: Columns, classes: NDArray[np.object_], key: str) -> None:
        """Fill the tag of a layer from a column of its values."""
        for index, value in enumerate(classes):
            if value is None:
                continue
            pair = (key, re.sub(r"^track_grade\d$", "track", value))
            tag, text = SHORT_TAGS.get(pair, pair)
            if tag in tags and tags[tag][index] is None:
                tags[tag][index] = text


def osm_configuration(keys: Collection[str], areas: Collection[str]) -> str:
    """Return an osmconf.ini: the tags that GDAL's driver reports, and keys of areas.

    Args:
        keys: the tags that are wanted.
        areas: `key` or `key=value` whose closed ways are areas.
    """
    attributes = ",".join(sorted({*keys, *MAIN_KEYS}))
    lines = [
        f"closed_ways_are_polygons={','.join(sorted(areas))}",
        "attribute_name_laundering=no",
    ]
    for layer in ("points", "lines", "multipolygons", "multilinestrings"):
        used = layer in ("lines", "multipolygons")
        lines += [
            f"[{layer}]",
            # Its `osm_way_id` tells closed ways from relations.
            f"osm_id={'yes' if layer == 'multipolygons' else 'no'}",
            f"attributes={attributes}" if used else "attributes=name",
            "other_tags=no",
        ]
    lines += ["[other_relations]", "osm_id=no", "attributes=name", "other_tags=no"]
    return "\n".join([*lines, ""])


def osm_areas(wanted: Collection[str]) -> set[str]:
    """Return tags that make a closed way of wanted keys an area, for osmconf.ini."""
    areas = {key for key in wanted if key not in LINE_KEYS}
    for key, values in LINE_KEY_AREAS.items():
        areas |= {f"{key}={value}" for value in values}
    return areas


def plain_flags(tags: Mapping[str, NDArray[np.object_]]) -> Columns:
    """Return tags in which 0, F, N and False are "no"; numbers stay."""
    import pandas as pd

    plain = dict(tags)
    for key, column in tags.items():
        if key in _NUMBER_KEYS or not len(column):
            continue
        codes, values = pd.factorize(column)  # None becomes -1
        means_no = [str(v).strip().lower() in NO_VALUES for v in values]
        is_no = np.array([*means_no, False], bool)[codes]
        if is_no.any():
            plain[key] = np.where(is_no, "no", column)
    return plain


def _by_name(layer: str, path: str) -> tuple[str, str, str] | None:
    """Return key, value and the word of a layer's or file's name that says so."""
    for text in (layer, Path(path).stem):
        words = [_singular(word) for word in _words(text)]
        for (key, value), known in NAMED_LAYERS.items():
            for place, word in enumerate(words):
                if word in known and not OTHER_LAYERS.intersection(words[place:]):
                    return key, value, word
    return None


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case: US_BuildingFootprints2 has three."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.lower() for word in re.split(r"[\W\d_]+", spaced) if word]


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word if word.endswith("ss") else word.removesuffix("s")


def _texts(column: NDArray[Any]) -> NDArray[np.object_]:
    """Return a column as texts, None where it is missing or empty."""
    texts = np.full(len(column), None, object)
    if column.dtype.kind in "fc":
        for place in np.flatnonzero(np.isfinite(column)):
            texts[place] = f"{column[place]:g}"
        return texts
    for index, value in enumerate(column):
        if value is not None and value == value and value != "":
            texts[index] = str(value)
    return texts


def _spread(tags: Columns, column: NDArray[Any] | None) -> None:
    """Fill tags from a column of maps; tags from columns of their own stay."""
    if column is None:
        return
    for index, value in enumerate(column):
        for key, text in _pairs(value).items():
            if key in tags and tags[key][index] is None and text:
                tags[key][index] = text


def _pairs(value: object) -> Mapping[str, str]:
    """Return the tags of an hstore, JSON or map value."""
    if isinstance(value, Mapping):
        return {str(k): str(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return {str(k): str(v) for k, v in value if v is not None}
    if not isinstance(value, str):
        return {}
    if value.startswith("{"):
        try:
            return _pairs(json.loads(value))
        except ValueError:
            return {}
    return {key: re.sub(r"\\(.)", r"\1", text) for key, text in _HSTORE.findall(value)}
