"""Lesson 5: the first exercise. That other logs become curves, the lesson shows."""

import pandas as pd

from notebooks_py import ch5_loss_curves as ch5


def test_a_log_of_lesson_2_has_a_curve_for_each_head():
    heads = {"c1_accuracy": 0.9, "val_c1_accuracy": [0.0, 0.5], "val_c2_accuracy": [0.0, 0.25]}
    log = pd.DataFrame({"epoch": [0, 1], "loss": 4.0, "val_loss": 5.0, **heads})
    right = ch5.plot_log(log, "Mine").axes[2]
    assert [line.get_ydata().tolist() for line in right.lines] == [[0, 50], [0, 25]]
    assert right.lines[0].get_xdata().tolist() == [1, 2]
