"""make study, with tiny networks, banks and numbers of pictures; and what it measured."""

import contextlib
import functools
import json

import keras
import pandas as pd
import pytest
import tensorflow as tf

from captcha_reader import practice, weights
from captcha_reader.weights import measured
from notebooks_py import ch3_ctc as ch3
from notebooks_py import ch4_gpu_training as ch4
from tools import study

TINY = {"filters": (4, 4), "convs": 1, "stride": 4, "norms": "once"}
SMALL = {"colors": 2, "copies": 1}


class Count(keras.callbacks.Callback):
    """Note for each step of a training with how many bits it computes."""

    steps: list[str] = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self.model.layers[-2].compute_dtype)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return `make study` with all that takes long made small; it gives what it wrote."""
    monkeypatch.setattr(study, "VALID", 10)
    monkeypatch.setattr(study, "CURVE", 10)
    monkeypatch.setattr(study, "LABELS", (32, 64))
    monkeypatch.setattr(study, "RUNS", tmp_path)
    monkeypatch.setattr(study, "Ahead", contextlib.nullcontext)
    for bank in ("GlyphBank", "WhiteBank"):
        monkeypatch.setattr(study, bank, functools.partial(getattr(study, bank), **SMALL))
    bank = practice.GlyphBank(1, **SMALL)
    monkeypatch.setattr(practice, "fresh_bank", lambda seed, epoch, colors: bank)
    monkeypatch.setattr(study.runs, "code_hash", lambda: "this version")
    draw = study.draw_test_set
    monkeypatch.setattr(study, "draw_test_set", lambda name: draw("classic-100"))
    monkeypatch.setattr(weights, "finished", lambda _: (ch3.build_ctc(**TINY), {"sha256": "abc"}))
    monkeypatch.setattr(ch4, "SLIM", TINY)
    monkeypatch.setitem(study.RECIPE, "practice", {"batch": 16, "sizes": 0.0})
    fit = ch4.fit_recipe
    monkeypatch.setattr(ch4, "fit_recipe", lambda *x: fit(*x, callbacks=[Count()]))
    Count.steps.clear()

    def call(what, *words):
        out = tmp_path / ("stages.csv" if what == "stages" else f"{what}.json")
        words = ["study", f"--what={what}", f"--out={out}", "--seeds=3", "--pictures=64", *words]
        monkeypatch.setattr("sys.argv", words)
        assert study.main() == 0
        return pd.read_csv(out) if what == "stages" else json.loads(out.read_text())

    tf.config.run_functions_eagerly(True)  # a few steps are done before a graph is made
    yield call
    tf.config.run_functions_eagerly(False)
    keras.mixed_precision.set_dtype_policy("float32")


def test_bank_counts_all_three_painters_in_two_sizes(run, monkeypatch):
    shapes = set()
    monkeypatch.setattr(
        ch4, "read_pictures", lambda _, x: shapes.add(x.shape[1:3]) or ["0O0O"] * len(x)
    )
    results = run("bank")
    assert shapes == {(64, 128), (80, 170)} and list(results["pictures"]) == ["128x64", "170x80"]
    for painters in results["pictures"].values():
        assert list(painters) == list(study.PAINTERS)
        for counts in painters.values():
            assert counts["right"][1] == 64 and counts["O and 0 alone"][1] == 32
            assert counts["0 as O"][1] == counts["O as 0"][1] == 64 and counts["0 as O"][0] > 16
    assert results["speed"]["ratio"] > 1.5 and results["network"]["sha256"] == "abc"


def test_mistakes_are_counted_in_answers_of_four_and_compared_as_the_textbook_says():
    texts, answers = ["0O0O", "00OO", "0000", "O000"], ["OO00", "00OO", "OOO", "O00000"]
    assert study.mistaken(texts, answers, "0", "O") == [1, 4]
    assert study.mistaken(texts, answers, "O", "0") == [1, 4]
    assert study.apart(60, 100, 40, 100) == pytest.approx(0.2 / (0.5 * (2 / 100) ** 0.5))
    assert study.apart(5, 10, 50, 100) == study.apart(0, 10, 0, 10) == 0


def test_nothing_is_trained_twice_or_taken_for_another_training(run, monkeypatch, tmp_path):
    for name in study.VARIANTS.keys() - {"the recipe", "full precision"}:
        monkeypatch.delitem(study.VARIANTS, name)
    first = run("ablation")
    names = ["the recipe", "last weights", "full precision"]
    assert [row["name"] for row in first["rows"]] == names
    assert all(0 <= row["right"] <= row["n"] == 100 for row in first["rows"])
    assert Count.steps == ["bfloat16"] * 4 + ["float32"] * 4
    assert run("ablation") == first and len(Count.steps) == 8
    both = run("ablation", "--seeds=3,4")  # another seed
    assert both["rows"][:3] == first["rows"] and len(Count.steps) == 16
    assert [(row["name"], row["seed"]) for row in both["rows"][3:]] == [(x, 4) for x in names]
    (tmp_path / "ablation.json").unlink()  # stopped before it was written
    assert run("ablation") == first and len(Count.steps) == 16
    with pytest.raises(ValueError, match="ablation.json .*OUT="):
        run("ablation", "--pictures=80")
    monkeypatch.setattr(study.runs, "code_hash", lambda: "another version")
    with pytest.raises(ValueError, match="ablation.json .*OUT="):
        run("ablation")
    (tmp_path / "ablation.json").unlink()
    run("ablation")
    assert len(Count.steps) == 24 and measured("ablation", tmp_path)["rows"]


def test_heads_are_counted_with_their_parameters(run, monkeypatch):
    monkeypatch.setitem(study.HEADS["CTC with a GRU"], "network", {"rnn": (2,)})
    rows = run("heads")["rows"]
    assert [row["name"] for row in rows] == list(study.HEADS)
    assert len({row["parameters"] for row in rows}) == 3


def test_stages_sees_the_same_captchas_in_each_recipe(run, monkeypatch):
    monkeypatch.setattr(ch3, "small_ctc", lambda seed: ch3.build_ctc(**TINY))
    log = run("stages")
    two, one = (rows for _, rows in log.groupby("recipe", sort=False))
    assert two.pictures.tolist() == one.pictures.tolist() == [64, 128]
    assert two.rate.tolist() == [1e-3, 1e-4] and one.rate.iloc[0] > one.rate.iloc[-1] == 0
    assert log.val_loss.notna().all() and log.val_acc.between(0, 1).all()


def test_tuning_learns_another_style_three_ways(run):
    results = run("tuning")
    assert [list(counts) for counts in results["right"].values()] == [["32", "64"]] * 3
    assert results["right"]["from nothing"] == {"32": 0, "64": 0} and results["n"] == 10


@pytest.mark.parametrize("word", ["--what=lengths", "--pictures=10", "--seeds=1,4294967296"])
def test_what_cannot_be_is_refused_before_anything_is_written(run, tmp_path, capsys, word):
    with pytest.raises(SystemExit):
        run("heads", word)
    name, value = word.split("=")
    message = capsys.readouterr().err.splitlines()[-1]
    assert name in message and value.split(",")[-1] in message and not list(tmp_path.iterdir())


def test_the_bank_is_faithful_and_the_white_one_is_not():
    results = measured("bank")
    for size, painters in results["pictures"].items():
        package, faithful, white = painters.values()
        for what in ("right", "0 as O", "O as 0"):
            assert abs(study.apart(*faithful[what], *package[what])) < 2.58, size
        for what in ("0 as O", "O as 0"):
            assert abs(study.apart(*white[what], *package[what])) > 4, size
    assert results["speed"]["ratio"] > 3
