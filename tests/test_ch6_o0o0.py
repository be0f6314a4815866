"""Lesson 6: probabilities, the coin test, and the glyphs."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from notebooks_py import ch6_o0o0 as ch6
from notebooks_py.ch1_captcha_preview import ALPHABET, CaptchaSequence, encode, to_input
from notebooks_py.ch2_cnn import draw_test_set


class Oracle:
    """Stands in for a model: its logits say one text clearly, with a doubt at one place."""

    input_shape = (None, 64, 128, 3)

    def __init__(self, text: str, doubt: str = "", place: int = 0):
        self.logits = np.zeros((16, 37), np.float32)
        self.logits[:, 0] = 20  # blank between and around the characters
        for position, label in enumerate(encode([text])[0] + 1):
            column = 2 + 4 * position
            self.logits[column, label] = 40
            if doubt and position == place:
                self.logits[column, ALPHABET.index(doubt) + 1] = 40 - np.log(3)

    def predict_on_batch(self, X):
        return np.repeat(self.logits[None], len(X), axis=0)


PICTURES, _ = CaptchaSequence(3, 1, seed=1).draw(0)


def test_probabilities_follow_the_logits():
    chances = ch6.position_probabilities(Oracle("O0OP", doubt="0", place=2), PICTURES[0], "O0OP")
    assert chances.shape == (4, 36)
    assert chances.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert [ALPHABET[place] for place in chances.argmax(axis=1)] == list("O0OP")
    letter, digit = ALPHABET.index("O"), ALPHABET.index("0")
    assert chances[2, [letter, digit]] == pytest.approx([0.75, 0.25], abs=1e-4)
    assert chances[[0, 1, 3]].max(axis=1).min() > 0.999


def test_probabilities_need_a_fitting_text_and_picture():
    model = Oracle("O0OP")
    with pytest.raises(ValueError, match="'o'"):
        ch6.position_probabilities(model, PICTURES[0], "O0oP")
    with pytest.raises(ValueError, match="uint8"):
        ch6.position_probabilities(model, PICTURES[0] / 255, "O0OP")


def test_the_choice_is_among_the_options():
    assert ch6.choose(Oracle("O00O"), PICTURES) == ["O00O"] * 3
    assert ch6.choose(Oracle("O0OP"), PICTURES)[0][:3] == "O0O"
    assert ch6.choose(Oracle("A1I1", doubt="I", place=0), PICTURES, "1I") == ["I1I1"] * 3


def test_ink_is_measured_from_edge_to_edge():
    ink = np.zeros((5, 9), np.uint8)
    assert ch6.ink_width(ink) == 0
    ink[2, [3, 6]] = 255
    ink[0, 8] = 100  # too pale to count
    assert ch6.ink_width(ink) == 4


def test_zero_is_as_high_as_the_letter_and_narrower():
    drawn = {c: ch6.glyphs(c, 12, seed=3)["glyph"] for c in "O0"}
    size = {c: {(g.shape[0], ch6.ink_width(g)) for g in drawn[c]} for c in "O0"}
    assert {height for height, _ in size["O"]} == {height for height, _ in size["0"]}
    assert len(size["O"]) == len(size["0"]) == 3
    assert all(dict(size["0"])[height] < width for height, width in size["O"])


def test_overlay_colours_say_whose_ink_it_is():
    red, blue = np.zeros((1, 4), np.uint8), np.zeros((1, 4), np.uint8)
    red[0, :2], blue[0, 1:3] = 255, 255
    assert ch6.overlay(red, blue)[0].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 1, 1]]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_no_threshold_is_better_than_the_best(zeros, letters):
    zeros, letters = np.array(zeros), np.array(letters)
    threshold, share = ch6.best_threshold(zeros, letters)
    shares = [((zeros < t).mean() + (letters >= t).mean()) / 2 for t in range(0, 40)]
    assert share == pytest.approx(max(shares)) == pytest.approx(shares[threshold])


def test_the_answer_is_as_sure_as_the_text_is_likely():
    answers, sure = ch6.sure_reading(Oracle("O0OP", doubt="0", place=2), PICTURES)
    assert answers == ["O0OP"] * 3
    assert sure == pytest.approx([0.75] * 3, abs=1e-4)


class Heads(Oracle):
    """Four heads that always say one text, each with the same probability."""

    def __init__(self, text: str, sure: float):
        self.out = np.full((4, 36), (1 - sure) / 35)
        self.out[np.arange(4), encode([text])[0]] = sure

    def predict_on_batch(self, X):
        return [np.repeat(head[None], len(X), axis=0) for head in self.out]


def test_four_heads_are_as_sure_as_their_product():
    answers, sure = ch6.sure_reading(Heads("A1B2", 0.9), PICTURES)
    assert answers == ["A1B2"] * 3 and sure == pytest.approx([0.9**4] * 3)


@given(
    st.lists(
        st.tuples(*[st.sampled_from("AB")] * 3, *[st.sampled_from([0.2, 0.5, 0.9])] * 2),
        min_size=1,
        max_size=12,
    )
)
def test_readers_are_compared_captcha_by_captcha(cases):
    rows = [
        {"captcha": number, "reader": reader, "truth": character, "answer": answer, "sure": sure}
        for number, (truth, *answers, first, second) in enumerate(cases)
        for reader, read, sure in zip("xy", answers, (first, second), strict=True)
        for character, answer in zip(truth + "C", read + "C", strict=True)
    ]
    counts = ch6.agreement(pd.DataFrame(rows))
    wrong = [(x != truth, y != truth) for truth, x, y, *_ in cases]
    assert counts["only x"] == wrong.count((True, False))
    assert counts["only y"] == wrong.count((False, True))
    assert counts["same"] + counts["different"] == wrong.count((True, True))
    assert counts["same"] == sum(x == y != truth for truth, x, y, *_ in cases)
    surer = [(x if a >= b else y) != truth for truth, x, y, a, b in cases]
    assert counts["surer"] == sum(surer)


class Cheat(Oracle):
    """Reads classic-100k from its beginning, and calls every 0 an O."""

    def __init__(self):
        self.texts = iter(text for _, texts in draw_test_set("classic-1k") for text in texts)
        self.seen = []

    def predict_on_batch(self, X):
        self.seen.append(X)
        texts = [next(self.texts).replace("0", "O") for _ in X]
        return np.stack([Oracle(text).logits for text in texts])


def test_the_table_tells_what_was_drawn():
    cheat = Cheat()
    everything = ch6.examine({"cheat": cheat, "heads": Heads("O0OP", 0.9)}, 2)
    assert everything.reader.value_counts().to_dict() == {"cheat": 800, "heads": 800}
    other = everything[everything.reader == "heads"]
    assert set(other.groupby("captcha").answer.sum()) == {"O0OP"}
    assert other.sure.to_numpy() == pytest.approx(0.9**4)
    table = everything[everything.reader == "cheat"]
    for X, (pictures, texts) in zip(cheat.seen, draw_test_set("classic-1k"), strict=False):
        assert np.array_equal(X, to_input(pictures))
        assert set(texts) <= set(table.groupby("captcha").truth.sum())
    assert (len(table), table.captcha.nunique()) == (800, 200)
    assert table.position.tolist() == [1, 2, 3, 4] * 200
    assert set(table.font) == {42, 50, 56} and table.angle.abs().max() <= 30
    assert table.squeezed.min() == 1 and 1.2 < table.squeezed.max() < 3
    wrong = table.truth != table.answer
    assert set(table.truth[wrong]) == {"0"} and set(table.answer[wrong]) == {"O"}
    right, n = ch6.merged_score(table, "")
    assert (right, n) == (200 - table.captcha[wrong].nunique(), 200)
    assert ch6.merged_score(table, "0O") == ch6.merged_score(table, "0O1I") == (200, 200)
    counts = ch6.confusion(table.truth, table.answer)
    assert counts.shape == (36, 36) and counts.loc["0", "O"] == wrong.sum()
    assert counts.to_numpy().trace() == 800 - wrong.sum()


def test_error_rates_are_drawn_for_the_pair_and_the_others():
    table = pd.DataFrame({"truth": [*"0OA0OA"], "wrong": [True, False, False] * 2})
    axes = Figure().subplots()
    assert ch6.plot_error_rates(axes, table, pd.Series([1, 1, 1, 2, 2, 2]), "half") == 4
    pair, others = axes.containers
    assert pair.lines[0].get_ydata().tolist() == [50, 50]
    assert others.lines[0].get_ydata().tolist() == [0, 0]
    assert axes.get_xlabel() == "half"


def test_bins_of_probabilities_have_their_share_of_right_answers():
    sure, right = np.array([0.05, 0.15, 0.95, 1.0]), np.array([False, True, True, True])
    bins = ch6.reliability(sure, right, np.linspace(0, 1, 11))
    assert bins.n.tolist() == [1, 1, 2] and bins.right.tolist() == [0, 1, 1]
    assert bins.sure.tolist() == pytest.approx([0.05, 0.15, 0.975])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_risk_is_the_share_of_errors_among_the_surest(cases):
    sure, right = (np.array(column) for column in zip(*cases, strict=True))
    answered, risk = ch6.risk_coverage(sure, right)
    order = np.argsort(-sure, kind="stable")
    for count in range(1, len(cases) + 1):
        assert answered[count - 1] == pytest.approx(count / len(cases))
        assert risk[count - 1] == pytest.approx((~right[order[:count]]).mean())


@given(st.lists(st.floats(0, 1), max_size=6))
def test_how_many_readers_fail_together_is_the_sum_over_all_ways_to_fail(shares):
    expected = np.zeros(len(shares) + 1)
    for fails in itertools.product((0, 1), repeat=len(shares)):
        ways = zip(shares, fails, strict=True)
        expected[sum(fails)] += math.prod(share if fail else 1 - share for share, fail in ways)
    assert ch6.wrong_together(shares) == pytest.approx(expected, abs=1e-12)


def test_the_most_frequent_answer_wins_and_the_first_reader_in_a_tie():
    answers = [["AA", "B0", "C", "1"], ["AA", "BO", "", "I"], ["AB", "BO", "D", "1"]]
    assert ch6.vote(answers) == ["AA", "BO", "C", "1"]
    with pytest.raises(ValueError, match="shorter"):
        ch6.vote([["A", "B"], ["A"]])


def test_a_power_law_is_found_again_and_nonsense_refused():
    pictures = [100, 400, 1600]
    power, factor = ch6.power_law(pictures, [3 * x**-0.5 for x in pictures])
    assert (power, factor) == (pytest.approx(-0.5), pytest.approx(3))
    with pytest.raises(ValueError, match=r"pictures=\[100, 100\].*two different numbers"):
        ch6.power_law([100, 100], [0.1, 0.2])
    with pytest.raises(ValueError, match="above 0"):
        ch6.power_law([100, 200], [0.1, 0.0])
    with pytest.raises(ValueError, match=r"errors=\[0.1, 0.2\] do not fall"):
        ch6.power_law([100, 200], [0.1, 0.2])
