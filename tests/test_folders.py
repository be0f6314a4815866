"""A folder of labelled pictures: every bad file is named, and no label is on both sides."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captcha_reader.folders import BadFiles, read_folder, split
from captcha_reader.outputs import fresh_folder
from captcha_reader.texts import ALPHABET


@pytest.fixture
def folder(tmp_path):
    """Four pictures, two with the same label."""
    for i, name in enumerate(["7KQ2.png", "7KQ2_again.png", "AB_1.jpg", "ZZZZZZ.png"]):
        Image.new("RGB", (128 + 40 * i, 64 + i), "red").save(tmp_path / name)
    return tmp_path


def refused(folder, **options) -> list[str]:
    with pytest.raises(BadFiles) as error:
        read_folder(folder, **options)
    return str(error.value).replace(f"{folder}/", "").splitlines()


def name_files(folder, *names):
    """Put pictures of these names into a folder, no two alike."""
    for i, name in enumerate(names):
        Image.new("RGB", (9 + i, 9)).save(folder / name)


def test_names_are_labels_and_pictures_keep_their_shape(folder):
    strangers = [".DS_Store", "Thumbs.db", "ehthumbs.db", "desktop.ini"]
    for name in strangers if os.name == "nt" else [*strangers, "Icon\r"]:  # of macOS
        (folder / name).write_text("left alone")
    pictures, texts = read_folder(folder)
    assert texts == ["7KQ2", "7KQ2", "AB", "ZZZZZZ"]
    assert [picture.shape for picture in pictures] == [(64, w, 3) for w in (128, 168, 200, 240)]
    assert all(x.dtype == np.uint8 and (x == [255, 0, 0]).all() for x in pictures[:2])


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbffile;text\r\na b.png;Xy\r\nc.png;10\r\n;\r\n",  # Excel, in Europe
        b"sep=;\r\nfile;text\r\na b.png;Xy\r\nc.png;10\r\n",  # Excel, too
        b"file, text\na b.png, Xy\nc.png, 10\n",
        b"text\tnumber\tfile\r\nXy\t1\ta b.png\r\n10\t2\tc.png\r\n",
        b"filename,label\na b.png,Xy\nc.png,10\n",
        b'"a b.png",Xy\nc.png,10',
        b"a b.png   Xy\nc.png\t10\n\n",  # labels.txt
    ],
)
def test_a_table_decides_and_is_read_as_people_write_it(tmp_path, content):
    name_files(tmp_path, "a b.png", "c.png")
    name = "Labels.TXT" if b"   " in content else "labels.csv"
    (tmp_path / name).write_bytes(content)
    assert read_folder(tmp_path)[1] == ["Xy", "10"]


def test_names_without_an_ending_are_no_header(tmp_path):
    for i, name in enumerate(("cap1", "cap2")):
        Image.new("RGB", (9 + i, 9)).save(tmp_path / name, "PNG")
    (tmp_path / "labels.csv").write_text("cap1,7KQ2\ncap2,AB12\n")
    assert read_folder(tmp_path)[1] == ["7KQ2", "AB12"]


@pytest.mark.parametrize(
    ("names", "pattern", "texts"),
    [
        (["7KQ2 (1).png", "7KQ2(2).png", "7KQ2 - Copy.png"], None, ["7KQ2"] * 3),
        (["e\u0301x.png", "\u00e9x_2.png"], None, ["\u00e9x"] * 2),  # as macOS and others write é
        (["IMG_7KQ2.png", "IMG_a_AB(2).png"], "*_{text}", ["7KQ2", "AB"]),
        (["001-AB-x-y.png", "002-CD-z.png"], "*-{text}-*", ["AB", "CD"]),
        ([f"000{i}.png" for i in range(5)], "{text}", [f"000{i}" for i in range(5)]),
        ([f"{i * i}17_{i}.png" for i in range(5)], None, [f"{i * i}17" for i in range(5)]),
        ([f"{i * i}17_a.png" for i in range(5)], "{text}*", [f"{i * i}17" for i in range(5)]),
    ],
)  # fmt: skip
def test_a_pattern_says_where_in_a_name_the_text_stands(tmp_path, names, pattern, texts):
    name_files(tmp_path, *names)
    assert sorted(read_folder(tmp_path, pattern=pattern)[1]) == sorted(texts)


@pytest.mark.parametrize("names", ["IMG_A{}", "img0{}_A", "158{}99", "000{}_AB", "{}", "{0}{0}_A"])
def test_names_without_texts_are_shown_and_the_pattern_is_recommended(tmp_path, names):
    names += ".png"
    for count in (4, 7):
        name_files(tmp_path, *map(names.format, range(count)), "zz.png")  # one is a stray
        first, second = refused(tmp_path)
    alike = f"7 of 8 names begin with '{names[:3]}'"
    assert ("running numbers" if names[0] in "{0" else alike) in first
    assert first.endswith(f"{names.format(4)}, ...") and "PATTERN='*_{text}'" in second
    assert "without its ending" in refused(tmp_path, pattern="*-{text}.png")[8]  # none of them fits
    assert "{text} once" in refused(tmp_path, pattern="*_text")[0]


def test_names_that_differ_in_case_alone_are_warned_of(tmp_path):
    name_files(tmp_path, "abC_1.png", "aBc_2.png", "xyz.png")
    with pytest.warns(UserWarning, match=r"aBc, abC differ .* labels.csv"):
        assert read_folder(tmp_path)[1] == ["aBc", "abC", "xyz"]


def test_all_bad_files_are_listed_at_once(folder):
    (folder / "notes.txt").write_text("no picture")
    (folder / "sub").mkdir()
    for name in ("ab1", "_1"):
        Image.new("RGB", (9, len(name))).save(folder / f"{name}.png")
    (folder / "QQ.png").write_bytes((folder / "7KQ2.png").read_bytes())
    expected = ["5 files", "QQ.png: .* same picture 7KQ2.png", "_1.png: .* no characters",
                "ab1.png: 'a', 'b' in the label 'ab1'", "notes.txt: .*no picture",
                "sub: .*directory"]  # fmt: skip
    for line, message in zip(refused(folder, alphabet=ALPHABET), expected, strict=True):
        assert re.match(message, line)
    assert refused(folder / "none") == [f"{folder}/none is not a folder"]
    assert "holds no pictures" in refused(folder / "sub")[0]


def test_what_is_wrong_with_a_table_is_named_by_its_line(folder):
    rows = ["file,text", "7KQ2.png,A", "7KQ2.png,B", "gone.png,A", "AB_1.jpg,", "ZZZZZZ.png,Z"]
    (folder / "labels.csv").write_text("\n".join(rows))
    expected = ["labels.csv, line 3: 7KQ2.png.*'B'.*'A'", "labels.csv, line 4:.* gone.png",
                "labels.csv, line 5:.* a file and a text", "7KQ2_again.png:.* labels.csv",
                "AB_1.jpg:.* labels.csv"]  # fmt: skip
    for line, message in zip(refused(folder)[1:], expected, strict=True):
        assert re.match(message, line)
    (folder / "labels.csv").write_bytes(b"\xff\xfe\x00")
    assert "CSV UTF-8" in refused(folder)[0]
    for content in ("", "label,filename\nAB,AB_1.jpg", "./AB_1.jpg,AB", "AB_1.JPG,AB", "AB_1,AB"):
        (folder / "labels.csv").write_text(content)
        (line,) = refused(folder)
        assert line.endswith(f"as in `7KQ2.png,7KQ2`; the table begins with {content.splitlines()}")
    (folder / "labels.csv").rename(folder / "labels.txt")
    assert "`7KQ2.png 7KQ2`" in refused(folder)[0]


@settings(deadline=None)
@given(st.lists(st.sampled_from("ABCD"), min_size=1, max_size=60), st.floats(0, 1))
def test_no_label_is_on_both_sides_and_each_side_has_some(texts, share):
    if len(set(texts)) == 1:
        with pytest.raises(ValueError, match=f"{len(texts)} pictures say .*two different"):
            split(texts, share)
        return
    train, test = split(texts, share)
    assert sorted([*train, *test]) == list(range(len(texts))) and len(test) and len(train)
    assert not {texts[i] for i in train} & {texts[i] for i in test}


def test_a_new_folder_has_the_largest_number_and_one(tmp_path, monkeypatch):
    monkeypatch.setenv("LESSONS_OUT", str(tmp_path))
    for name in ("run-002", "run-007-good", "run-x", "009"):
        (tmp_path / "ch1" / name).mkdir(parents=True)
    assert fresh_folder("ch1").name == "run-003"
    looks = iter([["run-002"], ["run-003"]])  # another process makes run-003 after the first look
    monkeypatch.setattr(Path, "glob", lambda *_: map(Path, next(looks)))
    assert fresh_folder("ch1").name == "run-004"
