"""The README says the same in both languages; that its links lead somewhere is for test_site.py."""

import re
from collections import Counter

from conftest import ROOT

from tools import lessons

BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)]+)\)")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def shared(text: str) -> dict[str, object]:
    """Return what has to be equal in both languages."""
    body = text.split("\n", 1)[1]  # the first line leads to the other language
    commands = "\n".join(BLOCK.findall(body)).splitlines()
    body = BLOCK.sub("", body)
    prose = LINK.sub("]", CODE.sub("", body))
    return {
        "commands": [line.split("#")[0].rstrip() for line in commands],
        "code": Counter(" ".join(code.split()) for code in CODE.findall(body)),
        "links and pictures": Counter(re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", body)),
        "headings": re.findall(r"^#+", body, re.M),
        "rows": [NUMBER.findall(row) for row in re.findall(r"^\|.*", prose, re.M)],
        "numbers": Counter(NUMBER.findall(prose)),
    }


def test_both_languages_say_the_same():
    english, chinese = ((ROOT / x).read_text("utf-8") for x in ("README.md", "README.zh.md"))
    assert shared(chinese) == shared(english)


def test_the_glossary_has_the_words_of_the_lessons():
    english, chinese = ((ROOT / x).read_text("utf-8") for x in ("README.md", "README.zh.md"))
    row = re.compile(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \| (\d) \|$", re.M)
    terms = row.findall(english)
    assert terms and terms == [(term, own, lesson) for own, term, lesson in row.findall(chinese)]
    for term, _, number in terms:
        (lesson,) = (
            lesson for lesson in lessons.find(ROOT) if lesson.name.startswith(f"ch{number}_")
        )
        cells = [cell.source for cell in lesson.read().cells if cell.cell_type == "markdown"]
        assert term.lower() in " ".join(cells).replace("*", "").lower(), term
