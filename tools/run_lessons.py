"""Run every lesson, each in its own process: `make run-all`.

Executed copies, and the files that lessons write, go into a fresh folder under build/run-all.
Parameters are given as NAME=number; each goes to the lessons that declare it.
"""

import argparse
import sys
import time
from pathlib import Path

import nbformat

from captcha_reader.outputs import numbered_folder
from tools import lessons
from tools.lessons import Lesson

SMALL = {"STEPS": 20, "EPOCHS": 2}  # enough to see the loss fall, in minutes on two cores
LEAST = {"SEED": 0, "STEPS": 1, "EPOCHS": 1}


def read_overrides(texts: list[str], declared: dict[str, dict]) -> dict[str, int]:
    """The parameters given as NAME=number, checked against those that the lessons declare."""
    known, overrides = sorted(set().union(*declared.values())), {}
    for name, _, value in (text.partition("=") for text in texts):
        if name not in known:
            theirs = f"of {', '.join(declared)}; the parameters are: {', '.join(known)}"
            raise SystemExit(f"run-all: {name} is not a parameter {theirs}")
        if not value.isdecimal() or int(value) < LEAST[name]:
            rule = (
                f"must be a whole number of at least {LEAST[name]}, as in `make run-all {name}=1`"
            )
            raise SystemExit(f"run-all: {name}={value} {rule}")
        overrides[name] = int(value)
    return overrides


def failure(copy: Path, log: str) -> str:
    """Why a lesson stopped: the cell and its error, or the last words of papermill."""
    cells = lessons.code_cells(nbformat.read(copy, as_version=4)) if copy.exists() else []
    for _, cell in cells:
        for output in cell.outputs:
            if output.output_type == "error":
                first = cell.source.strip().splitlines()[0]
                return f"cell [{cell.execution_count}] `{first}`: {output.ename}: {output.evalue}"
    return log.splitlines()[-1] if log else "papermill stopped without a word"


def run(lesson: Lesson, folder: Path, values: dict[str, int]) -> str:
    """Execute a lesson into `folder`, with the `values` that it declares; "ok" or what failed."""
    copy, declared = folder / lesson.notebook.name, lessons.parameters(lesson.read())
    command = ["-m", "papermill", "--no-progress-bar", str(lesson.notebook), str(copy)]
    command += ["--cwd", str(lesson.notebook.parent)]
    for name in values.keys() & declared.keys():
        command += ["-p", name, str(values[name])]
    ok, log = lessons.call(*command, env=lessons.kernel_environment(lesson.root, folder))
    copy.with_suffix(".log").write_text(log, encoding="utf-8")
    return "ok" if ok else failure(copy, log)


def print_table(title: str, rows: dict[str, tuple[float, str]]) -> None:
    """Print seconds and result of each row."""
    width = max(map(len, [title, *rows]))
    print(f"\n{title:{width}}  seconds  result")
    for name, (seconds, result) in rows.items():
        print(f"{name:{width}}  {seconds:7.0f}  {result}")


def main(words: list[str] | None = None) -> int:
    """Run the lessons one after another, then print the table; 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=lessons.ROOT)
    parser.add_argument("--only", default="", help="names of the lessons to run")
    parser.add_argument("parameters", nargs="*", metavar="NAME=number")
    options = parser.parse_args(words)
    root = options.root
    selected = lessons.runnable(lessons.find(root, options.only))
    if not selected:
        return 1
    declared = {lesson.name: lessons.parameters(lesson.read()) for lesson in selected}
    values = SMALL | read_overrides(options.parameters, declared)
    folder = numbered_folder(root / "build" / "run-all")
    print(f"run-all: {len(selected)} lessons into {lessons.shown(folder, root)}")
    rows = {lesson.name: (0.0, "not run") for lesson in selected}
    try:
        for number, lesson in enumerate(selected, start=1):
            print(f"[{number}/{len(selected)}] {lesson.name} ... ", end="", flush=True)
            start, rows[lesson.name] = time.monotonic(), (0.0, "stopped")
            result = run(lesson, folder, values)
            seconds = time.monotonic() - start
            rows[lesson.name] = (seconds, result)
            print(f"{'ok' if result == 'ok' else 'FAILED'}  {seconds:.0f} s", flush=True)
    except KeyboardInterrupt:
        print("stopped")
    print_table("lesson", rows)
    failed = [name for name, (_, result) in rows.items() if result != "ok"]
    for name in failed:
        if (folder / f"{name}.log").exists():
            log = lessons.shown(folder / name, root)
            print(f"{name}: the executed copy is {log}.ipynb, what it logged {log}.log")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
