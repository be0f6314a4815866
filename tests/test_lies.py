"""Lies that somebody could tell in this repository, and what catches each.

Each of `LIES` is told in a copy: what catches it had nothing to say before, and has afterwards.
`ELSEWHERE` names the tests for lies that need a run or a network. Lies in words and figures are
told one by one in test_claims.py and test_figures.py, lies about code and layout in test_gates.py.
"""

import base64
import io
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
from conftest import ROOT, edit
from nbformat import NotebookNode
from nbformat.v4 import new_output
from PIL import ImageDraw

from captcha_reader.scores import Score
from captcha_reader.weights import read_results

RECOUNTED = {2: "cnn", 3: "ctc", 7: "ctc_pytorch"}  # the lessons that count finished networks
ELSEWHERE = {
    "a picture and its digest are replaced": "test_tools::test_make_test_compares_pictures",
    "a printed digit is edited": "test_tools::test_make_test_compares_every_digit",
    "weights are exchanged": "test_weights::test_what_does_not_fit_together_is_refused",
    "weights are exchanged, and their digests": "test_weights::test_what_ships_reads_what_it_says",
    "the ONNX file is another network's": "test_reading::test_the_onnx_file_is_made_from_these_wei",
    "a test set is drawn otherwise": "test_testsets::test_another_drawing_is_not_the_test_set",
    "a gate is taken out of the list": "test_gates::test_every_gate_has_a_breakage",
    "an exercise goes unsolved": "test_solutions::test_every_exercise_has_a_solution",
    "a published mark is rounded up": "test_figures::test_a_wrong_figure_is_seen",
    "a claim, time, alternative text or expected result is enlarged":
        "test_claims::test_every_other_claim_is_seen",
}  # fmt: skip


# --- what catches them, beside the gates ---------------------------------------------------------


def results(root: Path) -> list[str]:
    """Results agree with themselves, and small test sets with the large ones they begin."""
    messages = []
    for name in RECOUNTED.values():
        try:
            scores = read_results(name, root / "models")["scores"]
        except ValueError as error:
            messages.append(str(error))
            continue
        for small, large in [("classic-1k", "classic-10k"), ("classic-10k", "classic-100k"),
                             ("wide-1k", "wide-10k")]:  # fmt: skip
            if large in scores:
                (n, right), (more, all_right) = (
                    (scores[x]["n"], scores[x]["right"]) for x in (small, large)
                )
                share = all_right / more
                if abs(right - n * share) > 4 * (n * share * (1 - share)) ** 0.5:
                    messages.append(f"{name}: {right} of {n} and {all_right} of {more} differ")
    return messages


def table(root: Path) -> list[str]:
    """The table of the README is the one that `make table` writes."""
    readme = (root / "README.md").read_text("utf-8")
    return [] if publish.table(root) in readme else ["run `make table`"]


def listed(root: Path) -> list[str]:
    """The README lists every lesson and no other, and `make test` runs it."""
    found, readme = lessons.find(root), (root / "README.md").read_text("utf-8")
    links = [f"](notebooks/{lesson.name}.ipynb)" for lesson in found]
    jobs = check.make_jobs(root, found, [])
    names = {f"{job} {x.name}" for x in found for job in ("compare", "smoke")}
    return [
        *(f"README.md does not list {link}" for link in links if link not in readme),
        *(
            f"README.md lists {x}"
            for x in {*re.findall(r"\]\(notebooks/ch.*?\)", readme)} - {*links}
        ),
        *(f"make test leaves out {name}" for name in names - jobs.keys()),
    ]


def recounts(root: Path) -> list[str]:
    """The lessons that read with finished networks count them again, and allow for rounding."""
    found = {lesson.number: lesson.module.read_text("utf-8") for lesson in lessons.find(root)}
    return [
        f"lesson {number} does not count {name} again"
        for number, name in RECOUNTED.items()
        if not compare.RECOUNT.search(found[number])
    ]


def figures(root: Path) -> list[str]:
    """What test_figures.py finds in the lessons and in the README."""
    found = [test_figures.sources(lesson.read()) for lesson in lessons.find(root)]
    found.append((test_figures.readme(root), test_figures.README))
    return [x for text_and_numbers in found for x in test_figures.problems(*text_and_numbers)]


# --- how they are told ---------------------------------------------------------------------------


def retold(number: int, action: Callable[[NotebookNode], object]) -> Callable[[Path], None]:
    """Do something to the notebook of a lesson."""

    def tell(root: Path) -> None:
        lesson = lessons.find(root)[number - 1]
        notebook = lesson.read()
        action(notebook)
        lessons.write_notebook(lesson.notebook, notebook)

    return tell


def picture_of(notebook: NotebookNode) -> tuple[NotebookNode, NotebookNode]:
    """The first cell that shows a picture, and that output."""
    cells = [(cell, out) for _, cell in lessons.code_cells(notebook) for out in cell.outputs]
    return next((cell, out) for cell, out in cells if "image/png" in out.get("data", {}))


def paint(notebook: NotebookNode) -> None:
    _, output = picture_of(notebook)
    picture = compare.pixels(base64.b64decode(output.data["image/png"]))
    ImageDraw.Draw(picture).text((20, 5), "100.00 % right", "black", font_size=20)
    picture.save(out := io.BytesIO(), "PNG")
    output.data["image/png"] = base64.b64encode(out.getvalue()).decode()


def says(old: str, new: str) -> Callable[[NotebookNode], None]:
    """Edit the first cell that says `old`."""

    def action(notebook: NotebookNode) -> None:
        cell = next(cell for cell in notebook.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)

    return action


def enlarge(name: str, test_set: str, by: int) -> Callable[[Path], None]:
    """Count more right, with the interval that belongs to it."""

    def tell(root: Path) -> None:
        path = root / "models" / f"{name}.json"
        told = json.loads(path.read_text("utf-8"))
        old = told["scores"][test_set]
        places = (min(old["n"], place + by) for place in old["right_by_position"])
        told["scores"][test_set] = Score(test_set, old["n"], old["right"] + by, (*places,)).record()
        path.write_text(json.dumps(told), "utf-8")

    return tell


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda root: edit(root / name, old, new)


def attach(notebook: NotebookNode) -> None:
    notebook.cells[0].attachments = {"proof.png": {"image/png": "aGk="}}


def better_curve(root: Path) -> None:
    path = root / "models" / "ctc.csv"
    head, *rows = path.read_text("utf-8").splitlines()
    rows = [row.rpartition(",")[0] + ",0.999" for row in rows]
    path.write_text("\n".join([head, *rows, ""]), "utf-8")


def forget(root: Path) -> None:
    for path in (lessons.find(root)[4].notebook, lessons.find(root)[4].module):
        path.unlink()


JPEG = new_output("display_data", data={"image/jpeg": "aGk="})
LIES = [
    ("100 % painted into a picture", retold(5, paint), gates.pictures, "another picture"),
    ("a picture taken out", retold(5, lambda n: picture_of(n)[0].update(outputs=[])),
     gates.pictures, "the run drew 5"),
    ("a JPEG, which nbval skips", retold(5, lambda n: picture_of(n)[0].outputs.append(JPEG)),
     gates.pictures, "shows image/jpeg, which nothing compares"),
    ("a picture in a text cell", retold(5, attach), gates.pictures, "that no code drew"),
    ("another picture over imgs/captchas.png",
     lambda root: shutil.copy(root / "imgs" / "vis.png", root / "imgs" / "captchas.png"),
     gates.pictures, "imgs/captchas.png is not the picture"),
    ("a picture of nobody's in imgs/",
     lambda root: shutil.copy(root / "imgs" / "vis.png", root / "imgs" / "more.png"),
     gates.pictures, "imgs/more.png is drawn by 0 lessons"),
    ("a title that says 99.9 %", retold(5, says('"A long training"', '"99.9 % right"')),
     figures, "99.9 %"),
    ("a figure that only a comment supports",
     retold(5, lambda n: (says("A steep fall", "98.77 % right, a steep fall")(n),
                          says('log = read_log("ctc")', 'log = read_log("ctc")  # 98.77')(n))),
     figures, "98.77 %"),
    ("a log with a better curve", better_curve, gates.provenance, "ch5_loss_curves"),
    ("an ablation with other counts", text("models/ablation.json", ": 1528,", ": 1928,"),
     gates.provenance, "ch4_gpu_training"),
    ("a larger count on 100,000", enlarge("ctc", "classic-100k", 700), results, "differ"),
    ("a larger count on 10,000", enlarge("ctc_pytorch", "wide-10k", 90), results, "differ"),
    ("a larger count, and no new table", enlarge("ctc", "modern-10k", 30), table, "make table"),
    ("other seconds of training", text("models/cnn.json", '\n "seconds": ', '\n "seconds": 1'),
     table, "make table"),
    ("a count without its interval", text("models/ctc.json", '"right": 8410', '"right": 8510'),
     results, "interval of preview-10k"),
    ("other captchas in a test set", text("models/ctc.json", "fd633c99179e", "fd633c99179f"),
     results, "fingerprint of preview-10k"),
    ("a table of results edited by hand", text("README.md", "| 84.10 % (83.37", "| 94.10 % (83.37"),
     table, "make table"),
    ("published marks exchanged", text("README.md", "99.21 % | 2,560", "99.57 % | 2,560"),
     figures, "99.57 %"),
    ("a lesson left out of the README", text("README.md", "notebooks/ch5_loss_curves.ipynb", "x"),
     listed, "does not list ](notebooks/ch5"),
    ("a lesson left out of everything", forget, listed, "README.md lists ](notebooks/ch5"),
    ("a network that no lesson counts again",
     text("notebooks_py/ch3_ctc.py", '["right"]) <= 3', '["right"]) <= 300'), recounts, "lesson 3"),
]  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository, without weights and what is made."""
    heavy = shutil.ignore_patterns(".*", "build", "__pycache__", "*.keras", "*.pt", "*.onnx")
    return Path(shutil.copytree(ROOT, tmp_path / "repo", ignore=heavy))


@pytest.mark.parametrize(("lie", "tell", "catch", "words"), LIES, ids=[lie[0] for lie in LIES])
def test_a_lie_is_caught(copy, lie, tell, catch, words, record_property) -> None:
    before = catch(copy)
    tell(copy)
    after = [message for message in catch(copy) if message not in before]
    assert any(words in message for message in after), after
    record_property("lies caught", 1)


@pytest.mark.parametrize("catch", [results, table, listed, recounts, figures])
def test_the_repository_tells_none(catch: Callable) -> None:
    assert catch(ROOT) == []


@pytest.mark.parametrize("lie", ELSEWHERE)
def test_the_other_lies_have_their_tests(lie: str) -> None:
    file, _, name = ELSEWHERE[lie].partition("::")
    assert f"\ndef {name}" in (ROOT / "tests" / f"{file}.py").read_text("utf-8")
