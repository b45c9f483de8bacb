"""Translate names of files and URLs into those by which GDAL opens them."""

from __future__ import annotations

import os

# Schemes that rasterio translates for GDAL, and GDAL's own file systems.
_FILE_SYSTEMS = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "ftp": "/vsicurl/ftp://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
    "file": "",
}
_REMOTE = ("vsicurl", "vsis3", "vsigs", "vsiaz")
_ARCHIVES = {"zip": "/vsizip/", "tar": "/vsitar/", "gzip": "/vsigzip/"}


def gdal_name(name: str) -> str:
    """Return a name as GDAL itself takes it, such as inside a virtual raster.

    >>> gdal_name("https://example.org/scene.tif")
    '/vsicurl/https://example.org/scene.tif'
    >>> gdal_name("zip+https://example.org/scenes.zip!a.tif")
    '/vsizip/vsicurl/https://example.org/scenes.zip/a.tif'
    """
    schemes, found, rest = name.partition("://")
    archive, _, inner = schemes.rpartition("+")
    if inner in _ARCHIVES:
        archive, inner = inner, "file"
    if not found or inner not in _FILE_SYSTEMS or archive not in ("", *_ARCHIVES):
        return name
    if not archive:
        return _FILE_SYSTEMS[inner] + rest
    outside, _, inside = rest.partition("!")
    path = f"{outside}/{inside.lstrip('/')}" if inside else outside
    return _ARCHIVES[archive] + _FILE_SYSTEMS[inner].lstrip("/") + path


def local_name(name: str) -> str:
    """Return the name of a local file without a scheme; others unchanged.

    A whole zip is named as the file that it is, to find the product in it.

    >>> local_name("zip+file:///data/s.zip!a/B04.jp2")
    '/vsizip//data/s.zip/a/B04.jp2'
    >>> local_name("file:///data/a.tif"), local_name("https://example.org/a.tif")
    ('/data/a.tif', 'https://example.org/a.tif')
    """
    found = gdal_name(name)
    if any(f"{scheme}/" in found for scheme in _REMOTE):
        return name
    archive = found.removeprefix("/vsizip/").rstrip("/")
    is_whole = archive.lower().endswith(".zip") and os.path.isfile(archive)
    return archive if is_whole else found
