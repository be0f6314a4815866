"""Lesson 6: what the text says about the finished network, whichever that is."""

import itertools

import numpy as np

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.weights import finished
from notebooks_py import ch6_o0o0 as ch6


def test_the_finished_network_follows_the_hole_more_than_the_width():
    texts = 4 * ["".join(letters) for letters in itertools.product("O0", repeat=4)]
    pictures = draw_captchas(texts, stream(7, "changed", epoch=0, index=0))
    ways = [lambda p: p, lambda p: ch6.thicken(p, -2), lambda p: ch6.thicken(p, 2),
            lambda p: ch6.narrow(p, 26 / 30)]  # fmt: skip
    model = finished("ctc")[0]
    counts = [ch6.called_zero(model, np.stack([*map(way, pictures)]), texts) for way in ways]
    # The share of O, and of 0, called 0.
    plain, thin, thick, slim = ([called / n for called, n in pair] for pair in counts)
    assert plain[0] < 0.25 and plain[1] > 0.75
    assert thin[1] < 0.5 < thick[0]
    assert np.abs(np.subtract(slim, plain)).max() < 0.2
