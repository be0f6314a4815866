"""`make site` shows every lesson, needs no other host, and has no link that leads nowhere."""

import shutil
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
def tiny(mini: Path) -> Path:
    """Return the repository of one lesson, with a README, also in Chinese."""
    for name, text in TINY.items():
        lessons.write(mini / name, text)
    shutil.copy(mini / NOTEBOOK, mini / "notebooks" / "solutions.ipynb")
    return mini


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


@pytest.mark.parametrize("owner", ["YOUR_NAME", "ada"])
def test_buttons_and_links_into_the_repository_need_its_address(tiny, owner):
    address = f"https://github.com/{owner}/tiny"
    edit(tiny / "pyproject.toml", "YOUR_NAME/captcha-lessons", f"{owner}/tiny")
    assert build(tiny, tiny / "build")
    front, chinese, lesson, start, missing = (
        (tiny / "build" / "site" / f"{page}.html").read_text("utf-8")
        for page in ("about", "zh", "notebooks/ch1_circles", "index", "404")
    )
    colab = f"https://colab.research.google.com/github/ada/tiny/blob/main/{NOTEBOOK}"
    for text, page in {
        colab: lesson,
        f'href="{address}/blob/main/README.md?plain=1"': front,
        f'href="{address}/blob/main/notebooks_py"': front,
        "og:image": start,
        '<base href="https://ada.github.io/tiny/">': missing,
    }.items():
        assert (text in page) == (owner == "ada"), text
    assert "YOUR_NAME" not in front + lesson and "c.svg" not in front
    assert "<math" in lesson and "//cdn" not in lesson
    assert 'href="zh.html"' in front and 'href="about.html#tiny"' in chinese
    assert 'lang="en"' in front and 'lang="zh-Hans"' in chinese
    assert 'name="description" content="You know x."' in lesson


def test_links_that_lead_nowhere_are_named(tiny, capsys):
    links = ("ch2_b.ipynb", "#nowhere", "../README.md#gone")
    edit(tiny / NOTEBOOK, "A picture.", " ".join(f"[to]({link})" for link in links))
    assert not build(tiny, tiny / "build")
    messages = [x for x in capsys.readouterr().err.splitlines() if NOTEBOOK in x]
    assert all(any(link.rpartition("#")[2] in x for x in messages) for link in links), messages
