"""make study, with tiny networks, banks and numbers of pictures."""

import contextlib
import json
from functools import partial

import keras
import pandas as pd
import pytest
import tensorflow as tf
import train_tiny
from PIL import Image

from captcha_reader import practice, scores, testsets, weights
from notebooks_py import ch3_ctc as ch3
from notebooks_py import ch4_gpu_training as ch4
from notebooks_py import ch8_own_captchas as ch8
from tools import study

TINY = {"filters": (4, 4), "convs": 1, "stride": 4, "norms": "once"}
CLASSIC = [*testsets.draw_test_set("classic-100")]
STEPS: list[str] = []  # for each step of a training, the numbers with which it computes
NOTE = keras.callbacks.LambdaCallback(
    on_train_batch_end=lambda batch, logs: STEPS.append(keras.config.dtype_policy().compute_dtype)
)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return `make study` with all that takes long made small; it gives what it wrote."""
    for owner, name, small in [
        (study, "VALID", 10),
        (study, "LABELS", (32, 64)),
        (study, "RUNS", tmp_path),
        (study, "Ahead", contextlib.nullcontext),
        (study, "GlyphBank", partial(study.GlyphBank, colors=2, copies=1)),
        (study, "WhiteBank", partial(study.WhiteBank, colors=2, copies=1)),
        (study, "evaluate", lambda read, _: scores.evaluate(read, "classic-100")),
        (scores, "draw_test_set", lambda _: CLASSIC),
        (study.runs, "code_hash", lambda: "this version"),
        (practice, "fresh_bank", train_tiny.few_glyphs),
        (weights, "finished", lambda _: (ch3.build_ctc(**TINY), {"sha256": "abc"})),
        (ch4, "SLIM", TINY),
        (ch4, "fit_recipe", partial(ch4.fit_recipe, callbacks=[NOTE])),
    ]:
        monkeypatch.setattr(owner, name, small)
    monkeypatch.setitem(study.RECIPE, "practice", {"sizes": 0.0})
    STEPS.clear()

    def call(what):
        out = tmp_path / f"{what}.json"
        words = ["study", f"--what={what}", f"--out={out}", "--seed=3", "--pictures=64"]
        monkeypatch.setattr("sys.argv", words)
        study.main()
        return json.loads(out.read_text())

    tf.config.run_functions_eagerly(True)  # a few steps are done before a graph is made
    yield call
    tf.config.run_functions_eagerly(False)
    keras.mixed_precision.set_dtype_policy("float32")


def test_bank_counts_all_three_painters_in_two_sizes(run, monkeypatch):
    read = ["0O0O", "0O"]  # in turns; mistakes are counted in answers of four
    monkeypatch.setattr(ch4, "read_pictures", lambda _, x: read * (len(x) // 2))
    results = run("bank")
    assert list(results["pictures"]) == ["128x64", "170x80"]
    for painters in results["pictures"].values():
        assert list(painters) == list(study.PAINTERS)
        for counts in painters.values():
            assert counts["right"][1] == 64 and counts["O and 0 alone"][1] == 32
            assert counts["0 as O"][0] > 8 and counts["0 as O"][1] + counts["O as 0"][1] == 4 * 16
    assert results["network"]["sha256"] == "abc"


def test_nothing_is_trained_twice_or_taken_for_another_training(run, monkeypatch, tmp_path):
    for name in study.VARIANTS.keys() - {"the recipe", "full precision"}:
        monkeypatch.delitem(study.VARIANTS, name)
    first = run("ablation")
    rows = pd.DataFrame(first["rows"])
    assert rows.name.tolist() == 2 * ["the recipe", "last weights", "full precision"]
    assert rows.seed.tolist() == [3] * 3 + [4] * 3 and (rows.n == 100).all()
    assert STEPS == 2 * ["bfloat16", "float32"]
    next(tmp_path.glob("*/judge-20k.json")).unlink()  # stopped before it was written
    assert run("ablation") == first and len(STEPS) == 4
    one = "full precision", study.VARIANTS["full precision"], "judge-20k"
    study.rows_of(*one, pictures=128, seed=3)
    assert len(STEPS) == 4 + 2
    monkeypatch.setattr(study.runs, "code_hash", lambda: "another version")
    study.rows_of(*one, pictures=64, seed=3)
    assert len(STEPS) == 4 + 2 + 1


def test_kinds_counts_right_answers_and_how_sure_the_wrong_ones_are(run, monkeypatch):
    drawn = study.kinds.PICTURES["as drawn"]
    two = {"as drawn": drawn, "another text": lambda rng: (drawn(rng)[0], "")}
    monkeypatch.setattr(study.kinds, "PICTURES", two)
    results = run("kinds")
    assert results["network"]["sha256"] == weights.read_results("ctc")["sha256"]
    right, wrong = results["rows"].values()
    assert right["n"] == wrong["n"] == 64 and right["right"] > 55 and wrong["right"] == 0
    assert right["wrong, surer than 90 %"] < 5 and wrong["wrong, surer than 90 %"] > 32


@pytest.mark.usefixtures("run")
def test_heads_are_counted_with_their_parameters(monkeypatch):
    monkeypatch.setitem(study.HEADS["CTC with a GRU"], "network", {"rnn": (2,)})
    rows = [study.rows_of(*one, "judge-classic-10k", 64, seed=3)[0] for one in study.HEADS.items()]
    assert [row["name"] for row in rows] == list(study.HEADS)
    assert len({row["parameters"] for row in rows}) == 3


def test_tuning_learns_each_style_from_few_and_from_many_labels(run, monkeypatch, tmp_path):
    (svg := tmp_path / "svg").mkdir()
    for i in range(80):
        Image.new("L", (150, 50), i).save(svg / f"aB{i % 9}_{i}.png")
    monkeypatch.setattr(study, "SVG", svg)
    monkeypatch.setattr(study, "TUNING", {"finished weights, not moved": (True, 0.0)})
    rows = pd.DataFrame(run("tuning")["rows"])
    assert rows.groupby(["style", "labels"]).size().tolist() == [1] * 3 * 2
    assert (rows.n == 10).all() and rows.right.between(0, 10).all()
    assert rows.steps[rows.labels == 32].unique().tolist() == [2]
    assert rows.steps[rows.labels == 64].unique().tolist() == [3]
    monkeypatch.setattr(ch8, "fine_tune", None)  # what is finished is not trained again
    assert pd.DataFrame(run("tuning")["rows"]).equals(rows)
