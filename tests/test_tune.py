"""make tune: from a folder to a network, with a tiny one and a few steps."""

import json
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from captcha_reader.practice import Labelled
from captcha_reader.reading import load_network
from captcha_reader.weights import describe, described, description
from notebooks_py import ch4_gpu_training as ch4
from notebooks_py import ch8_own_captchas as ch8
from tools import tune

pytest.importorskip("onnx", reason="`make tune` adds it")
TINY = {"filters": (4, 8), "convs": 1, "stride": 4, "norms": "once"}
TEXTS = ("ab", "ba", "a1", "1b", "aa", "b1", "111", "bab")


class Stop(keras.callbacks.Callback):
    """Stops in the second epoch, as Ctrl-C does."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 3:
            raise KeyboardInterrupt


@pytest.fixture
def folder(tmp_path):
    """Two pictures of each text, most of them 60x20."""
    (folder := tmp_path / "my captchas").mkdir()
    for i, text in enumerate(2 * TEXTS):
        Image.effect_noise((60 + 20 * (i > 12), 20), 50 + i).save(folder / f"{text}_{i}.png")
    return folder


@pytest.fixture
def call(folder, tmp_path, monkeypatch):
    """Return `make tune` on the folder with a tiny network and epochs of two steps."""
    monkeypatch.setattr(ch4, "SLIM", TINY)
    monkeypatch.setattr(ch8, "Labelled", partial(Labelled, steps=2))

    def run(name, callbacks=()):
        monkeypatch.setattr(ch8, "fit_recipe", partial(ch4.fit_recipe, callbacks=callbacks))
        words = [f"--folder={folder}", f"--out={tmp_path / name}", "--from=nothing"]
        monkeypatch.setattr(sys, "argv", ["tune", *words, "--budget=160"])  # five steps
        tune.main()
        return keras.models.load_model(tmp_path / name / "mine.keras")

    tf.config.run_functions_eagerly(True)  # a few steps are done before a graph is made
    yield run
    tf.config.run_functions_eagerly(False)


def test_a_folder_becomes_a_network_and_ctrl_c_changes_nothing(call, folder, tmp_path, capsys):
    whole = call("whole")
    printed = capsys.readouterr().out
    assert "16 pictures with 8 different texts" in printed and "1ab  (3)" in printed
    assert "60x20 (13), 80x20 (3); 192x64" in printed and "n = " in printed
    assert "next: make " in printed.splitlines()[-1]
    out = tmp_path / "whole"
    assert description(out / "mine.keras") == described("1ab", 192)
    assert load_network(out / "mine.onnx").width == 192  # it reads pictures as wide as it learned
    results = json.loads((out / "results.json").read_text())
    assert results["steps"] == 5 and results["n"] == 4 and (out / "wrong.png").exists()
    assert "my captchas' FROM=nothing" in results["command"] and not whole.compiled
    with pytest.raises(KeyboardInterrupt):
        call("stopped", callbacks=[Stop()])
    resumed = call("stopped")
    assert all(map(np.array_equal, whole.get_weights(), resumed.get_weights()))
    next(folder.iterdir()).unlink()
    with pytest.raises(ValueError, match="other pictures.*OUT="):
        call("whole")


def test_a_network_for_other_characters_keeps_the_weights_of_those_that_both_know(tmp_path):
    model = ch4.build_ctc(3, **TINY)
    model.save(path := tmp_path / "mine.keras")
    describe(path, "1ab")
    changed = tune.first_network(path, "1bcd", seed=1)  # FROM=
    assert changed.output_shape == (None, None, 5) and changed.name == "ctc"
    *blocks, kernel, _ = model.get_weights()
    *others, new_kernel, _ = changed.get_weights()
    assert all(map(np.array_equal, blocks, others))
    # Columns: the blank, 1, a and b; the blank, 1, b, c and d.
    assert np.array_equal(kernel[:, [0, 1, 3]], new_kernel[:, :3])
    assert not any(np.array_equal(new_kernel[:, 3], column) for column in kernel.T)


def test_what_is_wrong_is_named_before_anything_is_trained(folder, tmp_path, monkeypatch):
    assert tune.read_options(["--folder=~/x"]).folder == Path.home() / "x"
    ch4.build_ctc(**TINY, rnn=(4,)).save(source := tmp_path / "gru.keras")
    words = [f"--folder={folder}", f"--out={tmp_path / 'run'}", f"--from={source}"]
    monkeypatch.setattr(sys, "argv", ["tune", *words])

    def refused(message):
        with pytest.raises(ValueError, match=message):
            tune.main()

    refused(r"Bidirectional.* can't be written as ONNX")
    Image.new("L", (60, 20)).save(folder / f"{21 * 'a'}.png")
    refused("needs 41 columns")
    (folder / "notes.txt").write_text("from Tuesday")
    refused("notes.txt: this is no picture")
    assert not (tmp_path / "run").exists()


def test_pictures_get_the_usual_width_and_columns_for_each_text():
    widths = [np.zeros((64, width, 3), np.uint8) for width in (80, 128, 128, 200)]
    assert tune.common_width(widths, ["AB"] * 4) == 128
    assert tune.common_width(widths, ["AB"] * 3 + ["AABBCCDDEEFF"]) == 8 * 18


def test_what_went_wrong_is_counted(tmp_path, capsys):
    pictures = np.zeros((4, 64, 64, 3), np.uint8)
    tune.tell(tmp_path, pictures, ["O1", "OO", "^$2", "7"], ["01", "00", "$2", "7"])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("read right: 25.00 %") and "n = 4" in first
    assert second.endswith(": O read as 0 (3), another length (1)") and third.startswith("3 of")
