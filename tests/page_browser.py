"""A headless browser for the tests of pages, `pytest_plugins = ["page_browser"]`, and a server."""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from tools import demo


@pytest.fixture(scope="module")  # not longer: asyncio.run fails as long as Playwright is open
def browser() -> Iterator[Browser]:
    """Start an installed Chromium or Chrome; without one, skip the test, or fail on GitHub."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    where = {"executable_path": program} if program else {"channel": "chrome"}
    with sync_playwright() as playwright:
        try:
            yield playwright.chromium.launch(**where, args=["--no-sandbox"])
        except Error as error:
            if "GITHUB_ACTIONS" in os.environ:
                raise
            pytest.skip(f"there is neither Chromium nor Chrome: {error}")


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder; the address is what `with` gives."""
    with demo.open_server(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def build_demo(folder: Path) -> Path:
    """Make the page of `make demo`; without ONNX Runtime, skip the test, or fail on GitHub."""
    try:
        demo.package()
    except OSError as error:
        if "GITHUB_ACTIONS" in os.environ:
            raise
        pytest.skip(str(error))
    demo.build(folder)
    return folder
