"""Lessons are modules without side effects, and Jupyter keeps both sides of a lesson equal."""

import ast
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import lessons
import pytest
from conftest import ROOT, snapshot

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
    libraries, found = set(), lessons.runnable(lessons.find(root))
    for lesson in found:
        for node in ast.walk(ast.parse(lesson.module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                libraries.add(node.module)
            elif isinstance(node, ast.Import):
                libraries |= {alias.name for alias in node.names}
    libraries = {name for name in libraries if name.split(".")[0] != "notebooks_py"}
    modules = [f"notebooks_py.{lesson.name}" for lesson in found]
    environment = {
        **lessons.kernel_environment(root, folder / "lessons"),
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", WATCH, json.dumps([sorted(libraries), modules, str(folder)])]
    result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_importing_every_lesson_leaves_nothing_behind(tmp_path: Path) -> None:
    before = snapshot(ROOT / "notebooks_py")
    assert side_effects(ROOT, tmp_path) == []
    assert snapshot(ROOT / "notebooks_py") == before


def test_a_file_a_thread_and_a_process_are_noticed(mini: Path, tmp_path: Path) -> None:
    with (mini / "notebooks_py" / "ch2_double.py").open("a") as module:
        module.write(LEAVES)
    (tmp_path / "home").mkdir()
    assert side_effects(mini, tmp_path / "home") == ["files", "threads", "children"]


@pytest.fixture
def server(mini: Path, tmp_path: Path) -> Iterator[str]:
    """Jupyter serving the tiny repository: the address of its contents."""
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(tmp_path),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root",
               "--ServerApp.port=0", "--ServerApp.disable_check_xsrf=True",
               "--IdentityProvider.token=lessons", f"--ServerApp.root_dir={mini}"]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            ready = list((tmp_path / "runtime").glob("jpserver-*.json"))
            if ready or process.poll() is not None:
                break
            time.sleep(0.1)
        assert ready, (tmp_path / "log").read_text()
        yield f"{json.loads(ready[0].read_text())['url']}api/contents"
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(url: str, model: dict | None = None) -> dict:
    """Get a model from the server, or put one."""
    request = urllib.request.Request(
        url,
        method="PUT" if model else "GET",
        data=json.dumps(model).encode() if model else None,
        headers={"Authorization": "token lessons", "Content-Type": "application/json"},
    )
    for _ in range(50):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except urllib.error.URLError:
            time.sleep(0.1)  # the server writes its address shortly before it listens
    raise AssertionError(f"no answer from {url}")


def test_open_and_save_in_jupyter_changes_nothing(server: str, mini: Path) -> None:
    before = snapshot(mini)
    sides = ("notebooks/ch1_circles.ipynb", "notebooks_py/ch1_circles.py")
    for older in sides:
        for name in sides:
            os.utime(mini / name, (time.time(), time.time() - 3600 * (name == older)))
        for name in sides:
            model = ask(f"{server}/{name}?content=1&type=notebook")
            ask(f"{server}/{name}", {key: model[key] for key in ("type", "format", "content")})
            after = snapshot(mini)
            assert [path for path in before if before[path] != after.get(path)] == []


KEPT = {"finished", "measured", "read_results", "read_log", "check_weights"}


@pytest.mark.parametrize("name", ["ch2_cnn", "ch3_ctc", "ch4_gpu_training", "ch7_ctc_pytorch"])
def test_a_lesson_goes_on_without_models(name: str) -> None:
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
