"""Lessons are modules without side effects, and Jupyter keeps both sides of a lesson equal."""

import ast
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import lessons
import pytest
from conftest import ROOT, UNTRACKED, snapshot

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
changed = [key for key in before if before[key] != after[key]]
print(json.dumps([f"{key}: {before[key]} became {after[key]}" for key in changed]))
"""


def side_effects(root: Path, folder: Path) -> list[str]:
    """What importing the lessons of `root` left behind in `folder`, in threads and processes."""
    found = lessons.runnable(lessons.find(root), notice=False)
    libraries = set()
    for lesson in found:
        for node in ast.walk(ast.parse(lesson.module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                libraries.add(node.module)
            elif isinstance(node, ast.Import):
                libraries |= {alias.name for alias in node.names}
    libraries = sorted(name for name in libraries if not name.startswith("notebooks_py"))
    modules = [f"notebooks_py.{lesson.name}" for lesson in found]
    result = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps([libraries, modules, str(folder)])],
        env={
            **lessons.kernel_environment(root, folder / "lessons"),
            "HOME": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_importing_every_lesson_leaves_nothing_behind(tmp_path: Path) -> None:
    before = snapshot(ROOT / "notebooks_py")
    assert side_effects(ROOT, tmp_path) == []
    assert snapshot(ROOT / "notebooks_py") == before


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('open("left", "w").close()', "files"),
        ("import threading; threading.Thread(target=input_, daemon=True).start()", "threads"),
        ('import subprocess; subprocess.Popen(["sleep", "5"])', "children"),
    ],
)
def test_a_file_a_thread_and_a_process_are_noticed(
    mini: Path, tmp_path: Path, line: str, what: str
) -> None:
    module = mini / "notebooks_py" / "ch2_double.py"
    wait = "import time; input_ = lambda: time.sleep(5)"
    module.write_text(f"{module.read_text(encoding='utf-8')}\n{wait}\n{line}\n", encoding="utf-8")
    (tmp_path / "home").mkdir()
    (found,) = side_effects(mini, tmp_path / "home")
    assert found.startswith(what)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Jupyter serving a copy of the lessons: the folder and the address of its contents."""
    folder = tmp_path_factory.mktemp("served") / "copy"
    shutil.copytree(ROOT, folder, ignore=UNTRACKED)
    runtime = tmp_path_factory.mktemp("runtime")
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(runtime),
        "JUPYTER_RUNTIME_DIR": str(runtime),
    }
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root",
               "--ServerApp.port=0", "--ServerApp.disable_check_xsrf=True",
               "--IdentityProvider.token=lessons", f"--ServerApp.root_dir={folder}"]  # fmt: skip
    with (runtime / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            ready = list(runtime.glob("jpserver-*.json"))
            if ready or process.poll() is not None:
                break
            time.sleep(0.1)
        assert ready, (runtime / "log").read_text()
        url = json.loads(ready[0].read_text())["url"]
        yield folder, f"{url}api/contents"
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
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError):
                raise AssertionError(error.read().decode()) from error
            time.sleep(0.1)  # the server writes its address shortly before it listens
    raise AssertionError(f"no answer from {url}")


@pytest.mark.parametrize("older", ["ipynb", "py", "neither"])
@pytest.mark.parametrize("lesson", [lesson.name for lesson in lessons.find(ROOT)])
def test_open_and_save_in_jupyter_changes_nothing(
    server: tuple[Path, str], lesson: str, older: str
) -> None:
    folder, contents = server
    before = snapshot(folder)
    sides = {"ipynb": f"notebooks/{lesson}.ipynb", "py": f"notebooks_py/{lesson}.py"}
    now = time.time()
    for side, name in sides.items():
        os.utime(folder / name, (now, now - 3600 * (side == older)))
    for name in sides.values():
        model = ask(f"{contents}/{name}?content=1&type=notebook")
        ask(f"{contents}/{name}", {key: model[key] for key in ("type", "format", "content")})
        after = snapshot(folder)
        assert [path for path in before if before[path] != after.get(path)] == []
