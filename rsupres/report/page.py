"""Render pages from templates: one file each, without network, with its data as JSON.

Styles and the script are put into the page. Nothing that a page shows is trusted: names
of files are escaped, and the page's own rules forbid it to load anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rsupres.errors import InputError
from rsupres.output.atomic import check_writable, publishing
from rsupres.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")
MAX_BYTES = 8_000_000


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise InputError(
            "pages need jinja2 and pillow: pip install 'rsupres[report]'."
        ) from error
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, content: Mapping[str, object], data: object) -> str:
    """Return a page.

    Args:
        template: name of a file in `templates/`.
        content: values of the template.
        data: JSON-able; the page holds it, and programs read it there.
    """
    from markupsafe import Markup

    page = _environment().get_template(template)
    return page.render(
        **content,
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        data=Markup(as_json(data)),
        version=__version__,
    )


def as_json(data: object) -> str:
    """Return JSON that can stand inside of a page; what is not finite becomes null."""
    text = json.dumps(_finite(data), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(data: object) -> object:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data if data is None or isinstance(data, str | int | bool) else str(data)


def check_page_place(path: Path, argument: str) -> None:
    """Check that a page can be written under a name that browsers open.

    Args:
        path: of the page.
        argument: name of the argument that gave it, for messages.

    Raises:
        InputError: another extension, or the folder cannot be written.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(
            f"{path}: a page is written; name it {path.stem}.html.", argument=argument
        )
    check_writable(path, argument)


def write_page(path: Path, text: str) -> None:
    """Write a page; it appears under its name when it is complete.

    Args:
        path: of the page.
        text: HTML.

    Raises:
        InputError: the folder is missing or cannot be written.
        ResourceError: the disk is full.
    """
    check_writable(path, "output")
    with publishing(path) as part:
        part.write_text(text, encoding="utf-8")
