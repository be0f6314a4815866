"""The rules that keep lessons honest: `python tools/gates.py [NAME...]`.

Each gate is a function that takes the folder of the repository and returns messages, one for each
thing that is wrong; every message begins with the gate's name and ends with what to do.
"""

import argparse
import ast
import difflib
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import compare
import lessons
from lessons import COLAB, DEMO, Lesson
from nbformat import NotebookNode
from packaging.requirements import Requirement

NAMES_OF_PARAMETERS = ("SEED", "STEPS", "EPOCHS")
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


def each_cell(root: Path, gate: str) -> Iterator[tuple[str, Lesson, NotebookNode]]:
    """The code cells of all lessons, each with how a message about it begins."""
    for lesson in lessons.find(root):
        for place, cell in lessons.code_cells(lesson.read()):
            yield f"{gate}: {lessons.shown(lesson.notebook, root)}: cell {place}", lesson, cell


def sync(root: Path) -> list[str]:
    """Both sides of each lesson exist and are equal in content."""
    messages = []
    for lesson in lessons.find(root, one_sided=True):
        missing = [path for path in (lesson.notebook, lesson.module) if not path.exists()]
        if missing:
            messages.append(
                f"sync: {lessons.shown(missing[0], root)} is missing; run `make format`"
            )
            continue
        expected = lessons.to_text(lesson.read(), root).splitlines()
        found = lesson.module.read_text(encoding="utf-8").splitlines()
        if diff := [x for x in difflib.ndiff(expected, found) if x[0] in "+-"]:
            both = (
                f"{lessons.shown(lesson.notebook, root)} and {lessons.shown(lesson.module, root)}"
            )
            messages.append(
                f"sync: {both} differ, first in `{diff[0][2:].strip()}`; run `make format`"
            )
    return messages


def output_problems(notebook: NotebookNode) -> list[str]:
    """What is wrong with the outputs of one notebook: not run from top to bottom, or with noise."""
    problems = []
    for count, (place, cell) in enumerate(lessons.code_cells(notebook), start=1):
        if cell.execution_count != count:
            return [f"cell {place} is number [{cell.execution_count}] of the run, not [{count}]"]
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"cell {place} holds the error {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                problems.append(f"cell {place} wrote to stderr: {output.text.strip()[:100]!r}")
            elif noise := re.search(r"\bWARNING:.{0,80}", output.get("text", "")):
                problems.append(f"cell {place} shows a library's {noise[0]!r}")
    return problems


def outputs(root: Path) -> list[str]:
    """Every code cell was run, in order, without error and without a word on stderr."""
    return [
        f"outputs: {lessons.shown(lesson.notebook, root)}: {problem}; run `make refresh`"
        for lesson in lessons.find(root)
        for problem in output_problems(lesson.read())
    ]


def provenance(root: Path) -> list[str]:
    """The stored outputs were made by the source they stand beside."""
    messages = []
    for lesson in lessons.find(root):
        stored = lesson.read().metadata.get("lesson", {}).get("source_sha256", "none")
        needed = lessons.source_hash(lesson)
        if stored != needed:
            messages.append(
                f"provenance: {lessons.shown(lesson.notebook, root)}: the outputs come from source "
                f"{stored[:12]}, the source is now {needed[:12]}; run `make refresh`"
            )
    return messages


def pictures(root: Path) -> list[str]:
    """Every picture of a notebook and of imgs/ is the one that its run drew."""
    found = lessons.find(root)
    messages = [
        f"pictures: {lessons.shown(lesson.notebook, root)}: {problem}; run `make refresh`"
        for lesson in found
        for problem in compare.problems(lesson)
    ]
    drawn = [name for x in found for name in x.read().metadata.get("lesson", {}).get("imgs", {})]
    return messages + [
        f"pictures: imgs/{path.name} is drawn by {drawn.count(path.name)} lessons, not by one; "
        "run `make refresh`, or delete it"
        for path in sorted(root.glob("imgs/*"))
        if drawn.count(path.name) != 1
    ]


def texts(cell: NotebookNode) -> str:
    """What the outputs of a cell say in plain text, without reprs such as `<Figure ...>`."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            found.append(output.text)
        elif "data" in output:
            text = output.data.get("text/plain", "")
            found.append(re.sub(r"<[^<>]*>|\b(array|dtype|object)\b", "", text) + "\n")
    return "".join(found)


def asserts(cell: NotebookNode) -> bool:
    """Whether a cell checks something: an `assert` of more than a constant."""
    nodes = [node for node in ast.walk(lessons.parse(cell)) if isinstance(node, ast.Assert)]
    return any(not isinstance(node.test, ast.Constant) for node in nodes)


def facts(root: Path) -> list[str]:
    """Every cell that shows something prints a fact or asserts one: pictures are never compared.

    The cell for Google Colab shows nothing.
    """
    return [
        f"{where} shows something that nothing compares; print a fact about its data or assert one"
        for where, _, cell in each_cell(root, "facts")
        if DEMO in lessons.tags(cell) and not {"parameters", COLAB} & set(lessons.tags(cell))
        if not re.search(r"\w", texts(cell)) and not asserts(cell)
    ]


def exclusions(root: Path) -> list[str]:
    """Every code cell runs and is compared."""
    return [
        f"{where} is left out of the comparison; make its outputs the same everywhere instead"
        for where, _, cell in each_cell(root, "exclusions")
        if any(map(EXCLUDING_TAG.search, lessons.tags(cell)))
        or EXCLUDING_COMMENT.search(cell.source)
    ]


def verdicts(root: Path) -> list[str]:
    """At most a tenth of the printed lines end in True or False: numbers say more."""
    lines = [x for _, _, cell in each_cell(root, "verdicts") for x in texts(cell).splitlines() if x]
    found = [line for line in lines if re.search(r"\b(True|False)\W*$", line)]
    if len(found) <= len(lines) / 10:
        return []
    return [
        f"verdicts: {len(found)} of {len(lines)} printed lines end in True or False, such as "
        f"`{found[0]}`; print numbers"
    ]


def parameters(root: Path) -> list[str]:
    """One cell of each lesson holds its parameters, under the names that make knows."""
    messages = []
    for lesson in lessons.find(root):
        where = f"parameters: {lessons.shown(lesson.notebook, root)}"
        notebook = lesson.read()
        cells = [c for _, c in lessons.code_cells(notebook) if "parameters" in lessons.tags(c)]
        if len(cells) != 1 or DEMO not in lessons.tags(cells[0]):
            messages.append(f"{where}: {len(cells)} cells are tagged parameters, {DEMO}, not one")
            continue
        found = lessons.parameters(notebook)
        if len(found) != len(lessons.parse(cells[0]).body):
            messages.append(f"{where}: the parameters cell holds more than `NAME = number` lines")
        for name, value in found.items():
            if name not in NAMES_OF_PARAMETERS:
                allowed = ", ".join(NAMES_OF_PARAMETERS)
                messages.append(f"{where}: {name} is not a parameter; the names are {allowed}")
            if type(value) is not int:
                messages.append(f"{where}: {name} must be a whole number written out")
        if "SEED" not in found:
            messages.append(f"{where}: SEED is missing; every lesson has it")
    return messages


def used(root: Path) -> list[str]:
    """What a lesson defines, it uses: in another cell, or in another definition beside it."""
    messages = []
    for lesson in lessons.find(root):
        statements, defined = [], []
        for place, cell in lessons.code_cells(lesson.read()):
            for node in lessons.parse(cell).body:
                names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                statements.append((node, names))
                if DEMO not in lessons.tags(cell) or "parameters" in lessons.tags(cell):
                    defined += [(place, node, name) for name in defines(node)]
        for place, node, name in defined:
            if not any(name in names for other, names in statements if other is not node):
                messages.append(
                    f"used: {lessons.shown(lesson.notebook, root)}: cell {place} defines {name}, "
                    "which no other code of the lesson uses; show it, or move it to captcha_reader"
                )
    return messages


def defines(node: ast.stmt) -> list[str]:
    """The names of the functions, classes and constants that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


def pins(root: Path) -> list[str]:
    """Pins are exact, the lock and what is installed follow them, and Python is the same."""
    project, messages, locked = lessons.project(root), [], set()
    for line in (root / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if text := line.split("#")[0].strip():
            requirement = Requirement(text)
            name, version = requirement.name, str(requirement.specifier)[2:]
            locked.add(f"{name}=={version}")
            found = {d.version.split("+")[0] for d in metadata.distributions(name=name)}
            needed = requirement.marker is None or requirement.marker.evaluate()
            if needed and version not in found:  # 1.2.3+cpu is a build of 1.2.3
                has = " and ".join(found) or "nothing"
                messages.append(
                    f"pins: the lock has {name}=={version}, installed is {has}; "
                    "delete .venv/.installed and run `make setup`"
                )
    for group, pinned in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for text in pinned:
            if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", text):
                messages.append(f"pins: pyproject.toml: {text} has no exact version")
            elif group in ("", "checks") and text not in locked:
                messages.append(f"pins: {text} is in pyproject.toml alone; run `make lock`")
    conda = re.search(r"- python(\S+)", (root / "environment.yml").read_text(encoding="utf-8"))[1]
    if conda != project["requires-python"]:
        messages.append(
            f"pins: environment.yml asks for python{conda}, pyproject.toml for "
            f"python{project['requires-python']}; make them equal"
        )
    return messages


def modules(root: Path) -> list[str]:
    """Importing a lesson only defines things, and tools, lessons and captcha_reader stay floors."""
    messages = []
    numbers = {lesson.name: lesson.number for lesson in lessons.find(root)}
    tools = {"tools", *(path.stem for path in (lessons.ROOT / "tools").glob("*.py"))}
    for path in sorted(root.glob("captcha_reader/*.py")):
        for name in lessons.imported_lessons(ast.parse(path.read_text(encoding="utf-8"))):
            messages.append(f"modules: {lessons.shown(path, root)} imports the lesson {name}")
    for where, lesson, cell in each_cell(root, "modules"):
        tree = lessons.parse(cell)
        for name in sorted(lessons.imported_lessons(tree)):
            if numbers.get(name, lesson.number) >= lesson.number:
                messages.append(f"{where} imports {name}, which is not an earlier lesson")
        for name in sorted({name.split(".")[0] for name in lessons.imports(tree)} & tools):
            messages.append(f"{where} imports {name} from tools, which nothing may import")
        if DEMO in lessons.tags(cell):
            continue
        for node in tree.body:
            if not _only_defines(node):
                first = ast.unparse(node).splitlines()[0]
                messages.append(f"{where}, `{first}`, does more than define; tag the cell {DEMO}")
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for name in sorted(names & lessons.parameters(lesson.read()).keys()):
            messages.append(f"{where} reads the parameter {name}; pass it in")
    return messages


def _only_defines(node: ast.stmt) -> bool:
    """Whether a statement is an import, a definition, a constant or `os.environ.setdefault()`."""
    if isinstance(node, ast.Expr):
        call = node.value
        return isinstance(call, ast.Call) and ast.unparse(call.func) == "os.environ.setdefault"
    if isinstance(node, ast.Assign):
        calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
        return all(isinstance(target, ast.Name | ast.Tuple) for target in node.targets) and all(
            ast.unparse(call).split(".")[-1] in MAKES_A_CONSTANT for call in calls
        )
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def _lines(cell: NotebookNode) -> int:
    """The lines of a code cell; blank ones and docstrings do not count."""
    lines = {n for n, line in enumerate(cell.source.splitlines(), 1) if line.strip()}
    for node in ast.walk(lessons.parse(cell)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def prose(root: Path) -> list[str]:
    """A lesson has its headings, short cells, as much text as code, and is not too long.

    The cell for Google Colab, the same in all lessons, does not count.
    """
    messages = []
    for lesson in lessons.find(root):
        where = f"prose: {lessons.shown(lesson.notebook, root)}"
        notebook = lesson.read()
        text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        cells = [x for x in lessons.code_cells(notebook) if COLAB not in lessons.tags(x[1])]
        code = {place: _lines(cell) for place, cell in cells}
        if len(text) < len(code):
            messages.append(f"{where}: {len(text)} text and {len(code)} code cells; explain more")
        for place, lines in code.items():
            if lines > 20:
                messages.append(f"{where}: cell {place} has {lines} lines, more than 20; split it")
        counts = {
            "code cells": len(code),
            "lines": sum(code.values()),
            "words": len(" ".join(text).split()),
        }
        for (what, count), limit in zip(counts.items(), BUDGETS[lesson.number], strict=True):
            if count > ROOM * limit:
                most = f"at most {ROOM * limit:.0f} are allowed"
                messages.append(f"{where}: {count} {what}, {most}; shorten it")
        # Code in the text may hold lines that begin with a #.
        plain = re.sub(r"^```.*?^```", "", "\n".join(text), flags=re.M | re.S)
        headings = re.findall(r"^(#+) +(.*?) *$", plain, re.M)
        titles = [title for level, title in headings if level == "#"]
        if len(titles) != 1:
            messages.append(f"{where}: {len(titles)} headings of the first level, not one")
        found = {title for _, title in headings}
        messages += [f"{where}: no heading `{x}`; add it" for x in HEADINGS if x not in found]
    return messages


def size(root: Path) -> list[str]:
    """Files stay small enough to clone and to open."""
    limits = [(400, root.glob("notebooks/*.ipynb")), (6_000, root.glob("models/**/*"))]
    return [
        f"size: {lessons.shown(path, root)} has {path.stat().st_size / 1e3:.0f} kB, "
        f"at most {limit} are allowed; show or store less"
        for limit, paths in limits
        for path in sorted(paths)
        if path.stat().st_size >= limit * 1e3
    ]


GATES = (
    sync, outputs, provenance, pictures, facts, exclusions, verdicts, parameters, used, pins,
    modules, prose, size,
)  # fmt: skip


def main(words: list[str] | None = None) -> int:
    """Check the named gates, or all; 1 if any has a message."""
    known = {gate.__name__: gate for gate in GATES}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=lessons.ROOT)
    parser.add_argument("names", nargs="*", choices=[*known, []], metavar="NAME")
    options = parser.parse_args(words)
    names = options.names or known
    messages = [message for name in names for message in known[name](options.root.resolve())]
    print("\n".join(messages) or f"gates: {', '.join(names)} ok")
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main())
