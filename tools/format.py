"""Lay out the lessons and carry an edit to their other side: `make format`.

The edited side is the one that differs from what the last `make format` left, or else from the last
commit; times of files mean nothing after a clone. Where both sides were edited, nothing is written
until `FROM=py` or `FROM=ipynb` decides. Outputs of unchanged cells stay.
"""

import argparse
import sys
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs

from tools import lessons
from tools.lessons import PERCENT, Lesson

CLASH = (
    "format: {0}: both sides were edited, or neither since the last commit; `make format ONLY={0} "
    "FROM=py` keeps notebooks_py/{0}.py, `FROM=ipynb` keeps notebooks/{0}.ipynb"
)


def last_format(lesson: Lesson) -> Path:
    """Where the text is that the last `make format` left on both sides of a lesson."""
    return lesson.root / "build" / "format" / lesson.module.name


def edited_side(lesson: Lesson, wanted: str | None) -> str | None:
    """The side of a lesson that the other one is made from, "py" or "ipynb"; None for a clash."""
    if not lesson.notebook.exists() or not lesson.module.exists():
        return "ipynb" if lesson.notebook.exists() else "py"
    notebook, module = jupytext.writes(lesson.read(), PERCENT), lesson.module.read_text("utf-8")
    if notebook == module:
        return "ipynb"
    last = last_format(lesson)
    bases = [(last.read_text("utf-8"),) * 2] if last.exists() else []
    if old := lessons.git(lesson.root, "show", f"HEAD:./{lesson}"):
        old = jupytext.writes(nbformat.reads(old, as_version=4), PERCENT)
        place = lessons.shown(lesson.module, lesson.root)
        bases.append((old, lessons.git(lesson.root, "show", f"HEAD:./{place}")))
    for old_notebook, old_module in bases:
        if (notebook == old_notebook) != (module == old_module):
            return "py" if notebook == old_notebook else "ipynb"
    return wanted


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
        _, said = lessons.call("-m", "ruff", *action, "--quiet", *notebooks)
        if said:  # what it cannot fix
            print(said)
    for lesson in sides:
        notebook = lessons.normalise(lesson.read(), lesson.root)
        lessons.write_notebook(lesson.notebook, notebook)
        lessons.write(lesson.module, text := jupytext.writes(notebook, PERCENT))
        lessons.write(last_format(lesson), text)
    return [path for path in paths if path.read_bytes() != before.get(path)]


def main(words: list[str] | None = None) -> int:
    """Format every lesson and name the files that changed; 1 if sides clash, then none did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=lessons.ROOT)
    parser.add_argument("--only", default="", help="names of the lessons to look at")
    parser.add_argument("--from", dest="side", choices=["py", "ipynb"])
    options = parser.parse_args(words)
    found = lessons.find(options.root, options.only, one_sided=True)
    sides = {lesson: edited_side(lesson, options.side) for lesson in found}
    if clashes := [lesson.name for lesson in found if not sides[lesson]]:
        print("\n".join(CLASH.format(name) for name in clashes))
        return 1
    for path in format_lessons(sides):
        print(f"format: wrote {lessons.shown(path, options.root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
