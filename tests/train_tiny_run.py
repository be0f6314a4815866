"""Train a tiny network by steps: FOLDER [slowly] [always]; run by test_ch4_gpu_training.py."""

import sys
import time
from pathlib import Path

import keras

from notebooks_py import ch4_gpu_training as ch4
from notebooks_py.ch1_captcha_preview import CaptchaSequence
from notebooks_py.ch2_cnn import build_cnn, save_model

folder, words = Path(sys.argv[1]), sys.argv[2:]
folder.mkdir(exist_ok=True)
keras.utils.set_random_seed(3)
model = build_cnn(64, 32, filters=(4, 8), convs=1, momentum=0.9)
source = CaptchaSequence(4, 24, 3, width=64, height=32)
if "slowly" in words:  # so that somebody has time to interrupt
    look_up = source.draw
    source.draw = lambda index: (time.sleep(0.1), look_up(index))[1]
ch4.compile_fast(model, 24)
run = ch4.Run(model, source, folder, 24, lines=4)
valid = CaptchaSequence(4, 1, 3, width=64, height=32, split="valid")
with ch4.stop_on_signals() as stop:
    done = ch4.train(run, valid[0], stop, every=0.0 if "always" in words else 60.0)
if done:
    save_model(model, folder / "final.keras")
print(f"{run.step} steps done")
