"""A headless browser for the tests of pages: `pytest_plugins = ["page_browser"]`."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, sync_playwright


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
