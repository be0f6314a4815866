"""Run every lesson, each in its own process: `make run-all`.

Executed copies, and the files that lessons write, go into a fresh folder under build/run-all.
STEPS=20, EPOCHS=2 and SEED=1 take the place of what a lesson's parameters cell says; a lesson that
has no such parameter doesn't use it.
"""

import contextlib
import re
import time
from pathlib import Path

from captcha_reader.outputs import numbered_folder
from tools import lessons, options
from tools.lessons import Lesson


def run(lesson: Lesson, folder: Path, values: dict[str, int]) -> str:
    """Execute a lesson into `folder`, with other `values`; return "ok" or what failed."""
    copy = folder / lesson.notebook.name
    words = ["papermill", "--no-progress-bar", f"--cwd={lesson.notebook.parent}"]
    for name, value in values.items():
        words += ["-p", name, str(value)]
    ok, log = lessons.run_module(lesson, folder, *words, str(lesson.notebook), str(copy))
    copy.with_suffix(".log").write_text(log, encoding="utf-8")
    cell = re.search(r'encountered at "In (\[\d+\])"', log)
    last = log.splitlines()[-1] if log else "stopped without a word"
    return "ok" if ok else f"cell {cell[1]}: {last}" if cell else f"papermill: {last}"


def main(words: list[str] | None = None, root: Path = lessons.ROOT) -> int:
    """Run the lessons one after another, then print the table; return 1 if any failed."""
    parser = options.parser("run-all", "Run every lesson at small size, and print a table.")
    parser.add_argument("--only", default="", help="names of lessons, such as ch2_cnn,ch3_ctc")
    parser.add_argument("--steps", type=options.positive, default=20, help="batches in an epoch")
    parser.add_argument("--epochs", type=options.positive, default=2, help="of each training")
    parser.add_argument("--seed", type=options.whole, help="instead of that of each lesson")
    arguments = vars(parser.parse_args(words))
    selected = lessons.runnable(lessons.find(root, arguments.pop("only")))
    values = {name.upper(): value for name, value in arguments.items() if value is not None}
    folder = numbered_folder(root / "build" / "run-all")
    print(f"run-all: {len(selected)} lessons into build/run-all/{folder.name}")
    results = {lesson.name: "not run" for lesson in selected}
    with contextlib.suppress(KeyboardInterrupt):
        for lesson in selected:
            print(f"{lesson.name} ... ", end="", flush=True)
            start, results[lesson.name] = time.monotonic(), "stopped"
            result = results[lesson.name] = run(lesson, folder, values)
            print(f"{'ok' if result == 'ok' else 'FAILED'}  {time.monotonic() - start:.0f} s")
    print(f"\nlogs: build/run-all/{folder.name}/*.log")
    for name, result in results.items():
        print(f"{name:20}  {result}")
    return int(any(result != "ok" for result in results.values()))


if __name__ == "__main__":
    options.end_with(main)
