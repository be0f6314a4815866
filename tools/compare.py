"""Pictures of the lessons, compared by what they draw.

`make refresh` writes into a notebook what its run drew; the gate `pictures` compares the committed
pictures with that. Run as a script, this is pytest with nbval, which runs a notebook again and
compares its text, and then every picture: nearly, as training differs between processors.
"""

import base64
import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nbformat import NotebookNode
from PIL import Image

from tools import lessons
from tools.lessons import Lesson

# How far apart pictures may be: sides, as a share of their length, and what they draw, as `apart`
# says. The first line whose words are in the cell holds. Measured: a loss curve of another machine
# is up to 0.15 away, and one of other first weights 0.22; painted words 0.01 to 0.09; another
# picture of the same size 0.37 (the same captchas with other titles) or 0.5 to 1.
LIMITS = {
    "median_milliseconds(": (0.1, 1),  # bars of times, which are another machine's
    "diagram(": (0.3, 1),  # drawn with another version of Graphviz, perhaps, and other fonts
    "": (0.05, 0.25),
}
EQUAL = 0.005  # in a lesson that trains nothing


def pixels(png: bytes) -> Image.Image:
    """A picture in RGB, on white paper."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def digest(png: bytes) -> str:
    """SHA-256 of what a PNG draws, however it is packed."""
    picture = pixels(png)
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


def pngs(outputs: list[NotebookNode]) -> list[bytes]:
    """The pictures among the outputs of a cell."""
    found = [output.get("data", {}).get("image/png") for output in outputs]
    return [base64.b64decode(png) for png in found if png]


def pictures(notebook: NotebookNode) -> list[tuple[int, bytes]]:
    """The pictures that a notebook shows, each with the place of its cell."""
    cells = enumerate(notebook.cells, start=1)
    return [(place, png) for place, cell in cells for png in pngs(cell.get("outputs", []))]


def apart(png: bytes, other: bytes) -> float:
    """How far two pictures are apart, from 0 to 1.

    At a quarter of the size: the pixels that differ by more than 64 of 255 levels, as a share of
    those that differ so much from the first picture's paper, its most frequent colour, in either.
    """
    size = [max(1, side // 4) for side in pixels(png).size]
    old, new = (np.asarray(pixels(x).resize(size, Image.Resampling.BOX), int) for x in (png, other))
    paper = max(pixels(png).getcolors(1 << 24))[1]
    differ, ink, more = (abs(x).max(axis=-1) > 64 for x in (old - new, old - paper, new - paper))
    return differ.sum() / max(1, (ink | more).sum())


def problems(lesson: Lesson) -> Iterator[str]:
    """Say which pictures of a lesson, in its notebook or in imgs/, its run did not draw."""
    notebook = lesson.read()
    told = notebook.metadata.get("lesson", {})
    found, drawn = pictures(notebook), told.get("pictures", [])
    if len(found) != len(drawn):
        yield f"there are {len(found)} pictures, and the run drew {len(drawn)}"
    for (place, png), there in zip(found, drawn, strict=False):
        if digest(png) != there:
            yield f"cell {place} shows another picture than the run drew"
    for name, there in told.get("imgs", {}).items():
        path = lesson.root / "imgs" / name
        if not path.exists() or digest(path.read_bytes()) != there:
            yield f"imgs/{name} is not the picture that the run drew"
    for place, cell in enumerate(notebook.cells, start=1):
        kinds = {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}
        if others := kinds - {"text/plain", "image/png"}:
            yield f"cell {place} shows {', '.join(sorted(others))}, which nothing compares"
        if cell.get("attachments") or "data:image" in cell.source:
            yield f"cell {place} has a picture that no code drew"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """When nbval has compared the text of a cell, compare its pictures."""
    result = yield
    committed, drawn = pngs(item.cell.outputs), pngs(item.test_outputs)
    if len(committed) != len(drawn):
        item.raise_cell_error(f"{len(drawn)} pictures, and {len(committed)} are committed")
    sides, share = next(LIMITS[words] for words in LIMITS if words in item.cell.source)
    share = share if "STEPS" in lessons.parameters(item.parent.nb) else EQUAL
    for old, new in zip(committed, drawn, strict=True):
        grown = np.divide(pixels(new).size, pixels(old).size)
        if abs(grown - 1).max() > sides or apart(old, new) > share:
            much = f"{grown.round(2)} times as long, {apart(old, new):.3f} apart, more than {share}"
            item.raise_cell_error(f"another picture than the committed one: {much}")
    return result


def strict(lesson: Lesson, folder: Path) -> tuple[bool, str]:
    """Run a committed notebook with nbval: the same text, and nearly the same pictures.

    What the lesson writes goes below `folder`. Returns whether all is equal, and what nbval wrote.
    """
    words = [
        "-m",
        "tools.compare",
        "--nbval",
        "-q",
        "-rfE",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    words += ["--color=no", "-o", "addopts=", "--rootdir", str(lesson.root), str(lesson.notebook)]
    return lessons.call(*words, env=lessons.kernel_environment(lesson.root, folder))


if __name__ == "__main__":
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # nbformat comes before pytest
    sys.exit(pytest.main([*quiet, *sys.argv[1:]], plugins=[sys.modules[__name__]]))
