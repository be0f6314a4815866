"""Lesson 1: the batches that a name decides, and the ones that `fit` consumes."""

import random
import threading

import keras
import numpy as np
import pytest

from captcha_reader.drawing import draw_captchas, draw_wide
from captcha_reader.testsets import fingerprint
from captcha_reader.texts import decode, decode_heads
from notebooks_py.ch1_captcha_preview import CaptchaSequence, SetEpoch


def batch(index=0, epoch=0, **name) -> str:
    data = CaptchaSequence(4, 3, **{"seed": 5, **name})
    data.epoch = epoch
    X, y = data[index]
    return fingerprint(X, *y)


def test_names_decide_the_batch_and_nothing_else_does():
    different = [batch(), batch(1), batch(epoch=1), batch(seed=6), batch(split="valid")]
    assert len(set(different)) == 5
    state = random.getstate()
    random.seed(99)
    assert [batch(), batch(1)] == different[:2]
    random.setstate(state)


def test_batches_have_the_promised_form():
    data = CaptchaSequence(3, 2, seed=1)
    X, y = data[1]
    assert len(data) == 2
    assert (X.shape, X.dtype, len(y)) == ((3, 64, 128, 3), np.float32, 4)
    assert {(head.shape, head.dtype.name) for head in y} == {((3, 36), "float32")}
    assert 0 <= X.min() < X.max() <= 1
    same, labels = CaptchaSequence(3, 2, seed=1, labels="ctc")[1]
    assert np.array_equal(same, X)
    assert (labels.shape, labels.dtype) == ((3, 4), np.int32)
    assert decode(labels - 1) == decode_heads(y)


def test_pictures_show_the_labels():
    """The drawing got the very texts that the labels say, and its bytes are the pictures."""
    calls = []

    def draw(texts, rng):
        calls.append((texts, draw_captchas(texts, rng)))
        return calls[-1][1]

    X, y = CaptchaSequence(5, 1, seed=2, draw=draw)[0]
    ((texts, pictures),) = calls
    assert decode_heads(y) == texts
    assert np.array_equal(np.rint(X * 255), pictures)


def test_other_alphabets_lengths_and_sizes():
    data = CaptchaSequence(2, 1, seed=1, alphabet="ab", length=6, draw=draw_wide)
    X, y = data[0]
    assert X.shape == (2, 64, 192, 3) and [head.shape for head in y] == [(2, 2)] * 6
    assert set("".join(decode_heads(y, "ab"))) == {"a", "b"}


class Witness(keras.Model):
    """A network that notes the texts it is trained with."""

    def train_step(self, batch):
        self.seen.append(decode_heads([head.numpy() for head in batch[1]]))
        return {"loss": 0.0}


@pytest.mark.parametrize("workers", [1, 4])
def test_fit_consumes_the_named_batches_in_order(workers):
    """Three epochs, and two with initial_epoch=1, while another thread draws from `random`."""
    picture = keras.Input((64, 128, 3))
    model = Witness(picture, keras.layers.GlobalAveragePooling2D()(picture))
    model.seen = []
    model.compile("sgd", "mse", run_eagerly=True)
    data, stop = CaptchaSequence(2, 5, seed=8, workers=workers), threading.Event()
    disturber = threading.Thread(target=lambda: [random.random() for _ in iter(stop.is_set, True)])
    disturber.start()
    try:
        for first in (0, 1):
            more = {"callbacks": [SetEpoch(data)], "shuffle": False, "verbose": 0}
            model.fit(data, epochs=3, initial_epoch=first, **more)
    finally:
        stop.set()
        disturber.join()
    expected = []
    for epoch in (0, 1, 2, 1, 2):
        data.epoch = epoch
        expected += [decode_heads(data[index][1]) for index in range(5)]
    assert model.seen == expected
    assert len({str(texts) for texts in expected}) == 15  # each epoch had new captchas
