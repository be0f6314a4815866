"""Print, as JSON, what the backend named by KERAS_BACKEND computes; run by test_backends.py."""

import json
import os
import sys

if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None  # as on a machine without it: to import it is an error

import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from notebooks_py.ch1_captcha_preview import CaptchaSequence, encode
from notebooks_py.ch2_cnn import build_cnn, compile_cnn, read_heads
from notebooks_py.ch3_ctc import (
    build_ctc,
    compile_ctc,
    ctc_loss,
    decode_ctc,
    loss_by_hand,
    read_ctc,
)

SMALL = {"filters": (4, 8, 8), "convs": 1, "momentum": 0.9}


def set_weights(model: keras.Model) -> keras.Model:
    """Give a model weights that do not depend on the backend's random numbers."""
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        if len(weight.shape) > 1:
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


def two_steps(model: keras.Model, compile_at, labels: str) -> list[float]:
    """Train two steps; the losses before, between and after them on the same pictures."""
    compile_at(model, 1e-3)
    X, y = CaptchaSequence(4, 1, seed=1, labels=labels)[0]
    losses = []
    for _ in range(2):
        losses.append(float(model.evaluate(X, y, verbose=0, return_dict=True)["loss"]))
        model.fit(X, y, batch_size=4, shuffle=False, verbose=0)
    return [*losses, float(model.evaluate(X, y, verbose=0, return_dict=True)["loss"])]


# The shapes are few, because JAX compiles for each of them; the values are hypothesis'.
LOGITS = st.lists(st.floats(-9, 9, width=32), min_size=24, max_size=24)


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(
    st.integers(1, 3).flatmap(lambda n: st.lists(st.integers(1, 3), min_size=n, max_size=n)), LOGITS
)
def loss_is_the_sum_over_all_alignments(label: list[int], values: list[float]) -> None:
    """Six steps, blank and three characters: `ctc_loss` gives the loss by hand to 1e-4."""
    logits = np.array(values, dtype="float32").reshape(6, 4)
    loss = float(keras.ops.convert_to_numpy(ctc_loss(np.array([label]), logits[None]))[0])
    expected = loss_by_hand(logits, label)
    assert abs(loss - expected) < 1e-4, (label, loss, expected)
    compared.append(label)


rng = np.random.default_rng(0)
logits = rng.normal(0, 3, (5, 16, 37)).astype("float32")
texts = ["AAAA", "O0O0", "ZZ90", "K1VM", "0000"]
cnn = set_weights(build_cnn(**SMALL))
ctc = set_weights(build_ctc(**SMALL, tall=1, rnn=(8,)))
pictures, _ = CaptchaSequence(4, 1, seed=2).draw(0)
facts = {
    "backend": keras.backend.backend(),
    "parameters": [build_cnn().count_params(), build_ctc().count_params()],
    "ctc_loss": keras.ops.convert_to_numpy(ctc_loss(encode(texts) + 1, logits)).tolist(),
    "decoded": {name: decode_ctc(logits, name) for name in ("greedy", "beam", "exact")},
    "cnn_losses": two_steps(cnn, compile_cnn, "one-hot"),
    "ctc_losses": two_steps(ctc, compile_ctc, "ctc"),
    "shapes": [len(read_heads(cnn, pictures)), len(read_ctc(ctc, pictures))],
}
compared = []
loss_is_the_sum_over_all_alignments()
facts["texts compared with brute force"] = len(compared)
facts["has_tensorflow"] = sys.modules.get("tensorflow") is not None
print(json.dumps(facts))
