"""Tell the outlines of closed ways from areas, as OpenStreetMap means them.

A closed way with `natural=tree_row` or `leisure=track` is a line that returns to its
start, unless `area=yes` says more. When another tag makes the same way an area, as in
`landuse=farmland` with `natural=tree_row`, it is both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import shapely
from numpy.typing import NDArray

from rsupres.legends.legend import DRAWING_KEYS
from rsupres.vector.features import Features
from rsupres.vector.osm.tags import LINE_KEY_AREAS, LINE_KEYS

# Values of lines among keys of areas.
LINE_VALUES: Mapping[str, frozenset[str]] = {
    "natural": frozenset({"coastline", "cliff", "ridge", "arete", "tree_row"}),
    "leisure": frozenset({"track", "slipway"}),
    "man_made": frozenset({"cutline", "dyke", "embankment", "groyne", "pipeline"}),
    "power": frozenset({"line", "minor_line", "cable"}),
}
_AREA_TYPES = (3, 6)  # of shapely
Tags = Mapping[str, NDArray[np.object_]]


def with_rings(features: Features) -> Features:
    """Return features of a layer in which closed ways that are lines are lines.

    A way that is an area by another tag stays an area without the tags of lines, and
    its outline is added with them.
    """
    if features.is_way is None or not features.is_way.any():
        return features
    tags = features.tags
    keys = {key for key in (*LINE_KEYS, *LINE_VALUES) if key in tags}
    area = tags.get("area", np.full(len(features.wkb), None, object))
    rings: dict[int, set[str]] = {}
    for key in keys:
        for index in np.flatnonzero(features.is_way & (tags[key] != None)):  # noqa: E711
            if is_line(key, str(tags[key][index])) and area[index] != "yes":
                rings.setdefault(int(index), set()).add(key)
    shapes = shapely.from_wkb(features.wkb[list(rings)], on_invalid="ignore")
    rings = {
        index: rings[index]
        for index, kind in zip(rings, shapely.get_type_id(shapes), strict=True)
        if kind in _AREA_TYPES  # None has type -1
    }
    return _split(features, rings) if rings else features


def is_line(key: str, value: str) -> bool:
    """Return whether a closed way with a tag is a line without `area=yes`.

    Args:
        key: of the tag.
        value: of the tag.
    """
    if key in LINE_KEYS:
        return value != "no" and value not in LINE_KEY_AREAS.get(key, ())
    return value in LINE_VALUES.get(key, ())


def _split(features: Features, rings: Mapping[int, set[str]]) -> Features:
    """Return features with outlines for the tags of lines."""
    tags = {key: values.copy() for key, values in features.tags.items()}
    wkb = features.wkb.copy()
    both: list[int] = []
    of_line = {key: np.full(len(wkb), None, object) for key in tags}
    for index, keys in rings.items():
        if all(tags[k][index] is None for k in tags.keys() - keys - {*DRAWING_KEYS}):
            wkb[index] = _outline(wkb[index])
            continue
        both.append(index)
        for key in tags:
            if key in DRAWING_KEYS:
                of_line[key][index] = tags[key][index]
            elif key in keys:
                if key != "waterway" or not _is_water(tags, index):
                    of_line[key][index] = tags[key][index]
                tags[key][index] = None
    lines = np.empty(len(both), object)
    lines[:] = [_outline(wkb[index]) for index in both]
    return Features(
        features.name,
        features.crs,
        np.concatenate([wkb, lines]),
        {key: np.concatenate([tags[key], of_line[key][both]]) for key in tags},
        features.extent,
        features.boxes,
    )


def _outline(wkb: bytes) -> bytes:
    """Return the outer rings of a polygon as lines."""
    polygons = shapely.get_parts(shapely.from_wkb(wkb, on_invalid="ignore"))
    rings = [shapely.get_coordinates(shapely.get_exterior_ring(p)) for p in polygons]
    return bytes(shapely.to_wkb(shapely.MultiLineString(rings)))


def _is_water(tags: Tags, index: int) -> bool:
    """Return whether a way is a lake; its outline is then no river."""
    natural = tags.get("natural")
    return natural is not None and natural[index] == "water"
