"""A headless Chromium for tests, driven over its DevTools protocol with websocket-client."""

import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
PATIENCE = 60  # seconds


class Browser:
    """One page in a Chromium that can reach this machine alone and forgets everything at its end.

    `events` has what the page and its workers reported, in order: pairs of a method and parameters.
    """

    def __init__(self, profile: Path) -> None:
        words = [PROGRAM, "--headless=new", "--remote-debugging-port=0", "--no-first-run",
                 f"--user-data-dir={profile}", "--disable-dev-shm-usage", "--disable-gpu",
                 "--disable-background-networking", "about:blank"]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # root, as in a container
            words.insert(1, "--no-sandbox")
        self.process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.events, self.numbers = [], itertools.count(1)
        try:
            note = profile / "DevToolsActivePort"
            wait(lambda: note.exists() and len(note.read_text().splitlines()) == 2)
            port = note.read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [x for x in json.load(answer) if x["type"] == "page"]
            self.socket = websocket.create_connection(
                pages[0]["webSocketDebuggerUrl"], timeout=PATIENCE, suppress_origin=True
            )
            for domain in ("Page", "Network", "Runtime"):
                self.call(f"{domain}.enable")
            attach = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
            self.call("Target.setAutoAttach", **attach)
        except BaseException:
            self.close()
            raise

    def send(self, method: str, session: str | None = None, **parameters: object) -> int:
        """Call a method of the protocol in the page, or in a worker; return the call's number."""
        message = {"id": next(self.numbers), "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        return message["id"]

    def call(self, method: str, **parameters: object) -> dict:
        """Call a method of the protocol in the page and return its result."""
        number = self.send(method, **parameters)
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            if "method" in answer:
                self.events.append((answer["method"], answer["params"]))
            if answer.get("method") == "Target.attachedToTarget":  # a worker: it waits for us
                for start in ("Network.enable", "Runtime.runIfWaitingForDebugger"):
                    self.send(start, answer["params"]["sessionId"])
        assert "error" not in answer, f"{method}: {answer['error']['message']}"
        return answer["result"]

    def run(self, script: str) -> object:
        """Return what a JavaScript expression gives in the page, or what it promises."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression is true in the page."""
        wait(lambda: self.run(f"Boolean({script})"), script)

    def open(self, address: str) -> None:
        """Go to an address and wait until the page is loaded."""
        self.run("window.left = true")
        self.call("Page.navigate", url=address)
        self.wait("!window.left && document.readyState === 'complete'")

    def press(self, key: str, text: str = "") -> None:
        """Press a key and let it go."""
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        keys = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **keys)
        self.call("Input.dispatchKeyEvent", type="keyUp", **keys)

    def close(self) -> None:
        """End the browser."""
        self.process.terminate()
        self.process.wait(PATIENCE)


def wait(condition: Callable[[], object], what: str = "the browser") -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE} seconds for {what}"
        time.sleep(0.05)
