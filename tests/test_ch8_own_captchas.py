"""Lesson 8: any length, checks before a training, another style, fine-tuning."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import font_manager

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.texts import ALPHABET, WIDE_WIDTH, ctc_labels, random_texts
from captcha_reader.weights import finished
from notebooks_py import ch8_own_captchas as ch8
from notebooks_py.ch3_ctc import build_ctc, read_ctc

SERIF = font_manager.findfont("DejaVu Serif")
TINY = {"filters": (4, 4, 4, 8), "convs": 1, "stride": 2, "norms": "once"}


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return finished("ctc")[0]


def test_finished_weights_read_every_length(network):
    right = ch8.right_by_length(network, (3, 6), 20, seed=3)
    assert list(right) == [3, 6] and min(right.values()) >= 16


def test_a_task_that_can_be_learned_passes_and_others_are_named(network):
    ch8.check_task(network, WIDE_WIDTH, ALPHABET, 12, SERIF)
    for alphabet, length, message in (
        (ALPHABET, 13, "13 equal characters need 25 columns, not 24"),
        (ALPHABET + "ab", 6, "38 characters and a blank, but 37 classes"),
        (ALPHABET[2:] + "愛 ", 6, "the font DejaVu Serif has no 愛  "),
    ):
        with pytest.raises(ValueError, match=message):
            ch8.check_task(network, WIDE_WIDTH, alphabet, length, SERIF)


def learned(moved: bool, seed: int = 1) -> list[np.ndarray]:
    """Return the weights of a tiny network after two steps."""
    keras.utils.set_random_seed(1)
    tf.config.run_functions_eagerly(True)  # two steps are done before a graph is made
    rng, model = stream(1, "foreign", 0, 0), build_ctc(**TINY)
    texts = random_texts(rng, 32)
    X = draw_captchas(texts, rng).astype("float32") / 255
    ch8.fine_tune(model, X, ctc_labels(texts), 2, seed, moved)
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
    ch8.fine_tune(model, X, ctc_labels(texts), 80, seed=1)
    assert count() < 80  # the lesson takes three times as many steps
