"""Lies that somebody could tell in this repository, and what catches each.

Each of `LIES` is told in a copy: what catches it had nothing to say before, and has afterwards.
`ELSEWHERE` has those that need a run or a network, with their tests.
"""

import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import check
import compare
import gates
import lessons
import publish
import pytest
import test_figures
from conftest import ROOT, edit, saved
from PIL import ImageDraw

from captcha_reader.scores import Score
from captcha_reader.weights import read_results

FIFTH = "notebooks/ch5_loss_curves.ipynb"
RECOUNTED = {2: "cnn", 3: "ctc", 7: "ctc_pytorch"}  # the lessons that count finished networks
LARGER = {"classic-1k": "classic-10k", "classic-10k": "classic-100k", "wide-1k": "wide-10k"}
ELSEWHERE = {
    "a picture is replaced, and its digest": "test_tools::test_make_test_compares_pictures",
    "a printed digit is edited": "test_tools::test_make_test_compares_every_digit",
    "pictures are taken out, added, or in a text": "test_gates::test_a_broken_copy_fails",
    "weights are exchanged": "test_weights::test_what_does_not_fit_together_is_refused",
    "weights are exchanged, and their digests": "test_weights::test_what_ships_reads_what_it_says",
    "the ONNX file is another network's": "test_reading::test_the_onnx_file_is_made_from_these_wei",
    "a test set is drawn otherwise": "test_testsets::test_another_drawing_is_not_the_test_set",
    "a gate is taken out of the list": "test_gates::test_every_gate_has_a_breakage",
    "an exercise goes unsolved": "test_solutions::test_every_exercise_has_a_solution",
    "a figure is rounded up": "test_figures::test_a_wrong_figure_is_seen",
    "a claim, a time, an alternative text or an expected result is enlarged":
        "test_claims::test_every_other_claim_is_seen",
}  # fmt: skip


def results(root: Path) -> list[str]:
    """Results agree with themselves, and small test sets with the large ones that they begin."""
    messages = []
    for name in RECOUNTED.values():
        try:
            found = read_results(name, root / "models")["scores"]
        except ValueError as error:
            messages.append(str(error))
            continue
        for small, large in LARGER.items():
            if large in found:
                n, share = found[small]["n"], found[large]["right"] / found[large]["n"]
                if abs(found[small]["right"] - n * share) > 4 * (n * share * (1 - share)) ** 0.5:
                    messages.append(f"{name}: {small} and {large} do not fit")
    return messages


def table(root: Path) -> list[str]:
    """The tables of the README are those that `make table` writes."""
    readme = (root / "README.md").read_text("utf-8")
    return [] if publish.with_tables("README.md", root) == readme else ["run `make table`"]


def listed(root: Path) -> list[str]:
    """The README lists every lesson and no other, and `make test` compares and runs it."""
    found = lessons.find(root)
    links = {f"notebooks/{lesson.name}.ipynb" for lesson in found}
    shown = set(re.findall(r"\]\((notebooks/ch.*?)\)", (root / "README.md").read_text("utf-8")))
    jobs = {f"{job} {lesson.name}" for lesson in found for job in ("compare", "smoke")}
    return [
        *(f"there is {x} in the README or among the lessons, not in both" for x in links ^ shown),
        *(f"make test leaves out {x}" for x in jobs - check.make_jobs(root, found, []).keys()),
    ]


def recounts(root: Path) -> list[str]:
    """The lessons that read with finished networks count again, to the last captcha but three."""
    code = {lesson.number: lesson.module.read_text("utf-8") for lesson in lessons.find(root)}
    return [
        f"{RECOUNTED[n]} is not counted" for n in RECOUNTED if not compare.RECOUNT.search(code[n])
    ]


def figures(root: Path) -> list[str]:
    """What test_figures.py finds in the lessons and in the README."""
    found = [test_figures.sources(lesson.read()) for lesson in lessons.find(root)]
    found.append((test_figures.readme(root), test_figures.README))
    return [problem for text in found for problem in test_figures.problems(*text)]


def text(name: str, old: str, new: str, *more: str) -> Callable[[Path], None]:
    """Edit a file, in one place or in two."""

    def tell(root: Path) -> None:
        edit(root / name, old, new)
        if more:
            edit(root / name, *more)

    return tell


def add_100(name: str, pattern: str) -> Callable[[Path], None]:
    """Add 100 to the first whole number behind a pattern, whatever it is today."""

    def tell(root: Path) -> None:
        old = (root / name).read_text("utf-8")
        new = re.sub(rf"({pattern})(\d+)", lambda m: f"{m[1]}{int(m[2]) + 100}", old, count=1)
        assert new != old
        (root / name).write_text(new, "utf-8")

    return tell


def paint(root: Path) -> None:
    notebook = lessons.find(root)[4].read()
    outputs = [out for _, cell in lessons.code_cells(notebook) for out in cell.outputs]
    data = next(out.data for out in outputs if "image/png" in out.get("data", {}))
    picture = compare.pixels(base64.b64decode(data["image/png"]))
    ImageDraw.Draw(picture).text((20, 5), "100.00 % right", "black", font_size=20)
    data["image/png"] = base64.b64encode(saved(picture)).decode()
    lessons.write_notebook(root / FIFTH, notebook)


def enlarge(name: str, test_set: str, by: int) -> Callable[[Path], None]:
    """Count more right, with the interval that belongs to it."""

    def tell(root: Path) -> None:
        path = root / "models" / f"{name}.json"
        found = json.loads(path.read_text("utf-8"))
        n, right = (found["scores"][test_set][what] for what in ("n", "right"))
        found["scores"][test_set] = Score(test_set, n, right + by, (n,) * 4).record()
        path.write_text(json.dumps(found), "utf-8")

    return tell


def bend(root: Path) -> None:
    log = (root / "models" / "ctc.csv").read_text("utf-8")
    (root / "models" / "ctc.csv").write_text(log.replace(",0.9", ",0.99"), "utf-8")


LIES = [
    ("100 % painted into a picture", paint, gates.pictures, "shows another picture"),
    ("another picture over imgs/captchas.png",
     lambda root: shutil.copy(root / "imgs" / "vis.png", root / "imgs" / "captchas.png"),
     gates.pictures, "imgs/captchas.png is not the picture"),
    ("a title that says 99.9 %",
     text(FIFTH, "Fifteen equally good networks", "99.9 % right"), figures, "99.9 %"),
    ("a figure that only a comment supports",
     text(FIFTH, "The dots differ", "98.77 % right", "for recipe, rows", "# 98.77\\nfor recipe, r"),
     figures, "98.77 %"),
    ("a log with a better curve", bend, gates.provenance, "ch5_loss_curves"),
    ("an ablation with other counts", add_100("models/ablation.json", '"right": '),
     gates.provenance, "ch4_gpu_training"),
    ("a larger count on 100,000", enlarge("ctc", "classic-100k", 600), results, "do not fit"),
    ("a larger count on 10,000", enlarge("ctc_pytorch", "wide-10k", 50), results, "do not fit"),
    ("a larger count, and no new table", enlarge("ctc", "modern-10k", 30), table, "make table"),
    ("other seconds of training", text("models/cnn.json", '\n "seconds": ', '\n "seconds": 1'),
     table, "make table"),
    ("a count without its interval",
     add_100("models/ctc.json", r'"preview-10k",\s+"n": 10000,\s+"right": '),
     results, "interval of preview-10k"),
    ("other captchas in a test set", text("models/ctc.json", "fd633c99179e", "fd633c99179f"),
     results, "fingerprint of preview-10k"),
    ("a table of results edited by hand", add_100("README.md", r"CNN and CTC, slim \| "),
     table, "make table"),
    ("other minutes for a lesson", add_100("README.md", r"what to do next \| "),
     table, "make table"),
    ("published marks exchanged", text("README.md", "99.21 % | 2,560", "99.57 % | 2,560"),
     figures, "99.57 %"),
    ("a lesson left out of the README", text("README.md", FIFTH, "x"), listed, FIFTH),
    ("a lesson left out of everything",
     lambda root: [path.unlink() for path in root.glob("notebooks*/ch5*")], listed, FIFTH),
    ("a network that its lesson does not count",
     text("notebooks_py/ch3_ctc.py", '"]) <= 3', '"]) <= 300'), recounts, "ctc is not counted"),
]  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository, without weights and what is made."""
    heavy = shutil.ignore_patterns(".*", "build", "__pycache__", "*.keras", "*.pt", "*.onnx")
    return Path(shutil.copytree(ROOT, tmp_path / "repo", ignore=heavy))


@pytest.mark.parametrize(("lie", "tell", "catch", "words"), LIES, ids=[lie[0] for lie in LIES])
def test_a_lie_is_caught(copy, lie, tell, catch, words, record_property):
    before = catch(copy)
    tell(copy)
    after = [message for message in catch(copy) if message not in before]
    assert any(words in message for message in after), after
    record_property("lies caught", 1)


@pytest.mark.parametrize("catch", [results, table, listed, recounts, figures])
def test_the_repository_tells_none(catch):
    assert catch(ROOT) == []


@pytest.mark.parametrize("lie", ELSEWHERE)
def test_the_other_lies_have_their_tests(lie):
    file, _, name = ELSEWHERE[lie].partition("::")
    assert f"\ndef {name}" in (ROOT / "tests" / f"{file}.py").read_text("utf-8")
