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
from tools import demo
from tools.lessons import write

pytest_plugins = ["page_browser"]
PICTURE = Image.fromarray(draw_captchas(["7XKM"], stream(1, "page", 0, 0), 170, 80)[0])
TURNED = Image.Exif()
TURNED[0x0112] = 6  # the tag of orientation
GIVE = """([kind, content]) => {
    const bytes = Uint8Array.from(atob(content), (x) => x.charCodeAt());
    const files = new DataTransfer();
    if (content) files.items.add(new File([bytes], "a.png"));
    const options = { bubbles: true, cancelable: true, dataTransfer: files, clipboardData: files };
    document.body.dispatchEvent(new (kind === "drop" ? DragEvent : ClipboardEvent)(kind, options));
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
    demo.build(folder := tmp_path_factory.mktemp("demo") / "page")
    return folder


def visit(browser: Browser, address: str) -> Page:
    """Open the page and wait until it has read a captcha; `requests` has what it asked for."""
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.requests = []
    page.context.on("request", lambda request: page.requests.append(request.url))
    page.add_init_script("""window.urls = 0;
        URL.createObjectURL = (make => file => (urls++, make.call(URL, file)))(URL.createObjectURL);
        URL.revokeObjectURL = (end => url => (urls--, end.call(URL, url)))(URL.revokeObjectURL);""")
    page.goto(address)
    expect(page.locator("#verdict")).to_contain_text("it says")
    return page


@pytest.fixture(scope="module")
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    with serve(folder) as address:
        yield visit(browser, address)


def read(page: Page) -> tuple[str, float]:
    """Return the text and the confidence that the page shows."""
    percent = page.locator("#says").inner_text().partition(" % sure")[0]
    return page.locator("#text").inner_text(), float(percent) / 100


def give(page: Page, content: bytes, name: str = "a.png") -> str:
    """Choose a file; return what the page then says."""
    page.evaluate("text.textContent = answer.className = ''")
    page.locator("#file").set_input_files({"name": name, "mimeType": "", "buffer": content})
    page.locator("#text:not(:empty), .error").wait_for()
    return page.locator("#answer").inner_text()


def test_its_captchas_are_read_as_python_reads_them(page, folder):
    captchas = json.loads((folder / "page.json").read_text())["captchas"]
    readings = read_captchas([folder / captcha["file"] for captcha in captchas])
    for captcha, reading in zip(captchas, readings, strict=True):
        page.get_by_role("button", name=captcha["truth"]).press("Enter")
        sign = "✓ Right" if reading.text == captcha["truth"] else "✗ Wrong"
        expect(page.locator("#verdict")).to_have_text(f"{sign}: it says {captcha['truth']}")
        assert read(page) == (reading.text, pytest.approx(reading.confidence, abs=0.02))
        path = "".join(page.locator("#path > *").all_inner_texts())
        assert re.sub(r"(.)\1*", r"\1", path).replace("-", "") == reading.text


def test_a_picture_of_any_kind_is_read_as_python_reads_it(page):
    clear = PICTURE.convert("RGBA")
    clear.putalpha(PICTURE.convert("L").point(lambda level: 255 * (level < 220)))
    turned = PICTURE.transpose(Image.Transpose.ROTATE_90)
    large = saved(PICTURE.resize((510, 240)), "WEBP")
    for content in (saved(clear), large, saved(turned, "JPEG", quality=95, exif=TURNED)):
        give(page, content)
        reading = read_captcha(content)
        assert read(page) == ("7XKM", pytest.approx(reading.confidence, abs=0.1))
        assert reading.text == "7XKM"


def test_a_picture_of_any_size_is_as_wide_as_in_python_and_fits_a_phone(page):
    for size in [(170, 80), (33, 16), (31, 16), (500, 50), (90, 100)]:
        give(page, saved(Image.new("RGB", size)))
        width = network_width(*size)
        shown = page.evaluate("[picture.width, map.width, path.children.length]")
        assert shown == [width, width // 8, width // 8]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("kind", "message"), [
    ("drop", "no file in what you dropped"), ("paste", "no picture to paste")
])  # fmt: skip
def test_a_picture_can_be_dropped_and_pasted(page, kind, message):
    page.evaluate(GIVE, [kind, ""])
    expect(page.locator("#says")).to_contain_text(message)
    page.evaluate(GIVE, [kind, base64.b64encode(saved(PICTURE)).decode()])
    expect(page.locator("#text")).to_have_text("7XKM")


def test_what_is_no_captcha_gets_a_message_and_the_page_goes_on(page, tmp_path):
    assert re.search("notes.txt is not a picture.*PNG", give(page, b"hello", "notes.txt"))
    assert page.locator("figure").is_hidden()
    (tmp_path / "large.png").write_bytes(bytes(26_000_000))
    page.locator("#file").set_input_files(tmp_path / "large.png")
    expect(page.locator("#says")).to_contain_text("large.png has 26 MB")
    assert re.search("(nothing)[^✗]*another style", give(page, saved(Image.new("L", (9, 9)))))
    assert give(page, saved(PICTURE)).startswith("7XKM")
    assert page.evaluate("urls") == 0  # so the browser may forget each file


def test_no_other_host_is_asked_and_the_browser_would_refuse(page):
    give(page, saved(PICTURE))
    origin = page.evaluate("location.origin")
    assert all(url.startswith((origin, "blob:", "data:")) for url in page.requests)
    assert f"{origin}/ctc.onnx" in page.requests
    refused = page.evaluate("""new Promise((resolve) => {
        document.onsecuritypolicyviolation = (event) => resolve(event.blockedURI);
        fetch('https://example.com/a').then(resolve, () => 0);
    })""")
    assert refused == "https://example.com/a"


def test_the_page_reads_with_the_network_off(browser, folder):
    with serve(folder) as address:
        page = visit(browser, address)
        page.locator("#offline:visible").wait_for()
    page.reload()  # the server has gone
    expect(page.locator("#verdict")).to_contain_text("it says")
    assert give(page, saved(PICTURE)).startswith("7XKM")


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
    monkeypatch.setattr(demo, "build", Mock())
    interrupt = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupt)
    assert demo.main(["--port=0"]) == 0
    assert re.search(r"at http://127\.0\.0\.1:\d+", capsys.readouterr().out)
    with demo.open_server(tmp_path) as other, pytest.raises(SystemExit):
        demo.main([f"--port={other.server_port}"])
    assert "in use" in capsys.readouterr().err
