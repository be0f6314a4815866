"""Lesson 6: probabilities, the coin test, and the glyphs."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebooks_py import ch6_o0o0 as ch6
from notebooks_py.ch1_captcha_preview import ALPHABET, CaptchaSequence, encode
from notebooks_py.ch3_ctc import build_ctc


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


def test_a_beginner_is_built_and_trained(tmp_path):
    model = ch6.beginner(seed=1, steps=1, epochs=1, folder=tmp_path)
    assert model.output_shape == (None, 16, 37)
    assert (tmp_path / "log.csv").exists()


def test_the_finished_model_is_used_where_there_is_one(monkeypatch, tmp_path):
    monkeypatch.setattr(ch6.notebooks_py, "__file__", str(tmp_path / "notebooks_py" / "x.py"))
    assert ch6.finished_model() is None
    (tmp_path / "models").mkdir()
    small = build_ctc(filters=(4, 4, 4), convs=1, tall=0, rnn=())
    small.save(tmp_path / "models" / "ctc.keras")
    found = ch6.finished_model()
    assert isinstance(found, keras.Model)
    assert all(map(np.array_equal, found.get_weights(), small.get_weights()))


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
