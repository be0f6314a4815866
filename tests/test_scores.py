"""Counting right captchas, and how sure a count is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captcha_reader.scores import Score, evaluate, share, wilson
from captcha_reader.testsets import FINGERPRINTS, draw_test_set

COUNTS = st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_an_interval_holds_its_share_and_mirrors(count):
    right, n = count
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    assert low < high
    assert wilson(n - right, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(COUNTS)
def test_the_ends_are_where_the_share_is_just_not_rejected(count):
    """Wilson's definition: |p - p0| = z * sqrt(p0 (1 - p0) / n) at both ends."""
    right, n = count
    for end in wilson(right, n):
        assert abs(right / n - end) == pytest.approx(
            1.959964 * (end * (1 - end) / n) ** 0.5, abs=1e-9
        )


def test_published_intervals():
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=5e-5)  # Brown and others, 2001
    assert wilson(10, 10) == pytest.approx((0.7225, 1), abs=5e-5)
    assert share(9_802, 10_000) == "98.02 % (97.73 to 98.28 %, n = 10,000)"


@pytest.mark.parametrize(("right", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(right, n):
    with pytest.raises(ValueError, match=f"{right} right out of {n}"):
        wilson(right, n)


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
    answers = list(texts)
    answers[0] = "?" + answers[0][1:]
    answers[1] = answers[1] + "A"
    answers[2] = ""
    answers[3] = answers[3][:3]

    def read(pictures):
        assert (pictures.shape, pictures.dtype) == ((100, 64, 128, 3), np.uint8)
        return answers

    score = evaluate(read, "classic-100")
    assert (score.n, score.right, score.right_by_position) == (100, 96, (98, 99, 99, 98))


def test_an_unknown_set_is_named():
    with pytest.raises(ValueError, match="no test set 'none'"):
        evaluate(lambda pictures: [], "none")
