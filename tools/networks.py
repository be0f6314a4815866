"""The two kinds of Keras networks that commands train: how they are built, taught and read."""

import keras

from captcha_reader.texts import ctc_labels, decode_heads, encode, one_hot
from notebooks_py.ch2_cnn import build_cnn
from notebooks_py.ch3_ctc import build_ctc, decode_ctc
from notebooks_py.ch4_gpu_training import SLIM

NETWORKS = {  # slim and full, the original's, are options of `build`
    "cnn": {
        "build": build_cnn,
        "slim": SLIM,
        "full": {},
        "labels": lambda texts: one_hot(encode(texts)),
        "loss": "categorical_crossentropy",
        "decode": decode_heads,
    },
    "ctc": {
        "build": build_ctc,
        "slim": SLIM,
        "full": {"rnn": (128, 128)},
        "labels": ctc_labels,
        "loss": keras.losses.CTC(),
        "decode": decode_ctc,
    },
}
