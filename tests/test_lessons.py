"""Each lesson: its committed notebook is what a new run shows, and it runs at small size."""

import pytest
from conftest import ROOT

from tools import compare, lessons, run_lessons
from tools.lessons import Lesson

TINY = {"STEPS": 2, "EPOCHS": 1}
LESSONS = [pytest.param(lesson, id=lesson.name) for lesson in lessons.runnable(lessons.find(ROOT))]


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_new_run_shows_what_the_committed_notebook_shows(lesson: Lesson, tmp_path):
    ok, printed = compare.strict(lesson, tmp_path)
    assert ok, printed


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_at_its_smallest(lesson: Lesson, tmp_path):
    assert run_lessons.run(lesson, tmp_path, TINY) == "ok"
