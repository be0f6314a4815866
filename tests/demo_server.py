"""For the tests of pages: a server on this machine, and the page of `make demo`."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import demo


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
