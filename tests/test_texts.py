"""Texts to labels and back."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captcha_reader.texts import ALPHABET, decode, decode_heads, encode, one_hot, random_texts


@given(st.lists(st.text("aZ9ß字", min_size=6, max_size=6), min_size=1, max_size=5))
def test_labels_round_trip(texts):
    labels = encode(texts, alphabet := "aZ9ß字", length=6)
    assert (labels.shape, labels.dtype) == ((len(texts), 6), np.int32)
    assert decode(labels, alphabet) == texts
    heads = one_hot(labels, len(alphabet))
    assert [head.shape for head in heads] == [(len(texts), len(alphabet))] * 6
    assert all((head.sum(axis=1) == 1).all() for head in heads)
    assert decode_heads(heads, alphabet) == texts


def test_what_is_wrong_is_named():
    for text, message in {
        "A1o9": f"'o' in 'A1o9' is not in the alphabet '{ALPHABET}': .* another alphabet=",
        "": "'' has 0 characters, .* give 4 characters",
        "ABCDE": "'ABCDE' has 5 characters, .* another length=",
    }.items():
        with pytest.raises(ValueError, match=message):
            encode(["GOOD", text])
    for wrong in (-1, 36):
        with pytest.raises(ValueError, match=rf"label {wrong} is outside 0\.\.35"):
            decode(np.array([[0, 1, wrong, 3]]))


def test_each_character_is_equally_likely():
    texts = random_texts(random.Random(1), 9_000)
    assert {len(text) for text in texts} == {4}
    counts = [sum(text.count(character) for text in texts) for character in ALPHABET]
    assert sum(counts) == 36_000 and 850 < min(counts) < max(counts) < 1_150
