"""The rules that keep lessons honest: `python -m tools.gates`.

Each gate takes the folder of the repository and returns messages, one for each thing that is wrong;
every message begins with the gate's name and ends with what to do.
"""

import ast
import difflib
import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from tools import lessons
from tools.lessons import COLAB, DEMO, PERCENT, Lesson

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
    """Yield the code cells of all lessons, each with how a message about it begins."""
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
        module = lesson.module.read_text("utf-8").splitlines()
        if diff := [x for x in difflib.ndiff(expected, module) if x[0] in "+-"]:
            both = f"{lesson} and {lessons.shown(lesson.module, root)}"
            yield f"{both} differ, first in `{diff[0][2:].strip()}`; run `make format`"


def output_problems(notebook: NotebookNode) -> Iterator[str]:
    """Yield what is wrong with the outputs of a notebook: not run from top to bottom, or noisy."""
    cells = [pair for pair in lessons.code_cells(notebook) if COLAB not in lessons.tags(pair[1])]
    for count, (place, cell) in enumerate(cells, start=1):
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
    """Every picture was drawn by a lesson: those of notebooks by a cell, those of imgs/ by name.

    Whether a new run draws the same is what `tools.compare` finds out.
    """
    sources = {}
    for lesson in lessons.find(root):
        notebook = lesson.read()
        sources[lesson.name] = "\n".join(cell.source for _, cell in lessons.code_cells(notebook))
        for place, cell in enumerate(notebook.cells, start=1):
            kinds = {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}
            if others := kinds - {"text/plain", "image/png"}:
                names = ", ".join(sorted(others))
                yield f"{lesson}: cell {place} shows {names}, which no run is compared with"
            if cell.get("attachments") or "data:image" in cell.source:
                yield f"{lesson}: cell {place} has a picture that no code drew"
    for path in sorted(root.glob("imgs/*")):
        drawn = [name for name, source in sources.items() if path.stem in source]
        if path.suffix != ".png" or not drawn:
            yield f"imgs/{path.name} is drawn by no lesson; delete it"


@gate
def modules(root: Path) -> Iterator[str]:
    """Importing a lesson only defines things, and tools, lessons and captcha_reader stay floors."""
    numbers = {lesson.name: lesson.number for lesson in lessons.find(root)}
    for path in sorted(root.glob("captcha_reader/*.py")):
        for name in lessons.imported_lessons(ast.parse(path.read_text("utf-8"))):
            yield f"{lessons.shown(path, root)} imports the lesson {name}"
    for where, lesson, cell in each_cell(root):
        tree = lessons.parse(cell)
        for name in sorted(lessons.imported_lessons(tree)):
            if numbers.get(name, lesson.number) >= lesson.number:
                yield f"{where} imports {name}, which is not an earlier lesson"
        if any(name.split(".")[0] == "tools" for name in lessons.imports(tree)):
            yield f"{where} imports from tools, which nothing may import"
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
    """Return whether a statement is an import, a definition, a constant or `setdefault()`."""
    match node:
        case ast.Expr(value=ast.Call(func=function)):
            return ast.unparse(function) == "os.environ.setdefault"
        case ast.Assign(targets=targets):
            calls = [ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)]
            names = all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
            return names and {call.split(".")[-1] for call in calls} <= MAKES_A_CONSTANT
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


# A number with a percent sign, a decimal point, or commas, outside of code, formulas and addresses.
FIGURE = re.compile(
    r"(?<![\w.,-])(\d+(?:,\d{3})+|\d+\.\d+|\d+(?=\s?%))(\s?%)?(?![\w.]*\d|\.?\d|x\d)"
)
NO_PROSE = re.compile(r"```.*?```|`[^`]*`|\$[^$]*\$|\]\([^)]*\)|https?://\S+|<!--.*?-->", re.DOTALL)
PUBLISHED = {98.26, 99.21, 99.57, 3.7, 5.38, 12800, 2560}  # by the tutorial of 2019


def numbers(text: str) -> set[float]:
    """Return all numbers in code, outputs or JSON, however they are written there."""
    written = re.findall(r"\d+(?:[,_]\d{3})*(?:\.\d+)?(?:e-?\d+)?", text)
    return {float(number.replace(",", "").replace("_", "")) for number in written}


def without_source(prose: str, known: set[float]) -> list[str]:
    """Return the figures of a text that are no known number, rounded as they are written."""
    wrong = []
    for figure in FIGURE.finditer(NO_PROSE.sub("@", prose)):
        number = figure[1].replace(",", "")
        digits, scales = len(number.partition(".")[2]), (1, 100) if figure[2] else (1,)
        if not any(round(n * scale, digits) == float(number) for n in known for scale in scales):
            wrong.append(figure[0])
    return wrong


def _code_and_outputs(notebook: NotebookNode) -> Iterator[str]:
    for _, cell in lessons.code_cells(notebook):
        yield cell.source
        for output in cell.outputs:
            yield output.get("text", "") + output.get("data", {}).get("text/plain", "")


@gate
def figures(root: Path) -> Iterator[str]:
    """Every figure in the prose of a lesson stands in its code, an output, or models/*.json."""
    notebooks = {lesson: lesson.read() for lesson in lessons.find(root)}
    shown = {lesson: "\n".join(_code_and_outputs(notebooks[lesson])) for lesson in notebooks}
    solved = [text for lesson, text in shown.items() if lesson.name == "solutions"]
    results = [path.read_text("utf-8") for path in root.glob("models/*.json")]
    for lesson, notebook in notebooks.items():
        known = PUBLISHED | numbers("\n".join([shown[lesson], *solved, *results]))
        prose = "\n".join(x.source for x in notebook.cells if x.cell_type == "markdown")
        for figure in without_source(prose, known):
            yield f"{lesson} says {figure}, which none of its code and outputs says, nor models/"


def main() -> int:
    """Check all gates; 1 if one has a message."""
    messages = [message for check in GATES for message in check(lessons.ROOT)]
    print("\n".join(messages) or f"gates: {', '.join(check.__name__ for check in GATES)} ok")
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main())
