"""The local server cuts the right tiles, and answers only requests for itself."""

from __future__ import annotations

import io
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from rsupres.errors import ResourceError
from tests.helpers import NORTH_UP, make_scene

pytest.importorskip("rio_tiler")

from rsupres.report.view import Mosaic, serve


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Grey levels, 300 x 520, of which none lies near another by a shift."""
    rng = np.random.default_rng(1)
    return rng.integers(1, 255, (1, 300, 520)).astype(np.uint8)


@pytest.fixture(scope="module")
def address(
    pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("view")
    quarter = NORTH_UP @ Affine.scale(0.25)
    make_scene(folder / "sr.tif", pixels=pixels, transform=quarter)
    make_scene(folder / "lr.tif", pixels=pixels[:, ::4, ::4])
    with (
        Mosaic(folder / "sr.tif", folder / "lr.tif") as mosaic,
        serve(mosaic, "A <b> page") as server,
    ):
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def tile(address: str, path: str) -> np.ndarray:
    from PIL import Image

    with urllib.request.urlopen(f"{address}/{path}.png") as answer:
        assert answer.headers["Content-Type"] == "image/png"
        picture = Image.open(io.BytesIO(answer.read()))
    return np.asarray(picture)


def test_a_tile_of_the_first_level_is_the_pixels(
    address: str, pixels: np.ndarray
) -> None:
    found = tile(address, "sr/0/1/0")
    part = pixels[0, :256, 256:512].astype(float)
    ranks = [np.argsort(np.unique(p, return_index=True)[1]) for p in (part,)]
    assert len(ranks[0]) > 200  # the tile is no constant
    np.testing.assert_allclose(found[..., 0], part, atol=4)  # by limits 1 and 99 %
    assert (found[..., -1] == 255).all()


def test_beyond_the_edge_a_tile_is_transparent(address: str) -> None:
    found = tile(address, "sr/0/2/1")
    assert (found[: 300 - 256, : 520 - 512, -1] == 255).all()
    assert not found[300 - 256 :, :, -1].any()
    assert not found[:, 520 - 512 :, -1].any()


def test_the_input_lies_under_the_result(address: str, pixels: np.ndarray) -> None:
    found = tile(address, "lr/0/0/0")
    wanted = pixels[0, :256:4, :256:4].repeat(4, 0).repeat(4, 1).astype(float)
    np.testing.assert_allclose(found[..., 0], wanted, atol=4)


@pytest.mark.parametrize(
    "path", ["sr/0/9/0.png", "hr/0/0/0.png", "../etc/passwd", "sr/0/0/0.png/x"]
)
def test_anything_else_is_not_found(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(f"{address}/{path}")
    assert raised.value.code == 404
    raised.value.close()


def test_another_host_is_refused(address: str) -> None:
    request = urllib.request.Request(address, headers={"Host": "example.org:80"})
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request)
    assert raised.value.code == 403
    raised.value.close()


def test_the_page_escapes_the_title(address: str) -> None:
    with urllib.request.urlopen(address) as answer:
        text = answer.read().decode()
    assert "A &lt;b&gt; page" in text


def test_a_port_that_is_taken_is_an_error(address: str, tmp_path: Path) -> None:
    sr = make_scene(tmp_path / "sr.tif")
    with Mosaic(sr) as mosaic, pytest.raises(ResourceError, match="listened on"):
        serve(mosaic, "a", int(address.rpartition(":")[2]))
