"""How a trained network gets into models/ and the README, and how it is counted again."""

import json
from pathlib import Path

import evaluate
import lessons
import pandas as pd
import publish
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from captcha_reader import scores, weights
from notebooks_py.ch2_cnn import build_cnn

MARKS = f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network, saved."""
    path = tmp_path_factory.mktemp("network") / "model.keras"
    build_cnn(filters=(4, 4), convs=1, stride=4).save(path)
    return path


@pytest.fixture
def run(tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch):
    """Make the folder of a run as `make train` leaves it; `right` is what its network will read."""
    for name in publish.READMES:
        (tmp_path / name).write_text(MARKS)
    monkeypatch.setattr(publish.lessons, "ROOT", tmp_path)

    def make(name: str, right: int, start: Path | None = None, **settings: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.keras").write_bytes(network.read_bytes())
        results = {
            "model": "cnn", "size": "slim", "settings": {"MODEL": "cnn", "START": "", **settings},
            "start": start and weights.sha256(start),
            "pictures": 600, "seconds": 30, "parameters": 99, "device": "CPU",
            "sha256": weights.sha256(folder / "model.keras"),
        }  # fmt: skip
        (folder / "results.json").write_text(json.dumps(results))
        log = pd.DataFrame({"epoch": [0, 1, 1, 2], "seconds": 10.0, "loss": 2.0, "val_loss": 1.0,
                            "val_acc": 0.5})  # fmt: skip
        log.to_csv(folder / "log.csv", index=False)  # epoch 1 was interrupted, and came again

        def count(read, test_set: str) -> scores.Score:
            n = scores.TEST_SETS[test_set][0]
            return scores.Score(test_set, n, min(n, right), (n,) * 4)

        monkeypatch.setattr(scores, "evaluate", count)
        return folder

    return make


def call(monkeypatch: pytest.MonkeyPatch, program, *words: str) -> int:
    monkeypatch.setattr("sys.argv", [program.__name__, *words])
    return program.main()


def test_a_run_becomes_the_finished_network_and_others_follow_it(run, tmp_path, monkeypatch):
    assert call(monkeypatch, publish, f"RUN={run('first', right=900)}") == 0
    model, results = weights.finished("cnn", tmp_path / "models")
    assert results["parameters"] == 99 and model.name == "cnn"
    assert (results["pictures"], results["seconds"], len(results["runs"])) == (600, 30, 1)
    assert list(results["scores"]) == list(publish.SETS)
    log = pd.read_csv(tmp_path / "models" / "cnn.csv")
    assert list(log) == publish.LOG and log.epoch.tolist() == [0, 1, 2]
    assert log.pictures.tolist() == [200, 400, 600] and log.seconds.tolist() == [10, 20, 30]
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("before\n") and readme.endswith("\nafter\n") and "old" not in readme
    assert "| 600 captchas | 0.0 (CPU) | 9.00 % (8.46 to 9.58) | 0.90 % (0.84 to 0.96) |" in readme
    chinese = (tmp_path / "README.zh.md").read_text(encoding="utf-8")
    assert "| 600 张 | 0.0 (CPU) | 9.00 %（8.46 至 9.58） | 0.90 %（0.84 至 0.96） |" in chinese
    # A run that went on from it is appended.
    second = run("second", right=901, start=tmp_path / "models" / "cnn.keras", START="models/cnn")
    assert call(monkeypatch, publish, f"RUN={second}") == 0
    results = weights.read_results("cnn", tmp_path / "models")
    assert (results["pictures"], results["seconds"], len(results["runs"])) == (1200, 60, 2)
    log = pd.read_csv(tmp_path / "models" / "cnn.csv")
    assert log.epoch.tolist() == list(range(6)) and log.run.tolist() == [1, 1, 1, 2, 2, 2]
    assert log.pictures.iloc[-1] == 1200 and log.seconds.tolist() == [10, 20, 30, 40, 50, 60]
    # A run from nothing replaces them.
    assert call(monkeypatch, publish, f"RUN={run('third', right=902)}") == 0
    assert weights.read_results("cnn", tmp_path / "models")["pictures"] == 600


def test_a_run_brings_those_it_came_from(run, tmp_path, monkeypatch):
    first = run("first", right=900, MODEL="ctc") / "model.keras"
    folder = run("second", right=900, start=first, START=str(first))
    assert call(monkeypatch, publish, f"RUN={folder}") == 0
    assert weights.read_results("cnn", tmp_path / "models")["pictures"] == 1200
    readme = (tmp_path / "README.md").read_text()
    assert "| 600 captchas with CTC, then 600 |" in readme and "mark |" not in readme
    better = run(
        "better", right=98_400, start=folder / "model.keras", START=str(folder / "model.keras")
    )
    assert call(monkeypatch, publish, f"RUN={better}") == 0
    readme = (tmp_path / "README.md").read_text()
    assert "98.40 % (98.32 to 98.48), above the original's mark |" in readme


def test_a_network_that_is_not_better_changes_nothing(run, tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, publish, f"RUN={run('first', right=900)}") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "models").iterdir()}
    assert call(monkeypatch, publish, f"RUN={run('second', right=900)}") == 1
    assert "cnn.json has 900 of classic-100k, this network 900" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (tmp_path / "models").iterdir()} == before


def test_what_does_not_fit_together_is_refused(run, tmp_path, monkeypatch):
    folder = run("first", right=900)
    lost = run("second", right=900, start=folder / "log.csv", START=str(folder / "model.keras"))
    with pytest.raises(SystemExit, match="did not start from what .*first/model.keras is now"):
        call(monkeypatch, publish, f"RUN={lost}")
    with pytest.raises(SystemExit, match="publish: .*none/results.json"):
        call(monkeypatch, publish, f"RUN={tmp_path / 'none'}")
    (folder / "model.keras").write_bytes(b"torn")
    with pytest.raises(SystemExit, match="model.keras is damaged"):
        call(monkeypatch, publish, f"RUN={folder}")
    assert not (tmp_path / "models").exists()


def test_make_evaluate_tells_another_count(run, tmp_path, network, monkeypatch, capsys):
    assert call(monkeypatch, publish, f"RUN={run('first', right=900)}") == 0
    monkeypatch.setattr(weights, "MODELS", tmp_path / "models")
    assert call(monkeypatch, evaluate, "MODEL=cnn", "SET=classic-1k") == 0
    run("other", right=904)
    assert call(monkeypatch, evaluate, "MODEL=cnn", "SET=classic-1k") == 1
    assert "models/cnn.json has 900, more than 3 away" in capsys.readouterr().out
    # Weights of one's own have nothing to be compared with.
    assert call(monkeypatch, evaluate, f"MODEL={network}", "SET=classic-1k") == 0


def test_make_evaluate_names_what_is_not_there(monkeypatch):
    for word, message in {
        "MODEL=rnn": r"evaluate: MODEL=rnn must be one of cnn, ctc, ctc_pytorch, or a .keras",
        "SET=classic": "evaluate: no test set 'classic'",
        "MODEL=none.keras": "evaluate: .*none.keras",
    }.items():
        with pytest.raises(SystemExit, match=message):
            call(monkeypatch, evaluate, word)


def test_the_tables_of_the_readmes_are_up_to_date():
    for name in publish.READMES:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert text == publish.with_tables(name, ROOT), "run `make table`"
        assert len(publish.ROW.findall(text)) == len(lessons.find(ROOT))


def test_minutes_are_those_of_words_and_lines():
    text, code = new_markdown_cell("word " * 1_000), new_code_cell("x = 1\n\n" * 150)
    fetch = new_code_cell("x = 1\n" * 100, metadata={"tags": ["colab"]})
    assert publish.minutes(new_notebook(cells=[text, code, fetch])) == 1_000 / 200 + 150 * 8 / 60


def test_badges_come_with_an_address(tmp_path):
    lesson, project = lessons.Lesson(tmp_path, "ch1_circles"), tmp_path / "pyproject.toml"
    urls = '[project.urls]\nRepository = "https://github.com/{}/circles"\n'
    project.write_text(urls.format("YOUR_NAME"))
    assert publish.badges(lesson) == ""
    project.write_text(urls.format("ada"))
    place = "ada/circles/blob/main/notebooks/ch1_circles.ipynb"
    for site in ("https://colab.research.google.com/github", "https://nbviewer.org/github"):
        assert f"]({site}/{place})" in publish.badges(lesson)
    lessons.write_notebook(lesson.notebook, new_notebook(cells=[new_code_cell("x\n" * 80)]))
    row = "| [1. Circles](notebooks/ch1_circles.ipynb) | you have | them | 5 |\n"
    full = publish.with_rows(row, tmp_path)
    assert full == row.replace(") |", f"){publish.badges(lesson)} |").replace("5", "10")
    assert publish.with_rows(full, tmp_path) == full
