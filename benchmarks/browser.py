"""Chromium without a window, driven over a pipe by the Chrome DevTools Protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

#: Names of the program, where it is on the search path.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """Return where the browser is; None where there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Tab]:
    """Start a browser with an empty profile and yield its tab; end it afterwards."""
    ours, theirs = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser reads from its descriptor 3 and writes to 4.
        moved = f'exec 3<&{ours[0]} 4>&{theirs[1]}; exec "$@"'
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
        command = [program() or "chromium", *options, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            ["bash", "-c", moved, "bash", *command],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0]), os.close(theirs[1])
        with open(ours[1], "wb") as to, open(theirs[0], "rb") as back:
            try:
                yield Tab(to, back)
            finally:
                process.terminate()
                process.wait()


class Tab:
    """A tab: commands, and the events that came meanwhile."""

    def __init__(self, to: BinaryIO, back: BinaryIO) -> None:
        self.to, self.back = to, back
        self.number, self.session, self.events = 0, None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Performance", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **given: object) -> dict[str, Any]:
        """Return what a command answers."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": given}
        message |= {"sessionId": self.session} if self.session else {}
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while (said := self._read()).get("id") != self.number:
            self.events.append(said)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']}")
        return said["result"]

    def _read(self) -> dict[str, Any]:
        content = bytearray()
        while (byte := self.back.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser has ended")
            content += byte
        return json.loads(content)

    def wait(self, event: str) -> None:
        """Wait for an event that has not come yet."""
        while not any(said.get("method") == event for said in self.events):
            self.events.append(self._read())

    def size(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Set the size of the window, and whether the reader prefers dark pages."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=1, mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, file: Path, fragment: str = "") -> None:
        """Open a file and wait until it is loaded and painted."""
        self.events.clear()
        self.ask("Page.navigate", url="about:blank")
        self.wait("Page.loadEventFired")
        self.events.clear()
        self.ask("Page.navigate", url=file.resolve().as_uri() + fragment)
        self.wait("Page.loadEventFired")
        twice = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        self.run(twice)

    def run(self, script: str) -> Any:  # noqa: ANN401  whatever the script gives
        """Return the value of an expression of the page, of a promise when it is kept."""
        said = self.ask("Runtime.evaluate", expression=script, awaitPromise=True,
                        returnByValue=True)  # fmt: skip
        if "exceptionDetails" in said:
            raise RuntimeError(json.dumps(said["exceptionDetails"])[:500])
        return said["result"].get("value")

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened, itself included."""
        asked = (e["params"]["request"]["url"] for e in self.events
                 if e.get("method") == "Network.requestWillBeSent")  # fmt: skip
        return [url for url in asked if not url.startswith("data:")]

    def faults(self) -> list[str]:
        """Return the errors of the page's scripts and what the browser logged."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(e["params"])[:400] for e in self.events if e.get("method") in kinds]

    def metrics(self) -> Mapping[str, float]:
        """Return the browser's counters of the page, in seconds and bytes."""
        found = self.ask("Performance.getMetrics")["metrics"]
        return {each["name"]: each["value"] for each in found}

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen as PNG; with ``whole`` all of the page."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def print(self, path: Path) -> None:
        """Write the page as a printer gets it, as PDF."""
        shot = self.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        path.write_bytes(base64.b64decode(shot["data"]))
