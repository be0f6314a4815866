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

# Runs in a fresh Python: what the libraries do when imported is not the lessons' doing.
WATCH = """
import importlib, json, sys, threading
from pathlib import Path
import psutil
libraries, modules, folder = json.loads(sys.argv[1])
for name in libraries:
    importlib.import_module(name)
def state():
    files = sorted(str(path) for path in Path(folder).rglob("*"))
    threads = sorted(thread.name for thread in threading.enumerate())
    return {"files": files, "threads": threads, "children": len(psutil.Process().children())}
before = state()
for name in modules:
    importlib.import_module(name)
after = state()
print(json.dumps([key for key in before if before[key] != after[key]]))
"""
LEAVES = """
open("left", "w").close()
import subprocess, threading, time
threading.Thread(target=lambda: time.sleep(2), daemon=True).start()
subprocess.Popen(["sleep", "2"])
"""


def side_effects(root: Path, folder: Path) -> list[str]:
    """What importing the lessons of `root` left behind in `folder`, in threads and processes."""
    found = lessons.runnable(lessons.find(root))
    trees = [ast.parse(lesson.module.read_text(encoding="utf-8")) for lesson in found]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    libraries = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    libraries |= {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    libraries = {name for name in libraries if name.split(".")[0] != "notebooks_py"}
    modules = [f"notebooks_py.{lesson.name}" for lesson in found]
    environment = {
        **lessons.kernel_environment(root, folder / "lessons"),
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    first = sorted(libraries, reverse=True)  # PyTorch before TensorFlow: lesson 7 says why
    command = [sys.executable, "-c", WATCH, json.dumps([first, modules, str(folder)])]
    result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_importing_every_lesson_leaves_nothing_behind(tmp_path):
    before = snapshot(ROOT / "notebooks_py")
    assert side_effects(ROOT, tmp_path) == []
    assert snapshot(ROOT / "notebooks_py") == before


def test_a_file_a_thread_and_a_process_are_noticed(mini, tmp_path):
    with (mini / "notebooks_py" / "ch2_double.py").open("a") as module:
        module.write(LEAVES)
    (tmp_path / "home").mkdir()
    assert side_effects(mini, tmp_path / "home") == ["files", "threads", "children"]


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
    guarded = 0
    for _, cell in lessons.code_cells(lessons.Lesson(ROOT, name).read()):
        tree = lessons.parse(cell)
        inside = [
            node
            for test in ast.walk(tree)
            if isinstance(test, ast.If) and "available(" in ast.unparse(test.test)
            for node in ast.walk(test)
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in KEPT:
                assert node in inside, ast.unparse(node)
                guarded += 1
    assert guarded
