"""The lessons pass each gate and lead to solutions; a broken copy does not."""

import ast
import re
import shutil
from pathlib import Path

import pytest
from conftest import MODULE, NOTEBOOK, change, edit
from nbformat.v4 import new_output

from tools import gates, lessons

LIBRARY = "captcha_reader/outputs.py"
DEFINITIONS, PICTURE, FACT = 1, 4, 6  # places of cells


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
    return ["the source of its outputs has changed"]


def pictures(root: Path) -> list[str]:
    change(root, FACT, outputs=[new_output("display_data", {"image/jpeg": "aGk="})])
    shutil.copy(root / "imgs/circles.png", root / "imgs/x.png")
    return ["cell 7 shows image/jpeg", "imgs/x.png is drawn by no lesson"]


def modules(root: Path) -> list[str]:
    change(root, DEFINITIONS, source='NAMES = print("a")')
    change(root, FACT, source="import notebooks_py.ch1_circles\nfrom tools.gates import sync")
    edit(root / LIBRARY, "import shutil", "import notebooks_py.ch1_circles")
    return ["`NAMES = print('a')`, does more than",
            "imports notebooks_py.ch1_circles, which is not an earlier", "imports tools.gates",
            "outputs.py imports notebooks_py.ch1_circles"]  # fmt: skip


def figures(root: Path) -> list[str]:
    edit(root / NOTEBOOK, "is 3.14159.", "is 3.14158, or 42 % of 9,999.")
    return ["says 3.14158", "says 42 %", "says 9,999"]


BROKEN = {breakage.__name__: breakage
          for breakage in (sync, outputs, provenance, pictures, modules, figures)}  # fmt: skip


@pytest.mark.parametrize("gate", gates.GATES, ids=lambda gate: gate.__name__)
def test_the_lessons_pass_and_a_broken_copy_gets_the_messages_of_its_gate(mini, gate):
    assert [*gate(mini), *gate(lessons.ROOT)] == []
    expected = BROKEN[gate.__name__](mini)
    printed = "\n".join(gate(mini))
    assert [message for message in expected if message not in printed] == [], printed


def test_pins_and_results_that_a_lesson_reads_are_source_and_others_are_not(mini):
    (lesson,) = lessons.find(mini)
    change(mini, FACT, source="read_results('bank'), MODELS / 'cnn.csv'")
    old = lessons.source_hash(lesson)
    for name, is_source, *words in [
        ("pyproject.toml", False, "ruff==", "ruff==9."),
        ("pyproject.toml", False, "jupytext==", "jupytext==9."),
        ("pyproject.toml", True, "captcha==0.7.0", "captcha==0.7.1"),
        ("models/heads.json", False), ("models/bank.json", True), ("models/cnn.csv", True),
    ]:  # fmt: skip
        edit(mini / name, *words) if words else lessons.write(mini / name, "{}")
        new = lessons.source_hash(lesson)
        assert (new != old) == is_source, name
        old = new


@pytest.mark.parametrize("name", ["ch2_cnn", "ch3_ctc", "ch4_gpu_training", "ch7_ctc_pytorch"])
def test_a_lesson_goes_on_without_models(name):
    """What needs a file of models/ stands behind `if available(...)`, which says what is missing.

    Lessons 5 and 6 are about such files from the first cell to the last, and stop with one line.
    """
    for _, cell in lessons.code_cells(lessons.Lesson(lessons.ROOT, name).read()):
        nodes = [*ast.walk(ast.parse(cell.source))]
        tests = [x for x in nodes if isinstance(x, ast.If) and "available(" in ast.unparse(x.test)]
        guarded = {inside for test in tests for inside in ast.walk(test)}
        for call in (x for x in nodes if isinstance(x, ast.Call)):
            reads = ast.unparse(call.func) in ("finished", "read_results", "read_log")
            assert not reads or call in guarded, ast.unparse(call)


def test_every_exercise_leads_to_its_place_in_the_solutions():
    linked, exercises, folder = [], [], lessons.ROOT / "notebooks_py"
    for path in sorted(folder.glob("ch*.py")):
        section = path.read_text("utf-8").partition("# ## On your own\n")[2].partition("\n# ## ")[0]
        numbers = re.findall(r"^# (\d+)\. ", section, re.MULTILINE)
        lesson = re.match(r"ch(\d+)", path.name)[1]
        exercises += [f"lesson-{lesson}-exercise-{number}" for number in numbers]
        linked += re.findall(r"\(solutions\.ipynb#([\w-]+)\)", section)
    solutions = (folder / "solutions.py").read_text("utf-8").replace(" ", "-")
    assert linked == exercises == re.findall(r"^#-##-(lesson-.*)", solutions, re.MULTILINE) != []
