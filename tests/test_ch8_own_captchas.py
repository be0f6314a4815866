"""Lesson 8: checks before a training, and fine-tuning."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import font_manager

from captcha_reader.texts import ALPHABET, WIDE_WIDTH, ctc_labels
from notebooks_py.ch3_ctc import SMALL, build_ctc
from notebooks_py.ch8_own_captchas import check_task, fine_tune

SERIF = font_manager.findfont("DejaVu Serif")


@pytest.mark.parametrize(
    ("alphabet", "length", "message"),
    [
        (ALPHABET, 13, "25 columns, not 24"),
        (ALPHABET + "ab", 6, "38 characters and a blank, but 37 classes"),
        (ALPHABET[2:] + "愛 ", 6, "DejaVu Serif has no 愛  "),
    ],
)
def test_a_task_that_cannot_be_learned_is_named(alphabet, length, message):
    network = build_ctc(**SMALL)
    check_task(network, WIDE_WIDTH, ALPHABET, 12, SERIF)
    with pytest.raises(ValueError, match=message):
        check_task(network, WIDE_WIDTH, alphabet, length, SERIF)


def test_fine_tuning_changes_the_given_network_and_moves_pictures_by_its_seed():
    pictures = np.random.default_rng(1).random((32, 64, 128, 3), "float32")

    def tuned(seed: int, moved: bool) -> bytes:
        """Return the weights of a tiny network after two steps."""
        keras.utils.set_random_seed(1)
        model = build_ctc(filters=(4, 8), convs=1, stride=4, norms="once")
        fine_tune(model, pictures, ctc_labels(["A0"] * 32), 2, seed, moved)
        return b"".join(weights.tobytes() for weights in model.get_weights())

    tf.config.run_functions_eagerly(True)  # two steps are done before a graph is made
    first, again, other, still = tuned(1, True), tuned(1, True), tuned(2, True), tuned(1, False)
    tf.config.run_functions_eagerly(False)
    assert first == again and len({first, other, still}) == 3
