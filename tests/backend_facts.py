"""Print, as JSON, what the backend named by KERAS_BACKEND computes; run by test_backends.py.

It trains twice, on one and on two virtual CPU devices.
"""

import json
import os
import sys

if os.environ["KERAS_BACKEND"] == "jax":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.modules["tensorflow"] = None  # as on a machine without it: to import it is an error
else:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, logical)

import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from captcha_reader.practice import Practice  # noqa: E402
from captcha_reader.texts import ctc_labels  # noqa: E402
from captcha_reader.training import every_device  # noqa: E402
from notebooks_py import ch4_gpu_training as ch4  # noqa: E402
from notebooks_py.ch3_ctc import build_ctc  # noqa: E402

DEVICES = keras.distribution.list_devices()


def train(devices: list[str]) -> dict:
    """Train four steps, two an epoch, as tools/train.py does, from weights that no backend drew."""
    keras.distribution.list_devices = lambda: devices
    folder = Path(tempfile.mkdtemp())
    practice = Practice(1, batch=16, epoch=32, colors=2)  # 128 and 168 pixels wide
    pictures, texts = practice(0)
    rng = np.random.default_rng(1)
    with every_device():
        model = build_ctc(filters=(4, 8), convs=1, stride=4, momentum=0.5, norms="once")
        for weight in model.trainable_variables:
            if len(weight.shape) > 1:
                weight.assign(rng.normal(0, 0.1, weight.shape))
        ch4.compile_recipe(model, 4, fall=False)
    held_out = {"classic": [(pictures, ctc_labels(texts), texts)]}
    ch4.fit_recipe(model, ch4.PracticeSequence(practice), 4, held_out, folder)
    weight = model.trainable_variables[0].value
    in_jax = keras.backend.backend() == "jax"
    copies = weight.devices() if in_jax else getattr(weight, "values", [weight])
    losses = pd.read_csv(folder / "log.csv")[["loss", "val_loss"]].to_numpy().ravel().tolist()
    return {"devices": len(copies), "parameters": model.count_params(), "losses": losses}


print(json.dumps({"one": train(DEVICES[:1]), "two": train(DEVICES)}))
