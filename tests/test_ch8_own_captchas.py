"""Lesson 8: any length, checks before a training, another style, fine-tuning."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import font_manager

from captcha_reader.drawing import draw_captchas, draw_wide, stream
from captcha_reader.texts import ALPHABET, BLANK, WIDE_WIDTH, encode, random_texts
from captcha_reader.weights import finished
from notebooks_py import ch8_own_captchas as ch8
from notebooks_py.ch3_ctc import build_ctc, read_ctc
from notebooks_py.ch4_gpu_training import SLIM

SERIF = font_manager.findfont("DejaVu Serif")
TINY = {"filters": (4, 4, 4, 8), "convs": 1, "stride": 2}


@pytest.fixture(scope="module")
def wide() -> keras.Model:
    model = build_ctc(width=WIDE_WIDTH, **SLIM)
    model.set_weights(finished("ctc")[0].get_weights())
    return model


def test_a_row_is_the_text_and_then_blanks_at_which_the_loss_does_not_look():
    labels = ch8.pad(["A0", "7XKM12"], 6)
    assert labels.dtype == np.int32
    assert labels.tolist() == [[11, 1, BLANK, BLANK, BLANK, BLANK], [8, 34, 21, 23, 2, 3]]
    logits = np.random.default_rng(1).normal(size=(1, 24, 37)).astype("float32")
    rows = ch8.pad(["A0A"], 3), ch8.pad(["A0A"], 6), ch8.pad(["A0"], 3)
    loss, padded, other = (float(keras.losses.CTC()(row, logits)) for row in rows)
    assert loss == pytest.approx(padded, rel=1e-5) and loss != pytest.approx(other, rel=1e-3)


def test_texts_have_all_lengths_and_labels_say_what_is_drawn():
    data = ch8.AnyLength(64, 2, 5, draw=draw_wide)
    (X, labels), rng = data[1], stream(5, "train", epoch=0, index=1)
    texts = data.texts(rng)
    assert {len(text) for text in texts} == {3, 4, 5, 6}
    assert (labels == ch8.pad(texts, 6)).all()
    assert np.array_equal(X, draw_wide(texts, rng).astype("float32") / 255)


def test_finished_weights_read_every_length(wide):
    right = ch8.right_by_length(wide, (3, 6), 20, seed=3)
    assert list(right) == [3, 6] and min(right.values()) >= 16


def test_a_task_that_can_be_learned_passes_and_others_are_named(wide):
    ch8.check_task(wide, ALPHABET, 12, SERIF)
    for alphabet, length, message in (
        (ALPHABET, 13, "13 equal characters need 25 columns, not 24"),
        (ALPHABET + "ab", 6, "38 characters and a blank, but 37 classes"),
        (ALPHABET[2:] + "愛 ", 6, "the font DejaVu Serif has no 愛  "),
    ):
        with pytest.raises(ValueError, match=message):
            ch8.check_task(wide, alphabet, length, SERIF)


def learned(moved: bool, seed: int = 1) -> list[np.ndarray]:
    """Return the weights of a tiny network after two steps."""
    keras.utils.set_random_seed(1)
    tf.config.run_functions_eagerly(True)  # two steps are done before a graph is made
    rng, model = stream(1, "foreign", 0, 0), build_ctc(**TINY)
    texts = random_texts(rng, 32)
    X = draw_captchas(texts, rng).astype("float32") / 255
    ch8.fine_tune(model, X, encode(texts) + 1, 2, seed, moved)
    tf.config.run_functions_eagerly(False)
    return model.get_weights()


def test_fine_tuning_changes_the_given_network_and_moves_pictures_by_its_seed():
    first, again, other, still = learned(True), learned(True), learned(True, 2), learned(False)
    assert all(np.isfinite(weights).all() for weights in first)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    assert any((a != b).any() for a, b in zip(first, still, strict=True))


def test_a_new_style_makes_it_forget_the_old_one():
    rng = stream(1, "foreign", epoch=0, index=0)
    texts = random_texts(rng, 100)
    X = ch8.draw_foreign(texts, rng, SERIF).astype("float32") / 255
    rng = stream(1, "old", epoch=0, index=0)
    old = random_texts(rng, 100)
    pictures, model = draw_captchas(old, rng), finished("ctc")[0]

    def count() -> int:
        answers = read_ctc(model, pictures)
        return sum(a == b for a, b in zip(answers, old, strict=True))

    assert count() > 95
    ch8.fine_tune(model, X, encode(texts) + 1, 80, seed=1)
    assert count() < 80  # the lesson takes three times as many steps
