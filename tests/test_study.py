"""make study, with tiny networks, banks and numbers of pictures; and what it measured."""

import functools
import json

import keras
import pandas as pd
import pytest
import study
import tensorflow as tf

from captcha_reader import weights
from captcha_reader.weights import MODELS, check_score, measured, read_results
from notebooks_py import ch3_ctc as ch3
from notebooks_py import ch4_gpu_training as ch4

SMALL = {"colors": 2, "copies": 1}
TINY = {"filters": (4, 4, 4, 4), "convs": 1, "stride": 2}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return `make study` with all that takes long made small; it gives what it wrote."""
    held_out = study.held_out
    monkeypatch.setattr(study, "VALID", 10)
    monkeypatch.setattr(study, "held_out", lambda seed, count, *kind: held_out(seed, 10, *kind))
    for bank in ("GlyphBank", "WhiteBank"):
        monkeypatch.setattr(study, bank, functools.partial(getattr(study, bank), **SMALL))
    small_bank = functools.cache(lambda width: study.GlyphBank(0, width=width))
    monkeypatch.setattr(ch4, "fresh_bank", lambda seed, epoch, width: small_bank(width))
    monkeypatch.setattr(ch4, "SLIM", TINY)

    def call(what, *words):
        out = tmp_path / ("stages.csv" if what == "stages" else f"{what}.json")
        words = ["study", f"WHAT={what}", f"OUT={out}", f"RUNS={tmp_path}", "SEEDS=3", *words]
        monkeypatch.setattr("sys.argv", words)
        study.main()
        return pd.read_csv(out) if what == "stages" else json.loads(out.read_text())

    tf.config.run_functions_eagerly(True)  # a few steps are done before a graph is made
    yield call
    tf.config.run_functions_eagerly(False)
    keras.mixed_precision.set_dtype_policy("float32")


def test_bank_counts_all_three_painters(run):
    found = run("bank", "PICTURES=8")
    assert list(found["pictures"]) == list(study.PAINTERS)
    assert [counts["n"] for counts in found["pictures"].values()] == [8, 8, 8]
    assert found["pictures"]["by a glyph bank"]["O and 0 alone"][1] == 4
    assert found["speed"]["ratio"] > 1.5
    assert found["network"] == {"name": "ctc", "sha256": read_results("ctc")["sha256"]}


def test_mistakes_are_counted_in_answers_of_four_and_compared_as_the_textbook_says():
    texts, answers = ["0O0O", "00OO", "0000", "O000"], ["OO00", "00OO", "OOO", "O00000"]
    assert study.mistaken(texts, answers, "0", "O") == [1, 4]
    assert study.mistaken(texts, answers, "O", "0") == [1, 4]
    assert study.apart(60, 100, 40, 100) == pytest.approx(0.2 / (0.5 * (2 / 100) ** 0.5))
    assert study.apart(5, 10, 50, 100) == study.apart(0, 10, 0, 10) == 0


def test_ablation_trains_what_is_missing_and_nothing_twice(run, monkeypatch, capsys):
    monkeypatch.setattr(study, "VARIANTS", {"the recipe": {}})
    found = run("ablation", "PICTURES=128")
    recipe, last = found["rows"]
    assert (recipe["name"], last["name"]) == ("the recipe", "last weights")
    assert recipe["pictures"] == 128 and 0 <= recipe["right"] <= recipe["n"] == 10
    assert last["right"] == recipe["last"] and last["n"] == 10
    monkeypatch.setattr(study, "fit", None)
    assert run("ablation", "PICTURES=128") == found
    assert "the recipe, seed 3: is in" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="holds 128 pictures each"):
        run("ablation", "PICTURES=256")


def test_only_one_row_computes_with_16_bits(run, monkeypatch):
    seen, fit = [], ch4.fit_recipe

    def look(model, *more):
        seen.append(model.layers[-2].compute_dtype)
        fit(model, *more)

    monkeypatch.setattr(ch4, "fit_recipe", look)
    some = {name: study.VARIANTS[name] for name in ("half precision", "the recipe")}
    monkeypatch.setattr(study, "VARIANTS", some)
    run("ablation", "PICTURES=64")
    assert seen == ["bfloat16", "float32"]


def test_heads_read_a_test_set(run, monkeypatch):
    monkeypatch.setattr(study, "HEADS", {"four heads": {"kind": "cnn"}})
    (row,) = run("heads", "PICTURES=64", "SET=classic-100")["rows"]
    check_score(row, MODELS)
    assert (row["name"], row["seed"], row["pictures"]) == ("four heads", 3, 64)
    assert 0 < row["parameters"] * 4 < row["bytes"]


def test_stages_sees_the_same_captchas_in_each_recipe(run, monkeypatch):
    def tiny(seed):
        model = ch3.build_ctc(**TINY)
        model.compile("sgd", "mse")
        return model

    monkeypatch.setattr(ch3, "small_ctc", tiny)
    log = run("stages", "PICTURES=64")
    two, one = (rows for _, rows in log.groupby("recipe", sort=False))
    assert two.pictures.tolist() == one.pictures.tolist() == [32, 64]
    assert two.rate.tolist() == [1e-3, 1e-4] and one.rate.iloc[-1] == 0
    assert log.val_loss.notna().all() and log.val_acc.between(0, 1).all()


def tiny_finished(monkeypatch) -> None:
    tiny = (ch3.build_ctc(**TINY), read_results("ctc"))
    monkeypatch.setattr(weights, "finished", lambda name: tiny)


def test_lengths_reads_before_and_after_a_training(run, monkeypatch):
    tiny_finished(monkeypatch)
    monkeypatch.setattr(study, "VALID", 4)
    found = run("lengths", "PICTURES=64")
    assert found["start"] == read_results("ctc")["sha256"]
    assert [list(counts) for counts in found["right"].values()] == [["3", "4", "5", "6"]] * 2
    assert found["n"] == 4 and found["seen"] == [64] and len(found["curve"]) == 1


def test_tuning_learns_another_style_three_ways(run, monkeypatch):
    tiny_finished(monkeypatch)
    monkeypatch.setattr(study, "LABELS", (32, 64))
    found = run("tuning", "PICTURES=64")
    assert [list(counts) for counts in found["right"].values()] == [["32", "64"]] * 3
    assert found["right"]["from nothing"] == {"32": 0, "64": 0} and found["n"] == 10


def test_a_study_needs_a_name(monkeypatch):
    monkeypatch.setattr("sys.argv", ["study"])
    with pytest.raises(SystemExit, match="WHAT= must be one of bank"):
        study.main()


def test_the_bank_is_faithful_and_the_white_one_is_not():
    found = measured("bank")
    package, faithful, white = found["pictures"].values()
    for counts in (package, faithful, white):
        counts["right"] = [counts["right"], counts["n"]]
    for what in ("right", "0 as O", "O as 0"):
        assert abs(study.apart(*faithful[what], *package[what])) < 2.58
    assert all(abs(study.apart(*white[what], *package[what])) > 4 for what in ("0 as O", "O as 0"))
    assert found["speed"]["ratio"] > 3


def test_what_was_trained_says_by_which_recipe():
    ablation, heads = measured("ablation"), measured("heads")
    for found in (ablation, heads):
        assert found["recipe"] == study.RECIPE
    assert {row["name"] for row in ablation["rows"]} == {*study.VARIANTS, *study.LAST.values()}
    for row in heads["rows"]:
        check_score(row, MODELS / "heads.json")
