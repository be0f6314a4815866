"""Each gate lets the tiny repository pass, and stops a broken copy with its own message."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MODULE, NOTEBOOK, edit
from nbformat import NotebookNode
from nbformat.v4 import new_output

from tools import format, gates, lessons

LIBRARY = "captcha_reader/outputs.py"
DEFINITIONS, FACT = 1, 6  # places of cells


def change(place: int, action: Callable[[NotebookNode], object]) -> Callable[[Path], None]:
    """Return a breakage that does something to one cell."""

    def breakage(root: Path) -> None:
        (lesson,) = lessons.find(root)
        notebook = lesson.read()
        action(notebook.cells[place])
        lessons.write_notebook(lesson.notebook, notebook)

    return breakage


def source(place: int, text: str) -> Callable[[Path], None]:
    """Return a breakage that gives one cell another source."""
    return change(place, lambda cell: cell.update(source=text))


def shows(kind: str, **output) -> Callable[[Path], None]:
    """Return a breakage that adds an output to the last cell."""
    return change(FACT, lambda cell: cell.outputs.append(new_output(kind, **output)))


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Return a breakage of one place in a file."""
    return lambda root: edit(root / name, old, new)


BREAKAGES = [
    ("sync", text(MODULE, "radius**2", "radius**3"), "differ, first in `"),
    ("sync", lambda root: (root / MODULE).unlink(), f"{MODULE} is missing"),
    ("outputs", change(FACT, lambda cell: cell.update(outputs=[], execution_count=None)),
     "cell 7 is number [None] of the run, not [4]"),
    ("outputs", shows("stream", name="stderr", text="careful"),
     "cell 7 wrote to stderr: 'careful'"),
    ("provenance", source(FACT, "round(area(SEED), 3)"), "the source is now"),
    ("provenance", text(LIBRARY, "columns: int = 4", "columns: int = 5"), "the source is now"),
    ("provenance", text("pyproject.toml", "captcha==0.7.0", "captcha==0.7.1"), "the source is now"),
    ("pictures", shows("display_data", data={"image/jpeg": "aGk="}), "cell 7 shows image/jpeg"),
    ("pictures", lambda root: shutil.copy(root / "imgs/circles.png", root / "imgs/x.png"),
     "imgs/x.png is drawn by no lesson"),
    ("modules", source(DEFINITIONS, 'NAMES = print("a")'), "`NAMES = print('a')`, does more than"),
    ("modules", source(DEFINITIONS, "def f():\n    return STEPS"), "reads the parameter STEPS"),
    ("modules", source(FACT, "import notebooks_py.ch1_circles"), "is not an earlier lesson"),
    ("modules", source(FACT, "from tools.gates import sync"), "imports tools.gates"),
    ("modules", text(LIBRARY, "import shutil", "import notebooks_py.ch1_circles"),
     "outputs.py imports notebooks_py.ch1_circles"),
    ("figures", text(NOTEBOOK, "is 3.14159.", "is 3.14158."), "says 3.14158"),
    ("figures", text(NOTEBOOK, "is 3.14159.", "is 42 % of 9,999."), "says 9,999"),
]  # fmt: skip


@pytest.mark.parametrize("gate", gates.GATES, ids=lambda gate: gate.__name__)
def test_the_lessons_pass(gate, mini_made):
    assert [*gate(mini_made), *gate(lessons.ROOT)] == []


@pytest.mark.parametrize(("gate", "breakage", "message"), BREAKAGES)
def test_a_broken_copy_fails_with_the_message_of_its_gate(mini, gate, breakage, message):
    breakage(mini)
    messages = gates.messages(mini)
    assert any(one.startswith(f"{gate}: ") and message in one for one in messages), messages


def test_every_gate_has_a_breakage():
    assert {gate.__name__ for gate in gates.GATES} == {gate for gate, _, _ in BREAKAGES}


def test_text_and_the_pins_of_other_tools_are_no_source(mini):
    edit(mini / MODULE, "# A picture.", "# One picture.")
    edit(mini / "pyproject.toml", "ruff==", "ruff==9.")
    assert format.main([], mini) == 0
    assert gates.messages(mini) == []


@pytest.mark.parametrize(
    ("reads", "file"), [("measured('bank')", "bank.json"), ("MODELS / 'cnn.csv'", "cnn.csv")]
)
def test_results_that_a_lesson_reads_are_its_source(mini, reads, file):
    source(FACT, reads)(mini)
    (lesson,) = lessons.find(mini)
    before = lessons.source_hash(lesson)
    for name in ("heads.json", file):
        lessons.write(mini / "models" / name, "{}")
        assert (lessons.source_hash(lesson) == before) == (name != file)
