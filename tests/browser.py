"""Drive a Chromium of this machine through its DevTools protocol.

Enough for tests of our pages: load one, evaluate expressions, press keys, take pictures
of the screen, and collect errors of the console and requests for files.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--disable-gpu",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--force-color-profile=srgb",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--remote-debugging-port=0",
)


class Browser:
    """A running Chromium with one page."""

    def __init__(self, folder: Path) -> None:
        """Start it; skip the calling test where there is none.

        Args:
            folder: empty, of its profile.
        """
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            pytest.skip("needs Chromium: apt-get install chromium")
        websocket = pytest.importorskip("websocket")
        more = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [program, *OPTIONS, *more, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._numbers = itertools.count(1)
        self._session = ""
        self._socket: Any = None
        self._is_loaded = False
        self.errors: list[str] = []
        self.requests: list[str] = []
        try:
            port, path = self._address(folder / "DevToolsActivePort")
            self._socket = websocket.create_connection(
                f"ws://127.0.0.1:{port}{path}", suppress_origin=True
            )
            targets = self._call("Target.getTargets")["targetInfos"]
            page = next(target for target in targets if target["type"] == "page")
            attach = {"targetId": page["targetId"], "flatten": True}
            self._session = self._call("Target.attachToTarget", **attach)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self._call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop it."""
        if self._socket is not None:
            self._socket.close()
        self._process.kill()
        self._process.wait()

    def open(self, url: str, width: int = 1000, height: int = 800) -> None:
        """Load a page in a window of a size, and wait until it is complete."""
        self.errors.clear()
        self.requests.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self._call("Emulation.setDeviceMetricsOverride", mobile=False, **size)
        self._is_loaded = False
        assert "errorText" not in self._call("Page.navigate", url=url), url
        ready = "document.readyState === 'complete' && location.href !== 'about:blank'"
        while not self.evaluate(ready):
            while not self._is_loaded:
                self._receive()
            self._is_loaded = False
        images = "Promise.all([...document.images].filter(i => i.className)"
        self.evaluate(f"{images}.map(i => i.decode())).then(() => true)")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, promises awaited."""
        options = {"returnByValue": True, "awaitPromise": True}
        found = self._call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def emulate_media(self, media: str) -> None:
        """Show the page as on "print", or as on the screen again ("")."""
        self._call("Emulation.setEmulatedMedia", media=media)

    def press(self, key: str) -> None:
        """Press and release a key, such as "ArrowRight" or "Home"."""
        code = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35}[key]
        for kind in ("rawKeyDown", "keyUp"):
            options = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            self._call("Input.dispatchKeyEvent", type=kind, **options)

    def drag(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Press the mouse at a place (x, y), move it and release it."""
        moves = (("mousePressed", start), ("mouseMoved", stop), ("mouseReleased", stop))
        for kind, (x, y) in moves:
            options = {"button": "left", "buttons": 1, "clickCount": 1}
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **options)

    def screenshot(self, rows: int | None = None) -> NDArray[np.uint8]:
        """Return (H, W, 3): the window as it is shown, or so many rows of the page."""
        from PIL import Image

        self.evaluate("new Promise(d => requestAnimationFrame(() => setTimeout(d, 0)))")
        more: dict[str, object] = {}
        if rows is not None:
            width = self.evaluate("innerWidth")
            clip = {"x": 0, "y": 0, "width": width, "height": rows, "scale": 1}
            more = {"clip": clip, "captureBeyondViewport": True}
        data = self._call("Page.captureScreenshot", format="png", **more)["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def _address(self, file: Path) -> list[str]:
        """Wait for the file with the port and the path that Chromium listens at."""
        while not file.exists() or len(address := file.read_text().split()) != 2:
            assert self._process.poll() is None, "Chromium does not start"
            time.sleep(0.02)
        return address

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, object] = {
            "id": number,
            "method": method,
            "params": parameters,
        }
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        """Return the next message, an answer or an event, and note it."""
        message: dict[str, Any] = json.loads(self._socket.recv())
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        """Keep what a page does wrong, what it asks for, and that it is loaded."""
        self._is_loaded |= method == "Page.loadEventFired"
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"]))
        if method == "Runtime.consoleAPICalled" and parameters["type"] != "log":
            self.errors.append(json.dumps(parameters["args"]))
        if method == "Log.entryAdded":
            self.errors.append(parameters["entry"]["text"])
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
