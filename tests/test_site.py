"""`make site` shows every lesson, needs no other host, and has no link that leads nowhere."""

import base64
from pathlib import Path

import pytest
from conftest import ROOT, edit, saved
from demo_server import build_demo, serve
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from tools import lessons, publish

pytest.importorskip("myst_nb", reason="`make setup-site` adds it")
from playwright.sync_api import expect  # noqa: E402
from sphinx.cmd.build import main as sphinx  # noqa: E402

pytest_plugins = ["page_browser"]
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated")  # in myst_parser
TINY = {
    "README.md": "# Tiny\n\n[Lesson](notebooks/ch1_a.ipynb), [code](notebooks_py), "
    "[中文](README.zh.md), [![badge](https://a.b/c.svg)](https://a.b).\n\n"
    "| [1. Tiny](notebooks/ch1_a.ipynb) | you know `x` | 5 |\n",
    "README.zh.md": "# 小\n\n[English](README.md#tiny)\n",
    "notebooks_py/ch1_a.py": "",
    "imgs/ctc.gif": saved(Image.new("L", (700, 9)), "GIF"),
    "pyproject.toml": '[project]\ndescription = "All"\n[project.urls]\nRepository = "https://github.com/YOUR_NAME/tiny"\n',
    **{f".github/{name}.md": "# More\n" for name in ("CONTRIBUTING", "DEPENDENCIES", "ORIGINAL")},
}


def build(root: Path, folder: Path) -> bool:
    """Make the site of the repository `root` as `make site` does; return whether all went well."""
    (pages := folder / "pages").mkdir(parents=True)
    words = ["-c", f"{ROOT}/tools/site", "--quiet", "--fail-on-warning", "--keep-going"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lessons, "ROOT", root)
        return sphinx([*words, str(pages), str(folder / "site")]) == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site of this repository."""
    folder = tmp_path_factory.mktemp("site")
    assert build(ROOT, folder)
    return folder / "site"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return a repository of a README, also in Chinese, and one lesson."""
    for name, text in TINY.items():
        lessons.write(tmp_path / name, text)
    texts = ("# 1. A lesson\n\n*Lesson 1 of 1 · 5 minutes*", "Take $x^2$.\n\n## Then")
    png = base64.b64encode(saved(Image.new("L", (700, 9)))).decode()
    drawn = new_output("display_data", {"image/png": png})
    cells = [*map(new_markdown_cell, texts), new_code_cell("draw()", outputs=[drawn])]
    for name in ("ch1_a", "solutions"):
        lessons.write_notebook(
            tmp_path / f"notebooks/{name}.ipynb",
            new_notebook(cells=cells, metadata=lessons.METADATA),
        )
    return tmp_path


def test_a_reader_finds_the_way_and_loads_nothing_from_another_host(site, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    phone = browser.new_page(viewport={"width": 390, "height": 1000})
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((site / "index.html").as_uri())
    for name in [lesson.name for lesson in lessons.find(ROOT)]:
        page.locator("a.right-next").click()
        page.wait_for_url(f"**/notebooks/{name}.html")
        expect(page.locator("nav.page-toc")).to_be_visible()
        expect(page.locator("button.copybtn").first).to_be_attached()
        download = page.locator("a.btn-download-source-button").get_attribute("href")
        assert download.endswith(f"{name}.ipynb") and (site / "notebooks" / download).is_file()
        texts = [picture.get_attribute("alt") for picture in page.locator("article img").all()]
        assert all("picture" in text for text in texts)  # and not the name of a file
        phone.goto(page.url)  # it scrolls up and down alone
        assert phone.evaluate("document.documentElement.scrollWidth") == 390
    assert [url for url in requests if not url.startswith("file:")] == []


def test_the_start_page_has_a_card_for_each_lesson(site, browser):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    cards = page.locator(".cards li")
    taught = lessons.find(ROOT)[:-1]  # the last are the solutions
    expect(cards).to_have_count(len(taught))
    for card, lesson in zip(cards.all(), taught, strict=True):
        expect(card).to_contain_text(f"{publish.minutes(lesson.read())} minutes")
        expect(card.get_by_role("link")).to_have_attribute("href", f"notebooks/{lesson.name}.html")
    card.click()  # anywhere
    page.wait_for_url(f"**/notebooks/{lesson.name}.html")


def test_a_figure_opens_alone_and_on_a_phone_it_keeps_its_size_and_scrolls(site, browser):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((site / "notebooks" / "ch5_loss_curves.html").as_uri())
    for figure in page.locator(".cell_output a:has(img)").all():
        assert figure.evaluate("x => x.scrollWidth > x.clientWidth")
    figure.press("Enter")
    page.wait_for_url("**/*.png")


def test_the_demo_reads_a_captcha_under_the_site(site, browser):
    build_demo(site / "demo")
    page = browser.new_page()
    with serve(site) as address:
        page.goto(address)
        page.get_by_role("link", name="Try it").click()
        page.wait_for_url("**/demo/index.html")
        expect(page.locator("#verdict")).to_contain_text("it says", timeout=60_000)


def test_a_page_that_is_not_there_leads_to_the_start(site, browser):
    page = browser.new_page()
    page.goto((site / "404.html").as_uri())
    page.get_by_role("link", name="the start page").click()
    page.wait_for_url("**/index.html")


@pytest.mark.parametrize("address", ["", "https://github.com/ada/tiny"])
def test_buttons_and_links_into_the_repository_need_its_address(tiny, address):
    if address:
        edit(tiny / "pyproject.toml", "https://github.com/YOUR_NAME/tiny", address)
    assert build(tiny, tiny / "build")
    pages = ("about", "zh", "notebooks/ch1_a", "index", "404")
    site = tiny / "build" / "site"
    front, chinese, lesson, start, missing = (
        (site / f"{page}.html").read_text("utf-8") for page in pages
    )
    colab = "https://colab.research.google.com/github/ada/tiny/blob/main/notebooks/ch1_a.ipynb"
    assert (colab in lesson) == bool(address)
    assert (f'href="{address}/blob/main/README.md?plain=1"' in front) == bool(address)
    assert (f'href="{address}/blob/main/notebooks_py"' in front) == bool(address)
    assert "YOUR_NAME" not in front + lesson and "c.svg" not in front
    assert "<math" in lesson and "//cdn" not in lesson
    assert 'href="zh.html"' in front and 'href="about.html#tiny"' in chinese
    assert 'lang="en"' in front and 'lang="zh-Hans"' in chinese
    assert 'name="description" content="You know x."' in lesson
    assert ("og:image" in start) == bool(address)
    assert ('<base href="https://ada.github.io/tiny/">' in missing) == bool(address)


@pytest.mark.parametrize("link", ["ch2_b.ipynb", "#nowhere", "../README.md#nowhere"])
def test_a_link_that_leads_nowhere_is_named(tiny, capsys, link):
    edit(tiny / "notebooks/ch1_a.ipynb", "Take ", f"[to]({link}) ")
    assert not build(tiny, tiny / "build")
    message = capsys.readouterr().err
    assert "ch1_a.ipynb" in message and link.rpartition("#")[2] in message
