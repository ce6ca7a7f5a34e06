"""A real headless Chromium for tests, driven by its DevTools protocol: load a page, ask it, touch it, look at it."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str:
    """The browser's program; the test is skipped where there is none."""
    found = os.environ.get("ALGOBOT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed: install it, or name its program in ALGOBOT_CHROMIUM")
    return found


class Page:
    """One tab. ``problems``: what the page wrote to the console as an error, and errors nobody caught."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.requests: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its answer."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(told["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.problems.append(json.dumps(told["args"])[:500])
            case "Log.entryAdded" if told["entry"]["level"] == "error":
                self.problems.append(told["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"][:200])

    def look(self, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """The size of the window and the colours the reader prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 640)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str, until: str) -> None:
        """Load a page and wait until the expression is true."""
        self.call("Page.navigate", url=url)
        self.until(until)

    def until(self, expression: str, seconds: float = 60.0) -> None:
        """Wait for a page; AssertionError with its problems where it never comes to that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):  # between two documents
                if self.ask(expression):
                    return
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}; {self.problems}")

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def drag(self, x0: float, x1: float, y: float) -> None:
        """Press the mouse at (x0, y), move to (x1, y), let go."""
        moves = (("mousePressed", x0), ("mouseMoved", (x0 + x1) / 2), ("mouseMoved", x1), ("mouseReleased", x1))
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x0, y=y)
        for kind, x in moves:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def picture(self, path: Path | None = None, whole: bool = False, of: str | None = None) -> bytes:
        """A PNG of the window, of the whole page, or of the element that a selector finds."""
        clip = {}
        if of is not None:
            box = self.ask(
                f"(({{x, y, width, height}}) => ({{x: x + scrollX, y: y + scrollY, width, height, scale: 1}}))"
                f"(document.querySelector({json.dumps(of)}).getBoundingClientRect())"
            )
            clip = {"clip": box}
        beyond = whole or of is not None
        data = base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=beyond, **clip)["data"])
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return data

    def settled(self, of: str, seconds: float = 60.0) -> bytes:
        """The picture of an element once it no longer changes: a chart follows a new size in its own time."""
        end, last = time.monotonic() + seconds, b""
        while time.monotonic() < end:
            before, last = last, self.picture(of=of)
            if last == before:
                return last
            time.sleep(0.05)
        raise AssertionError(f"{of} never comes to rest; {self.problems}")


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A tab of a browser of its own, with its profile in the folder; ended with the block."""
    command = [program(), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
               "--no-first-run", "--hide-scrollbars", "--disable-extensions", "--disable-background-networking",
               f"--user-data-dir={folder / 'chromium'}", "about:blank"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        said = folder / "chromium" / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (said.is_file() and said.read_text().strip()):
            assert process.poll() is None and time.monotonic() < end, "Chromium did not start"
            time.sleep(0.05)
        port = said.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            tab = next(tab for tab in json.load(answer) if tab["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(30)
