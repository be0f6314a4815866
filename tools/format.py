"""Lay out the lessons and carry an edit to their other side: `make format`.

The edited side is the one that differs from what the last `make format` left, or else from the last
commit; times of files mean nothing after a clone. Where both sides were edited, nothing is written
until `FROM=py` or `FROM=ipynb` decides, for those lessons alone; with `ONLY=ch2_cnn` for one of
them. Outputs of unchanged cells stay.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import lessons
import nbformat
from jupytext.combine import combine_inputs_with_outputs
from lessons import Lesson

CLASH = (
    "format: {0}: both sides were edited, or neither since the last commit; `make format ONLY={0} "
    "FROM=py` keeps notebooks_py/{0}.py, `FROM=ipynb` keeps notebooks/{0}.ipynb"
)


def last_format(lesson: Lesson) -> Path:
    """Where the text is that the last `make format` left on both sides of a lesson."""
    return lesson.root / "build" / "format" / lesson.module.name


def committed(path: Path) -> str:
    """The text of a file in the last commit, or nothing where it is not in one."""
    command = ["git", "-C", str(path.parent), "show", f"HEAD:./{path.name}"]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8").stdout


def edited_side(lesson: Lesson, wanted: str | None) -> str | None:
    """The side of a lesson that the other one is made from, "py" or "ipynb"; None for a clash."""
    if not lesson.notebook.exists() or not lesson.module.exists():
        return "ipynb" if lesson.notebook.exists() else "py"
    notebook = lessons.to_text(lesson.read(), lesson.root)
    module = lesson.module.read_text(encoding="utf-8")
    if notebook == module:
        return "ipynb"
    last, old = last_format(lesson), committed(lesson.notebook)
    bases = [(last.read_text(encoding="utf-8"),) * 2] if last.exists() else []
    if old:
        old = lessons.to_text(nbformat.reads(old, as_version=4), lesson.root)
        bases.append((old, committed(lesson.module)))
    for old_notebook, old_module in bases:
        if (notebook == old_notebook) != (module == old_module):
            return "py" if notebook == old_notebook else "ipynb"
    return wanted


def ruff(root: Path, path: Path, text: str) -> str:
    """The text of a notebook after ruff's fixes and layout; what it cannot fix it prints."""
    for action in (["check", "--fix", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *action, "--stdin-filename", str(path), "-"]
        result = subprocess.run(
            command, input=text, stdout=subprocess.PIPE, text=True, encoding="utf-8", cwd=root
        )
        text = result.stdout or text
    return text


def format_lesson(lesson: Lesson, side: str) -> list[Path]:
    """Lay a lesson out from one side and make the other one equal; return the changed files."""
    root = lesson.root
    if side == "ipynb":
        notebook = lesson.read()
    else:
        notebook = lessons.from_text(lesson.module.read_text(encoding="utf-8"), root)
        if lesson.notebook.exists():
            notebook = combine_inputs_with_outputs(notebook, lesson.read(), fmt="py:percent")
    text = nbformat.writes(lessons.normalise(notebook, root))
    notebook = nbformat.reads(ruff(root, lesson.notebook, text), as_version=4)
    text = lessons.to_text(lessons.normalise(notebook, root), root)
    changed = {
        lesson.notebook: lessons.write_notebook(lesson.notebook, notebook),
        lesson.module: lessons.write(lesson.module, text),
    }
    lessons.write(last_format(lesson), text)
    return [path for path in changed if changed[path]]


def main(words: list[str] | None = None) -> int:
    """Format every lesson and name the files that changed; 1 if sides clash, then none did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=lessons.ROOT)
    parser.add_argument("--only", default="", help="names of the lessons to look at")
    parser.add_argument("--from", dest="side", choices=["py", "ipynb"])
    options = parser.parse_args(words)
    root = options.root.resolve()
    found = lessons.find(root, options.only, one_sided=True)
    sides = {lesson: edited_side(lesson, options.side) for lesson in found}
    if clashes := [lesson.name for lesson in found if not sides[lesson]]:
        print("\n".join(CLASH.format(name) for name in clashes))
        return 1
    for lesson in found:
        for path in format_lesson(lesson, sides[lesson]):
            print(f"format: wrote {path.relative_to(root).as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
