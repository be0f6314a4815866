"""What the tools share: where the lessons are, what is in them, and the kernel they run in."""

import ast
import base64
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).resolve().parent.parent
DEMO = "active-ipynb"  # the tag of a cell that runs in the notebook and is a comment in the module
COLAB = "colab"  # the tag of the cell that is needed in Google Colab alone; `normalise` writes it
# How Colab and JupyterLab fold a cell; the tag "hide-input" does so on the site.
HIDDEN = {"cellView": "form", "jupyter": {"source_hidden": True}}
ORIGINAL = {"cnn": 98.26, "ctc": 99.21, "pytorch": 99.57}  # % right of the tutorial of 2019
PERCENT = "py:percent"  # what jupytext calls the format of the modules
METADATA = {  # of every notebook
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
}
# Jupyter looks for free ports; now and then another kernel takes them first. No cell has run then.
UNBORN = "Kernel died before replying to kernel_info"


@dataclass(frozen=True)
class Lesson:
    """One lesson of the repository `root`: a notebook and the same cells as a module."""

    root: Path
    name: str

    @property
    def notebook(self) -> Path:
        return self.root / "notebooks" / f"{self.name}.ipynb"

    @property
    def module(self) -> Path:
        return self.root / "notebooks_py" / f"{self.name}.py"

    def __str__(self) -> str:
        return f"notebooks/{self.name}.ipynb"

    def read(self) -> NotebookNode:
        """Return the notebook with its outputs."""
        return nbformat.read(self.notebook, as_version=4)


def find(root: Path, only: str = "", one_sided: bool = False) -> list[Lesson]:
    """Return all lessons, or those in `only`, in reading order; `one_sided` adds lone sides."""
    paths = [*root.glob("notebooks/*.ipynb"), *root.glob("notebooks_py/*.py")]
    sides = Counter(x.stem for x in paths if re.fullmatch(r"ch\d+_\w+|solutions", x.stem))
    names = [name for name in sides if one_sided or sides[name] == 2]
    names.sort(key=lambda name: (len(name.partition("_")[0]), name))  # ch9, ch10, solutions
    wanted = only.replace(",", " ").split() or names
    if unknown := sorted(set(wanted) - set(names)):
        raise ValueError(f"{unknown[0]} is not a lesson; the lessons are: {', '.join(names)}")
    return [Lesson(root, name) for name in names if name in wanted]


def tags(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """Yield the code cells of a lesson, each with its place among all cells, from 1.

    Left out are empty ones and the one for Colab, which is made anew by `normalise`.
    """
    for place, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code" and cell.source.strip() and COLAB not in tags(cell):
            yield place, cell


def pngs(outputs: list[NotebookNode]) -> list[bytes]:
    """Return the pictures among the outputs of a cell."""
    encoded = [output.get("data", {}).get("image/png") for output in outputs]
    return [base64.b64decode(png) for png in encoded if png]


def imports(tree: ast.Module) -> set[str]:
    """Return the names that a syntax tree imports, "a.b" for `from a import b`."""
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    pairs = [(getattr(node, "module", None), alias.name) for node in nodes for alias in node.names]
    return {f"{module}.{name}" if module else name for module, name in pairs}


def parse(lesson: Lesson, cell: NotebookNode) -> ast.Module:
    """Return the syntax tree of a cell; a ValueError names one that is not plain Python."""
    try:
        return ast.parse(cell.source)
    except SyntaxError as error:
        raise ValueError(
            f"{lesson}: `{(error.text or '').strip()}` is not plain Python; magics such as %time "
            "or !pip would not work in the module"
        ) from None


def trees(lesson: Lesson) -> tuple[list[ast.Module], dict[Path, ast.Module]]:
    """Return the syntax trees of a lesson's code cells, and of all modules here that they import.

    These are lessons and modules of captcha_reader, with those that they import in turn.
    """
    cells, modules = [parse(lesson, cell) for _, cell in code_cells(lesson.read())], {}
    waiting = [*cells]
    while waiting:
        for name in imports(waiting.pop()):
            path = lesson.root.joinpath(*name.split(".")[:2]).with_suffix(".py")
            if path not in modules and path.exists():
                modules[path] = ast.parse(path.read_text("utf-8"))
                waiting.append(modules[path])
    return cells, modules


def needs_torch(lesson: Lesson) -> bool:
    """Return whether a lesson, or one that it imports, imports PyTorch, which is optional."""
    cells, modules = trees(lesson)
    names = set().union(*map(imports, [*cells, *modules.values()]))
    return any(name.split(".")[0] == "torch" for name in names)


def runnable(selected: list[Lesson]) -> list[Lesson]:
    """Return the lessons that can run here; without PyTorch, one line names the others."""
    if importlib.util.find_spec("torch"):
        return selected
    if names := [lesson.name for lesson in selected if needs_torch(lesson)]:
        print(f"left out: {', '.join(names)}; `make setup-torch` adds what they need", flush=True)
    return [lesson for lesson in selected if lesson.name not in names]


def code_lines(path: Path) -> list[str]:
    """Return the lines of a module, without empty ones and those that are comments."""
    lines = path.read_text("utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def digest(content: list | dict) -> str:
    """Return the SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def named_results(lesson: Lesson) -> list[Path]:
    """Return the results in models/ that a lesson's code names."""
    nodes = [n for _, cell in code_cells(lesson.read()) for n in ast.walk(parse(lesson, cell))]
    words = {node.value for node in nodes if isinstance(node, ast.Constant)}
    files = [*lesson.root.glob("models/*.json"), *lesson.root.glob("models/*.csv")]
    return sorted(path for path in files if {path.stem, path.name} & words)


def source_hash(lesson: Lesson) -> str:
    """Return the SHA-256 of all that the outputs of a lesson come from.

    These are its own code cells, the definitions in the lessons and the modules of captcha_reader
    that it imports (and that those import), the results in models/ that it names, and the pins of
    what lessons can import. Text cells, the cell for Colab and a demo cell of an imported lesson
    do not count.
    """
    root, (_, modules) = lesson.root, trees(lesson)
    parts: list = [[cell.source, tags(cell)] for _, cell in code_cells(lesson.read())]
    parts += [[path.stem, code_lines(path)] for path in sorted(modules)]
    parts += [[path.name, path.read_text("utf-8")] for path in named_results(lesson)]
    groups = project(root)["optional-dependencies"]
    pins = [*project(root)["dependencies"], *groups["lessons"]]
    parts.append([pin for pin in pins if not pin.startswith(("jupyt", "filelock", "ipykernel"))])
    parts.append(groups["torch"] if needs_torch(lesson) else [])
    return digest(parts)


def project(root: Path) -> dict:
    """Return what pyproject.toml says about the repository: dependencies and more."""
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]


def address(root: Path) -> str:
    """Return where the repository can be found; nothing while pyproject.toml doesn't say it."""
    url = project(root)["urls"]["Repository"]
    return "" if "YOUR_NAME" in url else url


def colab_cell(root: Path) -> NotebookNode:
    """Return the cell below the title of each lesson that fetches what Google Colab lacks."""
    pinned = project(root)["dependencies"] + project(root)["optional-dependencies"]["lessons"]
    lacking = [pin for pin in pinned if pin.startswith(("captcha=", "keras=", "onnxruntime="))]
    source = f"""\
# @title Google Colab fetches what it lacks; elsewhere nothing happens
import sys

if "google.colab" in sys.modules:
    !git clone -q --depth 1 {address(root)}
    !pip install -q {" ".join(sorted(lacking))}
    sys.path.insert(0, "{address(root).rpartition("/")[2]}")"""
    return new_code_cell(source, metadata={"tags": [COLAB, DEMO, "hide-input"]})


def normalise(notebook: NotebookNode, root: Path) -> NotebookNode:
    """Keep what belongs in the repository: no times, no machine; cell ids follow the content."""
    jupytext = tomllib.loads((root / "jupytext.toml").read_text("utf-8"))
    del jupytext["formats"]
    lesson = {key: value for key, value in notebook.metadata.items() if key == "lesson"}
    notebook.metadata = nbformat.from_dict({"jupytext": jupytext, **METADATA, **lesson})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.cells = [cell for cell in notebook.cells if COLAB not in tags(cell)]
    if address(root):
        notebook.cells.insert(1, colab_cell(root))
    copies = Counter()
    for cell in notebook.cells:
        name = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:12]
        copies[name] += 1
        cell.id = name if copies[name] == 1 else f"{name}-{copies[name]}"
        kept = {"tags": tags(cell)} if tags(cell) else {}
        cell.metadata = nbformat.from_dict(kept | (HIDDEN if "hide-input" in tags(cell) else {}))
    return notebook


def write(path: Path, content: str | bytes) -> bool:
    """Write a file if its content changes; return whether it did."""
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.write_bytes(data)
    draft.replace(path)  # all or nothing
    return True


def write_notebook(path: Path, notebook: NotebookNode) -> bool:
    """`write` a notebook with the layout that Jupyter gives it."""
    return write(path, nbformat.writes(notebook) + "\n")


def run_module(lesson: Lesson, out: Path, *words: str) -> tuple[bool, str]:
    """Run `python -m` for a lesson; return whether it succeeded, and what it printed.

    The lesson writes below `out`, settings in a person's home do not reach it, and no progress bar
    is shown.
    """
    settings = Path(sys.prefix) / "var"
    environment = {
        **os.environ,
        "IPYTHONDIR": str(settings / "ipython"),
        "JUPYTER_PATH": str(ROOT / "tools" / "jupyter"),
        "KERAS_HOME": str(settings / "keras"),
        "LESSONS_OUT": str(out),
        "MPLCONFIGDIR": str(settings / "matplotlib"),
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(lesson.root),
        "TQDM_DISABLE": "1",
    }
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    pipe |= {"encoding": "utf-8", "errors": "replace"}
    for _ in range(2):
        command = [sys.executable, "-m", *words]
        result = subprocess.run(command, cwd=ROOT, env=environment, **pipe)
        if UNBORN not in result.stdout:
            break
    return result.returncode == 0, result.stdout.strip()
