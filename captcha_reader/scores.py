"""How many captchas are read entirely right, and how sure that number is."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from captcha_reader.testsets import BATCH, FINGERPRINTS, TEST_SETS, draw_test_set
from captcha_reader.texts import LENGTH


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval for `right` successes out of `n`; z=1.96 means 95 %.

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
    """Write a count as people should: "96.31 % (95.92 to 96.66 %, n = 10,000)"."""
    low, high = wilson(right, n)
    return f"{100 * right / n:.2f} % ({100 * low:.2f} to {100 * high:.2f} %, n = {n:,})"


@dataclasses.dataclass(frozen=True)
class Score:
    """How many of `n` captchas of a test set were read right, entirely and at each position."""

    test_set: str
    n: int
    right: int
    right_by_position: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.test_set}: {self.right:,} right, {share(self.right, self.n)}"

    def record(self) -> dict:
        """Return the score as a results file holds it, with its interval and the fingerprint."""
        return {
            **dataclasses.asdict(self),
            "right_by_position": list(self.right_by_position),
            "interval": [round(end, 5) for end in wilson(self.right, self.n)],
            "fingerprint": FINGERPRINTS[self.test_set],
        }


def evaluate(
    read: Callable[[np.ndarray], list[str]], test_set: str = "classic-1k", length: int = LENGTH
) -> Score:
    """Count what `read` gets right on a test set, with a progress bar.

    `read` turns uint8 pictures (n, height, width, 3) into n texts of any length; a captcha is right
    only if the whole text is. Raises ValueError for an unknown test set.
    """
    n, right, by_position = 0, 0, np.zeros(length, dtype=int)
    batches = tqdm(draw_test_set(test_set), total=TEST_SETS[test_set][0] // BATCH, desc=test_set)
    for pictures, texts in batches:
        for text, answer in zip(texts, read(pictures), strict=True):
            by_position += [a == b for a, b in zip(text, answer.ljust(length), strict=False)]
            right += text == answer
            n += 1
        batches.set_postfix_str(f"{right / n:.2%}")
    return Score(test_set, n, right, tuple(by_position.tolist()))
