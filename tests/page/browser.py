"""Headless Chromium, driven through its DevTools protocol over a pair of pipes: no driver, no port, no package."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 300
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "Space": 32}


class Browser:
    """One page of one Chromium, with what went wrong in it: `faults`, and the addresses it loaded: `requests`."""

    def __init__(self, profile: Path, width: int = 1400, height: int = 1000) -> None:
        ours, theirs = os.pipe(), os.pipe()  # commands to it, answers from it
        command = [
            "bash", "-c", f'exec "$0" "$@" 3<&{ours[0]} 4>&{theirs[1]}', str(CHROMIUM), "--headless", "--no-sandbox",
            "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--force-prefers-reduced-motion",
            "--disable-background-networking", "--disable-dev-shm-usage",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, pass_fds=(ours[0], theirs[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._write, self._read = ours[1], theirs[0]
        self._numbers, self._buffer = itertools.count(1), b""
        self.faults: list[str] = []
        self._there: set[str] = set()  # documents that are loaded
        self.requests: list[str] = []
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Page.setLifecycleEventsEnabled", enabled=True)
        self.resize(width, height)

    def close(self) -> None:
        """Ends Chromium."""
        self._session = None
        self.send("Browser.close")
        self._process.wait(SECONDS)
        os.close(self._write)
        os.close(self._read)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == number:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']['message']}")
                return told["result"]
            self._note(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], SECONDS)
            chunk = os.read(self._read, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("Chromium does not answer")
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        name, params = event.get("method"), event.get("params", {})
        if name == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description", details["text"]))
        elif name == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.faults.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
        elif name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.faults.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif name == "Page.lifecycleEvent" and params["name"] == "load":
            self._there.add(params["loaderId"])
        elif name == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def resize(self, width: int, height: int = 1000) -> None:
        """Gives the page a window of so many pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """`light` or `dark`, as the system would say."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        """Goes to an address, until it is loaded: no script runs in the page before."""
        document = self.send("Page.navigate", url=url)["loaderId"]
        while document not in self._there:
            self._note(self._next())

    def leave(self) -> None:
        """Goes to an empty page, and forgets all that went on before."""
        self.open("about:blank")
        self.faults.clear()
        self.requests.clear()

    def run(self, script: str) -> Any:
        """The value of an expression of the page, awaited."""
        told = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise RuntimeError(told["exceptionDetails"].get("exception", {}).get("description", told))
        return told["result"].get("value")

    def wait(self, script: str, seconds: float = 120) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > end:
                said = self.run("document.body.innerText")
                raise TimeoutError(f"never true: {script}\nthe page says: {said[:2000]}")
            time.sleep(0.05)

    def press(self, key: str, shift: bool = False) -> None:
        """One key, as typed."""
        what = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": KEYS.get(key, 0)}
        what["modifiers"] = 8 if shift else 0
        text = {"Enter": "\r", "Space": " "}.get(key)
        self.send("Input.dispatchKeyEvent", type="keyDown", **what, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **what)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.send("Input.insertText", text=text)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """The mouse, pressed at one place of the window and let go at another."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            held = {"button": "left", "buttons": 1, "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **held)

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot as PNG, of the whole page or of its window."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
