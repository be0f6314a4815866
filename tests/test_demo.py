"""The page of `make demo` reads in a browser what Python reads, and asks no other host."""

import base64
import contextlib
import json
import operator
import re
import threading
import webbrowser
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import TURNED, do_without, saved
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from captcha_reader import weights
from captcha_reader.__main__ import main
from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.reading import PROPERTY, read_captchas, to_pixels
from captcha_reader.texts import ALPHABET
from tools import demo, kinds
from tools.lessons import write

expect.set_options(timeout=30_000)  # milliseconds, where another program takes the processor
PICTURE = Image.fromarray(draw_captchas(["7XKM"], stream(1, "page", 0, 0), 170, 80)[0])
SCREEN = Image.new("RGB", (400, 200), "steelblue")  # a captcha in a screenshot
SCREEN.paste("white", (0, 0, 400, 20))
SCREEN.paste(PICTURE, (116, 58))
GIVE = """([kind, content]) => {
    const bytes = Uint8Array.from(atob(content), (x) => x.charCodeAt());
    const files = new DataTransfer();
    if (content) files.items.add(new File([bytes], "a.png"));
    const options = { bubbles: true, cancelable: true, dataTransfer: files, clipboardData: files };
    document.body.dispatchEvent(new (kind === "drop" ? DragEvent : ClipboardEvent)(kind, options));
}"""
SHIFT = """window.shift = 0;
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => shift += entry.value))
        .observe({ type: "layout-shift", buffered: true });"""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder; the address is what `with` gives."""
    with demo.open_server(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the page of `make demo`, for which ONNX Runtime is downloaded."""
    try:
        demo.package()
    except OSError as error:
        do_without(error)
    demo.build(folder := tmp_path_factory.mktemp("site") / "demo")
    return folder


@pytest.fixture(scope="module")
def truths(folder: Path) -> dict[str, str]:
    """Return what its captchas say, by their files."""
    captchas = json.loads((folder / "page.json").read_text())["captchas"]
    return {captcha["file"]: captcha["truth"] for captcha in captchas}


def visit(browser: Browser, address: str) -> Page:
    """Open the page and wait until it has read a captcha."""
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.add_init_script(SHIFT)
    page.goto(address)
    expect(page.locator("#verdict")).to_contain_text("the captcha says")
    return page


@pytest.fixture(scope="module")
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    """Open the page in a folder of the server, as `make site` has it."""
    with serve(folder.parent) as site:
        yield visit(browser, f"{site}demo/")


def file(content: bytes, name: str = "a.png") -> dict:
    """Return a file as Playwright wants it."""
    return {"name": name, "mimeType": "", "buffer": content}


def give(page: Page, content: bytes) -> str:
    """Choose a picture; return what the page then says."""
    page.evaluate("text.textContent = says.textContent = answer.className = ''")
    page.locator("#file").set_input_files(file(content))
    page.locator("#says:not(:empty)").wait_for()
    return page.locator("#answer").inner_text()


def test_of_its_captchas_it_tells_which_it_reads_right_and_shows_the_way_to_each_text(page, truths):
    for i, truth in enumerate(truths.values(), 1):
        page.get_by_role("button", name=f"Captcha {i}", exact=True).press("Enter")
        expect(page.locator("#verdict")).to_contain_text(f": the captcha says {truth}")
        text = page.locator("#text").inner_text()
        sign = "✓ Right" if text == truth else "✗ Wrong"
        assert page.locator("#verdict").inner_text() == f"{sign}: the captcha says {truth}"
        path = "".join(page.locator("#path > *").all_inner_texts())
        assert re.sub(r"(.)\1*", r"\1", path).replace("-", "") == text


def test_pictures_of_all_kinds_and_sizes_are_read_as_in_python(page, tmp_path, capsys):
    draws = enumerate(3 * list(kinds.PICTURES.values()))
    pictures = [draw(stream(3, "page", 0, i))[0] for i, draw in draws]
    sizes = ((9, 9), (33, 16), (31, 16), (500, 50), (90, 100))
    contents = [saved(x) for x in (*pictures, *(Image.new("RGB", size) for size in sizes))]
    contents.append(saved(PICTURE.resize((510, 240)), "WEBP"))
    (large := Image.new("RGB", (4000, 2000), "steelblue")).paste(PICTURE, (1900, 900))
    contents.append(saved(large))
    turned = PICTURE.transpose(Image.Transpose.ROTATE_90)
    contents.append(saved(turned, "JPEG", quality=95, exif=TURNED))
    assert len(contents) >= 50
    for i, content in enumerate(contents):
        (tmp_path / f"{i:02}.png").write_bytes(content)
    main(["--json", str(tmp_path)])
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    for content, line, reading in zip(contents, lines, read_captchas(contents), strict=True):
        assert (line["text"], line["confidence"]) == (reading.text, reading.confidence)
        says = give(page, content)
        if reading.text:
            text, percent, *_ = says.split()
            sure = pytest.approx(100 * reading.confidence, abs=3)
            assert (text, float(percent)) == (reading.text, sure)
        else:
            assert says.startswith("No characters found")
        columns = to_pixels(content).shape[1] // 8
        assert page.evaluate("[map.width, path.children.length]") == [columns, columns]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert reading.text == "7XKM"


def test_what_it_says_fits_the_reading(page):
    rng = stream(3, "page", 0, 0)
    notes = {"8KPM": [], "KX7": ["one to six"], "MAK0T": ["one to six", "confused"]}
    for text, expected in notes.items():
        says = give(page, saved(Image.fromarray(draw_captchas([text], rng, 170)[0])))
        assert says.startswith(text) and re.findall("one to six|confused", says) == expected


@pytest.mark.parametrize(("kind", "message"), [
    ("drop", "no file in what you dropped"), ("paste", "no picture to paste")
])  # fmt: skip
def test_a_picture_can_be_dropped_and_pasted(page, kind, message):
    page.evaluate(GIVE, [kind, ""])
    expect(page.locator("#says")).to_contain_text(message)
    page.evaluate(GIVE, [kind, base64.b64encode(saved(PICTURE)).decode()])
    expect(page.locator("#text")).to_have_text("7XKM")


def test_several_pictures_are_read_into_a_list_and_what_is_none_says_why(page, tmp_path):
    frames = {"save_all": True, "append_images": [PICTURE.rotate(9)], "duration": 100}
    animated = {kind: saved(PICTURE, kind, **frames) for kind in ("GIF", "WEBP", "PNG")}
    refused = {
        "large.png": (bytes(26_000_000), "is 26 MB"),
        "notes.txt": (b"hello", "is not a picture.*PNG"),
        "a.svg": (b"<svg></svg>", "is an SVG drawing; save it as PNG"),
        **{f"a.{kind}": (animated[kind], "is animated; save one frame of it") for kind in animated},
    }
    rows = {"first.png": (saved(PICTURE), "7XKM")}
    rows |= {name: (content, "not read") for name, (content, _) in refused.items()}
    rows["last.gif"] = (saved(PICTURE, "GIF", duration=100), "7XKM")  # it has one frame
    for name, (content, _) in rows.items():
        (tmp_path / name).write_bytes(content)
    page.locator("#file").set_input_files([tmp_path / name for name in rows])
    row = page.locator("#list li")
    expect(row).to_have_text([re.compile(f"{name}.*{text}") for name, (_, text) in rows.items()])
    for i, (name, (_, message)) in enumerate(refused.items(), 1):
        row.nth(i).get_by_role("button").click()
        expect(page.locator("#says")).to_contain_text(re.compile(f"{name} {message}"))
        expect(page.locator("#map")).to_be_hidden()
    row.last.get_by_role("button").click()
    expect(page.locator("#text")).to_have_text("7XKM")


def test_a_frame_crops_by_mouse_and_by_keys_and_the_whole_picture_comes_back(page):
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
    page.get_by_role("button", name="show a frame").press("Enter")
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowLeft", "Shift+ArrowUp"):
        page.keyboard.press(key)
    style = page.locator("#frame").get_attribute("style")
    shares = [float(share) for share in re.findall(r"[\d.]+", style)]
    assert shares == pytest.approx([27, 27, 48, 48])  # of the picture, in percent: left to height
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_text("7XKM")


def test_a_network_of_your_own_reads_with_its_alphabet_and_what_is_none_is_refused(page):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(weights.find("ctc.onnx"))

    def choose(alphabet: str) -> None:
        properties = {PROPERTY: json.dumps(weights.described(alphabet, None))}
        onnx.helper.set_model_props(model, properties)
        content = model.SerializeToString() if alphabet else saved(PICTURE)
        page.locator("#model").set_input_files(file(content, "mine.onnx"))

    for other in ("", "0123456789"):
        page.locator("#other").scroll_into_view_if_needed()
        choose(other)
        expect(page.locator("#says")).to_contain_text('mine.onnx was not written by "make export"')
        expect(page.locator("#says")).to_be_in_viewport()
        assert give(page, saved(PICTURE)).startswith("7XKM")
    choose(own := ALPHABET.lower())
    expect(page.locator("#text")).to_have_text("7xkm")
    expect(page.locator("#whose")).to_contain_text(f"mine.onnx is in use now. It knows {own}")
    expect(page.locator("#right")).to_be_hidden()  # what is said about ours
    page.locator("#file").set_input_files(2 * [file(saved(PICTURE))])
    expect(page.locator("#list")).to_contain_text("7xkm")
    page.get_by_role("button", name="Use ours again").click()
    expect(page.locator("#right")).to_be_visible()
    expect(page.locator("#text")).to_have_text("7XKM")
    expect(page.locator("#list")).not_to_contain_text("7xkm")


def test_in_the_game_both_scores_are_counted_and_no_answer_is_given_away(page, folder, truths):
    readings = read_captchas(folder / file for file in truths)
    network = sum(map(operator.eq, (reading.text for reading in readings), truths.values()))
    assert network in (16, 17)  # the foreign one may be read
    page.get_by_role("button", name="You or the network?").click()
    shown = page.locator("#game, #captchas").evaluate_all("all => all.map(x => x.outerHTML).join()")
    assert not [truth for truth in truths.values() if truth in shown]
    for i in range(20):
        expect(page.locator("#count")).to_have_text(f"Captcha {i + 1} of 20")
        truth = truths[page.locator("#question").get_attribute("src")]
        page.locator("#typed").fill(truth.lower() if i else "WRONG")
        page.keyboard.press("Enter")
        expect(page.locator("#result")).to_contain_text(f"The captcha says {truth}")
        page.locator("#typed").press("Enter") if i < 19 else None
    expect(page.locator("#score")).to_have_text(f"You 19, the network {network}")
    page.get_by_role("button", name="Close").click()


def test_no_other_host_is_asked_and_the_browser_would_refuse(page):
    asked = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert f"{page.url}ctc.onnx" in asked
    assert all(url.startswith((page.url, "blob:", "data:")) for url in asked)
    refused = page.evaluate("""new Promise((resolve) => {
        document.onsecuritypolicyviolation = (event) => resolve(event.blockedURI);
        fetch('https://example.com/a').then(resolve, () => 0);
    })""")
    assert refused == "https://example.com/a"


def test_nothing_jumps_a_reading_is_seen_at_once_and_the_page_reads_offline(browser, folder):
    with serve(folder) as address:
        page = visit(browser, address)
        page.locator("#offline:visible").wait_for()
        assert page.evaluate("shift") < 0.05
    page.reload()  # the server has gone
    expect(page.locator("#verdict")).to_contain_text("the captcha says")
    for width, height in ((1280, 800), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        assert give(page, saved(PICTURE)).startswith("7XKM")
        bottom = page.locator("#map").bounding_box()
        assert page.locator("#picture").bounding_box()["y"] > 0
        assert bottom["y"] + bottom["height"] < height


@pytest.mark.parametrize(("level", "expected"), [
    ("255", "Your browser hides"),  # white
    ("undefined.data", "Your browser hides"),  # an error
    ("256 * Math.random()", "Your browser hides"),
    ("level + 24 * Math.random() - 12", "Your browser hides"),
    ("level + 6 * Math.random() - 3", "% sure"),  # so little noise hinders no reading
])  # fmt: skip
def test_a_browser_that_hides_pixels_is_found_out(browser, page, level, expected):
    other = browser.new_page()
    other.add_init_script(f"""const getImageData = CanvasRenderingContext2D.prototype.getImageData;
        CanvasRenderingContext2D.prototype.getImageData = function (...box) {{
            const image = getImageData.apply(this, box);
            image.data.forEach((level, i, data) => (data[i] = {level}));
            return image;
        }}""")
    other.goto(page.url)
    expect(other.locator("#says")).to_contain_text(expected)


def test_loading_shows_how_much_has_come(browser, page):
    other = browser.new_page()
    other.route("**/ctc.onnx", lambda route: None)  # it never comes
    other.goto(page.url)
    expect(other.locator("#progress")).to_have_attribute("value", re.compile(r"0\.8"))


def test_what_is_not_the_pinned_package_is_thrown_away(tmp_path, monkeypatch):
    monkeypatch.setenv(demo.MIRROR, mirror := tmp_path.as_uri())
    with pytest.raises(OSError, match=f"{mirror}.*{demo.MIRROR}"):
        demo.package(tmp_path / "npm")
    write(tmp_path / "onnxruntime-web" / "-" / demo.PACKAGE, "something else")
    with pytest.raises(ValueError, match="not the file that is pinned"):
        demo.package(tmp_path / "npm")
    assert not (tmp_path / "npm").exists()


def test_the_command_opens_the_page_and_serves_it_until_ctrl_c(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo, "build", Mock())
    monkeypatch.setattr(webbrowser, "open", opened := Mock(return_value=False))  # there is none
    interrupt = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupt)
    demo.main(["--port=0"])
    address = re.search(r"at (http://127\.0\.0\.1:\d+)", capsys.readouterr().out)[1]
    opened.assert_called_once_with(address)
    with demo.open_server(tmp_path) as other, pytest.raises(SystemExit):
        demo.main([f"--port={other.server_port}"])
    assert "try another" in capsys.readouterr().err
