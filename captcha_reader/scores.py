"""How many captchas are read entirely right, and how sure that number is."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from captcha_reader.testsets import FINGERPRINTS, TEST_SETS, draw_test_set


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the ends of Wilson's interval for `right` out of `n`, in [0, 1]; z=1.96 means 95 %.

    Formula: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927), in the form of Brown, Cai and DasGupta, Statistical Science 16 (2001), eq. (4).

    Raises:
        ValueError: unless n is at least 1 and `right` is between 0 and n.
    """
    if not (n >= 1 and 0 <= right <= n):
        raise ValueError(f"{right} right out of {n}: need n of at least 1, and 0 <= right <= n")
    p = right / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half))


def share(right: int, n: int) -> str:
    """Write a count with its 95 % interval: "96.31 % (95.92 to 96.66 %, n = 10,000)"."""
    low, high = wilson(right, n)
    return f"{100 * right / n:.2f} % ({100 * low:.2f} to {100 * high:.2f} %, n = {n:,})"


def difference(right: int, n: int, other_right: int, other_n: int) -> str:
    """Write by how many points two shares differ: "0.13 points more (-0.11 to 0.54)".

    The 95 % interval is Newcombe's, from the two Wilson intervals: Statistics in Medicine 17
    (1998), 873-890, method 10. If it contains 0, the difference may be chance.
    """
    word = "more"
    if right / n < other_right / other_n:
        right, n, other_right, other_n, word = other_right, other_n, right, n, "fewer"
    p, other = right / n, other_right / other_n
    (low, high), (other_low, other_high) = wilson(right, n), wilson(other_right, other_n)
    below = p - other - math.hypot(p - low, other_high - other)
    above = p - other + math.hypot(high - p, other - other_low)
    return f"{100 * (p - other):.2f} points {word} ({100 * below:.2f} to {100 * above:.2f})"


@dataclasses.dataclass(frozen=True)
class Score:
    """How many of `n` captchas of a test set were read right, entirely and at each position.

    `right_by_position` counts the characters at each place, from left to right. `wrong` has the
    text and the answer of each captcha that was read wrong.
    """

    test_set: str
    n: int
    right: int
    right_by_position: tuple[int, ...]
    wrong: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.test_set}: {self.right:,} right, {share(self.right, self.n)}"

    def record(self) -> dict:
        """Return the score as a results file holds it, with its interval and the fingerprint."""
        return {
            "test_set": self.test_set,
            "n": self.n,
            "right": self.right,
            "right_by_position": list(self.right_by_position),
            "interval": [round(end, 5) for end in wilson(self.right, self.n)],
            "fingerprint": FINGERPRINTS[self.test_set],
        }


def evaluate(read: Callable[[np.ndarray], list[str]], test_set: str) -> Score:
    """Count what `read` gets right on a test set, with a progress bar.

    `read` turns uint8 pictures (n, height, width, 3) of one size into n texts of any length; a
    captcha is right only if the whole text is.

    Raises:
        ValueError: no test set has this name.
        RuntimeError: at the end, if other packages than the pinned ones drew the captchas.
    """
    batches, n, wrong = draw_test_set(test_set), 0, []
    by_position = np.zeros(TEST_SETS[test_set].length, dtype=int)
    with tqdm(total=TEST_SETS[test_set].n, desc=test_set) as progress:
        for pictures, texts in batches:
            for text, answer in zip(texts, read(pictures), strict=True):
                for position, pair in enumerate(zip(text, answer, strict=False)):
                    by_position[position] += pair[0] == pair[1]
                if text != answer:
                    wrong.append((text, answer))
            n += len(texts)
            progress.update(len(texts))
            progress.set_postfix_str(f"{1 - len(wrong) / n:.2%}")
    return Score(test_set, n, n - len(wrong), tuple(by_position.tolist()), tuple(wrong))
