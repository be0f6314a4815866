"""A folder of labelled pictures: every bad file is named, and no label is on both sides."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captcha_reader.folders import BadFiles, read_folder, split
from captcha_reader.outputs import fresh_folder, numbered_folder


@pytest.fixture
def folder(tmp_path):
    """Four pictures, two with the same label."""
    for i, name in enumerate(["7KQ2.png", "7KQ2_again.png", "AB_1.jpg", "ZZZZZZ.png"]):
        Image.new("RGB", (128 + 40 * i, 64 + i), "red").save(tmp_path / name)
    return tmp_path


def refused(folder) -> list[str]:
    with pytest.raises(BadFiles) as error:
        read_folder(folder)
    return str(error.value).replace(f"{folder}/", "").splitlines()


def test_names_are_labels_or_a_table_decides(folder):
    (folder / ".DS_Store").write_text("left alone")
    pictures, texts = read_folder(folder)
    assert texts == ["7KQ2", "7KQ2", "AB", "ZZZZZZ"]
    assert (pictures.shape, pictures.dtype) == ((4, 64, 128, 3), np.uint8)
    assert (pictures[:2] == [255, 0, 0]).all()
    rows = ["file,text", "7KQ2.png,0O", "7KQ2_again.png,1", "AB_1.jpg,AB", "ZZZZZZ.png,Z"]
    (folder / "labels.csv").write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    assert read_folder(folder)[1] == ["0O", "1", "AB", "Z"]


def test_all_bad_files_are_listed_at_once(folder):
    (folder / "notes.txt").write_text("no picture")
    (folder / "sub").mkdir()
    for name in ("ab1", "TOOLONG", "_1"):
        Image.new("RGB", (9, len(name))).save(folder / f"{name}.png")
    (folder / "QQ.png").write_bytes((folder / "7KQ2.png").read_bytes())
    expected = ["6 files", "QQ.png: .* same picture 7KQ2.png", "TOOLONG.png: .* has 7 .* 1 to 6",
                "_1.png: .*'' has 0 characters", "ab1.png: 'a', 'b' in the label 'ab1'",
                "notes.txt: .*no picture", "sub: .*directory"]  # fmt: skip
    for line, message in zip(refused(folder), expected, strict=True):
        assert re.match(message, line)
    assert refused(folder / "none") == [f"{folder}/none is no folder"]
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
    assert "labels.csv: " in refused(folder)[0]


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
    with ThreadPoolExecutor(8) as pool:  # eight at the same moment
        folders = [*pool.map(numbered_folder, [tmp_path / "all"] * 8)]
    assert sorted(path.name for path in folders) == [f"00{i}" for i in range(1, 9)]
