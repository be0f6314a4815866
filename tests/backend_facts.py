"""Print, as JSON, what the backend named by KERAS_BACKEND computes; run by test_backends.py."""

import json
import os
import sys

if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None  # as on a machine without it: to import it is an error

import keras
import numpy as np

from captcha_reader.drawing import draw_captchas
from captcha_reader.texts import encode
from notebooks_py import ch4_gpu_training as ch4
from notebooks_py.ch3_ctc import decode_ctc

TINY = {"filters": (4, 8), "convs": 1, "stride": 4, "momentum": 0.9}


def three_steps(kind: str) -> tuple[int, list[float]]:
    """Train three steps from weights that no backend drew; parameters, and losses on the way."""
    build, labels, *_ = ch4.KINDS[kind]
    model, rng = build(**TINY), np.random.default_rng(1)
    for weight in model.trainable_variables:
        if len(weight.shape) > 1:
            weight.assign(rng.normal(0, 0.1, weight.shape))
    ch4.compile_recipe(model, 3, peak=1e-3, fall=False)
    data = ch4.PracticeSequence(8, 3, seed=1, labels=labels, draw=draw_captchas)
    losses = [model.train_on_batch(*data[i], return_dict=True)["loss"] for i in range(3)]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    X, y = data[0]
    losses.append(model.evaluate(X, y, verbose=0, return_dict=True)["loss"])
    return model.count_params(), [float(loss) for loss in losses]


labels = encode(["AAAA", "CDCD", "DDAB", "ABCD"], "ABCD") + 1
logits = np.random.default_rng(0).normal(0, 2, (4, 8, 5)).astype("float32")
loss = keras.ops.convert_to_numpy(keras.losses.ctc(labels, logits))
facts = {
    "backend": keras.backend.backend(),
    "ctc_loss": loss.tolist(),
    "decoded": [decode_ctc(logits, "ABCD", way) for way in ("greedy", "beam_search")],
    "cnn": three_steps("cnn"),
    "ctc": three_steps("ctc"),
}
print(json.dumps(facts | {"has_tensorflow": sys.modules.get("tensorflow") is not None}))
