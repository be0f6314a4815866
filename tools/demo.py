"""Make a page that reads captchas in the browser, and serve it: `make demo PORT=8000`.

The page is the folder build/demo: what is in tools/page, models/ctc.onnx, twenty captchas, and ONNX
Runtime for browsers from npm's registry, or the mirror that npm_config_registry names.
"""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from captcha_reader import weights
from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.texts import random_texts
from tools import options
from tools.lessons import ROOT, write

DEFAULTS = {"PORT": "8000"}
ALLOWED = {"PORT": r"\d+ the number of a port, such as 8000"}
FOLDER, CACHE = ROOT / "build" / "demo", ROOT / "build" / "npm"
# Another version has another digest: `npm view onnxruntime-web@1.30.0 dist.integrity`.
PACKAGE = "onnxruntime-web-1.30.0.tgz"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8p"
    "ZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")  # all that a CPU needs
SEED, CAPTCHAS = 2019, 20


def integrity(content: bytes) -> str:
    """Return the digest of a package as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def package(cache: Path = CACHE) -> Path:
    """Return ONNX Runtime's package, a file in `cache`; download it if it is not there."""
    kept = cache / PACKAGE
    if kept.exists() and integrity(kept.read_bytes()) == INTEGRITY:
        return kept
    settings = {name.lower(): value for name, value in os.environ.items()}
    registry = settings.get("npm_config_registry") or "https://registry.npmjs.org"
    address = f"{registry.rstrip('/')}/onnxruntime-web/-/{PACKAGE}"
    print(f"demo: downloading {address} (33 MB, once)", flush=True)
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content = answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        other = "name a mirror of npm's registry in the variable npm_config_registry"
        raise OSError(f"{address} can't be downloaded: {error}; try again, or {other}") from error
    if integrity(content) != INTEGRITY:
        raise ValueError(f"{address} is not the file that is pinned here, so it was thrown away")
    write(kept, content)
    return kept


def draw_captchas_into(folder: Path) -> None:
    """Draw the captchas of the page, and write a list of what they say."""
    rng = stream(SEED, "demo", epoch=0, index=0)
    texts, listed = random_texts(rng, CAPTCHAS), []
    (folder / "captchas").mkdir()
    for number, pixels in enumerate(draw_captchas(texts, rng)):
        listed.append({"file": f"captchas/{number + 1:02d}.png", "truth": texts[number]})
        Image.fromarray(pixels).save(folder / listed[-1]["file"])
    write(folder / "captchas.json", json.dumps(listed, indent=1))


def build(folder: Path = FOLDER, cache: Path = CACHE) -> Path:
    """Make the page anew and return its folder, which is replaced only when all went well."""
    model, runtime = weights.find("ctc.onnx"), package(cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=folder.parent) as workshop:
        page = Path(workshop) / "new"
        shutil.copytree(Path(__file__).parent / "page", page)
        draw_captchas_into(page)
        shutil.copy(model, page)
        with tarfile.open(runtime) as tar:
            for name in RUNTIME:
                (page / name).write_bytes(tar.extractfile(f"package/dist/{name}").read())
        # The service worker keeps these files; what changes in one of them changes the name.
        files = sorted(path for path in page.rglob("*") if path.is_file())
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
        names = ["./", *(path.relative_to(page).as_posix() for path in files)]
        told = f"const CACHE = 'captcha-lessons-{digest}', FILES = {json.dumps(names)};\n"
        worker = page / "worker.js"
        worker.write_text(told + worker.read_text(encoding="utf-8"), encoding="utf-8")
        if folder.exists():
            folder.rename(Path(workshop) / "old")
        page.rename(folder)
    return folder


class Handler(SimpleHTTPRequestHandler):
    """Hands out files with the types that browsers insist on, and keeps quiet about it."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {  # Windows may know others
        ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"
    }  # fmt: skip

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # ask each time whether a file is still new
        super().end_headers()

    def log_message(self, *_: object) -> None: ...


def open_server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """Return a server for a folder on this machine alone; port 0 stands for any free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))


def main(words: list[str] | None = None) -> int:
    """Build and serve the page until Ctrl-C."""
    port = options.read(sys.argv[1:] if words is None else words, "demo", DEFAULTS, ALLOWED)["PORT"]
    try:
        server = open_server(FOLDER, int(port))  # first, as it is soon said that a port is in use
    except (OSError, OverflowError) as error:
        raise SystemExit(f"demo: PORT={port}: {error}; try another, such as PORT=8001") from error
    with server:
        try:
            folder = build()
        except (OSError, ValueError) as error:
            raise SystemExit(f"demo: {error}") from error
        address = f"http://127.0.0.1:{server.server_port}"
        print(f"demo: {folder} is at {address} until you press Ctrl-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
