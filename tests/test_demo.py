"""The page of `make demo` reads in a browser what Python reads, and asks no other host."""

import base64
import functools
import json
import math
import re
import threading
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import browser
import pytest
from browser import Browser
from conftest import saved, snapshot
from PIL import Image

from captcha_reader import weights
from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.reading import Reading, network_width, read_captcha, read_captchas
from tools import demo
from tools.lessons import write

ANSWER = "document.getElementById('answer').innerText"
CLEAR = """
    document.getElementById('text').textContent = '';
    document.getElementById('answer').className = '';
"""
ANSWERED = "document.getElementById('text').textContent || document.querySelector('.error')"


TURNED = Image.Exif()
TURNED[0x0112] = 6  # the tag of orientation
EVENTS = {
    "drop": "new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer",
    "paste": "new ClipboardEvent('paste', {bubbles: true, cancelable: true, clipboardData",
}


def serve(folder: Path) -> ThreadingHTTPServer:
    server = demo.open_server(folder)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def stop(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as `make demo` builds it."""
    if not browser.PROGRAM:
        pytest.skip("there is neither Chromium nor Chrome")
    try:
        demo.package()
    except OSError as error:
        pytest.skip(str(error))
    return demo.build(tmp_path_factory.mktemp("demo") / "page")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ThreadingHTTPServer]:
    server = serve(folder)
    yield server
    stop(server)


@pytest.fixture(scope="module")
def chromium(server: ThreadingHTTPServer, tmp_path_factory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    opened.address = f"http://127.0.0.1:{server.server_port}/"
    opened.open(opened.address)
    opened.wait(ANSWERED)  # the page has read its first captcha
    yield opened
    opened.close()


@pytest.fixture
def page(chromium: Browser) -> Browser:
    """The page, with its second captcha read."""
    chromium.run(f"{CLEAR} document.querySelectorAll('#captchas button')[1].click()")
    chromium.wait(ANSWERED)
    return chromium


@pytest.fixture(scope="module")
def captchas(folder: Path) -> list[dict]:
    return json.loads((folder / "captchas.json").read_text())


@pytest.fixture(scope="module")
def readings(folder: Path, captchas: list[dict]) -> list[Reading]:
    """What Python reads in the captchas of the page."""
    return read_captchas([folder / captcha["file"] for captcha in captchas])


def answer(page: Browser) -> tuple[str, float]:
    """The text and the confidence that the page shows."""
    text, sure = page.run(f"{ANSWER}.split(/\\n+/).slice(0, 2)")
    return text, float(re.match(r"([\d.]+) % sure", sure)[1]) / 100


def give(page: Browser, content: bytes | int, name: str, how: str = "drop") -> str:
    """Drop or paste a file, of given bytes or of so many zeros; return what the page then says."""
    data = base64.b64encode(content).decode() if isinstance(content, bytes) else ""
    bits = f"Uint8Array.from(atob('{data}'), (x) => x.charCodeAt())" if data else "new Uint8Array"
    if isinstance(content, int):
        bits = f"new Uint8Array({content})"
    page.run(f"""{{
        {CLEAR}
        const transfer = new DataTransfer();
        transfer.items.add(new File([{bits}], {json.dumps(name)}));
        document.body.dispatchEvent({EVENTS[how]}: transfer}}));
    }}""")
    page.wait(ANSWERED)
    return page.run(ANSWER)


def test_all_bundled_captchas_are_read_as_python_reads_them(page, captchas, readings):
    assert len(captchas) == 20
    for number, (captcha, reading) in enumerate(zip(captchas, readings, strict=True)):
        page.run(f"document.querySelectorAll('#captchas button')[{number}].click()")
        page.wait(f"{ANSWER}.includes('it says {captcha['truth']}')")
        text, confidence = answer(page)
        assert text == reading.text and abs(confidence - reading.confidence) < 0.02
        sign = "✓ Right" if text == captcha["truth"] else "✗ Wrong"
        assert f"{sign}: it says {captcha['truth']}" in page.run(ANSWER)
        path = page.run("[...document.getElementById('path').children].map((x) => x.innerText)")
        assert len(path) == 16
        assert re.sub(r"(.)\1*", r"\1", "".join(path)).replace("-", "") == text
    assert sum(x.text == c["truth"] for x, c in zip(readings, captchas, strict=True)) >= 15


def test_the_map_has_the_answers_of_every_column(page):
    data = "document.getElementById('map').getContext('2d').getImageData(0, 0, 16, 37).data"
    cells = page.run(f"[...{data}].filter((_, i) => i % 4 === 3)")
    columns = [cells[t::16] for t in range(16)]
    assert all(math.isclose(sum(column), 255, abs_tol=5) for column in columns)
    names = page.run("[...document.getElementById('names').children].map((x) => x.innerText)")
    path = page.run("[...document.getElementById('path').children].map((x) => x.innerText)")
    assert [names[column.index(max(column))] for column in columns] == path


@pytest.mark.parametrize("size", [(170, 80), (160, 60), (240, 80)])
def test_a_captcha_of_any_size_is_read_as_python_reads_it(page, size):
    content = saved(Image.fromarray(draw_captchas(["7XKM"], stream(1, "page", 0, 0), *size)[0]))
    reading = read_captcha(content)
    assert give(page, content, "a.png").startswith(reading.text) and reading.text
    assert abs(answer(page)[1] - reading.confidence) < 0.1


@pytest.mark.parametrize("size", [(170, 80), (33, 16), (31, 16), (500, 50), (90, 100)])
def test_a_picture_of_any_size_is_shown_in_columns_of_eight_pixels(page, size):
    give(page, saved(Image.new("RGB", size)), "a.png")
    width = network_width(*size)
    shown = page.run("""[picture.width, picture.height, map.width, path.children.length,
        getComputedStyle(path).gridTemplateColumns.split(' ').length]""")
    assert shown == [width, 64, width // 8, width // 8, width // 8]
    # Each answer stands below what it is about, and the picture is not distorted.
    boxes = page.run("""[picture, path.firstChild, path.lastChild, map].map((x) => {
        const { left, right, width, height } = x.getBoundingClientRect();
        return [left, right, width / height];
    })""")
    (left, right, ratio), first, last, below = boxes
    assert ratio == pytest.approx(width / 64, rel=0.02)
    assert [first[0], last[1], *below[:2]] == pytest.approx([left, right] * 2, abs=1)


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_pictures_of_other_kinds_are_read_as_python_reads_them(page, folder, captchas, how):
    image = Image.open(folder / captchas[4]["file"])
    clear = image.convert("RGBA")
    clear.putalpha(image.convert("L").point(lambda level: 255 * (level < 220)))
    for name, content in {
        "a.png": saved(clear),
        "b.bmp": saved(image.resize((512, 256)), "BMP"),
        "c.webp": saved(image, "WEBP"),
        "d.gif": saved(image.convert("L"), "GIF"),
        "e.jpg": saved(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=TURNED),
    }.items():
        reading = read_captcha(content)
        assert give(page, content, name, how).startswith(reading.text)
        assert abs(answer(page)[1] - reading.confidence) < 0.1, name


def test_the_file_picker_reads(page, folder, readings):
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
    for number in (3, 3, 5):  # the same file again, too
        page.run(CLEAR)
        file = str(folder / f"captchas/{number:02d}.png")
        page.call("DOM.setFileInputFiles", nodeId=node, files=[file])
        page.wait(ANSWERED)
        assert answer(page)[0] == readings[number - 1].text


REFUSED = {
    "notes.txt": (b"hello", "not a picture"),
    "empty.png": (b"", "empty"),
    "half.png": (saved(Image.effect_noise((128, 64), 50))[:3_000], "damaged"),
    "wide.png": (saved(Image.new("1", (6_000, 5_000))), "6000 x 5000 pixels"),
    "large.png": (26_000_000, "26 MB"),
}


def test_what_is_no_captcha_gets_a_message_and_the_page_goes_on(page, folder, readings):
    captcha = (folder / "captchas/02.png").read_bytes()
    for name, (content, message) in REFUSED.items():
        said = give(page, content, name)
        assert re.search(f"{name} .*{message}.*PNG.* 25 MB and 25 million pixels", said)
        assert page.run("document.querySelector('figure').hidden")
        assert give(page, captcha, "a.png").startswith(readings[1].text)


def test_a_drop_or_paste_without_a_file_gets_a_message(page):
    for how, message in {
        "drop": "no file in what you dropped",
        "paste": "no picture to paste",
    }.items():
        page.run(f"document.body.dispatchEvent({EVENTS[how]}: new DataTransfer()}}))")
        assert message in page.run(ANSWER)


def test_what_looks_like_another_style_gets_a_warning(page):
    said = give(page, saved(Image.new("RGB", (170, 80), "white")), "white.png")
    assert said.startswith("(nothing)") and "another style" in said
    assert not page.run("document.getElementById('verdict').innerText")


def test_everything_works_with_the_keyboard(page, readings):
    page.open(page.address)
    page.wait(ANSWERED)
    focused = "document.activeElement"
    order = []
    for _ in range(4):
        page.press("Tab")
        order.append(page.run(f"{focused}.id || {focused}.title"))
        assert page.run(f"getComputedStyle({focused}).outlineStyle") == "solid"
    assert order == ["choose", "draw", readings[0].text, readings[1].text]
    page.press("Enter", "\r")
    page.wait(f"{ANSWER}.includes('{readings[1].text}')")
    page.run("document.getElementById('draw').focus()")
    page.press(" ", " ")  # the first was drawn when the page opened, so this is the second
    page.press(" ", " ")
    page.wait(f"{ANSWER}.includes('{readings[2].text}')")
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    page.run("document.getElementById('choose').focus()")
    page.press("Enter", "\r")
    browser.wait(lambda: page.run("1") and "Page.fileChooserOpened" in dict(page.events))
    page.call("Page.setInterceptFileChooserDialog", enabled=False)


def test_buttons_and_pictures_have_names_and_the_answer_is_announced(page):
    found = {"button": 0, "image": 0, "status": 0}
    for node in page.call("Accessibility.getFullAXTree")["nodes"]:
        role = node["role"]["value"]
        if role in found and not node["ignored"]:
            found[role] += 1
            assert role == "status" or node["name"]["value"], node
    assert found == {"button": 22, "image": 23, "status": 1}
    assert page.run("document.documentElement.lang") == "en"


def test_the_page_fits_a_phone(page):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    try:
        widest = saved(Image.new("RGB", (500, 50), "white"))
        for name, content in {"a.png": widest, "a" * 200 + ".txt": b"hello"}.items():
            give(page, content, name)
            widths = page.run("[innerWidth, document.documentElement.scrollWidth]")
            assert widths == [360, 360]
            spaces = page.run("[...path.children].map((x) => [x.scrollWidth, x.clientWidth])")
            assert all(text <= column for text, column in spaces)  # no answer over its neighbour
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")


def test_there_is_a_dark_mode(page):
    colours = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.call("Emulation.setEmulatedMedia", features=[feature])
        style = "getComputedStyle(document.documentElement)"
        for colour in page.run(f"[{style}.backgroundColor, {style}.color]"):
            colours.append(sum(map(int, re.findall(r"\d+", colour)[:3])) / 765)
    page.call("Emulation.setEmulatedMedia", features=[])
    paper, ink, dark_paper, dark_ink = colours
    assert paper > 0.9 > 0.2 > ink and dark_paper < 0.2 < 0.8 < dark_ink


def check_requests(page: Browser) -> None:
    """Check that the page and its service worker asked nobody else for anything."""
    asked = [x["request"]["url"] for kind, x in page.events if kind == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith((page.address, "blob:", "data:"))} == set()
    # Once by the page, once by its service worker: the worker's requests are watched, too.
    assert asked.count(f"{page.address}ctc.onnx") >= 2


def test_no_other_host_is_asked_and_the_browser_would_refuse(page):
    page.wait("!document.getElementById('offline').hidden")
    check_requests(page)
    refused = page.run("""new Promise((resolve) => {
        document.onsecuritypolicyviolation = (event) => resolve(event.blockedURI);
        fetch('https://example.com/a').then(resolve, () => 0);
    })""")
    assert refused == "https://example.com/a"


def test_the_page_reads_with_the_network_off(page, server, folder, readings):
    page.wait("!document.getElementById('offline').hidden")
    stop(server)  # so this test is the last of those with a browser
    off = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.call("Network.emulateNetworkConditions", **off)
    page.open(page.address)
    page.wait(ANSWERED)
    assert answer(page)[0] == readings[0].text
    content = (folder / "captchas/07.png").read_bytes()
    assert give(page, content, "a.png").startswith(readings[6].text)
    check_requests(page)


# Without a browser


def run(*words: str) -> str:
    """Return the message that `make demo` ends with."""
    with pytest.raises(SystemExit) as caught:
        demo.main(list(words))
    message = str(caught.value)
    assert message.startswith("demo: ") and "\n" not in message
    return message


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nothing was downloaded or built."""
    places = (tmp_path / "build" / "demo", tmp_path / "build" / "npm")
    monkeypatch.setattr(demo, "build", functools.partial(demo.build, *places))
    return tmp_path / "build"


def test_what_is_not_the_pinned_package_is_thrown_away(empty, tmp_path, monkeypatch):
    write(tmp_path / "mirror" / "onnxruntime-web" / "-" / demo.PACKAGE, "something else")
    server = serve(tmp_path / "mirror")
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
    assert "not the file that is pinned" in run("PORT=0")
    stop(server)
    assert not empty.exists()
    # Without a network, or with another answer than a package.
    assert "Connection refused" in (message := run("PORT=0")) and "npm_config_registry" in message
    assert not empty.exists()
    write(empty / "npm" / demo.PACKAGE, "half of it")  # what was damaged on the disk is not used
    assert "Connection refused" in run("PORT=0")


def test_a_wrong_port_and_a_missing_model_are_one_line(empty, monkeypatch):
    assert re.search("PORT=web .*8000", run("PORT=web"))
    assert re.search("PROT .*PORT$", run("PROT=8000"))
    assert re.search("PORT=70000.*PORT=8001", run("PORT=70000"))
    with demo.open_server(empty) as other:
        assert "in use" in run(f"PORT={other.server_port}")
    monkeypatch.setattr(weights, "find", functools.partial(weights.find, folder=empty))
    assert re.search("build/ctc.onnx.*`git checkout models`", run("PORT=0"))


def test_a_build_that_fails_leaves_the_page_as_it_was(folder, tmp_path, monkeypatch):
    write(tmp_path / "demo" / "index.html", "old")
    full = Mock(side_effect=OSError("no space left on device"))
    monkeypatch.setattr(demo, "draw_captchas_into", full)
    with pytest.raises(OSError, match="no space left"):
        demo.build(tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    monkeypatch.undo()
    assert snapshot(demo.build(tmp_path / "demo")) == snapshot(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_files_have_the_types_that_browsers_insist_on(tmp_path):
    server = serve(tmp_path)
    for name, kind in {"a.mjs": "text/javascript", "a.wasm": "application/wasm"}.items():
        write(tmp_path / name, "")
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{name}") as response:
            assert response.headers.get_content_type() == kind
    stop(server)


def test_ctrl_c_ends_it_quietly(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo, "build", lambda: tmp_path)
    interrupt = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupt)
    assert demo.main(["PORT=0"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"is at http://127\.0\.0\.1:\d+ until you press Ctrl-C", said)
