"""Run every lesson, each in its own process: `make run-all`.

Executed copies, and the files that lessons write, go into a fresh folder under build/run-all.
Parameters are given as NAME=number; each goes to the lessons that declare it.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import lessons
import nbformat
from lessons import Lesson

SMALL = {"STEPS": 20, "EPOCHS": 2}  # enough to see the loss fall, in minutes on two cores
LEAST = {"SEED": 0, "STEPS": 1, "EPOCHS": 1}
# Jupyter looks for free ports; now and then another kernel takes them first. No cell has run then.
UNBORN = "Kernel died before replying to kernel_info"


def read_overrides(texts: list[str], declared: dict[str, dict]) -> dict[str, int]:
    """The parameters given as NAME=number, checked against those that the lessons declare."""
    known = sorted(set().union(*declared.values()))
    overrides = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise SystemExit(
                f"run-all: {name} is not a parameter of {', '.join(declared)}; "
                f"the parameters are: {', '.join(known) or 'none'}"
            )
        least = LEAST.get(name, 0)
        if not value.isdecimal() or int(value) < least:
            raise SystemExit(
                f"run-all: {name}={value} must be a whole number of at least {least}, "
                f"as in `make run-all {name}={SMALL.get(name, 1)}`"
            )
        overrides[name] = int(value)
    return overrides


def failure(copy: Path, log: Path) -> str:
    """Why a lesson stopped: the cell and its error, or the last words of the runner's log."""
    cells = lessons.code_cells(nbformat.read(copy, as_version=4)) if copy.exists() else []
    for _, cell in cells:
        for output in cell.outputs:
            if output.output_type == "error":
                first = cell.source.strip().splitlines()[0]
                return f"cell [{cell.execution_count}] `{first}`: {output.ename}: {output.evalue}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "the runner stopped without a word"


def run(lesson: Lesson, folder: Path, values: dict[str, int]) -> str:
    """Execute one lesson with papermill; return "ok" or what went wrong.

    The executed copy is `folder`/NAME.ipynb, what was logged `folder`/NAME.log. `values` are put
    into the lesson where it has a parameter of that name.
    """
    copy, log = folder / lesson.notebook.name, folder / f"{lesson.name}.log"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    command += ["--cwd", str(lesson.notebook.parent), str(lesson.notebook), str(copy)]
    declared = lessons.parameters(lesson.read())
    for name in values.keys() & declared.keys():
        command += ["-p", name, str(values[name])]
    environment = lessons.kernel_environment(lesson.root, folder)
    for _ in range(2):
        with log.open("w") as stream:
            result = subprocess.run(command, env=environment, stdout=stream, stderr=stream)
        if result.returncode == 0:
            return "ok"
        if UNBORN not in log.read_text(encoding="utf-8", errors="replace"):
            break
    return failure(copy, log)


def main(words: list[str] | None = None) -> int:
    """Run the lessons one after another, then print the table; 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=lessons.ROOT)
    parser.add_argument("--only", default="", help="names of the lessons to run")
    parser.add_argument("parameters", nargs="*", metavar="NAME=number")
    options = parser.parse_args(words)
    root = options.root.resolve()
    selected = lessons.runnable(lessons.find(root, options.only))
    if not selected:
        return 1
    declared = {lesson.name: lessons.parameters(lesson.read()) for lesson in selected}
    values = SMALL | read_overrides(options.parameters, declared)
    folder = lessons.numbered_folder(root / "build" / "run-all")
    print(f"run-all: {len(selected)} lessons into {lessons.shown(folder, root)}")
    rows = {lesson.name: (0.0, "not run") for lesson in selected}
    try:
        for number, lesson in enumerate(selected, start=1):
            print(f"[{number}/{len(selected)}] {lesson.name} ... ", end="", flush=True)
            start = time.monotonic()
            rows[lesson.name] = (0.0, "stopped")
            result = run(lesson, folder, values)
            rows[lesson.name] = (time.monotonic() - start, result)
            word = "ok" if result == "ok" else "FAILED"
            print(f"{word}  {rows[lesson.name][0]:.0f} s", flush=True)
    except KeyboardInterrupt:
        print("stopped")
    print_table("lesson", rows)
    for name in (name for name, (_, result) in rows.items() if result != "ok"):
        if (folder / f"{name}.log").exists():
            log = lessons.shown(folder / name, root)
            print(f"{name}: the executed copy is {log}.ipynb, what it logged {log}.log")
    return int(any(result != "ok" for _, result in rows.values()))


def print_table(title: str, rows: dict[str, tuple[float, str]]) -> None:
    """Print seconds and result of each row."""
    width = max(map(len, [title, *rows]))
    print(f"\n{title:{width}}  seconds  result")
    for name, (seconds, result) in rows.items():
        print(f"{name:{width}}  {seconds:7.0f}  {result}")


if __name__ == "__main__":
    sys.exit(main())
