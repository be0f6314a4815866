"""The rules that keep lessons honest: `python tools/gates.py`.

Each gate takes the folder of the repository and returns messages, one for each thing that is wrong;
every message begins with the gate's name and ends with what to do.
"""

import argparse
import ast
import difflib
import functools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import compare
import jupytext
import lessons
from lessons import COLAB, DEMO, PERCENT, Lesson
from nbformat import NotebookNode
from packaging.requirements import Requirement

PARAMETERS = ("SEED", "STEPS", "EPOCHS")
HEADINGS = ("What you learned", "On your own", "Further reading")
# Code cells, lines of code and words of text that each lesson is designed for.
BUDGETS = {
    1: (14, 150, 900), 2: (18, 220, 1_100), 3: (22, 260, 1_500), 4: (22, 260, 1_500),
    5: (10, 110, 800), 6: (18, 220, 1_200), 7: (18, 240, 1_300), 8: (18, 200, 1_200),
}  # fmt: skip
ROOM = 1.2  # a lesson may be a fifth longer
# Tags and comments that keep a cell from running or its outputs from being compared.
EXCLUDING_TAG = re.compile(r"nbval|raises-exception|skip")
EXCLUDING_COMMENT = re.compile(r"^\s*#\s*(NBVAL|PYTEST_VALIDATE)_", re.M)
# Calls that make a constant and do nothing else.
MAKES_A_CONSTANT = {
    "CTC", "Path", "array", "compile", "dict", "frozenset", "len", "list", "range", "set", "tuple"
}  # fmt: skip
GATES: list[Callable[[Path], list[str]]] = []


def gate(check: Callable[[Path], Iterator[str]]) -> Callable[[Path], list[str]]:
    """Make a gate of a function that yields what is wrong: messages that begin with its name."""

    @functools.wraps(check)
    def messages(root: Path) -> list[str]:
        return [f"{check.__name__}: {message}" for message in check(root)]

    GATES.append(messages)
    return messages


def each_cell(root: Path) -> Iterator[tuple[str, Lesson, NotebookNode]]:
    """The code cells of all lessons, each with how a message about it begins."""
    for lesson in lessons.find(root):
        for place, cell in lessons.code_cells(lesson.read()):
            yield f"{lesson}: cell {place}", lesson, cell


@gate
def sync(root: Path) -> Iterator[str]:
    """Both sides of each lesson exist and are equal in content."""
    for lesson in lessons.find(root, one_sided=True):
        missing = [path for path in (lesson.notebook, lesson.module) if not path.exists()]
        if missing:
            yield f"{lessons.shown(missing[0], root)} is missing; run `make format`"
            continue
        expected = jupytext.writes(lesson.read(), PERCENT).splitlines()
        found = lesson.module.read_text("utf-8").splitlines()
        if diff := [x for x in difflib.ndiff(expected, found) if x[0] in "+-"]:
            both = f"{lesson} and {lessons.shown(lesson.module, root)}"
            yield f"{both} differ, first in `{diff[0][2:].strip()}`; run `make format`"


def output_problems(notebook: NotebookNode) -> Iterator[str]:
    """What is wrong with the outputs of one notebook: not run from top to bottom, or with noise."""
    for count, (place, cell) in enumerate(lessons.code_cells(notebook), start=1):
        if cell.execution_count != count:
            yield f"cell {place} is number [{cell.execution_count}] of the run, not [{count}]"
            return
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {place} holds the error {output.ename}: {output.evalue}"
            if output.get("name") == "stderr":
                yield f"cell {place} wrote to stderr: {output.text.strip()[:100]!r}"
            elif noise := re.search(r"\bWARNING:.{0,80}", output.get("text", "")):
                yield f"cell {place} shows a library's {noise[0]!r}"


@gate
def outputs(root: Path) -> Iterator[str]:
    """Every code cell was run, in order, without error and without a word on stderr."""
    for lesson in lessons.find(root):
        for problem in output_problems(lesson.read()):
            yield f"{lesson}: {problem}; run `make refresh`"


@gate
def provenance(root: Path) -> Iterator[str]:
    """The stored outputs were made by the source they stand beside."""
    for lesson in lessons.find(root):
        stored = lesson.read().metadata.get("lesson", {}).get("source_sha256", "none")
        needed = lessons.source_hash(lesson)
        if stored != needed:
            come = f"the outputs come from source {stored[:12]}, the source is now {needed[:12]}"
            yield f"{lesson}: {come}; run `make refresh`"


@gate
def pictures(root: Path) -> Iterator[str]:
    """Every picture of a notebook and of imgs/ is the one that its run drew."""
    drawn = Counter()
    for lesson in lessons.find(root):
        drawn.update(lesson.read().metadata.get("lesson", {}).get("imgs", {}).keys())
        for problem in compare.problems(lesson):
            yield f"{lesson}: {problem}; run `make refresh`"
    for path in sorted(root.glob("imgs/*")):
        if drawn[path.name] != 1:
            many = f"drawn by {drawn[path.name]} lessons, not by one"
            yield f"imgs/{path.name} is {many}; run `make refresh`, or delete it"


def texts(cell: NotebookNode) -> str:
    """What the outputs of a cell say in plain text, without reprs such as `<Figure ...>`."""
    found = [x.get("text") or x.get("data", {}).get("text/plain", "") + "\n" for x in cell.outputs]
    return re.sub(r"<[^<>]*>|\b(array|dtype|object)\b", "", "".join(found))


@gate
def facts(root: Path) -> Iterator[str]:
    """Every cell that shows something prints a fact or asserts one: pictures are never compared."""
    for where, _, cell in each_cell(root):
        tags, nodes = set(lessons.tags(cell)), ast.walk(lessons.parse(cell))
        tests = [node.test for node in nodes if isinstance(node, ast.Assert)]
        asserts = any(not isinstance(test, ast.Constant) for test in tests)
        shows = DEMO in tags and not {"parameters", COLAB} & tags
        if shows and not asserts and not re.search(r"\w", texts(cell)):
            yield f"{where} shows something that nothing compares; print a fact or assert one"


@gate
def exclusions(root: Path) -> Iterator[str]:
    """Every code cell runs and is compared."""
    for where, _, cell in each_cell(root):
        tagged = any(map(EXCLUDING_TAG.search, lessons.tags(cell)))
        if tagged or EXCLUDING_COMMENT.search(cell.source):
            yield f"{where} is left out of the comparison; make its outputs the same everywhere"


@gate
def verdicts(root: Path) -> Iterator[str]:
    """At most a tenth of the printed lines end in True or False: numbers say more."""
    lines = [x for _, _, cell in each_cell(root) for x in texts(cell).splitlines() if x]
    found = [line for line in lines if re.search(r"\b(True|False)\W*$", line)]
    if len(found) > len(lines) / 10:
        share = f"{len(found)} of {len(lines)} printed lines"
        yield f"{share} end in True or False, such as `{found[0]}`; print numbers"


@gate
def parameters(root: Path) -> Iterator[str]:
    """One cell of each lesson holds its parameters, under the names that make knows."""
    for lesson in lessons.find(root):
        notebook = lesson.read()
        cells = [c for _, c in lessons.code_cells(notebook) if "parameters" in lessons.tags(c)]
        if len(cells) != 1 or DEMO not in lessons.tags(cells[0]):
            yield f"{lesson}: {len(cells)} cells are tagged parameters, {DEMO}, not one"
            continue
        found = lessons.parameters(notebook)
        if len(found) != len(lessons.parse(cells[0]).body):
            yield f"{lesson}: the parameters cell holds more than `NAME = number` lines"
        for name, value in found.items():
            if name not in PARAMETERS:
                yield f"{lesson}: {name} is not a parameter; the names are {', '.join(PARAMETERS)}"
            if type(value) is not int:
                yield f"{lesson}: {name} must be a whole number written out"
        if "SEED" not in found:
            yield f"{lesson}: SEED is missing; every lesson has it"


def defines(node: ast.stmt) -> list[str]:
    """The names of the functions, classes and constants that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


@gate
def used(root: Path) -> Iterator[str]:
    """What a lesson defines, it uses: in another cell, or in another definition beside it."""
    for lesson in lessons.find(root):
        statements, defined = [], []
        for place, cell in lessons.code_cells(lesson.read()):
            for node in lessons.parse(cell).body:
                names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                statements.append((node, names))
                if DEMO not in lessons.tags(cell) or "parameters" in lessons.tags(cell):
                    defined += [(f"cell {place} defines {x}", node, x) for x in defines(node)]
        for where, node, name in defined:
            if not any(name in names for other, names in statements if other is not node):
                todo = "show it, or move it to captcha_reader"
                yield f"{lesson}: {where}, which no other code of the lesson uses; {todo}"


@gate
def pins(root: Path) -> Iterator[str]:
    """Pins are exact, the lock and what is installed follow them, and Python is the same."""
    project, locked = lessons.project(root), set()
    for line in (root / "requirements.lock").read_text("utf-8").splitlines():
        if not (text := line.split("#")[0].strip()):
            continue
        pin = Requirement(text)
        locked.add(name := f"{pin.name}{pin.specifier}")
        found = [d.version for d in metadata.distributions(name=pin.name)]
        needed = pin.marker is None or pin.marker.evaluate()
        if needed and not any(map(pin.specifier.contains, found)):
            has = f"the lock has {name}, installed is {' and '.join(found) or 'nothing'}"
            yield f"{has}; delete .venv/.installed and run `make setup`"
    for group, pinned in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for text in pinned:
            if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", text):
                yield f"pyproject.toml: {text} has no exact version"
            elif group in ("", "checks") and text not in locked:
                yield f"{text} is in pyproject.toml alone; run `make lock`"
    wanted = project["requires-python"]
    conda = re.search(r"- python(\S+)", (root / "environment.yml").read_text("utf-8"))[1]
    if conda != wanted:
        both = f"environment.yml asks for python{conda}, pyproject.toml for python{wanted}"
        yield f"{both}; make them equal"


@gate
def modules(root: Path) -> Iterator[str]:
    """Importing a lesson only defines things, and tools, lessons and captcha_reader stay floors."""
    numbers = {lesson.name: lesson.number for lesson in lessons.find(root)}
    tools = {"tools", *(path.stem for path in (lessons.ROOT / "tools").glob("*.py"))}
    for path in sorted(root.glob("captcha_reader/*.py")):
        for name in lessons.imported_lessons(ast.parse(path.read_text("utf-8"))):
            yield f"{lessons.shown(path, root)} imports the lesson {name}"
    for where, lesson, cell in each_cell(root):
        tree = lessons.parse(cell)
        for name in sorted(lessons.imported_lessons(tree)):
            if numbers.get(name, lesson.number) >= lesson.number:
                yield f"{where} imports {name}, which is not an earlier lesson"
        for name in sorted({name.split(".")[0] for name in lessons.imports(tree)} & tools):
            yield f"{where} imports {name} from tools, which nothing may import"
        if DEMO in lessons.tags(cell):
            continue
        for node in tree.body:
            if not _only_defines(node):
                first = ast.unparse(node).splitlines()[0]
                yield f"{where}, `{first}`, does more than define; tag the cell {DEMO}"
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for name in sorted(names & lessons.parameters(lesson.read()).keys()):
            yield f"{where} reads the parameter {name}; pass it in"


def _only_defines(node: ast.stmt) -> bool:
    """Whether a statement is an import, a definition, a constant or `os.environ.setdefault()`."""
    match node:
        case ast.Expr(value=ast.Call(func=function)):
            return ast.unparse(function) == "os.environ.setdefault"
        case ast.Assign(targets=targets):
            calls = [ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)]
            names = all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
            return names and {call.split(".")[-1] for call in calls} <= MAKES_A_CONSTANT
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def _lines(cell: NotebookNode) -> int:
    """The lines of a code cell; blank ones and docstrings do not count."""
    lines = {n for n, line in enumerate(cell.source.splitlines(), 1) if line.strip()}
    for node in ast.walk(lessons.parse(cell)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


@gate
def prose(root: Path) -> Iterator[str]:
    """A lesson has its headings, short cells, as much text as code, and is not too long."""
    for lesson in lessons.find(root):
        notebook = lesson.read()
        text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        cells = [x for x in lessons.code_cells(notebook) if COLAB not in lessons.tags(x[1])]
        code = {place: _lines(cell) for place, cell in cells}
        if len(text) < len(code):
            yield f"{lesson}: {len(text)} text and {len(code)} code cells; explain more"
        for place, lines in code.items():
            if lines > 20:
                yield f"{lesson}: cell {place} has {lines} lines, more than 20; split it"
        words = len(" ".join(text).split())
        counts = {"code cells": len(code), "lines": sum(code.values()), "words": words}
        for (what, count), limit in zip(counts.items(), BUDGETS[lesson.number], strict=True):
            if count > ROOM * limit:
                most = f"at most {ROOM * limit:.0f} are allowed"
                yield f"{lesson}: {count} {what}, {most}; shorten it"
        # Code in the text may hold lines that begin with a #.
        plain = re.sub(r"^```.*?^```", "", "\n".join(text), flags=re.M | re.S)
        headings = re.findall(r"^(#+) +(.*?) *$", plain, re.M)
        titles = [title for level, title in headings if level == "#"]
        if len(titles) != 1:
            yield f"{lesson}: {len(titles)} headings of the first level, not one"
        for wanted in HEADINGS:
            if wanted not in [title for _, title in headings]:
                yield f"{lesson}: no heading `{wanted}`; add it"


@gate
def size(root: Path) -> Iterator[str]:
    """Files stay small enough to clone and to open."""
    for limit, pattern in ((400, "notebooks/*.ipynb"), (6_000, "models/**/*")):
        for path in sorted(root.glob(pattern)):
            if (kilobytes := path.stat().st_size / 1e3) >= limit:
                has = f"{lessons.shown(path, root)} has {kilobytes:.0f} kB"
                yield f"{has}, at most {limit} are allowed; show or store less"


def main(words: list[str] | None = None) -> int:
    """Check all gates; 1 if one has a message."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=lessons.ROOT)
    root = parser.parse_args(words).root
    messages = [message for check in GATES for message in check(root)]
    print("\n".join(messages) or f"gates: {', '.join(check.__name__ for check in GATES)} ok")
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main())
