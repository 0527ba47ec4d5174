"""Headless Chromium, driven through a pipe (Chrome DevTools Protocol): no library, no port, no network."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no chromium, chromium-browser or google-chrome is installed (Debian: apt-get install chromium)"
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]


class Browser:
    """One page. messages: what the page's console and its security policy complained about."""

    def __init__(self, profile: Path) -> None:
        """profile: a folder for the browser's own files. Raises RuntimeError when there is no browser."""
        if CHROMIUM is None:
            raise RuntimeError(MISSING)
        ours_out, theirs_in = os.pipe()
        theirs_out, ours_in = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4; ours are moved out of their way first.
        commands, answers = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_out, theirs_in))
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            ["/bin/sh", "-c", f'exec "$0" "$@" 3</dev/fd/{commands} 4>/dev/fd/{answers}', str(CHROMIUM), *_FLAGS,
             f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(commands, answers),
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (theirs_in, theirs_out, commands, answers):
            os.close(end)
        self._to, self._from = os.fdopen(ours_in, "wb", 0), os.fdopen(ours_out, "rb")
        self._last, self._session, self._events = 0, "", list[dict[str, Any]]()
        self.messages: list[str] = []
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        said = {"id": self._last, "method": method, "params": params}
        self._to.write(json.dumps(said | ({"sessionId": self._session} if self._session else {})).encode() + b"\0")
        while (answer := self._read()).get("id") != self._last:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser ended")
            text += byte
        message: dict[str, Any] = json.loads(text)
        if message.get("method") == "Runtime.exceptionThrown":
            self.messages.append(message["params"]["exceptionDetails"]["text"])
        elif message.get("method") == "Log.entryAdded":
            self.messages.append(message["params"]["entry"]["text"])
        elif "method" in message:
            self._events.append(message)
        return message

    def open(self, page: Path, *, width: int = 1100, height: int = 900, phone: bool = False) -> float:
        """Load a page; returns milliseconds from navigation to the end of its load event."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self._events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read()
        while (ended := self.evaluate("performance.timing.loadEventEnd")) == 0:
            time.sleep(0.01)
        return float(ended - self.evaluate("performance.timing.navigationStart"))

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", script))
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        """Keys by their DOM names: ArrowDown, Enter, Tab, h."""
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "Home": 36, "End": 35, "ArrowUp": 38, "ArrowDown": 40,
                 "ArrowLeft": 37, "ArrowRight": 39}  # fmt: skip
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            event = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
            self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def screenshot(self, of: str = "html") -> bytes:
        """PNG of what is on the screen, or of the element that a selector finds there."""
        x, y, width, height = self.evaluate(
            f"(({{x, y, width, height}}) => [x, y, width, height])(document.querySelector('{of}').getBoundingClientRect())"
        )
        clip = {} if of == "html" else {"clip": {"x": x, "y": y, "width": width, "height": height, "scale": 1}}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **clip)["data"])

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def close(self) -> None:
        self._session = ""
        self.call("Browser.close")
        self._process.wait(timeout=30)
        self._to.close()
        self._from.close()
