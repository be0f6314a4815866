"""Run every lesson, each in its own process: `make run-all`.

Executed copies, and the files that lessons write, go into a fresh folder under build/run-all.
Parameters are given as NAME=number; each goes to the lessons that declare it.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import lessons
import nbformat
from lessons import Lesson

SMALL = {"STEPS": 20, "EPOCHS": 2}  # enough to see the loss fall, in minutes on two cores
LEAST = {"SEED": 0, "STEPS": 1, "EPOCHS": 1}


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
    if copy.exists():
        for _, cell in lessons.code_cells(nbformat.read(copy, as_version=4)):
            for output in cell.outputs:
                if output.output_type == "error":
                    first = cell.source.strip().splitlines()[0]
                    return (
                        f"cell [{cell.execution_count}] `{first}`: {output.ename}: {output.evalue}"
                    )
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "the runner stopped without a word"


def run(lesson: Lesson, folder: Path, values: dict[str, int]) -> str:
    """Execute one lesson with papermill; return "ok" or what went wrong."""
    copy, log = folder / lesson.notebook.name, folder / f"{lesson.name}.log"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    command += ["--cwd", str(lesson.notebook.parent), str(lesson.notebook), str(copy)]
    for name, value in values.items():
        command += ["-p", name, str(value)]
    environment = lessons.kernel_environment(lesson.root, folder)
    with log.open("w") as stream:
        # In a session of its own, so that Ctrl-C reaches this program first, which then stops it.
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return "ok" if code == 0 else failure(copy, log)


def main() -> int:
    """Run the lessons one after another, then print the table; 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=lessons.ROOT)
    parser.add_argument("--only", default="", help="names of the lessons to run")
    parser.add_argument("parameters", nargs="*", metavar="NAME=number")
    options = parser.parse_args()
    root = options.root.resolve()
    selected = lessons.runnable(lessons.find(root, options.only))
    if not selected:
        return 1
    declared = {lesson.name: lessons.parameters(lesson.read()) for lesson in selected}
    values = {**SMALL, **read_overrides(options.parameters, declared)}
    folder = lessons.numbered_folder(root / "build" / "run-all")
    # A cancelled CI job stops like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"run-all: {len(selected)} lessons into {folder.relative_to(root)}")
    rows = []
    try:
        for number, lesson in enumerate(selected, start=1):
            print(f"[{number}/{len(selected)}] {lesson.name} ... ", end="", flush=True)
            start = time.monotonic()
            rows.append([lesson.name, 0.0, "stopped"])
            mine = {name: values[name] for name in declared[lesson.name] if name in values}
            result = run(lesson, folder, mine)
            rows[-1][1:] = [time.monotonic() - start, result]
            print(f"{'ok' if result == 'ok' else 'FAILED'}  {rows[-1][1]:.0f} s", flush=True)
    except KeyboardInterrupt:
        rows[-1][1] = time.monotonic() - start
        print("stopped")
    rows += [[lesson.name, 0.0, "not run"] for lesson in selected[len(rows) :]]
    width = max(len(lesson.name) for lesson in selected)
    print(f"\n{'lesson':{width}}  seconds  result")
    for name, seconds, result in rows:
        print(f"{name:{width}}  {seconds:7.0f}  {result}")
    failed = [name for name, _, result in rows if result != "ok"]
    for name in failed:
        if (folder / f"{name}.log").exists():
            log = (folder / name).relative_to(root)
            print(f"{name}: the executed copy is {log}.ipynb, what it logged {log}.log")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
