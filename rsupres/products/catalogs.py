"""List the items of STAC documents: collections of items, their pages, static catalogs.

Items are named here and read by `rsupres.products.stac`; no raster is opened.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from rsupres.errors import InputError
from rsupres.products.reading import read_bytes

MAX_DOCUMENTS = 10_000  # of one collection: pages, catalogs
# A JSON file, or an item, the items or a search of an API, with the id of one item.
_NAME = re.compile(
    r".+\.(geo)?json(#[^/]*)?|https?://.*/(items(/[^/]+)?|search)(#[^/]*)?",
    re.IGNORECASE,
)


def is_stac_name(name: str) -> bool:
    """Return whether a path or address is named as STAC documents are.

    >>> is_stac_name("https://x.org/collections/s2/items?limit=9#S2A")
    True
    """
    address, mark, chosen = name.partition("#")
    return _NAME.fullmatch(address.partition("?")[0] + mark + chosen) is not None


def is_item_file(path: str) -> bool:
    """Return whether a local JSON file holds a STAC item, or a collection of items."""
    try:
        document = _read(path)
    except InputError:
        return False
    if document.get("type") == "FeatureCollection":
        features = document.get("features")
        first = features[0] if isinstance(features, list) and features else {}
        document = first if isinstance(first, Mapping) else {}
    return document.get("type") == "Feature" and "stac_version" in document


def item_names(address: str) -> list[str]:
    """Return names of the items of a STAC document at a path or URL, of all pages.

    Returns:
        Addresses of items, and ADDRESS#ID for items of a collection, in their order.

    Raises:
        InputError: a document cannot be read, is no STAC, or has a next page that
            needs more than an address.
    """
    names: list[str] = []
    waiting, seen = [address], {address}
    while waiting:
        place = waiting.pop(0)
        document = _read(place)
        kind = document.get("type")
        if kind == "Feature":
            names.append(place)
            continue
        if kind not in ("FeatureCollection", "Catalog", "Collection"):
            raise InputError(f"{place}: no STAC item, collection or catalog.")
        names += [f"{place}#{item['id']}" for item in _features(document, place)]
        further = [one for one in _further(document, place) if one not in seen]
        seen.update(further)
        waiting += further
        if len(seen) > MAX_DOCUMENTS:
            raise InputError(f"{address}: more than {MAX_DOCUMENTS} documents.")
    if not names:
        raise InputError(f"{address}: a collection without items.")
    return names


def _read(place: str) -> Mapping[str, Any]:
    try:
        document = json.loads(read_bytes(place))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: no JSON ({error}).") from error
    return document if isinstance(document, Mapping) else {}


def _features(document: Mapping[str, Any], place: str) -> list[Mapping[str, Any]]:
    """Return the items that a document holds itself."""
    features = document.get("features") or []
    if isinstance(features, list) and all(
        isinstance(item, Mapping) and "id" in item for item in features
    ):
        return features
    raise InputError(f"{place}: an item without an id.")


def _further(document: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yield the addresses of documents with more items: pages, items, catalogs."""
    is_page = document.get("type") == "FeatureCollection"
    wanted = ("next",) if is_page else ("item", "items", "child")
    links = document.get("links")
    for link in links if isinstance(links, list) else ():
        if not isinstance(link, Mapping) or not link.get("href"):
            continue
        if link.get("rel") not in wanted:
            continue
        if str(link.get("method", "GET")).upper() != "GET":
            raise InputError(
                f"{place}: its next page needs a {link['method']} request, which is "
                "not made; ask for all items in one page, for example with limit=1000."
            )
        yield _absolute(str(link["href"]), place)


def _absolute(href: str, place: str) -> str:
    """Return the address of a link in a document."""
    if urlsplit(place).scheme in ("http", "https") or "://" in href:
        return urljoin(place, href).removeprefix("file://")
    return os.path.normpath(os.path.join(os.path.dirname(place), href))
