"""The page of `make demo` reads in a browser what Python reads, and asks no other host."""

import base64
import functools
import io
import json
import math
import re
import threading
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import browser
import demo
import pytest
from browser import Browser
from conftest import snapshot
from PIL import Image

from captcha_reader import weights
from captcha_reader.reading import Reading, read_captchas

ANSWER = "document.getElementById('answer').innerText"
CLEAR = """
    document.getElementById('text').textContent = '';
    document.getElementById('answer').className = '';
"""
ANSWERED = "document.getElementById('text').textContent || document.querySelector('.error')"


def serve(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    server = demo.open_server(folder, port)
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
def chromium(
    server: ThreadingHTTPServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
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
    event = {
        "drop": "DragEvent('drop', {dataTransfer",
        "paste": "ClipboardEvent('paste', {clipboardData",
    }
    page.run(f"""{{
        {CLEAR}
        const transfer = new DataTransfer();
        transfer.items.add(new File([{bits}], {json.dumps(name)}));
        document.body.dispatchEvent(new {event[how]}: transfer, bubbles: true, cancelable: true}}));
    }}""")
    page.wait(ANSWERED)
    return page.run(ANSWER)


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    image.save(content := io.BytesIO(), kind)
    return content.getvalue()


def test_all_bundled_captchas_are_read_as_python_reads_them(
    page: Browser, captchas: list[dict], readings: list[Reading]
) -> None:
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


def test_the_map_has_the_answers_of_every_column(page: Browser) -> None:
    cells = page.run(
        "[...document.getElementById('map').getContext('2d').getImageData(0, 0, 16, 37).data]"
        ".filter((_, i) => i % 4 === 3)"
    )
    columns = [cells[t::16] for t in range(16)]
    assert all(math.isclose(sum(column), 255, abs_tol=5) for column in columns)
    names = page.run("[...document.getElementById('names').children].map((x) => x.innerText)")
    path = page.run("[...document.getElementById('path').children].map((x) => x.innerText)")
    assert [names[column.index(max(column))] for column in columns] == path


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_pictures_of_other_kinds_are_read_as_python_reads_them(
    page: Browser, folder: Path, captchas: list[dict], how: str
) -> None:
    image = Image.open(folder / captchas[4]["file"])
    clear = image.convert("RGBA")
    clear.putalpha(image.convert("L").point(lambda level: 255 * (level < 220)))
    kinds = {
        "a.png": saved(image),
        "b.png": saved(clear),
        "c.bmp": saved(image.resize((512, 256)), "BMP"),
        "d.webp": saved(image.resize((170, 80)), "WEBP"),
        "e.gif": saved(image.convert("L"), "GIF"),
    }
    for (name, content), reading in zip(
        kinds.items(), read_captchas([*kinds.values()]), strict=True
    ):
        assert give(page, content, name, how).startswith(reading.text)
        assert abs(answer(page)[1] - reading.confidence) < 0.1, name


def test_the_file_picker_reads(page: Browser, folder: Path, readings: list[Reading]) -> None:
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
    for number in (3, 3, 5):  # the same file again, too
        page.run(CLEAR)
        file = str(folder / f"captchas/{number:02d}.png")
        page.call("DOM.setFileInputFiles", nodeId=node, files=[file])
        page.wait(ANSWERED)
        assert answer(page)[0] == readings[number - 1].text


REFUSED = {
    "notes.txt": (b"hello", "is not a picture that a browser can open"),
    "empty.png": (b"", "is empty"),
    "half.png": (saved(Image.effect_noise((128, 64), 50))[:3_000], "is damaged"),
    "wide.png": (saved(Image.new("1", (6_000, 5_000))), "has 6000 x 5000 pixels"),
    "large.png": (26_000_000, "has 26 MB"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_captcha_gets_a_message_and_the_page_goes_on(
    page: Browser, folder: Path, readings: list[Reading], name: str
) -> None:
    content, message = REFUSED[name]
    expected = "A PNG, JPEG, GIF or WebP is expected, of at most 25 MB and 25 million pixels."
    assert give(page, content, name).strip() == f"{name} {message}. {expected}"
    assert page.run("document.querySelector('figure').hidden")
    captcha = (folder / "captchas/02.png").read_bytes()
    assert give(page, captcha, "a.png").startswith(readings[1].text)


def test_a_drop_or_paste_without_a_file_gets_a_message(page: Browser) -> None:
    for event, key, message in (
        ("DragEvent('drop'", "dataTransfer", "There was no file in what you dropped."),
        ("ClipboardEvent('paste'", "clipboardData", "There was no picture to paste."),
    ):
        page.run(
            f"document.body.dispatchEvent("
            f"new {event}, {{{key}: new DataTransfer(), bubbles: true}}))"
        )
        assert page.run(ANSWER).strip().startswith(message)


def test_what_looks_like_another_style_gets_a_warning(page: Browser) -> None:
    said = give(page, saved(Image.new("RGB", (128, 64), "white")), "white.png")
    assert said.startswith("(nothing)") and "Not four characters: this may be another" in said
    assert not page.run("document.getElementById('verdict').innerText")


def test_everything_works_with_the_keyboard(page: Browser, readings: list[Reading]) -> None:
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


def test_buttons_and_pictures_have_names_and_the_answer_is_announced(page: Browser) -> None:
    found = {"button": 0, "image": 0, "status": 0}
    for node in page.call("Accessibility.getFullAXTree")["nodes"]:
        role = node["role"]["value"]
        if role in found and not node["ignored"]:
            found[role] += 1
            assert role == "status" or node["name"]["value"], node
    assert found == {"button": 22, "image": 23, "status": 1}
    assert page.run("document.documentElement.lang") == "en"


def test_the_page_fits_a_phone(page: Browser) -> None:
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    try:
        for name in ("", "a" * 200 + ".txt"):
            if name:
                give(page, b"hello", name)
            widths = page.run("[innerWidth, document.documentElement.scrollWidth]")
            assert widths == [360, 360]
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")


def test_there_is_a_dark_mode(page: Browser) -> None:
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


def test_no_other_host_is_asked_and_the_browser_would_refuse(page: Browser) -> None:
    page.wait("!document.getElementById('offline').hidden")
    check_requests(page)
    refused = page.run("""new Promise((resolve) => {
        document.onsecuritypolicyviolation = (event) => resolve(event.blockedURI);
        fetch('https://example.com/a').then(resolve, () => 0);
    })""")
    assert refused == "https://example.com/a"


def test_the_page_reads_with_the_network_off(
    page: Browser, server: ThreadingHTTPServer, folder: Path, readings: list[Reading]
) -> None:
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


@pytest.mark.parametrize("name", ["npm_config_registry", "NPM_CONFIG_REGISTRY"])
def test_what_is_not_the_pinned_package_is_thrown_away(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mirror = tmp_path / "mirror"
    package = mirror / "onnxruntime-web" / "-" / demo.PACKAGE
    package.parent.mkdir(parents=True)
    package.write_bytes(b"something else")
    server = serve(mirror)
    for other in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}/")
    assert "is not the file that is pinned here, so it was thrown away" in run("PORT=0")
    stop(server)
    assert not empty.exists()
    # Without a network, or with another answer than a package.
    assert "Connection refused" in (message := run("PORT=0")) and "npm_config_registry" in message
    assert not empty.exists()


def test_a_package_that_was_damaged_on_the_disk_is_not_used(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty / "npm").mkdir(parents=True)
    (empty / "npm" / demo.PACKAGE).write_bytes(b"half of it")
    monkeypatch.setenv("npm_config_registry", "nonsense")
    assert "nonsense/onnxruntime-web/-/onnxruntime-web-" in run("PORT=0")


def test_a_missing_model_is_one_line(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find", functools.partial(weights.find, folder=empty))
    expected = "demo: there is no build/ctc.onnx; `git checkout models` brings it back"
    assert run("PORT=0") == expected


def test_a_wrong_port_is_one_line(empty: Path) -> None:
    assert run("PORT=web") == "demo: PORT=web must be the number of a port, such as 8000"
    assert run("PROT=8000") == "demo: PROT is not an option; the options are PORT"
    assert run("PORT=70000").endswith("; try another, such as PORT=8001")
    with demo.open_server(empty) as other:
        assert "in use; try another" in run(f"PORT={other.server_port}")


def test_a_build_that_fails_leaves_the_page_as_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(page: Path) -> None:
        raise OSError("no space left on device")

    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "index.html").write_text("old")
    monkeypatch.setattr(demo, "draw_captchas_into", fail)
    with pytest.raises(OSError, match="no space left"):
        demo.build(tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    monkeypatch.undo()
    assert snapshot(demo.build(tmp_path / "demo")) == snapshot(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_files_have_the_types_that_browsers_insist_on(tmp_path: Path) -> None:
    kinds = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}
    server = serve(tmp_path)
    for suffix, kind in kinds.items():
        (tmp_path / f"a{suffix}").write_text("")
        address = f"http://127.0.0.1:{server.server_port}/a{suffix}"
        with urllib.request.urlopen(address) as response:
            assert response.headers.get_content_type() == kind
    stop(server)


def test_ctrl_c_ends_it_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def interrupt(server: ThreadingHTTPServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "build", lambda: tmp_path)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupt)
    assert demo.main(["PORT=0"]) == 0
    assert re.search(
        r"is at http://127\.0\.0\.1:\d+ until you press Ctrl-C", capsys.readouterr().out
    )
