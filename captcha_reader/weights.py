"""Finished weights, each with a results file beside it, and measurements that we made once."""

from __future__ import annotations

import csv
import hashlib
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import pandas as pd

MODELS = Path(__file__).parent / "models"  # in an installed package
if not MODELS.exists():
    MODELS = Path(__file__).parents[1] / "models"
DESCRIPTION = "captcha.json"  # a member of a .keras archive, which Keras leaves alone


class Missing(FileNotFoundError):
    """A file of models/ is not there; a notebook shows this in one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [str(self)]


def find(name: str, folder: Path = MODELS) -> Path:
    """Return the path of a file in models/, or raise Missing, which says how to get it."""
    if not (folder / name).exists():
        raise Missing(f"there is no {folder.name}/{name}; `git checkout models` brings it back")
    return folder / name


def available(name: str, folder: Path = MODELS) -> bool:
    """Return whether `folder` has what was trained or measured; print one line if it has not."""
    try:
        find(f"{name}.json", folder)
    except Missing as error:
        print(f"nothing to show: {error}")
        return False
    return True


def read_results(name: str, folder: Path = MODELS) -> dict:
    """Return what `folder`/`name`.json holds.

    That is the record of a finished network (its command, settings, scores, `sha256` and more), or
    a measurement that was made once and kept.
    """
    return json.loads(find(f"{name}.json", folder).read_text(encoding="utf-8"))


def read_log(name: str, folder: Path = MODELS) -> pd.DataFrame:
    """Return the log of a training that was kept: the table in `folder`/`name`.csv."""
    import pandas as pd

    return pd.read_csv(find(f"{name}.csv", folder))


def read_errors(name: str, folder: Path = MODELS) -> list[tuple[str, str]]:
    """Return (text, answer) of each captcha of classic-100k that a finished network reads wrong."""
    with find(f"{name}_errors.csv", folder).open(encoding="utf-8", newline="") as file:
        return [(text, answer) for text, answer in csv.reader(file)][1:]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_weights(path: Path, expected: str) -> Path:
    """Return `path` if its SHA-256 is the one expected.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: its SHA-256 is another one.
    """
    if (actual := sha256(path)) != expected:
        raise ValueError(
            f"{path} is damaged or not the one of its results file: its SHA-256 is {actual}, "
            f"expected {expected}"
        )
    return path


def described(alphabet: str, width: int | None = None) -> dict:
    """Return what a program has to know about a network besides its weights.

    The filter scales pictures to 64 pixels in height and to `width`. None, written as "free",
    stands for the width that `captcha_reader.reading.network_width` computes.
    """
    return {
        "version": 1,
        "alphabet": alphabet,
        "height": 64,
        "width": width or "free",
        "filter": "bilinear",
    }


def describe(path: Path, alphabet: str, width: int | None = None) -> None:
    """Store the alphabet of a network, and how it wants pictures, in its .keras file."""
    with zipfile.ZipFile(path, "a") as archive:
        member = zipfile.ZipInfo(DESCRIPTION, (1980, 1, 1, 0, 0, 0))  # equal bytes each time
        archive.writestr(member, json.dumps(described(alphabet, width)))


def description(path: Path) -> dict | None:
    """Return what `describe` stored in a .keras file, or None if it holds nothing of that kind."""
    with zipfile.ZipFile(path) as archive:
        if DESCRIPTION in archive.namelist():
            return json.loads(archive.read(DESCRIPTION))
    return None


def finished(name: str, folder: Path = MODELS) -> tuple[keras.Model, dict]:
    """Load a finished network, "cnn" or "ctc", and what its results file says about it.

    Raises:
        Missing: there are no such weights, or no results file.
        ValueError: the weights are not those of the results file.
    """
    import keras

    results = read_results(name, folder)
    weights = check_weights(find(f"{name}.keras", folder), results["sha256"])
    return keras.models.load_model(weights, compile=False), results
