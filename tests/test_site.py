"""`make site` shows every lesson, needs no other host, and has no link that leads nowhere."""

import io
import shutil
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from conftest import NOTEBOOK, ROOT, edit, saved
from PIL import Image

from tools import lessons, publish

pytest.importorskip("myst_nb", reason="`make setup-site` adds it")
from playwright.sync_api import expect  # noqa: E402
from sphinx.cmd.build import main as sphinx  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated")  # in myst_parser
TINY = {
    "README.md": f"# Tiny\n\n[Lesson]({NOTEBOOK}), [code](notebooks_py), "
    "[中文](README.zh.md), [![badge](https://a.b/c.svg)](https://a.b).\n\n"
    f"| [1. Tiny]({NOTEBOOK}) | you know `x` | 5 |\n",
    "README.zh.md": "# 小\n\n[English](README.md#tiny)\n",
    "imgs/ctc.gif": saved(Image.new("L", (700, 9)), "GIF"),
    **{f".github/{name}.md": "# More\n" for name in ("CONTRIBUTING", "DEPENDENCIES", "ORIGINAL")},
}


def build(root: Path, folder: Path) -> tuple[Path, str]:
    """Make the site of the repository `root` as `make site` does; return it, and its warnings."""
    (pages := folder / "pages").mkdir(parents=True)
    words = ["-c", f"{ROOT}/tools/site", "--quiet", str(pages), str(folder / "site")]
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()) as warnings:
        patch.setattr(lessons, "ROOT", root)
        assert sphinx(words) == 0
    return folder / "site", warnings.getvalue()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site of this repository."""
    site, warnings = build(ROOT, tmp_path_factory.mktemp("site"))
    assert not warnings  # `make site` fails if there are any
    return site


def test_a_reader_finds_the_way_and_loads_nothing_from_another_host(site, browser):
    page, requests = browser.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((site / "index.html").as_uri())
    for name in [lesson.name for lesson in lessons.find(ROOT)]:
        page.set_viewport_size({"width": 1280, "height": 1000})
        page.locator("a.right-next").click()
        page.wait_for_url(f"**/notebooks/{name}.html")
        expect(page.locator("nav.page-toc")).to_be_visible()
        expect(page.locator("button.copybtn").first).to_be_attached()
        download = page.locator("a.btn-download-source-button").get_attribute("href")
        assert download.endswith(f"{name}.ipynb") and (site / "notebooks" / download).is_file()
        texts = [picture.get_attribute("alt") for picture in page.locator("article img").all()]
        assert all("picture" in text for text in texts)  # and not the name of a file
        page.set_viewport_size({"width": 390, "height": 1000})  # a phone scrolls up and down alone
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert [url for url in requests if not url.startswith("file:")] == []


def test_the_start_page_leads_to_the_demo_and_to_each_lesson(site, browser):
    page = browser.new_page()
    page.goto((site / "404.html").as_uri())
    page.get_by_role("link", name="the start page").click()
    page.wait_for_url("**/index.html")
    expect(page.get_by_role("link", name="Try it")).to_have_attribute("href", "demo/index.html")
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


def test_pages_have_buttons_and_links_into_the_repository_once_it_has_an_address(site, mini):
    for name, text in TINY.items():
        lessons.write(mini / name, text)
    shutil.copy(mini / NOTEBOOK, mini / "notebooks" / "solutions.ipynb")
    edit(mini / "pyproject.toml", "YOUR_NAME/captcha-lessons", "ada/tiny")
    links = ("ch2_b.ipynb", "#nowhere", "../README.md#gone")
    edit(mini / NOTEBOOK, "A picture.", " ".join(f"[to]({link})" for link in links))
    tiny, warnings = build(mini, mini / "build")
    lines = warnings.splitlines()
    assert all(NOTEBOOK in line for line in lines), warnings  # these links alone lead nowhere
    assert all(any(link.rpartition("#")[2] in line for line in lines) for link in links), warnings

    def read(site: Path, *pages: str) -> list[str]:
        return [(site / f"{page}.html").read_text("utf-8") for page in pages]

    front, chinese, lesson, start, missing = read(
        tiny, "about", "zh", "notebooks/ch1_circles", "index", "404"
    )
    assert f"https://colab.research.google.com/github/ada/tiny/blob/main/{NOTEBOOK}" in lesson
    assert 'href="https://github.com/ada/tiny/blob/main/README.md?plain=1"' in front
    assert 'href="https://github.com/ada/tiny/blob/main/notebooks_py"' in front
    assert "og:image" in start and '<base href="https://ada.github.io/tiny/">' in missing
    assert "c.svg" not in front and "<math" in lesson and "//cdn" not in lesson
    assert 'href="zh.html"' in front and 'href="about.html#tiny"' in chinese
    assert 'lang="en"' in front and 'lang="zh-Hans"' in chinese
    assert 'name="description" content="You know x."' in lesson
    ours = "".join(read(site, "about", "index", "404", "notebooks/ch1_captcha_preview"))
    assert "YOUR_NAME" not in ours
    for text in ("colab.research", "?plain=1", "og:image", "<base"):
        assert (text in ours) == bool(lessons.address(ROOT)), text
