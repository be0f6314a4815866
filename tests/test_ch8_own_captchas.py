"""Lesson 8: another alphabet, moved pictures, and fine-tuning."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from captcha_reader.drawing import stream
from captcha_reader.texts import ALPHABET
from notebooks_py.ch3_ctc import build_ctc
from notebooks_py.ch8_own_captchas import move, own_captchas, with_alphabet

TINY = {"filters": (4, 8), "convs": 1, "stride": 4, "norms": "once"}


def test_another_alphabet_keeps_the_weights_of_shared_characters():
    model = build_ctc(**TINY)
    changed = with_alphabet(model, ALPHABET, "bA0")
    assert changed.output_shape == (None, None, 4) and changed.name == "ctc"
    *before, kernel, bias = model.get_weights()
    *after, new_kernel, new_bias = changed.get_weights()
    assert all(map(np.array_equal, before, after))
    shared = [0, 1 + ALPHABET.index("A"), 1]  # the blank, A and 0
    assert np.array_equal(new_kernel[:, [0, 2, 3]], kernel[:, shared])
    assert np.array_equal(new_bias[[0, 2, 3]], bias[shared])
    assert not any(np.array_equal(new_kernel[:, 1], column) for column in kernel.T)


def test_a_picture_is_moved_a_little_and_not_at_all_without_far():
    page = Image.new("RGB", (160, 64), "navy")
    ImageDraw.Draw(page).rectangle((70, 22, 90, 42), "white")
    picture, rng = np.asarray(page), stream(1, "moves", 0, 0)
    assert np.array_equal(move(picture, rng, far=0), picture)
    for _ in range(20):
        moved = move(picture, rng)
        y, x = np.nonzero(moved[..., 0] > 128)
        assert abs(x.mean() - 80) < 20 and abs(y.mean() - 32) < 8
        assert 0.7 < len(x) / 441 < 1.4
        assert (moved[:5, :5] == [0, 0, 128]).all()  # paper comes into view


@pytest.mark.parametrize("count", [5, 70])
def test_own_captchas_come_equally_often_with_their_labels(count):
    pictures = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None],
                               (count, 64, 64, 3))  # fmt: skip
    texts = [f"{i:02}" for i in range(count)]
    data = own_captchas(pictures, texts, "0123456789", seed=1, far=0)
    batches = [data[index] for index in range(70)]  # of 32
    for X, y in batches:
        assert X.shape == (32, 64, 64, 3) and y.shape == (32, 2)
        assert np.array_equal((X[:, 0, 0, 0] * 255).round(), 10 * (y[:, 0] - 1) + y[:, 1] - 1)
    numbers = np.concatenate([X[:, 0, 0, 0] for X, _ in batches])
    assert np.ptp(np.unique(numbers, return_counts=True)[1]) == 0
    assert len({X.tobytes() for X, _ in batches}) == 70
    again = own_captchas(pictures, texts, "0123456789", seed=1, far=0)
    assert np.array_equal(again[3][0], batches[3][0])
