"""Lesson 6: the cue that survives the warp, the changes to a picture, and what is counted."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from captcha_reader.drawing import draw_captchas, draw_glyph, stream
from captcha_reader.texts import ALPHABET
from notebooks_py import ch6_o0o0 as ch6


class Oracle:
    """Stands in for a model: it reads the given texts, and with probability `doubt` an A behind."""

    def __init__(self, texts: list[str], doubt: float = 0.0):
        self.texts, self.doubt = iter(texts), doubt

    def predict_on_batch(self, X):
        chances = np.full((len(X), 16, 37), 1e-12, np.float32)
        for row, text in zip(chances, self.texts, strict=False):
            row[:, 0] = 1
            for place, character in enumerate(text):
                row[2 * place + 1, [0, ALPHABET.index(character) + 1]] = 1e-12, 1
            row[15, [0, 11]] = 1 - self.doubt, self.doubt + 1e-12
        return np.log(chances)


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


def test_strokes_grow_and_shrink():
    picture = draw_captchas(["O0O0"], stream(1, "test of lesson 6", epoch=0, index=0))[0]
    ink = [(255.0 - ch6.thicken(picture, quarters)).sum() for quarters in range(-3, 4)]
    assert ink == sorted(ink) and len(set(ink)) == 7


def test_a_narrow_captcha_keeps_its_height():
    picture = np.full((64, 128, 3), 250, np.uint8)
    picture[20:40, 30:60] = 90
    dark = ch6.narrow(picture, 0.5)[..., 0] < 170
    assert dark.shape == (64, 128) and dark.any(axis=1).sum() == 20
    assert abs(dark.any(axis=0).sum() - 15) <= 1


def test_zeros_are_counted_for_drawn_o_and_drawn_zero():
    pictures, model = np.zeros((3, 64, 128, 3), np.uint8), Oracle(["0O0O", "00", "O0OOO"])
    assert ch6.called_zero(model, pictures, ["O000", "OO00", "0000"]) == [3, 2]


def test_an_answer_is_as_sure_as_its_probability():
    pictures = np.zeros((3, 64, 128, 3), np.uint8)
    answers, sure = ch6.read_surely(Oracle(["AB7B", "", "1111"], doubt=0.25), pictures)
    assert answers == ["AB7B", "", "1111"]
    assert sure == pytest.approx([0.75] * 3, abs=1e-4)
