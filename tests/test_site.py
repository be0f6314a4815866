"""`make site` shows every lesson, needs no other host, and has no link that leads nowhere."""

from pathlib import Path

import pytest
from conftest import ROOT, edit
from nbformat.v4 import new_markdown_cell, new_notebook

from tools import lessons

pytest.importorskip("myst_nb", reason="`make setup-site` adds it")
from playwright.sync_api import expect  # noqa: E402
from sphinx.cmd.build import main as sphinx  # noqa: E402

pytest_plugins = ["page_browser"]
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated")  # in myst_parser
TINY = {
    "README.md": "# Tiny\n\n[Lesson](notebooks/ch1_a.ipynb), [code](notebooks_py), "
    "[中文](README.zh.md), [![badge](https://a.b/c.svg)](https://a.b).\n",
    "README.zh.md": "# 小\n\n[English](README.md#tiny)\n",
    "notebooks_py/ch1_a.py": "",
    "imgs/a.png": "",
    "pyproject.toml": '[project.urls]\nRepository = "https://github.com/YOUR_NAME/tiny"\n',
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
    cells = [new_markdown_cell("# A lesson"), new_markdown_cell("Take $x^2$.\n\n## Then")]
    for name in ("ch1_a", "solutions"):
        lessons.write_notebook(tmp_path / f"notebooks/{name}.ipynb", new_notebook(cells=cells))
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


@pytest.mark.parametrize("address", ["", "https://github.com/ada/tiny"])
def test_buttons_and_links_into_the_repository_need_its_address(tiny, address):
    if address:
        edit(tiny / "pyproject.toml", "https://github.com/YOUR_NAME/tiny", address)
    assert build(tiny, tiny / "build")
    pages = ("index", "zh", "notebooks/ch1_a")
    site = tiny / "build" / "site"
    front, chinese, lesson = ((site / f"{page}.html").read_text("utf-8") for page in pages)
    colab = "https://colab.research.google.com/github/ada/tiny/blob/main/notebooks/ch1_a.ipynb"
    assert (colab in lesson) == bool(address)
    assert (f'href="{address}/blob/main/README.md?plain=1"' in front) == bool(address)
    assert (f'href="{address}/blob/main/notebooks_py"' in front) == bool(address)
    assert "YOUR_NAME" not in front + lesson and "c.svg" not in front
    assert "<math" in lesson and "//cdn" not in lesson
    assert 'href="zh.html"' in front and 'href="index.html#tiny"' in chinese
    assert 'lang="en"' in front and 'lang="zh-Hans"' in chinese


@pytest.mark.parametrize("link", ["ch2_b.ipynb", "#nowhere", "../README.md#nowhere"])
def test_a_link_that_leads_nowhere_is_named(tiny, capsys, link):
    edit(tiny / "notebooks/ch1_a.ipynb", "# A lesson", f"# A lesson\\n\\n[to]({link})")
    assert not build(tiny, tiny / "build")
    message = capsys.readouterr().err
    assert "ch1_a.ipynb" in message and link.rpartition("#")[2] in message
