"""Lessons are modules without side effects, and Jupyter keeps both sides of a lesson equal."""

import ast
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import pytest
from conftest import ROOT, snapshot

from tools import lessons

# Runs in a fresh Python that has imported the libraries: what these do is not the lessons' doing.
WATCH = """
import importlib, json, sys, threading
from pathlib import Path
import psutil
import torch, keras, onnxruntime, matplotlib.pyplot, pandas
def state():
    files = sorted(str(path) for path in Path(".").rglob("*"))
    threads = sorted(thread.name for thread in threading.enumerate())
    return {"files": files, "threads": threads, "children": len(psutil.Process().children())}
before = state()
for name in sys.argv[1:]:
    importlib.import_module(f"notebooks_py.{name}")
after = state()
print(json.dumps([key for key in before if before[key] != after[key]]))
"""
LEAVES = """
open("left", "w").close()
import subprocess, threading, time
threading.Thread(target=lambda: time.sleep(2), daemon=True).start()
subprocess.Popen(["sleep", "2"])
"""


def side_effects(root: Path, folder: Path, names: list[str]) -> list[str]:
    """Return what importing lessons of `root` changed: files in `folder`, threads, processes."""
    environment = lessons.kernel_environment(root, folder) | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", WATCH, *names]
    result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_importing_lessons_leaves_nothing_behind_and_what_is_left_is_noticed(mini, tmp_path):
    pytest.importorskip("torch", reason="`make setup-torch` adds it")
    assert side_effects(ROOT, tmp_path, [lesson.name for lesson in lessons.find(ROOT)]) == []
    with (mini / "notebooks_py" / "ch1_circles.py").open("a") as module:
        module.write(LEAVES)
    assert side_effects(mini, tmp_path, ["ch1_circles"]) == ["files", "threads", "children"]


def test_open_and_save_in_jupyter_changes_nothing(mini):
    jupyter = jupytext.AsyncTextFileContentsManager(root_dir=str(mini))  # what its server uses
    before = snapshot(mini)
    sides = ("notebooks/ch1_circles.ipynb", "notebooks_py/ch1_circles.py")
    for older in sides:
        for name in sides:
            os.utime(mini / name, (time.time(), time.time() - 3600 * (name == older)))
        for name in sides:
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
        nodes = [*ast.walk(lessons.parse(cell))]
        tests = [x for x in nodes if isinstance(x, ast.If) and "available(" in ast.unparse(x.test)]
        guarded = {inside for test in tests for inside in ast.walk(test)}
        for call in (x for x in nodes if isinstance(x, ast.Call)):
            assert ast.unparse(call.func) not in KEPT or call in guarded, ast.unparse(call)
