"""The README says the same in English and in Chinese, and what it points to is there."""

import re
from collections import Counter

import pytest
from conftest import ROOT

from tools import lessons

ENGLISH, CHINESE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")
)
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)]+)\)")
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def shared(text: str) -> dict[str, object]:
    """What has to be equal in both languages."""
    body = text.split("\n", 1)[1]  # the first line is the language bar
    commands = "\n".join(BLOCK.findall(body)).splitlines()
    body = BLOCK.sub("", body)
    prose = LINK.sub("]", CODE.sub("", body))
    return {
        "commands": [line.split("#")[0].rstrip() for line in commands],
        "code": Counter(" ".join(code.split()) for code in CODE.findall(body)),
        "links": Counter(LINK.findall(body)),
        "pictures": PICTURE.findall(body),
        "headings": re.findall(r"^#+", body, re.M),
        "rows": [NUMBER.findall(row) for row in re.findall(r"^\|.*", prose, re.M)],
        "numbers": Counter(NUMBER.findall(prose)),
    }


def glossary(text: str) -> list[tuple[str, str, str]]:
    """The terms of the last table: in this language, in the other one, and the lesson."""
    return re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \| (\d) \|$", text, re.M)


def test_both_languages_say_the_same():
    english, chinese = shared(ENGLISH), shared(CHINESE)
    for what, found in english.items():
        assert found == chinese[what], what
    assert english["pictures"][0] == "imgs/reading.png" and len(english["commands"]) == 2


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("commands", "make run-all   #", "make run-al   #"),
        ("code", "`make lab`", "`make lap`"),
        ("links", "ypwhs/captcha_break)", "ypwhs/captcha)"),
        ("pictures", "![", "["),
        ("headings", "\n## ", "\n### "),
        ("rows", "| 12,800 |", "| 12,801 |"),
        ("numbers", "33 MB", "34 MB"),
    ],
)
def test_a_difference_is_seen(what, old, new):
    assert shared(CHINESE.replace(old, new))[what] != shared(ENGLISH)[what]


def test_each_leads_to_the_other_and_to_files_that_exist():
    assert ENGLISH.startswith("English | [中文](README.zh.md)\n")
    assert CHINESE.startswith("[English](README.md) | 中文\n")
    for path in LINK.findall(ENGLISH + CHINESE):
        assert "://" in path or (ROOT / path).exists(), path


def test_the_glossary_has_the_words_of_the_lessons():
    english, chinese = glossary(ENGLISH), glossary(CHINESE)
    assert english == [(term, own, lesson) for own, term, lesson in chinese]
    assert len(english) == 15
    for term, _, number in english:
        (lesson,) = (found for found in lessons.find(ROOT) if found.number == int(number))
        cells = [cell.source for cell in lesson.read().cells if cell.cell_type == "markdown"]
        assert term.lower() in " ".join(cells).replace("*", "").lower(), term
