"""Where lessons put their files, and how they show captchas and networks."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tqdm import tqdm

from captcha_reader.scores import share, wilson
from captcha_reader.texts import ALPHABET

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]


def fresh_folder(lesson: str) -> Path:
    """Make and return a new folder `run-001`, `run-002`, ... for this lesson's files.

    They lie in the repository's `build/lessons/<lesson>`, or below `$LESSONS_OUT` if that is set.
    """
    home = os.environ.get("LESSONS_OUT", ROOT / "build" / "lessons")
    return numbered_folder(Path(home, lesson), "run-")


def numbered_folder(parent: Path, prefix: str = "") -> Path:
    """Make and return the next of the folders `prefix`001, `prefix`002, ... in `parent`.

    Its number is one more than the largest there; names without a number are ignored. If another
    process makes the same folder at the same moment, the next number is tried.
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
        label, color = text, "black"
        if answers is not None:
            right = answers[i] == text
            label = text if right else f"{answers[i] or 'nothing'}, not {text}"
            color = "green" if right else "crimson"
        axes.set_title(label, color=color, family="monospace", parse_math=False)  # $ is no formula
    for axes in grid.flat:
        axes.axis("off")
    if title:
        figure.suptitle(title)
    return figure


def plot_errors(axes: Axes, rows: list[dict], title: str) -> None:
    """Draw and print shares of wrong answers: a bar with its interval per name, a dot per seed.

    The rows have a name, how many answers were `right`, and `n`.
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    for place, name in enumerate(names):
        counts = [(row["n"] - row["right"], row["n"]) for row in rows if row["name"] == name]
        wrong, n = sum(a for a, _ in counts), sum(b for _, b in counts)
        low, high = wilson(wrong, n)
        bar, spread = 100 * wrong / n, [[100 * (wrong / n - low)], [100 * (high - wrong / n)]]
        axes.barh(place, bar, xerr=spread, color="tab:blue", capsize=3)
        beside = place + np.linspace(-0.2, 0.2, len(counts))
        axes.plot([100 * a / b for a, b in counts], beside, "o", color="tab:orange")
        print(f"{name:28} {share(wrong, n)}")
    axes.set(title=title, xlabel="captchas not entirely right (%)")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


def show_shapes(shapes: dict[str, Sequence[int]]) -> Figure:
    """Draw what comes out of each part of a network as a box with its name, from left to right.

    A shape is (height, width, channels), or (width, channels). The square roots of these numbers
    are the box's height, depth (to the back) and width. Return the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9.5, 2.2), layout="constrained")
    x = 0.0
    for name, shape in shapes.items():
        height, depth, width = np.sqrt([1, *shape][-3:])
        front = np.array([(0, 0), (width, 0), (width, height), (0, height)]) + (x, -height / 2)
        back = front + (0.5 * depth, 0.5 * depth)
        top = [front[3], front[2], back[2], back[3]]
        side = [front[2], front[1], back[1], back[2]]
        for corners, color in ((front, "#9ecae1"), (top, "#deebf7"), (side, "#6baed6")):
            axes.add_patch(plt.Polygon(corners, fc=color, ec="#08519c", lw=0.8))
        middle, size = x + (width + 0.5 * depth) / 2, " x ".join(map(str, shape))
        axes.text(middle, -5.5, f"{name}\n{size}", ha="center", va="top", fontsize=9)
        x += max(width + 0.5 * depth, 9) + 4
    axes.set(xlim=(-3, x), ylim=(-9.5, 10), aspect="equal")
    axes.axis("off")
    return figure


def plot_shares(axes: Axes, x: Sequence, right, n, label: str = "", fmt: str = "o-") -> None:
    """Plot shares `right` out of `n` at each x, in per cent, with their 95 % intervals."""
    counts = np.broadcast_arrays(np.atleast_1d(right), n)
    shares = 100 * counts[0] / counts[1]
    ends = 100 * np.array([wilson(*pair) for pair in zip(*counts, strict=True)])
    axes.errorbar(x, shares, np.abs(ends.T - shares), capsize=3, label=label, fmt=fmt)


def plot_calibration(axes: Axes, sure: Sequence[float], correct: Sequence[bool]) -> None:
    """Plot how often answers are right against how sure (0 to 1) the network was, in four classes.

    On the dotted line the network would be right exactly as often as it says.
    """
    sure, correct = np.array(sure), np.array(correct)
    for low, high in ((0, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1)):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            x, n = 100 * sure[inside].mean(), inside.sum()
            label = f"{low:.0%} to {high:.0%}: {n:,}"
            plot_shares(axes, [x], correct[inside].sum(), n, label, fmt="o")
    axes.plot([0, 100], [0, 100], "k:", lw=1)
    axes.set(xlabel="how sure the network was (%)", ylabel="answers that were right (%)")
    axes.legend(title="how sure: pictures", fontsize=8)


def plot_columns(axes: Axes, picture: np.ndarray, chances: np.ndarray, rows: str) -> None:
    """Plot a picture, the likeliest answer of each column below it, and the chances of `rows`.

    `chances` is (columns, classes), with the blank, written `-`, as class 0; the more certain an
    answer, the darker it is. The other classes are those of `texts.ALPHABET`. `rows` names the
    answers that are shown, from top to bottom.
    """
    alphabet = "-" + ALPHABET
    right, tall = len(chances) - 0.5, 2.2 + len(rows)  # the picture takes the upper half
    shown = chances[:, [alphabet.index(row) for row in rows]].T
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    axes.imshow(picture, extent=(-0.5, right, -2.2, -2.2 - tall))
    axes.vlines(np.arange(0.5, right), len(rows) - 0.5, -0.5, color="white", lw=1)
    for column, chance in enumerate(chances):
        best = chance.argmax()
        color = (0.03, 0.19, 0.42, 0.3 + 0.7 * chance[best])
        axes.text(column, -1.3, alphabet[best], color=color, ha="center", va="center",
                  family="monospace", weight="bold")  # fmt: skip
    axes.set(xlim=(-0.5, right), ylim=(len(rows) - 0.5, -2.2 - tall), aspect="auto", xticks=[])
    axes.set_yticks(range(len(rows)), rows, family="monospace")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def animate_columns(
    picture: np.ndarray, frames: Sequence[tuple[str, str, np.ndarray]], text: str, path: Path
) -> None:
    """Write a GIF of `plot_columns`: each frame has a caption, what is read, and the chances.

    What is read is green if it is the `text`. Answers that no frame thinks likely are left out.
    """
    import matplotlib.pyplot as plt

    path.parent.mkdir(exist_ok=True)
    figure, axes = plt.subplots(figsize=(5.2, 5.4), dpi=125, layout="constrained")
    rows, images = likely_rows([chances for *_, chances in frames]), []
    for caption, answer, chances in frames:
        axes.clear()
        plot_columns(axes, picture, chances, rows)
        axes.set_title(caption, loc="left", color="dimgray")
        axes.set_xlabel("each column says which character it sees: the darker, the surer")
        style = {"color": "green" if answer == text else "crimson", "family": "monospace"}
        axes.set_title(f"read: {answer or 'nothing'}", loc="right", weight="bold", size=16, **style)
        figure.canvas.draw()
        images.append(np.array(figure.canvas.buffer_rgba())[..., :3])
    plt.close(figure)
    # One palette for all of them, so that what stays from frame to frame is stored once.
    strip = Image.fromarray(np.vstack(images)).quantize(256)
    height, width, _ = images[0].shape
    images = [strip.crop((0, y, width, y + height)) for y in range(0, strip.height, height)]
    times = [200] * (len(images) - 1) + [3000]  # milliseconds
    images[0].save(path, save_all=True, append_images=images[1:], duration=times, loop=0)


def likely_rows(chances: Iterable[np.ndarray], least: float = 0.25) -> str:
    """Return the blank and the characters that have a chance of `least` or more in some column."""
    best = np.max([chance.max(axis=0) for chance in chances], axis=0)
    return "-" + "".join(c for c, most in zip(ALPHABET, best[1:], strict=True) if most >= least)


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
    with warnings.catch_warnings(action="ignore"):  # it looks for notebook widgets in vain
        from tqdm.keras import TqdmCallback
    return TqdmCallback(tqdm_class=tqdm, verbose=0)
