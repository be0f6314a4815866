"""Pictures of every kind are read, or refused with a reason."""

import base64
import contextlib
import io
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import TURNED, saved
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from captcha_reader import __main__ as command
from captcha_reader import reading
from captcha_reader.__main__ import main
from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.reading import UnreadablePicture, read_captcha, read_captchas, to_pixels
from captcha_reader.testsets import draw_test_set
from captcha_reader.texts import ALPHABET
from captcha_reader.weights import MODELS
from tools import kinds

EASY = "7XKM"
PIXELS = draw_captchas([EASY], stream(1, "reading", epoch=0, index=0))[0]
CAPTCHA = Image.fromarray(PIXELS)
GREY = CAPTCHA.convert("L")
SHADES = np.asarray(GREY.convert("RGB"))
PALETTE = CAPTCHA.quantize(200)
PAPER = PALETTE.getpixel((0, 0))
CLEAR = np.where(np.asarray(PALETTE)[:, :, None] == PAPER, 255, PIXELS)  # what is clear is white
DEEP = Image.fromarray(np.asarray(GREY, np.uint16) * 257)  # 16 bits a pixel

# What is given, what the network should see, and how far each pixel may be from it on average.
KINDS = {
    "array": (PIXELS, PIXELS, 0),
    "grey array": (np.asarray(GREY), SHADES, 0),
    "grey array with an axis": (np.asarray(GREY)[:, :, None], SHADES, 0),
    "RGBA array": (np.asarray(CAPTCHA.convert("RGBA")), PIXELS, 0),
    **{kind: (saved(CAPTCHA, kind), PIXELS, 0) for kind in ("PNG", "BMP", "PPM", "TIFF")},
    "WebP": (saved(CAPTCHA, "WEBP", lossless=True), PIXELS, 0),
    "of a phone": (saved(CAPTCHA, "MPO", save_all=True, append_images=[CAPTCHA]), PIXELS, 6),
    "LA": (saved(GREY.convert("LA")), SHADES, 0),
    "GIF": (saved(PALETTE, "GIF"), PIXELS, 2),
    "transparent GIF": (saved(PALETTE, "GIF", transparency=PAPER), CLEAR, 2),
    "16 bits": (saved(DEEP), SHADES, 0),
    "32 bits": (DEEP.convert("I"), SHADES, 0),
    "32 bits for 8": (GREY.convert("I"), SHADES, 0),
    "fractions": (Image.fromarray(np.asarray(GREY, np.float32) / 255), SHADES, 0),
    "CMYK": (saved(CAPTCHA.convert("CMYK"), "JPEG", quality=95), PIXELS, 4),
    "three times as large": (saved(CAPTCHA.convert("RGBA").resize((384, 192))), PIXELS, 2),
    "turned by EXIF": (saved(CAPTCHA.transpose(Image.Transpose.ROTATE_90), exif=TURNED), PIXELS, 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_brought_to_what_the_network_knows(kind):
    picture, expected, tolerance = KINDS[kind]
    pixels = to_pixels(picture)
    assert (pixels.shape, pixels.dtype) == ((64, 128, 3), np.uint8)
    assert np.abs(pixels - expected.astype(float)).mean() <= tolerance
    (read,) = read_captchas(picture)  # one is a list of one
    assert read.text == EASY and read.confidence > 0.9
    assert [len(best) for best in read.alternatives] == [3] * 4


@pytest.mark.parametrize("kind", [x for x in kinds.PICTURES if x[:3] not in ("six", "low")])
def test_pictures_as_people_have_them_are_read(kind):
    """At least 8 of 10, or all; `make study WHAT=kinds` counts them on 1,000."""
    drawn = [kinds.PICTURES[kind](stream(2, "kinds", 0, i)) for i in range(10)]
    readings = read_captchas(picture for picture, _ in drawn)
    assert sum(read.text == text for read, (_, text) in zip(readings, drawn, strict=True)) >= 8
    assert all((read.confidence is None) == (not read.text) for read in readings)


def test_a_captcha_as_it_is_drawn_is_neither_cut_nor_smoothed():
    for test_set in ("classic-1k", "sizes-1k"):
        for pictures, _ in draw_test_set(test_set):
            for picture, pixels in zip(pictures, reading.scale(pictures), strict=True):
                assert np.array_equal(to_pixels(picture), pixels)


def test_a_margin_of_another_colour_is_cut_off():
    framed = ImageOps.expand(CAPTCHA, (30, 8, 2, 11), "white")
    assert np.array_equal(reading.cut_margin(framed), PIXELS)
    assert read_captcha(saved(framed, "JPEG", quality=90)).text == EASY
    for line in (ImageOps.expand(CAPTCHA, (9, 0, 9, 9), "white"), Image.new("RGB", (99, 50))):
        assert reading.cut_margin(line) is line  # no margin on top, and nothing within


@pytest.mark.parametrize(("size", "width"), [
    ((128, 64), 128), ((170, 80), 136), ((160, 60), 168), ((33, 16), 136), ((31, 16), 128),
    ((90, 100), 64), ((500, 50), 320), ((1, 1), 64), ((2_000, 1), 320),
])  # fmt: skip
def test_files_and_arrays_of_every_size_are_scaled_alike(size, width):
    picture = CAPTCHA.resize(size, Image.Resampling.NEAREST)  # no new colours, thus no grain
    pixels = to_pixels(saved(picture))
    assert np.array_equal(pixels, picture.resize((width, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(reading.scale(np.asarray(picture)[None])[0], pixels)


def test_many_captchas_are_read_and_what_is_none_raises_its_error_or_takes_its_place():
    pictures = [CAPTCHA, b"no picture", Image.new("RGB", (99, 50))]
    with pytest.raises(UnreadablePicture):
        read_captchas(pictures)
    with pytest.raises(ValueError, match="on_error='skip'.*'return'"):
        read_captchas(pictures, on_error="skip")
    captcha, error, blank = read_captchas(iter(pictures), on_error="return")
    assert (captcha.text, blank.text) == (EASY, "") and isinstance(error, UnreadablePicture)
    assert [read.text for read in read_captchas(np.stack([PIXELS, 255 - PIXELS]))] == [EASY] * 2
    assert len(read_captchas(io.BytesIO(saved(CAPTCHA)))) == 1


REFUSED = {
    "bytes: .*no picture .*PNG, JPEG, GIF": b"hello, world",
    "damaged": saved(CAPTCHA)[:2_000],
    "animated.* one frame": saved(GREY, "GIF", save_all=True, append_images=[CAPTCHA]),
    "SVG drawing; save it as PNG": b"<?xml version='1.0'?><svg width='9'/>",
    "float64 .*64, 128, 3.* uint8": PIXELS / 255,
    "uint8 .*1, 64, 128, 3.* width": PIXELS[None],
    "NoneType: give a path, a file": None,
    "none.png: No such file": MODELS / "none.png",
    "models: (Is a directory|Permission denied)": str(MODELS),  # on Windows the latter
    "ctc.json: .*no picture": MODELS / "ctc.json",
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_captcha_is_refused_by_name(message):
    with pytest.raises(UnreadablePicture, match=message):
        read_captcha(REFUSED[message])


@given(
    st.sampled_from([picture for picture, *_ in KINDS.values() if isinstance(picture, bytes)]),
    st.lists(st.tuples(st.floats(0, 1) | st.floats(0, 0.05), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
@settings(max_examples=100, deadline=None)
def test_a_damaged_file_is_read_or_refused(content, changes, end):
    content = bytearray(content)
    for place, value in changes:  # often where the headers are
        content[int(place * (len(content) - 1))] = value
    with contextlib.suppress(UnreadablePicture):
        read = read_captcha(bytes(content[: round(end * len(content))]))
        assert set(read.text) <= set(ALPHABET) and 0 <= (read.confidence or 0) <= 1


@given(st.integers(0, 99), st.sampled_from([None, 1, 2, 3]), st.sampled_from([None, "a", "bc"]))
@settings(max_examples=50, deadline=None)
def test_confidence_is_a_share_of_all_paths_and_what_is_known_gives_the_likeliest_such_text(
    seed, length, allowed
):
    """Against all paths, one by one."""
    columns = np.random.default_rng(seed).dirichlet(np.full(4, 0.5), size=5)
    by_text = Counter()
    for path in itertools.product(range(4), repeat=5):
        spelled = "".join("-abc"[answer] for answer in path)
        if set(spelled) <= set("-" + (allowed or "abc")):
            text = "".join(answer for answer, _ in itertools.groupby(spelled)).replace("-", "")
            by_text[text] += math.prod(columns[range(5), path])
    fitting = {text: x for text, x in by_text.items() if length in (None, len(text))}
    read = reading.to_reading(columns, "abc", length, allowed)
    if not len(reading.greedy(columns)):
        assert read == reading.Reading("", None, ())
        return
    if length or allowed:  # the beam may miss the likeliest one by a hair
        assert fitting[read.text] > 0.95 * max(fitting.values())
    if read.text:
        expected = fitting[read.text] / sum(fitting.values())
        assert read.confidence == pytest.approx(expected, abs=1e-6)
    for i, probabilities in enumerate(read.alternatives):
        others = {c: by_text[read.text[:i] + c + read.text[i + 1 :]] for c in allowed or "abc"}
        shares = {c: chance / sum(others.values()) for c, chance in others.items()}
        assert probabilities == pytest.approx(shares, abs=1e-6)
        likeliest = list(probabilities.values())
        assert likeliest == sorted(likeliest, reverse=True)


def test_what_is_known_about_a_text_helps_and_what_cannot_be_is_named():
    rng = stream(4, "digits", epoch=0, index=0)
    (picture,) = draw_captchas(["0000"], rng)
    read = read_captcha(picture, alphabet="01")
    assert read.text == "0000" and set().union(*read.alternatives) == {*"01"}
    assert len(read_captcha(picture, length=5).text) == 5
    no_room = read_captcha(picture, length=9, alphabet="7")  # 16 columns, and 8 blanks between
    assert no_room == reading.Reading("", None, ())
    with pytest.raises(ValueError, match="'é'.*0123456789ABC"):
        read_captcha(picture, alphabet="aé")
    with pytest.raises(ValueError, match="length=0"):
        read_captcha(picture, length=0)


def test_a_damaged_network_is_named(tmp_path, monkeypatch):
    (damaged := tmp_path / "ctc.onnx").write_bytes((MODELS / "ctc.onnx").read_bytes()[:-1])
    monkeypatch.setattr(reading, "find", lambda name: damaged)
    with pytest.raises(ValueError, match="ctc.onnx is damaged"):
        read_captcha(CAPTCHA)
    network = reading.Network(lambda x: np.full((len(x), 16, 37), np.nan), ALPHABET)
    with pytest.raises(ValueError, match="damaged"):
        read_captcha(CAPTCHA, model=network)


def test_the_examples_for_porters_are_what_the_network_answers():
    network = reading.load_network()
    for example in json.loads((MODELS / "ctc_examples.json").read_text()):
        png = base64.b64decode(example["png"])
        read = read_captcha(png)
        assert (read.text, pytest.approx(read.confidence, abs=1e-3)) == (
            example["text"], example["confidence"])  # fmt: skip
        (columns,) = network.probabilities(to_pixels(png)[None])
        assert columns == pytest.approx(np.array(example["probabilities"]), abs=1e-4)


def test_the_command_reads_what_it_can(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("two", "none"):
        (tmp_path / name).mkdir()
    for name in ("a.png", "two/b\nc.jpg"):
        CAPTCHA.save(name, quality=95)
    Image.new("RGB", (170, 80), "white").save("two/white.png")
    Path("empty.png").touch()
    for name in ("Thumbs.db", "._a.png"):  # what Windows and macOS leave behind
        Path("two", name).touch()
    monkeypatch.setattr("sys.stdin", Mock(buffer=io.BytesIO(saved(CAPTCHA))))
    (read,) = read_captchas("a.png")  # one name is one picture
    assert main(["empty.png", "[a].png", "none.png", "[t]wo", "none", "-"]) == 1
    out, err = capsys.readouterr()
    names = [line.split("  ")[:2] for line in out.splitlines()]
    nothing = ["two/white.png", "(no characters found)"]
    assert names == [["a.png", EASY], [r"two/b\nc.jpg", EASY], nothing, ["-", EASY]]
    assert out.splitlines()[0] == f"a.png  {EASY}  {100 * read.confidence:.0f} %"
    assert [line.split(":")[0] for line in err.splitlines()] == ["empty.png", "none.png", "none"]
    assert err.endswith("none: there is no picture in this folder\n")
    for content, why in ((b"hello", "this is no picture"), (bytes(26_000_000), "more than 25 MB")):
        monkeypatch.setattr("sys.stdin", Mock(buffer=io.BytesIO(content)))
        assert main(["-"]) == 1 and capsys.readouterr().err.startswith(f"-: {why}")
    assert main(["--json", "a.png", "empty.png", "two/white.png"]) == 1
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"file": "a.png", **vars(read), "alternatives": [*read.alternatives]}
    assert second["file"] == "empty.png" and "no picture" in second["error"]
    assert third["text"] == "" and third["confidence"] is None
    assert main(["--length=3", "--alphabet=7XK", "a.png"]) == 0
    assert len(capsys.readouterr().out.split()[1]) == 3
    shutil.copy(MODELS / "ctc.onnx", "mine.onnx")
    Path("mine.keras").mkdir()  # it can't be compared
    wrongs = {"--alphabet=é": "'é'", "--model=mine.onnx": "mine.keras", "--model=~/x": Path.home()}
    for wrong, message in wrongs.items():
        with pytest.raises(SystemExit):
            main([wrong, "a.png"])
        assert str(message) in capsys.readouterr().err


def test_ctrl_c_is_no_traceback(monkeypatch):
    monkeypatch.setattr(command, "main", Mock(side_effect=KeyboardInterrupt))
    assert command.run() == 130


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(("end", "code", "message"), [
    ("| true", 0, ""), ("> /dev/full", 1, "No space left"), (">&-", 1, "standard output"),
    ("none.png 2>&-", 1, ""),
])  # fmt: skip
def test_output_that_cannot_be_written_is_no_traceback(tmp_path, end, code, message):
    CAPTCHA.save(tmp_path / "a.png")
    command = f"{sys.executable} -m captcha_reader a.png {end}"
    env = os.environ | {"PYTHONPATH": str(MODELS.parent)}
    run = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert run.returncode == code and message in run.stderr and run.stderr.count("\n") <= 1
    assert "none.png" not in run.stdout


def test_reading_needs_no_more_than_pip_installs(tmp_path):
    """With files laid out as `pip install .` does it, without the packages of the lessons."""
    about = tomllib.loads((MODELS.parent / "pyproject.toml").read_text("utf-8"))
    module, _, start = about["project"]["scripts"]["captcha-reader"].partition(":")
    package = shutil.copytree(MODELS.parent / "captcha_reader", tmp_path / "captcha_reader")
    (package / "models").mkdir()
    for name in about["tool"]["setuptools"]["package-data"]["captcha_reader.models"]:
        shutil.copy(MODELS / name, package / "models")
    (tmp_path / "a.png").write_bytes(saved(CAPTCHA))
    others = ["captcha", "h5py", "keras", "matplotlib", "pandas", "tensorflow", "tqdm"]
    code = f"import sys; sys.modules |= dict.fromkeys({others})"
    code += f"; from {module} import {start}; sys.exit({start}())"
    env = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code, "a.png"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert EASY in run.stdout and run.stderr == ""
