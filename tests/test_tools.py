"""make run-all, refresh, format, strict nbval and Jupyter on the repository of one tiny lesson."""

import asyncio
import base64
import json
import os
import re
from unittest.mock import Mock

import jupytext
import pytest
from conftest import MODULE, NOTEBOOK, ROOT, edit, saved, snapshot

from tools import compare, format, gates, lessons, refresh, run_lessons

FACT = "round(area(SEED), 5)"


def test_run_all_runs_every_lesson_and_says_why_one_stopped(mini, capsys):
    before = snapshot(mini)
    assert run_lessons.main(["--steps=2"], mini) == 0
    folder = mini / "build" / "run-all" / "001"
    assert "2 circles" in (folder / "ch1_circles.ipynb").read_text(encoding="utf-8")
    assert (folder / "ch1_circles" / "run-001" / "imgs" / "circles.png").exists()
    assert snapshot(mini) == before
    edit(mini / NOTEBOOK, f'"{FACT}"', '"1 / 0"')
    assert run_lessons.main([], mini) == 1
    *_, logs, row = capsys.readouterr().out.splitlines()
    assert logs == "logs: build/run-all/002/*.log" and [*(mini / "build/run-all/002").glob("*.log")]
    assert row.split(maxsplit=1)[1] == "cell [5]: ZeroDivisionError: division by zero"


def test_an_unknown_lesson_is_named_and_ctrl_c_prints_the_table(mini, capsys, monkeypatch):
    with pytest.raises(ValueError, match="ch9 is not a lesson; the lessons are: ch1_circles"):
        run_lessons.main(["--only=ch9"], mini)
    monkeypatch.setattr(run_lessons, "run", Mock(side_effect=KeyboardInterrupt))
    assert run_lessons.main([], mini) == 1
    assert re.search(r"^ch1_circles +stopped", capsys.readouterr().out, re.M)


def test_without_pytorch_what_needs_it_is_left_out_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(lessons.importlib.util, "find_spec", lambda name: None)
    run = lessons.runnable(lessons.find(ROOT))
    names = [lesson.name for lesson in lessons.find(ROOT) if lesson not in run]
    assert names == ["ch7_ctc_pytorch", "solutions"]  # which imports PyTorch from lesson 7
    assert f"left out: {', '.join(names)}; `make setup-torch`" in capsys.readouterr().out


def test_refresh_runs_what_depends_on_an_edit_and_changes_nothing_if_a_cell_fails(mini, capsys):
    edit(mini / MODULE, "is 3.14159", "was 3.14159")  # a text is no reason
    assert format.main([], mini) == refresh.main([], mini) == 0
    assert "ch1_circles: nothing changed" in capsys.readouterr().out
    edit(mini / MODULE, "radius**2", "radius**3")
    assert format.main(["--from=py"], mini) == refresh.main([], mini) == 0
    assert "25.13" in (mini / NOTEBOOK).read_text(encoding="utf-8")
    assert gates.messages(mini) == []
    edit(mini / MODULE, f"# {FACT}", "# import sys\n# print('careful', file=sys.stderr)")
    assert format.main(["--from=py"], mini) == 0
    before = snapshot(mini)
    assert refresh.main([], mini) == 1
    assert "wrote to stderr: 'careful'" in capsys.readouterr().out
    assert snapshot(mini) == before


@pytest.mark.parametrize("side", [MODULE, NOTEBOOK])
def test_format_carries_an_edit_of_either_side_and_asks_where_both_have_one(mini, side, capsys):
    edit(mini / side, "A picture.", "One picture.")
    os.utime(mini / side, (0, 0))  # what counts is not which file is newer
    assert format.main(["--from=py"], mini) == 0  # which is for clashes alone
    for name in (MODULE, NOTEBOOK):
        assert "One picture." in (mini / name).read_text(encoding="utf-8")
    assert gates.messages(mini) == []  # outputs are kept
    edit(mini / MODULE, "A fact", "One fact")
    edit(mini / NOTEBOOK, "A fact", "Another fact")
    before = snapshot(mini)
    assert format.main([], mini) == 1
    assert "ch1_circles FROM=py" in capsys.readouterr().out and snapshot(mini) == before
    assert format.main(["--from=py"], mini) == 0
    assert "One fact" in (mini / NOTEBOOK).read_text(encoding="utf-8")


def test_strict_compares_every_digit_and_every_picture(mini, tmp_path):
    (lesson,) = lessons.find(mini)
    notebook = lesson.read()
    data = next(x.data for x in notebook.cells[4].outputs if "image/png" in x.get("data", {}))
    picture = compare.pixels(base64.b64decode(data["image/png"]))
    picture.paste("white", (0, 0, 30, 100))  # over a label of an axis
    data["image/png"] = base64.b64encode(saved(picture)).decode()
    notebook.cells[6].outputs[0].data["text/plain"] = "3.14158"
    lessons.write_notebook(lesson.notebook, notebook)
    ok, printed = compare.strict(lesson, tmp_path)
    assert not ok and "2 failed, 2 passed" in printed.splitlines()[-1]
    assert "another picture than the committed one" in printed


@pytest.mark.parametrize("older", [NOTEBOOK, MODULE])
def test_open_and_save_in_jupyter_changes_nothing(mini, older):
    jupyter = jupytext.AsyncTextFileContentsManager(root_dir=str(mini))  # what its server uses
    before = snapshot(mini)
    for name in (NOTEBOOK, MODULE):
        os.utime(mini / older, (0, 0))
        model = asyncio.run(jupyter.get(name, type="notebook"))
        sent = {key: model[key] for key in ("type", "format", "content")}
        asyncio.run(jupyter.save(json.loads(json.dumps(sent)), name))
        assert before.items() <= snapshot(mini).items()
