"""The rules that keep lessons honest: `python -m tools.gates`.

Each gate takes the folder of the repository and yields messages, one for each thing that is wrong;
a message says where, and ends with what to do.
"""

import ast
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from tools import lessons, options
from tools.lessons import DEMO, PERCENT

# Calls that make a constant and do nothing else.
MAKES_A_CONSTANT = {"Path", "array", "compile", "dict", "len", "list", "range", "set", "tuple"}


def sync(root: Path) -> Iterator[str]:
    """Both sides of each lesson exist and are equal in content."""
    for lesson in lessons.find(root, one_sided=True):
        notebook, module = str(lesson), f"notebooks_py/{lesson.name}.py"
        if missing := [name for name in (notebook, module) if not (root / name).exists()]:
            yield f"{missing[0]} is missing; run `make format`"
            continue
        sides = jupytext.writes(lesson.read(), PERCENT), lesson.module.read_text("utf-8")
        lines = difflib.ndiff(*(side.splitlines() for side in sides))
        if changes := [line[2:].strip() for line in lines if line[0] in "+-"]:
            yield f"{notebook} and {module} differ, first in `{changes[0]}`; run `make format`"


def output_problems(notebook: NotebookNode) -> Iterator[str]:
    """Yield what is wrong with the outputs of a notebook: not run from top to bottom, or noisy."""
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


def outputs(root: Path) -> Iterator[str]:
    """Every code cell was run, in order, without error and without a word on stderr."""
    for lesson in lessons.find(root):
        for problem in output_problems(lesson.read()):
            yield f"{lesson}: {problem}; run `make refresh`"


def provenance(root: Path) -> Iterator[str]:
    """The stored outputs were made by the source they stand beside."""
    for lesson in lessons.find(root):
        stored = lesson.read().metadata.get("lesson", {}).get("source_sha256")
        if stored != lessons.source_hash(lesson):
            yield f"{lesson}: the source of its outputs has changed; run `make refresh`"


def pictures(root: Path) -> Iterator[str]:
    """Every picture was drawn by a lesson: those of notebooks by a cell, those of imgs/ by name.

    Whether a new run draws the same is what `tools.compare` finds out.
    """
    sources = ""
    for lesson in lessons.find(root):
        for place, cell in enumerate(lesson.read().cells, start=1):
            kinds = {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}
            if others := ", ".join(sorted(kinds - {"text/plain", "image/png"})):
                yield f"{lesson}: cell {place} shows {others}, which no run is compared with"
            if cell.get("attachments") or "data:image" in cell.source:
                yield f"{lesson}: cell {place} has a picture that no code drew"
            sources += cell.source if cell.cell_type == "code" else ""
    for path in sorted(root.glob("imgs/[!.]*")):
        # A picture is named in the code, or it is the diagram of a network of this name.
        if f'"{path.name}"' not in sources and f'name="{path.stem}"' not in sources:
            yield f"imgs/{path.name} is drawn by no lesson; delete it"


def modules(root: Path) -> Iterator[str]:
    """Importing a lesson only defines things; imports lead to earlier lessons and lower layers."""
    for path in sorted(root.glob("captcha_reader/*.py")):
        for module in _upper_floors(ast.parse(path.read_text("utf-8"))):
            yield f"captcha_reader/{path.name} imports {module}, which only commands may import"
    earlier = set()
    for lesson in lessons.find(root):
        for place, cell in lessons.code_cells(lesson.read()):
            where, tree = f"{lesson}: cell {place}", lessons.parse(lesson, cell)
            for module in sorted(_upper_floors(tree) - earlier):
                yield f"{where} imports {module}, which is not an earlier lesson"
            if DEMO in lessons.tags(cell):
                continue
            for node in tree.body:
                if not _only_defines(node):
                    first = ast.unparse(node).splitlines()[0]
                    yield f"{where}, `{first}`, does more than define; tag the cell {DEMO}"
        earlier.add(f"notebooks_py.{lesson.name}")


def _upper_floors(tree: ast.Module) -> set[str]:
    """Return the lessons and tools that a syntax tree imports, such as notebooks_py.ch2_cnn."""
    imported = {".".join(name.split(".")[:2]) for name in lessons.imports(tree)}
    return {name for name in imported if name.startswith(("notebooks_py", "tools"))}


def _only_defines(node: ast.stmt) -> bool:
    """Return whether a statement is an import, a definition, a constant or `setdefault()`."""
    calls = [ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)]
    match node:
        case ast.Expr():
            return calls == ["os.environ.setdefault"]
        case ast.Assign(targets=[ast.Name() | ast.Tuple()]) | ast.AnnAssign(target=ast.Name()):
            return {call.split(".")[-1] for call in calls} <= MAKES_A_CONSTANT
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


# A number with a percent sign, a decimal point, or commas, outside of code, formulas and addresses.
FIGURE = re.compile(
    r"(?<![\w.,-])(\d+(?:,\d{3})+|\d+\.\d+|\d+(?=\s?%))(\s?%)?(?![\w.]*\d|\.?\d|x\d)"
)
NO_PROSE = re.compile(r"```.*?```|`[^`]*`|\$[^$]*\$|\]\([^)]*\)|https?://\S+|<!--.*?-->", re.DOTALL)
PUBLISHED = {*lessons.ORIGINAL.values(), 3.7}  # by the tutorial of 2019


def numbers(text: str) -> set[float]:
    """Return all numbers in code, outputs or JSON, however they are written there."""
    written = re.findall(r"\d+(?:[,_]\d{3})*(?:\.\d+)?(?:e-?\d+)?", text)
    return {float(number.replace(",", "")) for number in written}


def code_and_outputs(notebook: NotebookNode) -> str:
    """Return what the code cells of a notebook say, and what they print."""
    cells = [cell for _, cell in lessons.code_cells(notebook)]
    outputs = [output for cell in cells for output in cell.outputs]
    printed = [x.get("text") or x.get("data", {}).get("text/plain", "") for x in outputs]
    return "\n".join([*(cell.source for cell in cells), *printed])


def figures(root: Path) -> Iterator[str]:
    """Every figure in the prose of a lesson stands in its code, an output, or results it names."""
    notebooks = {lesson: lesson.read() for lesson in lessons.find(root)}
    solved = [code_and_outputs(x) for lesson, x in notebooks.items() if lesson.name == "solutions"]
    for lesson, notebook in notebooks.items():
        results = [path for path in lessons.named_results(lesson) if path.suffix == ".json"]
        texts = [code_and_outputs(notebook), *solved, *(x.read_text("utf-8") for x in results)]
        known = PUBLISHED | numbers("\n".join(texts))
        prose = "\n".join(x.source for x in notebook.cells if x.cell_type == "markdown")
        for figure in FIGURE.finditer(NO_PROSE.sub("@", prose)):
            number = figure[1].replace(",", "")
            digits, shares = len(number.partition(".")[2]), {n for n in known if n < 1}
            percents = {100 * n for n in shares} if figure[2] else set()
            if float(number) not in {round(n, digits) for n in known | percents}:
                yield f"{lesson} says {figure[0]}, as neither its code, outputs nor results do"


GATES = [sync, outputs, provenance, pictures, modules, figures]


def messages(root: Path) -> list[str]:
    """Return the messages of all gates, each with the name of its gate."""
    return [f"{gate.__name__}: {message}" for gate in GATES for message in gate(root)]


def main() -> int:
    """Check all gates; return 1 if one has a message."""
    wrong = messages(lessons.ROOT)
    print("\n".join(wrong) or f"gates: {', '.join(gate.__name__ for gate in GATES)} ok")
    return int(bool(wrong))


if __name__ == "__main__":
    options.end_with(main)
