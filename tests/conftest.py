"""A repository of two tiny lessons without TensorFlow, for tests that break something."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import format
import hypothesis
import lessons
import pytest

ROOT = lessons.ROOT
# On a person's machine hypothesis looks for new examples each time. CI tries the same ones each
# time, so that a red run means a change.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")
# What a copy of this repository can do without.
UNTRACKED = shutil.ignore_patterns(
    ".*cache", ".git", ".hypothesis", ".venv", "__pycache__", "build"
)

FIRST = '''\
# %% [markdown]
# # Count circles
# ## What you'll do
# ## What you'll learn
# ## What you'll need

# %%
import math
import os
from pathlib import Path

NAMES = ("a", "b")


def area(radius: float) -> float:
    """The area of a circle."""
    return math.pi * radius**2


def fresh_folder(lesson: str) -> Path:
    """A new folder for what a lesson writes."""
    folder = Path(os.environ["LESSONS_OUT"]) / lesson / "run-001"
    (folder / "imgs").mkdir(parents=True)
    return folder


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
# FOLDER = fresh_folder("ch1_circles")
# areas = [area(radius) for radius in range(STEPS)]
# plt.plot(areas)
# plt.savefig(FOLDER / "imgs" / "circles.png")
# print(f"{STEPS} circles, the largest of area {areas[-1]:.2f}")

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
# ## What you'll do
# ## What you'll learn
# ## What you'll need

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


def tool(name: str, root: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run a tool of this repository on the lessons in `root`."""
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def format_all(root: Path) -> None:
    """What `make format` does, without another process."""
    for lesson in lessons.find(root, one_sided=True):
        format.format_lesson(lesson, None)


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one place where a file says `old`."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path.name}, not once"
    path.write_text(text.replace(old, new), encoding="utf-8")


def snapshot(root: Path) -> dict[str, bytes]:
    """The files of a repository that are not made by running it."""
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in paths
        if not {"build", ".git", "__pycache__"} & set(path.relative_to(root).parts)
    }


@pytest.fixture(scope="session")
def mini_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny repository as `make format`, `make refresh` and a commit leave it."""
    root = tmp_path_factory.mktemp("mini") / "repo"
    (root / "notebooks_py").mkdir(parents=True)
    for name in ("requirements.txt", "requirements.lock", "requirements-torch.txt",
                 "pyproject.toml", "environment.yml", "jupytext.toml", ".gitignore"):  # fmt: skip
        shutil.copy(ROOT / name, root / name)
    (root / "notebooks_py" / "__init__.py").touch()
    (root / "notebooks_py" / "ch1_circles.py").write_text(FIRST, encoding="utf-8")
    (root / "notebooks_py" / "ch2_double.py").write_text(SECOND, encoding="utf-8")
    format_all(root)
    result = tool("refresh", root)
    assert result.returncode == 0, result.stdout + result.stderr
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "lessons")
    return root


@pytest.fixture
def mini(mini_made: Path, tmp_path: Path) -> Path:
    """A copy of the tiny repository to break."""
    return Path(shutil.copytree(mini_made, tmp_path / "repo"))


def git(root: Path, *arguments: str) -> str:
    """Run git in `root`, whatever the settings of the person are."""
    person = {
        f"GIT_{who}_{what}": "lessons"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    environment = {**os.environ, **person, "GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout
