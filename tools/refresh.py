"""Run the lessons whose source changed and store their outputs: `make refresh`.

The one command that writes notebooks/ (outputs) and imgs/. A lesson is run as a copy, with its
default parameters; files are replaced only after its last cell, so a failure leaves all as it was.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import gates
import lessons
from lessons import Lesson
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError


def is_stale(lesson: Lesson) -> bool:
    """Whether the stored outputs are missing, broken, or not those of this source."""
    notebook = lesson.read()
    stored = notebook.metadata.get("lesson", {}).get("source_sha256")
    return stored != lessons.source_hash(lesson) or bool(gates.output_problems(notebook))


def refresh(lesson: Lesson, folder: Path) -> list[Path]:
    """Execute one lesson and return the files of the repository that changed."""
    notebook, source = lesson.read(), lessons.source_hash(lesson)
    client = NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(lesson.notebook.parent)}},
    )
    os.environ.update(lessons.kernel_environment(lesson.root, folder))
    with (folder / f"{lesson.name}.log").open("w") as log:
        client.execute(stderr=log)
    problems = gates.output_problems(notebook)
    if problems:
        raise ValueError("; ".join(problems))
    notebook.metadata["lesson"] = {"source_sha256": source}
    lessons.normalise(notebook, lesson.root)
    pictures = sorted((folder / lesson.name / "run-001" / "imgs").glob("*.png"))
    contents = {lesson.root / "imgs" / path.name: path.read_bytes() for path in pictures}
    changed = [lesson.notebook] if lessons.write_notebook(lesson.notebook, notebook) else []
    return changed + [path for path, data in contents.items() if lessons.write(path, data)]


def main() -> int:
    """Refresh what is stale; 1 if a lesson failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=lessons.ROOT)
    parser.add_argument("--only", default="", help="names of the lessons to look at")
    parser.add_argument("--force", action="store_true", help="run them even if nothing changed")
    options = parser.parse_args()
    root = options.root.resolve()
    selected = lessons.runnable(lessons.find(root, options.only))
    differing = gates.sync(root)
    if differing:
        raise SystemExit("\n".join(differing))
    stale = [lesson for lesson in selected if options.force or is_stale(lesson)]
    for lesson in [lesson for lesson in selected if lesson not in stale]:
        print(f"{lesson.name}: nothing changed")
    failed = False
    folder = lessons.numbered_folder(root / "build" / "refresh") if stale else None
    for lesson in stale:
        print(f"{lesson.name} ... ", end="", flush=True)
        start = time.monotonic()
        try:
            changed = refresh(lesson, folder)
        except (CellExecutionError, DeadKernelError, ValueError) as error:
            failed = True
            print(f"FAILED, its files are left as they were\n{error}")
        else:
            names = ", ".join(str(path.relative_to(root)) for path in changed)
            print(f"ok  {time.monotonic() - start:.0f} s  wrote {names or 'nothing: all the same'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
