"""Jupyter keeps both sides of a lesson equal, and a lesson goes on without finished weights."""

import ast
import asyncio
import json
import os

import jupytext
import pytest
from conftest import MODULE, NOTEBOOK, ROOT, snapshot

from tools import lessons


@pytest.mark.parametrize("older", [NOTEBOOK, MODULE])
def test_open_and_save_in_jupyter_changes_nothing(mini, older):
    jupyter = jupytext.AsyncTextFileContentsManager(root_dir=str(mini))  # what its server uses
    before = snapshot(mini)
    for name in (NOTEBOOK, MODULE):
        os.utime(mini / older, (0, 0))
        model = asyncio.run(jupyter.get(name, type="notebook"))
        sent = {key: model[key] for key in ("type", "format", "content")}
        asyncio.run(jupyter.save(json.loads(json.dumps(sent)), name))
        after = snapshot(mini)
        assert [path for path in before if before[path] != after.get(path)] == []


KEPT = {"finished", "measured", "read_results", "read_log", "check_weights"}


@pytest.mark.parametrize("name", ["ch2_cnn", "ch3_ctc", "ch4_gpu_training", "ch7_ctc_pytorch"])
def test_a_lesson_goes_on_without_models(name):
    """What needs a file of models/ stands behind `if available(...)`, which says what is missing.

    Lessons 5 and 6 are about such files from the first cell to the last, and stop with one line.
    """
    for _, cell in lessons.code_cells(lessons.Lesson(ROOT, name).read()):
        nodes = [*ast.walk(ast.parse(cell.source))]
        tests = [x for x in nodes if isinstance(x, ast.If) and "available(" in ast.unparse(x.test)]
        guarded = {inside for test in tests for inside in ast.walk(test)}
        for call in (x for x in nodes if isinstance(x, ast.Call)):
            assert ast.unparse(call.func) not in KEPT or call in guarded, ast.unparse(call)
