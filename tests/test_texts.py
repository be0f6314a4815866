"""Texts to labels and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captcha_reader.texts import ctc_labels, decode, decode_heads, encode, one_hot


@settings(deadline=None)
@given(st.lists(st.text("aZ9ß字", min_size=6, max_size=6), min_size=1, max_size=5))
def test_labels_round_trip(texts):
    labels = encode(texts, alphabet := "aZ9ß字", length=6)
    assert (labels.shape, labels.dtype) == ((len(texts), 6), np.int32)
    assert decode(labels, alphabet) == texts
    heads = one_hot(labels, len(alphabet))
    assert all((head.sum(axis=1) == 1).all() for head in heads)
    assert decode_heads(heads, alphabet) == texts


@settings(deadline=None)
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
