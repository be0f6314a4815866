"""make comparison, with tiny networks in the place of those that train for hours."""

import json
import multiprocessing
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import comparison
import pytest

from notebooks_py import ch2_cnn as ch2
from notebooks_py import ch4_gpu_training as ch4

TINY = {"filters": (4, 4, 4), "convs": 1, "stride": 2}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Train tiny networks for three steps; return the list of what was trained."""
    sizes = {"cnn": TINY, "ctc": {**TINY, "rnn": ()}}
    monkeypatch.setattr(ch4, "SIZES", {"slim": sizes, "gru": {"ctc": {**TINY, "rnn": (4,)}}})
    monkeypatch.setattr(ch4, "VALID", 8)
    monkeypatch.setattr(ch4, "fastest_policy", lambda kind, size, source: "float32")
    trained = []

    def train(head: str, seed: str, folder: Path, pictures: str) -> None:
        kind, size = comparison.HEADS[head]
        source = ch4.PlannedSequence(4, 3, int(seed), labels=ch4.LABELS[kind])
        ch4.full_training(kind, size, source, 3, folder, test_set="classic-100")
        trained.append((head, seed))

    monkeypatch.setattr(comparison, "train", train)
    monkeypatch.setattr(comparison, "reading_time", milliseconds)
    return trained


def milliseconds(repeats: int) -> dict:
    """In the place of a measurement of the real networks."""
    return {"milliseconds": dict.fromkeys(comparison.HEADS, 1.0)}


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["comparison", *words])
    comparison.main()


def test_every_run_is_counted_again(tiny, tmp_path, monkeypatch):
    out = tmp_path / "found" / "comparison.json"
    words = [f"OUT={out}", f"RUNS={tmp_path}", "SEEDS=3,4", "SET=classic-100", "PICTURES=12"]
    call(monkeypatch, *words)
    found = json.loads(out.read_text())
    assert [(run["head"], str(run["seed"])) for run in found["runs"]] == tiny
    assert tiny == [(head, seed) for seed in "34" for head in comparison.HEADS]
    assert len({run["sha256"] for run in found["runs"]}) == 6
    texts = [text for _, texts in ch2.draw_test_set("classic-100") for text in texts]
    for run in found["runs"]:
        answers = run["answers"].split(" ")  # an empty one, too
        assert sum(a == b for a, b in zip(answers, texts, strict=True)) == run["right"]
        ch2.check_score(run, out)
        assert run["seen"][-1] == 12 and len(run["curve"]) == len(run["seen"])
    # What is trained is not trained again, and what has read does not read again,
    count, again = comparison.count, []
    monkeypatch.setattr(comparison, "count", lambda *args: again.append(args) or count(*args))
    call(monkeypatch, *words)
    assert len(tiny) == 6 and json.loads(out.read_text()) == found and not again
    # unless the file that says so is damaged, or speaks of other weights.
    kept = [tmp_path / f"CTC-{seed}" / "classic-100.json" for seed in "34"]
    kept[0].write_text(kept[0].read_text()[:50])
    kept[1].write_text(kept[1].read_text().replace('"sha256": "', '"sha256": "0'))
    call(monkeypatch, *words)
    assert len(again) == 2 and json.loads(out.read_text()) == found
    with pytest.raises(ValueError, match=r"PICTURES=16, but the run in .*four-heads-3 had 12"):
        call(monkeypatch, *words[:-1], "PICTURES=16")


@pytest.mark.parametrize("begun", [False, True])
def test_a_training_that_was_interrupted_goes_on(begun, tmp_path, monkeypatch):
    if begun:
        (tmp_path / "run.json").write_text("{}")
    calls = []

    def run(command, **options):
        calls.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit, match="3"):
        comparison.train("CTC with a GRU", "2020", tmp_path, "320")
    assert f"RESUME={int(begun)}" in calls[0]
    assert {"MODEL=ctc", "SIZE=gru", "SEED=2020", "BUDGET=320", "FEED=device"} <= set(calls[0])


def test_reading_is_timed_on_one_core_for_the_real_networks():
    # In another process, as main() does, since one core is all that it leaves itself.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        found = process.submit(comparison.reading_time, 1).result()
    assert list(found["milliseconds"]) == list(comparison.HEADS)
    assert min(found["milliseconds"].values()) > 0


def test_answers_of_any_length_are_kept(tmp_path, monkeypatch):
    texts = [text for _, texts in ch2.draw_test_set("classic-100") for text in texts]
    given = [texts[0] + "0", "", texts[2][:3], *texts[3:]]  # too long, nothing, too short
    monkeypatch.setattr("keras.models.load_model", lambda path, compile: None)
    monkeypatch.setattr(ch4, "reader_of", lambda model: lambda pictures: given)
    row = comparison.count(tmp_path / "model.keras", "classic-100")
    assert row["right"] == 97 and row["answers"].split(" ") == given
