"""Each lesson: its committed notebook is what a new run shows, and it runs at small size."""

import re

import pytest
from conftest import ROOT

from tools import compare, lessons, run_lessons
from tools.lessons import Lesson

TINY = {"STEPS": 2, "EPOCHS": 1}
LESSONS = lessons.runnable(lessons.find(ROOT))
SIZED = [x for x in LESSONS if re.search("^# (STEPS|EPOCHS) =", x.module.read_text("utf-8"), re.M)]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_new_run_shows_what_the_committed_notebook_shows(lesson: Lesson, tmp_path):
    ok, printed = compare.strict(lesson, tmp_path)
    assert ok, printed


@pytest.mark.parametrize("lesson", SIZED, ids=lambda lesson: lesson.name)
def test_a_lesson_runs_at_its_smallest(lesson: Lesson, tmp_path):
    assert run_lessons.run(lesson, tmp_path, TINY) == "ok"
