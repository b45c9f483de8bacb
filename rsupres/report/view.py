"""Serve a whole mosaic to a browser of this machine: `rsupres view`.

Tiles of 256 pixels are cut when the browser asks for them, by rio-tiler, from the file
and its overviews; nothing is written. The server listens on 127.0.0.1 only and answers
requests for that address only, so that no other page can reach it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rsupres.errors import InputError, ResourceError
from rsupres.raster.files import StrPath
from rsupres.report.page import TEMPLATES, render
from rsupres.report.pictures import Limits, find_limits
from rsupres.report.sources import Given, Picture, open_sources, read_on
from rsupres.report.views import whole_view

ADDRESS = "127.0.0.1"
TILE = 256  # pixels along a side
_TILE_PATH = re.compile(r"/(\w+)/(\d{1,2})/(\d{1,7})/(\d{1,7})\.png")


class Mosaic(AbstractContextManager["Mosaic"]):
    """A result and its input, open, from which tiles are cut."""

    def __init__(self, sr: StrPath, lr: StrPath | None = None) -> None:
        """Open the files and find how their numbers are shown.

        Args:
            sr: the result.
            lr: its input, one file; None = none.

        Raises:
            InputError: a file cannot be opened, or rio-tiler is not installed.
        """
        try:
            from rio_tiler.io import Reader
        except ImportError as error:
            raise InputError(
                "views need rio-tiler: pip install 'rsupres[view]'."
            ) from error
        given = Given(str(sr), () if lr is None else (str(lr),))
        self._bands: dict[str, tuple[int, ...]] = {}
        self._limits: dict[str, Limits] = {}
        self._readers: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._stack = ExitStack()
        with open_sources(given) as sources:
            self.grid = sources.frame
            self._find("sr", sources.sr)
            if sources.lr is not None:
                self._find("lr", sources.lr)
        if lr is not None:
            self._limits["sr"] = self._limits["lr"]
        for name, path in (("sr", sr), ("lr", lr)):
            if path is not None:
                reader = self._stack.enter_context(Reader(str(path)))
                self._readers[name] = reader

    def _find(self, name: str, picture: Picture) -> None:
        self._bands[name] = picture.rgb
        view = whole_view(picture.raster.grid)
        self._limits[name] = find_limits(read_on(picture.raster, picture.rgb, view))

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def layers(self) -> list[str]:
        """Names of what can be shown, the result last."""
        return [name for name in ("lr", "sr") if name in self._readers]

    def tile(self, layer: str, level: int, col: int, row: int) -> bytes:
        """Return a tile as PNG.

        Args:
            layer: "sr" or "lr".
            level: a pixel of the tile is 2 ** level pixels of the result.
            col: of the tile, from the left.
            row: from the top.

        Raises:
            KeyError: no such layer, or the tile lies outside of the result.
        """
        side = TILE << level
        if col * side >= self.grid.width or row * side >= self.grid.height:
            raise KeyError((level, col, row))
        transform = self.grid.transform
        left, top = transform @ (col * side, row * side)
        right, bottom = transform @ ((col + 1) * side, (row + 1) * side)
        box = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        limits, reader = self._limits[layer], self._readers[layer]
        with self._lock:
            image = reader.part(
                box,
                bounds_crs=self.grid.crs,
                dst_crs=self.grid.crs,
                width=TILE,
                height=TILE,
                indexes=self._bands[layer],
                resampling_method="nearest" if level == 0 else "average",
                reproject_method="nearest",
            )
        pairs = tuple(zip(limits.low, limits.high, strict=True))
        image.rescale(in_range=pairs)
        return bytes(image.render(img_format="PNG"))

    def page(self, title: str) -> str:
        """Return the page that shows the tiles."""
        size = {"width": self.grid.width, "height": self.grid.height, "tile": TILE}
        from markupsafe import Markup

        script = (TEMPLATES / "view.js").read_text(encoding="utf-8")
        content = {"title": title, "layers": self.layers, "viewer": Markup(script)}
        return render("view.html", content, {**size, "layers": self.layers})


def serve(mosaic: Mosaic, title: str, port: int = 0) -> ThreadingHTTPServer:
    """Return a server that is bound, but does not serve yet.

    Args:
        mosaic: open.
        title: of the page.
        port: 0 = any that is free.

    Raises:
        ResourceError: the port is taken.
    """

    class Handler(_Handler):
        shown = mosaic
        text = mosaic.page(title).encode()

    try:
        return ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        raise ResourceError(
            f"{port}: cannot be listened on ({error.strerror}); choose another.",
            argument="port",
        ) from error


class _Handler(BaseHTTPRequestHandler):
    """Answers requests for the page and for tiles."""

    shown: Mosaic
    text: bytes

    def do_GET(self) -> None:  # the name that http.server calls
        """Send the page, a tile, or an error."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        found = _TILE_PATH.fullmatch(self.path)
        if host not in (ADDRESS, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path == "/":
            self._send(self.text, "text/html; charset=utf-8")
        elif found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            layer, *numbers = found.groups()
            try:
                tile = self.shown.tile(layer, *(int(n) for n in numbers))
            except KeyError:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self._send(tile, "image/png")

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        headers: Mapping[str, str] = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store" if kind.startswith("text") else "max-age=600",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        """Log nothing, instead of a line on stderr for each request."""
