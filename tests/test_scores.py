"""Counting right captchas, and how sure a count is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captcha_reader.scores import Score, difference, evaluate, share, wilson
from captcha_reader.testsets import FINGERPRINTS, TEST_SETS, draw_test_set


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_are_where_the_share_is_just_not_rejected(count):
    """Wilson's definition: |p - p0| = z * sqrt(p0 (1 - p0) / n) at both ends."""
    right, n = count
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1 and low < high
    for end in (low, high):
        radius = 1.959964 * (end * (1 - end) / n) ** 0.5
        assert abs(right / n - end) == pytest.approx(radius, abs=1e-9)


def test_published_intervals_and_impossible_counts():
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=5e-5)  # Brown and others, 2001
    assert wilson(10, 10) == pytest.approx((0.7225, 1), abs=5e-5)
    assert share(9_802, 10_000) == "98.02 % (97.73 to 98.28 %, n = 10,000)"
    for right, n in [(1, 0), (-1, 5), (6, 5)]:
        with pytest.raises(ValueError, match=f"{right} right out of {n}"):
            wilson(right, n)


@pytest.mark.parametrize(("counts", "expected"), [
    ((56, 70, 48, 80), "20.00 points more (5.24 to 33.39)"),
    ((48, 80, 56, 70), "20.00 points fewer (5.24 to 33.39)"),
    ((5, 56, 0, 29), "8.93 points more (-3.81 to 19.26)"),
    ((0, 20, 10, 10), "100.00 points fewer (67.91 to 100.00)"),
])  # fmt: skip
def test_published_intervals_of_a_difference(counts, expected):
    """Newcombe, 1998, table II, method 10."""
    assert difference(*counts) == expected


def test_a_record_is_all_that_a_results_file_needs():
    score = Score("classic-1k", 1_000, 970, (994, 986, 993, 997))
    assert score.record() == {
        "test_set": "classic-1k",
        "n": 1_000,
        "right": 970,
        "right_by_position": [994, 986, 993, 997],
        "interval": [0.9575, 0.97891],
        "fingerprint": FINGERPRINTS["classic-1k"],
    }
    assert str(score) == "classic-1k: 970 right, 97.00 % (95.75 to 97.89 %, n = 1,000)"


def test_only_whole_texts_are_right():
    (_, texts), *_ = draw_test_set("classic-100")
    a, b, _, d, *others = texts
    answers = ["?" + a[1:], b + "A", "", d[:3], *others]

    def read(pictures):
        assert (pictures.shape, pictures.dtype) == ((100, 64, 128, 3), np.uint8)
        return answers

    score = evaluate(read, "classic-100")
    assert (score.n, score.right, score.right_by_position) == (100, 96, (98, 99, 99, 98))


@pytest.mark.parametrize("name", ["sizes-1k", "nothing-1k"])
def test_pictures_of_any_size_and_texts_of_any_length_are_counted(name):
    """And the sets have their fingerprints."""
    truths = iter([texts for _, texts in draw_test_set(name)])
    texts = []

    def read(pictures):
        assert len(pictures) == 20  # of one size, in one array
        texts.extend(next(truths))
        return [text if len(text) < 6 else text + "A" for text in texts[-20:]]

    score = evaluate(read, name)
    longer = [sum(len(text) > place for text in texts) for place in range(TEST_SETS[name].length)]
    assert score.right == 1_000 - longer[5] and score.right_by_position == tuple(longer)
