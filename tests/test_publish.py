"""How a trained network gets into models/ and the README, and how it is counted again."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from captcha_reader import scores, weights
from notebooks_py.ch2_cnn import build_cnn
from tools import evaluate, lessons, publish

MARKS = f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network, saved."""
    path = tmp_path_factory.mktemp("network") / "model.keras"
    build_cnn(filters=(4, 4), convs=1, stride=4).save(path)
    return path


def count(right: int):
    """What stands for the reading of a whole test set: so many are right."""

    def evaluate(read, test_set: str) -> scores.Score:
        n, length = scores.TEST_SETS[test_set].n, scores.TEST_SETS[test_set].length
        return scores.Score(test_set, n, min(n, right), (n,) * length)

    return evaluate


@pytest.fixture
def run(tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch):
    """Make the folder of a run as `make train` leaves it; `right` is what its network will read."""
    for name in publish.READMES:
        (tmp_path / name).write_text(MARKS)
    monkeypatch.setattr(publish.lessons, "ROOT", tmp_path)
    facts = {"pictures": 150_000, "seconds": 7_200, "parameters": 99, "device": "CPU", "cores": 2}
    for name in ("ctc", "pytorch"):
        found = {x: count(500)(None, x).record() for x in publish.SETS[name]}
        home = tmp_path / "models" / f"{name}.json"
        lessons.write(home, json.dumps(facts | {"scores": found, "command": f"make {name}"}))

    def make(name: str, right: int, **more) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.keras").write_bytes(network.read_bytes())
        results = facts | {
            "settings": {"MODEL": "cnn", "SIZE": "slim", "BATCH": "96"}, "command": f"make {name}",
            "sha256": weights.sha256(folder / "model.keras"),
        } | more  # fmt: skip
        (folder / "results.json").write_text(json.dumps(results))
        log = {"epoch": [0, 1, 1, 2], "seconds": 10.0, "loss": 2.0, "val_loss": 1.0, "val_acc": 0.5}
        pd.DataFrame(log).to_csv(folder / "log.csv", index=False)  # epoch 1 came twice
        monkeypatch.setattr(scores, "evaluate", count(right))
        return folder

    return make


def call(monkeypatch: pytest.MonkeyPatch, program, *words: str) -> int:
    monkeypatch.setattr("sys.argv", [program.__name__, *words])
    return program.main()


def models(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (root / "models").iterdir()}


def test_a_run_becomes_the_finished_network_and_stands_in_the_tables(run, tmp_path, monkeypatch):
    folder = run("first", right=900)
    assert call(monkeypatch, publish, f"RUN={folder}") == 0
    model, results = weights.finished("cnn", tmp_path / "models")
    made = json.loads((folder / "results.json").read_text())
    assert made.items() <= results.items() and model.name == "cnn"
    assert set(results["scores"]) == {*publish.SETS["cnn"], "judge-classic-10k"}
    log = weights.read_log("cnn", tmp_path / "models")
    assert log.epoch.tolist() == [0, 1, 2] and log.seconds.tolist() == [10, 20, 30]
    assert log.pictures.tolist() == [63_936, 127_872, 150_000]  # 666 batches of 96 an epoch
    for name, words in publish.READMES.items():
        readme = (tmp_path / name).read_text(encoding="utf-8")
        assert readme.startswith("before\n") and readme.endswith("\nafter\n")
        assert "old" not in readme and words["command"] in readme
        rows = [line.split(" | ") for line in readme.splitlines() if line.startswith("| ")]
        cells = {row[0]: row[1:] for row in rows}
        assert cells["| `classic-100k`"] == ["0.90 % (0.84 – 0.96)", "0.50 % (0.46 – 0.55) |"]
        assert cells["| `nothing-1k`"][0] == "" and "`make first`" in readme


def test_a_network_that_is_not_better_changes_nothing(run, tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, publish, f"RUN={run('first', right=900)}") == 0
    before = models(tmp_path)
    assert call(monkeypatch, publish, f"RUN={run('second', right=900)}") == 1
    assert "judge" in capsys.readouterr().out and models(tmp_path) == before
    assert call(monkeypatch, publish, f"RUN={run('third', right=901)}") == 0
    assert models(tmp_path) != before


@pytest.mark.parametrize(
    "text", [None, "{}", "[]", "torn", '{"settings": {"MODEL": "cnn"}}', '{"settings": 1}']
)
def test_a_folder_without_a_finished_run_is_named(run, tmp_path, monkeypatch, text):
    before, folder = models(tmp_path), tmp_path / "somebody's"
    if text:
        folder.mkdir()
        (folder / "results.json").write_text(text)
    with pytest.raises(SystemExit, match="somebody's") as error:
        call(monkeypatch, publish, f"RUN={folder}")
    assert "\n" not in error.value.code and "RUN=" in error.value.code
    assert models(tmp_path) == before


def test_a_network_of_an_unknown_kind_or_with_torn_weights_is_refused(run, tmp_path, monkeypatch):
    before = models(tmp_path)
    unknown = run("unknown", 900, settings={"MODEL": "rnn", "SIZE": "slim", "BATCH": "1"})
    torn = run("torn", 900)
    (torn / "model.keras").write_bytes(b"half")
    for folder, told in ((unknown, "rnn"), (torn, "model.keras")):
        with pytest.raises(SystemExit, match=f"publish: .*{folder.name}.*{told}"):
            call(monkeypatch, publish, f"RUN={folder}")
    assert models(tmp_path) == before


def test_make_evaluate_tells_another_count(run, tmp_path, network, monkeypatch, capsys):
    assert call(monkeypatch, publish, f"RUN={run('first', right=900)}") == 0
    monkeypatch.setattr(weights, "MODELS", tmp_path / "models")
    assert call(monkeypatch, evaluate, "MODEL=cnn", "SET=classic-1k") == 0
    run("other", right=904)
    assert call(monkeypatch, evaluate, "MODEL=cnn", "SET=classic-1k") == 1
    assert "900" in capsys.readouterr().out
    # Weights of one's own have nothing to be compared with.
    assert call(monkeypatch, evaluate, f"MODEL={network}", "SET=classic-1k") == 0


def test_make_evaluate_names_what_is_not_there(network, monkeypatch):
    for word in ("MODEL=rnn", "SET=classic", "MODEL=none.keras"):
        with pytest.raises(SystemExit, match=f"evaluate: .*{word.partition('=')[2]}"):
            call(monkeypatch, evaluate, f"MODEL={network}", word)


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
