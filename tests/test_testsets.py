"""Test sets with names, and the fingerprints that confirm them."""

import contextlib
import itertools
from collections import defaultdict
from functools import partial

import numpy as np
import pytest

from captcha_reader import drawing, practice, testsets
from captcha_reader.drawing import draw_captchas
from captcha_reader.practice import Practice
from captcha_reader.testsets import FINGERPRINTS, TEST_SETS, TestSet, draw_test_set, of_four
from notebooks_py import ch1_captcha_preview as ch1


def test_small_sets_are_the_beginning_of_large_ones():
    ((pictures, texts),) = draw_test_set("classic-100")  # and has its fingerprint
    assert pictures.shape == (100, 64, 128, 3) and len(texts) == len(set(texts)) == 100
    first, second = itertools.islice(draw_test_set("classic-10k"), 2)
    assert np.array_equal(first[0], pictures) and first[1] == texts
    assert not set(texts) & set(second[1])


def test_every_set_has_a_fingerprint_of_its_own_and_the_size_in_its_name():
    assert set(FINGERPRINTS) == set(TEST_SETS)
    assert len(set(FINGERPRINTS.values())) == len(TEST_SETS)
    sizes = {name: int(name.split("-")[-1].replace("k", "000")) for name in TEST_SETS}
    assert sizes == {name: test_set.n for name, test_set in TEST_SETS.items()}


@pytest.mark.parametrize(("name", "shape"), [
    ("default-1k", (60, 160)), ("preview-1k", (80, 170)), ("wide-1k", (64, 192)),
    ("modern-1k", (64, 128)),
])  # fmt: skip
def test_pictures_are_as_they_are_drawn(name, shape):
    ((_, _, draw),) = TEST_SETS[name].parts
    pictures, texts = draw(drawing.stream(1, "shapes", 0, 0), 3)
    assert pictures.shape == (3, *shape, 3) and {*map(len, texts)} == {4}


def test_training_choosing_and_testing_draw_from_streams_of_their_own(monkeypatch):
    splits, now = defaultdict(set), ""

    def spy(seed, split, epoch, index):
        splits[now].add(split)
        raise InterruptedError  # before anything is drawn

    for module in (testsets, practice, ch1):
        monkeypatch.setattr(module, "stream", spy)
    draws = [
        ("judge" if name.startswith("judge") else "test", partial(next, draw_test_set(name)))
        for name in TEST_SETS
    ]
    draws.append(("train", partial(Practice(0), 0)))
    for split in ("train", "valid"):
        draws.append((split, partial(ch1.CaptchaSequence(1, 1, 0, split).__getitem__, 0)))
    for split, draw in draws:
        now = split
        with contextlib.suppress(InterruptedError):
            draw()
    assert splits == {name: {name} for name in ("judge", "test", "train", "valid")}


def test_another_drawing_is_not_the_test_set(monkeypatch):
    """As it would be with another version of the captcha package or of Pillow."""

    def nearly(texts, rng):
        pictures = draw_captchas(texts, rng)
        pictures[57, 5, 5, 1] ^= 1
        return pictures

    monkeypatch.setitem(TEST_SETS, "classic-100", TestSet(((1, 100, of_four(nearly)),)))
    with pytest.raises(RuntimeError, match="classic-100.*expected 7188"):
        list(draw_test_set("classic-100"))


def test_an_unknown_name_is_refused_at_once():
    with pytest.raises(ValueError, match="'classic'.* classic-100,"):
        draw_test_set("classic")
