"""Print the fingerprint of each batch that `fit` trains on; run by test_ch1_captcha_preview.py."""

import multiprocessing
import random
import sys
import threading

import keras

from notebooks_py.ch1_captcha_preview import CaptchaSequence, SetEpoch, fingerprint

WORKERS = {
    "one-worker": {"workers": 1},
    "four-threads": {"workers": 4},
    "two-spawned-processes": {"workers": 2, "use_multiprocessing": True},
}


class Witness(keras.Model):
    """A network that prints what it is trained with."""

    def train_step(self, batch):
        print(fingerprint(batch[0].numpy()))
        return super().train_step(batch)


def main() -> None:
    """Train for three epochs, then for two from the second on, with a thread that uses `random`."""
    multiprocessing.set_start_method("spawn")
    inputs = keras.Input((64, 128, 3))
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    model = Witness(inputs, [keras.layers.Dense(36, "softmax")(features) for _ in range(4)])
    model.compile("sgd", loss="categorical_crossentropy", run_eagerly=True)
    data = CaptchaSequence(2, 5, seed=8, **WORKERS[sys.argv[1]])
    stop = threading.Event()
    noise = threading.Thread(
        target=lambda: [random.random() for _ in iter(lambda: stop.wait(0.001), True)]
    )
    noise.start()
    try:
        for first in (0, 1):
            model.fit(
                data,
                epochs=3,
                initial_epoch=first,
                callbacks=[SetEpoch(data)],
                shuffle=False,
                verbose=0,
            )
    finally:
        stop.set()
        noise.join()


if __name__ == "__main__":
    main()
