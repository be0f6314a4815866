"""Each gate lets the tiny repository pass, and stops a broken copy with its own message."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from conftest import edit
from nbformat import NotebookNode
from nbformat.v4 import new_output

from tools import format, gates, lessons

FIRST = "notebooks/ch1_circles.ipynb"
MODULE = "notebooks_py/ch1_circles.py"
# Places of cells in the first tiny lesson.
DEFINITIONS, PARAMETERS, PICTURE, FACT = 1, 3, 5, 7


def change(cell: int, action: Callable[[NotebookNode], object]) -> Callable[[Path], None]:
    """A breakage: do something to one cell of the first notebook."""

    def breakage(root: Path) -> None:
        notebook = nbformat.read(root / FIRST, as_version=4)
        action(notebook.cells[cell])
        lessons.write_notebook(root / FIRST, notebook)

    return breakage


def source(cell: int, text: str) -> Callable[[Path], None]:
    """A breakage: other text in one cell."""
    return change(cell, lambda c: c.update(source=text))


def shows(cell: int, **data: str) -> Callable[[Path], None]:
    """A breakage: a cell whose only output is this."""
    output = new_output("display_data", data={k.replace("_", "/"): v for k, v in data.items()})
    return change(cell, lambda c: c.update(outputs=[output]))


def writes(cell: int, kind: str, **content: str) -> Callable[[Path], None]:
    """A breakage: a cell with one more output."""
    return change(cell, lambda c: c.outputs.append(new_output(kind, **content)))


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    """A breakage: one place in a file."""
    return lambda root: edit(root / name, old, new)


def edited_on_both_sides(root: Path) -> None:
    edit(root / MODULE, "round(area(SEED), 5)", "round(area(SEED), 4)")
    assert format.main(["--root", str(root)]) == 0


BREAKAGES = [
    ("sync", text(MODULE, "radius**2", "radius**3"), "differ, first in `"),
    ("sync", text(FIRST, "A fact.", "One fact."), "differ, first in `# One fact.`"),
    ("sync", lambda root: (root / MODULE).unlink(), f"{MODULE} is missing; run `make format`"),
    ("outputs", change(FACT, lambda c: c.update(outputs=[], execution_count=None)),
     "cell 8 is number [None] of the run, not [4]; run `make refresh`"),
    ("outputs", change(PICTURE, lambda c: c.update(execution_count=7)), "is number [7]"),
    ("outputs", writes(FACT, "stream", name="stderr", text="careful"),
     "cell 8 wrote to stderr: 'careful'"),
    ("outputs", writes(FACT, "error", ename="ValueError", evalue="no"), "the error ValueError: no"),
    ("outputs", writes(FACT, "stream", text="so: WARNING:tensorflow:slow"),
     "cell 8 shows a library's 'WARNING:tensorflow:slow'"),
    ("provenance", edited_on_both_sides, "the source is now"),
    ("provenance", source(FACT, "round(area(SEED), 3)"), "the outputs come from source"),
    ("provenance", change(FACT, lambda c: c.metadata.update(tags=[])), "run `make refresh`"),
    ("provenance", text("pyproject.toml", "captcha==0.7.0", "captcha==0.7.1"), "run `make ref"),
    ("provenance", text("captcha_reader/places.py", "run-001", "run-002"), "run `make refresh`"),
    ("pictures", shows(PICTURE, text_plain="<Figure size 640x480 with 1 Axes>"),
     "there are 0 pictures, and the run drew 1; run `make refresh`"),
    ("pictures", shows(FACT, image_jpeg="aGk="), "cell 8 shows image/jpeg, which nothing compares"),
    ("pictures", change(2, lambda c: c.update(attachments={"a.png": {}})), "that no code drew"),
    ("pictures", lambda root: (root / "imgs" / "circles.png").unlink(),
     "imgs/circles.png is not the picture that the run drew"),
    ("pictures", lambda root: shutil.copy(root / "imgs" / "circles.png", root / "imgs" / "x.png"),
     "imgs/x.png is drawn by 0 lessons, not by one; run `make refresh`, or delete it"),
    ("modules", source(DEFINITIONS, 'NAMES = print("a")'),
     "cell 2, `NAMES = print('a')`, does more than define; tag the cell active-ipynb"),
    ("modules", source(DEFINITIONS, 'import os\nos.mkdir("a")'), "`os.mkdir('a')`"),
    ("modules", source(DEFINITIONS, "import math\nmath.pi = 3"), "`math.pi = 3`"),
    ("modules", source(DEFINITIONS, "if True:\n    import os"), "`if True:`"),
    ("modules", source(DEFINITIONS, "def f():\n    return STEPS"), "reads the parameter STEPS"),
    ("modules", source(FACT, "import notebooks_py.ch2_double"), "imports ch2_double, which is not"),
    ("modules", source(FACT, "from tools.gates import sync"), "imports from tools, which nothing"),
    ("modules", text("captcha_reader/places.py", "import os", "import notebooks_py.ch1_circles"),
     "captcha_reader/places.py imports the lesson ch1_circles"),
]  # fmt: skip


@pytest.mark.parametrize("gate", gates.GATES, ids=lambda gate: gate.__name__)
def test_the_untouched_copy_passes(mini_made, gate):
    assert gate(mini_made) == []


@pytest.mark.parametrize(
    ("gate", "breakage", "message"), BREAKAGES, ids=[f"{b[0]}-{b[2][:30]}" for b in BREAKAGES]
)
def test_a_broken_copy_fails_with_the_message_of_its_gate(mini, gate, breakage, message):
    breakage(mini)
    messages = getattr(gates, gate)(mini)
    assert any(found.startswith(f"{gate}: ") and message in found for found in messages), messages


def test_every_gate_has_a_breakage():
    assert {gate.__name__ for gate in gates.GATES} == {gate for gate, _, _ in BREAKAGES}


@pytest.mark.parametrize("gate", gates.GATES, ids=lambda gate: gate.__name__)
def test_the_lessons_pass(gate):
    assert gate(lessons.ROOT) == []


def test_a_demo_cell_of_an_imported_lesson_is_no_source(mini):
    edited_on_both_sides(mini)
    (message,) = gates.provenance(mini)
    assert FIRST in message


@pytest.mark.parametrize(
    ("reads", "file"),
    [
        ("from captcha_reader.weights import measured\nmeasured('bank')", "bank.json"),
        ("from captcha_reader.weights import MODELS\nMODELS / 'cnn.csv'", "cnn.csv"),
    ],
)
def test_results_that_a_lesson_reads_are_its_source(mini, reads, file):
    source(FACT, reads)(mini)
    lesson = lessons.find(mini)[0]
    before = lessons.source_hash(lesson)
    (mini / "models").mkdir()
    (mini / "models" / "heads.json").write_text("{}")
    assert lessons.source_hash(lesson) == before
    (mini / "models" / file).write_text("{}")
    assert lessons.source_hash(lesson) != before


def test_what_a_lesson_imports_is_its_source_and_nothing_else(mini):
    source(FACT, "from captcha_reader.scores import wilson")(mini)
    lesson, folder = lessons.find(mini)[0], mini / "captcha_reader"
    folder.mkdir(exist_ok=True)
    (folder / "scores.py").write_text("from captcha_reader.texts import LENGTH\n")
    before = lessons.source_hash(lesson)
    (folder / "reading.py").write_text("x = 1\n")
    assert lessons.source_hash(lesson) == before
    (folder / "texts.py").write_text("LENGTH = 4\n")
    deeper = lessons.source_hash(lesson)
    (folder / "scores.py").write_text("from captcha_reader.texts import LENGTH\nx = 2\n")
    assert len({before, deeper, lessons.source_hash(lesson)}) == 3


def test_the_command_names_what_is_wrong(mini, tool):
    assert tool(gates, mini)[0] == 0
    edit(mini / FIRST, "A fact.", "One fact.")
    code, printed = tool(gates, mini)
    assert code == 1 and printed.startswith(f"sync: {FIRST} and ")
