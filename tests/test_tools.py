"""make run-all, refresh, format and strict nbval on the repository of one tiny lesson."""

import base64
import os
import re
from unittest.mock import Mock

import pytest
from conftest import MODULE, NOTEBOOK, ROOT, edit, saved, snapshot
from PIL import Image

from tools import compare, format, gates, lessons, refresh, run_lessons


def test_run_all_runs_every_lesson_and_says_why_one_stopped(mini, capsys):
    before = snapshot(mini)
    assert run_lessons.main(["--steps=2"], mini) == 0
    folder = mini / "build" / "run-all" / "001"
    assert "2 circles" in (folder / "ch1_circles.ipynb").read_text(encoding="utf-8")
    assert (folder / "ch1_circles" / "run-001" / "imgs" / "circles.png").exists()
    assert snapshot(mini) == before
    edit(mini / NOTEBOOK, '"round(area(SEED), 5)"', '"1 / 0"')
    assert run_lessons.main([], mini) == 1
    *_, logs, row = capsys.readouterr().out.splitlines()
    assert logs == "logs: build/run-all/002/*.log" and [*(mini / "build/run-all/002").glob("*.log")]
    assert row.split(maxsplit=1)[1] == "cell [5]: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--steps=0", "--steps: '0' is not"),
        ("--seed=-1", "--seed: '-1' is not"),
        ("--only=ch9_none", "ch9_none is not a lesson; the lessons are: ch1_circles"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_runs(mini, capsys, word, message):
    with pytest.raises(SystemExit) as stop:
        run_lessons.main([word], mini)
    assert message in capsys.readouterr().err + str(stop.value)
    assert not (mini / "build" / "run-all").exists()


def test_ctrl_c_prints_the_table(mini, capsys, monkeypatch):
    monkeypatch.setattr(run_lessons, "run", Mock(side_effect=KeyboardInterrupt))
    assert run_lessons.main([], mini) == 1
    assert re.search(r"^ch1_circles +stopped", capsys.readouterr().out, re.M)


def test_without_pytorch_what_needs_it_is_left_out_in_one_line(mini, capsys, monkeypatch):
    names = [lesson.name for lesson in lessons.find(ROOT) if lessons.needs_torch(lesson)]
    assert names == ["ch7_ctc_pytorch", "solutions"]  # these import it from lesson 7
    monkeypatch.setattr(lessons.importlib.util, "find_spec", lambda name: None)
    assert lessons.runnable(lessons.find(mini)) == lessons.find(mini)
    edit(mini / NOTEBOOK, '"round(area(SEED), 5)"', '"import torch.nn"')
    assert lessons.runnable(lessons.find(mini)) == []
    assert "ch1_circles; `make setup-torch`" in capsys.readouterr().out


def test_refresh_runs_what_depends_on_an_edit(mini, capsys):
    edit(mini / MODULE, "is 3.14159", "was 3.14159")  # a text is no reason
    assert format.main([], mini) == refresh.main([], mini) == 0
    assert "ch1_circles: nothing changed" in capsys.readouterr().out
    edit(mini / MODULE, "radius**2", "radius**3")
    assert format.main(["--from=py"], mini) == refresh.main([], mini) == 0
    assert "25.13" in (mini / NOTEBOOK).read_text(encoding="utf-8")
    assert gates.messages(mini) == []


def test_refresh_leaves_files_as_they_were_when_a_cell_fails(mini, capsys):
    noisy = "# import sys\n# print('careful', file=sys.stderr)"
    edit(mini / MODULE, "# round(area(SEED), 5)", noisy)
    assert format.main([], mini) == 0
    before = snapshot(mini)
    assert refresh.main([], mini) == 1
    assert "wrote to stderr: 'careful'" in capsys.readouterr().out
    assert snapshot(mini) == before


@pytest.mark.parametrize("side", [MODULE, NOTEBOOK])
def test_format_carries_an_edit_of_either_side_and_keeps_outputs(mini, side):
    edit(mini / side, "A picture.", "One picture.")
    os.utime(mini / side, (0, 0))  # what counts is not which file is newer
    assert format.main([], mini) == 0
    for name in (MODULE, NOTEBOOK):
        assert "One picture." in (mini / name).read_text(encoding="utf-8")
    assert gates.messages(mini) == []


def test_format_loses_no_edit_where_both_sides_have_one(mini, capsys):
    edit(mini / MODULE, "# A picture.", "# One picture.")
    edit(mini / NOTEBOOK, "A picture.", "Another picture.")
    before = snapshot(mini)
    assert format.main([], mini) == 1
    assert "ch1_circles FROM=py" in capsys.readouterr().out and snapshot(mini) == before
    assert format.main(["--from=py"], mini) == 0
    assert "One picture." in (mini / NOTEBOOK).read_text(encoding="utf-8")


def test_strict_compares_every_digit_and_every_picture(mini, tmp_path):
    (lesson,) = lessons.find(mini)
    notebook = lesson.read()
    data = next(x.data for x in notebook.cells[4].outputs if "image/png" in x.get("data", {}))
    picture = compare.pixels(base64.b64decode(data["image/png"]))
    mirrored = saved(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    data["image/png"] = base64.b64encode(mirrored).decode()
    notebook.cells[6].outputs[0].data["text/plain"] = "3.14158"
    lessons.write_notebook(lesson.notebook, notebook)
    ok, printed = compare.strict(lesson, tmp_path)
    assert not ok and "2 failed, 2 passed" in printed.splitlines()[-1]
    assert "another picture than the committed one" in printed
