"""Lesson 6: the cue that survives the warp, the changes to a picture, and what is counted."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from captcha_reader.drawing import draw_captchas, draw_glyph, stream
from captcha_reader.texts import ALPHABET
from captcha_reader.weights import finished
from notebooks_py import ch6_o0o0 as ch6


def oracle(texts: list[str], doubt: float = 0.0) -> SimpleNamespace:
    """Return a model that reads these texts, and with probability `doubt` an A behind each."""
    chances = np.tile(np.eye(37)[0], (len(texts), 16, 1))
    for row, text in zip(chances, texts, strict=True):
        for place, character in enumerate(text):
            row[2 * place + 1] = np.eye(37)[ALPHABET.index(character) + 1]
        row[15, [0, 11]] = 1 - doubt, doubt
    logits = np.log(chances + 1e-12).astype("float32")
    return SimpleNamespace(predict_on_batch=lambda X: logits)


def test_the_hole_is_what_paint_poured_in_from_outside_does_not_reach():
    rng = stream(7, "test of lesson 6", epoch=0, index=0)
    for character in "0O" * 5:
        ink, hole = ch6.ink_and_hole(draw_glyph(character, (90, 120, 60, 240), rng).warped)
        page = ImageOps.expand(Image.fromarray(ink.astype(np.uint8)), 1)
        ImageDraw.floodfill(page, (0, 0), 2)
        outside = np.asarray(page)[1:-1, 1:-1] == 2
        assert not (ink & hole).any() and hole.any()
        assert (hole != ~ink & ~outside).mean() < 0.01  # a dent in the outline at most


def test_a_threshold_works_in_both_directions():
    zero = np.tile([True, False], 20)
    numbers = np.where(zero, 5.0, 2.0) + np.tile(np.linspace(0, 1, 20), 2)
    assert ch6.try_threshold(numbers, zero) == ch6.try_threshold(-numbers, zero) == (20, 20)


def test_strokes_grow_and_a_narrow_captcha_keeps_its_height():
    picture = np.full((64, 128, 3), 250, np.uint8)
    picture[20:40, 30:60] = 90
    changes = [ch6.thicken(picture, 4), ch6.thicken(picture, -4), ch6.narrow(picture, 0.5)]
    sides = [[np.any(p[..., 0] < 170, axis).sum() for axis in (1, 0)] for p in changes]
    assert sides == [[22, 32], [18, 28], [20, 15]]


def test_zeros_are_counted_for_drawn_o_and_drawn_zero():
    pictures, model = np.zeros((3, 64, 128, 3), np.uint8), oracle(["0O0O", "00", "O0OOO"])
    assert ch6.called_zero(model, pictures, ["O000", "OO00", "0000"]) == [3, 2]


def test_the_finished_network_follows_the_hole_and_not_the_width():
    texts = 4 * ["".join(letters) for letters in itertools.product("O0", repeat=4)]
    pictures = draw_captchas(texts, stream(7, "changed", epoch=0, index=0))
    ways = [lambda p: p, lambda p: ch6.thicken(p, -2), lambda p: ch6.thicken(p, 2),
            lambda p: ch6.narrow(p, 26 / 30)]  # fmt: skip
    model = finished("ctc")[0]
    counts = [ch6.called_zero(model, np.stack([*map(way, pictures)]), texts) for way in ways]
    plain, thin, thick, slim = np.divide(counts, 128)  # the share of O, and of 0, called 0
    assert plain[0] < 0.25 and plain[1] > 0.75
    assert thin[1] < 0.5 < thick[0]
    assert abs(slim - plain).max() < 0.2


def test_an_answer_is_as_sure_as_its_probability():
    pictures = np.zeros((3, 64, 128, 3), np.uint8)
    answers, sure = ch6.read_surely(oracle(["AB7B", "", "1111"], doubt=0.25), pictures)
    assert answers == ["AB7B", "", "1111"]
    assert sure == pytest.approx([0.75] * 3, abs=1e-4)
