"""Write a town's shapes as an OpenStreetMap document: true geometry, usual tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import quoteattr

from rasterio.crs import CRS
from rasterio.warp import transform as reproject
from shapely.geometry import LineString, Point, Polygon, box
from shapely.geometry.base import BaseGeometry
from shapely.ops import nearest_points
from town_shapes import Building, Patch, Road, Town, lines, polygons

Tags = Mapping[str, str]
FIELD_TAGS = {
    "meadow": {"landuse": "meadow"},
    "mown meadow": {"landuse": "meadow"},
    "orchard": {"landuse": "orchard"},
}
PATCH_TAGS: dict[str, Tags] = {
    "pitch": {"leisure": "pitch", "sport": "soccer", "surface": "grass"},
    "tartan": {"leisure": "track", "sport": "athletics", "surface": "tartan"},
    "pond": {"natural": "water", "water": "pond"},
    "parking": {"amenity": "parking", "surface": "asphalt"},
    "square": {"place": "square", "name": "Market Square"},
    "pool": {"leisure": "swimming_pool"},
    "felled": {"landuse": "forest", "forestry": "clearcut"},
}
BUILDING_TAGS: dict[str, Tags] = {
    "house": {"building": "house"},
    "row": {"building": "terrace"},
    "apartments": {"building": "apartments"},
    "industrial": {"building": "industrial"},
    "garage": {"building": "garage"},
    "shed": {"building": "shed"},
    "barn": {"building": "farm_auxiliary"},
    "church": {
        "building": "church",
        "amenity": "place_of_worship",
        "name": "Saint Mary",
    },
    "school": {"building": "school"},
}


def osm_document(
    town: Town,
    crs: CRS,
    origin: tuple[float, float],
    edge: tuple[float, float, float, float],
) -> str:
    """Return the OSM XML of a town: sorted ids, no dates, 7 decimals of a degree.

    Args:
        town: what to map, usually `Town.now`.
        crs: of the ground that the town is put on.
        origin: where the lower left corner of the town's square lies in it.
        edge: bounds in local metres; features that touch them are kept whole.

    Returns:
        The document, with a line break after each element.
    """
    frame = box(*edge)
    features = [(g, t) for g, t in _features(town) if g.intersects(frame)]
    numbers: dict[tuple[float, float], int] = {}
    ways: list[str] = []
    for number, (shape, tags) in enumerate(features):
        ways.append(f' <way id="{number + 1}">')
        for xy in shape.coords:
            point = (round(xy[0], 2), round(xy[1], 2))
            ref = numbers.setdefault(point, len(numbers) + 1)
            ways.append(f'  <nd ref="{ref}"/>')
        for key, value in tags.items():
            ways.append(f"  <tag k={quoteattr(key)} v={quoteattr(value)}/>")
        ways.append(" </way>")
    lons, lats = reproject(
        crs,
        CRS.from_epsg(4326),
        [origin[0] + x for x, _ in numbers],
        [origin[1] + y for _, y in numbers],
    )
    nodes = [
        f' <node id="{i + 1}" lat="{lat:.7f}" lon="{lon:.7f}"/>'
        for i, (lon, lat) in enumerate(zip(lons, lats, strict=True))
    ]
    head = ['<?xml version="1.0" encoding="UTF-8"?>', '<osm version="0.6">']
    return "\n".join([*head, *nodes, *ways, "</osm>", ""])


def _features(town: Town) -> Iterator[tuple[LineString, Tags]]:
    """Yield lines and closed rings with their tags."""
    for line in lines(town.river_line.simplify(0.5)):
        yield line, {"waterway": "river", "name": "Lauter"}
    yield from _rings(town.river.simplify(0.5), {"natural": "water", "water": "river"})
    joined = _with_junctions(town.roads)
    for road, line in zip(town.roads, joined, strict=True):
        yield from _road_parts(road, line, town.river)
    for part in polygons(town.built_up):
        yield from _rings(part.simplify(1), {"landuse": "residential"})
    for parcel in town.fields:
        tags = FIELD_TAGS.get(parcel.crop, {"landuse": "farmland"})
        yield from _rings(parcel.polygon.simplify(0.6), tags)
    for wood in town.woods:
        yield from _rings(wood.polygon.simplify(1), {"landuse": "forest"})
    for patch in town.patches:
        yield from _patch(patch)
    for building in town.buildings:
        yield from _rings(building.footprint(), _building_tags(building))


def _rings(shape: BaseGeometry, tags: Tags) -> Iterator[tuple[LineString, Tags]]:
    for part in polygons(shape):
        yield LineString(part.exterior.coords), tags


def _patch(patch: Patch) -> Iterator[tuple[LineString, Tags]]:
    if patch.surface in PATCH_TAGS:
        yield from _rings(patch.polygon.simplify(0.4), PATCH_TAGS[patch.surface])


def _building_tags(building: Building) -> Tags:
    main = max(building.parts, key=lambda part: part.half_length * part.half_width)
    top = max(p.eave + (p.half_width * p.pitch) for p in building.parts)
    tags = dict(BUILDING_TAGS[building.kind])
    if building.kind not in ("garage", "shed"):
        tags["height"] = f"{top:.1f}"
        tags["roof:shape"] = main.shape
    if building.era == "new":
        tags["start_date"] = "2021"
    return tags


def _road_parts(
    road: Road, line: LineString, river: Polygon
) -> Iterator[tuple[LineString, Tags]]:
    """Yield a road cut at the river banks, the piece over water as a bridge."""
    tags = {"highway": road.kind, "width": f"{road.width:g}"}
    if road.name:
        tags["name"] = road.name
    tags["surface"] = "gravel" if road.kind == "track" else "asphalt"
    span = river.buffer(5, 4)
    if not line.intersects(span):
        yield line, tags
        return
    for part in lines(line.difference(span)):
        yield part, tags
    for part in lines(line.intersection(span)):
        yield part, {**tags, "bridge": "yes", "layer": "1"}


def _with_junctions(roads: tuple[Road, ...]) -> list[LineString]:
    """Return the centre lines with a vertex wherever they meet another one."""
    joined = []
    for road in roads:
        marks: list[Point] = []
        for other in roads:
            if other is road or road.line.distance(other.line) > 3:
                continue
            crossing = road.line.intersection(other.line)
            marks += [Point(p.coords[0]) for p in _points(crossing)]
            for end in (other.line.coords[0], other.line.coords[-1]):
                if 0 < road.line.distance(Point(end)) < 3:
                    marks.append(nearest_points(road.line, Point(end))[0])
        kept = list(road.line.simplify(0.25).coords)
        joined.append(_with_vertices(road.line, kept, marks))
    return joined


def _points(shape: BaseGeometry) -> Iterator[Point]:
    if isinstance(shape, Point):
        if not shape.is_empty:
            yield shape
    elif hasattr(shape, "geoms"):
        for part in shape.geoms:
            yield from _points(part)


def _with_vertices(
    line: LineString, kept: Sequence[tuple[float, ...]], marks: list[Point]
) -> LineString:
    """Return a line through vertices that are kept and marks, in order, none twice."""
    along = {round(line.project(Point(xy)), 2): (xy[0], xy[1]) for xy in kept}
    for mark in marks:
        along[round(line.project(mark), 2)] = (round(mark.x, 2), round(mark.y, 2))
    return LineString([along[at] for at in sorted(along)])
