"""make run-all, refresh, format and strict nbval on the repository of two tiny lessons."""

import base64
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, edit, git, saved, snapshot
from nbformat.v4 import new_output
from PIL import Image

from tools import compare, format, gates, lessons, refresh, run_lessons

FIRST = "notebooks/ch1_circles.ipynb"
SECOND, TWICE = "notebooks/ch2_double.ipynb", r'"print(f\"{double(SEED):.2f}\")"'
MODULE = "notebooks_py/ch1_circles.py"


def test_run_all_runs_every_lesson_and_says_why_one_stopped(mini, tool):
    edit(mini / SECOND, TWICE, '"import os; os._exit(1)"')
    before = snapshot(mini)
    code, printed = tool(run_lessons, mini, "STEPS=2")
    assert code == 1 and "[1/2] ch1_circles ... ok" in printed and "[2/2] ch2_double" in printed
    folder = mini / "build" / "run-all" / "001"
    assert "2 circles" in (folder / "ch1_circles.ipynb").read_text(encoding="utf-8")
    assert (folder / "ch1_circles" / "run-001" / "imgs" / "circles.png").exists()
    table = printed.split("result\n")[1]
    assert "DeadKernelError" in table and "build/run-all/001/ch2_double.log" in table
    assert snapshot(mini) == before


def test_a_cell_that_raises_is_named(mini):
    notebook = lessons.find(mini)[1].read()
    notebook.cells[5].outputs = [new_output("error", ename="ValueError", evalue="no circle")]
    lessons.write_notebook(mini / SECOND, notebook)
    reason = run_lessons.failure(mini / SECOND, "log")
    assert reason == 'cell [3] `print(f"{double(SEED):.2f}")`: ValueError: no circle'


def test_a_wrong_word_is_one_line_before_anything_runs(mini, tool):
    for given, message in {
        "STEPZ=3": "run-all: STEPZ is not a parameter of ch1_circles, ch2_double; the parameters "
                   "are: SEED, STEPS\n",
        "STEPS=0": "run-all: STEPS=0 must be a whole number of at least 1, as in `make",
        "SEED=-1": "run-all: SEED=-1 must be a whole number of at least 0",
        "--only=ch9_none": "ch9_none is not a lesson; the lessons are: ch1_circles, ch2_do",
    }.items():  # fmt: skip
        code, printed = tool(run_lessons, mini, given)
        assert code == 1 and printed.startswith(message) and printed.count("\n") == 1
    assert not (mini / "build" / "run-all").exists()


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_hands_on_what_was_set_on_the_command_line():
    command = ["make", "--dry-run", "--no-print-directory", "run-all"]
    given = ["STEPS=5", "RUN=a folder's name", "ONLY=ch2_cnn"]
    command += [*given, "PYTHON=python3"]
    # A make above this test must not add its own settings.
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("MAKE")}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    call = shlex.split(result.stdout.splitlines()[-1])
    assert call[call.index("--only") + 1] == "ch2_cnn"
    assert call[1].endswith("python") and sorted(call[-2:]) == sorted(given[:2])


def test_ctrl_c_prints_the_table(mini, tool, monkeypatch):
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_lessons, "run", interrupt)
    code, printed = tool(run_lessons, mini)
    rows = [line.split(maxsplit=2) for line in printed.splitlines()[-2:]]
    assert code == 1
    assert rows == [["ch1_circles", "0", "stopped"], ["ch2_double", "0", "not run"]]


def test_a_lesson_without_its_optional_module_is_left_out_in_one_line(mini, tool, monkeypatch):
    monkeypatch.setattr(lessons, "OPTIONAL", ("absent",))
    monkeypatch.setattr(run_lessons, "run", lambda *_: "ok")
    edit(mini / SECOND, TWICE, '"import absent.part"')
    notice = "left out: ch2_double (absent is not installed); to include, `make setup-absent`\n"
    code, printed = tool(run_lessons, mini)
    assert code == 0 and printed.startswith(notice) and printed.count("ch2_double") == 1
    # Asked for by name it cannot be left out with success.
    assert tool(run_lessons, mini, "--only", "ch2_double") == (1, notice)


def test_refresh_runs_what_depends_on_an_edit(mini, tool):
    nothing = "ch1_circles: nothing changed\nch2_double: nothing changed\n"
    assert tool(refresh, mini) == (0, nothing)
    edit(mini / MODULE, "radius**2", "radius**3")
    log = "# import os\n# os.write(2, b'log')\n# print(f"
    edit(mini / "notebooks_py" / "ch2_double.py", "# print(f", log)
    assert format.main(["--root", str(mini)]) == 0
    code, printed = tool(refresh, mini)
    assert code == 0 and "ch2_double ... ok" in printed and FIRST in printed
    assert '"50.27\\n"' in (mini / SECOND).read_text(encoding="utf-8")
    assert gates.provenance(mini) == gates.outputs(mini) == []


def test_refresh_leaves_files_as_they_were_when_a_cell_fails(mini, tool, monkeypatch):
    def run(lesson: lessons.Lesson, folder: Path, values: dict) -> str:
        if lesson.number == 1:
            return "cell [4] `1 / 0`: ZeroDivisionError: division by zero"
        notebook = lesson.read()
        notebook.cells[5].outputs = [new_output("stream", name="stderr", text="careful")]
        return "ok" if lessons.write_notebook(folder / lesson.notebook.name, notebook) else ""

    monkeypatch.setattr(run_lessons, "run", run)
    before = snapshot(mini)
    code, printed = tool(refresh, mini, "--force")
    assert code == 1 and printed.count("FAILED, its files are left as they were") == 2
    assert "ZeroDivisionError" in printed and "wrote to stderr: 'careful'" in printed
    assert snapshot(mini) == before


def test_a_picture_shown_from_imgs_belongs_to_the_lesson_that_shows_it(mini, tmp_path, monkeypatch):
    """As a diagram where Graphviz is missing; once it does, nothing but the drawn one will do."""

    def run(lesson: lessons.Lesson, folder: Path, values: dict) -> str:
        notebook, png = lesson.read(), base64.b64encode(path.read_bytes()).decode()
        notebook.cells[5].outputs.append(new_output("display_data", data={"image/png": png}))
        return "ok" if lessons.write_notebook(folder / lesson.notebook.name, notebook) else ""

    monkeypatch.setattr(run_lessons, "run", run)
    second, path = lessons.find(mini)[1], mini / "imgs" / "diagram.png"
    Image.new("RGB", (8, 8)).save(path)
    assert len(gates.pictures(mini)) == 1
    refresh.refresh(second, tmp_path)
    assert gates.pictures(mini) == []
    Image.new("RGB", (8, 8), "white").save(path)
    refresh.refresh(second, tmp_path)
    (message,) = gates.pictures(mini)
    assert "imgs/diagram.png is not the picture that the run drew" in message


def test_format_carries_an_edit_of_either_side_and_keeps_outputs(mini, tool):
    edit(mini / MODULE, "# A fact.", "# One fact.")
    os.utime(mini / FIRST)  # a newer file is not an edited one
    assert tool(format, mini) == (0, f"format: wrote {FIRST}\n")
    assert gates.sync(mini) == gates.outputs(mini) == []
    edit(mini / FIRST, "One fact.", "Another fact.")  # without a commit in between
    assert f"format: wrote {MODULE}\n" in tool(format, mini)[1]
    assert "# Another fact." in (mini / MODULE).read_text(encoding="utf-8")
    assert tool(format, mini) == (0, "")


@pytest.mark.parametrize("clone", [True, False])
def test_format_loses_no_edit_where_one_of_two_lessons_clashes(mini, tool, clone):
    if clone:  # the last commit is all there is
        shutil.rmtree(mini / "build" / "format")
    edit(mini / MODULE, "# A fact.", "# One fact.")
    edit(mini / FIRST, "A fact.", "Another fact.")
    edit(mini / SECOND, "A fact.", "A twofold fact.")
    before = snapshot(mini)
    code, printed = tool(format, mini)
    assert code == 1 and snapshot(mini) == before
    assert printed == (
        "format: ch1_circles: both sides were edited, or neither since the last commit; `make "
        f"format ONLY=ch1_circles FROM=py` keeps {MODULE}, `FROM=ipynb` keeps {FIRST}\n"
    )
    assert tool(format, mini, "--only", "ch1_circles", "--from", "py")[0] == 0
    assert "One fact." in (mini / FIRST).read_text(encoding="utf-8") and gates.sync(mini)
    assert tool(format, mini)[0] == 0 and gates.sync(mini) == []
    assert "A twofold fact." in (mini / "notebooks_py" / "ch2_double.py").read_text("utf-8")
    # What was edited since then is no clash, whatever the last commit says.
    edit(mini / MODULE, "# One fact.", "# A third fact.")
    assert tool(format, mini, "--from", "ipynb") == (0, f"format: wrote {FIRST}\n")
    git(mini, "commit", "--quiet", "--all", "--message", "edits")
    assert tool(format, mini) == (0, "")


def test_make_test_compares_every_digit(mini, tmp_path):
    edit(mini / FIRST, '"3.14159"', '"3.14158"')
    ok, text = compare.strict(lessons.find(mini)[0], tmp_path)
    assert not ok and "::Cell 3" in text and "1 failed, 3 passed" in text.splitlines()[-1]


def test_make_test_compares_pictures(mini, tmp_path):
    """Somebody shows another picture of the same size, and writes its digest beside it."""
    lesson = lessons.find(mini)[0]
    notebook = lesson.read()
    ((_, png),) = compare.pictures(notebook)
    mirrored = saved(compare.pixels(png).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    data = next(x.data for x in notebook.cells[5].outputs if "image/png" in x.get("data", {}))
    data["image/png"] = base64.b64encode(mirrored).decode()
    notebook.metadata["lesson"]["pictures"] = [compare.digest(mirrored)]
    lessons.write_notebook(lesson.notebook, notebook)
    assert gates.pictures(mini) == []
    ok, text = compare.strict(lesson, tmp_path)
    assert not ok and "another picture than the committed one" in text and "1 failed" in text
