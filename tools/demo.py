"""Make a page that reads captchas in the browser, and serve it: `make demo PORT=8000`.

The page is the folder build/demo: what is in tools/page, models/ctc.onnx, twenty captchas to try,
and ONNX Runtime for browsers from npm's registry, or the mirror that npm_config_registry names.
"""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import tarfile
import threading
import urllib.request
import webbrowser
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from captcha_reader import weights
from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.reading import read_captchas
from captcha_reader.styles import draw_style
from captcha_reader.texts import random_texts
from tools import options
from tools.lessons import ROOT, write

# Another version has another digest: `npm view onnxruntime-web@1.30.0 dist.integrity`.
PACKAGE = "onnxruntime-web-1.30.0.tgz"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")  # all that a CPU needs
MIRROR = "npm_config_registry"  # the variable that names another registry than npm's, as for npm


def package(cache: Path = ROOT / "build" / "npm") -> Path:
    """Return ONNX Runtime's package, a file in `cache`; download it if it is not there."""
    path = cache / PACKAGE
    if path.exists():
        return path
    registry = os.environ.get(MIRROR) or "https://registry.npmjs.org"
    address = f"{registry.rstrip('/')}/onnxruntime-web/-/{PACKAGE}"
    print(f"demo: downloading {address} (33 MB, once)", flush=True)
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content = answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        cure = f"try again, or name a mirror of npm's registry in the variable {MIRROR}"
        raise OSError(f"{address} can't be downloaded: {error}; {cure}") from error
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != SHA512:  # as npm writes it
        raise ValueError(f"{address} is not the file that is pinned here, so it was thrown away")
    write(path, content)
    return path


def samples() -> list[tuple[str, np.ndarray]]:
    """Draw twenty captchas: 16 that our network reads, the first three it doesn't, one foreign.

    They are shuffled, but the first is one that it reads.
    """
    rng, right, wrong = stream(2019, "demo", epoch=0, index=0), [], []
    while len(wrong) < 3 or len(right) < 16:
        texts = random_texts(rng, 100)
        pictures = draw_captchas(texts, rng)
        for text, picture, reading in zip(texts, pictures, read_captchas(pictures), strict=True):
            (right if reading.text == text else wrong).append((text, picture))
    (text,) = random_texts(rng, 1)
    others = [*right[1:16], *wrong[:3], (text, draw_style("colours", [text], rng)[0])]
    rng.shuffle(others)
    return [right[0], *others]


def build(folder: Path) -> None:
    """Make the page anew."""
    model, runtime = weights.find("ctc.onnx"), package()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(__file__).parent / "page", folder)
    shutil.copy(model, folder)
    with tarfile.open(runtime) as tar:
        for name in RUNTIME:
            file = folder / name.replace(".mjs", ".js")  # some servers know no type for .mjs
            file.write_bytes(tar.extractfile(f"package/dist/{name}").read())
    (folder / "captchas").mkdir()
    captchas = []
    for i, (text, picture) in enumerate(samples(), 1):
        captchas.append({"file": f"captchas/{i:02d}.png", "truth": text})
        Image.fromarray(picture).save(folder / captchas[-1]["file"])
    needed = [model.name, RUNTIME[1]]  # the page shows how much of them has come
    scores = weights.read_results("ctc")["scores"]["classic-10k"]
    about = {
        "captchas": captchas,
        "files": needed,
        "bytes": sum((folder / name).stat().st_size for name in needed),
        "right": 100 * scores["right"] // scores["n"],
    }
    write(folder / "page.json", json.dumps(about))
    # The service worker keeps these files; what changes in one of them changes the name.
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    names = ["./", *(path.relative_to(folder).as_posix() for path in files)]
    constants = f"const CACHE = 'captcha-lessons-{digest}', FILES = {json.dumps(names)};\n"
    worker = folder / "worker.js"
    write(worker, constants + worker.read_text(encoding="utf-8"))


class Handler(SimpleHTTPRequestHandler):
    """Serves files with the types that browsers insist on, and logs nothing."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {  # Windows may know others
        ".js": "text/javascript", ".wasm": "application/wasm"
    }  # fmt: skip

    def copyfile(self, source, outputfile) -> None:
        with contextlib.suppress(ConnectionError):  # the page was closed, or loaded anew
            super().copyfile(source, outputfile)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # ask each time whether a copy is current
        super().end_headers()

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    """Serves each request in a thread; a port that is in use is an error everywhere."""

    allow_reuse_address = os.name == "posix"  # on Windows, two servers could share a port


def open_server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """Return a server for a folder on this machine alone; port 0 stands for any free one."""
    return Server(("127.0.0.1", port), partial(Handler, directory=str(folder)))


def main(words: list[str] | None = None) -> None:
    """Build and serve the page until Ctrl-C."""
    parser = options.parser("demo", "Open a page on this machine that reads captchas.")
    parser.add_argument("--port", type=int, default=8000, help="the port of the page, such as 8001")
    port, folder = parser.parse_args(words).port, ROOT / "build" / "demo"
    try:
        server = open_server(folder, port)  # first, as it is soon said that a port is in use
    except (OSError, OverflowError) as error:
        parser.error(f"PORT={port}: {error}; try another, such as PORT=8001")
    build(folder)
    address = f"http://127.0.0.1:{server.server_port}"
    print(f"demo: {folder} is at {address} until you press Ctrl-C", flush=True)
    # In a thread, as some browsers block it until they are closed; without one it is False.
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    options.end_with(main)
