"""Lesson 1: the batches that a name decides, and the ones that `fit` consumes."""

import random

import keras
import numpy as np
import pytest

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.testsets import fingerprint
from captcha_reader.texts import decode, decode_heads, random_texts
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


def test_batches_have_the_promised_form_and_pictures_show_the_labels():
    data = CaptchaSequence(3, 2, seed=1)
    (X, y), rng = data[1], stream(1, "train", epoch=0, index=1)
    assert decode_heads(y) == (texts := random_texts(rng, 3))
    assert np.array_equal(np.rint(X * 255), draw_captchas(texts, rng))
    assert len(data) == 2
    assert (X.shape, X.dtype, len(y)) == ((3, 64, 128, 3), np.float32, 4)
    assert {(head.shape, head.dtype.name) for head in y} == {((3, 36), "float32")}
    assert 0 <= X.min() < X.max() <= 1
    same, labels = CaptchaSequence(3, 2, seed=1, labels="ctc")[1]
    assert np.array_equal(same, X)
    assert (labels.shape, labels.dtype) == ((3, 4), np.int32)
    assert decode(labels - 1) == decode_heads(y)


class Witness(keras.Model):
    """A network that notes the texts it is trained with."""

    def train_step(self, batch):
        self.seen.append(decode_heads([head.numpy() for head in batch[1]]))
        return {"loss": 0.0}


@pytest.mark.parametrize("workers", [1, 4])
def test_fit_consumes_the_named_batches_in_order(workers):
    """Three epochs, and two with initial_epoch=1."""
    picture = keras.Input((64, 128, 3))
    model = Witness(picture, keras.layers.GlobalAveragePooling2D()(picture))
    model.seen = []
    model.compile("sgd", "mse", run_eagerly=True)
    data = CaptchaSequence(2, 5, seed=8, workers=workers)
    for first in (0, 1):
        more = {"callbacks": [SetEpoch(data)], "shuffle": False, "verbose": 0}
        model.fit(data, epochs=3, initial_epoch=first, **more)
    expected = []
    for epoch in (0, 1, 2, 1, 2):
        data.epoch = epoch
        expected += [decode_heads(data[index][1]) for index in range(5)]
    assert model.seen == expected
    assert len({str(texts) for texts in expected}) == 15  # each epoch had new captchas
