"""Finished weights, each with a results file beside it, and measurements that we made once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from captcha_reader.scores import Score
from captcha_reader.testsets import TEST_SETS
from captcha_reader.texts import LENGTH

if TYPE_CHECKING:
    import keras
    import pandas as pd

MODELS = Path(__file__).parents[1] / "models"


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
        return bool(find(f"{name}.json", folder))
    except Missing as error:
        print(f"nothing to show: {error}")
        return False


def check_score(score: dict, source: Path) -> None:
    """Raise a ValueError that names `source` unless a `Score.record` agrees with itself."""
    name, n, right = score["test_set"], score["n"], score["right"]
    if name not in TEST_SETS or n != TEST_SETS[name].n:
        raise ValueError(f"{source}: no test set {name!r} of {n} captchas")
    expected = Score(name, n, right, tuple(score["right_by_position"])).record()
    for what, value in expected.items():
        if score.get(what) != value:
            raise ValueError(f"{source}: {what} of {name} is {score.get(what)}, expected {value}")
    if right > n or TEST_SETS[name].length == LENGTH and right > min(score["right_by_position"]):
        raise ValueError(f"{source}: {name} has more captchas right than characters at a position")


def read_results(name: str, folder: Path = MODELS) -> dict:
    """Return what `folder`/`name`.json says about a finished network.

    Raises:
        Missing: there is no such file.
        ValueError: it is damaged, or a score in it can't be true.
    """
    source = find(f"{name}.json", folder)
    try:
        results = json.loads(source.read_text(encoding="utf-8"))
        for score in results["scores"].values():
            check_score(score, source)
        results["sha256"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{source} is damaged: {error!r}") from error
    return results


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_weights(path: Path, expected: str) -> Path:
    """Return `path` if its SHA-256 is the one expected.

    Raises:
        Missing: there is no such file.
        ValueError: its SHA-256 is another one.
    """
    found = sha256(find(path.name, path.parent))
    if found != expected:
        raise ValueError(
            f"{path} is damaged or not the one of its results file: its SHA-256 is {found}, "
            f"expected {expected}"
        )
    return path


def finished(name: str, folder: Path = MODELS) -> tuple[keras.Model, dict]:
    """Load a finished network, "cnn" or "ctc", and what its results file says about it.

    Raises:
        Missing, ValueError: as `read_results` and `check_weights`.
    """
    import keras

    results = read_results(name, folder)
    weights = check_weights(folder / f"{name}.keras", results["sha256"])
    return keras.models.load_model(weights, compile=False), results


def measured(name: str, folder: Path = MODELS) -> dict:
    """Return a measurement that was made once and kept: what `folder`/`name`.json holds."""
    return json.loads(find(f"{name}.json", folder).read_text(encoding="utf-8"))


def read_log(name: str, folder: Path = MODELS) -> pd.DataFrame:
    """Return the log of a training that was kept: the table in `folder`/`name`.csv.

    Raises:
        Missing: there is no such file.
        ValueError: it was cut off.
    """
    import pandas as pd

    path = find(f"{name}.csv", folder)
    log = pd.read_csv(path)
    whole = path.read_bytes().endswith(b"\n") and log.notna().all(axis=None)
    if (folder / f"{name}.json").exists():
        whole &= log.pictures.iloc[-1] == measured(name, folder)["pictures"]
    if not whole:
        raise ValueError(f"{path} was cut off; `git checkout models` brings it back")
    return log
