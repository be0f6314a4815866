"""The page of `make demo` reads in a browser what Python reads, and asks no other host."""

import base64
import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import saved
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.reading import network_width, read_captcha, read_captchas
from captcha_reader.texts import ALPHABET
from captcha_reader.weights import MODELS
from tools import demo
from tools.lessons import write

pytest_plugins = ["page_browser"]
PICTURE = Image.fromarray(draw_captchas(["7XKM"], stream(1, "page", 0, 0), 170, 80)[0])
TURNED = Image.Exif()
TURNED[0x0112] = 6  # the tag of orientation
# Counts the object URLs that are alive.
COUNT = """
    window.alive = 0;
    const { createObjectURL, revokeObjectURL } = URL;
    URL.createObjectURL = (file) => { alive++; return createObjectURL.call(URL, file); };
    URL.revokeObjectURL = (url) => { alive--; revokeObjectURL.call(URL, url); };
"""
GIVE = """([how, content, name]) => {
    text.textContent = "";
    answer.className = "";
    const transfer = new DataTransfer();
    const bytes = typeof content === "number" ? new Uint8Array(content)
        : Uint8Array.from(atob(content), (x) => x.charCodeAt());
    if (name) transfer.items.add(new File([bytes], name));
    const options = { bubbles: true, cancelable: true };
    document.body.dispatchEvent(how === "drop"
        ? new DragEvent("drop", { ...options, dataTransfer: transfer })
        : new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
}"""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder; the address is what `with` gives."""
    with demo.open_server(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page as `make demo` builds it."""
    try:
        demo.package()
    except OSError as error:
        if "GITHUB_ACTIONS" in os.environ:
            raise
        pytest.skip(str(error))
    return demo.build(tmp_path_factory.mktemp("demo") / "page")


def visit(browser: Browser, address: str) -> Page:
    """Open the page and wait until it has read a captcha; `requests` has what it asked for."""
    page = browser.new_page()
    page.requests = []
    page.context.on("request", lambda request: page.requests.append(request.url))
    page.add_init_script(COUNT)
    page.goto(address)
    expect(page.locator("#verdict")).to_contain_text("it says")
    return page


@pytest.fixture(scope="module")
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    with serve(folder) as address:
        yield visit(browser, address)


def give(page: Page, content: bytes | int, name: str, how: str = "drop") -> str:
    """Drop or paste a file (none, without a name); return what the page then says.

    Its content is given as bytes, or as a number of zeros.
    """
    if isinstance(content, bytes):
        content = base64.b64encode(content).decode()
    page.evaluate(GIVE, [how, content, name])
    page.locator("#text:not(:empty), .error").wait_for()
    return page.locator("#answer").inner_text()


def answer(page: Page) -> tuple[str, float]:
    """Return the text and the confidence that the page shows."""
    sure = re.match(r"([\d.]+) % sure", page.locator("#says").inner_text())
    return page.locator("#text").inner_text(), float(sure[1]) / 100


def test_its_captchas_are_read_as_python_reads_them(page, folder):
    captchas = json.loads((folder / "page.json").read_text())["captchas"]
    readings = read_captchas([folder / captcha["file"] for captcha in captchas])
    for captcha, reading in zip(captchas, readings, strict=True):
        page.get_by_role("button", name=captcha["truth"]).click()
        sign = "✓ Right" if reading.text == captcha["truth"] else "✗ Wrong"
        expect(page.locator("#verdict")).to_have_text(f"{sign}: it says {captcha['truth']}")
        assert answer(page) == (reading.text, pytest.approx(reading.confidence, abs=0.02))
        path = "".join(page.locator("#path > *").all_inner_texts())
        assert re.sub(r"(.)\1*", r"\1", path).replace("-", "") == reading.text
    assert sum(x.text == c["truth"] for x, c in zip(readings, captchas, strict=True)) >= 15


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_of_any_kind_is_read_as_python_reads_it(page, how):
    clear = PICTURE.convert("RGBA")
    clear.putalpha(PICTURE.convert("L").point(lambda level: 255 * (level < 220)))
    turned = PICTURE.transpose(Image.Transpose.ROTATE_90)
    for name, content in {
        "transparent.png": saved(clear),
        "large.webp": saved(PICTURE.resize((510, 240)), "WEBP"),
        "turned.jpg": saved(turned, "JPEG", quality=95, exif=TURNED),
    }.items():
        reading = read_captcha(content)
        assert give(page, content, name, how).startswith(reading.text) and reading.text
        assert answer(page)[1] == pytest.approx(reading.confidence, abs=0.1), name


def test_a_picture_of_any_size_is_as_wide_as_in_python_and_fits_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 740})
    for size in [(170, 80), (33, 16), (31, 16), (500, 50), (90, 100)]:
        give(page, saved(Image.new("RGB", size)), "a.png")
        width = network_width(*size)
        shown = page.evaluate("[picture.width, map.width, path.children.length]")
        assert shown == [width, width // 8, width // 8]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 1280, "height": 720})


def test_the_file_picker_and_the_keyboard_work(page):
    for _ in range(2):  # the same file again, too
        page.evaluate("text.textContent = ''")
        file = {"name": "a.png", "mimeType": "image/png", "buffer": saved(PICTURE)}
        page.locator("#file").set_input_files(file)
        expect(page.locator("#text")).to_have_text("7XKM")
    second = page.locator("#captchas button").nth(1)
    page.locator("#choose").focus()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(second).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_contain_text(second.get_attribute("title"))


def test_what_is_no_captcha_gets_a_message_and_the_page_goes_on(page):
    for name, content, message in [
        ("notes.txt", b"hello", "notes.txt is not a picture.*PNG"),
        ("half.png", saved(Image.effect_noise((128, 64), 50))[:3_000], "half.png is not a picture"),
        ("large.png", 26_000_000, "large.png has 26 MB.*at most 25 MB"),
        ("", b"", "no file in what you dropped"),
    ]:
        assert re.search(message, give(page, content, name))
        assert page.locator("figure").is_hidden()
    assert "no picture to paste" in give(page, b"", "", "paste")
    assert re.search("(nothing)[^✗]*another style", give(page, saved(Image.new("L", (9, 9))), "a"))
    assert give(page, saved(PICTURE), "a.png").startswith("7XKM")
    assert page.evaluate("alive") == 0  # each file may be forgotten


def test_no_other_host_is_asked_and_the_browser_would_refuse(page):
    give(page, saved(PICTURE), "a.png")
    origin = page.evaluate("location.origin")
    assert all(url.startswith((origin, "blob:", "data:")) for url in page.requests)
    assert f"{origin}/ctc.onnx" in page.requests
    refused = page.evaluate("""new Promise((resolve) => {
        document.onsecuritypolicyviolation = (event) => resolve(event.blockedURI);
        fetch('https://example.com/a').then(resolve, () => 0);
    })""")
    assert refused == "https://example.com/a"


def test_the_page_has_the_alphabet_of_its_network(browser, folder, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    backwards = onnx.load(MODELS / "ctc.onnx")
    onnx.helper.set_model_props(backwards, {"alphabet": ALPHABET[::-1], "sha256": ""})
    onnx.save(backwards, tmp_path / "ctc.onnx")
    monkeypatch.setattr(demo.weights, "find", lambda name: tmp_path / name)
    expected = "7XKM".translate(str.maketrans(ALPHABET, ALPHABET[::-1]))
    with serve(demo.build(tmp_path / "page")) as address:
        assert give(visit(browser, address), saved(PICTURE), "a.png").startswith(expected)


def test_the_page_reads_with_the_network_off(browser, folder):
    with serve(folder) as address:
        page = visit(browser, address)
        page.locator("#offline:visible").wait_for()
    page.reload()  # the server has gone
    expect(page.locator("#verdict")).to_contain_text("it says")
    assert give(page, saved(PICTURE), "a.png").startswith("7XKM")


# Without a browser


def test_what_is_not_the_pinned_package_is_thrown_away(tmp_path, monkeypatch):
    write(tmp_path / "onnxruntime-web" / "-" / demo.PACKAGE, "something else")
    with serve(tmp_path) as address:
        monkeypatch.setenv(demo.MIRROR, address)
        with pytest.raises(ValueError, match="not the file that is pinned"):
            demo.package(tmp_path / "npm")
    assert not (tmp_path / "npm").exists()
    with pytest.raises(OSError, match=f"{address}.*{demo.MIRROR}"):
        demo.package(tmp_path / "npm")


def test_the_command_serves_the_page_until_ctrl_c(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo, "build", lambda: tmp_path)
    interrupt = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupt)
    assert demo.main(["--port=0"]) == 0
    assert re.search(r"at http://127\.0\.0\.1:\d+", capsys.readouterr().out)
    with demo.open_server(tmp_path) as other, pytest.raises(SystemExit):
        demo.main([f"--port={other.server_port}"])
    assert "in use" in capsys.readouterr().err
