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
from notebooks_py.ch2_cnn import build_cnn
from notebooks_py.ch3_ctc import build_ctc, decode_ctc

TINY = {"filters": (4, 8), "convs": 1, "stride": 4, "momentum": 0.9}


def three_steps(kind: str) -> list[float]:
    """Train three steps from weights that no backend drew; the losses before each, and after."""
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
    return [*map(float, losses), float(model.evaluate(X, y, verbose=0, return_dict=True)["loss"])]


texts = ["AAAA", "O0O0", "ZZ90", "K1VM", "0000"]
logits = np.random.default_rng(0).normal(0, 3, (5, 16, 37)).astype("float32")
loss = keras.ops.convert_to_numpy(keras.losses.ctc(encode(texts) + 1, logits))
facts = {
    "backend": keras.backend.backend(),
    "parameters": [
        build_cnn(ink=False).count_params(),
        build_ctc(rnn=(128, 128), ink=False).count_params(),
    ],
    "ctc_loss": loss.tolist(),
    "decoded": [decode_ctc(logits, strategy=strategy) for strategy in ("greedy", "beam_search")],
    "cnn": three_steps("cnn"),
    "ctc": three_steps("ctc"),
}
print(json.dumps(facts | {"has_tensorflow": sys.modules.get("tensorflow") is not None}))
