"""Print losses of a few steps on virtual CPU devices: KIND DEVICES [apart]; run by the tests."""

import json
import os
import sys

kind, devices, apart = sys.argv[1], int(sys.argv[2]), "apart" in sys.argv
if os.environ["KERAS_BACKEND"] == "jax":
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    sys.modules["tensorflow"] = None  # as on a machine without it
else:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration() for _ in range(devices)]
    tf.config.set_logical_device_configuration(cpu, logical)

import keras  # noqa: E402
import numpy as np  # noqa: E402

from notebooks_py import ch4_gpu_training as ch4  # noqa: E402
from notebooks_py.ch1_captcha_preview import CaptchaSequence  # noqa: E402

SMALL = {"filters": (4, 8, 8), "convs": 1, "momentum": 0.9}
ch4.SIZES["slim"] = {"cnn": SMALL, "ctc": {**SMALL, "rnn": (8,)}}
STEPS = 4


class Centred(CaptchaSequence):
    """Captchas with mean 0: elsewhere E[x^2] - E[x]^2, as TensorFlow shares norms, rounds badly."""

    def __getitem__(self, index):
        X, y = super().__getitem__(index)
        return (X - X.mean()) / X.std(), y


data = Centred(32, STEPS, 1, labels=ch4.LABELS[kind])
keras.utils.set_random_seed(1)
start = ch4.build(kind, "slim").get_weights()
losses = []
with ch4.every_device() as used:
    ch4.check_shares(data.batch_size, used)
    model = ch4.new_network(kind, "slim", "float32", used, 1)
    if apart:  # what goes wrong when each device norms its own share
        ch4.share_norms(model, 1)
    model.set_weights(start)
    ch4.compile_fast(model, STEPS)
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(float(logs["loss"]) * (batch + 1))
    )
    model.fit(data, shuffle=False, verbose=0, callbacks=[note])
    copies = len(getattr(model.trainable_variables[0].value, "values", "1"))
    if os.environ["KERAS_BACKEND"] == "jax":
        copies = len(model.trainable_variables[0].value.sharding.device_set)
plain = ch4.build(kind, "slim")  # outside, on one device
plain.set_weights(model.get_weights())
X, y = data[0]
y = list(y) if kind == "cnn" else y
ch4.compile_fast(plain, 1)
after = ch4.held_out(plain, X, y)["val_loss"]
losses = np.diff([0, *losses]).tolist()
print(json.dumps({"used": used, "copies": copies, "losses": losses, "after": after}))
