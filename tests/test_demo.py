"""The page of `make demo` reads in a browser what Python reads, and asks no other host."""

import base64
import json
import re
import webbrowser
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import saved
from demo_server import build_demo, serve
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from captcha_reader import weights
from captcha_reader.__main__ import main
from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.reading import network_width, read_captchas
from captcha_reader.texts import ALPHABET
from tools import demo, kinds
from tools.lessons import write

pytest_plugins = ["page_browser"]
expect.set_options(timeout=30_000)  # milliseconds, where another program takes the processor
PICTURE = Image.fromarray(draw_captchas(["7XKM"], stream(1, "page", 0, 0), 170, 80)[0])
SCREEN = Image.new("RGB", (400, 200), "steelblue")  # a captcha in a screenshot
SCREEN.paste("white", (0, 0, 400, 20))
SCREEN.paste(PICTURE, (116, 58))
TURNED = Image.Exif()
TURNED[0x0112] = 6  # the tag of orientation
GIVE = """([kind, content]) => {
    const bytes = Uint8Array.from(atob(content), (x) => x.charCodeAt());
    const files = new DataTransfer();
    if (content) files.items.add(new File([bytes], "a.png"));
    const options = { bubbles: true, cancelable: true, dataTransfer: files, clipboardData: files };
    document.body.dispatchEvent(new (kind === "drop" ? DragEvent : ClipboardEvent)(kind, options));
}"""
COUNT = """window.urls = window.shift = 0;
    URL.createObjectURL = (make => file => (urls++, make.call(URL, file)))(URL.createObjectURL);
    URL.revokeObjectURL = (end => url => (urls--, end.call(URL, url)))(URL.revokeObjectURL);
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => shift += entry.value))
        .observe({ type: "layout-shift", buffered: true });"""


def write_network(path: Path, alphabet: str) -> Path:
    """Write the finished network with an alphabet of one's own, as `make export` does."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(weights.find("ctc.onnx"))
    how = {"version": 1, "alphabet": alphabet, "height": 64, "width": "free", "filter": "bilinear"}
    properties = {"alphabet": alphabet, "sha256": "", "captcha_reader": json.dumps(how)}
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page as `make demo` builds it."""
    return build_demo(tmp_path_factory.mktemp("demo") / "page")


def visit(browser: Browser, address: str, width: int = 360, height: int = 740) -> Page:
    """Open the page and wait until it has read a captcha; `requests` has what it asked for."""
    page = browser.new_page(viewport={"width": width, "height": height})
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


def read(page: Page) -> tuple[str, float]:
    """Return the text and the confidence that the page shows."""
    percent = page.locator("#says").inner_text().partition(" % sure")[0]
    return page.locator("#text").inner_text(), float(percent) / 100


def give(page: Page, content: bytes, name: str = "a.png") -> str:
    """Choose a file; return what the page then says."""
    page.evaluate("text.textContent = says.textContent = answer.className = ''")
    page.locator("#file").set_input_files({"name": name, "mimeType": "", "buffer": content})
    page.locator("#says:not(:empty)").wait_for()
    return page.locator("#answer").inner_text()


def test_its_captchas_are_read_as_python_reads_them(page, folder):
    captchas = json.loads((folder / "page.json").read_text())["captchas"]
    readings = read_captchas([folder / captcha["file"] for captcha in captchas])
    for i, (captcha, reading) in enumerate(zip(captchas, readings, strict=True), 1):
        page.get_by_role("button", name=f"Captcha {i}", exact=True).press("Enter")
        sign = "✓ Right" if reading.text == captcha["truth"] else "✗ Wrong"
        expect(page.locator("#verdict")).to_have_text(f"{sign}: it says {captcha['truth']}")
        assert read(page) == (reading.text, pytest.approx(reading.confidence, abs=0.02))
        path = "".join(page.locator("#path > *").all_inner_texts())
        assert re.sub(r"(.)\1*", r"\1", path).replace("-", "") == reading.text
    wrong = sum(x.text != captcha["truth"] for x, captcha in zip(readings, captchas, strict=True))
    assert wrong in (3, 4)  # the foreign one may be read


def test_fifty_pictures_of_all_kinds_are_read_alike_by_page_command_and_python(
    page, tmp_path, capsys
):
    for i, draw in enumerate(4 * list(kinds.KINDS.values())):
        picture, _ = draw(stream(3, "page", 0, i))
        picture.save(tmp_path / f"{i:02}.png")
    turned = PICTURE.transpose(Image.Transpose.ROTATE_90)
    (tmp_path / "turned.jpg").write_bytes(saved(turned, "JPEG", quality=95, exif=TURNED))
    PICTURE.resize((510, 240)).save(tmp_path / "large.webp")
    assert main(["--json", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    readings = read_captchas(sorted(tmp_path.iterdir()))
    assert len(lines) == len(readings) == 54 and readings[-1].text == "7XKM"
    for line, reading in zip(lines, readings, strict=True):
        assert (line["text"], line["confidence"]) == (reading.text, reading.confidence)
        says = give(page, Path(line["file"]).read_bytes())
        if reading.text:
            assert read(page) == (reading.text, pytest.approx(reading.confidence, abs=0.03))
        else:
            assert says.startswith("No characters found")


def test_a_picture_of_any_size_is_as_wide_as_in_python_and_fits_a_phone(page):
    for size in [(170, 80), (33, 16), (31, 16), (500, 50), (90, 100)]:
        give(page, saved(Image.new("RGB", size)))
        columns = network_width(*size) // 8
        assert page.evaluate("[map.width, path.children.length]") == [columns, columns]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_it_says_fits_the_reading(page):
    rng = stream(3, "page", 0, 0)
    say = [give(page, saved(Image.fromarray(draw_captchas([text], rng, 170)[0])))
           for text in ("8KPM", "KX7", "MAK0T")]  # fmt: skip
    assert [text.split()[0] for text in say] == ["8KPM", "KX7", "MAK0T"]
    assert [["one to six" in text, "mistaken" in text] for text in say] == [
        [False, False], [True, False], [True, True]
    ]  # fmt: skip
    nothing = give(page, saved(Image.new("L", (9, 9))))
    assert re.match("No characters found[^%]*usually helps", nothing)


@pytest.mark.parametrize(("kind", "message"), [
    ("drop", "no file in what you dropped"), ("paste", "no picture to paste")
])  # fmt: skip
def test_a_picture_can_be_dropped_and_pasted(page, kind, message):
    page.evaluate(GIVE, [kind, ""])
    expect(page.locator("#says")).to_contain_text(message)
    page.evaluate(GIVE, [kind, base64.b64encode(saved(PICTURE)).decode()])
    expect(page.locator("#text")).to_have_text("7XKM")


def test_several_pictures_are_read_into_a_list(page):
    names = ["first.png", "notes.txt", "last.png"]
    files = [{"name": name, "mimeType": "", "buffer": saved(PICTURE)} for name in names]
    files[1]["buffer"] = b"hello"
    page.locator("#file").set_input_files(files)
    row = page.locator("#list li")
    expect(row).to_have_text(
        [re.compile(x) for x in ("first.*7XKM", "notes.*not read", "last.*7XKM")]
    )
    row.nth(1).get_by_role("button").click()
    expect(page.locator("#says")).to_contain_text("notes.txt is not a picture")


def test_a_dragged_frame_crops_and_the_whole_picture_comes_back(page):
    give(page, saved(SCREEN))
    page.locator("#picture").scroll_into_view_if_needed()
    box = page.locator("#picture").bounding_box()
    x, y, scale = box["x"], box["y"], box["width"] / SCREEN.width
    page.mouse.move(x + 108 * scale, y + 50 * scale)
    page.mouse.down()
    page.mouse.move(x + 294 * scale, y + 146 * scale, steps=3)
    page.mouse.up()
    expect(page.locator("#text")).to_have_text("7XKM")
    page.get_by_role("button", name="whole picture").click()
    expect(page.locator("#text")).not_to_have_text("7XKM")
    assert page.evaluate("picture.width") == SCREEN.width


def test_a_frame_is_set_with_the_keys(page):
    give(page, saved(SCREEN))
    page.get_by_role("button", name="show a frame").press("Enter")
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowLeft", "Shift+ArrowUp"):
        page.keyboard.press(key)
    style = page.locator("#frame").get_attribute("style")
    shares = [float(share) for share in re.findall(r"[\d.]+", style)]
    assert shares == pytest.approx([27, 27, 48, 48])  # of the picture, in percent: left to height
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_text("7XKM")


def test_a_network_of_your_own_reads_with_its_own_alphabet(page, tmp_path):
    own = write_network(tmp_path / "mine.onnx", ALPHABET.lower())
    give(page, saved(PICTURE))
    page.locator("#model").set_input_files(own)
    expect(page.locator("#text")).to_have_text("7xkm")
    expect(page.locator("#whose")).to_contain_text(
        f"mine.onnx reads now. It knows {ALPHABET.lower()}"
    )
    page.get_by_role("button", name="Take ours again").click()
    expect(page.locator("#text")).to_have_text("7XKM")


@pytest.mark.parametrize("alphabet", ["", "0123456789"])
def test_what_is_no_such_network_gets_a_message(page, tmp_path, alphabet):
    own = tmp_path / "mine.onnx"
    write_network(own, alphabet) if alphabet else own.write_bytes(saved(PICTURE))
    page.locator("#model").set_input_files(own)
    expect(page.locator("#says")).to_contain_text('mine.onnx is no network of "make export"')
    assert give(page, saved(PICTURE)).startswith("7XKM")


def test_in_the_game_both_scores_are_counted_and_no_answer_is_given_away(page, folder):
    captchas = json.loads((folder / "page.json").read_text())["captchas"]
    truths = {captcha["file"]: captcha["truth"] for captcha in captchas}
    readings = read_captchas([folder / file for file in truths])
    network = sum(x.text == truth for x, truth in zip(readings, truths.values(), strict=True))
    page.get_by_role("button", name="You or the network?").click()
    shown = page.locator("#game, #captchas").evaluate_all("all => all.map(x => x.outerHTML).join()")
    assert not [truth for truth in truths.values() if truth in shown]
    for i in range(20):
        expect(page.locator("#count")).to_have_text(f"Captcha {i + 1} of 20")
        truth = truths[page.locator("#question").get_attribute("src")]
        page.locator("#typed").fill(truth.lower() if i else "WRONG")
        page.keyboard.press("Enter")
        expect(page.locator("#result")).to_contain_text(f"It says {truth}")
        page.locator("#typed").press("Enter") if i < 19 else None
    expect(page.locator("#score")).to_have_text(f"You 19 : {network} the network")
    page.get_by_role("button", name="Close").click()


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_all_of_a_reading_is_seen_at_once_and_nothing_jumps(browser, folder, size):
    with serve(folder) as address:
        page = visit(browser, address, *size)
        give(page, saved(PICTURE))
    bottom = page.locator("#map").bounding_box()
    assert page.locator("#picture").bounding_box()["y"] > 0
    assert bottom["y"] + bottom["height"] < size[1]
    assert page.evaluate("shift") < 0.05


@pytest.mark.parametrize("answer", [
    "new ImageData(new Uint8ClampedArray(4 * w * h).fill(255), w, h)",
    "new ImageData(new Uint8ClampedArray(4 * w * h).map(() => 256 * Math.random()), w, h)",
    "undefined.data",
])  # fmt: skip
def test_a_browser_that_hides_pixels_is_found_out(browser, folder, answer):
    page = browser.new_page()
    hide = f"CanvasRenderingContext2D.prototype.getImageData = (x, y, w, h) => {answer}"
    page.add_init_script(hide)
    with serve(folder) as address:
        page.goto(address)
        expect(page.locator("#says")).to_contain_text("Your browser hides the pixels")


def test_without_javascript_there_is_a_sentence(browser, folder):
    page = browser.new_context(java_script_enabled=False).new_page()
    with serve(folder) as address:
        page.goto(address)
        expect(page.locator("noscript p")).to_contain_text("needs JavaScript")


def test_loading_shows_how_much_has_come(browser, folder):
    page = browser.new_page()
    page.route("**/ctc.onnx", lambda route: None)  # it never comes
    with serve(folder) as address:
        page.goto(address)
        expect(page.locator("#progress")).to_have_attribute("value", re.compile(r"0\.8"))


def test_what_is_no_captcha_gets_a_message_and_the_page_goes_on(page, tmp_path):
    assert re.search("notes.txt is not a picture.*PNG", give(page, b"hello", "notes.txt"))
    assert page.locator("#map").is_hidden()
    (tmp_path / "large.png").write_bytes(bytes(26_000_000))
    page.locator("#file").set_input_files(tmp_path / "large.png")
    expect(page.locator("#says")).to_contain_text("large.png has 26 MB")
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


def test_the_command_opens_the_page_and_serves_it_until_ctrl_c(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo, "build", Mock())
    monkeypatch.setattr(webbrowser, "open", opened := Mock(return_value=False))  # there is none
    interrupt = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupt)
    assert demo.main(["--port=0"]) == 0
    address = re.search(r"at (http://127\.0\.0\.1:\d+)", capsys.readouterr().out)[1]
    opened.assert_called_once_with(address)
    with demo.open_server(tmp_path) as other, pytest.raises(SystemExit):
        demo.main([f"--port={other.server_port}"])
    assert "in use" in capsys.readouterr().err
