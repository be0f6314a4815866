"""Captchas from a seed are the package's own, whoever else draws random numbers beside them."""

import importlib.util
import random

import captcha.image
import numpy as np
import pytest

from captcha_reader.drawing import draw_captchas, seeded_library, stages
from captcha_reader.texts import random_texts

TEXTS = ["R2D2", "0O0O", "WWWW", "A"]


def test_a_captcha_is_the_packages_own(monkeypatch):
    monkeypatch.setattr(captcha.image, "random", random.Random(5))
    painter = captcha.image.ImageCaptcha(128, 64)
    theirs = np.stack([np.asarray(painter.generate_image(text)) for text in TEXTS])
    state = captcha.image.random.getstate()
    ours = draw_captchas(TEXTS, random.Random(5))
    assert captcha.image.random.getstate() == state  # a copy of the package drew
    assert (ours.shape, ours.dtype) == ((4, 64, 128, 3), np.uint8)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("size", [(128, 64), (170, 80), (192, 64)])
def test_the_last_stage_is_the_packages_picture(size):
    for seed in range(12):
        text = random_texts(random.Random(seed), 1, length=1 + seed % 6)[0]
        anatomy = stages(text, random.Random(seed), size)
        assert "".join(glyph.character for glyph in anatomy.glyphs) == text  # without blanks
        pictures = anatomy.pictures
        assert list(pictures) == ["pasted", "squeezed", "dots", "arc", "smoothed"]
        theirs = draw_captchas([text], random.Random(seed), *size)[0]
        assert np.array_equal(pictures["smoothed"], theirs), (text, seed)


@pytest.mark.parametrize("texts", [[], ["AB12", ""]])
def test_nothing_cannot_be_drawn(texts):
    with pytest.raises(ValueError, match="at least one text"):
        draw_captchas(texts, random.Random(1))


def test_a_package_that_draws_from_secrets_is_refused(monkeypatch, tmp_path):
    (tmp_path / "image.py").write_text("import secrets\n")
    spec = importlib.util.spec_from_file_location("captcha.image", tmp_path / "image.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(RuntimeError, match=r"draws from `secrets`.*captcha==0\.7\.0"):
        seeded_library(random.Random(1))
