"""Lay out the lessons and carry an edit to their other side: `make format`.

The edited side is the one that differs from the last commit; times of files mean nothing after a
clone. Where that doesn't decide, nothing is written until FROM=py or FROM=ipynb does. Outputs of
unchanged cells stay.
"""

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


def edited_side(lesson: Lesson) -> str | None:
    """Return the side that the other one is made from, "py" or "ipynb"; None for a clash."""
    if not lesson.notebook.exists() or not lesson.module.exists():
        return "ipynb" if lesson.notebook.exists() else "py"
    notebook, module = jupytext.writes(lesson.read(), PERCENT), lesson.module.read_text("utf-8")
    if notebook == module:
        return "ipynb"
    place = lessons.shown(lesson.module, lesson.root)
    old_notebook, old_module = (
        lessons.git(lesson.root, "show", f"HEAD:./{path}") for path in (lesson, place)
    )
    if old_notebook:
        old_notebook = jupytext.writes(nbformat.reads(old_notebook, as_version=4), PERCENT)
    edited = {"ipynb": notebook != old_notebook, "py": module != old_module}
    return None if all(edited.values()) else next((x for x in edited if edited[x]), None)


def format_lessons(sides: dict[Lesson, str]) -> list[Path]:
    """Lay lessons out from one side and make the other one equal; return the changed files."""
    paths = [path for lesson in sides for path in (lesson.notebook, lesson.module)]
    before = {path: path.read_bytes() for path in paths if path.exists()}
    for lesson, side in sides.items():
        notebook = lesson.read() if lesson.notebook.exists() else None
        if side == "py":
            stored, notebook = notebook, jupytext.reads(lesson.module.read_text("utf-8"), PERCENT)
            if stored:
                notebook = combine_inputs_with_outputs(notebook, stored, PERCENT)
        lessons.write_notebook(lesson.notebook, lessons.normalise(notebook, lesson.root))
    for action in (["check", "--fix"], ["format"]):
        notebooks = [str(lesson.notebook) for lesson in sides]
        _, message = lessons.call("-m", "ruff", *action, "--quiet", *notebooks)
        if message:  # what it cannot fix
            print(message)
    for lesson in sides:
        notebook = lessons.normalise(lesson.read(), lesson.root)
        lessons.write_notebook(lesson.notebook, notebook)
        lessons.write(lesson.module, jupytext.writes(notebook, PERCENT))
    return [path for path in paths if path.read_bytes() != before.get(path)]


def main(words: list[str] | None = None, root: Path = lessons.ROOT) -> int:
    """Format every lesson and name the files that changed; 1 if sides clash, then none did."""
    parser = options.parser("format", "Lay out the lessons, and make both sides of each equal.")
    parser.add_argument("--only", default="", help="names of lessons, such as ch2_cnn,ch3_ctc")
    parser.add_argument("--from", dest="side", choices=["py", "ipynb"], help="the side to keep")
    arguments = parser.parse_args(words)
    selected = lessons.find(root, arguments.only, one_sided=True)
    sides = {lesson: arguments.side or edited_side(lesson) for lesson in selected}
    if clashes := [lesson.name for lesson in selected if not sides[lesson]]:
        print("\n".join(CLASH.format(name) for name in clashes))
        return 1
    for path in format_lessons(sides):
        print(f"format: wrote {lessons.shown(path, root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
