"""Finished networks: what is believed, what is refused, and how one gets into models/."""

import json
from pathlib import Path

import evaluate
import keras
import publish
import pytest
import results_table

from notebooks_py import ch2_cnn as ch2
from notebooks_py import ch4_gpu_training as ch4
from notebooks_py.ch1_captcha_preview import CaptchaSequence

TINY = {"filters": (4, 4), "convs": 1, "stride": 4}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two finished runs of a tiny network; the second went on from the first."""
    monkeypatch.setitem(ch4.SIZES["slim"], "cnn", TINY)
    monkeypatch.setattr(ch4, "VALID", 8)
    monkeypatch.setattr(ch4, "fastest_policy", lambda kind, size, source: "float32")
    folders, start = [tmp_path / "first", tmp_path / "second"], None
    for seed, folder in enumerate(folders):
        source = CaptchaSequence(4, 3, seed)
        ch4.full_training("cnn", "slim", source, 3, folder, test_set="classic-100", start=start)
        start = folder / "model.keras"
    return folders


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of models/, and one set of a hundred in the place of the large ones."""
    monkeypatch.setattr(ch2, "MODELS", tmp_path / "models")
    monkeypatch.setattr(publish, "SETS", ("classic-100",))
    monkeypatch.setattr(publish, "JUDGE", "classic-100")
    monkeypatch.setattr(results_table, "write", lambda: True)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def published(runs: list[Path], home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/ with the second run as its finished network."""
    assert call(monkeypatch, publish, f"RUNS={runs[0]},{runs[1]}") == 0
    return home


def call(monkeypatch: pytest.MonkeyPatch, program, *words: str) -> int:
    monkeypatch.setattr("sys.argv", [program.__name__, *words])
    return program.main()


def test_a_published_network_is_the_trained_one(published, runs):
    model, results = ch2.finished("cnn", published)
    trained = keras.models.load_model(runs[1] / "model.keras")
    pictures, _ = next(ch2.draw_test_set("classic-100"))
    assert ch2.read_heads(model, pictures) == ch2.read_heads(trained, pictures)
    assert (results["pictures"], results["arguments"]) == (24, json.loads(json.dumps(TINY)))
    assert [run["settings"]["seed"] for run in results["runs"]] == [0, 1]
    assert results["seconds"] == sum(run["seconds"] for run in results["runs"])
    assert results["bytes"] == (published / "cnn.keras").stat().st_size
    score = ch2.evaluate(ch4.reader_of(model), "classic-100")
    assert results["scores"] == {"classic-100": score.record()}


def test_logs_of_runs_become_one(published, runs):
    whole = ch2.read_log(published / "cnn.csv")
    first, second = (ch2.read_log(folder / "log.csv") for folder in runs)
    assert whole.epoch.tolist() == list(range(len(first) + len(second)))
    assert whole.stage.tolist() == [1] * len(first) + [2] * len(second)
    assert whole.pictures.tolist() == [*first.pictures, *(12 + second.pictures)]
    assert whole.seconds.is_monotonic_increasing and whole.step.iloc[-1] == 6
    assert whole.val_loss.tolist() == [*first.val_loss, *second.val_loss]


def test_a_network_that_is_not_better_changes_nothing(published, runs, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in published.iterdir()}
    assert call(monkeypatch, publish, f"RUNS={runs[0]}") == 1
    assert "not better" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in published.iterdir()} == before


def test_runs_that_do_not_follow_each_other_are_refused(runs, home, monkeypatch):
    for words in (f"RUNS={runs[1]}", f"RUNS={runs[1]},{runs[0]}"):
        with pytest.raises(SystemExit, match="publish: .* started from weights"):
            call(monkeypatch, publish, words)
    with pytest.raises(SystemExit, match="publish: .*results.json"):
        call(monkeypatch, publish, f"RUNS={home / 'none'}")
    assert list(home.iterdir()) == []


def test_a_network_that_saw_another_stream_is_refused(runs, home, monkeypatch):
    source = runs[1] / "results.json"
    results = json.loads(source.read_text())
    results["settings"]["split"] = "test"
    source.write_text(json.dumps(results))
    with pytest.raises(SystemExit, match="trained on the stream 'test', allowed is 'train'"):
        call(monkeypatch, publish, f"RUNS={runs[0]},{runs[1]}")
    assert list(home.iterdir()) == []


def change(path: Path, **values: object) -> None:
    """Write other values into the score of a results file."""
    results = json.loads(path.read_text())
    results["scores"]["classic-100"] |= values
    path.write_text(json.dumps(results))


IMPOSSIBLE = ch2.Score("classic-100", 100, 5, (9, 4, 9, 9))
BROKEN = {
    "a byte of the weights": (
        lambda home: (home / "cnn.keras").write_bytes(
            (home / "cnn.keras").read_bytes()[:-1] + b"?"
        ),
        ValueError,
        r"cnn.keras is damaged or not the one of .*cnn.json",
    ),
    "no weights": (
        lambda home: (home / "cnn.keras").unlink(),
        FileNotFoundError,
        r"no .*cnn.keras, which .*cnn.json describes: get it with `git checkout`",
    ),
    "no results": (
        lambda home: (home / "cnn.json").unlink(),
        FileNotFoundError,
        r"no .*cnn.json: get it",
    ),
    "half a results file": (
        lambda home: (home / "cnn.json").write_text((home / "cnn.json").read_text()[:100]),
        ValueError,
        r"cnn.json is damaged",
    ),
    "another checksum": (
        lambda home: (home / "cnn.json").write_text(
            json.dumps(json.loads((home / "cnn.json").read_text()) | {"sha256": "0" * 64})
        ),
        ValueError,
        r"cnn.keras is damaged or not the one of .*cnn.json.*expected 0000",
    ),
    "a count without its interval": (
        lambda home: change(home / "cnn.json", right=77, right_by_position=[80, 80, 80, 80]),
        ValueError,
        r"cnn.json: interval of classic-100 is",
    ),
    "more captchas than characters": (
        lambda home: change(home / "cnn.json", **IMPOSSIBLE.record()),
        ValueError,
        "more captchas right than characters",
    ),
    "more right than there are": (
        lambda home: change(home / "cnn.json", right=101),
        ValueError,
        "101 right out of 100",
    ),
    "another test set": (
        lambda home: change(home / "cnn.json", fingerprint="0" * 64),
        ValueError,
        "fingerprint of classic-100 is 0000",
    ),
    "another n": (
        lambda home: change(home / "cnn.json", n=1000),
        ValueError,
        "no test set 'classic-100' of 1000 captchas",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_fit_together_is_refused(published, what, monkeypatch):
    breakage, error, message = BROKEN[what]
    ch2.finished("cnn", published)
    breakage(published)
    with pytest.raises(error, match=message):
        ch2.finished("cnn", published)


def test_make_evaluate_tells_when_a_count_is_another_one(published, monkeypatch, capsys):
    assert call(monkeypatch, evaluate, "MODEL=cnn", "SET=classic-100") == 0
    right = ch2.finished("cnn", published)[1]["scores"]["classic-100"]["right"]
    assert f"models/cnn.json has {right}" in capsys.readouterr().out
    told = ch2.Score("classic-100", 100, right + 4, (90, 90, 90, 90)).record()
    change(published / "cnn.json", **told)
    assert call(monkeypatch, evaluate, "MODEL=cnn", "SET=classic-100") == 1
    assert f"models/cnn.json has {right + 4}, more than 3 away" in capsys.readouterr().out
    # Weights of one's own have nothing to be compared with.
    assert call(monkeypatch, evaluate, f"MODEL={published}/cnn.keras", "SET=classic-100") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL=rnn"], r"evaluate: no .*rnn.json"),
        (["MODEL=cnn", "SET=classic"], "evaluate: no test set 'classic'"),
        (["MODEL=none.keras"], "evaluate: .*none.keras"),
    ],
)
def test_make_evaluate_names_what_is_not_there(published, monkeypatch, words, message):
    with pytest.raises(SystemExit, match=message):
        call(monkeypatch, evaluate, *words)


def test_another_drawing_is_not_the_test_set(monkeypatch):
    monkeypatch.setitem(ch2.TEST_SETS, "classic-100", (100, ch2.draw_wide))
    with pytest.raises(RuntimeError, match="these are not the captchas of classic-100"):
        list(ch2.draw_test_set("classic-100"))


@pytest.mark.parametrize("test_set", [name for name in ch2.TEST_SETS if name.endswith("1k")])
def test_the_pictures_of_a_test_set_are_those_of_its_fingerprint(test_set):
    batches = list(ch2.draw_test_set(test_set))
    assert len({text for _, texts in batches for text in texts}) > 990
    assert {pictures.shape[0] for pictures, _ in batches} == {100}


def test_the_table_is_made_from_the_results(published, tmp_path):
    for name in ("classic-10k", "classic-100k", "modern-10k", "preview-10k"):
        results = json.loads((published / "cnn.json").read_text())
        n = ch2.TEST_SETS[name][0]
        results["scores"][name] = ch2.Score(name, n, n // 2, (n, n, n, n)).record()
        (published / "cnn.json").write_text(json.dumps(results))
    readme = f"before\n{results_table.BEGIN}\nold\n{results_table.END}\nafter\n"
    new = results_table.with_table(readme, tmp_path)
    assert "old" not in new and new.startswith("before\n") and new.endswith("\nafter\n")
    assert new.count("50.00 % (49.02 to 50.98)") == 3 and "24 captchas" in new
    assert results_table.with_table(new, tmp_path) == new
    with pytest.raises(ValueError, match="README.md needs the lines"):
        results_table.with_table("no marks", tmp_path)


def test_the_table_in_the_readme_is_up_to_date():
    readme = (results_table.lessons.ROOT / "README.md").read_text(encoding="utf-8")
    assert results_table.with_table(readme, results_table.lessons.ROOT) == readme


@pytest.mark.parametrize("source", sorted(ch2.MODELS.glob("c??.json")), ids=lambda path: path.stem)
def test_what_ships_reads_what_it_says(source):
    """A thousand captchas of each shipped network, counted again."""
    model, results = ch2.finished(source.stem)
    score = ch2.evaluate(ch4.reader_of(model), "classic-1k")
    assert abs(score.right - results["scores"]["classic-1k"]["right"]) <= 1
    assert results["bytes"] == source.with_suffix(".keras").stat().st_size <= 15_000_000
    assert results["arguments"] == json.loads(json.dumps(ch4.SIZES[results["size"]][source.stem]))
    log = ch2.read_log(source.with_suffix(".csv"))
    assert log.pictures.iloc[-1] == results["pictures"]
    assert log.seconds.iloc[-1] == pytest.approx(results["seconds"], abs=2)
    for test_set in publish.SETS:
        assert results["scores"][test_set]["n"] == ch2.TEST_SETS[test_set][0]
