"""`make site` shows every lesson, needs no other host, and has no link that leads nowhere."""

import re
from pathlib import Path

import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import lessons

pytest.importorskip("myst_nb", reason="`make setup-site` adds it")
from tools import website  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated")  # in myst_parser

LOADED = re.compile(r"<(?:script|img|link|source)\b[^>]*?(?:src|href)=\"([^\"]+)\"|url\(([^)]+)\)")
LESSONS = [lesson.name for lesson in lessons.find(ROOT)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as GitHub builds it."""
    folder = tmp_path_factory.mktemp("site") / "site"
    assert website.build(folder=folder, repository="owner/name")
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A repository of a README, also in Chinese, and one lesson."""
    files = {
        "README.md": "# Tiny\n\n[Lesson](notebooks/ch1_a.ipynb), [code](notebooks_py), "
                     "[中文](README.zh.md), [![badge](https://a.b/c.svg)](https://a.b).\n",
        "README.zh.md": "# 小\n\n[English](README.md#tiny)\n",
        "notebooks_py/ch1_a.py": "",
        "imgs/a.png": "",
    }  # fmt: skip
    for name, text in files.items():
        lessons.write(tmp_path / name, text)
    text = "Take $x^2$.\n\n## Then\n\n[a](#then)"
    fetch = new_code_cell("!pip install captcha", metadata={"tags": ["colab"]})
    cells = [new_markdown_cell("# A lesson"), fetch, new_markdown_cell(text)]
    lessons.write_notebook(tmp_path / "notebooks/ch1_a.ipynb", new_notebook(cells=cells))
    return tmp_path


def read(page: Path) -> str:
    """The text of a page."""
    return page.read_text(encoding="utf-8")


def test_every_lesson_can_be_read_and_launched(site):
    front = read(site / "index.html")
    for name in LESSONS:
        assert f'href="notebooks/{name}.html"' in front
        page = read(site / "notebooks" / f"{name}.html")
        for place in ("colab.research.google.com/github", "nbviewer.org/github", "github.com"):
            assert f'href="https://{place}/owner/name/blob/HEAD/notebooks/{name}.ipynb"' in page
        pictures = sum(
            "image/png" in output.get("data", {})
            for cell in lessons.find(ROOT, name)[0].read().cells
            for output in cell.get("outputs", [])
        )
        assert page.count("<img") == page.count("<img alt=") >= pictures > 0
    assert 'href="contributing.html"' in front and "blob/HEAD/notebooks_py" in front
    page = read(site / "notebooks/ch2_cnn.html")  # the alt text of a figure is its title
    assert 'alt="picture: Digits, all four right: …"' in page
    assert 'alt="the picture that the code above draws"' in page  # the diagram has none


def test_no_page_loads_anything_from_another_host(site):
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        for found in LOADED.finditer(read(path)):
            assert not (found[1] or found[2]).strip("\"'").startswith(("http", "//")), path


def test_on_a_machine_of_ones_own_there_is_nothing_to_launch(tiny):
    assert website.build(tiny, tiny / "site")
    page = read(tiny / "site/notebooks/ch1_a.html")
    assert "<math" in page and "//cdn" not in page
    assert not re.search("colab|blob/HEAD|pip install", page)
    front, chinese = read(tiny / "site/index.html"), read(tiny / "site/zh.html")
    assert 'href="notebooks/ch1_a.html"' in front and ", code, " in front
    assert 'href="zh.html"' in front and 'href="index.html#tiny"' in chinese
    assert 'href="https://a.b">badge</a>' in front and "c.svg" not in front
    assert 'lang="en"' in front and 'lang="zh-Hans"' in chinese


@pytest.mark.parametrize("link", ["ch2_b.ipynb", "#nowhere", "../README.md#nowhere"])
def test_a_link_that_leads_nowhere_is_named(tiny, capsys, link):
    notebook = lessons.find(tiny)[0].read()
    notebook.cells.append(new_markdown_cell(f"[to]({link})"))
    lessons.write_notebook(tiny / "notebooks/ch1_a.ipynb", notebook)
    assert not website.build(tiny, tiny / "site")
    message = capsys.readouterr().err
    assert "ch1_a.ipynb" in message and link.rpartition("#")[2] in message
