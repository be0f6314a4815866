"""Run every lesson, each in its own process: `make run-all`.

Executed copies, and the files that lessons write, go into a fresh folder under build/run-all.
STEPS=20, EPOCHS=2 and SEED=1 go to the lessons that declare such a parameter.
"""

import sys
import time
from pathlib import Path

import nbformat

from captcha_reader.outputs import numbered_folder
from tools import lessons, options
from tools.lessons import Lesson


def failure(copy: Path, log: str) -> str:
    """Return why a lesson stopped: the cell and its error, or the last words of papermill."""
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


def print_table(rows: dict[str, tuple[float, str]]) -> None:
    """Print seconds and result of each lesson."""
    width = max(map(len, rows))
    print(f"\n{'lesson':{width}}  seconds  result")
    for name, (seconds, result) in rows.items():
        print(f"{name:{width}}  {seconds:7.0f}  {result}")


def main(words: list[str] | None = None, root: Path = lessons.ROOT) -> int:
    """Run the lessons one after another, then print the table; 1 if any failed."""
    parser = options.parser("run-all", "Run every lesson at small size, and print a table.")
    parser.add_argument("--only", default="", help="names of lessons, such as ch2_cnn,ch3_ctc")
    parser.add_argument("--steps", type=options.positive, default=20, help="batches in an epoch")
    parser.add_argument("--epochs", type=options.positive, default=2)
    parser.add_argument("--seed", type=options.whole, help="instead of that of each lesson")
    arguments = vars(parser.parse_args(words))
    selected = lessons.runnable(lessons.find(root, arguments.pop("only")))
    values = {name.upper(): value for name, value in arguments.items() if value is not None}
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
    print_table(rows)
    failed = [name for name, (_, result) in rows.items() if result != "ok"]
    for name in failed:
        if (folder / f"{name}.log").exists():
            log = lessons.shown(folder / name, root)
            print(f"{name}: the executed copy is {log}.ipynb, what it logged {log}.log")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
