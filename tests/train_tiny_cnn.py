"""Train a tiny network in two stages: FOLDER [resume] [slowly] [seed=N]; run by test_ch2_cnn.py."""

import sys
import time
from pathlib import Path

import keras

from notebooks_py.ch1_captcha_preview import CaptchaSequence
from notebooks_py.ch2_cnn import build_cnn, compile_cnn, save_model, train_in_stages

folder, words = Path(sys.argv[1]), sys.argv[2:]
seed = int(next((word[5:] for word in words if word.startswith("seed=")), 3))
keras.utils.set_random_seed(seed)
model = build_cnn(64, 32, filters=(4, 8), convs=1, momentum=0.9)
data = CaptchaSequence(4, 3, seed, width=64, height=32)
valid = CaptchaSequence(8, 1, seed, width=64, height=32, split="valid")
# The pause is in the middle of an epoch: whoever kills this process hits an unfinished one.
pause = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.3))
train_in_stages(
    model,
    compile_cnn,
    data,
    valid,
    folder,
    [(1e-3, 3), (1e-4, 2)],
    resume="resume" in words,
    callbacks=[pause] if "slowly" in words else [],
)
save_model(model, folder / "final.keras")
