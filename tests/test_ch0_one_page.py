"""Lesson 0: it runs anywhere, and reads and counts as later lessons do."""

import ast
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from captcha_reader import scores
from notebooks_py import ch0_one_page as ch0
from notebooks_py.ch3_ctc import decode_ctc
from tools import lessons


def test_the_page_can_be_pasted_anywhere():
    notebook = lessons.Lesson(ROOT, "ch0_one_page").read()
    trees = [ast.parse(cell.source) for _, cell in lessons.code_cells(notebook)]
    packages = {name.split(".")[0] for tree in trees for name in lessons.imports(tree)}
    assert packages - sys.stdlib_module_names == {"captcha", "keras", "matplotlib", "numpy"}


def test_reading_and_interval_are_those_of_later_lessons():
    logits = np.random.default_rng(1).normal(size=(8, 16, 4))  # so few that A-A and AA occur
    network = SimpleNamespace(predict=lambda pictures, verbose: logits[: len(pictures)])
    pictures = [Image.new("RGB", (128, 64))] * len(logits)
    assert ch0.read(network, pictures) == decode_ctc(logits)
    for right in (0, 910, 1_000):
        assert ch0.wilson(right, 1_000) == pytest.approx(scores.wilson(right, 1_000), abs=1e-4)
