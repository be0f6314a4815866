"""Lesson 2: the network with four heads, ink, and reading."""

import keras
import numpy as np
import pytest
from keras import ops

from notebooks_py.ch2_cnn import blocks, build_cnn, read_heads, to_ink


def test_the_full_network_is_the_originals_and_heads_follow_alphabet_and_length():
    full = build_cnn(ink=False)
    assert full.count_params() == 2_653_360
    assert (full.input_shape, full.output_shape) == ((None, 64, 128, 3), [(None, 36)] * 4)
    assert full.output_names == ["c1", "c2", "c3", "c4"]
    kinds = [type(layer).__name__ for layer in full.layers]
    block = ["Conv2D", "BatchNormalization", "Activation"] * 2 + ["MaxPooling2D"]
    assert kinds == ["InputLayer", *block * 5, "Flatten", *["Dense"] * 4]
    convs = [layer for layer in full.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [conv.filters for conv in convs] == [32, 32, 64, 64, 128, 128, 256, 256, 256, 256]
    other = build_cnn(10, 6, width=64, height=32, filters=(4, 8), convs=1, stride=4)
    assert (other.input_shape, other.output_shape) == ((None, 32, 64, 3), [(None, 10)] * 6)


def test_a_norm_once_a_block_stands_behind_the_pooling():
    picture = keras.Input((32, 64, 1))
    model = keras.Model(picture, blocks(picture, (4, 8), stride=2, momentum=0.9, norms="once"))
    conv, norm = ["Conv2D"], ["BatchNormalization", "Activation"]
    block = [*conv, "Activation", *conv, "MaxPooling2D", *norm]
    assert [type(layer).__name__ for layer in model.layers[1:]] == block * 2
    assert model.layers[5].momentum == 0.9 and model.output_shape == (None, 4, 8, 8)


def test_paper_is_0_and_black_is_1():
    picture = np.ones((1, 2, 2, 3), "float32")
    picture[0, 0, 0] = 0
    picture[0, 1] = [[1, 0, 0], [0, 1, 0]]
    ink = ops.convert_to_numpy(to_ink(picture))
    assert ink.shape == (1, 2, 2, 1)
    assert ink.ravel() == pytest.approx([1, 0, 0.701, 0.413], abs=1e-6)


def test_a_reader_takes_bytes_and_answers_with_the_likeliest_characters():
    """Four heads that say A of white paper and B of black."""
    picture = keras.Input((64, 128, 3))
    brightness = ops.mean(picture, axis=(1, 2, 3))[:, None]
    heads = [ops.concatenate([brightness, 1 - brightness], axis=1) for _ in range(4)]
    pictures = np.stack([np.zeros((64, 128, 3), np.uint8), np.full((64, 128, 3), 255, np.uint8)])
    assert read_heads(keras.Model(picture, heads), pictures, "AB") == ["BBBB", "AAAA"]
