"""Texts to labels and back."""

import random
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captcha_reader.texts import ALPHABET, decode, decode_heads, encode, one_hot, random_texts


@st.composite
def alphabets_and_texts(draw: st.DrawFn) -> tuple[str, int, list[str]]:
    """An alphabet, a length, and texts of that length over that alphabet."""
    letters = string.ascii_letters + string.digits + "äß字"
    alphabet = "".join(draw(st.lists(st.sampled_from(letters), min_size=1, unique=True)))
    length = draw(st.integers(1, 8))
    text = st.text(st.sampled_from(alphabet), min_size=length, max_size=length)
    return alphabet, length, draw(st.lists(text, min_size=1, max_size=5))


@given(alphabets_and_texts())
def test_labels_round_trip(case):
    alphabet, length, texts = case
    labels = encode(texts, alphabet, length)
    assert (labels.shape, labels.dtype) == ((len(texts), length), np.int32)
    assert decode(labels, alphabet) == texts
    heads = one_hot(labels, len(alphabet))
    assert [head.shape for head in heads] == [(len(texts), len(alphabet))] * length
    assert all((head.sum(axis=1) == 1).all() for head in heads)
    assert decode_heads(heads, alphabet) == texts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A1o9", ["'o' in 'A1o9'", ALPHABET, "alphabet="]),
        ("AB-9", ["'-'", ALPHABET]),
        ("", ["''", "0 characters", "give 4 characters"]),
        ("ABC", ["'ABC'", "3 characters", "give 4 characters"]),
        ("ABCDE", ["5 characters", "length="]),
    ],
)
def test_wrong_texts_are_named(text, words):
    with pytest.raises(ValueError) as error:
        encode(["GOOD", text])
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("wrong", [-1, 36])
def test_labels_that_are_no_character_are_named(wrong):
    with pytest.raises(ValueError, match=rf"label {wrong} is outside 0\.\.35"):
        decode(np.array([[0, 1, wrong, 3]]))


def test_each_character_is_equally_likely():
    texts = random_texts(random.Random(1), 9_000)
    assert {len(text) for text in texts} == {4}
    counts = [sum(text.count(character) for text in texts) for character in ALPHABET]
    assert sum(counts) == 36_000 and 850 < min(counts) < max(counts) < 1_150
