"""Counting right captchas, and how sure a count is."""

import pytest

from captcha_reader import scores
from captcha_reader.scores import difference, evaluate, share, wilson


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 9), (98, 99), (10**6, 10**6)])
def test_the_ends_are_where_the_share_is_just_not_rejected(right, n):
    """Wilson's definition: |p - p0| = z * sqrt(p0 (1 - p0) / n) at both ends."""
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


def test_only_whole_texts_of_any_length_are_right(monkeypatch):
    """What `record` makes of a score is compared with models/ in test_weights.py."""
    texts = [["AB12", "AB12", "AB12", "AB12"], ["", "", "7", "ABCDEF", "ABCDEF"]]
    answers = [["AB12", "?B12", "AB1", "AB12A"], ["", "0", "7", "ABCDEF", "ABDEF"]]
    monkeypatch.setattr(scores, "draw_test_set", lambda name: zip(answers, texts, strict=True))
    score = evaluate(lambda pictures: pictures, "sizes-1k")
    assert (score.n, score.right) == (9, 4)
    assert score.right_by_position == (3 + 3, 4 + 2, 4 + 1, 3 + 1, 1, 1)
    wrong = [("AB12", "?B12"), ("AB12", "AB1"), ("AB12", "AB12A"), ("", "0"), ("ABCDEF", "ABDEF")]
    assert score.wrong == tuple(wrong)
    assert str(score) == f"sizes-1k: 4 right, {share(4, 9)}"
