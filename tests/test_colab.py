"""Once there is an address, a lesson begins with a cell that fetches what Google Colab lacks."""

import sys
from types import ModuleType, SimpleNamespace

from conftest import ROOT, edit
from IPython.core.inputtransformer2 import TransformerManager

from tools import format, gates, lessons


def test_a_real_address_brings_the_cell_and_no_lesson_has_to_run_again(mini):
    (lesson,) = lessons.find(mini)
    assert "git clone" not in str(lesson.read())
    edit(mini / "pyproject.toml", lessons.address(mini), "https://github.com/ada/circles")
    assert format.main([], mini) == 0
    assert lesson.read().cells[1].source == lessons.colab_cell(mini).source
    assert gates.messages(mini) == []


def test_the_cell_fetches_the_repository_and_the_pins_in_colab_alone(monkeypatch):
    commands = []
    shell = SimpleNamespace(system=commands.append)
    cell = TransformerManager().transform_cell(lessons.colab_cell(ROOT).source)
    monkeypatch.setattr(sys, "path", [*sys.path])
    exec(cell, {"get_ipython": lambda: shell})
    assert commands == []
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    exec(cell, {"get_ipython": lambda: shell})
    clone, install = (command.split() for command in commands)
    assert clone == ["git", "clone", "-q", "--depth", "1", lessons.address(ROOT)]
    assert sys.path[0] == "captcha-lessons"
    assert install[:3] == ["pip", "install", "-q"] and len(install) == 6
    assert set(install[3:]) <= set((ROOT / "pyproject.toml").read_text("utf-8").split('"'))
