"""Lesson 5: logs in, curves out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from notebooks_py import ch5_loss_curves as ch5

LOG = pd.DataFrame(
    {
        "epoch": [0, 1, 2, 3],
        "stage": [1, 1, 2, 2],
        "loss": [4.0, 3.0, 2.0, 1.0],
        "val_loss": [5.0, 3.5, 2.5, 1.5],
        "c1_accuracy": [0.1, 0.2, 0.3, 0.4],
        "val_c1_accuracy": [0.0, 0.1, 0.2, 0.3],
        "val_acc": [0.0, 0.0, 0.1, 0.2],
    }
)


def axes():
    return Figure().subplots()


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_curves_are_the_logs_numbers_and_the_stage_is_marked(scale):
    picture = axes()
    ch5.plot_losses(picture, LOG, scale)
    training, held_out, mark = picture.lines
    assert training.get_xydata().tolist() == [[1, 4], [2, 3], [3, 2], [4, 1]]
    assert held_out.get_ydata().tolist() == [5, 3.5, 2.5, 1.5]
    assert mark.get_xdata() == [2.5, 2.5]
    assert picture.get_yscale() == scale


def test_a_log_of_captchas_is_drawn_over_captchas():
    picture, log = axes(), LOG.assign(pictures=[2_000, 4_000, 6_000, 9_000])
    ch5.plot_losses(picture, log)
    assert picture.lines[0].get_xdata().tolist() == [2, 4, 6, 9]
    assert picture.lines[2].get_xdata() == [5, 5]
    assert picture.get_xlabel() == "thousands of captchas"
    ch5.plot_accuracies(picture, log)
    assert picture.lines[-1].get_xdata().tolist() == [2, 4, 6, 9]


def test_one_stage_has_no_mark():
    picture = axes()
    ch5.plot_losses(picture, LOG.head(2))
    assert len(picture.lines) == 2


def test_only_held_out_accuracies_are_drawn_in_percent():
    picture = axes()
    assert ch5.plot_accuracies(picture, LOG) == ["val_c1_accuracy", "val_acc"]
    assert picture.lines[0].get_ydata().tolist() == pytest.approx([0, 10, 20, 30])


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (LOG.head(0), "has no finished epoch"),
        (LOG.drop(columns=["val_loss", "stage"]), "lacks stage, val_loss"),
    ],
)
def test_logs_that_cannot_be_drawn_are_refused(log, words):
    with pytest.raises(ValueError, match=words):
        ch5.plot_losses(axes(), log)


def test_finished_logs_are_found_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(ch5, "MODELS", tmp_path / "models")
    assert ch5.finished_logs() == {}
    (tmp_path / "models").mkdir()
    LOG.to_csv(tmp_path / "models" / "ctc.csv", index=False)
    with (tmp_path / "models" / "ctc.csv").open("a") as file:
        file.write("4,2,0.")  # half a line
    logs = ch5.finished_logs()
    assert list(logs) == ["ctc"]
    pd.testing.assert_frame_equal(logs["ctc"], LOG)
    (tmp_path / "models" / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv is no log of these lessons"):
        ch5.finished_logs()


@given(st.lists(st.floats(0.01, 20), min_size=1, max_size=30), st.floats(1, 20))
def test_smoothing_is_the_weighted_mean_of_the_past(values, span):
    smoothed = ch5.smooth(pd.Series(values), span)
    for place in range(len(values)):
        weights = (1 - 2 / (span + 1)) ** np.arange(place, -1, -1)
        assert smoothed[place] == pytest.approx(np.average(values[: place + 1], weights=weights))


def test_a_span_below_one_is_refused():
    with pytest.raises(ValueError, match=r"span=0\.5"):
        ch5.smooth(pd.Series([1.0]), 0.5)


@given(st.lists(st.floats(0.01, 20), max_size=30), st.floats(1, 3))
def test_spikes_are_worse_than_the_best_before(losses, factor):
    expected = [
        place for place in range(1, len(losses)) if losses[place] > factor * min(losses[:place])
    ]
    assert ch5.find_spikes(pd.Series(losses, dtype=float), factor) == expected
