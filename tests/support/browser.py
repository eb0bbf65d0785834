"""A real browser, driven over its own protocol: https://chromedevtools.github.io/devtools-protocol/

One process and one tab; what a page may not do (errors, other hosts) is noted as it happens.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import websocket

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--hide-scrollbars"),
    *("--force-color-profile=srgb", "--remote-debugging-port=0"),
)

PATIENCE = 30.0
"""Seconds that anything may take."""


@dataclass
class Seen:
    """What a page did since it was opened.

    Attributes:
        requests: the addresses that it asked for.
        problems: errors and warnings of the console, exceptions, violations of its policy,
            requests that failed.
    """

    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Browser:
    """A context manager.

    Args:
        folder: for its profile, empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._loaded = False
        self.seen = Seen()

    def __enter__(self) -> Self:
        assert PROGRAM is not None
        with (self._folder / "browser.log").open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, *_ARGUMENTS, f"--user-data-dir={self._folder}", "about:blank"],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._socket = websocket.create_connection(
                self._tab(), timeout=PATIENCE, suppress_origin=True
            )
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tab(self) -> str:
        """Where the one tab listens."""
        ready, until = self._folder / "DevToolsActivePort", time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if ready.exists() and (lines := ready.read_text().split()):
                with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json") as answer:
                    pages = [tab for tab in json.load(answer) if tab["type"] == "page"]
                if pages:
                    return str(pages[0]["webSocketDebuggerUrl"])
            assert self._process.poll() is None, (self._folder / "browser.log").read_text()
            time.sleep(0.05)
        raise TimeoutError((self._folder / "browser.log").read_text())

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command of the protocol."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def open(self, address: str) -> Seen:
        """Open a page, wait until all of it is there, and give what it did."""
        self.seen, self._loaded = Seen(), False
        self.call("Page.navigate", url=address)
        while not self._loaded:
            self._note(json.loads(self._socket.recv()))
        return self.seen

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def show(self, width: int, scheme: str) -> None:
        """Let the window be so wide, and people prefer ``light`` or ``dark``."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        preference = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[preference])

    def picture(self, whole: bool = True) -> bytes:
        """What is seen, as PNG."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(taken["data"])

    def _note(self, event: Any) -> None:
        said, method = event.get("params", {}), event.get("method")
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.seen.requests.append(said["request"]["url"])
        elif method == "Network.loadingFailed":
            self.seen.problems.append(f"failed: {said['errorText']}")
        elif method == "Network.responseReceived" and said["response"]["status"] >= 400:
            self.seen.problems.append(f"{said['response']['status']} {said['response']['url']}")
        elif method == "Runtime.exceptionThrown":
            self.seen.problems.append(str(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.seen.problems.append(str([one.get("value") for one in said["args"]]))
        elif method == "Log.entryAdded":
            self.seen.problems.append(f"{said['entry']['level']}: {said['entry']['text']}")
        elif method == "Page.javascriptDialogOpening":
            self.seen.problems.append(f"dialog: {said['message']}")
            self._socket.send(
                json.dumps(
                    {"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                )
            )
