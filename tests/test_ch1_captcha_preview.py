"""Lesson 1: the batches that a name decides, and the ones that `fit` consumes."""

import keras
import numpy as np

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.testsets import fingerprint
from captcha_reader.texts import decode, decode_heads, random_texts
from notebooks_py.ch1_captcha_preview import CaptchaSequence, SetEpoch


def batch(seed=5, split="train", epoch=0, index=0) -> str:
    """Return the fingerprint of a batch."""
    data = CaptchaSequence(4, 3, seed, split)
    data.epoch = epoch
    X, y = data[index]
    return fingerprint(X, *y)


def test_the_name_decides_the_batch():
    names = [{}, {"index": 1}, {"epoch": 1}, {"seed": 6}, {"split": "valid"}]
    batches = [batch(**name) for name in names]
    assert len(set(batches)) == 5
    assert [batch(**name) for name in names[::-1]] == batches[::-1]


def test_batches_have_the_promised_form_and_pictures_show_the_labels():
    (X, y), rng = CaptchaSequence(3, 2, seed=1)[1], stream(1, "train", epoch=0, index=1)
    assert decode_heads(y) == (texts := random_texts(rng, 3))
    assert np.array_equal(np.rint(X * 255), draw_captchas(texts, rng))
    assert (X.shape, X.dtype, len(y)) == ((3, 64, 128, 3), np.float32, 4) and X.max() <= 1
    assert {(head.shape, head.dtype.name) for head in y} == {((3, 36), "float32")}
    same, labels = CaptchaSequence(3, 2, seed=1, labels="ctc")[1]
    assert np.array_equal(same, X) and labels.dtype == np.int32
    assert decode(labels - 1) == texts


class Witness(keras.Model):
    """A network that notes the texts it is trained with."""

    def train_step(self, batch):
        self.seen.append(decode_heads([head.numpy() for head in batch[1]]))
        return {"loss": 0.0}


def test_fit_consumes_the_named_batches_in_order():
    picture = keras.Input((64, 128, 3))
    model = Witness(picture, keras.layers.GlobalAveragePooling2D()(picture))
    model.seen, expected = [], []
    model.compile("sgd", "mse", run_eagerly=True)
    data = CaptchaSequence(2, 5, seed=8, workers=4)
    options = {"callbacks": [SetEpoch(data)], "shuffle": False, "verbose": 0}
    model.fit(data, epochs=3, initial_epoch=1, **options)
    for data.epoch in (1, 2):
        expected += [decode_heads(data[index][1]) for index in range(5)]
    assert model.seen == expected
