"""Leave deleted objects out of OSM files, refuse histories, count areas cut off.

GDAL's driver draws objects that an editor marked as deleted (`action="delete"`) or that
are invisible (`visible="false"`), draws every version of an object in a history, and
passes over relations of which a way is missing, and over nodes missing of a way.
"""

from __future__ import annotations

import logging
import mmap
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rsupres.errors import InputError

if TYPE_CHECKING:
    from osmium.index import LocationTable

logger = logging.getLogger(__name__)

# Files of changes and histories, by the end of their names; .gz and .bz2 may follow.
HISTORY_SUFFIXES = (".osc", ".osh", ".osh.pbf", ".osh.xml")
AREA_TYPES = (("type", "multipolygon"), ("type", "boundary"))
_QUOTE = rb"[\"']"
_DELETED = re.compile(
    rb"<(node|way|relation)\b[^>]*?\s(?:visible=%bfalse|action=%bdelete)%b[^>]*>"
    % (_QUOTE, _QUOTE, _QUOTE)
)
_OBJECT = re.compile(
    rb"<(node|way|relation)\b[^>]*?\sid=%b(-?\d+)%b" % (_QUOTE, _QUOTE)
)
_LARGE = 1 << 28  # bytes of a file; PBF of a country, XML of a city
_CHANGES = re.compile(rb"<osmChange\b")


@contextmanager
def checked_osm(name: str, path: str, keys: Collection[str]) -> Iterator[str]:
    """Yield an OSM file without deleted objects: the file itself, or a copy.

    A warning counts areas that lack members, and ways that lack nodes.

    Args:
        name: that opens the file; what only GDAL opens is yielded as it is.
        path: as the user named it.
        keys: of tags; areas and ways with none of them are not counted.

    Raises:
        InputError: the file holds a history or changes.
    """
    file = Path(name)
    if not file.is_file() or not file.stat().st_size:
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="rsupres-osm-") as folder:
        kept = file
        if file.suffix.lower() == ".osm":
            kept = _current(file, Path(folder) / file.name, path)
        elif _has_versions(file):
            raise history_error(path)
        n_cut = _count_cut_areas(kept, set(keys))
        if n_cut:
            logger.warning(
                "%s: %d areas (relations) lack members, as at the border of an "
                "extract, and are not drawn.",
                path,
                n_cut,
            )
        n_cut = _count_cut_ways(kept, set(keys))
        if n_cut:
            logger.warning(
                "%s: %d ways lack nodes, as at the border of an extract, and are drawn "
                "without them, which moves their lines and corners.",
                path,
                n_cut,
            )
        yield str(kept)


def is_history(path: str) -> bool:
    """Return whether a file is one of OSM changes or a history, by its name.

    >>> is_history("town.osh.pbf"), is_history("day.osc.gz"), is_history("town.osm")
    (True, True, False)
    """
    name = path.lower().removesuffix(".gz").removesuffix(".bz2")
    return name.endswith(HISTORY_SUFFIXES)


def history_error(path: str) -> InputError:
    """Return the error of a file that holds more than one state of the map."""
    return InputError(
        f"{path}: holds a history or changes of OpenStreetMap, not one state of the "
        "map; make an extract of one date, for example with "
        "osmium time-filter HISTORY 2026-01-01T00:00:00Z -o EXTRACT.osm.pbf."
    )


def _current(file: Path, copy: Path, path: str) -> Path:
    """Return OSM XML without deleted objects, file or copy; refuse histories."""
    with file.open("rb") as source, _mapped(source.fileno()) as text:
        if _CHANGES.search(text[:4096]):
            raise history_error(path)
        n_deleted = _without_deleted(text, copy)
    kept = copy if n_deleted else file
    with kept.open("rb") as source, _mapped(source.fileno()) as text:
        last = None
        for found in _OBJECT.finditer(text):
            if last == (last := found.groups()):  # versions follow one another
                raise history_error(path)
    if n_deleted:
        logger.info("%s: %d deleted objects are left out.", path, n_deleted)
    return kept


def _without_deleted(text: mmap.mmap, copy: Path) -> int:
    """Write a file without its deleted objects, if it has any; return how many."""
    if _DELETED.search(text) is None:
        return 0
    n_deleted = 0
    with copy.open("wb") as target:
        at = 0
        for found in _DELETED.finditer(text):
            if found.start() < at:
                continue  # inside of an object that is left out
            target.write(text[at : found.start()])
            at = found.end()
            if not found[0].endswith(b"/>"):
                end = b"</%b>" % found[1]
                at = text.find(end, at) + len(end)
            n_deleted += 1
        text.seek(at)
        shutil.copyfileobj(text, target, 1 << 20)
    return n_deleted


def _has_versions(file: Path) -> bool:
    """Return whether the header of a PBF file says that it is a history."""
    import osmium

    try:
        with osmium.io.Reader(str(file), osmium.osm.NOTHING) as reader:
            return bool(reader.header().has_multiple_object_versions)
    except RuntimeError:  # damaged: GDAL's message says so
        return False


def _count_cut_areas(file: Path, keys: set[str]) -> int:
    """Return how many areas with one of the keys refer to ways that are not there."""
    import osmium

    try:
        relations = osmium.FileProcessor(str(file), osmium.osm.RELATION)
        areas = [
            {member.ref for member in area.members if member.type == "w"}
            for area in relations.with_filter(osmium.filter.TagFilter(*AREA_TYPES))
            if isinstance(area, osmium.osm.Relation)
            and keys.intersection(tag.k for tag in area.tags)
        ]
        if not areas:
            return 0
        ways = osmium.FileProcessor(str(file), osmium.osm.WAY)
        wanted = osmium.filter.IdFilter(set[int]().union(*areas))
        there = {way.id for way in ways.with_filter(wanted)}
    except RuntimeError:  # damaged: GDAL's message says so
        return 0
    return sum(not members <= there for members in areas)


def _count_cut_ways(file: Path, keys: set[str]) -> int:
    """Return how many ways with a key lack nodes; 0 for a file above `_LARGE`."""
    import osmium

    if file.stat().st_size > _LARGE:
        return 0
    nodes = osmium.index.create_map("flex_mem")
    try:
        # It fails at the first node that is missing or new (with a number below 0).
        handler = osmium.NodeLocationsForWays(nodes)
        for kind in (osmium.osm.NODE, osmium.osm.WAY):  # in a file, ways may come first
            with osmium.io.Reader(str(file), kind) as reader:
                osmium.apply(reader, handler)
    except KeyError:
        pass
    except RuntimeError:  # damaged: GDAL's message says so
        return 0
    else:
        return 0
    ways = osmium.FileProcessor(str(file), osmium.osm.WAY)
    return sum(
        any(node.ref > 0 and not _is_known(nodes, node.ref) for node in way.nodes)
        for way in ways.with_filter(osmium.filter.KeyFilter(*keys))
        if isinstance(way, osmium.osm.Way)
    )


def _is_known(nodes: LocationTable, number: int) -> bool:
    """Return whether a node has a place."""
    try:
        return bool(nodes.get(number).valid())
    except KeyError:
        return False


@contextmanager
def _mapped(number: int) -> Iterator[mmap.mmap]:
    with mmap.mmap(number, 0, access=mmap.ACCESS_READ) as text:
        yield text
