"""The Makefile hands on or refuses options; versions agree; Colab gets the repository and pins."""

import os
import re
import shutil
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from conftest import ROOT, edit
from IPython.core.inputtransformer2 import TransformerManager

from tools import format, gates, lessons


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_a_tool_gets_its_options_as_they_are_and_others_are_refused(tmp_path):
    """With a Python that prints its arguments, one a line."""
    python = tmp_path / ".venv" / "bin" / "python"
    lessons.write(python, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith("MAKE")}
    options = {"cwd": tmp_path, "env": clean, "capture_output": True, "text": True}
    command = ["make", "-f", ROOT / "Makefile", "--assume-old=.venv/.installed"]

    def make(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([*command, *words], **options)

    for option, word in {
        "HELP=1": "--help",
        'MODEL=it\'s "two a=b".keras': '--model=it\'s "two a=b".keras',
        "MODLE=ctc": "--modle=ctc",  # argparse refuses it
    }.items():
        assert make("evaluate", option).stdout.splitlines() == ["-m", "tools.evaluate", word]
    given = "MODEL=two words.onnx", "LENGTH=4", "ALPHABET=01 2"
    *first, a, b, c, file = make("read", 'FILE=a"b c.png', *given).stdout.splitlines()
    assert (first, file) == (["-m", "captcha_reader"], 'a"b c.png')
    assert {a, b, c} == {"--model=two words.onnx", "--length=4", "--alphabet=01 2"}
    for target, taken in {"clean": "none", "table": "none", "test": "LESSON"}.items():
        result = make(target, "FOO=1")
        assert re.fullmatch(f".*FOO.*takes {taken}.*\n", result.stderr) and not result.stdout


def test_a_version_that_stands_in_several_files_is_the_same():
    project = lessons.project(ROOT)
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    pins = [pin for group in groups for pin in group]
    lock, conda, make, table, readme = ((ROOT / name).read_text("utf-8") for name in (
        "requirements.lock", "environment.yml", "Makefile", ".github/DEPENDENCIES.md", "README.md"
    ))  # fmt: skip
    assert set(pins) <= set(re.findall(r"^\S+==\S+", lock, re.M)), "run `make lock`"
    first, beyond = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    assert f"python{project['requires-python']}\n" in conda
    assert f"(3, {first}) <= v <= (3, {int(beyond) - 1})" in make
    versions = re.search(r"`python3` \(([\d., or]+)", readme)[1]  # the Chinese has the same
    assert re.findall(r"3\.(\d+)", versions) == [str(n) for n in range(int(first), int(beyond))]
    version = re.search(r"tensorflow\[and-cuda\](==\S+)\"", readme)[1]
    assert f"tensorflow{version}" in pins
    named = re.findall(r"^\| ([a-z][a-z0-9-]+) \|", table, re.M)[1:]
    assert named == [pin.partition("==")[0] for pin in pins]


def test_a_real_address_brings_the_cell_and_no_lesson_has_to_run_again(mini):
    (lesson,) = lessons.find(mini)
    assert "git clone" not in str(lesson.read())
    edit(mini / "pyproject.toml", "YOUR_NAME/captcha-lessons", "ada/circles")
    assert format.main([], mini) == 0
    cell = lesson.read().cells[1]
    assert cell.source == lessons.colab_cell(mini).source
    assert cell.metadata.items() > lessons.HIDDEN.items()
    assert gates.messages(mini) == []


def test_the_cell_fetches_the_repository_and_the_pins_in_colab_alone(monkeypatch):
    commands, address = [], "https://github.com/ada/circles"
    monkeypatch.setattr(lessons, "address", lambda root: address)
    shell = SimpleNamespace(system=commands.append)
    cell = TransformerManager().transform_cell(lessons.colab_cell(ROOT).source)
    monkeypatch.setattr(sys, "path", [*sys.path])
    exec(cell, {"get_ipython": lambda: shell})
    assert commands == []
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    exec(cell, {"get_ipython": lambda: shell})
    clone, install = (command.split() for command in commands)
    assert clone == ["git", "clone", "-q", "--depth", "1", address]
    assert sys.path[0] == "circles"
    assert install[:3] == ["pip", "install", "-q"] and len(install) == 6
    assert set(install[3:]) <= set((ROOT / "pyproject.toml").read_text("utf-8").split('"'))
