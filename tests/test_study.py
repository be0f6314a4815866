"""make study, with tiny networks, banks and numbers of pictures; and what it measured."""

import contextlib
import functools
import json

import keras
import pandas as pd
import pytest
import tensorflow as tf
import train_tiny
from PIL import Image

from captcha_reader import practice, scores, weights
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
    for name, value in {"VALID": 10, "LABELS": (32, 64), "RUNS": tmp_path}.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "Ahead", contextlib.nullcontext)
    for bank in ("GlyphBank", "WhiteBank"):
        monkeypatch.setattr(study, bank, functools.partial(getattr(study, bank), **SMALL))
    monkeypatch.setattr(practice, "fresh_bank", train_tiny.few_glyphs)
    monkeypatch.setattr(study.runs, "code_hash", lambda: "this version")
    monkeypatch.setattr(study, "evaluate", lambda read, _: scores.evaluate(read, "classic-100"))
    monkeypatch.setattr(weights, "finished", lambda _: (ch3.build_ctc(**TINY), {"sha256": "abc"}))
    monkeypatch.setattr(ch4, "SLIM", TINY)
    monkeypatch.setitem(study.RECIPE, "practice", {"batch": 32, "sizes": 0.0})
    fit = ch4.fit_recipe
    monkeypatch.setattr(ch4, "fit_recipe", lambda *x, **y: fit(*x, callbacks=[Count()], **y))
    Count.steps.clear()

    def call(what, *words):
        out = tmp_path / f"{what}.json"
        words = ["study", f"--what={what}", f"--out={out}", "--seed=3", "--pictures=64", *words]
        monkeypatch.setattr("sys.argv", words)
        assert study.main() == 0
        return json.loads(out.read_text())

    tf.config.run_functions_eagerly(True)  # a few steps are done before a graph is made
    yield call
    tf.config.run_functions_eagerly(False)
    keras.mixed_precision.set_dtype_policy("float32")


def test_bank_counts_all_three_painters_in_two_sizes(run, monkeypatch):
    monkeypatch.setattr(ch4, "read_pictures", lambda _, x: ["0O0O"] * len(x))
    results = run("bank")
    assert list(results["pictures"]) == ["128x64", "170x80"]
    for painters in results["pictures"].values():
        assert list(painters) == list(study.PAINTERS)
        for counts in painters.values():
            assert counts["right"][1] == 64 and counts["O and 0 alone"][1] == 32
            assert counts["0 as O"][0] > 16 and counts["0 as O"][1] + counts["O as 0"][1] == 4 * 32
    assert results["speed"]["ratio"] > 1.5 and results["network"]["sha256"] == "abc"


def test_mistakes_are_counted_in_answers_of_four():
    texts, answers = ["0O0O", "00OO", "0000", "O000"], ["OO00", "00OO", "OOO", "O00000"]
    assert study.mistaken(texts, answers, "0", "O") == [1, 4]
    assert study.mistaken(texts, answers, "O", "0") == [1, 4]


def test_nothing_is_trained_twice_or_taken_for_another_training(run, monkeypatch, tmp_path):
    for name in study.VARIANTS.keys() - {"the recipe", "full precision"}:
        monkeypatch.delitem(study.VARIANTS, name)
    first = run("ablation")
    rows = pd.DataFrame(first["rows"])
    assert rows.name.tolist() == 2 * ["the recipe", "last weights", "full precision"]
    assert rows.seed.tolist() == [3] * 3 + [4] * 3 and (rows.n == 100).all()
    assert Count.steps == 2 * (["bfloat16"] * 2 + ["float32"] * 2)
    assert len(first["recipe"].split(", ")) > 5  # as lesson 4 shows it
    assert run("ablation") == first and len(Count.steps) == 8
    for read in tmp_path.glob("*/judge-20k.json"):  # stopped before it was written
        read.unlink()
    assert run("ablation") == first and len(Count.steps) == 8
    monkeypatch.delitem(study.VARIANTS, "the recipe")
    run("ablation", "--pictures=96")
    assert len(Count.steps) == 8 + 6
    monkeypatch.setattr(study.runs, "code_hash", lambda: "another version")
    run("ablation")
    assert len(Count.steps) == 8 + 6 + 4


def test_heads_are_counted_with_their_parameters(run, monkeypatch):
    monkeypatch.setitem(study.HEADS["CTC with a GRU"], "network", {"rnn": (2,)})
    rows = pd.DataFrame(run("heads")["rows"])
    assert rows.name.tolist() == 2 * list(study.HEADS) and rows.parameters.nunique() == 3


def test_tuning_learns_each_style_from_few_and_from_many_labels(run, monkeypatch, tmp_path):
    (svg := tmp_path / "svg").mkdir()
    for i in range(80):
        Image.new("L", (150, 50), i).save(svg / f"aB{i % 9}_{i}.png")
    monkeypatch.setattr(study, "SVG", svg)
    for name in ("finished weights", "from nothing"):  # moved pictures take no other way
        monkeypatch.delitem(study.TUNING, name)
    rows = pd.DataFrame(run("tuning")["rows"])
    assert rows.groupby(["style", "name", "labels"]).size().tolist() == [1] * 3 * 2 * 2
    assert (rows.n == 10).all() and rows.right.between(0, 10).all()
    assert rows.steps[rows.labels == 32].unique().tolist() == [2]
    assert rows.steps[rows.labels == 64].unique().tolist() == [3]


@pytest.mark.parametrize("word", ["--what=lengths", "--pictures=10", "--seed=4294967296"])
def test_what_cannot_be_is_refused_before_anything_is_written(run, tmp_path, capsys, word):
    with pytest.raises(SystemExit):
        run("heads", word)
    name, value = word.split("=")
    message = capsys.readouterr().err.splitlines()[-1]
    assert name in message and value in message and not list(tmp_path.iterdir())


def test_the_bank_is_faithful_and_the_white_one_is_not():
    def apart(k: int, n: int, other_k: int, other_n: int) -> float:
        """Return z of the two-proportion test; beyond 2.58 in one of 100 pairs of equal shares."""
        pooled = (k + other_k) / (n + other_n)
        return (k / n - other_k / other_n) / (pooled * (1 - pooled) * (1 / n + 1 / other_n)) ** 0.5

    results = weights.measured("bank")
    for size, painters in results["pictures"].items():
        package, faithful, white = painters.values()
        for what in ("right", "0 as O", "O as 0"):
            assert abs(apart(*faithful[what], *package[what])) < 2.58, size
        for what in ("0 as O", "O as 0"):
            assert abs(apart(*white[what], *package[what])) > 4, size
    assert results["speed"]["ratio"] > 3
