"""Strict nbval with pictures: a new run shows what the committed notebook shows.

This is a plug-in of pytest: nbval runs a notebook again and compares its text, and then every
picture is compared.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import lessons
from tools.lessons import Lesson

# How far apart pictures may be: sides, as a share of their length, and what they draw, as
# `difference` says. A cell with a tag shows what differs between machines. Measured between two
# processors: loss curves up to 0.27, and captchas of which others are read wrong 0.31; another
# picture of the same size is 0.37 to 1 away.
LIMITS = {
    "trained": (0.05, 0.35),  # a network that was trained here, which rounding changes
    "machine": (0.3, 1.0),  # seconds, or a diagram in the fonts of another Graphviz
}
EQUAL = (0.0, 0.0005)


def pixels(png: bytes) -> Image.Image:
    """Return a picture in RGB, on white paper."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def difference(old: bytes, new: bytes, limits: tuple[float, float]) -> str:
    """Return how two pictures differ, if by more than the limits; else nothing.

    At a quarter of the size: the pixels that differ by more than 64 of 255 levels, as a share of
    those that differ so much from the old picture's paper, its most frequent colour, in either.
    """
    pictures, (sides, share) = [pixels(old), pixels(new)], limits
    grown = np.divide(pictures[1].size, pictures[0].size)
    if abs(grown - 1).max() > sides:
        return f"sides {grown.round(2)} times as long, more than {sides} away from 1"
    size = [max(1, side // 4) for side in pictures[0].size]
    a, b = (np.asarray(x.resize(size, Image.Resampling.BOX), int) for x in pictures)
    paper = max(pictures[0].getcolors(1 << 24))[1]

    def far(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return abs(one - other).max(axis=-1) > 64

    ink = far(a, paper) | far(b, paper)
    apart = far(a, b).sum() / max(1, ink.sum())
    return f"{apart:.4f} apart, more than {share}" if apart > share else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """When nbval has compared the text of a cell, compare its pictures."""
    result = yield
    committed, drawn = map(lessons.pngs, (item.cell.outputs, item.test_outputs))
    if len(committed) != len(drawn):
        item.raise_cell_error(f"{len(drawn)} pictures, and {len(committed)} are committed")
    limits = next((LIMITS[tag] for tag in LIMITS if tag in lessons.tags(item.cell)), EQUAL)
    for old, new in zip(committed, drawn, strict=True):
        if message := difference(old, new, limits):
            item.raise_cell_error(f"another picture than the committed one: {message}")
    return result


def strict(lesson: Lesson, folder: Path) -> tuple[bool, str]:
    """Run a committed notebook with nbval: the same text, and the same pictures.

    What the lesson writes goes below `folder`. Returns whether all is equal, and what nbval wrote.
    """
    words = ["pytest", "-p", "tools.compare", "-p", "no:cacheprovider", "-p", "no:xdist"]
    words += ["--nbval", "-q", "-rfE", "--color=no", "-o", "addopts=", f"--rootdir={lesson.root}"]
    return lessons.run_module(lesson, folder, *words, str(lesson.notebook))
