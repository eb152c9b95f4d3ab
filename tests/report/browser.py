"""A real headless Chromium, driven over its DevTools pipe: a process, two pipes, and JSON between NULs.

https://chromedevtools.github.io/devtools-protocol says what there is to send. Nothing is downloaded; the browser is the
system's, or what $CHROMIUM names.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-extensions",
    "--no-sandbox",
)
FLAGS += ("--disable-background-networking", "--disable-dev-shm-usage", "--force-color-profile=srgb")

# The browser looks for its pipes there. Not a preexec_fn: that would fork this process with JAX's threads in it.
AS_3_AND_4 = """
import os, sys
high = [os.dup2(int(it), 100 + index) for index, it in enumerate(sys.argv[1:3])]
os.dup2(high[0], 3), os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find() -> str | None:
    """The browser's path, or None."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a running browser. `events` keeps what the browser told: errors, requests, messages."""

    def __init__(self, program: str, profile: Path, deadline: float = 60.0):
        read_commands, self.commands = os.pipe()
        self.answers, write_answers = os.pipe()

        command = [program, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        # HOME: what the browser writes there belongs to this test
        home = os.environ | {"HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "XDG_CACHE_HOME": str(profile)}
        pipes = (read_commands, write_answers)
        self.process = subprocess.Popen(
            [sys.executable, "-c", AS_3_AND_4, *map(str, pipes), *command],
            pass_fds=pipes,
            env=home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self.deadline, self.buffer, self.sent = deadline, b"", 0
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(it["targetId"] for it in targets if it["type"] == "page")
        self.session = self.send("Target.attachToTarget", {"targetId": page, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """The browser's answer to a command. Raises RuntimeError where it refuses, TimeoutError without one."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters or {}}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.sent:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def receive(self) -> dict[str, Any]:
        until = time.monotonic() + self.deadline
        while b"\0" not in self.buffer:
            if not select.select([self.answers], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            chunk = os.read(self.answers, 1 << 20)
            if not chunk:
                raise RuntimeError(f"the browser ended, with status {self.process.wait()}")
            self.buffer += chunk
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, url: str) -> None:
        start = len(self.events)
        self.send("Page.navigate", {"url": url})
        while not any(it["method"] == "Page.loadEventFired" for it in self.events[start:]):
            self.receive()

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        asked = {"expression": script, "awaitPromise": True, "returnByValue": True}
        result = self.send("Runtime.evaluate", asked)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", size)

    def media(self, color_scheme: str, medium: str = "screen") -> None:
        features = [{"name": "prefers-color-scheme", "value": color_scheme}]
        self.send("Emulation.setEmulatedMedia", {"media": medium, "features": features})

    def press(self, key: str) -> None:
        codes = {"Enter": 13, "Tab": 9}
        about = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]} | (
            {"text": "\r"} if key == "Enter" else {}
        )
        self.send("Input.dispatchKeyEvent", {"type": "keyDown"} | about)
        self.send("Input.dispatchKeyEvent", {"type": "keyUp", "key": key, "code": key})

    def hover(self, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})

    def screenshot(self, path: Path) -> None:
        answer = self.send("Page.captureScreenshot", {"captureBeyondViewport": False, "format": "png"})
        path.write_bytes(base64.b64decode(answer["data"]))

    def problems(self) -> list[str]:
        """Errors and warnings of the page, and what it asked the network for."""
        found = []
        for event in self.events:
            about = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(about["exceptionDetails"])[:600])
            if event["method"] == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
                found.append(json.dumps(about["args"])[:600])
            if event["method"] == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
                found.append(json.dumps(about["entry"])[:600])
            if event["method"] == "Network.requestWillBeSent" and not about["request"]["url"].startswith(
                ("file:", "data:", "blob:")
            ):
                found.append(f"request: {about['request']['url']}")
        return found

    def close(self) -> None:
        self.session = None
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            self.send("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        for it in (self.commands, self.answers):
            os.close(it)


@contextlib.contextmanager
def running(program: str, profile: Path) -> Iterator[Browser]:
    browser = Browser(program, profile)
    try:
        yield browser
    finally:
        browser.close()


PROGRAM = find()
needs_browser = pytest.mark.skipif(
    PROGRAM is None and "ITRPO_NEEDS_BROWSER" not in os.environ,
    reason="the page was not looked at: there is no Chromium (install it, or name one in CHROMIUM)",
)
BOTH_WAYS = pytest.mark.parametrize(
    ("width", "scheme"), [(1400, "light"), (1400, "dark"), (400, "dark"), (400, "light")]
)


@contextlib.contextmanager
def opened(page: Path, profile: Path) -> Iterator[Browser]:
    """A browser with the page in it, all its charts drawn."""
    assert PROGRAM is not None, "ITRPO_NEEDS_BROWSER is set, and there is no browser"
    with running(PROGRAM, profile) as browser:
        browser.media("light")
        browser.resize(1400, 900)
        browser.open(page.as_uri())
        browser.evaluate("drawAll().then(() => 1)")
        yield browser


def check_figures(browser: Browser, width: int, scheme: str) -> int:
    """Every figure has a size and marks, none is shrunk until nobody can read it or wider than the window, nothing is
    complained of. -> figures.
    """
    browser.resize(width, 900)
    browser.media(scheme)
    browser.evaluate("drawAll().then(() => 1)")
    sizes = browser.evaluate(
        "[...document.querySelectorAll('.chart')].map((it) => { const svg = it.querySelector('svg.marks') ?? it;"
        " const { width, height } = svg.getBoundingClientRect();"
        " const marks = svg.querySelectorAll('path, line, rect').length;"
        " return [it.dataset.chart, width, height, marks, width / (svg.viewBox?.baseVal.width ?? width)]; })"
    )
    for name, drawn_width, height, marks, shrunk in sizes:
        assert shrunk > 0.9, (name, shrunk)
        assert 150 < drawn_width <= width, name
        assert height > 80, name
        assert marks > 10, name
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate("document.body.scrollWidth") <= width
    assert browser.problems() == []
    return len(sizes)
