"""Test sets with names, and the fingerprints that confirm them."""

import itertools
from functools import partial

import numpy as np
import pytest

from captcha_reader import practice, testsets
from captcha_reader.drawing import draw_captchas
from captcha_reader.practice import Practice
from captcha_reader.testsets import FINGERPRINTS, TEST_SETS, TestSet, draw_test_set, of_four
from tools import train


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
    splits = {name: "judge" if name.startswith("judge") else "test" for name in TEST_SETS}
    assert splits == {name: test_set.split for name, test_set in TEST_SETS.items()}


def test_pictures_have_the_size_that_their_name_says():
    sizes = {"default": (60, 160), "preview": (80, 170), "wide": (64, 192), "modern": (64, 128)}
    for name, size in sizes.items():
        pictures, texts = next(draw_test_set(f"{name}-1k"))
        assert pictures.shape == (100, *size, 3) and {*map(len, texts)} == {4}


def test_training_choosing_and_testing_draw_from_streams_of_their_own(monkeypatch):
    splits = []

    def spy(seed, split, epoch, index):
        splits.append(split)
        raise InterruptedError  # before anything is drawn

    for module in (testsets, practice, train):
        monkeypatch.setattr(module, "stream", spy)
    settings, *_ = train.read_options([])
    draws = [partial(next, draw_test_set(name)) for name in ("classic-1k", "judge-20k")]
    for draw in (*draws, partial(Practice(0), 0), partial(train.held_out, settings)):
        with pytest.raises(InterruptedError):
            draw()
    assert splits == ["test", "judge", "train", "valid"]


def test_another_drawing_is_not_the_test_set(monkeypatch):
    """As it would be with another version of the captcha package or of Pillow."""
    nearly = of_four(lambda texts, rng: draw_captchas(texts, rng) ^ 1)
    monkeypatch.setitem(TEST_SETS, "classic-100", TestSet(((1, 100, nearly),)))
    with pytest.raises(RuntimeError, match="classic-100.*expected 7188"):
        list(draw_test_set("classic-100"))


def test_an_unknown_name_is_refused_at_once():
    with pytest.raises(ValueError, match="'classic'.* classic-100,"):
        draw_test_set("classic")
