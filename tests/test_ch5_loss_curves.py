"""Lesson 5: logs in, curves out."""

import pandas as pd

from notebooks_py.ch5_loss_curves import plot_log


def test_a_log_becomes_curves_of_loss_and_of_all_that_was_held_out():
    log = pd.DataFrame({"epoch": [0, 1], "loss": [4.0, 2.0], "val_loss": [5.0, 3.0]})
    log = log.assign(c1_accuracy=0.9, val_c1_accuracy=[0.0, 0.5], val_acc=[0.0, 0.25])
    loss, _, right, wrong = plot_log(log, "of lesson 2").axes
    curves = [[line.get_ydata().tolist() for line in axes.lines] for axes in (loss, right, wrong)]
    assert curves == [[[4, 2], [5, 3]], [[0, 50], [0, 25]], [[100, 50], [100, 75]]]
    assert right.get_legend_handles_labels()[1] == ["c1_accuracy", "acc"]
    right = plot_log(log.assign(pictures=[2_000, 4_000]), "of lesson 3").axes[2]
    assert right.lines[0].get_xdata().tolist() == [2, 4]
    assert right.get_xlabel() == "thousands of captchas"
