"""The Makefile installs once, says what to do where it cannot, and asks no Python but the given.

What is installed has a reason and a licence in DEPENDENCIES.md.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT

from tools import lessons

# A Python that says which version it is, and that makes a .venv with a Python that keeps a diary.
FAKE = """#!/bin/sh
if [ "$1" = -c ]; then
    exec {python} -c 'import sys; sys.version_info = ({version}, 0); exec(sys.argv[1])' "$2"
fi
mkdir -p .venv/bin
printf '#!/bin/sh\\necho "$@" >> diary\\n' > .venv/bin/python
chmod +x .venv/bin/python
exit {venv}
"""


@pytest.fixture
def make(tmp_path: Path):
    """Call make in a folder with a Makefile and two files, with a fake Python."""
    if os.name == "nt":
        pytest.skip("there is no make on Windows")
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)

    def call(*words: str, version: str = "3, 12", venv: int = 0) -> tuple[int, str, list[str]]:
        fake = tmp_path / "python-fake"
        fake.write_text(FAKE.format(python=sys.executable, version=version, venv=venv))
        fake.chmod(0o755)
        (tmp_path / "diary").write_text("")
        clean = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith("MAKE")}
        command = ["make", "--no-print-directory", f"PYTHON={fake}", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        result = subprocess.run(command, cwd=tmp_path, env=clean, **pipes)
        diary = (tmp_path / "diary").read_text().splitlines()
        return result.returncode, result.stdout, [line for line in diary if "pip" in line]

    return call


def test_another_python_is_refused_in_one_sentence(make, tmp_path):
    first, last = lessons.project(ROOT)["requires-python"].replace(">=", "").split(",<3.")
    for version in ("3, 10", "3, 14"):
        code, printed, _ = make("setup", version=version)
        assert code == 2 and printed.startswith(
            f"set-up: this is Python {version.replace(', ', '.')}, but the lessons need {first} to "
            f"3.{int(last) - 1}; name another one, as in `make run-all PYTHON=python3.12`\n"
        )
    assert not (tmp_path / ".venv").exists()


def test_a_missing_venv_module_is_named_and_tried_again(make, tmp_path):
    code, printed, _ = make("setup", venv=1)
    assert code == 2 and "set-up: Python could not make a virtual environment" in printed
    assert not (tmp_path / ".venv" / "bin" / "python").exists()
    assert make("setup")[0] == 0


def test_an_installation_is_reused_until_a_pin_changes(make, tmp_path):
    code, _, steps = make("setup")
    assert code == 0 and steps[0].endswith("-r requirements.lock") and len(steps) == 2
    assert make("setup", version="3, 14")[0] == 0  # .venv is there, so no other Python is asked
    assert make("setup")[2] == []
    os.utime(tmp_path / ".venv" / ".installed", (0, 0))  # older than the pins
    assert len(make("setup")[2]) == 2


def test_extras_come_on_request_and_are_kept_up_to_date(make, tmp_path):
    code, _, steps = make("setup-torch")
    assert code == 0 and len(steps) == 3
    assert "-c requirements.lock" in steps[2] and steps[2].endswith("-e .[torch]")
    assert make("setup")[2] == []
    os.utime(tmp_path / ".venv" / ".installed", (0, 0))
    assert any(".[torch]" in step for step in make("setup")[2])
    added = [step.split()[-1] for step in make("setup", "CI=true")[2]]
    assert added == [".[jax]", ".[onnx]", ".[site]"]


def test_an_unknown_variable_is_one_line(make):
    assert make("setup")[0] == 0
    for words, message in {
        "lint FOO=1": "lint: FOO is not an option; it takes none.",
        "test STEPS=2": "test: STEPS is not an option; it takes LESSON.",
        "refresh ONLY=ch2_cnn FORCED=1": "refresh: FORCED is not an option; it takes ONLY",
        "format FORM=py": "format: FORM is not an option; it takes ONLY FROM.",
    }.items():
        code, printed, _ = make(*words.split())
        assert code == 2 and message in printed and printed.count("\n") == 1
        assert make(words.split()[0])[0] == 0


def test_lab_starts_as_root_too(make):
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    assert ("--allow-root" in make("--dry-run", "lab")[1]) == root


def test_every_dependency_has_a_licence_and_a_reason():
    text = (ROOT / ".github" / "DEPENDENCIES.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([a-z][a-z0-9-]+) \| (.+) \| .+ \|$", text, re.M)[1:])
    project = lessons.project(ROOT)
    pins = [project["dependencies"], *project["optional-dependencies"].values()]
    assert list(rows) == [pin.partition("==")[0] for group in pins for pin in group]
    for name, licence in rows.items():
        for found in metadata.distributions(name=name):
            assert found.metadata.get("License-Expression") in (None, licence), name
