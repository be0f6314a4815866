"""Run the lessons whose source changed and store their outputs: `make refresh`.

A lesson is run as a copy, with its default parameters; files of notebooks/ and imgs/ are replaced
only after its last cell, so a failure leaves all as it was. Pictures are stored with a palette.
"""

import base64
import io
from pathlib import Path

import nbformat
from nbval.plugin import coalesce_streams

from captcha_reader.outputs import numbered_folder
from tools import compare, gates, lessons, options, run_lessons
from tools.lessons import Lesson


def with_palette(png: bytes) -> bytes:
    """Return a PNG with 256 colours on white paper, if that is smaller."""
    compare.pixels(png).quantize(256).save(out := io.BytesIO(), "PNG", optimize=True)
    return min(png, out.getvalue(), key=len)


def refresh(lesson: Lesson, folder: Path) -> list[Path]:
    """Execute one lesson and return the files that changed; a ValueError says why it failed."""
    source, result = lessons.source_hash(lesson), run_lessons.run(lesson, folder, {})
    if result != "ok":
        raise ValueError(result)
    notebook = nbformat.read(folder / lesson.notebook.name, as_version=4)
    for count, (_, cell) in enumerate(lessons.code_cells(notebook), start=1):
        cell.execution_count, cell.outputs = count, coalesce_streams(cell.outputs)
        for data in (output.data for output in cell.outputs if "data" in output):
            if png := data.get("image/png"):
                data["image/png"] = base64.b64encode(with_palette(base64.b64decode(png))).decode()
    if problems := list(gates.output_problems(notebook)):
        raise ValueError("; ".join(problems))
    notebook.metadata["lesson"] = {"source_sha256": source}
    lessons.normalise(notebook, lesson.root)
    changed = [lesson.notebook] if lessons.write_notebook(lesson.notebook, notebook) else []
    for path in sorted((folder / lesson.name / "run-001").glob("imgs/*")):
        image, content = lesson.root / "imgs" / path.name, path.read_bytes()
        content = with_palette(content) if path.suffix == ".png" else content
        changed += [image] if lessons.write(image, content) else []
    return changed


def main(words: list[str] | None = None, root: Path = lessons.ROOT) -> int:
    """Refresh what is stale; return 1 if a lesson failed."""
    parser = options.parser("refresh", "Run the lessons whose source changed; store their outputs.")
    parser.add_argument("--only", default="", help="names of lessons, such as ch2_cnn,ch3_ctc")
    parser.add_argument("--force", choices=["1"], help="run them even if nothing changed")
    arguments = parser.parse_args(words)
    selected = lessons.runnable(lessons.find(root, arguments.only))
    if differing := list(gates.sync(root)):
        raise ValueError("\n".join(differing))
    messages = [*gates.outputs(root), *gates.provenance(root)]
    stale, failed = {message.partition(": ")[0] for message in messages}, False
    for lesson in selected:
        if not arguments.force and str(lesson) not in stale:
            print(f"{lesson.name}: nothing changed")
            continue
        print(f"{lesson.name} ... ", end="", flush=True)
        try:
            changed = refresh(lesson, numbered_folder(root / "build" / "refresh"))
            names = ", ".join(path.relative_to(root).as_posix() for path in changed)
            print(f"ok, wrote {names or 'nothing: all the same'}")
        except ValueError as error:
            failed = True
            print(f"FAILED, its files are left as they were\n{error}")
    return int(failed)


if __name__ == "__main__":
    options.end_with(main)
