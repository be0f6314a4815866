"""Every exercise has a solution, every solution runs, and gives what its lesson expects.

What takes minutes is run for some batches only: a test then checks what is true after these, and
its docstring says what is left open.
"""

import functools
import re
from collections.abc import Iterator

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from captcha_reader.bank import GlyphBank
from captcha_reader.outputs import ROOT
from notebooks_py import solutions
from notebooks_py.ch1_captcha_preview import CaptchaSequence
from notebooks_py.ch2_cnn import build_cnn
from tools import lessons

GUESSED = 4 * np.log(36)  # the loss of four guessed characters


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a bank have one glyph for each character, quick to make, and close figures in the end."""
    bank = functools.partial(GlyphBank, colors=1, copies=1)
    monkeypatch.setattr(solutions, "GlyphBank", bank)
    yield
    plt.close("all")


@pytest.fixture
def eager() -> Iterator[None]:
    """Train without a graph: a few steps are done before one is made."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def exercises(lesson: int, text: str) -> list[str]:
    """The exercises that a lesson's module lists, as their solutions' names begin: "ch1_1"."""
    section = text.partition("# ## On your own\n")[2].partition("\n# ## ")[0]
    return [f"ch{lesson}_{number}" for number in re.findall(r"^# (\d+)\. ", section, re.M)]


def test_every_exercise_has_a_solution_and_every_solution_a_test():
    modules = [(x.number, x.module.read_text("utf-8")) for x in lessons.find(ROOT)]
    listed = [exercise for module in modules for exercise in exercises(*module)]
    solved = [name for name in vars(solutions) if re.match(r"ch\d_\d_", name)]
    assert [name[:5] for name in solved] == listed and len(listed) == 3 * 8
    assert [name for name in solved if f"test_{name}" not in globals()] == []
    number, text = modules[2]  # a new one would be noticed
    more = text.replace("#\n# ## Further reading", "# 4. Build another.\n#\n# ## Further reading")
    assert exercises(number, more) == ["ch3_1", "ch3_2", "ch3_3", "ch3_4"]


def test_ch1_1_six_characters():
    four, six = solutions.ch1_1_six_characters(100).values()
    assert four > 128 and six / four == pytest.approx(1.5, abs=0.1)


def test_ch1_2_labels_of_digits():
    assert solutions.ch1_2_labels_of_digits(7) == [(7, 10)] * 4


def test_ch1_3_one_letter_ten_times():
    figure = solutions.ch1_3_one_letter_ten_times()
    shapes = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[10:]]
    assert len({shape.tobytes() for shape in shapes}) == 10
    sizes = [f"{shape.shape[1]}x{shape.shape[0]}" for shape in shapes]
    assert [axes.get_title() for axes in figure.axes[10:]] == sizes and len(set(sizes)) <= 3


def test_ch2_1_parameters_by_hand():
    by_hand = solutions.ch2_1_parameters_by_hand()
    assert by_hand == build_cnn(ink=False).count_params() == 2_653_360


def test_ch2_2_six_heads():
    assert solutions.ch2_2_six_heads() == (2 * 73_764, 73_764)


def test_ch2_3_harder_tasks(eager):
    """Two batches show that all three are trained; who is slower takes hundreds."""
    found = solutions.ch2_3_harder_tasks(steps=2, captchas=20)
    assert list(found) == ["digits", "A and B, too", "paper"]
    losses, right = zip(*found.values(), strict=True)
    assert min(losses) > 0.8 and max(right) <= 1  # blind guessing is 1
    assert len(set(losses)) == 3


def test_ch3_1_wider_pictures():
    assert solutions.ch3_1_wider_pictures() == (24, 12)


def test_ch3_2_paper_for_longer():
    """With one shape for each character and three times the rate, 32 batches instead of 2,000."""
    losses = solutions.ch3_2_paper_for_longer(steps=32, rate=3e-3)
    assert np.mean(losses[5:15]) > GUESSED  # the plateau
    assert np.mean(losses[28:]) < GUESSED - 1


def test_ch3_3_beam_search(eager):
    """The finished network gains next to nothing; one of two batches says nothing in either way."""
    right = solutions.ch3_3_beam_search(steps=2, captchas=100)
    assert right["own"] == {"greedy": 0, "beam_search": 0}
    assert right["finished"]["greedy"] > 90
    assert right["finished"]["beam_search"] - right["finished"]["greedy"] in (-1, 0, 1)


def test_ch4_1_stop_and_go_on(tmp_path):
    """How logs are counted. That the command goes on from every interruption: test_train.py."""
    for epochs, missing, twice in [([0, 1, 2], 0, 0), ([0, 1, 1, 2], 0, 1), ([0, 2], 1, 0)]:
        pd.DataFrame({"epoch": epochs, "loss": 1.0}).to_csv(tmp_path / "log.csv", index=False)
        found = solutions.ch4_1_stop_and_go_on(tmp_path)
        assert found == {"epochs": len(set(epochs)), "missing": missing, "twice": twice}


def test_ch4_2_a_long_cycle():
    (axes,) = solutions.ch4_2_a_long_cycle().axes
    ours, long = (line.get_ydata() for line in axes.lines)
    assert max(ours) == pytest.approx(0.02) and max(long) == pytest.approx(0.01)
    assert np.allclose(ours, 2 * long, atol=1e-6)


def test_ch4_3_practise_one_pair():
    assert 0.73 < solutions.ch4_3_practise_one_pair(2) < 0.79


def test_ch5_1_a_log_of_your_own(tmp_path, eager):
    model = build_cnn(10, filters=(4, 8), convs=1, stride=4)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"] * 4)
    data = CaptchaSequence(4, 1, 1, alphabet="0123456789")
    log = keras.callbacks.CSVLogger(tmp_path / "cnn.csv")
    model.fit(data, epochs=2, validation_data=data, callbacks=[log], shuffle=False, verbose=0)
    right = solutions.ch5_1_a_log_of_your_own(tmp_path / "cnn.csv").axes[2]
    names = [text.get_text() for text in right.get_legend().get_texts()]
    assert names == [f"c{place}_accuracy" for place in (1, 2, 3, 4)]
    assert {len(line.get_xdata()) for line in right.lines} == {2}


def test_ch5_2_more_captchas():
    right = solutions.ch5_2_more_captchas()
    assert len(right) == 15 and np.abs(right - 95).max() < 0.2
    assert np.abs(solutions.ch5_2_more_captchas(1_000) - 95).max() > 0.5


def test_ch5_3_cycle_over_stages():
    ratio = solutions.ch5_3_cycle_over_stages()
    ahead = ratio < 1
    assert ahead.sum() + (ratio > 1).sum() == len(ratio) and not ahead.iloc[0]
    assert ahead.is_monotonic_increasing  # they cross once
    assert (ratio.index[~ahead][-1], ratio.index[ahead][0]) == (8_192, 10_240)


def test_ch6_1_longer_whiskers():
    lengths = solutions.ch6_1_longer_whiskers((40, 8))
    assert list(lengths) == [40, 8] and 1.8 < lengths[8] / lengths[40] < 3


def test_ch6_2_all_sizes_at_once():
    found = solutions.ch6_2_all_sizes_at_once(500)
    (all_right, _), *sizes = found.values()
    right, ink = zip(*sizes, strict=True)
    assert 0.6 < all_right < np.mean(right) - 0.05
    assert ink == tuple(sorted(ink, reverse=True))  # 42, 50, 56 points


def test_ch6_3_thicker_one_and_i():
    found = solutions.ch6_3_thicker_one_and_i(40)
    for text in ("1111", "IIII"):
        assert found[text]["before"] >= 34 and found[text]["after"] >= 24
        assert found[text]["mixed up"] <= 8
    assert found["OOOO"]["after"] <= 8 and found["OOOO"]["mixed up"] >= 32


@pytest.fixture
def torch():
    """PyTorch, with one thread for its tiny networks; without it a test is left out."""
    return pytest.importorskip("torch", reason="lesson 7 needs PyTorch: make setup-torch")


def test_ch7_1_lstms_by_hand(torch):
    assert solutions.ch7_1_lstms_by_hand() == (1_052_672, 1_052_672)


def test_ch7_2_the_other_mean(torch):
    ours, own = solutions.ch7_2_the_other_mean()
    assert own == pytest.approx(ours / 4, rel=1e-5)


def test_ch7_3_without_zero_grad(torch):
    """No error, and another training from the third batch on; to leave the shelf takes hundreds."""
    with_it, without = solutions.ch7_3_without_zero_grad(steps=6).values()
    assert with_it[:2] == without[:2] and with_it[2:] != without[2:]
    assert np.isfinite(without).all() and without[-1] < without[0]


def test_ch8_1_seven_characters():
    assert solutions.ch8_1_seven_characters(30) > 20


def test_ch8_2_not_moved(eager):
    """Two batches show the lower loss; to read any of the unseen right takes hundreds."""
    moved, still = solutions.ch8_2_not_moved(steps=1, count=16, unseen=10).values()
    assert still[0] < moved[0] - 1
    assert still[1] == moved[1] == 0


def test_ch8_3_keep_the_old_style(eager):
    """Two batches forget and learn nothing yet; in test_ch8_own_captchas.py the old style goes."""
    found = solutions.ch8_3_keep_the_old_style(steps=1, count=16, old=16, unseen=20)
    assert list(found) == ["before", "the new style alone", "both"]
    assert all(old >= 15 and new <= 1 for old, new in found.values())
