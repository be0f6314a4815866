"""Lay out the lessons and carry an edit to their other side: `make format`.

The edited side is the one that differs from the last commit; times of files mean nothing after a
clone. Where that doesn't decide, nothing is written until FROM=py or FROM=ipynb does. Outputs of
unchanged cells stay.
"""

import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs

from tools import lessons, options
from tools.lessons import PERCENT, Lesson

CLASH = (
    "format: {0}: both sides were edited since the last commit, or neither; `make format ONLY={0} "
    "FROM=py` keeps notebooks_py/{0}.py, `FROM=ipynb` keeps notebooks/{0}.ipynb"
)


def committed(path: Path) -> str:
    """Return what a file says in the last commit; nothing where there is none."""
    command = ["git", "-C", str(path.parent), "show", f"HEAD:./{path.name}"]
    return subprocess.run(command, capture_output=True, encoding="utf-8").stdout


def edited_side(lesson: Lesson) -> str | None:
    """Return the side that the other one is made from, "py" or "ipynb"; None for a clash."""
    if not lesson.notebook.exists() or not lesson.module.exists():
        return "ipynb" if lesson.notebook.exists() else "py"
    sides = {"ipynb": jupytext.writes(lesson.read(), PERCENT)}
    sides["py"] = lesson.module.read_text("utf-8")
    if sides["ipynb"] == sides["py"]:
        return "ipynb"
    old = {"ipynb": committed(lesson.notebook), "py": committed(lesson.module)}
    if old["ipynb"]:
        old["ipynb"] = jupytext.writes(nbformat.reads(old["ipynb"], as_version=4), PERCENT)
    edited = [side for side in sides if sides[side] != old[side]]
    return edited[0] if len(edited) == 1 else None


def format_lessons(sides: dict[Lesson, str]) -> list[Path]:
    """Lay lessons out from one side and make the other one equal; return the changed files."""
    paths = [path for lesson in sides for path in (lesson.notebook, lesson.module)]
    before = {path: path.read_bytes() for path in paths if path.exists()}
    for lesson in (lesson for lesson, side in sides.items() if side == "py"):
        notebook = jupytext.reads(lesson.module.read_text("utf-8"), PERCENT)
        if lesson.notebook.exists():
            notebook = combine_inputs_with_outputs(notebook, lesson.read(), PERCENT)
        lessons.write_notebook(lesson.notebook, notebook)
    notebooks = [str(lesson.notebook) for lesson in sides]
    for action in (["check", "--fix"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *action, "--quiet", *notebooks])
    for lesson in sides:
        notebook = lessons.normalise(lesson.read(), lesson.root)
        lessons.write_notebook(lesson.notebook, notebook)
        lessons.write(lesson.module, jupytext.writes(notebook, PERCENT))
    return [path for path in paths if path.read_bytes() != before.get(path)]


def main(words: list[str] | None = None, root: Path = lessons.ROOT) -> int:
    """Format every lesson and name the files that changed; change none and return 1 on a clash."""
    parser = options.parser("format", "Lay out the lessons, and make both sides of each equal.")
    parser.add_argument("--only", default="", help="names of lessons, such as ch2_cnn,ch3_ctc")
    parser.add_argument("--from", dest="side", choices=["py", "ipynb"], help="the side to keep")
    arguments = parser.parse_args(words)
    selected = lessons.find(root, arguments.only, one_sided=True)
    sides = {lesson: edited_side(lesson) for lesson in selected}
    for lesson in selected:  # FROM decides a clash, and what ONLY names
        both = lesson.notebook.exists() and lesson.module.exists()
        if arguments.side and both and (arguments.only or not sides[lesson]):
            sides[lesson] = arguments.side
    if clashes := [lesson.name for lesson in selected if not sides[lesson]]:
        print("\n".join(CLASH.format(name) for name in clashes))
        return 1
    for path in format_lessons(sides):
        print(f"format: wrote {path.relative_to(root).as_posix()}")
    return 0


if __name__ == "__main__":
    options.end_with(main)
