"""Lesson 1: labels, pictures, streams, and the batches that `fit` really consumes."""

import multiprocessing
import random
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebooks_py import ch1_captcha_preview as ch1

CONSUMED = Path(__file__).parent / "consumed_batches.py"


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
    labels = ch1.encode(texts, alphabet, length)
    assert labels.shape == (len(texts), length)
    assert ch1.decode(labels, alphabet) == texts
    heads = ch1.one_hot(labels, len(alphabet))
    assert [head.shape for head in heads] == [(len(texts), len(alphabet))] * length
    assert all((head.sum(axis=1) == 1).all() for head in heads)
    assert ch1.decode_heads(heads, alphabet) == texts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A1o9", ["'o'", "'A1o9'", ch1.ALPHABET, "alphabet="]),
        ("AB-9", ["'-'", ch1.ALPHABET]),
        ("", ["''", "is empty", "give 4 characters"]),
        ("ABC", ["'ABC'", "3 characters", "give 4 characters"]),
        ("ABCDE", ["5 characters", "length="]),
    ],
)
def test_wrong_texts_are_refused(text, words):
    with pytest.raises(ValueError) as error:
        ch1.encode(["GOOD", text])
    assert all(word in str(error.value) for word in words)


def test_labels_outside_the_alphabet_are_refused():
    for wrong in (-1, 36):
        with pytest.raises(ValueError, match=rf"label {wrong} is outside 0\.\.35"):
            ch1.decode(np.array([[0, 1, wrong, 3]]))


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (np.zeros((2, 80, 170, 3), np.uint8), ["(2, 80, 170, 3)", "(n, 64, 128, 3)", "resize"]),
        (np.zeros((64, 128, 3), np.uint8), ["(64, 128, 3)", "picture[None]"]),
        (np.zeros((2, 64, 128), np.uint8), ["(2, 64, 128)"]),
        (np.zeros((2, 64, 128, 3), np.float32), ["float32", "uint8", "255"]),
    ],
)
def test_wrong_pictures_are_refused(pictures, words):
    with pytest.raises(ValueError) as error:
        ch1.to_input(pictures)
    assert all(word in str(error.value) for word in words)


def test_input_is_scaled_to_one():
    pictures = np.array([0, 51, 255], np.uint8).repeat(64 * 128 * 3).reshape(3, 64, 128, 3)
    X = ch1.to_input(pictures)
    assert X.dtype == np.float32
    assert np.unique(X).tolist() == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize("texts", [[], ["AB12", ""]])
def test_nothing_cannot_be_drawn(texts):
    with pytest.raises(ValueError, match="at least one text"):
        ch1.draw_captchas(texts, random.Random(1))


def test_a_library_without_random_is_refused(monkeypatch, tmp_path):
    """captcha 0.7.1 draws from `secrets`: no seed reaches it."""
    unseedable = tmp_path / "image.py"
    unseedable.write_text("import secrets\n")
    spec = ch1.importlib.util.spec_from_file_location("captcha.image", unseedable)
    monkeypatch.setattr(ch1.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(RuntimeError, match=r"captcha==0\.7\.0"):
        ch1.draw_captchas(["AB12"], random.Random(1))


def test_first_batch_has_the_published_fingerprint():
    pictures, texts = ch1.CaptchaSequence(128, 1, seed=2019).draw(0)
    assert ch1.fingerprint(pictures, ch1.encode(texts)) == ch1.FIRST_BATCH


def test_fingerprint_sees_one_changed_pixel_and_one_changed_shape():
    pictures, texts = ch1.CaptchaSequence(128, 1, seed=2019).draw(0)
    labels = ch1.encode(texts)
    pictures[77, 5, 5, 1] ^= 1
    assert ch1.fingerprint(pictures, labels) != ch1.FIRST_BATCH
    pictures[77, 5, 5, 1] ^= 1
    assert ch1.fingerprint(pictures, labels) == ch1.FIRST_BATCH
    assert ch1.fingerprint(pictures.reshape(128, -1), labels) != ch1.FIRST_BATCH


def test_names_decide_the_batch_and_nothing_else_does():
    def batch(index: int = 0, epoch: int = 0, **name) -> str:
        data = ch1.CaptchaSequence(4, 3, **{"seed": 5, **name})
        data.epoch = epoch
        return ch1.fingerprint(data[index][0])

    state = random.getstate()
    different = [batch(), batch(1), batch(epoch=1), batch(seed=6), batch(split="valid")]
    assert len(set(different)) == 5
    random.seed(99)
    assert batch() == different[0]
    random.setstate(state)


def test_drawing_leaves_the_global_random_and_the_library_alone():
    import captcha.image

    state = random.getstate()
    ch1.draw_captchas(["AB12"], random.Random(1))
    assert random.getstate() == state
    assert captcha.image.random is random


@pytest.mark.parametrize("seed", range(40))
def test_dissection_is_the_librarys_drawing(seed):
    rng = random.Random(seed)
    text = ch1.random_texts(rng, 1, length=rng.randint(1, 6))[0]
    size = rng.choice([(ch1.WIDTH, ch1.HEIGHT), (ch1.PREVIEW_WIDTH, ch1.PREVIEW_HEIGHT)])
    ours = ch1.dissect(text, random.Random(seed), size)
    theirs = ch1.draw_captchas([text], random.Random(seed), *size)[0]
    assert np.array_equal(ours["smoothed"], theirs)


def test_batches_have_the_promised_form():
    data = ch1.CaptchaSequence(3, 2, seed=1)
    X, y = data[1]
    assert (X.shape, X.dtype, len(y)) == ((3, 64, 128, 3), np.float32, 4)
    assert {(head.shape, head.dtype.name) for head in y} == {((3, 36), "float32")}
    assert 0 <= X.min() < X.max() <= 1
    assert ch1.decode_heads(y) == data.draw(1)[1]
    X_ctc, labels = ch1.CaptchaSequence(3, 2, seed=1, labels="ctc")[1]
    assert np.array_equal(X_ctc, X)
    assert (labels.shape, labels.dtype) == ((3, 4), np.int32)
    assert ch1.decode(labels - 1) == data.draw(1)[1]


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="labels='onehot': allowed are 'one-hot' and 'ctc'"):
        ch1.CaptchaSequence(1, 1, 1, labels="onehot")
    with pytest.raises(ValueError, match="batch_size=0, steps=1: both must be at least 1"):
        ch1.CaptchaSequence(0, 1, 1)
    with pytest.raises(IndexError, match=r"batch 2 of 2: allowed are 0\.\.1"):
        ch1.CaptchaSequence(1, 2, 1)[2]


def test_a_class_from_a_notebook_is_refused_by_spawned_workers(monkeypatch):
    """A kernel's `__main__` has no file; Keras would wait for its workers for ever."""

    class Typed(ch1.CaptchaSequence):
        __module__ = "__main__"

    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")
    with pytest.raises(RuntimeError, match="from notebooks_py.ch1_captcha_preview"):
        Typed(1, 1, 1, workers=2, use_multiprocessing=True)
    Typed(1, 1, 1, workers=2)
    ch1.CaptchaSequence(1, 1, 1, workers=2, use_multiprocessing=True)


def test_each_run_has_its_own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LESSONS_OUT", str(tmp_path))
    folders = [ch1.fresh_folder("ch9") for _ in range(3)]
    assert [folder.name for folder in folders] == ["run-001", "run-002", "run-003"]
    assert all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize("how", ["one-worker", "four-threads", "two-spawned-processes"])
def test_fit_consumes_the_named_batches_in_order(how):
    """Three epochs, and two with initial_epoch=1, while another thread draws from `random`."""
    run = subprocess.run([sys.executable, CONSUMED, how], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    data = ch1.CaptchaSequence(2, 5, seed=8)
    expected = []
    for epoch in (0, 1, 2, 1, 2):
        data.epoch = epoch
        expected += [ch1.fingerprint(data[index][0]) for index in range(5)]
    assert run.stdout.split() == expected


def test_extra_characters_come_more_often() -> None:
    plain, more = (ch1.CaptchaSequence(500, 1, 2019, extra=extra) for extra in ("", "0O" * 5))
    texts = [ch1.decode_heads(data[0][1]) for data in (plain, more)]
    shares = [np.isin([*"".join(these)], ["0", "O"]).mean() for these in texts]
    assert shares == pytest.approx([2 / 36, 12 / 46], abs=0.03)
    assert [head.shape for head in more[0][1]] == [(500, 36)] * 4
    assert texts[1] == more.draw(0)[1]
    with pytest.raises(ValueError, match="'o' in '0o' is not in the alphabet"):
        ch1.CaptchaSequence(1, 1, 2019, extra="0o")
