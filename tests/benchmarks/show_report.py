"""Make docs/images/report.png: a page of `rsupres report` as Chromium shows it.

Usage: python -m tests.benchmarks.show_report PAGE.html OUT.png

The page is made by the first command of docs/how-to/report.md. The picture is the upper
part of the page in a window of 1200 x 800 pixels, in 256 colours.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import Browser

WIDTH, WINDOW, SHOWN = 1200, 800, 1208  # pixels


def main(page: str, out: str) -> None:
    """Write the picture of a page."""
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(Path(folder))
        try:
            browser.open(Path(page).resolve().as_uri(), WIDTH, WINDOW)
            shot = browser.screenshot(SHOWN)
        finally:
            browser.close()
    colours = Image.fromarray(shot).quantize(256, dither=Image.Dither.NONE)
    colours.save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
