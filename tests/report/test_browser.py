"""Pages in a real browser: no errors, no requests, exact pixels, keys and sorting."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from rsupres.report.batch_index import BatchPages, page_data
from rsupres.report.pictures import Limits, shade
from rsupres.report.request import make_report
from rsupres.report.view import Mosaic, serve
from rsupres.tiles.batches.journal import BatchItem
from rsupres.upscaling.job import UpscaleJob
from tests.browser import Browser
from tests.helpers import NORTH_UP, make_scene
from tests.pictures import texture

BANDS = ("B04", "B03", "B02", "B08")
FAULT = (
    "scenes/c.tif: truncated or damaged (c.tif: TIFFReadDirectory:Failed to read "
    "directory at offset 22538)."
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of 96 x 120 pixels beside its input of 24 x 30, and its page."""
    folder = tmp_path_factory.mktemp("pages")
    fine = (texture(96, 120, bands=4) * 4000).astype(np.uint16)
    coarse = fine.reshape(4, 24, 4, 30, 4).mean((2, 4)).astype(np.uint16)
    make_scene(folder / "lr.tif", pixels=coarse, descriptions=BANDS)
    quarter = NORTH_UP @ Affine.scale(0.25)
    tags = {"RSUPRES_SCALE": "4", "RSUPRES_TILE": "16,4"}
    sr = folder / "sr.tif"
    make_scene(sr, pixels=fine, descriptions=BANDS, transform=quarter, tags=tags)
    make_report(sr, folder / "sr.html", lr=folder / "lr.tif")
    return sr


@pytest.fixture(scope="module")
def shown(result: Path) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) that the page must show, from the raster and its limits."""
    data = page_data(result.with_suffix(".html"))
    assert data is not None
    limits = Limits(*(tuple(data["display"]["rgb"][k]) for k in ("low", "high")))
    with rasterio.open(result) as file:
        pixels = file.read(data["bands"]["rgb"]).astype(np.float32)
    return shade(pixels, limits)[..., :3]


def open_page(browser: Browser, result: Path, width: int = 1000) -> None:
    browser.open(result.with_suffix(".html").as_uri(), width)


def stage(browser: Browser) -> dict[str, float]:
    """Return the place of the picture in the window."""
    box: str = browser.evaluate(
        "JSON.stringify(document.querySelector('.view').getBoundingClientRect())"
    )
    found: dict[str, float] = json.loads(box)
    return found


def choose(browser: Browser, **values: str) -> None:
    for name, value in values.items():
        browser.evaluate(
            f"(s => {{ s.value = '{value}'; s.dispatchEvent(new Event('change')); }})"
            f"(document.querySelector('#{name}'))"
        )


def set_slider(browser: Browser, value: float) -> None:
    browser.evaluate(
        f"(s => {{ s.value = {value}; s.dispatchEvent(new Event('input')); }})"
        "(document.querySelector('#slider'))"
    )


@pytest.mark.parametrize("width", [1000, 420])
def test_a_page_loads_without_errors_and_asks_for_nothing(
    browser: Browser, result: Path, width: int
) -> None:
    open_page(browser, result, width)
    for mode in ("nir", "rgb"):
        choose(browser, mode=mode, before="difference", after="lr")
    assert browser.errors == []
    foreign = [url for url in browser.requests if not url.startswith("data:")]
    assert foreign == [result.with_suffix(".html").as_uri()]
    overflow = "document.documentElement.scrollWidth - innerWidth"
    assert browser.evaluate(overflow) <= 0


def failed_batch(pages: Path) -> Path:
    """The index of a batch of three scenes, one of which failed."""
    job = UpscaleJob(scenes=(), output=pages, scale=Fraction(4))
    items = [
        BatchItem("b.tif", pages / "b.tif", {}, "written", duration_s=9.5),
        BatchItem("a.tif", pages / "a.tif", {}, "written", duration_s=80.0),
        BatchItem("c.tif", pages / "c.tif", {}, "failed", 3, FAULT),
    ]
    return BatchPages(pages / "pages", job).finish(items)


@pytest.mark.parametrize("width", [1400, 390])
def test_what_failed_and_why_is_seen_without_scrolling(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    browser.open(failed_batch(tmp_path).as_uri(), width)
    for part in ("badge.failed", "failed .error a, .failed .error span", "failed .bad"):
        box = json.loads(
            browser.evaluate(
                f"JSON.stringify(document.querySelector('.{part}')"
                ".getBoundingClientRect())"
            )
        )
        assert box["left"] >= 0
        assert box["right"] <= width
        assert 0 < box["bottom"] < 800
    hidden = "(e => e.scrollWidth - e.clientWidth)(document.querySelector('.wide'))"
    assert browser.evaluate(hidden) <= 0


@pytest.mark.parametrize("zoom", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_zoom_shows_the_pixels_of_the_raster(
    browser: Browser, result: Path, shown: NDArray[np.uint8], zoom: int
) -> None:
    open_page(browser, result)
    browser.evaluate(f"document.querySelector('[data-zoom=\"{zoom}\"]').click()")
    browser.evaluate("document.querySelector('.scroller').scrollTo(0, 0)")
    set_slider(browser, 0)
    hide = "for (const e of document.querySelectorAll('.handle, .tag')) e.remove()"
    browser.evaluate(hide)
    box, picture = stage(browser), browser.screenshot()
    assert (box["width"], box["height"]) == (120 * zoom, 96 * zoom)
    top, left = round(box["top"]), round(box["left"])
    wanted = shown.repeat(zoom, axis=0).repeat(zoom, axis=1)
    wanted = wanted[: picture.shape[0] - top]
    found = picture[top : top + len(wanted), left : left + wanted.shape[1]]
    np.testing.assert_array_equal(found, wanted)


def test_the_slider_moves_by_keys_and_by_the_mouse(
    browser: Browser, result: Path, shown: NDArray[np.uint8]
) -> None:
    open_page(browser, result)
    browser.evaluate("document.querySelector('#slider').focus()")
    clip = "document.querySelector('.is-after').style.clipPath"
    middle = browser.evaluate(clip)
    browser.press("ArrowRight")
    assert browser.evaluate(clip) != middle
    browser.press("Home")
    assert browser.evaluate("document.querySelector('#slider').value") == "0"
    box = stage(browser)
    y = box["top"] + box["height"] / 2
    browser.drag((box["left"] + 2, y), (box["left"] + box["width"] / 4, y))
    assert browser.evaluate("document.querySelector('#slider').value") == "25"


def test_tile_borders_appear_on_request(browser: Browser, result: Path) -> None:
    open_page(browser, result)
    before = browser.screenshot()
    browser.evaluate("document.querySelector('#borders').click()")
    assert (browser.screenshot() != before).any()
    assert browser.evaluate("document.querySelectorAll('.borders line').length") == 6


def test_a_printed_page_shows_both_pictures_by_halves(
    browser: Browser, result: Path
) -> None:
    open_page(browser, result)
    set_slider(browser, 10)
    browser.emulate_media("print")
    try:
        box = stage(browser)
        clip = "getComputedStyle(document.querySelector('.is-after')).clipPath"
        assert browser.evaluate(clip) == "inset(0px 0px 0px 50%)"
        assert box["width"] / box["height"] == pytest.approx(120 / 96)
        assert box["height"] > 100
    finally:
        browser.emulate_media("")


def test_the_index_begins_with_failures_and_sorts(
    browser: Browser, tmp_path: Path, result: Path
) -> None:
    browser.open(failed_batch(tmp_path).as_uri())
    names = (
        "[...document.querySelectorAll('tbody tr')].map(r => r.cells[2].dataset.sort)"
    )
    assert browser.evaluate(names) == ["c.tif", "b.tif", "a.tif"]
    heads = "[...document.querySelectorAll('th button')].find(b => b.textContent === "
    for head, wanted in (
        ("scene", ["a.tif", "b.tif", "c.tif"]),
        ("seconds", ["c.tif", "b.tif", "a.tif"]),
        ("seconds", ["a.tif", "b.tif", "c.tif"]),
    ):
        browser.evaluate(f"{heads}'{head}').click()")
        assert browser.evaluate(names) == wanted
    assert browser.errors == []


def test_a_view_shows_input_and_result_side_by_side(
    browser: Browser, result: Path
) -> None:
    pytest.importorskip("rio_tiler")
    with Mosaic(result, result.with_name("lr.tif")) as mosaic, serve(mosaic, "a") as it:
        thread = threading.Thread(target=it.serve_forever, args=(0.02,))
        thread.start()
        try:
            browser.open(f"http://127.0.0.1:{it.server_port}/", 700)
            loaded = "tiles.size === 2 && [...tiles.values()].every(t => t.complete)"
            browser.evaluate(
                "new Promise(d => { const wait = () => "
                f"({loaded}) ? d(true) : setTimeout(wait, 10); wait(); }})"
            )
            browser.evaluate("paint()")  # now, not at the next frame
            picture = browser.screenshot()
        finally:
            it.shutdown()
            thread.join()
    assert browser.errors == []
    middle = picture[100:-100, 100:-100].astype(int)
    fine, coarse = (np.abs(np.diff(m, axis=0)).mean() for m in halves(middle))
    assert fine > 1.5 * coarse


def halves(picture: NDArray[np.int_]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return the right and the left half."""
    width = picture.shape[1] // 2
    return picture[:, width + 4 :], picture[:, : width - 4]
