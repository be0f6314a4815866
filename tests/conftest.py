"""A repository of two tiny lessons without TensorFlow, for tests that break something."""

import contextlib
import io
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from PIL import Image

from tools import format, lessons, refresh

with contextlib.suppress(ImportError):  # PyTorch for CUDA brings it; after TensorFlow it crashes
    import triton  # noqa: F401

ROOT = lessons.ROOT
# On a person's machine hypothesis looks for new examples each time. CI tries the same ones each
# time, so that a red run means a change.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

LIBRARY = '''\
"""Folders for what lessons write."""

import os
from pathlib import Path


def fresh_folder(lesson: str) -> Path:
    """Make a new folder."""
    folder = Path(os.environ["LESSONS_OUT"]) / lesson / "run-001"
    (folder / "imgs").mkdir(parents=True)
    return folder
'''

FIRST = '''\
# %% [markdown]
# # Count circles

# %%
import math

from captcha_reader.places import fresh_folder

NAMES = ("a", "b")


def area(radius: float) -> float:
    """The area of a circle."""
    return math.pi * radius**2


# %% [markdown]
# The parameters.

# %% tags=["parameters", "active-ipynb"]
# SEED = 1  # any whole number
# STEPS = 3  # how many circles

# %% [markdown]
# A picture.

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# folder = fresh_folder("ch1_circles")
# areas = [area(radius) for radius in range(STEPS)]
# plt.plot(areas)
# plt.savefig(folder / "imgs" / "circles.png")
# for name in NAMES:
#     print(f"{name}: {STEPS} circles, the largest of area {areas[-1]:.2f}")

# %% [markdown]
# A fact.

# %% tags=["active-ipynb"]
# round(area(SEED), 5)

# %% [markdown]
# ## What you learned
# ## On your own
# ## Further reading
'''

SECOND = '''\
# %% [markdown]
# # Double circles

# %%
from notebooks_py.ch1_circles import area


def double(radius: float) -> float:
    """Twice the area of a circle."""
    return 2 * area(radius)


# %% [markdown]
# The parameters.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2  # any whole number

# %% [markdown]
# A fact.

# %% tags=["active-ipynb"]
# print(f"{double(SEED):.2f}")

# %% [markdown]
# ## What you learned
# ## On your own
# ## Further reading
'''


@pytest.fixture
def tool(capsys: pytest.CaptureFixture) -> Callable:
    """Call a tool on the lessons in a folder; return its exit status and what it printed."""

    def call(module, root: Path, *words: str) -> tuple[int, str]:
        try:
            code = module.main(["--root", str(root), *words])
        except SystemExit as error:
            code = 1
            print(error)
        return code, capsys.readouterr().out

    return call


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one place where a file says `old`."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path.name}, not once"
    path.write_text(text.replace(old, new), encoding="utf-8")


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """A picture as the bytes of a file."""
    image.save(content := io.BytesIO(), kind, **options)
    return content.getvalue()


def snapshot(root: Path) -> dict[str, bytes]:
    """The files of a repository that are not made by running it."""
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in paths
        if not {"build", ".git", "__pycache__"} & set(path.relative_to(root).parts)
    }


def git(root: Path, *arguments: str) -> None:
    """Run git in `root`, whatever the settings of the person are."""
    command = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x", *arguments]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(command, env=environment, check=True, capture_output=True)


@pytest.fixture(scope="session")
def mini_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny repository as `make format`, `make refresh` and a commit leave it."""
    root = tmp_path_factory.mktemp("mini") / "repo"
    root.mkdir()
    for name in ("requirements.lock", "pyproject.toml", "environment.yml", "jupytext.toml",
                 ".gitignore"):  # fmt: skip
        shutil.copy(ROOT / name, root / name)
    files = {
        "captcha_reader/__init__.py": "",
        "captcha_reader/places.py": LIBRARY,
        "notebooks_py/__init__.py": "",
        "notebooks_py/ch1_circles.py": FIRST,
        "notebooks_py/ch2_double.py": SECOND,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    assert format.main(["--root", str(root)]) == 0
    assert refresh.main(["--root", str(root)]) == 0
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "lessons")
    return root


@pytest.fixture
def mini(mini_made: Path, tmp_path: Path) -> Path:
    """A copy of the tiny repository to break."""
    return Path(shutil.copytree(mini_made, tmp_path / "repo"))
