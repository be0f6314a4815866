"""A folder of labelled pictures: `TEXT_anything.png`, or pictures and a table of their texts."""

import csv
import random
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from captcha_reader.reading import to_pixels
from captcha_reader.weights import sha256

TABLES = ("labels.csv", "labels.txt")
LEFT_ALONE = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", *TABLES}  # and hidden files


class BadFiles(ValueError):
    """Some files of a folder can't be used; the message has a line for each of them."""


def read_folder(
    folder: str | Path, alphabet: str | None = None, pattern: str | None = None
) -> tuple[list[np.ndarray], list[str]]:
    """Read a folder of labelled pictures: n uint8 arrays (64, width, 3), and their n texts.

    A table decides what the pictures say: `labels.csv` with the columns `file` and `text` (comma,
    semicolon or tab between them), or `labels.txt` with lines `name text`. Without one, the text of
    a picture is its file name up to the first `_`, `.`, space or `(1)`, as in `7KQ2_002.jpg`, or
    what stands at `{text}` in `pattern`: "*_{text}" is for `IMG_7KQ2.png`. Hidden files and those
    that systems add are left alone, all others have to be pictures. The order is that of the names,
    and widths are those of `captcha_reader.reading.network_width`.

    A warning lists texts in names that differ only in case: elsewhere such names may be one file.

    Raises:
        BadFiles: there is no such folder or no picture in it; names that hold no texts; or some
            files can't be used: no picture, no text, one with characters outside `alphabet` if that
            is given, or the very same picture with two texts. All are listed.
    """
    files = picture_files(folder)
    names = [path.name for path in files]
    tables = [path for path in Path(folder).iterdir() if path.name.lower() in TABLES]
    table = min(tables, default=None)
    labels, bad = _table(table, names) if table else (_from_names(names, pattern), [])
    pictures, texts, seen = [], [], {}
    for path in files:
        text = labels.get(path.name)
        try:
            pixels = to_pixels(path)
            if text is None:
                unfit = f"without its ending, the name does not fit {pattern!r}"
                where = f"has no line in {table.name}" if table else unfit
                raise ValueError(f"{path}: {where}")
            _check(text, alphabet, path)
            other = seen.setdefault(sha256(path), path.name)
            if labels[other] != text:
                raise ValueError(f"{path}: says {text!r}, but the same picture {other} "
                                 f"says {labels[other]!r}")  # fmt: skip
        except ValueError as error:  # or UnreadablePicture, which is one
            bad.append(str(error))
        else:
            pictures.append(pixels)
            texts.append(text)
    if bad:
        count = "1 file" if len(bad) == 1 else f"{len(bad)} files"
        raise BadFiles("\n".join([f"{count} of {folder} can't be used:", *bad]))
    return pictures, texts


def picture_files(folder: str | Path) -> list[Path]:
    """Return the files that `read_folder` takes for pictures; BadFiles if there are none."""
    if not Path(folder).is_dir():
        raise BadFiles(f"{folder} is not a folder")
    files = [path for path in sorted(Path(folder).iterdir()) if not path.name.startswith(".")]
    files = [path for path in files if path.name.lower() not in LEFT_ALONE]
    if not files:
        raise BadFiles(f"{folder} holds no pictures")
    return files


def composed(text: str) -> str:
    """Return a text in which an accented letter is one character; macOS writes names with two."""
    return unicodedata.normalize("NFC", text)


def _from_names(names: list[str], pattern: str | None) -> dict[str, str]:
    """Return the texts that stand in names of files; of those that don't fit `pattern`, none."""
    if pattern is None:
        labels = {name: re.split(r"[_. ]|\(\d", composed(name))[0] for name in names}
        _check_names(labels)
    else:
        if pattern.count("{text}") != 1:
            raise BadFiles(f"PATTERN={pattern!r} has to contain {{text}} once, as in '*_{{text}}'")
        parts = re.escape(pattern).replace(r"\*", ".*?").replace(r"\{text\}", "([^-_. ]+)")
        stems = {name: re.sub(r" ?\(\d+\)$", "", Path(name).stem) for name in names}
        fits = {name: re.fullmatch(parts, stem) for name, stem in stems.items()}
        labels = {name: composed(fit[1]) for name, fit in fits.items() if fit}
    texts = sorted(set(labels.values()))
    cases = Counter(text.lower() for text in texts)
    if twins := [text for text in texts if cases[text.lower()] > 1]:
        warnings.warn(
            f"{_five(twins)} differ in upper and lower case alone: Windows and macOS take such "
            f"names for one file, so pictures may be lost; {TABLES[0]} is safer",
            stacklevel=3,
        )
    return labels


def _check_names(labels: dict[str, str]) -> None:
    """Raise BadFiles if nearly all names begin alike, or with numbers that only count the files.

    Those are running numbers, or different ones before something with letters.
    """
    nearly_all = max(4, 0.8 * len(labels))  # there may be strays
    ((start, alike),) = Counter(text[:3] for text in labels.values()).most_common(1)
    numbers = {int(text) for text in labels.values() if re.fullmatch("[0-9]+", text)}
    running = numbers and max(numbers) - min(numbers) < 1.1 * len(numbers)
    before = [name for name in labels if re.match(r"\d+[_. ].*[^\W\d_]", Path(name).stem)]
    if len(numbers) >= nearly_all and (running or len(before) >= nearly_all):
        what = "the names begin with running numbers"
    elif alike >= nearly_all:
        what = f"{alike} of {len(labels)} names begin with {start!r}"
    else:
        return
    raise BadFiles(
        f"{what}, which can hardly be the text: {_five(labels)}\nIf texts stand elsewhere in the "
        "names, say where, as in PATTERN='*_{text}', or PATTERN='{text}*' if they are in front "
        f"all the same; if not, write {TABLES[0]}, with lines `name,text`"
    )


def _five(names: Iterable[str]) -> str:
    """Write the first five of some names."""
    names = list(names)
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)


def _table(path: Path, names: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return what a table says about files, and what is wrong with it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        if path.suffix.lower() == ".txt":
            rows = [line.rsplit(maxsplit=1) for line in lines]
        else:
            delimiter = max(",;\t", key=lines[0].count) if lines else ","
            rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    except UnicodeDecodeError:
        raise BadFiles(f"{path} is not in UTF-8: in Excel, save it as `CSV UTF-8`") from None
    except (OSError, csv.Error) as error:
        raise BadFiles(f"{path}: {error}") from error
    rows = [(line, [cell.strip() for cell in row]) for line, row in enumerate(rows, 1)]
    rows = [(line, row) for line, row in rows if any(row) and row[0] != "sep="]  # Excel's
    place = {"file": 0, "text": 1}
    if rows and "." not in rows[0][1][0] and rows[0][1][0] not in names:  # so it is a header
        header = [cell.lower() for cell in rows.pop(0)[1]]
        if set(header) >= set(place):
            place = {column: header.index(column) for column in place}
    labels, bad, forms = {}, [], {composed(name): name for name in names}
    example = names[0] + (" 7KQ2" if path.suffix.lower() == ".txt" else ",7KQ2")
    for line, row in rows:
        name, text = (composed(row[i]) if i < len(row) else "" for i in place.values())
        if not name or not text:
            bad.append(f"{path}, line {line}: needs a file and a text, as in `{example}`")
        elif name not in forms:
            bad.append(f"{path}, line {line}: there is no file {name}")
        elif (above := labels.setdefault(forms[name], text)) != text:
            bad.append(f"{path}, line {line}: {name} is {text!r} here and {above!r} above")
    if not labels:
        raise BadFiles(f"{path}: no line has the name of a file here and then its text, as in "
                       f"`{example}`; the table begins with {lines[:2]}")  # fmt: skip
    return labels, bad


def _check(text: str, alphabet: str | None, path: Path) -> None:
    if not text:
        raise ValueError(f"{path}: the label has no characters")
    if alphabet is not None and (strange := sorted(set(text) - set(alphabet))):
        raise ValueError(
            f"{path}: {', '.join(map(repr, strange))} in the label {text!r} "
            f"is not in the alphabet {alphabet!r}"
        )


def alphabet_of(texts: Iterable[str]) -> str:
    """Return all characters of some texts, each once, in their order."""
    return "".join(sorted(set().union(*texts)))


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
    held_out = set(different[:count])
    test = np.array([text in held_out for text in texts])
    return np.flatnonzero(~test), np.flatnonzero(test)
