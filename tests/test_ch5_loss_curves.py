"""Lesson 5: logs in, curves out; and what it says about the logs that ship."""

import pandas as pd

from captcha_reader.weights import MODELS
from notebooks_py.ch5_loss_curves import plot_log

LOG = pd.DataFrame({"epoch": [0, 1, 2], "loss": [4.0, 2.0, 1.0], "val_loss": [5.0, 3.0, 2.0]})


def lines(axes):
    return [line.get_xydata().tolist() for line in axes.lines]


def test_a_log_of_epochs_has_four_panels():
    log = LOG.assign(c1_accuracy=0.9, val_c1_accuracy=[0.0, 0.5, 0.75], val_acc=[0.0, 0.25, 0.5])
    linear, logarithmic, right, wrong = plot_log(log, "of lesson 2").axes
    assert lines(linear) == lines(logarithmic)
    assert lines(linear) == [[[1, 4], [2, 2], [3, 1]], [[1, 5], [2, 3], [3, 2]]]
    assert lines(right) == [[[1, 0], [2, 50], [3, 75]], [[1, 0], [2, 25], [3, 50]]]
    assert lines(wrong)[1] == [[1, 100], [2, 75], [3, 50]]
    scales = [axes.get_yscale() for axes in (linear, logarithmic, right, wrong)]
    assert scales == ["linear", "log", "linear", "log"]
    assert right.get_xlabel() == "epoch"
    assert right.get_legend_handles_labels()[1] == ["c1_accuracy", "acc"]


def test_a_log_of_captchas_shows_every_kind_that_was_held_out():
    log = LOG.assign(pictures=[2_000, 4_000, 9_000], val_acc=0.5, val_sizes=0.25)
    *_, right, wrong = plot_log(log, "of lesson 3").axes
    assert lines(right) == [[[2, 50], [4, 50], [9, 50]], [[2, 25], [4, 25], [9, 25]]]
    assert right.get_xlabel() == "thousands of captchas"
    assert right.get_legend_handles_labels()[1] == ["acc", "sizes"]


def test_what_lesson_5_says_about_its_recipes():
    stages = pd.read_csv(MODELS / "stages.csv").set_index("recipe")
    two, one = stages.loc["two stages"], stages.loc["one cycle"]
    assert two.pictures.tolist() == one.pictures.tolist()
    assert sorted(set(two.rate)) == [1e-4, 1e-3] and one.rate.iloc[-1] == 0
    first = two[two.rate == 1e-3]
    best = first.val_loss.min()
    assert (first.val_loss.iloc[-3:] > best).all()  # three epochs without progress: a plateau
    assert two[two.rate == 1e-4].val_loss.iloc[0] < 0.9 * best  # and the end of it
    assert one.val_loss.iloc[-1] < two.val_loss.min()
    assert one.val_loss.iloc[-1] < 1.2 * one.loss.iloc[-1]
