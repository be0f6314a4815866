"""How a trained network gets into models/ and the README, and how it is counted again."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from captcha_reader import scores, weights
from captcha_reader.texts import ALPHABET
from notebooks_py.ch2_cnn import build_cnn
from notebooks_py.ch3_ctc import build_ctc
from tools import evaluate, lessons, publish

MARKS = f"before\n{2 * (publish.BEGIN + 'old' + publish.END)}\nafter\n"
WRONG = (("O0OP", "OOOP"), ("1NAN", ""), ("0012", "0O1A2"))
TINY = {"filters": (4, 4), "convs": 1, "stride": 4, "norms": "once"}
FACTS = {"pictures": 150_000, "seconds": 7_200, "parameters": 99, "device": "CPU", "cores": 2}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call a tool in a repository of READMEs and results; networks read `right` captchas."""
    for name in publish.READMES:
        (tmp_path / name).write_text(MARKS)
    monkeypatch.setattr(lessons, "ROOT", tmp_path)
    monkeypatch.setattr(weights, "MODELS", tmp_path / "models")

    def score(test_set: str, right: int) -> scores.Score:
        n, length = scores.TEST_SETS[test_set].n, scores.TEST_SETS[test_set].length
        return scores.Score(test_set, n, right, (n,) * length, WRONG)

    for name in publish.SETS:
        records = {test_set: score(test_set, 500).record() for test_set in publish.SETS[name]}
        results = FACTS | {"scores": records, "command": f"make {name}"}
        lessons.write(tmp_path / "models" / f"{name}.json", json.dumps(results))

    def call(program, *words: str, right: int = 900) -> int:
        monkeypatch.setattr(scores, "evaluate", lambda read, test_set: score(test_set, right))
        monkeypatch.setattr("sys.argv", [program.__name__, *words])
        return program.main()

    return call


def run_of(model, folder: Path) -> Path:
    """Write the folder of a run as `make train` leaves it."""
    folder.mkdir()
    model.save(folder / "model.keras")
    settings = {"model": model.name, "size": "slim", "batch": 96}
    facts = {"settings": settings, "command": "make first",
             "sha256": weights.sha256(folder / "model.keras")}  # fmt: skip
    (folder / "results.json").write_text(json.dumps(FACTS | facts))
    log = {"epoch": [0, 1, 1, 2], "seconds": 10.0, "loss": 2.0, "val_loss": 1.0, "val_acc": 0.5}
    pd.DataFrame(log).to_csv(folder / "log.csv", index=False)  # epoch 1 came twice
    return folder


def test_a_run_becomes_the_finished_network_and_evaluate_counts_it_again(call, tmp_path):
    run, models = run_of(build_cnn(**TINY), tmp_path / "run"), tmp_path / "models"
    assert call(publish, f"--run={run}") == 0
    model, results = weights.finished("cnn", models)
    assert results["command"] == "make first" and model.name == "cnn"
    assert weights.description(models / "cnn.keras")["width"] == 128
    assert set(results["scores"]) == {*publish.SETS["cnn"], publish.JUDGES["cnn"]}
    assert weights.read_errors("cnn", models) == list(WRONG)
    log = weights.read_log("cnn", models)
    assert log.epoch.tolist() == [0, 1, 2] and log.seconds.tolist() == [10, 20, 30]
    assert log.pictures.tolist() == [63_936, 127_872, 150_000]  # 666 batches of 96 an epoch
    for name in publish.READMES:
        readme = (tmp_path / name).read_text(encoding="utf-8")
        assert readme.startswith("before\n") and readme.endswith("\nafter\n")
        assert "old" not in readme and "`make first`" in readme
        assert "\n| `classic-100k` | 0.90 % (0.84 – 0.96) | 0.50 % (0.46 – 0.55) |\n" in readme
        assert "\n| `nothing-1k` |  | " in readme
    before = (models / "cnn.json").read_bytes()  # only a better one takes its place
    assert call(publish, f"--run={run}") == 1
    assert (models / "cnn.json").read_bytes() == before
    assert call(evaluate, "--model=cnn", "--set=classic-1k") == 0
    assert call(evaluate, "--model=cnn", "--set=classic-1k", right=904) == 1
    assert call(publish, f"--run={run}", right=901) == 0
    assert weights.read_results("cnn", models)["scores"]["classic-1k"]["right"] == 901


def test_a_run_of_ctc_is_also_written_as_onnx(call, tmp_path):
    pytest.importorskip("onnx")
    run, models = run_of(build_ctc(**TINY), tmp_path / "run"), tmp_path / "models"
    assert call(publish, f"--run={run}") == 0
    onnx = weights.read_results("ctc", models)["onnx"]
    assert onnx == weights.sha256(models / "ctc.onnx") and (models / "ctc_examples.json").exists()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [("results.json", "", "run .*RUN="), ("results.json", '{"settings": {}}', "run .*RUN="),
     ("model.keras", "half", r"model\.keras")],
)  # fmt: skip
def test_what_is_no_finished_run_is_named(call, tmp_path, file, text, message):
    run = run_of(build_cnn(**TINY), tmp_path / "run")
    (run / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        call(publish, f"--run={run}")
    assert not (tmp_path / "models" / "cnn.keras").exists()


@pytest.mark.parametrize(
    ("build", "characters", "alphabet"),
    [(build_cnn, 62, ""), (build_ctc, 31, ""), (build_ctc, 36, ALPHABET.lower())],
)
def test_evaluate_names_an_alphabet_that_is_not_the_test_sets(
    call, tmp_path, build, characters, alphabet
):
    build(characters, **TINY).save(path := tmp_path / "own.keras")
    if alphabet:
        weights.describe(path, alphabet)
    known = alphabet or f"{characters} characters"
    with pytest.raises(ValueError, match=f"own.keras knows {known}"):
        call(evaluate, f"--model={path}")


def test_the_tables_of_the_readmes_are_up_to_date():
    for name in publish.READMES:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert text == publish.with_tables(text, ROOT, name), "run `make table`"
        assert len(publish.ROW.findall(text)) == len([*ROOT.glob("notebooks/ch*")])
    for lesson in lessons.find(ROOT)[:-1]:  # the last are the solutions
        text = lesson.module.read_text(encoding="utf-8")
        assert publish.PATH.search(text) and text == publish.with_path(lesson), "run `make table`"


def test_rows_have_minutes_of_words_and_lines_and_badges_where_there_is_an_address(call, tmp_path):
    lesson = lessons.Lesson(tmp_path, "ch1_circles")
    text, code = new_markdown_cell("word " * 1_000), new_code_cell("x = 1\n\n" * 150)
    fetch = new_code_cell("x = 1\n" * 100, metadata={"tags": ["colab"]})
    lessons.write_notebook(lesson.notebook, new_notebook(cells=[text, code, fetch]))
    row = "| [1. Circles](notebooks/ch1_circles.ipynb){} | you have | them | {} |\n"
    readme = MARKS + row.format("", 5)
    badges = publish.BADGES.format(f"ada/circles/blob/main/{lesson}")
    for owner, links in {"ada": badges, "YOUR_NAME": ""}.items():
        url = f'[project.urls]\nRepository = "https://github.com/{owner}/circles"\n'
        (tmp_path / "pyproject.toml").write_text(url)
        readme = publish.with_tables(readme, tmp_path, "README.md")
        assert readme.endswith(row.format(links, 25))  # 1,000 / 200 + 150 * 8 / 60
