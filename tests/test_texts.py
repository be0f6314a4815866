"""Texts to labels and back."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captcha_reader.texts import (
    ALPHABET,
    ctc_labels,
    decode,
    decode_heads,
    encode,
    one_hot,
    random_texts,
    texts_of_any_length,
)


@given(st.lists(st.text("aZ9ß字", min_size=6, max_size=6), min_size=1, max_size=5))
def test_labels_round_trip(texts):
    labels = encode(texts, alphabet := "aZ9ß字", length=6)
    assert (labels.shape, labels.dtype) == ((len(texts), 6), np.int32)
    assert decode(labels, alphabet) == texts
    heads = one_hot(labels, len(alphabet))
    assert all((head.sum(axis=1) == 1).all() for head in heads)
    assert decode_heads(heads, alphabet) == texts


@given(st.lists(st.text("aZ9ß", max_size=7), max_size=5))
def test_ctc_labels_are_filled_up_with_blanks(texts):
    labels = ctc_labels(texts, alphabet := "aZ9ß", length=7)
    assert (labels.shape, labels.dtype) == ((len(texts), 7), np.int32)
    for row, text in zip(labels, texts, strict=True):
        assert decode(row[None, : len(text)] - 1, alphabet) == [text] and not row[len(text) :].any()


def test_what_is_wrong_is_named():
    wrong = {"A1o9": "'o' in 'A1o9'", "": "'' has 0 .* 4", "ABCDE": "'ABCDE' has 5 .* 4"}
    for text, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            encode(["GOOD", text])
    with pytest.raises(ValueError, match="'ABCDEFG' has 7 .* 6"):
        ctc_labels(["ABCDEFG"])
    with pytest.raises(ValueError, match=r"label -1 is outside 0\.\.35"):
        decode(np.array([[0, 1, -1, 3]]))


def test_each_character_is_equally_likely():
    texts = random_texts(random.Random(1), 9_000)
    assert {len(text) for text in texts} == {4}
    counts = [sum(text.count(character) for text in texts) for character in ALPHABET]
    assert sum(counts) == 36_000 and 850 < min(counts) < max(counts) < 1_150


@pytest.mark.parametrize("longest", [5, 6])
def test_texts_of_any_length_are_seldom_short(longest):
    lengths = Counter(map(len, texts_of_any_length(random.Random(1), 5_000, longest)))
    assert set(lengths) == set(range(1, longest + 1))
    usual = min(lengths[length] for length in range(3, longest + 1))
    assert max(lengths[1], lengths[2]) < usual / 3
