"""Lesson 5: logs in, curves out; and a network that sees the same captchas again and again."""

import keras
import numpy as np
import pandas as pd
import pytest

from notebooks_py import ch5_loss_curves as ch5
from notebooks_py.ch3_ctc import build_ctc


def test_a_log_becomes_curves_of_loss_and_of_all_that_was_held_out():
    log = pd.DataFrame({"epoch": [0, 1], "loss": [4.0, 2.0], "val_loss": [5.0, 3.0]})
    log = log.assign(c1_accuracy=0.9, val_c1_accuracy=[0.0, 0.5], val_acc=[0.0, 0.25])
    loss, _, right, wrong = ch5.plot_log(log, "of lesson 2").axes
    curves = [[line.get_ydata().tolist() for line in axes.lines] for axes in (loss, right, wrong)]
    assert curves == [[[4, 2], [5, 3]], [[0, 50], [0, 25]], [[100, 50], [100, 75]]]
    assert right.get_legend_handles_labels()[1] == ["c1_accuracy", "acc"]
    right = ch5.plot_log(log.assign(pictures=[2_000, 4_000]), "of lesson 3").axes[2]
    assert right.lines[0].get_xdata().tolist() == [2, 4]
    assert right.get_xlabel() == "thousands of captchas"


@pytest.mark.parametrize(("fresh", "batches"), [(True, 32), (False, 16)])
def test_by_heart_is_the_same_captchas_in_each_epoch(monkeypatch, fresh, batches):
    def small_ctc(seed, rate):
        model = build_ctc(filters=(4, 4), convs=1, stride=4)
        model.compile(keras.optimizers.Adam(rate), keras.losses.CTC())
        return model

    def draw(texts, rng):
        drawn.add(tuple(texts))
        return np.zeros((len(texts), 64, 128, 3), np.uint8)

    monkeypatch.setattr(ch5, "small_ctc", small_ctc)
    drawn = set()
    assert len(ch5.learn(draw, seed=1, epochs=2, fresh=fresh)) == 2
    assert len([texts for texts in drawn if len(texts) == 32]) == batches
