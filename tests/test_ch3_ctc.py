"""Lesson 3: CTC by hand and by Keras, the sequence model, decoding, and what counts as right."""

import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from PIL import Image

from captcha_reader.outputs import animate_columns
from captcha_reader.texts import encode
from notebooks_py import ch3_ctc as ch3


def random_logits(seed: int, *shape: int) -> np.ndarray:
    """Return logits that are far from equal."""
    return np.random.default_rng(seed).normal(0, 2, shape).astype("float32")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype("float64"))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_collapse_merges_neighbours_and_drops_blanks_then():
    assert ch3.collapse([0, 2, 2, 1, 0, 1, 1, 2]) == [2, 1, 1, 2]
    assert ch3.spell([0, 1, 11, 36]) == "-0AZ"


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(2, 3), st.integers(0, 10**6), st.data())
def test_by_hand_by_lattice_and_by_keras_are_the_same_loss(steps, classes, seed, data):
    """Also of nothing to read, and with blanks that fill a label up."""
    labels = st.lists(st.integers(1, classes - 1), max_size=steps)
    label = data.draw(labels.filter(lambda label: ch3.alignments(label, steps, classes)))
    logits = random_logits(seed, steps, classes)
    by_hand = ch3.loss_by_hand(softmax(logits), label)
    by_keras = keras.losses.ctc(np.array([label + [0] * (7 - len(label))]), logits[None])
    assert float(by_keras[0]) == pytest.approx(by_hand, abs=1e-4)
    sums = ch3.lattice(softmax(logits), label)
    assert -math.log(sums[-2:, -1].sum()) == pytest.approx(by_hand, abs=1e-9)


def test_greedy_is_the_collapsed_likeliest_path():
    logits = random_logits(3, 50, 16, 37)
    expected = [ch3.spell(ch3.collapse(path)) for path in logits.argmax(axis=-1)]
    assert ch3.decode_ctc(logits) == expected


def test_beam_search_finds_the_most_likely_text():
    better = 0
    for seed in range(20):
        logits = random_logits(seed, 1, 4, 4) / 2
        labels = {tuple(ch3.collapse(path)) for path in itertools.product(range(4), repeat=4)}
        best = min(labels, key=lambda label: ch3.loss_by_hand(softmax(logits[0]), label))
        assert ch3.decode_ctc(logits, "ABC", "beam_search") == [ch3.spell(best, "ABC")]
        better += ch3.decode_ctc(logits, "ABC") != [ch3.spell(best, "ABC")]
    assert better  # greedy does not find all of them


def test_only_whole_texts_count_in_val_acc():
    texts = ["K0OO", "K0OO", "K0O0", "K0OOO", "K0O"]
    path = np.zeros(16, int)
    path[1:9:2] = encode(["K0OO"])[0] + 1
    picture = keras.Input((64, 128, 3))
    zero = ops.sum(picture, axis=(1, 2, 3))[:, None, None] * 0
    callback, logs = ch3.Evaluate(np.zeros((5, 64, 128, 3), np.uint8), texts), {}
    callback.set_model(keras.Model(picture, zero + 9 * np.eye(37, dtype="float32")[path]))
    callback.on_epoch_end(0, logs)
    assert logs == {"val_acc": 2 / 5}


def test_the_full_size_has_the_parameters_of_the_original():
    assert ch3.build_ctc(rnn=(128, 128), ink=False).count_params() == 3_157_317


def test_a_training_becomes_a_moving_picture(tmp_path):
    picture = np.full((64, 128, 3), 255, np.uint8)
    snapshots = ch3.Snapshots(picture, [1, 3])
    model = ch3.build_ctc(filters=(4, 4), convs=1, stride=4, tall=0)
    model.compile("sgd", keras.losses.CTC())
    X, y = np.zeros((6, 64, 128, 3), np.float32), np.ones((6, 1), np.int32)
    for _ in range(2):  # the second training goes on counting
        model.fit(X, y, batch_size=3, callbacks=[snapshots], verbose=0)
    assert list(snapshots.kept) == [1, 3]
    assert np.allclose([chances.sum(-1) for chances in snapshots.kept.values()], 1, atol=1e-5)
    frames = [(str(batch), "A", chances) for batch, chances in snapshots.kept.items()]
    animate_columns(picture, frames, "A", tmp_path / "imgs" / "a.gif")
    gif = Image.open(tmp_path / "imgs" / "a.gif")
    assert gif.n_frames == 2 and gif.info["loop"] == 0
