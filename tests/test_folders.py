"""A folder of labelled pictures: every bad file is named, and no label is on both sides."""

import random
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from captcha_reader.drawing import draw_captchas
from captcha_reader.folders import BadFiles, read_folder, split


@pytest.fixture
def folder(tmp_path):
    """Four pictures, two with the same label."""
    names = ["7KQ2.png", "7KQ2_again.png", "AB_1.jpg", "ZZZZZZ.png"]
    for name, picture in zip(names, draw_captchas(["7KQ2"] * 4, random.Random(1)), strict=True):
        Image.fromarray(picture).save(tmp_path / name)
    Image.new("RGB", (170, 80)).save(tmp_path / "AB_1.jpg")  # of another size
    return tmp_path


def refused(folder, **more) -> list[str]:
    with pytest.raises(BadFiles) as error:
        read_folder(folder, **more)
    return str(error.value).replace(f"{folder}/", "").splitlines()


def test_names_are_labels(folder):
    (folder / ".DS_Store").write_text("left alone")
    pictures, texts = read_folder(folder)
    assert texts == ["7KQ2", "7KQ2", "AB", "ZZZZZZ"]
    assert (pictures.shape, pictures.dtype) == ((4, 64, 128, 3), np.uint8)
    assert np.array_equal(pictures[0], np.asarray(Image.open(folder / "7KQ2.png")))


def test_a_table_decides(folder):
    rows = ["file,text", "7KQ2.png,0O", "7KQ2_again.png,1", "AB_1.jpg,AB", "ZZZZZZ.png,Z"]
    (folder / "labels.csv").write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    assert read_folder(folder)[1] == ["0O", "1", "AB", "Z"]


def test_all_bad_files_are_listed_at_once(folder):
    (folder / "notes.txt").write_text("no picture")
    (folder / "EMPTY.png").touch()
    (folder / "sub").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "ab1.png")
    Image.new("RGB", (9, 9)).save(folder / "TOOLONG.png")
    Image.new("RGB", (8, 8)).save(folder / "_1.png")
    (folder / "QQ.png").write_bytes((folder / "7KQ2.png").read_bytes())
    first, *lines = refused(folder)
    assert first.startswith("7 files")
    found = dict(line.split(": ", 1) for line in lines)
    assert "no picture" in found["notes.txt"] and "nothing in it" in found["EMPTY.png"]
    assert "folder" in found["sub"]
    assert "'a', 'b' in the label 'ab1' is not in the alphabet" in found["ab1.png"]
    assert "'TOOLONG' has 7 characters, not 1 to 6" in found["TOOLONG.png"]
    assert "'' has 0 characters" in found["_1.png"]
    assert found["QQ.png"] == "'QQ', but the same picture 7KQ2.png is not"


def test_what_is_wrong_with_a_table(folder):
    rows = ["file,text", "7KQ2.png,A", "7KQ2.png,B", "gone.png,A", "AB_1.jpg,", "ZZZZZZ.png,Z"]
    (folder / "labels.csv").write_text("\n".join(rows))
    expected = ["labels.csv, line 3: 7KQ2.png.*'B'.*'A'", "labels.csv, line 4:.* gone.png",
                "labels.csv, line 5:.* a file and a text", "7KQ2_again.png:.* labels.csv",
                "AB_1.jpg:.* labels.csv"]  # fmt: skip
    for line, message in zip(refused(folder)[1:], expected, strict=True):
        assert re.match(message, line)
    (folder / "labels.csv").write_bytes(b"\xff\xfe\x00")
    assert "labels.csv: " in refused(folder)[0]


def test_a_folder_has_to_be_there_with_pictures(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        (message,) = refused(folder)
        assert str(folder) in message


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(name=st.text(st.characters(codec="ascii", exclude_characters="/\0"), min_size=1, max_size=9),
       content=st.binary(max_size=60))  # fmt: skip
def test_any_file_ends_in_the_documented_error(folder, name, content):
    path = folder / name
    if name in (".", "..") or path.exists():
        return
    path.write_bytes(content)
    try:
        assert len(read_folder(folder)[1]) == 4 and name.startswith(".")
    except BadFiles as error:
        assert name in str(error)
    finally:
        path.unlink()


@given(
    st.lists(st.text("AB", min_size=1, max_size=3), min_size=2, max_size=60).filter(
        lambda texts: len(set(texts)) > 1
    ),
    st.integers(0, 9),
)
def test_no_label_is_on_both_sides(texts, seed):
    train, test = split(texts, share=0.3, seed=seed)
    assert sorted([*train, *test]) == list(range(len(texts))) and len(test) and len(train)
    assert not {texts[i] for i in train} & {texts[i] for i in test}


def test_one_label_alone_cannot_be_split():
    with pytest.raises(ValueError, match="3 pictures say .'A'.*two different"):
        split(["A"] * 3)
