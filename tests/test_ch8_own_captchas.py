"""Lesson 8: another alphabet."""

import numpy as np

from captcha_reader.texts import ALPHABET
from notebooks_py.ch3_ctc import build_ctc
from notebooks_py.ch8_own_captchas import with_alphabet


def test_another_alphabet_keeps_the_weights_of_shared_characters():
    model = build_ctc(filters=(4, 8), convs=1, stride=4, norms="once")
    changed = with_alphabet(model, ALPHABET, "bA0")
    assert changed.output_shape == (None, None, 4) and changed.name == "ctc"
    *before, kernel, bias = model.get_weights()
    *after, new_kernel, new_bias = changed.get_weights()
    assert all(map(np.array_equal, before, after))
    shared = [0, 1 + ALPHABET.index("A"), 1]  # the blank, A and 0
    assert np.array_equal(new_kernel[:, [0, 2, 3]], kernel[:, shared])
    assert np.array_equal(new_bias[[0, 2, 3]], bias[shared])
    assert not any(np.array_equal(new_kernel[:, 1], column) for column in kernel.T)
