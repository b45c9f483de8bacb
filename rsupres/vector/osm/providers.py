"""Know the layers of Geofabrik's and BBBike's files, and their values as OSM tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

GEOFABRIK_KEYS = {
    "buildings": "building",
    "roads": "highway",
    "railways": "railway",
    "waterways": "waterway",
    "water": "natural",
    "natural": "natural",
    "landuse": "landuse",
    "pois": "amenity",
    "traffic": "amenity",
    "transport": "amenity",
}
# Layers of BBBike's shapefiles: the key whose value `type` holds, and common values of
# it, by which such a column is known.
BBBIKE_LAYERS: Mapping[str, tuple[str, frozenset[str]]] = {
    "buildings": (
        "building",
        frozenset(
            {
                *("yes", "house", "residential", "apartments", "garage", "garages"),
                *("commercial", "industrial", "retail", "school", "church", "shed"),
                *("detached", "terrace", "hut", "roof", "office", "university"),
            }
        ),
    ),
    "roads": (
        "highway",
        frozenset(
            {
                *("motorway", "trunk", "primary", "secondary", "tertiary", "service"),
                *("unclassified", "residential", "living_street", "pedestrian"),
                *("track", "footway", "cycleway", "path", "steps", "motorway_link"),
            }
        ),
    ),
    "railways": (
        "railway",
        frozenset({"rail", "tram", "subway", "light_rail", "narrow_gauge", "disused"}),
    ),
    "waterways": (
        "waterway",
        frozenset({"river", "stream", "canal", "drain", "ditch", "riverbank"}),
    ),
    "natural": (
        "natural",
        frozenset({"water", "forest", "wood", "park", "riverbank", "wetland"}),
    ),
    "landuse": (
        "landuse",
        frozenset(
            {
                *("residential", "forest", "farmland", "grass", "meadow", "industrial"),
                *("commercial", "cemetery", "retail", "allotments", "farm"),
            }
        ),
    ),
}
# Pairs of key and value that stand for another tag.
SHORT_TAGS = {
    ("building", "building"): ("building", "yes"),
    ("natural", "reservoir"): ("natural", "water"),
    ("natural", "river"): ("natural", "water"),
    ("natural", "dock"): ("natural", "water"),
    ("natural", "riverbank"): ("natural", "water"),
    ("natural", "forest"): ("landuse", "forest"),
    ("natural", "park"): ("leisure", "park"),
    ("landuse", "park"): ("leisure", "park"),
    ("landuse", "nature_reserve"): ("leisure", "nature_reserve"),
    ("landuse", "scrub"): ("natural", "scrub"),
    ("landuse", "heath"): ("natural", "heath"),
    ("amenity", "pitch"): ("leisure", "pitch"),
    ("amenity", "playground"): ("leisure", "playground"),
    ("amenity", "park"): ("leisure", "park"),
    ("amenity", "swimming_pool"): ("leisure", "swimming_pool"),
}


def geofabrik_key(layer: str, path: str) -> str | None:
    """Return the key of a layer of Geofabrik, such as gis_osm_roads_free_1.

    Args:
        layer: name of the layer.
        path: of the file, which may name the layer instead.
    """
    for text in (layer, Path(path).stem):
        found = re.search(r"(?:^|_)osm_([a-z]+?)(?:_a)?(?:_free|_\d|$)", text.lower())
        if found and found[1] in GEOFABRIK_KEYS:
            return GEOFABRIK_KEYS[found[1]]
    return None
