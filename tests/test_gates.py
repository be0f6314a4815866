"""Each gate lets the repository pass, and stops a broken copy with its own message."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import gates
import lessons
import nbformat
import pytest
from conftest import ROOT, UNTRACKED, edit, format_all, tool
from nbformat import NotebookNode
from nbformat.v4 import new_output

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


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    """A breakage: one place in a file."""
    return lambda root: edit(root / name, old, new)


def bytes_in(name: str, size: int) -> Callable[[Path], None]:
    """A breakage: a file that grew."""

    def breakage(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        with (root / name).open("ab") as stream:
            stream.write(b"\n" * size)

    return breakage


def source_edited_on_both_sides(root: Path) -> None:
    edit(root / MODULE, "round(area(SEED), 5)", "round(area(SEED), 4)")
    format_all(root)


def two_excluded_cells(root: Path) -> None:
    for cell in (PICTURE, FACT):
        change(cell, lambda c: c.metadata.tags.append("nbval-ignore-output"))(root)
        change(cell, lambda c: c.update(source="# not compared: it says the time\n1"))(root)


BREAKAGES = [
    ("sync", text(MODULE, "radius**2", "radius**3"), "differ, first in `"),
    ("sync", text(FIRST, "A fact.", "One fact."), "differ, first in `# One fact.`"),
    ("sync", lambda root: (root / MODULE).unlink(), f"{MODULE} is missing; run `make format`"),
    ("outputs", change(FACT, lambda c: c.update(outputs=[], execution_count=None)),
     "cell 8 is number [None] of the run, not [4]; run `make refresh`"),
    ("outputs", change(PICTURE, lambda c: c.update(execution_count=7)), "is number [7]"),
    ("outputs", change(FACT, lambda c: c.outputs.append(
        new_output("stream", name="stderr", text="careful"))), "cell 8 wrote to stderr: 'careful'"),
    ("outputs", change(FACT, lambda c: c.outputs.append(
        new_output("error", ename="ValueError", evalue="no"))), "holds the error ValueError"),
    ("outputs", change(FACT, lambda c: c.outputs.append(
        new_output("stream", name="stdout", text="so: WARNING:tensorflow:slow"))),
     "cell 8 shows a library's 'WARNING:tensorflow:slow'"),
    ("provenance", source_edited_on_both_sides, "the source is now"),
    ("provenance", source(FACT, "round(area(SEED), 3)"), "the outputs come from source"),
    ("provenance", change(FACT, lambda c: c.metadata.update(tags=[])), "run `make refresh`"),
    ("provenance", text("requirements.lock", "captcha==0.7.0", "captcha==0.7.1"), "run `make ref"),
    ("facts", shows(PICTURE, image_png="aGk=", text_plain="<Figure size 640x480 with 1 Axes>"),
     "cell 6 shows something that nothing compares"),
    ("facts", shows(FACT, text_plain="array([<Axes: >, <Axes: >], dtype=object)"), "cell 8 shows"),
    ("facts", change(FACT, lambda c: c.update(outputs=[], source="assert True")), "cell 8 shows"),
    ("exclusions", change(FACT, lambda c: c.metadata.tags.append("nbval-skip")),
     "cell 8 is not compared and does not say why"),
    ("exclusions", source(FACT, "# NBVAL_IGNORE_OUTPUT\n1"), "does not say why"),
    ("exclusions", two_excluded_cells, "2 of 7 code cells are not compared (ch1_circles cell 6, "),
    ("parameters", text(FIRST, '"STEPS = 3', '"STEP = 3'),
     "STEP is not a parameter; the names are SEED, STEPS, EPOCHS"),
    ("parameters", source(PARAMETERS, "STEPS = 3"), "SEED is missing"),
    ("parameters", source(PARAMETERS, "SEED = 1\nSTEPS = 2 + 1"), "STEPS must be a whole number"),
    ("parameters", source(PARAMETERS, "SEED = 1\nprint(SEED)"), "holds more than `NAME = number`"),
    ("parameters", change(PARAMETERS, lambda c: c.metadata.update(tags=[])), "0 cells are tagged"),
    ("pins", text("requirements.txt", "captcha==0.7.0", "captcha==0.7.1"),
     "requirements.txt has captcha==0.7.1, the lock has 0.7.0; run `make lock`"),
    ("pins", text("requirements.lock", "captcha==0.7.0", "captcha==0.7.1"),
     "requirements.lock has captcha==0.7.1, installed is 0.7.0"),
    ("pins", text("requirements.txt", "captcha==0.7.0", "captcha>=0.7.0"), "no exact version"),
    ("pins", text("requirements-torch.txt", "torch==2.13.0", "torch>=2.13.0"), "no exact version"),
    ("pins", text("requirements-torch.txt", "torch==2.13.0", "torch==2.12.0"),
     "the group torch is ['torch==2.13.0'], requirements-torch.txt has torch==2.12.0; make them"),
    ("pins", text("requirements-torch.txt", "sympy==1.14.0", "tqdm==1.0.0"),
     "requirements-torch.txt has tqdm==1.0.0, the lock has 4.70.1; drop it here"),
    ("pins", text("environment.yml", "- -r requirements.txt", "- captcha"), "under pip"),
    ("pins", text("environment.yml", "  - graphviz", "  - git"), "graphviz is missing"),
    ("pins", text("pyproject.toml", ">=3.11,<3.14", ">=3.12,<3.14"), "asks for python<3.14,>=3.11"),
    ("modules", text(MODULE, 'NAMES = ("a", "b")', 'NAMES = print("a")'),
     "`NAMES = print('a')`, does more than define something; tag its cell active-ipynb"),
    ("modules", text(MODULE, 'NAMES = ("a", "b")', 'os.mkdir("a")'), "`os.mkdir('a')`"),
    ("modules", text(MODULE, 'NAMES = ("a", "b")', "math.pi = 3"), "`math.pi = 3`"),
    ("modules", text(MODULE, 'NAMES = ("a", "b")', "if TYPE_CHECKING:\n    math.pi = 3"),
     "`if TYPE_CHECKING:`, does more than define"),
    ("modules", text(MODULE, 'NAMES = ("a", "b")', "if math.pi:\n    import os"), "`if math.pi:`"),
    ("modules", text(MODULE, "math.pi * radius", "math.pi * STEPS"), "reads the parameter STEPS"),
    ("modules", source(FACT, "import notebooks_py.ch2_double"), "imports ch2_double, which is not"),
    ("prose", source(0, "# Count circles"), "no heading `What you'll do`; add it"),
    ("prose", source(2, "# Another title"), "2 headings of the first level, not one"),
    ("prose", source(FACT, "1\n" * 21), "cell 8 has 21 lines, more than 20"),
    ("prose", source(DEFINITIONS, "def f():\n    \"\"\"Do.\"\"\"\n" + "    print()\n" * 20),
     "cell 2 has 21 lines, more than 20"),
    ("prose", change(0, lambda c: c.update(cell_type="code", outputs=[], execution_count=None)),
     "4 text and 5 code cells"),
    ("size", bytes_in(FIRST, 1_500_000), "1.5 MB, at most 1.5 are allowed"),
    ("size", bytes_in("models/cnn.keras", 15_000_000), "models/cnn.keras has 15.0 MB"),
]  # fmt: skip


@pytest.mark.parametrize("gate", gates.STATIC, ids=lambda gate: gate.__name__)
def test_the_repository_passes(gate: Callable) -> None:
    assert gate(ROOT) == []


def test_the_untouched_copy_passes_every_gate(mini_made: Path) -> None:
    assert [message for gate in gates.STATIC for message in gate(mini_made)] == []


@pytest.mark.parametrize(
    ("gate", "breakage", "message"), BREAKAGES, ids=[f"{b[0]}-{b[2][:30]}" for b in BREAKAGES]
)
def test_a_broken_copy_fails_with_the_message_of_its_gate(
    mini: Path, gate: str, breakage: Callable, message: str
) -> None:
    breakage(mini)
    messages = getattr(gates, gate)(mini)
    assert any(found.startswith(f"{gate}: ") and message in found for found in messages), messages


def test_every_gate_has_a_breakage() -> None:
    assert {gate.__name__ for gate in gates.STATIC} == {gate for gate, _, _ in BREAKAGES}


def test_a_reason_and_an_assertion_are_enough(mini: Path) -> None:
    change(FACT, lambda c: c.update(outputs=[], source="assert area(1) > 3"))(mini)
    assert gates.facts(mini) == []


def test_the_command_names_what_is_wrong(mini: Path) -> None:
    assert tool("gates", mini).returncode == 0
    edit(mini / FIRST, "A fact.", "One fact.")
    result = tool("gates", mini, "sync", "prose")
    assert result.returncode == 1
    assert result.stdout.startswith("sync: notebooks/ch1_circles.ipynb and ")


def test_nbval_compares_every_digit(mini: Path) -> None:
    notebooks = [lesson.notebook for lesson in lessons.find(mini)]
    assert gates.nbval(mini, notebooks) == []
    edit(notebooks[0], '"3.14159"', '"3.14158"')
    (message,) = gates.nbval(mini, notebooks[:1])
    assert message.startswith(
        "nbval: notebooks/ch1_circles.ipynb: code cells 3 give another output"
    )


def test_nbval_starts_a_kernel_a_second_time_and_no_third(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Run:  # what is left of a kernel whose ports were taken
        returncode = 1
        stdout = "ERROR n::Cell 0 - RuntimeError: Kernel died before replying to kernel_info\n"
        stderr = ""

    keep, runs = gates._run_again, []

    def run(root: Path, notebook: Path) -> object:
        runs.append(notebook)
        return Run if len(runs) in (1, 3, 4) else keep(root, notebook)

    monkeypatch.setattr(gates, "_run_again", run)
    assert gates.nbval(mini, [mini / FIRST]) == [] and len(runs) == 2
    (message,) = gates.nbval(mini, [mini / FIRST])
    assert message.startswith("nbval: notebooks/ch1_circles.ipynb: code cells 0 ")
    assert len(runs) == 4


def test_nbval_sees_words_on_stderr_and_errors(mini: Path) -> None:
    source(FACT, 'import sys; print("careful", file=sys.stderr); round(area(SEED), 5)')(mini)
    source(PICTURE, "1 / 0")(mini)
    (message,) = gates.nbval(mini, [mini / FIRST])
    assert message.startswith("nbval: ")


def test_nbval_finds_a_changed_digit_in_the_first_real_lesson(tmp_path: Path) -> None:
    root = Path(shutil.copytree(ROOT, tmp_path / "copy", ignore=UNTRACKED))
    lesson = lessons.find(root)[0]
    notebook = lesson.read()
    outputs = [o for _, cell in lessons.code_cells(notebook) for o in cell.outputs]
    printed = next(o for o in outputs if re.search(r"\d", o.get("text", "")))
    printed.text = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), printed.text, count=1)
    lessons.write_notebook(lesson.notebook, notebook)
    (message,) = gates.nbval(root, [lesson.notebook])
    assert re.search(r"code cells \d+ give another output than the stored one", message)
