"""The rules that keep lessons honest: `python tools/gates.py [NAME...]`.

Each gate is a function that takes the folder of the repository and returns messages, one for each
thing that is wrong; every message begins with the gate's name and ends with what to do.
"""

import argparse
import ast
import difflib
import importlib.util
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import lessons
import yaml
from lessons import DEMO
from nbformat import NotebookNode
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

NAMES_OF_PARAMETERS = ("SEED", "STEPS", "EPOCHS")
HEADINGS = (
    "What you'll do",
    "What you'll learn",
    "What you'll need",
    "What you learned",
    "On your own",
    "Further reading",
)
# Tags and comments that keep a cell from running or its outputs from being compared.
EXCLUDING_TAGS = re.compile(r"nbval-(ignore-output|skip|raises-exception)|raises-exception|skip.*")
EXCLUDING_COMMENTS = re.compile(
    r"^\s*#\s*(NBVAL_(IGNORE_OUTPUT|SKIP|RAISES_EXCEPTION)|PYTEST_VALIDATE_IGNORE_OUTPUT)", re.M
)
# Calls that make a constant and do nothing else.
MAKES_A_CONSTANT = {
    "Path", "TypeVar", "as_posix", "compile", "dict", "frozenset", "getLogger", "join", "joinpath",
    "len", "list", "local", "lower", "product", "range", "resolve", "set", "sorted", "tuple",
    "upper",
}  # fmt: skip


def sync(root: Path) -> list[str]:
    """Both sides of each lesson exist and are equal in content."""
    messages = []
    for lesson in lessons.find(root, one_sided=True):
        missing = [path for path in (lesson.notebook, lesson.module) if not path.exists()]
        if missing:
            messages.append(f"sync: {missing[0].relative_to(root)} is missing; run `make format`")
            continue
        expected = lessons.to_text(lesson.read(), root).splitlines()
        found = lesson.module.read_text(encoding="utf-8").splitlines()
        diff = [x for x in difflib.ndiff(expected, found) if x[0] in "+-"]
        if diff:
            messages.append(
                f"sync: {lesson.notebook.relative_to(root)} and {lesson.module.relative_to(root)} "
                f"differ, first in `{diff[0][2:].strip()}`; run `make format`"
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
        f"outputs: {lesson.notebook.relative_to(root)}: {problem}; run `make refresh`"
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
                f"provenance: {lesson.notebook.relative_to(root)}: the outputs come from source "
                f"{stored[:12]}, the source is now {needed[:12]}; run `make refresh`"
            )
    return messages


def texts(cell: NotebookNode) -> str:
    """What the outputs of a cell say in plain text, without reprs such as `<Figure ...>`."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            found.append(output.text)
        elif "data" in output:
            text = output.data.get("text/plain", "")
            found.append(re.sub(r"<[^<>]*>|\b(array|dtype|object)\b", "", text))
    return "".join(found)


def asserts(cell: NotebookNode) -> bool:
    """Whether a cell checks something: an `assert` of more than a constant, or `assert_...()`."""
    for node in ast.walk(lessons.parse(cell)):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call) and re.search(r"\bassert_\w+$", ast.unparse(node.func)):
            return True
    return False


def facts(root: Path) -> list[str]:
    """Every cell that shows something prints a fact or asserts one: pictures are never compared."""
    messages = []
    for lesson in lessons.find(root):
        for place, cell in lessons.code_cells(lesson.read()):
            if DEMO not in lessons.tags(cell) or "parameters" in lessons.tags(cell):
                continue
            if not re.search(r"\w", texts(cell)) and not asserts(cell):
                messages.append(
                    f"facts: {lesson.notebook.relative_to(root)}: cell {place} shows something "
                    "that nothing compares; print a fact about its data or assert one"
                )
    return messages


def exclusions(root: Path) -> list[str]:
    """At most 5 % of all code cells are left out of the comparison, each with its reason."""
    messages, total, excluded = [], 0, []
    for lesson in lessons.find(root):
        for place, cell in lessons.code_cells(lesson.read()):
            total += 1
            tagged = any(EXCLUDING_TAGS.fullmatch(tag) for tag in lessons.tags(cell))
            if not tagged and not EXCLUDING_COMMENTS.search(cell.source):
                continue
            excluded.append(f"{lesson.name} cell {place}")
            if not re.search(r"^# not compared: \w+", cell.source, re.M):
                messages.append(
                    f"exclusions: {lesson.notebook.relative_to(root)}: cell {place} is not "
                    "compared and does not say why; add a line `# not compared: <reason>`"
                )
    if len(excluded) > 0.05 * total:
        messages.append(
            f"exclusions: {len(excluded)} of {total} code cells are not compared "
            f"({', '.join(excluded)}); at most 5 % may be"
        )
    return messages


def parameters(root: Path) -> list[str]:
    """One cell of each lesson holds its parameters, under the names that make knows."""
    messages = []
    for lesson in lessons.find(root):
        where = f"parameters: {lesson.notebook.relative_to(root)}"
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


def pins(root: Path) -> list[str]:
    """Pins are exact and equal wherever they stand, and what is installed follows them."""
    messages = []
    locked: dict[str, set[str]] = {}
    for requirement in _requirements(root / "requirements.lock"):
        name = canonicalize_name(requirement.name)
        version = str(requirement.specifier).removeprefix("==")
        locked.setdefault(name, set()).add(version)
        if requirement.marker is None or requirement.marker.evaluate():
            messages += _installed(name, version)
    for requirement in _requirements(root / "requirements.txt"):
        name, exact = canonicalize_name(requirement.name), str(requirement.specifier)
        if not re.fullmatch(r"==[\w.]+", exact):
            messages.append(f"pins: requirements.txt: {requirement} has no exact version")
        elif locked.get(name) != {exact[2:]}:
            has = " and ".join(sorted(locked.get(name, {"no such package"})))
            messages.append(
                f"pins: requirements.txt has {name}{exact}, the lock has {has}; run `make lock`"
            )
    messages += _optional_pins(root, locked)
    conda = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    pip = next((item["pip"] for item in conda if isinstance(item, dict)), [])
    for item in ("-r requirements.txt", "-e ."):
        if item not in pip:
            messages.append(f"pins: environment.yml: `{item}` is missing under pip")
    plain = {re.match(r"\w+", item)[0]: item for item in conda if isinstance(item, str)}
    for name in ("python", "graphviz", "make", "pip"):
        if name not in plain:
            messages.append(f"pins: environment.yml: {name} is missing")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    here = SpecifierSet(plain.get("python", "").removeprefix("python"))
    if here != SpecifierSet(project["requires-python"]):
        messages.append(
            f"pins: environment.yml asks for python{here}, pyproject.toml for "
            f"python{project['requires-python']}; make them equal"
        )
    return messages


def _optional_pins(root: Path, locked: dict[str, set[str]]) -> list[str]:
    """What is wrong with requirements-NAME.txt of each optional module."""
    messages = []
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = project.get("optional-dependencies", {})
    for module in lessons.OPTIONAL:
        file = f"requirements-{module}.txt"
        pinned = {canonicalize_name(x.name): str(x.specifier) for x in _requirements(root / file)}
        for name, exact in pinned.items():
            if not re.fullmatch(r"==[\w.]+", exact):
                messages.append(f"pins: {file}: {name}{exact} has no exact version")
            elif locked.get(name, {exact[2:]}) != {exact[2:]}:
                has = " and ".join(sorted(locked[name]))
                messages.append(f"pins: {file} has {name}{exact}, the lock has {has}; drop it here")
            elif importlib.util.find_spec(module):
                messages += _installed(name, exact[2:], file, f"make setup-{module}")
        if groups.get(module) != [f"{module}{pinned.get(module, '')}"]:
            messages.append(
                f"pins: pyproject.toml: the group {module} is {groups.get(module)}, {file} has "
                f"{module}{pinned.get(module, ' not at all')}; make them equal"
            )
    return messages


def _requirements(path: Path) -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line]


def _installed(
    name: str, version: str, file: str = "requirements.lock", fix: str = "make setup"
) -> list[str]:
    try:
        found = metadata.version(name).split("+")[0]  # 1.2.3+cpu is a build of 1.2.3
    except metadata.PackageNotFoundError:
        found = "missing"
    if found == version:
        return []
    return [f"pins: {file} has {name}=={version}, installed is {found}; run `{fix}`"]


def modules(root: Path) -> list[str]:
    """Importing a lesson only defines things, and lessons import earlier lessons alone."""
    messages = []
    names = {lesson.name: lesson.number for lesson in lessons.find(root)}
    for lesson in lessons.find(root):
        where = f"modules: {lesson.module.relative_to(root)}"
        tree = ast.parse(lesson.module.read_text(encoding="utf-8"))
        for node in tree.body:
            if not _only_defines(node):
                messages.append(
                    f"{where}: line {node.lineno}, `{ast.unparse(node).splitlines()[0]}`, does "
                    f"more than define something; tag its cell {DEMO}"
                )
        declared = lessons.parameters(lesson.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in declared:
                messages.append(
                    f"{where}: line {node.lineno} reads the parameter {node.id}; pass it in"
                )
        imported = [lessons.parse(cell) for _, cell in lessons.code_cells(lesson.read())]
        for name in sorted(set().union(*map(lessons.imported_lessons, imported))):
            if names.get(name, lesson.number) >= lesson.number:
                messages.append(f"{where}: imports {name}, which is not an earlier lesson")
    return messages


def _only_defines(node: ast.stmt) -> bool:
    """Whether a statement is an import, a definition, a constant or `os.environ.setdefault()`.

    Imports may stand under `if TYPE_CHECKING:`, which is false whenever a program runs.
    """
    if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
        return True
    if isinstance(node, ast.If):
        is_import = (isinstance(inner, ast.Import | ast.ImportFrom) for inner in node.body)
        return ast.unparse(node.test) == "TYPE_CHECKING" and all(is_import) and not node.orelse
    if isinstance(node, ast.Expr):
        call = node.value
        return (isinstance(call, ast.Constant) and isinstance(call.value, str)) or (
            isinstance(call, ast.Call) and ast.unparse(call.func) == "os.environ.setdefault"
        )
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
        return all(isinstance(target, ast.Name | ast.Tuple) for target in targets) and all(
            ast.unparse(call).split(".")[-1] in MAKES_A_CONSTANT for call in calls
        )
    return False


def _lines_of_code(cell: NotebookNode) -> int:
    """The lines of a cell that a reader has to take in at once.

    Blank lines, comments and docstrings do not count, and a signature or an import is one line
    however it is laid out.
    """
    lines = {
        number
        for number, line in enumerate(cell.source.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    }
    for node in ast.walk(lessons.parse(cell)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            lines -= set(range(node.lineno + 1, node.end_lineno + 1))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = node.body[0]
            lines -= set(range(node.lineno + 1, first.lineno))
            if ast.get_docstring(node) is not None:
                lines -= set(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def prose(root: Path) -> list[str]:
    """A lesson has its headings, short cells, and at least as much text as code."""
    messages = []
    for lesson in lessons.find(root):
        where = f"prose: {lesson.notebook.relative_to(root)}"
        cells = lesson.read().cells
        text = [cell.source for cell in cells if cell.cell_type == "markdown"]
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        if len(text) < len(code):
            messages.append(f"{where}: {len(text)} text and {len(code)} code cells; explain more")
        for place, cell in lessons.code_cells(lesson.read()):
            lines = _lines_of_code(cell)
            if lines > 20:
                messages.append(f"{where}: cell {place} has {lines} lines, more than 20; split it")
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
    limits = [(1.5, root.glob("notebooks/*.ipynb")), (15, root.glob("models/**/*"))]
    return [
        f"size: {path.relative_to(root)} has {path.stat().st_size / 1e6:.1f} MB, "
        f"at most {limit} are allowed; show or store less"
        for limit, paths in limits
        for path in sorted(paths)
        if path.stat().st_size >= limit * 1e6
    ]


STATIC: tuple[Callable[[Path], list[str]], ...] = (
    sync, outputs, provenance, facts, exclusions, parameters, pins, modules, prose, size,
)  # fmt: skip


def _run_again(root: Path, notebook: Path) -> subprocess.CompletedProcess:
    """Run one notebook with nbval, in a folder of its own for what it writes."""
    with tempfile.TemporaryDirectory() as out:
        return subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "--nbval", "-q", "-rfE", "--color=no"),
                *("-o", "addopts=", "-p", "no:xdist"),
                *("-p", "no:cacheprovider", "--rootdir", str(root), str(notebook)),
            ],
            env=lessons.kernel_environment(root, Path(out)),
            cwd=root,
            capture_output=True,
            text=True,
        )


def _run_started(root: Path, notebook: Path) -> subprocess.CompletedProcess:
    """Run one notebook, and once more if its kernel never started.

    Jupyter looks for free ports and its kernel takes them a moment later; now and then another
    kernel is faster. No cell has run then, and nothing has been compared.
    """
    result = _run_again(root, notebook)
    unborn = "Kernel died before replying to kernel_info" in result.stdout
    return _run_again(root, notebook) if unborn else result


def nbval(root: Path, notebooks: Iterable[Path]) -> list[str]:
    """Run notebooks again: every compared output must be the same text, to the last digit.

    Two run at a time: half of a lesson's time is imports and drawing, which take one core.
    """
    messages, notebooks = [], list(notebooks)
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda notebook: _run_started(root, notebook), notebooks)
        for notebook, result in zip(notebooks, results, strict=True):
            name, last = notebook.relative_to(root), result.stdout.strip().splitlines()[-1]
            print(f"{name}: {last}", flush=True)
            if result.returncode == 0:
                continue
            print(result.stdout, result.stderr, sep="\n", flush=True)
            cells = re.findall(r"^(?:FAILED|ERROR) .*::Cell (\d+)", result.stdout, re.M)
            what = f"code cells {', '.join(cells)} give" if cells else "the run gives"
            messages.append(
                f"nbval: {name}: {what} another output than the stored one; "
                "the differences are above"
            )
    return messages


def main() -> int:
    """Run the named gates, or all that only read files; 1 if any has a message."""
    known = {gate.__name__: gate for gate in STATIC}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=lessons.ROOT)
    parser.add_argument("--notebooks", type=Path, help="for nbval: a folder with copies to run")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*known, "nbval"]))
    options = parser.parse_args()
    root = options.root.resolve()
    messages = []
    for name in options.names or known:
        if name == "nbval":
            folder = (options.notebooks or root / "notebooks").resolve()
            # `make test` calls this twice, and its run of all lessons has the notice.
            found = lessons.runnable(lessons.find(root), notice=False)
            messages += nbval(root, [folder / lesson.notebook.name for lesson in found])
        elif name in known:
            messages += known[name](root)
        else:
            parser.error(f"{name} is not a gate; the gates are {', '.join([*known, 'nbval'])}")
    print("\n".join(messages) or f"gates: {', '.join(options.names or known)} ok")
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main())
