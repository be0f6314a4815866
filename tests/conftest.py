"""A repository of one tiny lesson without TensorFlow, to break something in; and a browser."""

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Error, sync_playwright

import notebooks_py  # noqa: F401  brings what has to be imported before TensorFlow
from tools import format, lessons, refresh

ROOT = lessons.ROOT
CIRCLES = '''\
# %% [markdown]
# # 1. Count circles
#
# *Lesson 1 of 1 · 5 minutes*
#
# Areas grow as $r^2$.

# %%
import math

from captcha_reader.outputs import fresh_folder


def area(radius: float) -> float:
    """Return the area of a circle."""
    return math.pi * radius**2


# %% tags=["parameters", "active-ipynb"]
# SEED = 1  # any whole number
# STEPS = 3  # how many circles

# %% [markdown]
# A picture.

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# areas = [area(radius) for radius in range(STEPS)]
# plt.plot(areas)
# imgs = fresh_folder("ch1_circles") / "imgs"
# imgs.mkdir()
# plt.savefig(imgs / "circles.png")
# print(f"{STEPS} circles, the largest of area {areas[-1]:.2f}")

# %% [markdown]
# A fact: the area of the first is 3.14159.

# %% tags=["active-ipynb"]
# round(area(SEED), 5)
'''
TURNED = Image.Exif()
TURNED[0x0112] = 6  # the tag of orientation
NOTEBOOK, MODULE = "notebooks/ch1_circles.ipynb", "notebooks_py/ch1_circles.py"


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one place where a file says `old`."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path.name}, not once"
    path.write_text(text.replace(old, new), encoding="utf-8")


def change(root: Path, place: int, **changes) -> None:
    """Change the source, the outputs or the number of one cell."""
    (lesson,) = lessons.find(root)
    notebook = lesson.read()
    notebook.cells[place].update(changes)
    lessons.write_notebook(lesson.notebook, notebook)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """Return a picture as the bytes of a file."""
    image.save(content := io.BytesIO(), kind, **options)
    return content.getvalue()


def snapshot(root: Path) -> dict[Path, bytes]:
    """Return the files of a repository that are not made by running it."""
    made = {"build", ".git", "__pycache__"}
    files = [path for path in root.rglob("*") if path.is_file() and made.isdisjoint(path.parts)]
    return {path: path.read_bytes() for path in files}


def do_without(error: Exception) -> None:
    """Skip a test for what is missing on this machine; on GitHub nothing is, so fail there."""
    if "GITHUB_ACTIONS" in os.environ:
        raise error
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def mini_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny repository as `make format`, `make refresh` and a commit leave it."""
    root = tmp_path_factory.mktemp("mini")
    lessons.write(root / MODULE, CIRCLES)
    for package in ("captcha_reader", "notebooks_py"):
        lessons.write(root / package / "__init__.py", "")
    for name in ("pyproject.toml", "jupytext.toml", ".gitignore", "captcha_reader/outputs.py"):
        shutil.copy(ROOT / name, root / name)
    assert format.main([], root) == 0
    assert refresh.main([], root) == 0
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}  # no settings of a person
    for words in (["init"], ["add", "."], ["commit", "--message", "all"]):
        subprocess.run([*git, *words], env=environment, check=True, capture_output=True)
    return root


@pytest.fixture
def mini(mini_made: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny repository to break."""
    return Path(shutil.copytree(mini_made, tmp_path / "repo"))


@pytest.fixture(scope="module")  # not longer: asyncio.run fails as long as Playwright is open
def browser() -> Iterator[Browser]:
    """Start an installed Chromium or Chrome."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    where = {"executable_path": program} if program else {"channel": "chrome"}
    with sync_playwright() as playwright:
        try:
            yield playwright.chromium.launch(**where, args=["--no-sandbox"])
        except Error as error:
            do_without(error)
