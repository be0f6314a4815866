"""Once there is an address, a lesson begins with a cell that fetches what Google Colab lacks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, edit

from tools import format, gates, lessons

RUN = """
import sys, types
from IPython.core.interactiveshell import InteractiveShell
for name in sys.argv[2:]:
    sys.modules[name] = types.ModuleType(name)
InteractiveShell.instance().run_cell(sys.argv[1]).raise_error()
import captcha_reader
print(captcha_reader.__file__)
"""


def test_without_an_address_no_lesson_has_the_cell():
    tags = [lessons.tags(cell) for x in lessons.find(ROOT) for cell in x.read().cells]
    assert lessons.has_address(ROOT) == any(lessons.COLAB in found for found in tags)


def test_it_fetches_the_address_and_the_pins_of_pyproject():
    cell = lessons.colab_cell(ROOT).source
    assert cell.count(f" {lessons.address(ROOT)}\n") == 1
    pins = re.findall(r"\S+==\S+", cell)
    assert [pin.partition("==")[0] for pin in pins] == ["captcha", "keras", "onnxruntime"]
    assert set(pins) <= set(lessons.project(ROOT)["dependencies"])


@pytest.mark.skipif(os.name == "nt", reason="Colab runs on Linux")
@pytest.mark.parametrize("colab", [True, False])
def test_the_cell_in_a_make_believe_colab(colab, mini_made, tmp_path):
    (content := tmp_path / "content").mkdir()
    (programs := tmp_path / "programs").mkdir()
    (programs / "pip").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/installed\n')
    (programs / "pip").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "IPYTHONDIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "GIT_CONFIG_COUNT": "1",  # git fetches the tiny repository instead
        "GIT_CONFIG_KEY_0": f"url.{mini_made.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": lessons.address(ROOT),
    }
    modules = ["google.colab"] if colab else []
    command = [sys.executable, "-c", RUN, lessons.colab_cell(ROOT).source, *modules]
    printed = subprocess.check_output(command, cwd=content, env=environment, text=True)
    library = Path(printed.splitlines()[-1])
    if not colab:
        assert library.is_relative_to(ROOT) and list(content.iterdir()) == []
        return
    (clone,) = content.iterdir()
    assert library == clone / "captcha_reader" / "__init__.py"
    assert (tmp_path / "installed").read_text().split()[0] == "install"


def test_an_address_brings_the_cell_and_needs_no_new_run(mini):
    lesson = lessons.find(mini)[1]
    before = lessons.source_hash(lesson)
    edit(mini / "pyproject.toml", lessons.address(mini), "https://github.com/ada/circles")
    assert format.main(["--root", str(mini)]) == 0
    assert "https://github.com/ada/circles\n" in lesson.module.read_text(encoding="utf-8")
    assert lessons.COLAB in lessons.tags(lesson.read().cells[1])
    assert lessons.source_hash(lesson) == before
    assert gates.sync(mini) == gates.outputs(mini) == []
