"""Each gate lets the lessons pass, and stops a broken copy of the tiny repository."""

import shutil
from pathlib import Path

import pytest
from conftest import MODULE, NOTEBOOK, edit
from nbformat.v4 import new_output

from tools import gates, lessons

LIBRARY = "captcha_reader/outputs.py"
DEFINITIONS, PICTURE, FACT = 1, 4, 6  # places of cells


def change(root: Path, place: int, **changes) -> None:
    """Change the source, the outputs or the number of one cell."""
    (lesson,) = lessons.find(root)
    notebook = lesson.read()
    notebook.cells[place].update(changes)
    lessons.write_notebook(lesson.notebook, notebook)


def sync(root: Path) -> list[str]:
    edit(root / MODULE, "radius**2", "radius**3")
    shutil.copy(root / NOTEBOOK, root / "notebooks/ch2_half.ipynb")
    return ["differ, first in `", "notebooks_py/ch2_half.py is missing"]


def outputs(root: Path) -> list[str]:
    change(root, PICTURE, outputs=[new_output("stream", name="stderr", text="careful")])
    change(root, FACT, outputs=[], execution_count=None)
    return ["cell 5 wrote to stderr: 'careful'", "cell 7 is number [None] of the run, not [4]"]


def provenance(root: Path) -> list[str]:
    edit(root / LIBRARY, "columns: int = 4", "columns: int = 5")
    return ["the source is now"]


def pictures(root: Path) -> list[str]:
    change(root, FACT, outputs=[new_output("display_data", {"image/jpeg": "aGk="})])
    shutil.copy(root / "imgs/circles.png", root / "imgs/x.png")
    return ["cell 7 shows image/jpeg", "imgs/x.png is drawn by no lesson"]


def modules(root: Path) -> list[str]:
    change(root, DEFINITIONS, source='NAMES = print("a")\ndef f():\n    return STEPS')
    change(root, FACT, source="import notebooks_py.ch1_circles\nfrom tools.gates import sync")
    edit(root / LIBRARY, "import shutil", "import notebooks_py.ch1_circles")
    return ["`NAMES = print('a')`, does more than", "reads the parameter STEPS",
            "imports notebooks_py.ch1_circles, which is not an earlier", "imports tools.gates",
            "outputs.py imports notebooks_py.ch1_circles"]  # fmt: skip


def figures(root: Path) -> list[str]:
    edit(root / NOTEBOOK, "is 3.14159.", "is 3.14158, or 42 % of 9,999.")
    return ["says 3.14158", "says 9,999"]


BROKEN = {breakage.__name__: breakage
          for breakage in (sync, outputs, provenance, pictures, modules, figures)}  # fmt: skip


@pytest.mark.parametrize("gate", gates.GATES, ids=lambda gate: gate.__name__)
def test_the_lessons_pass_and_a_broken_copy_gets_the_messages_of_its_gate(mini, gate):
    assert [*gate(mini), *gate(lessons.ROOT)] == []
    expected = BROKEN[gate.__name__](mini)
    printed = "\n".join(gate(mini))
    assert [message for message in expected if message not in printed] == [], printed


def test_code_pins_and_results_are_source_and_texts_and_other_tools_are_not(mini):
    (lesson,) = lessons.find(mini)
    change(mini, FACT, source="measured('bank'), MODELS / 'cnn.csv'")
    old = lessons.source_hash(lesson)
    for name, is_source, *words in [
        (NOTEBOOK, False, "A picture.", "One picture."),
        (NOTEBOOK, True, "radius**2", "radius**3"),
        ("pyproject.toml", False, "ruff==", "ruff==9."),
        ("pyproject.toml", True, "captcha==0.7.0", "captcha==0.7.1"),
        ("models/heads.json", False), ("models/bank.json", True), ("models/cnn.csv", True),
    ]:  # fmt: skip
        edit(mini / name, *words) if words else lessons.write(mini / name, "{}")
        new = lessons.source_hash(lesson)
        assert (new != old) == is_source, name
        old = new
