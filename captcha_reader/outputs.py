"""Where lessons put their files, and how they show captchas and networks."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from captcha_reader.scores import share, wilson

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]


def fresh_folder(lesson: str) -> Path:
    """Make and return a new folder `run-001`, `run-002`, ... for this lesson's files.

    They lie in the repository's `build/lessons/<lesson>`, or below `$LESSONS_OUT` if that is set.
    """
    return numbered_folder(
        Path(os.environ.get("LESSONS_OUT", ROOT / "build" / "lessons")) / lesson, "run-"
    )


def numbered_folder(parent: Path, prefix: str = "") -> Path:
    """Make and return the next of the folders `prefix`001, `prefix`002, ... in `parent`.

    Its number is the largest one and one; names without a number are left out. Where another
    process made the same folder at the same moment, it is tried again.
    """
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        numbers = [path.name.removeprefix(prefix) for path in parent.glob(f"{prefix}*")]
        number = 1 + max((int(x) for x in numbers if x.isdecimal()), default=0)
        folder = parent / f"{prefix}{number:03d}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def show_captchas(
    pictures: Sequence[np.ndarray],
    texts: Sequence[str],
    answers: Sequence[str] | None = None,
    columns: int = 4,
    title: str = "",
) -> Figure:
    """Show pictures in a grid with their texts as titles; return the figure.

    With `answers`, a title is what was read: green if it is the text, else red with the text
    behind it.
    """
    import matplotlib.pyplot as plt

    rows = -(-len(pictures) // columns)
    height, width = pictures[0].shape[:2]
    size = (1.9 * columns, (0.3 + 1.9 * height / width) * rows + 0.4 * bool(title))
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for i, (axes, picture, text) in enumerate(zip(grid.flat, pictures, texts, strict=False)):
        axes.imshow(picture)
        answer = text if answers is None else answers[i]
        color = "black" if answers is None else "green" if answer == text else "crimson"
        label = answer if answer == text else f"{answer or '(nothing)'}, not {text}"
        axes.set_title(label, color=color, family="monospace")
    for axes in grid.flat:
        axes.axis("off")
    if title:
        figure.suptitle(title)
    return figure


def plot_errors(axes: Axes, rows: list[dict], title: str) -> None:
    """Draw and print wrong answers: a bar with its Wilson interval for a name, a dot for a seed.

    The rows have a name, how many answers were `right`, and `n`.
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    for place, name in enumerate(names):
        counts = [(row["n"] - row["right"], row["n"]) for row in rows if row["name"] == name]
        wrong, n = map(sum, zip(*counts, strict=True))
        low, high = wilson(wrong, n)
        bar, spread = 100 * wrong / n, [[100 * (wrong / n - low)], [100 * (high - wrong / n)]]
        axes.barh(place, bar, xerr=spread, color="tab:blue", capsize=3)
        beside = place + np.linspace(-0.2, 0.2, len(counts))
        axes.plot([100 * a / b for a, b in counts], beside, "o", color="tab:orange")
        print(f"{name:28} {share(wrong, n)}")
    axes.set(title=title, xlabel="captchas not entirely right (%)")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


def diagram(model: keras.Model, folder: Path) -> Path:
    """Draw the layers of a model with Keras' `plot_model` to `folder`/imgs/NAME.png.

    Without Graphviz's program `dot`, return the committed picture imgs/NAME.png instead.
    """
    import keras

    if shutil.which("dot") is None:
        return ROOT / "imgs" / f"{model.name}.png"
    path = folder / "imgs" / f"{model.name}.png"
    path.parent.mkdir(exist_ok=True)
    keras.utils.plot_model(model, path, show_shapes=True, dpi=45)
    return path


def progress() -> keras.callbacks.Callback:
    """Return a callback that shows training as a tqdm bar."""
    import warnings

    from tqdm import tqdm

    with warnings.catch_warnings(action="ignore"):  # it looks for notebook widgets in vain
        from tqdm.keras import TqdmCallback
    return TqdmCallback(tqdm_class=tqdm, verbose=0)
