"""Lay out the lessons and carry an edit to their other side: `make format`.

The edited side is the one whose content differs from the last commit; times of files mean nothing
after a clone. Outputs of unchanged cells stay. Ruff works on the notebook, where no cell is
a comment.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import lessons
import nbformat
from jupytext.combine import combine_inputs_with_outputs
from lessons import Lesson


def committed(root: Path, path: Path) -> str | None:
    """The text of a file in the last commit, or None where there is none."""
    command = ["git", "-C", str(root), "show", f"HEAD:./{path.relative_to(root)}"]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    return result.stdout if result.returncode == 0 else None


def edited_side(lesson: Lesson, wanted: str | None) -> str:
    """Which side of a lesson the other one is made from: "py" or "ipynb"."""
    if not lesson.notebook.exists() or not lesson.module.exists():
        return "ipynb" if lesson.notebook.exists() else "py"
    notebook = lessons.to_text(lesson.read(), lesson.root)
    module = lesson.module.read_text(encoding="utf-8")
    if notebook == module:
        return "ipynb"
    if wanted:
        return wanted
    old = committed(lesson.root, lesson.notebook)
    old = old and lessons.to_text(nbformat.reads(old, as_version=4), lesson.root)
    edited = {"ipynb": notebook != old, "py": module != committed(lesson.root, lesson.module)}
    if edited["ipynb"] == edited["py"]:
        raise SystemExit(
            f"format: {lesson.name}: the two sides differ, and the last commit does not tell which "
            "one to keep; say `make format FROM=py` or `make format FROM=ipynb`"
        )
    return "py" if edited["py"] else "ipynb"


def ruff(root: Path, path: Path, text: str) -> str:
    """The text of a notebook after ruff's fixes and layout; what it cannot fix it prints."""
    for action in (["check", "--fix", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *action, "--stdin-filename", str(path), "-"]
        result = subprocess.run(
            command, input=text, stdout=subprocess.PIPE, text=True, encoding="utf-8", cwd=root
        )
        text = result.stdout or text
    return text


def format_lesson(lesson: Lesson, wanted: str | None) -> list[Path]:
    """Make both sides of a lesson equal and laid out; return the files that changed."""
    if edited_side(lesson, wanted) == "ipynb":
        notebook = lesson.read()
    else:
        notebook = lessons.from_text(lesson.module.read_text(encoding="utf-8"), lesson.root)
        if lesson.notebook.exists():
            notebook = combine_inputs_with_outputs(notebook, lesson.read(), fmt="py:percent")
    text = nbformat.writes(lessons.normalise(notebook, lesson.root))
    notebook = nbformat.reads(ruff(lesson.root, lesson.notebook, text), as_version=4)
    notebook = lessons.normalise(notebook, lesson.root)
    changed = {
        lesson.notebook: lessons.write_notebook(lesson.notebook, notebook),
        lesson.module: lessons.write(lesson.module, lessons.to_text(notebook, lesson.root)),
    }
    return [path for path in changed if changed[path]]


def main() -> None:
    """Format every lesson and name the files that changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=lessons.ROOT)
    parser.add_argument("--from", dest="side", choices=["py", "ipynb"])
    options = parser.parse_args()
    root = options.root.resolve()
    for lesson in lessons.find(root, one_sided=True):
        for path in format_lesson(lesson, options.side):
            print(f"format: wrote {path.relative_to(root)}")


if __name__ == "__main__":
    main()
