"""The alphabet and the sizes; texts to labels and back."""

import random
import string
from collections.abc import Sequence

import numpy as np

ALPHABET = string.digits + string.ascii_uppercase
LENGTH = 4  # characters of a captcha
LONGEST = 6  # characters that the finished CTC network has learned to read
WIDTH, HEIGHT = 128, 64  # pixels, for networks
WIDE_WIDTH = 192  # pixels, for the PyTorch model
BLANK = 0  # CTC's class for "nothing new here", fixed by keras.losses.CTC


def longest_text(width: int, height: int) -> int:
    """Return how many characters fit: 6 in a captcha at least 2.6 times as wide as high, else 5."""
    return LONGEST if width >= 2.6 * height else LONGEST - 1


def random_texts(
    rng: random.Random, count: int, alphabet: str = ALPHABET, length: int = LENGTH
) -> list[str]:
    """Return `count` random texts of `length` characters, each character equally likely."""
    return ["".join(rng.choices(alphabet, k=length)) for _ in range(count)]


def texts_of_any_length(rng: random.Random, count: int, longest: int) -> list[str]:
    """Return `count` random texts of 1 to `longest` (5 or 6) characters; few have 1 or 2."""
    lengths = rng.choices(range(1, longest + 1), [1, 1, 5, 8, 5, 5][:longest], k=count)
    return ["".join(rng.choices(ALPHABET, k=length)) for length in lengths]


def check(texts: Sequence[str], alphabet: str) -> None:
    """Raise a ValueError if a text has a character that is not in the alphabet."""
    for text in texts:
        for character in text:
            if character not in alphabet:
                raise ValueError(
                    f"{character!r} in {text!r} is not in the alphabet {alphabet!r}: "
                    "write the text with these characters, or pass another alphabet="
                )


def encode(texts: Sequence[str], alphabet: str = ALPHABET, length: int = LENGTH) -> np.ndarray:
    """Turn n texts into places in the alphabet, int32 (n, length).

    Raises:
        ValueError: a text has another length, or a character that is not in the alphabet.
    """
    check(texts, alphabet)
    for text in texts:
        if len(text) != length:
            raise ValueError(
                f"the text {text!r} has {len(text)} characters, but labels here have {length}: "
                f"give {length} characters, or pass another length="
            )
    places = [[alphabet.index(character) for character in text] for text in texts]
    return np.array(places, dtype=np.int32).reshape(len(texts), length)


def ctc_labels(texts: Sequence[str], alphabet: str = ALPHABET, length: int = LONGEST) -> np.ndarray:
    """Turn n texts of 0 to `length` characters into labels for CTC, int32 (n, length).

    A character is its place in the alphabet plus one, since 0 is the blank. Rows are filled up with
    zeros, which Keras' CTC loss ignores. An empty text is a row of zeros.

    Raises:
        ValueError: a text is longer, or has a character that is not in the alphabet.
    """
    labels = np.full((len(texts), length), BLANK, np.int32)
    for row, text in zip(labels, texts, strict=True):
        if len(text) > length:
            raise ValueError(f"the text {text!r} has {len(text)} characters; at most {length} fit")
        row[: len(text)] = encode([text], alphabet, len(text))[0] + 1
    return labels


def decode(labels: np.ndarray, alphabet: str = ALPHABET) -> list[str]:
    """Turn places in the alphabet, (n, length), back into n texts.

    Raises:
        ValueError: a label is no place in the alphabet, such as the -1 of padding.
    """
    labels = np.asarray(labels)
    outside = labels[(labels < 0) | (labels >= len(alphabet))]
    if outside.size:
        raise ValueError(
            f"label {outside[0]} is outside 0..{len(alphabet) - 1}, the places in {alphabet!r}: "
            "decode needs characters only (take CTC's blank away first)"
        )
    return ["".join(alphabet[place] for place in row) for row in labels]


def one_hot(labels: np.ndarray, classes: int = len(ALPHABET)) -> tuple[np.ndarray, ...]:
    """Turn places (n, length) into `length` float32 arrays (n, classes) with a 1 in each row."""
    rows = np.eye(classes, dtype=np.float32)
    return tuple(rows[column] for column in np.asarray(labels).T)


def decode_heads(heads: Sequence[np.ndarray], alphabet: str = ALPHABET) -> list[str]:
    """Read n texts off one array (n, len(alphabet)) of scores or one-hot rows for each position."""
    return decode(np.stack([np.argmax(head, axis=-1) for head in heads], axis=-1), alphabet)
