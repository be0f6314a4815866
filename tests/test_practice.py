"""What a network practises: numbers decide it, in any process; and the shares of what is in it."""

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from captcha_reader import practice
from captcha_reader.bank import GlyphBank
from captcha_reader.practice import Ahead, Labelled, Practice

SMALL = Practice(5, batch=2, epoch=10, colors=2)  # five batches an epoch


def test_the_number_and_the_seed_decide_every_byte_in_any_number_of_processes():
    here = [SMALL(number) for number in range(8)]
    contents = [pictures.tobytes() for pictures, _ in [*here, replace(SMALL, seed=6)(2)]]
    assert len(set(contents)) == 9
    short = replace(SMALL, bank=4)  # two batches, and the next come from other glyphs
    assert [short(n)[0].tobytes() == contents[n] for n in range(4)] == [True, True, False, False]
    with Ahead(SMALL, processes=2, ahead=3) as draw:
        for number in (0, 1, 2, 5, 6, 0, 7):
            pictures, texts = draw(number)
            assert pictures.tobytes() == contents[number] and texts == here[number][1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_the_processes_end_with_one_that_is_killed():
    code = "import os; from captcha_reader.practice import Ahead; "
    code += "Ahead(abs)(1); os.kill(os.getpid(), 9)"
    command = [sys.executable, "-c", code]
    pipe = {"stdout": subprocess.PIPE, "timeout": 60}  # those that draw have it, too
    assert subprocess.run(command, cwd=ROOT, **pipe).returncode == -9


def test_shares_and_sizes_are_what_they_say(monkeypatch):
    """With a bank that draws empty pages, and pictures that are not drawn, it takes a second."""
    calls = Counter()

    class Page:
        def draw(self, texts, rng, width, height):
            assert 50 <= height <= 100
            return np.zeros((len(texts), height, width, 3), np.uint8)

    def count(owner, name, function):
        monkeypatch.setattr(owner, name, lambda *x: calls.update([name]) or function(*x))

    monkeypatch.setattr(practice, "fresh_bank", lambda *_: Page())
    count(practice, "add_margin", practice.add_margin)
    count(practice, "slant", practice.slant)
    count(practice, "nothing_to_read", lambda rng, bank, size: bank.draw("?", rng, *size)[0])
    count(Practice, "draw_in_any_size", Practice.draw_in_any_size)
    shares = {"sizes": 0.6, "margins": 0.3, "slants": 0.2, "nothing": 0.1, "hard": 0.2}
    draw, texts = Practice(1, batch=8, **shares), []
    assert [draw(number)[0].shape[2] for number in (0, 1)] == [128, 168]  # so Keras sees two widths
    calls.clear()
    for number in range(2, 602):
        pictures, said = draw(number)
        assert pictures.dtype == np.uint8 and pictures.shape[:2] == (8, 64) and len(said) == 8
        columns, longest = pictures.shape[2] // 8, max(map(len, said))
        assert longest <= (6 if columns >= 21 else 5) and columns >= 2 * longest - 1  # CTC's need
        texts += said
    others = calls["draw_in_any_size"]
    ambiguous = sum(map("".join(texts).count, "O0")) / len("".join(texts))
    assert {
        "sizes": (others / 4_800 - 0.2) / 0.8,  # a fifth of the other batches has them, too
        "margins": calls["add_margin"] / others,
        "slants": calls["slant"] / others,
        "nothing": calls["nothing_to_read"] / others,
        "hard": (ambiguous - 2 / 36) / (0.75 * 34 / 36),  # 2 in 36 are so anyway
    } == pytest.approx(shares, abs=0.04)
    assert texts.count("") == calls["nothing_to_read"]


def test_the_classic_task_alone_has_nothing_else():
    pictures, texts = Practice(1, batch=40, sizes=0.0, size=(192, 64), colors=1)(0)
    assert pictures.shape == (40, 64, 192, 3) and {*map(len, texts)} == {4}


def test_nothing_to_read_comes_in_any_size_and_is_never_the_same(monkeypatch):
    lower_case_bank = practice.lower_case_bank.__wrapped__  # without its cache, and smaller
    monkeypatch.setattr(practice, "lower_case_bank", lower_case_bank)
    monkeypatch.setattr(practice, "GlyphBank", few := lambda *x: GlyphBank(*x[:2], 2, 1))
    bank, rng = few(1, practice.ALPHABET), random.Random(1)
    for kind in dict.fromkeys(practice.NOTHING):
        monkeypatch.setattr(practice, "NOTHING", (kind,))
        for width, height in ((95, 50), (340, 100)):
            one, other = (practice.nothing_to_read(rng, bank, (width, height)) for _ in range(2))
            assert one.shape == (height, width, 3) and not np.array_equal(one, other), kind


def test_labelled_pictures_come_equally_often_each_with_its_text():
    pictures = np.arange(70, dtype=np.uint8)[:, None, None, None]
    draw = Labelled(pictures, [str(i) for i in range(70)], seed=1)
    pairs = [pair for x, texts in map(draw, range(35)) for pair in zip(x.flat, texts, strict=True)]
    assert Counter(pairs) == {(i, str(i)): 16 for i in range(70)} and pairs[:70] != pairs[70:140]
