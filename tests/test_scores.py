"""Counting right captchas, and how sure a count is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captcha_reader.scores import difference, evaluate, share, wilson
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
    with pytest.raises(ValueError, match="6 right out of 5"):
        wilson(6, 5)


@pytest.mark.parametrize(("counts", "expected"), [
    ((56, 70, 48, 80), "20.00 points more (5.24 to 33.39)"),
    ((48, 80, 56, 70), "20.00 points fewer (5.24 to 33.39)"),
    ((5, 56, 0, 29), "8.93 points more (-3.81 to 19.26)"),
])  # fmt: skip
def test_published_intervals_of_a_difference(counts, expected):
    """Newcombe, 1998, table II, method 10."""
    assert difference(*counts) == expected


def test_only_whole_texts_are_right_and_the_record_says_it_all():
    (_, texts), *_ = draw_test_set("classic-100")
    a, b, _, d, *others = texts
    answers = ["?" + a[1:], b + "A", "", d[:3], *others]

    def read(pictures):
        assert (pictures.shape, pictures.dtype) == ((100, 64, 128, 3), np.uint8)
        return answers

    score = evaluate(read, "classic-100")
    low, high = wilson(96, 100)
    assert score.record() == {
        "test_set": "classic-100",
        "n": 100,
        "right": 96,
        "right_by_position": [98, 99, 99, 98],
        "interval": [round(low, 5), round(high, 5)],
        "fingerprint": FINGERPRINTS["classic-100"],
    }
    assert score.wrong == ((a, answers[0]), (b, answers[1]), (texts[2], ""), (d, answers[3]))
    assert str(score) == f"classic-100: 96 right, {share(96, 100)}"


@pytest.mark.parametrize("name", ["sizes-1k", "nothing-1k"])
def test_pictures_of_any_size_and_texts_of_any_length_are_counted(name):
    truths = iter([texts for _, texts in draw_test_set(name)])
    texts = []

    def read(pictures):
        texts.extend(next(truths))
        return [text if len(text) < 6 else text + "A" for text in texts[-len(pictures) :]]

    score = evaluate(read, name)
    longer = [sum(len(text) > place for text in texts) for place in range(TEST_SETS[name].length)]
    assert score.right == 1_000 - longer[5] and score.right_by_position == tuple(longer)
