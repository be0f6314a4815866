"""Texts to labels and back."""

import numpy as np
import pytest

from captcha_reader.texts import ctc_labels, decode, decode_heads, encode, one_hot


def test_labels_round_trip():
    texts, alphabet = ["Z9", "ßa", "字字"], "aZ9ß字"
    labels = encode(texts, alphabet, length=2)
    assert (labels.tolist(), labels.dtype) == ([[1, 2], [3, 0], [4, 4]], np.int32)
    assert decode(labels, alphabet) == texts
    heads = one_hot(labels, len(alphabet))
    assert [head.sum(axis=1).tolist() for head in heads] == 2 * [[1, 1, 1]]
    assert decode_heads(heads, alphabet) == texts


def test_ctc_labels_are_filled_up_with_blanks():
    labels = ctc_labels(["", "ßaß"], "aZ9ß", length=4)
    assert (labels.tolist(), labels.dtype) == ([[0, 0, 0, 0], [4, 1, 4, 0]], np.int32)


def test_what_is_wrong_is_named():
    wrong = {"A1o9": "'o' in 'A1o9'", "": "'' has 0 .* 4", "ABCDE": "'ABCDE' has 5 .* 4"}
    for text, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            encode(["GOOD", text])
    with pytest.raises(ValueError, match="'ABCDEFG' has 7 .* 6"):
        ctc_labels(["ABCDEFG"])
    with pytest.raises(ValueError, match=r"label -1 is outside 0\.\.35"):
        decode(np.array([[0, 1, -1, 3]]))
