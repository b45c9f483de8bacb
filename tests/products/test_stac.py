"""STAC documents of every shape are read or refused; none is a defect of rsupres."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rsupres.cli import main
from rsupres.errors import InputError
from rsupres.products.catalogs import item_names
from rsupres.raster.product.find import find_product
from tests.companions.test_companions import write_stac
from tests.miniature_safe import Miniature

VALUES = (None, "x", 3, -1.5, True, [], {}, ["a"], {"a": 1}, [None], "", float("inf"))
Place = tuple[str | int, ...]


def places(document: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the place of every value in a document, of lists the first three."""
    yield place
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*place, key))
    elif isinstance(document, list):
        for index, value in enumerate(document[:3]):
            yield from places(value, (*place, index))


def changed(document: Any, place: Place, value: object, *, is_lost: bool) -> Any:
    """Return a copy with another value in one place, or without it."""
    found = copy.deepcopy(document)
    if not place:
        return value
    around = found
    for key in place[:-1]:
        around = around[key]
    if is_lost:
        del around[place[-1]]
    else:
        around[place[-1]] = value
    return found


@pytest.fixture(scope="module")
def item(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("item")
    path = folder / "item.json"
    write_stac(Miniature().build(folder), path, offset=-0.1)
    found = json.loads(path.read_text())
    # Fields of older items, which say the same.
    found["assets"] = dict(list(found["assets"].items())[:3])
    first = next(iter(found["assets"].values()))
    first["proj:transform"] = [10, 0, 0, 0, -10, 0]
    first["eo:bands"] = [{"name": "B02", "common_name": "blue", "gsd": 10}]
    first["raster:bands"] = [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]
    return found


def refusal(path: Path) -> str:
    """Return the message of a document that is refused, "" of one that is read."""
    try:
        find_product(str(path))
        item_names(str(path))
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["item", "collection"])
def test_a_wrong_value_anywhere_is_refused_or_does_not_matter(
    item: Any, tmp_path: Path, kind: str
) -> None:
    is_item = kind == "item"
    document = item if is_item else {"type": "FeatureCollection", "features": [item]}
    rng, path, refused, read = random.Random(0), tmp_path / "item.json", 0, 0
    for place in places(document):
        for value in (..., *rng.sample(VALUES, 3)):
            is_lost = value is ... and bool(place)
            wrong = changed(
                document, place, None if value is ... else value, is_lost=is_lost
            )
            path.write_text(json.dumps(wrong))
            message = refusal(path)
            assert not message or str(path) in message
            refused, read = refused + bool(message), read + (not message)
    assert min(read, refused) > 50


@pytest.mark.parametrize("text", ['{"a": 1}', "[]", '{"features": 3}', "7", "{"])
@pytest.mark.parametrize("command", ["upscale", "batch", "plan"])
def test_json_that_is_no_stac_is_an_input_that_cannot_be_used(
    tmp_path: Path, text: str, command: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    words = [command, str(path), "--model", "bicubic"]
    words += ["--out-dir", str(tmp_path / "o")] if command == "batch" else []
    words += [str(tmp_path / "o.tif")] if command == "upscale" else []
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 3, result.output
    assert "defect" not in result.output
