"""Lesson 3: CTC by hand, by the lattice and by Keras."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebooks_py import ch3_ctc as ch3


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(2, 3), st.integers(0, 10**6), st.data())
def test_by_hand_by_lattice_and_by_keras_are_the_same_loss(steps, classes, seed, data):
    """Also of nothing to read, and with blanks that fill a label up."""
    labels = st.lists(st.integers(1, classes - 1), max_size=steps)
    label = data.draw(labels.filter(lambda label: ch3.alignments(label, steps, classes)))
    logits = np.random.default_rng(seed).normal(0, 2, (steps, classes)).astype("float32")
    powers = np.exp(logits.astype("float64"))
    chances = powers / powers.sum(axis=-1, keepdims=True)
    by_hand = ch3.loss_by_hand(chances, label)
    by_keras = keras.losses.ctc(np.array([label + [0] * (7 - len(label))]), logits[None])
    assert float(by_keras[0]) == pytest.approx(by_hand, abs=1e-4)
    sums = ch3.lattice(chances, label)
    assert -math.log(sums[-2:, -1].sum()) == pytest.approx(by_hand, abs=1e-9)
