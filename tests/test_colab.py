"""Once there is an address, a lesson begins with a cell that fetches what Google Colab lacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, commit, edit

from tools import format, gates, lessons

RUN = """
import sys, types
from IPython.core.interactiveshell import InteractiveShell
sys.modules["google.colab"] = types.ModuleType("google.colab")
InteractiveShell.instance().run_cell(sys.argv[1]).raise_error()
import captcha_reader
print(captcha_reader.__file__)
"""


def test_a_real_address_brings_the_cell_and_no_lesson_has_to_run_again(mini):
    (lesson,) = lessons.find(mini)
    assert "git clone" not in str(lesson.read())
    edit(mini / "pyproject.toml", lessons.address(mini), "https://github.com/ada/circles")
    assert format.main([], mini) == 0
    assert "git clone -q --depth 1 https://github.com/ada/circles" in lesson.read().cells[1].source
    assert gates.messages(mini) == []


@pytest.mark.skipif(os.name == "nt", reason="Colab runs on Linux")
def test_in_a_make_believe_colab_the_cell_fetches_the_repository_and_the_pins(tmp_path):
    library = tmp_path / "repository" / "captcha_reader" / "__init__.py"
    lessons.write(library, "")
    commit(tmp_path / "repository")
    lessons.write(tmp_path / "programs" / "pip", f'#!/bin/sh\necho "$@" > {tmp_path}/installed\n')
    (tmp_path / "programs" / "pip").chmod(0o755)
    (tmp_path / "content").mkdir()
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}/programs{os.pathsep}{os.environ['PATH']}",
        "IPYTHONDIR": str(tmp_path),
        "GIT_CONFIG_COUNT": "1",  # git fetches the tiny repository instead
        "GIT_CONFIG_KEY_0": f"url.{(tmp_path / 'repository').as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": lessons.address(ROOT),
    }
    command = [sys.executable, "-c", RUN, lessons.colab_cell(ROOT).source]
    printed = subprocess.check_output(command, cwd=tmp_path / "content", env=environment, text=True)
    assert Path(printed.splitlines()[-1]).is_relative_to(tmp_path / "content")
    command, *words = (tmp_path / "installed").read_text().split()
    pins = [word for word in words if "==" in word]
    assert command == "install" and len(pins) == 3
    assert set(pins) <= set(lessons.project(ROOT)["dependencies"])
