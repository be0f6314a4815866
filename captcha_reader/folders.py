"""A folder of labelled pictures: `LABEL_anything.png`, or pictures and a `labels.csv`."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from captcha_reader.reading import UnreadablePicture, to_pixels
from captcha_reader.texts import ALPHABET, WIDTH
from captcha_reader.weights import sha256

TABLE = "labels.csv"


class BadFiles(ValueError):
    """Some files of a folder can't be used; the message has a line for each of them."""


def read_folder(
    folder: str | Path, alphabet: str = ALPHABET, longest: int = 6
) -> tuple[np.ndarray, list[str]]:
    """Read a folder of labelled pictures: uint8 RGB, shape (n, 64, 128, 3), and their n texts.

    The text of a picture is its file name up to the first `_` or `.`, as in `7KQ2_002.jpg`. If
    the folder has a `labels.csv` with the columns `file` and `text`, that decides. Hidden files
    are left alone, all others have to be pictures; they are brought to 128x64. The order is that
    of the names.

    Raises:
        BadFiles: there is no such folder or no picture in it; or some files can't be used: no
            picture, no label, one with characters outside `alphabet` or more than `longest` of
            them, or the very same picture with two labels. All are listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadFiles(f"{folder} is no folder")
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in files if path.name != TABLE]
    if (folder / TABLE).exists():
        labels, bad = _table(folder / TABLE, {path.name for path in files})
    else:
        labels, bad = {path.name: path.name.split(".")[0].split("_")[0] for path in files}, []
    pictures, texts, seen = [], [], {}
    for path in files:
        text = labels.get(path.name)
        try:
            pictures.append(to_pixels(path, WIDTH))
            if text is None:
                raise ValueError(f"{path}: has no line in {TABLE}")
            _check(text, alphabet, longest, path)
            other = seen.setdefault(sha256(path), path.name)
            if labels[other] != text:
                raise ValueError(f"{path}: {text!r}, but the same picture {other} is not")
        except (UnreadablePicture, ValueError) as error:
            bad.append(str(error))
        else:
            texts.append(text)
    if not files:
        raise BadFiles(f"{folder} holds no pictures")
    if bad:
        raise BadFiles("\n".join([f"{len(bad)} files of {folder} can't be used:", *bad]))
    return np.stack(pictures), texts


def _table(path: Path, names: set[str]) -> tuple[dict[str, str], list[str]]:
    """Return what a table says about files, and what is wrong with it."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadFiles(f"{path}: {error}") from error
    labels, bad = {}, []
    for line, row in enumerate(rows, 2):
        name, text = row.get("file"), row.get("text")
        if not name or not text:
            bad.append(f"{path}, line {line}: needs a file and a text, as in `7KQ2.png,7KQ2`")
        elif labels.setdefault(name, text) != text:
            bad.append(f"{path}, line {line}: {name} is {text!r} here and {labels[name]!r} above")
        elif name not in names:
            bad.append(f"{path}, line {line}: there is no file {name}")
    return labels, bad


def _check(text: str, alphabet: str, longest: int, path: Path) -> None:
    if not 1 <= len(text) <= longest:
        raise ValueError(
            f"{path}: the label {text!r} has {len(text)} characters, not 1 to {longest}"
        )
    if strange := sorted(set(text) - set(alphabet)):
        raise ValueError(
            f"{path}: {', '.join(map(repr, strange))} in the label {text!r} "
            f"is not in the alphabet {alphabet!r}"
        )


def split(texts: Sequence[str], share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split n labelled pictures for training and testing; return the places of both, int64.

    About `share` of the different texts, at least one and not all, are for testing; `seed` draws
    them. A text is never on both sides, so neither is a picture: a network can't be right by having
    seen it.

    Raises:
        ValueError: all texts are the same.
    """
    different = sorted(set(texts))
    if len(different) < 2:
        raise ValueError(f"{len(texts)} pictures say {different}: two different texts are needed")
    random.Random(seed).shuffle(different)
    count = min(max(1, round(share * len(different))), len(different) - 1)
    test = np.array([text in different[:count] for text in texts])
    return np.flatnonzero(~test), np.flatnonzero(test)
