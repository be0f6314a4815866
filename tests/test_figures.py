"""Every figure in the prose of the README and of the lessons has a source.

A figure is a number with a decimal point, a percent sign or at least two digits, outside of code,
formulas and addresses, and what code writes with a percent sign, as in a title. In a lesson its
source is the lesson itself: what its notebook printed, which `make test` compares with a new run,
or, for a number without a unit, its code, but not a comment. Everything else stands in `QUOTED`, or
in `PERCENT`, with where it comes from, and what can be computed is computed here. (test_readme.py
compares the README in Chinese with the one in English.)
"""

import ast
import inspect
import re
from pathlib import Path

import pytest
from conftest import ROOT
from nbformat import NotebookNode

from captcha_reader.texts import ALPHABET, LENGTH
from captcha_reader.weights import measured
from tools import lessons, publish

QUOTED = {  # what others published or what everybody can look up
    "12800": "test set of the tutorial of 2019", "2560": "its other test set",
    "116": "its ms a step", "128": "its batch, and its ms a step", "110": "its ms, reading",
    "50": "pixels of the sizes", "100": "the same", "1.9": "heights of the same", "3.4": "the same",
    "64000": "an epoch", "10000": "captchas, or steps", "160": "default", "60": "the same",
    "2024": "the paper of Muon",
    "0.15": "AdamW's rate for Muon's",
    "2014": "year of VGG", "1927": "Wilson's paper", "2006": "Graves' paper", "2017": "Guo's paper",
    "2018": "two papers of lesson 4", "2019": "the tutorial", "170": "preview", "192": "wide",
    "3.7": "its million pictures, below", "5.38": "the same with a GRU, below",
    "73764": "exercise 2 of lesson 2, below",
    "729": "paths of a toy, below", "6000": "glyphs, below", "1052672": "LSTMs, below",
    "256": "channels of the last block", "0.001": "the tutorial's rate", "0.0001": "its second",
    "255": "a byte",
    "100000": "exercise of lesson 5", "0.2": "points of the same, below",
    "2020": "a paper of lesson 6", "600": "batches of lesson 8's study, below",
    "33": "MB of a package for browsers", "11": "blanks of lesson 3, exercise 1", "80": "imagined",
    "2.11": "TensorFlow's documentation", "2.21": "TensorFlow, pinned", "3.11": "Python",
    "3.12": "Python", "3.13": "Python", "3.14": "Python", "0.3": "captcha", "0.7": "captcha",
}  # fmt: skip
PERCENT = {  # percentages that nothing printed, each in its words
    "98.26 % and 99.21 %": "the tutorial of 2019", "it says 99.21 %": "it, too",
    "stages end at 98.26 %": "it, too",
    "128x64 | 98.26 % | 12,800": "it, too", "CTC | 128x64 | 99.21 % | 2,560": "it, too",
    "PyTorch | 192x64 | 99.57 % | 12,800": "it, too", "read 99.57 % of 12,800": "it, too",
    "original's 99.57 %": "it, too",
    "95 % interval": "the custom", "near 100 %": "no accuracy", "98 to 99 % right": "nor this",
    "probability of 95 %": "imagined", "points of 95 %": "computed below",
    "answers 80 %": "imagined",
    "98.28 %, 98.68 %, 99.01 %, 99.26 %": "earlier weights, in git",
    "width 87 %": "26 pixels of 30",
}  # fmt: skip
NUMBER = re.compile(r"(?<![\w.-])(\d+(?:,\d{3})*(?:\.\d+)?)(\s?%| million)?(?!\.?\d|x\d|\w)")
NO_PROSE = re.compile(r"```.*?```|`[^`]*`|\$[^$]*\$|\]\([^)]*\)|https?://\S+|<!--.*?-->", re.DOTALL)
LESSONS = {lesson.name: lesson for lesson in lessons.find(ROOT)}


def figures(text: str) -> list[tuple[str, str]]:
    """The figures of a text, each with its unit: "", "%" or "million"."""
    found = [m.groups() for m in NUMBER.finditer(NO_PROSE.sub("@", text))]
    return [
        (number.replace(",", ""), (unit or "").strip())
        for number, unit in found
        if unit or len(number) > 1
    ]


def numbers(text: str) -> set[float]:
    """All numbers in code or outputs, however they are written there."""
    found = re.findall(r"\d+(?:[,_]\d{3})*(?:\.\d+)?(?:e-?\d+)?", text)
    return {float(number.replace(",", "").replace("_", "")) for number in found}


README = {len(ALPHABET), *numbers(inspect.getsource(publish.minutes))}


def has_source(figure: tuple[str, str], known: set[float]) -> bool:
    """Whether a figure is quoted, or is one of the known numbers, rounded as it is written."""
    number, unit = figure
    if number in QUOTED and unit != "%":
        return True
    digits = len(number.partition(".")[2])
    scales = {"": (1,), "%": (1, 100), "million": (1e-6,)}[unit]
    return any(round(n * scale, digits) == float(number) for n in known for scale in scales)


def problems(text: str, printed: set[float], coded: set[float] = frozenset()) -> list[str]:
    """The figures of a text that have no source; those with a unit have one in what was printed."""
    text = " ".join(text.split())
    for words in PERCENT:
        text = text.replace(words, "@")
    return [
        " ".join(figure).strip()
        for figure in figures(text)
        if not has_source(figure, printed if figure[1] else printed | coded)
    ]


def sources(notebook: NotebookNode) -> tuple[str, set[float], set[float]]:
    """The prose of a lesson, the numbers that it printed, and those in its code.

    The prose includes what code writes with a percent sign, as in a title.
    """
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    cells = [cell for _, cell in lessons.code_cells(notebook)]
    trees = [lessons.parse(cell) for cell in cells]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    text += [node.value for node in nodes if isinstance(node.value, str) and "%" in node.value]
    printed = [output.get("text", "") for cell in cells for output in cell.outputs]
    code = [ast.unparse(tree) for tree in trees]  # without comments
    return " ".join(" ".join(text).split()), numbers("\n".join(printed)), numbers("\n".join(code))


@pytest.mark.parametrize("name", LESSONS)
def test_every_figure_of_a_lesson_has_a_source(name):
    prose, *known = sources(LESSONS[name].read())
    assert problems(prose, *known) == []


def readme(root: Path) -> str:
    """The README without its results and the minutes of lessons, which have their own test."""
    before, _, after = (root / "README.md").read_text("utf-8").partition(publish.BEGIN)
    return publish.ROW.sub(r"\1\3", before + after.partition(publish.END)[2])


def test_every_figure_of_the_readme_has_a_source():
    assert problems(readme(ROOT), README) == []


def test_figures_that_can_be_computed():
    from notebooks_py.ch2_cnn import FILTERS, build_cnn  # brings TensorFlow

    assert len(ALPHABET) ** LENGTH == 1_679_616
    six, four = build_cnn(length=6, ink=False), build_cnn(ink=False)
    assert six.count_params() - four.count_params() == 2 * 73_764  # lesson 2, exercise 2
    assert (16 + 13) * 1_000 * 128 == 3_712_000  # its 3.7 million pictures: epochs, batches, size
    assert 42 * 1_000 * 128 == 5_376_000  # and 5.38 million for its network with a GRU
    assert 3**6 == 729 and 4 * 1_500 == 6_000 and FILTERS[-1] == 256
    # Lesson 5, exercise 2: three standard deviations of a share of 95 %, n = 100,000, in points.
    assert round(3 * 100 * (0.95 * 0.05 / 100_000) ** 0.5, 1) == 0.2
    lstms = [2 * 4 * 128 * (reads + 128 + 2) for reads in (2 * 256, 2 * 128)]
    assert sum(lstms) == 1_052_672  # lesson 7, exercise 1
    assert measured("tuning")["pictures"] == 600 * 32


def test_a_wrong_figure_is_seen():
    prose, *known = sources(LESSONS["ch2_cnn"].read())
    assert problems(prose.replace("2,653,360", "2,653,361"), *known) == ["2653361"]
    for more in ("It read 97.13 % of them.", "in 9.99 million pictures", "It read 99.57 % of them.",
                 "after 12,345 steps", "in 251 seconds"):  # fmt: skip
        assert len(problems(f"{prose} {more}", *known)) == 1
    for more in ("`x = 1.57`", "$2.57$", "[a](b/1.57.html)", "captcha 0.7.0", "9 columns",
                 "SHA-256"):  # fmt: skip
        assert problems(f"{prose} {more}", *known) == []
