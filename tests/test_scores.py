"""Counting right captchas, and how sure a count is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captcha_reader import scores
from captcha_reader.scores import difference, evaluate, share, wilson
from captcha_reader.testsets import FINGERPRINTS


@settings(deadline=None)  # a busy machine is no fault
@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_are_where_the_share_is_just_not_rejected(count):
    """Wilson's definition: |p - p0| = z * sqrt(p0 (1 - p0) / n) at both ends."""
    right, n = count
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1 and low < high
    for end in (low, high):
        radius = 1.959964 * (end * (1 - end) / n) ** 0.5
        assert abs(right / n - end) == pytest.approx(radius, abs=1e-9)


def test_an_impossible_count_is_refused():
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


def test_only_whole_texts_of_any_length_are_right_and_the_record_says_it_all(monkeypatch):
    batches = [(np.zeros((4, 64, 128, 3)), ["AB12", "AB12", "AB12", "AB12"]),
               (np.zeros((5, 50, 99, 3)), ["", "", "7", "ABCDEF", "ABCDEF"])]  # fmt: skip
    answers = iter([["AB12", "?B12", "AB1", "AB12A"], ["", "0", "7", "ABCDEF", "ABDEF"]])
    monkeypatch.setattr(scores, "draw_test_set", lambda name: iter(batches))
    score = evaluate(lambda pictures: next(answers), "sizes-1k")
    low, high = wilson(4, 9)
    assert score.record() == {
        "test_set": "sizes-1k",
        "n": 9,
        "right": 4,
        "right_by_position": [3 + 3, 4 + 2, 4 + 1, 3 + 1, 1, 1],
        "interval": [round(low, 5), round(high, 5)],
        "fingerprint": FINGERPRINTS["sizes-1k"],
    }
    wrong = [("AB12", "?B12"), ("AB12", "AB1"), ("AB12", "AB12A"), ("", "0"), ("ABCDEF", "ABDEF")]
    assert score.wrong == tuple(wrong)
    assert str(score) == f"sizes-1k: 4 right, {share(4, 9)}"
