"""The bank of glyphs: any alphabet and font, and pixels like the package's at any size."""

import operator
import pickle
import random

import numpy as np
import pytest
from matplotlib.font_manager import findfont

from captcha_reader import bank as bank_module
from captcha_reader.bank import GlyphBank
from captcha_reader.drawing import draw_captchas
from captcha_reader.reading import read_captchas
from captcha_reader.texts import random_texts


def test_any_alphabet_also_of_a_pickled_bank_and_what_is_not_in_it():
    bank = pickle.loads(pickle.dumps(GlyphBank(1, "abb", colors=2, copies=2)))
    assert [len(bank.glyphs[0][character]) for character in "ab"] == [2, 4]
    assert bank.draw(["b", "abbababb"], random.Random(1)).shape == (2, 64, 128, 3)
    for wrong, message in {"a7": "'7' in 'a7' .*'ab'", "": "'' .* at least one"}.items():
        with pytest.raises(ValueError, match=message):
            bank.draw(["ab", wrong], random.Random(1))


def features(pictures: np.ndarray) -> np.ndarray:
    """Five numbers for each picture: how bright, how spread, how much ink, edges and dark ink."""
    gray = pictures.astype("float32").mean(axis=3)
    ink = gray.max(axis=(1, 2), keepdims=True) - gray
    steps = np.abs(np.diff(gray, axis=2)).mean(axis=(1, 2))
    counts = [(ink > level).mean(axis=(1, 2)) for level in (20, 100)]
    return np.stack([gray.mean(axis=(1, 2)), gray.std(axis=(1, 2)), steps, *counts], axis=1)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return how far the means are apart at most, in standard errors of their difference."""
    error = np.sqrt(a.var(axis=0) / len(a) + b.var(axis=0) / len(b))
    return (np.abs(a.mean(axis=0) - b.mean(axis=0)) / error).max()


def test_pixels_are_distributed_as_the_packages(monkeypatch):
    texts = random_texts(random.Random(5), 500, "08KO")
    bank = GlyphBank(2, "08KO", colors=120, copies=6)  # many colours, copies that seldom meet
    for size in (128, 64), (240, 80):
        package = features(draw_captchas(texts, random.Random(6), *size))
        ours = features(bank.draw(texts, random.Random(7), *size))
        assert distance(ours, package) < 3
        assert np.allclose(ours.std(axis=0), package.std(axis=0), rtol=0.15)
    monkeypatch.setattr(bank_module, "add_dots", lambda picture, *_: picture)
    without_dots = features(bank.draw(texts, random.Random(7), *size))
    assert distance(without_dots, package) > 3  # so a difference would be seen


def test_the_finished_network_reads_what_a_bank_draws():
    """Letters in order and in the middle: the features above see neither."""
    texts = random_texts(random.Random(5), 40)
    pictures = GlyphBank(3, colors=5, copies=1).draw(texts, random.Random(6), 240, 80)
    answers = [reading.text for reading in read_captchas(pictures)]
    assert sum(map(operator.eq, answers, texts)) >= 36


def test_a_font_of_ones_own():
    banks = [GlyphBank(1, "W", 1, fonts=fonts) for fonts in ([findfont("DejaVu Serif")], ())]
    ours, theirs = (max(glyph.width for glyph, _ in bank.glyphs[0]["W"]) for bank in banks)
    assert ours > theirs  # the package's font is monospaced, its W narrow
