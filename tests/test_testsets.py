"""Test sets with names, and the fingerprints that confirm them."""

import itertools
from collections import defaultdict

import numpy as np
import pytest

from captcha_reader import drawing, practice, testsets
from captcha_reader.drawing import draw_captchas
from captcha_reader.practice import Practice
from captcha_reader.testsets import FINGERPRINTS, TEST_SETS, TestSet, draw_test_set, of_four


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
    pictures, texts = next(draw_test_set(name))
    assert pictures.shape == (100, *shape, 3) and {*map(len, texts)} == {4}


def test_sizes_has_all_lengths_and_six_characters_only_where_there_is_room():
    lengths, shapes = defaultdict(set), set()
    for pictures, texts in itertools.islice(draw_test_set("sizes-10k"), 40):
        height, width = pictures.shape[1:3]
        assert 50 <= height <= 100 and 1.8 < width / height < 3.5
        lengths[width >= 2.6 * height] |= {*map(len, texts)}
        shapes.add((width, height))
    assert lengths == {False: {1, 2, 3, 4, 5}, True: {1, 2, 3, 4, 5, 6}} and len(shapes) > 30


def test_nothing_has_pictures_of_many_sizes_and_no_texts():
    batches = [*draw_test_set("nothing-1k")]
    assert {text for _, texts in batches for text in texts} == {""}
    assert len({pictures.shape for pictures, _ in batches}) > 40
    assert len({picture.tobytes() for pictures, _ in batches for picture in pictures}) == 1_000


def test_training_choosing_and_testing_draw_from_streams_of_their_own(monkeypatch):
    splits, now = defaultdict(set), ""

    def spy(seed, split, epoch, index):
        splits[now].add(split)
        return drawing.stream(seed, split, epoch, index)

    for module in (testsets, practice):
        monkeypatch.setattr(module, "stream", spy)
    for name in TEST_SETS:
        now = "judge" if name.startswith("judge") else "test"
        next(draw_test_set(name))
    now = "train"
    Practice(0, batch=2, colors=1)(0)
    assert splits == {name: {name} for name in ("judge", "test", "train")}


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
