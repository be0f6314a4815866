"""Lesson 2: the network with four heads, ink, and reading."""

import keras
import numpy as np
import pytest
from keras import ops

from notebooks_py.ch2_cnn import build_cnn, read_heads, to_ink


def test_heads_follow_alphabet_and_length():
    other = build_cnn(10, 6, width=64, height=32, filters=(4, 8), convs=1, stride=4)
    assert (other.input_shape, other.output_shape) == ((None, 32, 64, 3), [(None, 10)] * 6)


def test_the_full_size_has_the_parameters_of_the_original():
    assert build_cnn(ink=False).count_params() == 2_653_360


def test_paper_is_0_and_black_is_1():
    picture = np.array([[[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0]]]], "float32")
    ink = ops.convert_to_numpy(to_ink(picture))
    assert ink.shape == (1, 1, 4, 1)
    assert ink.ravel() == pytest.approx([1, 0, 0.701, 0.413], abs=1e-6)


def test_a_reader_takes_bytes_and_answers_with_the_likeliest_characters():
    """Four heads say A of white paper and B of black."""
    picture = keras.Input((64, 128, 3))
    brightness = ops.mean(picture, axis=(1, 2, 3))[:, None]
    heads = [ops.concatenate([brightness, 1 - brightness], axis=1) for _ in range(4)]
    pictures = np.stack([np.full((64, 128, 3), value, np.uint8) for value in (0, 255)])
    assert read_heads(keras.Model(picture, heads), pictures, "AB") == ["BBBB", "AAAA"]
