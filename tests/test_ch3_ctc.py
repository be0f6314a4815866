"""Lesson 3: CTC by hand, by the lattice and by Keras."""

import math

import keras
import numpy as np
import pytest

from notebooks_py import ch3_ctc as ch3


@pytest.mark.parametrize("label", [[], [2], [1, 1], [2, 1, 2], [1, 1, 2]])
def test_by_hand_by_lattice_and_by_keras_are_the_same_loss(label):
    """Also of nothing to read, and with blanks that fill a label up."""
    logits = np.random.default_rng(1).normal(0, 2, (6, 3)).astype("float32")
    chances = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    by_hand = ch3.loss_by_hand(chances, label)
    by_keras = keras.losses.ctc(np.array([label + [0] * (7 - len(label))]), logits[None])
    assert float(by_keras[0]) == pytest.approx(by_hand, abs=1e-4)
    assert -math.log(ch3.lattice(chances, label)[-2:, -1].sum()) == pytest.approx(by_hand, abs=1e-5)
