"""Print losses of a few steps on one and on two virtual CPU devices; run by lesson 4's tests."""

import json
import os
import sys

if os.environ["KERAS_BACKEND"] == "jax":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.modules["tensorflow"] = None  # as on a machine without it
else:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, logical)

import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import keras  # noqa: E402
import pandas as pd  # noqa: E402

from captcha_reader.drawing import draw_captchas  # noqa: E402
from notebooks_py import ch4_gpu_training as ch4  # noqa: E402

DEVICES = keras.distribution.list_devices()
TINY = {"filters": (4,), "convs": 1, "stride": 4, "momentum": 0.5}
MORE = {"labels": "one-hot", "epochs": 2, "draw": draw_captchas}
FOLDER = Path(tempfile.mkdtemp())


class Count(keras.callbacks.Callback):
    """Notes on how many devices each batch is computed."""

    counts: list[int] = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            distribution = keras.distribution.distribution()
            self.counts.append(distribution.device_mesh.devices.size if distribution else 1)
        else:
            self.counts.append(len(getattr(self.model.trainable_variables[0].value, "values", "1")))


def train(devices: list[str]) -> dict:
    """Train 2 epochs of 2 steps as tools/train.py does; the losses, and the held-out ones."""
    keras.distribution.list_devices = lambda: devices
    (folder := FOLDER / str(len(devices))).mkdir()
    X, y = ch4.PracticeSequence(32, 1, 1, split="valid", **MORE)[0]
    keras.utils.set_random_seed(1)
    with ch4.every_device():
        model = ch4.build_cnn(**TINY)
        ch4.compile_recipe(model, 4)
    average, count = ch4.Average(X, y, ["?"] * 32, folder / "averaged.keras"), Count()
    count.counts = []
    ch4.fit_recipe(model, ch4.PracticeSequence(32, 2, 1, **MORE), average, folder, [count])
    log = pd.read_csv(folder / "log.csv")
    return {"devices": count.counts, "losses": [*log.loss.tolist(), *log.val_loss.tolist()]}


print(json.dumps({"one": train(DEVICES[:1]), "two": train(DEVICES)}))
