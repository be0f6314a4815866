"""What a network practises: numbers decide it, in any process; and the shares of what is in it."""

import dataclasses
import operator
import os
import pickle
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from captcha_reader import practice
from captcha_reader.bank import GlyphBank
from captcha_reader.practice import Ahead, Practice
from captcha_reader.reading import network_width

SMALL = Practice(5, batch=2, epoch=10, colors=2)  # five batches an epoch
KILLED = """
import operator, os, signal
from captcha_reader.practice import Ahead
ahead = Ahead(operator.neg, processes=2)
ahead(1)
print("at work", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def same(one: tuple, other: tuple) -> bool:
    """Whether two batches have the same pictures and texts."""
    return np.array_equal(one[0], other[0]) and one[1] == other[1]


def test_the_number_and_the_seed_decide_every_byte_in_any_number_of_processes():
    here = [SMALL(number) for number in range(8)]
    assert not any(same(here[i], here[j]) for i in range(8) for j in range(i))
    assert not same(here[2], dataclasses.replace(SMALL, seed=6)(2))
    practice.fresh_bank.cache_clear()
    assert same(here[5], SMALL(5)) and same(here[0], SMALL(0))
    for processes in (1, 2):
        with Ahead(SMALL, processes, ahead=3) as draw:
            assert all(same(draw(number), here[number]) for number in (0, 1, 2, 5, 6, 0, 7))


def test_a_bank_can_be_sent_to_another_process():
    bank = GlyphBank(1, colors=2, copies=1)
    twin = pickle.loads(pickle.dumps(bank))
    assert np.array_equal(*(x.draw(["AB0O"], random.Random(1), 200, 90) for x in (bank, twin)))


def test_each_epoch_has_a_bank_of_its_own(monkeypatch):
    banks, fresh = [], practice.fresh_bank
    monkeypatch.setattr(practice, "fresh_bank", lambda *x: banks.append(x) or fresh(*x))
    for number in (4, 5, 9, 10):
        SMALL(number)
    assert banks == [(5, 0, 2), (5, 1, 2), (5, 1, 2), (5, 2, 2)]
    assert not np.array_equal(*(fresh(5, e, 2).draw(["A"], random.Random(1)) for e in (1, 2)))


@pytest.mark.parametrize("sizes", [0.1, 1.0])
def test_keras_sees_in_the_first_two_batches_that_widths_differ(sizes):
    for seed in range(3):
        drawn = Practice(seed, batch=1, sizes=sizes, colors=1)
        assert len({drawn(number)[0].shape[2] for number in (0, 1)}) == 2


class Page:
    """A bank that draws nothing and notes what it is asked for."""

    asked: list[tuple] = []

    def draw(self, texts: list[str], rng: random.Random, width: int, height: int) -> np.ndarray:
        self.asked.append((len(texts), width, height))
        return np.zeros((len(texts), height, width, 3), np.uint8)


def test_shares_and_sizes_are_what_they_say(monkeypatch):
    page, made, scale = Page(), Counter(), practice.scale

    def scaled(pictures, width=None):
        assert width in (None, network_width(pictures.shape[2], pictures.shape[1]))  # undistorted
        return scale(pictures, width)

    def nothing(rng, bank, size):
        return np.zeros((*size[::-1], 3), np.uint8)

    def note(name, function):
        monkeypatch.setattr(practice, name, lambda *x: made.update([name]) or function(*x))

    monkeypatch.setattr(practice, "fresh_bank", lambda *_: page)
    monkeypatch.setattr(practice, "scale", scaled)
    note("add_margin", practice.add_margin)
    note("slant", practice.slant)
    note("nothing_to_read", nothing)
    settings = {"sizes": 0.6, "margins": 0.3, "slants": 0.2, "nothing": 0.1, "hard": 0.2}
    drawn, all_texts, other, any_size = Practice(1, batch=8, **settings), "", [], 0
    draw = Practice.draw_in_any_size
    monkeypatch.setattr(
        Practice, "draw_in_any_size", lambda *x: other.append(pair := draw(*x)) or pair
    )
    for number in range(2, 602):
        page.asked.clear()
        before = len(other)
        pictures, texts = drawn(number)
        assert pictures.dtype == np.uint8 and pictures.shape[:2] == (8, 64) and len(texts) == 8
        columns, lengths = pictures.shape[2] // 8, set(map(len, texts))
        assert max(lengths) <= (6 if columns >= 21 else 5)
        assert columns >= 2 * max(lengths) - 1  # CTC needs so many
        assert all(n == 1 and 50 <= height <= 100 for n, _, height in page.asked)
        any_size += len(other) - before == 8
        assert columns == 16 or len(other) - before == 8
        all_texts += "".join(texts)
    others = [text for _, text in other]
    assert others.count("") == made["nothing_to_read"] and set(map(len, others)) == set(range(7))
    hard = sum(map(all_texts.count, "O0")) / len(all_texts)  # 2 in 36 are so anyway
    found = {
        "sizes": any_size / 600,
        "margins": made["add_margin"] / len(other),
        "slants": made["slant"] / len(other),
        "nothing": others.count("") / len(other),
        "hard": (hard - 2 / 36) / (0.75 * 34 / 36),
    }
    assert found == pytest.approx(settings, abs=0.04)
    assert len(other) / 4_800 == pytest.approx(0.6 + 0.4 / 5, abs=0.04)
    page.asked.clear()
    plain = Practice(1, batch=8, sizes=0.0, hard=0.0, size=(192, 64))
    assert all({len(text) for text in plain(number)[1]} == {4} for number in range(20))
    assert page.asked == [(8, 192, 64)] * 20


@pytest.mark.parametrize("kind", practice.NOTHING)
def test_nothing_to_read_comes_in_any_size_and_is_never_the_same(monkeypatch, kind):
    monkeypatch.setattr(practice, "NOTHING", (kind,))
    bank, rng = GlyphBank(1, colors=2, copies=1), random.Random(kind)
    for size in ((128, 64), (95, 50), (340, 100)):
        pictures = [practice.nothing_to_read(rng, bank, size) for _ in range(2)]
        assert not np.array_equal(*pictures)
        assert {(x.shape, x.dtype) for x in pictures} == {((*size[::-1], 3), np.dtype("uint8"))}


def test_numbers_are_drawn_ahead_in_strides_and_may_jump():
    with Ahead(operator.neg, ahead=3, stride=2) as draw:
        assert (draw(1), draw(3)) == (-1, -3) and set(draw.waiting) == {5, 7}
        assert draw(21) == -21 and set(draw.waiting) == {23, 25}  # a run that goes on
        assert draw(1) == -1  # the next call of fit


def test_what_goes_wrong_in_the_process_is_told_here():
    with Ahead(operator.methodcaller("upper")) as draw, pytest.raises(AttributeError, match="int"):
        draw(1)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_the_processes_end_when_their_parent_is_killed():
    environment = {**os.environ, "PYTHONPATH": str(Path(practice.__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True,
                              env=environment)  # fmt: skip
    printed, _ = parent.communicate(timeout=60)  # the pipe closes when the last of them has ended
    assert parent.returncode == -signal.SIGKILL and printed == "at work\n"
