"""make run-all, refresh and format on a repository of two tiny lessons."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gates
import lessons
import pytest
import run_lessons
from conftest import ROOT, edit, format_all, git, snapshot, tool


def test_run_all_runs_every_lesson_and_changes_nothing(mini: Path) -> None:
    before = snapshot(mini)
    for number in ("001", "002"):
        result = tool("run_lessons", mini, "STEPS=2")
        assert result.returncode == 0, result.stdout + result.stderr
        assert "[1/2] ch1_circles ... ok" in result.stdout
        assert "[2/2] ch2_double ... ok" in result.stdout
        folder = next(
            path for path in (mini / "build" / "run-all").iterdir() if path.name == number
        )
        assert "2 circles" in (folder / "ch1_circles.ipynb").read_text(encoding="utf-8")
        assert (folder / "ch1_circles" / "run-001" / "imgs" / "circles.png").exists()
    assert snapshot(mini) == before
    assert git(mini, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("STEPZ=3", "run-all: STEPZ is not a parameter of ch1_circles, ch2_double; "
                    "the parameters are: SEED, STEPS"),
        ("STEPS=0", "run-all: STEPS=0 must be a whole number of at least 1"),
        ("STEPS=abc", "run-all: STEPS=abc must be a whole number of at least 1"),
        ("SEED=-1", "run-all: SEED=-1 must be a whole number of at least 0"),
        ("STEPS=", "run-all: STEPS= must be a whole number of at least 1"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_one_line_before_anything_runs(
    mini: Path, given: str, message: str
) -> None:
    before = set((mini / "build").rglob("*"))
    result = tool("run_lessons", mini, given)
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert set((mini / "build").rglob("*")) == before


def test_an_unknown_lesson_is_named(mini: Path) -> None:
    result = tool("run_lessons", mini, "--only", "ch9_none")
    assert result.returncode == 1
    assert result.stderr == (
        "ONLY=ch9_none is not a lesson; the lessons are: ch1_circles, ch2_double\n"
    )


def test_parameters_go_to_the_lessons_that_declare_them(mini: Path) -> None:
    declared = {lesson.name: lessons.parameters(lesson.read()) for lesson in lessons.find(mini)}
    assert declared == {"ch1_circles": {"SEED": 1, "STEPS": 3}, "ch2_double": {"SEED": 2}}
    assert run_lessons.read_overrides(["SEED=0", "STEPS=7"], declared) == {"SEED": 0, "STEPS": 7}


def test_make_hands_on_what_was_set_on_the_command_line() -> None:
    command = ["make", "--dry-run", "--no-print-directory", "run-all"]
    command += ["STEPS=5", "WORD=x", "PYTHON=python3", "ONLY=ch2_cnn"]
    # A make above this test must not add its own settings.
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("MAKE")}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    call = result.stdout.splitlines()[-1].split()
    assert call[call.index("--only") + 1] == '"ch2_cnn"'
    assert sorted(call[-2:]) == ["STEPS=5", "WORD=x"]


def test_run_all_goes_on_after_a_lesson_that_raises(mini: Path) -> None:
    notebook = mini / "notebooks" / "ch1_circles.ipynb"
    edit(notebook, '"round(area(SEED), 5)"', '"area(1) / 0"')
    result = tool("run_lessons", mini)
    assert result.returncode == 1
    assert "[1/2] ch1_circles ... FAILED" in result.stdout
    assert "[2/2] ch2_double ... ok" in result.stdout
    table = result.stdout.split("result\n")[1]
    assert "cell [5] `area(1) / 0`: ZeroDivisionError: float division by zero" in table


def test_a_kernel_that_dies_is_a_failure_with_a_reason(mini: Path) -> None:
    notebook = mini / "notebooks" / "ch2_double.ipynb"
    edit(notebook, r'"print(f\"{double(SEED):.2f}\")"', '"import os; os._exit(1)"')
    result = tool("run_lessons", mini, "--only", "ch2_double")
    assert result.returncode == 1
    assert "DeadKernelError" in result.stdout


def test_ctrl_c_stops_the_lesson_and_prints_the_table(mini: Path) -> None:
    edit(
        mini / "notebooks" / "ch1_circles.ipynb",
        '"round(area(SEED), 5)"',
        "\"import time; open('here', 'w'); time.sleep(600)\"",
    )
    command = [sys.executable, ROOT / "tools" / "run_lessons.py", "--root", mini]
    # A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=listen)
    marker = mini / "notebooks" / "here"
    for _ in range(600):
        if marker.exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ch1_circles" in output.split("result\n")[1]
    assert "stopped" in output
    assert "not run" in output


# A Python in which a tool takes `absent` for an optional module; nothing of that name is installed.
WITHOUT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import lessons
lessons.OPTIONAL = ("absent",)
tool = __import__(sys.argv.pop(1))
sys.exit(tool.main())
"""


def without(name: str, root: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run a tool where the second lesson needs a module that is optional and not installed."""
    command = [sys.executable, "-c", WITHOUT, str(ROOT / "tools"), name, "--root", str(root)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True)


@pytest.fixture
def optional(mini: Path) -> Path:
    """The tiny repository with a second lesson that imports the module `absent`."""
    edit(mini / "notebooks_py" / "ch2_double.py", "from notebooks_py.ch1_circles import area",
         "import absent.part  # noqa: F401\nfrom notebooks_py.ch1_circles import area")  # fmt: skip
    format_all(mini)
    (mini / "requirements-absent.txt").write_text("absent==1.0\n")
    return mini


NOTICE = "left out: ch2_double (absent is not installed); to include, `make setup-absent`\n"


def test_a_lesson_without_its_optional_module_is_left_out_in_one_line(optional: Path) -> None:
    result = without("run_lessons", optional, "STEPS=2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith(NOTICE)
    assert result.stdout.count("ch2_double") == 1
    assert "[1/1] ch1_circles ... ok" in result.stdout
    result = without("refresh", optional)
    assert result.returncode == 0
    assert result.stdout == NOTICE + "ch1_circles: nothing changed\n"
    result = without("gates", optional, "nbval")
    assert result.returncode == 0
    assert "ch2_double" not in result.stdout  # run_lessons, in the same `make test`, has said it


def test_a_lesson_asked_for_by_name_cannot_be_left_out_with_success(optional: Path) -> None:
    result = without("run_lessons", optional, "--only", "ch2_double")
    assert (result.returncode, result.stdout) == (1, NOTICE)


def test_a_lesson_without_another_module_fails(optional: Path) -> None:
    result = tool("run_lessons", optional, "--only", "ch2_double")
    assert result.returncode == 1
    assert "No module named 'absent'" in result.stdout


def test_static_gates_still_read_a_lesson_that_is_left_out(optional: Path) -> None:
    edit(optional / "notebooks_py" / "ch2_double.py", "# A fact.", "# One fact.")
    result = without("gates", optional, "sync")
    assert result.returncode == 1
    assert "ch2_double" in result.stdout


def test_the_pins_of_an_optional_module_count_for_its_lessons_alone(
    optional: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessons, "OPTIONAL", ("absent",))
    before = [lessons.source_hash(lesson) for lesson in lessons.find(optional)]
    (optional / "requirements-absent.txt").write_text("absent==1.1\n")
    after = [lessons.source_hash(lesson) for lesson in lessons.find(optional)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


def test_refresh_twice_is_the_same_to_the_last_byte(mini: Path) -> None:
    before = snapshot(mini)
    assert "imgs/circles.png" in before
    result = tool("refresh", mini)
    assert result.stdout == "ch1_circles: nothing changed\nch2_double: nothing changed\n"
    assert snapshot(mini) == before
    result = tool("refresh", mini, "--force")
    assert result.stdout.count("wrote nothing: all the same") == 2, result.stdout + result.stderr
    assert snapshot(mini) == before


def test_refresh_runs_what_imports_a_changed_definition(mini: Path) -> None:
    edit(mini / "notebooks_py" / "ch1_circles.py", "math.pi * radius**2", "3 * radius**2")
    format_all(mini)
    stale = gates.provenance(mini)
    assert [message.split(":")[1] for message in stale] == [
        " notebooks/ch1_circles.ipynb",
        " notebooks/ch2_double.ipynb",
    ]
    assert tool("refresh", mini).returncode == 0
    assert '"24.00\\n"' in (mini / "notebooks" / "ch2_double.ipynb").read_text(encoding="utf-8")
    assert gates.provenance(mini) == []


def test_refresh_leaves_a_demo_cell_of_another_lesson_alone(mini: Path) -> None:
    edit(mini / "notebooks_py" / "ch1_circles.py", "round(area(SEED), 5)", "round(area(SEED), 4)")
    format_all(mini)
    assert [message.split(":")[1] for message in gates.provenance(mini)] == [
        " notebooks/ch1_circles.ipynb"
    ]


def test_refresh_keeps_everything_when_a_cell_fails(mini: Path) -> None:
    edit(mini / "notebooks_py" / "ch1_circles.py", "round(area(SEED), 5)", "area(1) / 0")
    format_all(mini)
    before = snapshot(mini)
    result = tool("refresh", mini)
    assert result.returncode == 1
    assert "ch1_circles ... FAILED" in result.stdout
    assert "ZeroDivisionError" in result.stdout
    assert snapshot(mini) == before


def test_refresh_refuses_words_on_stderr(mini: Path) -> None:
    edit(mini / "notebooks_py" / "ch2_double.py", 'print(f"{double(SEED):.2f}")',
         'import sys; print("careful", file=sys.stderr)')  # fmt: skip
    format_all(mini)
    before = snapshot(mini)
    result = tool("refresh", mini)
    assert result.returncode == 1
    assert "wrote to stderr: 'careful'" in result.stdout
    assert snapshot(mini) == before


def test_native_log_lines_stay_out_of_the_notebook(mini: Path) -> None:
    edit(mini / "notebooks_py" / "ch2_double.py", 'print(f"{double(SEED):.2f}")',
         'import os; os.write(2, b"native log"); print(1)')  # fmt: skip
    format_all(mini)
    result = tool("refresh", mini)
    assert result.returncode == 0, result.stdout
    assert gates.outputs(mini) == []


def test_format_carries_an_edit_of_either_side_and_keeps_outputs(mini: Path) -> None:
    module, notebook = (
        mini / "notebooks_py" / "ch1_circles.py",
        mini / "notebooks" / "ch1_circles.ipynb",
    )
    os.utime(notebook)  # a newer file is not an edited one
    edit(module, "# A fact.", "# One fact.")
    assert tool("format", mini).stdout == "format: wrote notebooks/ch1_circles.ipynb\n"
    assert gates.sync(mini) == gates.facts(mini) == gates.outputs(mini) == []
    git(mini, "commit", "--quiet", "--all", "--message", "edit")
    os.utime(module)
    edit(notebook, "One fact.", "Another fact.")
    assert "notebooks_py/ch1_circles.py" in tool("format", mini).stdout
    assert "# Another fact." in module.read_text(encoding="utf-8")
    assert tool("format", mini).stdout == ""


def test_format_asks_where_both_sides_were_edited(mini: Path) -> None:
    edit(mini / "notebooks_py" / "ch1_circles.py", "# A fact.", "# One fact.")
    edit(mini / "notebooks" / "ch1_circles.ipynb", "A fact.", "Another fact.")
    before = snapshot(mini)
    result = tool("format", mini)
    assert result.returncode == 1
    assert "say `make format FROM=py` or `make format FROM=ipynb`" in result.stderr
    assert snapshot(mini) == before
    assert tool("format", mini, "--from", "py").returncode == 0
    assert "One fact." in (mini / "notebooks" / "ch1_circles.ipynb").read_text(encoding="utf-8")
