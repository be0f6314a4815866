"""Test sets with names, and the fingerprints that confirm them."""

import itertools

import numpy as np
import pytest

from captcha_reader.drawing import draw_captchas, draw_wide
from captcha_reader.testsets import TEST_SETS, draw_test_set, fingerprint


def test_small_sets_are_the_beginning_of_large_ones():
    ((pictures, texts),) = draw_test_set("classic-100")  # and has its fingerprint
    assert pictures.shape == (100, 64, 128, 3) and len(texts) == len(set(texts)) == 100
    first, second = itertools.islice(draw_test_set("classic-10k"), 2)
    assert np.array_equal(first[0], pictures) and first[1] == texts
    assert not set(texts) & set(second[1])


def nearly(texts, rng):
    """Draw captchas with one bit of one pixel changed."""
    pictures = draw_captchas(texts, rng)
    pictures[57, 5, 5, 1] ^= 1
    return pictures


@pytest.mark.parametrize("draw", [draw_wide, nearly])
def test_another_drawing_is_not_the_test_set(monkeypatch, draw):
    """As it would be with another version of the captcha package or of Pillow."""
    monkeypatch.setitem(TEST_SETS, "classic-100", (100, draw))
    batches = draw_test_set("classic-100")
    next(batches)
    with pytest.raises(RuntimeError, match="captchas of classic-100.*expected 7188.*pinned"):
        next(batches)


def test_an_unknown_name_is_refused_at_once():
    with pytest.raises(ValueError, match="no test set 'classic': there are classic-100,"):
        draw_test_set("classic")


def test_a_fingerprint_sees_values_shapes_and_types():
    array = np.arange(12, dtype=np.uint8)
    other = [array[::-1], array.reshape(3, 4), array.astype(np.int8)]
    assert len({fingerprint(x) for x in [array, *other]}) == 4
    assert fingerprint(array.reshape(3, 4).T.copy().T) == fingerprint(array.reshape(3, 4))
