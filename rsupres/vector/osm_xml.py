"""Leave deleted objects out of OSM XML, and count areas that the extract cuts off.

GDAL's driver draws objects that an editor marked as deleted (`action="delete"`) or that
are invisible in a history (`visible="false"`), and passes over relations of which a way
is missing.
"""

from __future__ import annotations

import logging
import mmap
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_BYTES = 1 << 29  # of a file in which members of relations are looked for
_QUOTE = rb"[\"']"
_DELETED = re.compile(
    rb"<(node|way|relation)\b[^>]*?\s(?:visible=%bfalse|action=%bdelete)%b[^>]*>"
    % (_QUOTE, _QUOTE, _QUOTE)
)
_WAY = re.compile(rb"<way\b[^>]*?\sid=%b(-?\d+)%b" % (_QUOTE, _QUOTE))
_RELATION = re.compile(rb"<relation\b[^>]*[^/]>.*?</relation>", re.DOTALL)
_MEMBER = re.compile(rb"<member\b[^>]*>")
_REF = re.compile(rb"\sref=%b(-?\d+)%b" % (_QUOTE, _QUOTE))
_IS_WAY = re.compile(rb"\stype=%bway%b" % (_QUOTE, _QUOTE))
_IS_AREA = re.compile(rb"\sv=%b(?:multipolygon|boundary)%b" % (_QUOTE, _QUOTE))


@contextmanager
def checked_osm(name: str, path: str) -> Iterator[str]:
    """Yield OSM XML without deleted objects: the file itself, or a copy.

    Warns of areas that lack members.

    Args:
        name: that opens the file; other formats are yielded as they are.
        path: as the user named it.
    """
    file = Path(name)
    if file.suffix.lower() != ".osm" or not file.is_file() or not file.stat().st_size:
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="rsupres-osm-") as folder:
        copy = Path(folder) / file.name
        n_deleted = _without_deleted(file, copy)
        kept = copy if n_deleted else file
        if n_deleted:
            logger.info("%s: %d deleted objects are left out.", path, n_deleted)
        n_cut = _count_cut_areas(kept)
        if n_cut:
            logger.warning(
                "%s: %d areas (relations) lack members, as at the border of an "
                "extract, and are not drawn.",
                path,
                n_cut,
            )
        yield str(kept)


def _without_deleted(file: Path, copy: Path) -> int:
    """Write a file without its deleted objects, if it has any; return how many."""
    n_deleted = 0
    with file.open("rb") as source, _mapped(source.fileno()) as text:
        if _DELETED.search(text) is None:
            return 0
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
            source.seek(at)
            shutil.copyfileobj(source, target, 1 << 20)
    return n_deleted


def _count_cut_areas(file: Path) -> int:
    """Return how many relations that are areas refer to ways that are not there."""
    if not 0 < file.stat().st_size <= MAX_BYTES:
        return 0
    n_cut = 0
    with file.open("rb") as source, _mapped(source.fileno()) as text:
        ways = {int(found[1]) for found in _WAY.finditer(text)}
        for relation in _RELATION.finditer(text):
            if _IS_AREA.search(relation[0]):
                members = [m for m in _MEMBER.findall(relation[0]) if _IS_WAY.search(m)]
                refs = {int(ref[1]) for m in members if (ref := _REF.search(m))}
                n_cut += not refs <= ways
    return n_cut


@contextmanager
def _mapped(number: int) -> Iterator[mmap.mmap]:
    with mmap.mmap(number, 0, access=mmap.ACCESS_READ) as text:
        yield text
