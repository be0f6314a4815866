"""Lesson 3: CTC by hand and by Keras, the sequence model, decoding, and watching it learn."""

import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from captcha_reader.texts import encode
from notebooks_py import ch3_ctc as ch3


def numbers(seed: int, *shape: int) -> np.ndarray:
    """Logits that are far from equal."""
    return np.random.default_rng(seed).normal(0, 2, shape).astype("float32")


def chances(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype("float64"))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_collapse_merges_first_and_drops_blanks_then_and_a_blank_is_spelled_as_a_dash():
    assert ch3.collapse([]) == ch3.collapse([0, 0, 0]) == []
    assert ch3.collapse([0, 2, 2, 1, 0, 1, 1, 2]) == [2, 1, 1, 2]
    assert ch3.spell([0, 1, 11, 36]) == "-0AZ" and ch3.spell([2, 0, 1], "AB") == "B-A"


def test_alignments_of_known_words():
    assert ch3.alignments([1, 1, 1, 1], 7, 2) == [(1, 0, 1, 0, 1, 0, 1)]
    assert ch3.alignments([1, 1, 1, 1], 6, 2) == []
    # n different neighbours in T steps have binomial(T + n, 2 n) alignments
    for steps, n in itertools.product(range(1, 7), range(1, 4)):
        label = [1 + k % 2 for k in range(n)]
        assert len(ch3.alignments(label, steps, 3)) == math.comb(steps + n, 2 * n)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(2, 3), st.integers(0, 10**6), st.data())
def test_by_hand_by_lattice_and_by_keras_are_the_same_loss(steps, classes, seed, data):
    """Also of nothing to read; and Keras leaves alone the blanks that fill a label up."""
    labels = st.lists(st.integers(1, classes - 1), max_size=steps)
    label = data.draw(labels.filter(lambda label: ch3.alignments(label, steps, classes)))
    logits = numbers(seed, steps, classes)
    by_hand = ch3.loss_by_hand(chances(logits), label)
    by_keras = keras.losses.ctc(np.array([label + [0] * (7 - len(label))]), logits[None])
    assert float(by_keras[0]) == pytest.approx(by_hand, abs=1e-4)
    sums = ch3.lattice(chances(logits), label)
    assert sums.shape == (2 * len(label) + 1, steps)
    assert -math.log(sums[-2:, -1].sum()) == pytest.approx(by_hand, abs=1e-9)


def test_the_full_network_is_the_originals():
    full = ch3.build_ctc(rnn=(128, 128), ink=False, width=128)
    assert full.count_params() == 3_157_317
    assert (full.input_shape, full.output_shape) == ((None, 64, 128, 3), (None, 16, 37))
    pools = [x.pool_size for x in full.layers if isinstance(x, keras.layers.MaxPooling2D)]
    assert pools == [(2, 2)] * 3 + [(2, 1)] * 2
    for both in full.layers[-3:-1]:
        for gru in (both.forward_layer, both.backward_layer):  # what cuDNN asks for
            assert (gru.units, gru.activation.__name__) == (128, "tanh")
            assert gru.recurrent_activation.__name__ == "sigmoid" and gru.reset_after


@pytest.mark.parametrize("more", [ch3.SMALL, {"filters": (4, 8), "rnn": (4,), "ink": False}])
def test_a_network_of_free_width_answers_as_one_of_that_width(more):
    free = ch3.build_ctc(**more)
    assert free.input_shape == (None, 64, None, 3)
    rng = np.random.default_rng(1)
    free.set_weights([w + rng.uniform(0, 0.1, w.shape) for w in free.get_weights()])
    for width in (64, 168):
        fixed = ch3.build_ctc(**more, width=width)
        fixed.set_weights(free.get_weights())
        pictures = rng.random((2, 64, width, 3), "float32")
        logits = free.predict_on_batch(pictures)
        assert logits.shape[1] == fixed.output_shape[1]
        assert np.allclose(logits, fixed.predict_on_batch(pictures), atol=1e-5)


def test_steps_are_columns_from_left_to_right():
    """A change in one column of the picture moves the answers near that column alone."""
    keras.utils.set_random_seed(1)
    model = ch3.build_ctc(filters=(4, 8), convs=1, stride=4, tall=1)
    pictures = np.ones((2, 64, 128, 3), "float32")
    pictures[1, :, 80:88] = 0
    before, after = model.predict_on_batch(pictures)
    moved = np.flatnonzero(np.abs(before - after).max(axis=1) > 1e-6)
    assert before.shape == (16, 37)
    assert 10 in moved and moved.min() >= 8 and moved.max() <= 12


def test_greedy_is_the_collapsed_likeliest_path():
    logits = numbers(3, 50, 16, 37)
    expected = [ch3.spell(ch3.collapse(path)) for path in logits.argmax(axis=-1)]
    assert ch3.decode_ctc(logits) == expected
    assert ch3.decode_ctc(np.eye(3)[[[0, 0, 0, 0]]], "AB") == [""]


def test_beam_search_finds_the_most_likely_text():
    better = 0
    for seed in range(20):
        logits = numbers(seed, 1, 4, 4) / 2
        labels = {tuple(ch3.collapse(p)) for p in itertools.product(range(4), repeat=4)}
        best = min(labels, key=lambda label: ch3.loss_by_hand(chances(logits[0]), label))
        found = ch3.decode_ctc(logits, "ABC", "beam_search")
        assert found == [ch3.spell(best, "ABC")]
        better += found != ch3.decode_ctc(logits, "ABC")
    assert better  # greedy does not find all of them


def constant_reader(text: str) -> keras.Model:
    """A network that sees `text` in every picture."""
    picture = keras.Input((64, 128, 3))
    path = np.zeros(16, int)
    path[1 : 1 + 2 * len(text) : 2] = encode([text], length=len(text))[0] + 1
    zero = ops.sum(picture, axis=(1, 2, 3))[:, None, None] * 0
    return keras.Model(picture, zero + 9 * np.eye(37, dtype="float32")[path])


def test_only_whole_texts_count_in_val_acc():
    texts = ["K0OO", "K0OO", "K0O0", "K0OOO", "K0O"]
    pictures = np.zeros((5, 64, 128, 3), np.uint8)
    for answer, share in [("K0OO", 2 / 5), ("K0OOO", 1 / 5), ("AAAA", 0)]:
        callback, logs = ch3.Evaluate(pictures, texts), {}
        callback.set_model(constant_reader(answer))
        assert ch3.read_ctc(callback.model, pictures) == [answer] * 5
        callback.on_epoch_end(0, logs)
        assert logs == {"val_acc": share}


def test_columns_are_shown_with_their_answers():
    figure = ch3.show_columns(constant_reader("AB"), np.zeros((64, 128, 3), np.uint8), "AB")
    top, bottom = figure.axes
    assert top.get_title() == "AB, read AB"
    assert "".join(label.get_text() for label in top.get_xticklabels()) == "-A-B" + 12 * "-"
    chart = bottom.images[0].get_array()
    assert chart.shape == (37, 16) and chart[11, 1] > 0.9 and chart[0, 0] > 0.9
