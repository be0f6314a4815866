"""Lesson 1: the batches that a name decides, and the ones that `fit` consumes."""

import keras

from captcha_reader.texts import decode_heads
from notebooks_py.ch1_captcha_preview import CaptchaSequence, SetEpoch


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
    held_out = CaptchaSequence(2, 5, seed=8, split="valid")
    assert decode_heads(held_out[0][1]) != decode_heads(CaptchaSequence(2, 5, seed=8)[0][1])
