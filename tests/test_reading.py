"""Pictures of every kind are read or refused with a reason; ONNX Runtime reads what Keras does."""

import functools
import importlib.util
import json
import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from unittest.mock import Mock

import export
import numpy as np
import pytest
from conftest import saved
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont, ImageOps

from captcha_reader import reading
from captcha_reader.__main__ import main
from captcha_reader.drawing import draw_captchas, draw_preview, stream
from captcha_reader.reading import UnreadablePicture, read_captcha, read_captchas, to_pixels
from captcha_reader.texts import ALPHABET, encode, random_texts
from captcha_reader.weights import MODELS, Missing, sha256

EASY = "7XKM"
PIXELS = draw_captchas([EASY], stream(1, "reading", epoch=0, index=0))[0]
CAPTCHA = Image.fromarray(PIXELS)
GREY = CAPTCHA.convert("L")
BLACK = GREY.point(lambda level: 255 * (level > 160))
needs_onnx = pytest.mark.skipif(
    not importlib.util.find_spec("onnx"), reason="onnx is not installed: make setup-onnx"
)
TURNED = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)  # EXIF's tag of orientation, 6


def sixteen_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image, np.uint16) * 257)


# What is given, what the network should see, and how far each pixel may be from it on average.
KINDS = {
    "array": (PIXELS, PIXELS, 0),
    "grey array": (np.asarray(GREY), GREY, 0),
    "grey array with an axis": (np.asarray(GREY)[:, :, None], GREY, 0),
    "RGBA array": (np.asarray(CAPTCHA.convert("RGBA")), PIXELS, 0),
    "image": (CAPTCHA, PIXELS, 0),
    **{kind: (saved(CAPTCHA, kind), PIXELS, 0) for kind in ("PNG", "BMP", "PPM", "TIFF")},
    "WebP": (saved(CAPTCHA, "WEBP", lossless=True), PIXELS, 0),
    "JPEG": (saved(CAPTCHA, "JPEG", quality=95), PIXELS, 4),
    "two pictures of a phone": (
        saved(CAPTCHA, "MPO", save_all=True, append_images=[GREY.resize((32, 16)).convert("RGB")],
              quality=95), PIXELS, 4
    ),
    "RGBA": (saved(CAPTCHA.convert("RGBA")), PIXELS, 0),
    "L": (saved(GREY), GREY, 0),
    "LA": (saved(GREY.convert("LA")), GREY, 0),
    "1": (saved(BLACK.convert("1")), BLACK, 0),
    "P": (saved(CAPTCHA.quantize(200)), PIXELS, 2),
    "GIF": (saved(CAPTCHA.quantize(200), "GIF"), PIXELS, 2),
    "16 bits": (saved(sixteen_bits(GREY)), GREY, 0),
    "32 bits": (sixteen_bits(GREY).convert("I"), GREY, 0),
    "32 bits for 8": (GREY.convert("I"), GREY, 0),
    "fractions": (Image.fromarray(np.asarray(GREY, np.float32) / 255), GREY, 0),
    "CMYK": (saved(CAPTCHA.convert("CMYK"), "JPEG", quality=95), PIXELS, 4),
    "three times as large": (saved(CAPTCHA.convert("RGBA").resize((384, 192))), PIXELS, 2),
    "turned by EXIF": (
        saved(CAPTCHA.transpose(Image.Transpose.ROTATE_90), exif=b"MM\0*\0\0\0\b\0\1" + TURNED),
        PIXELS, 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_brought_to_what_the_network_knows(kind):
    picture, expected, tolerance = KINDS[kind]
    pixels = to_pixels(picture)
    assert (pixels.shape, pixels.dtype) == ((64, 128, 3), np.uint8)
    if isinstance(expected, Image.Image):
        expected = np.asarray(expected.convert("RGB"))
    assert np.abs(pixels - expected.astype(float)).mean() <= tolerance
    assert read_captcha(picture).text == EASY or kind == "1"  # black and white is another style


def test_what_is_transparent_is_white():
    image = CAPTCHA.convert("RGBA")
    image.putalpha(GREY.point(lambda level: 255 * (level < 200)))
    pixels = to_pixels(saved(image))
    assert (pixels[np.asarray(GREY) >= 200] == 255).all()
    assert (pixels[np.asarray(GREY) < 200] == PIXELS[np.asarray(GREY) < 200]).all()
    palette = CAPTCHA.quantize(200)
    behind = palette.getpixel((0, 0))
    hidden = np.asarray(palette) == behind
    for kind in ("PNG", "GIF"):
        assert (to_pixels(saved(palette, kind, transparency=behind))[hidden] == 255).all()


def test_every_size_is_stretched():
    for size in (170, 80), (1, 1), (2_000, 1), (3_000, 4_000):
        assert to_pixels(saved(CAPTCHA.resize(size))).shape == (64, 128, 3)


def test_many_captchas_are_read_in_order(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(CAPTCHA))
    blank = np.full((64, 128, 3), 255, np.uint8)
    readings = read_captchas([str(tmp_path / "a.png"), blank, *[tmp_path / "a.png"] * 120])
    texts = [reading.text for reading in readings]
    assert texts == [EASY, texts[1], *[EASY] * 120] and texts[1] != EASY
    assert read_captchas([]) == []


def header(width: int, height: int) -> bytes:
    """A PNG whose header tells of a picture that the rest does not hold."""
    content = saved(Image.new("L", (1, 1)))
    chunk = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


FRAMES = {"save_all": True, "append_images": [CAPTCHA.rotate(5)]}
REFUSED = {
    "nothing": (b"", "there is nothing in it"),
    "a text": (b"hello, world", r"this is no picture \(PNG, JPEG, GIF, "),
    "half a PNG": (saved(CAPTCHA)[:2_000], "the picture is damaged: "),
    "half a JPEG": (saved(CAPTCHA, "JPEG")[:1_500], "the picture is damaged: image file is trunc"),
    **{
        f"two pictures in a {kind}": (saved(CAPTCHA, kind, **FRAMES), "this is animated or has sev")
        for kind in ("GIF", "PNG", "WEBP", "TIFF")
    },
    "too many pixels": (header(6_000, 5_000), r"6,000 x 5,000 pixels; 1 to 25,000,000 are read"),
    "absurdly many": (header(2**31 - 1, 2**31 - 1), "too large: "),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_captcha_is_refused_by_name(tmp_path, what):
    content, message = REFUSED[what]
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadablePicture, match=f"^{tmp_path / 'a.png'}: {message}"):
        read_captcha(tmp_path / "a.png")
    with pytest.raises(UnreadablePicture, match=f"^bytes: {message}"):
        read_captcha(content)


def test_what_is_no_file_is_refused_by_name(tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(30_000_000)
    for name, message in {
        "none.png": "there is no such file",
        ".": "this is a folder or a device, not a file",
        "a" * 1_000: "the file can't be opened: File name too long",
        "large.png": "30,000,000 bytes; at most 25,000,000 are read",
    }.items():
        with pytest.raises(UnreadablePicture) as caught:
            read_captcha(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {message}"


def test_what_is_no_picture_in_memory_is_refused():
    for picture, message in (
        (PIXELS / 255, r"ndarray: float64 of shape \(64, 128, 3\); an array has to be uint8"),
        (PIXELS[None], r"ndarray: uint8 of shape \(1, 64, 128, 3\); an array has to be"),
        (PIXELS[:, :, :2], "ndarray: uint8 of shape"),
        (PIXELS[:0], "ndarray: "),
        (Image.new("RGB", (0, 0)), "Image: 0 x 0 pixels; 1 to 25,000,000 are read"),
        (None, "NoneType: give a path, bytes, a PIL image or an array"),
    ):
        with pytest.raises(UnreadablePicture, match=message):
            read_captcha(picture)


def test_one_error_class_covers_what_pillow_and_the_system_raise(monkeypatch):
    for error in (MemoryError(), SyntaxError("broken PNG file")):
        monkeypatch.setattr(ImageOps, "exif_transpose", Mock(side_effect=error))
        why = str(error) or "MemoryError"
        with pytest.raises(UnreadablePicture, match=f"bytes: the picture is damaged: {why}"):
            read_captcha(saved(CAPTCHA))


SEEDS = [
    *(saved(CAPTCHA, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")),
    saved(sixteen_bits(GREY)), saved(CAPTCHA.quantize(20), transparency=3),
    saved(CAPTCHA.convert("CMYK"), "TIFF", compression="tiff_lzw"), KINDS["turned by EXIF"][0],
]  # fmt: skip
PLACES = st.floats(0, 1) | st.floats(0, 0.05)  # often where the headers are


@st.composite
def damaged(draw) -> bytes:
    """A picture with some bytes changed, cut off, or left out."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for place, value in draw(st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=8)):
        content[int(place * (len(content) - 1))] = value
    start, end = sorted(int(draw(PLACES) * len(content)) for _ in range(2))
    action = draw(st.sampled_from(["keep", "cut", "leave out"]))
    if action != "keep":
        del content[start : end if action == "leave out" else len(content)]
    return bytes(content)


@given(st.binary(max_size=200) | damaged())
@example(b"GIF89a")
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_comes_in_is_read_or_refused(content):
    try:
        read = read_captcha(content)
    except UnreadablePicture as error:
        assert str(error).startswith("bytes: ")
    else:
        assert set(read.text) <= set(ALPHABET) and 0 <= read.confidence <= 1


def test_confidence_and_alternatives_are_probabilities_of_texts():
    """Against lesson 3's sum over all paths."""
    from notebooks_py.ch3_ctc import loss_by_hand

    rng = np.random.default_rng(1)
    toy = rng.dirichlet(np.ones(3), size=6)
    for label in [[1, 2], [1, 1], [2, 1, 2], []]:
        (chance,) = reading.chances(toy, np.array(label, int)[None])
        assert chance == pytest.approx(math.exp(-loss_by_hand(toy, label)))
    columns = rng.dirichlet(np.full(37, 0.2), size=16)
    read = reading.decode(columns)
    place, options = len(read.text) - 1, read.alternatives[-1]
    assert len(read.alternatives) == len(read.text) > 4 and len(options) == reading.BEST
    texts = [read.text[:place] + character for character in ALPHABET]
    each = reading.chances(columns, encode(texts, length=place + 1) + 1)
    for character, chance in options.items():
        assert chance == pytest.approx(each[ALPHABET.index(character)] / each.sum(), abs=1e-6)
    assert list(options.values()) == sorted(options.values(), reverse=True)


def test_a_captcha_of_this_style_is_read_surely_and_another_is_not():
    read = read_captcha(PIXELS)
    assert (read.text, [*map(next, map(iter, read.alternatives))]) == (EASY, [*EASY])
    others = [
        np.random.default_rng(seed).integers(0, 256, PIXELS.shape, np.uint8) for seed in range(6)
    ]
    for text in (EASY, "ABCD", "R2D2", "KQ7P", "WXYZ", "3F9H"):
        others.append(Image.new("RGB", (128, 64), "white"))
        font = ImageFont.load_default(34)
        ImageDraw.Draw(others[-1]).text((14, 10), text, fill="black", font=font)
    sure = [reading.confidence for reading in read_captchas(others)]
    assert read.confidence > 0.99 and max(sure) < 0.8 and np.mean(sure) < 0.3
    empty = reading.decode(np.eye(37)[[0] * 16])
    assert empty == reading.Reading("", 1.0, ())


@pytest.fixture(scope="module")
def keras_network():
    return reading.keras_network()


@pytest.mark.parametrize("draw", [draw_captchas, draw_preview])
def test_onnx_runtime_reads_what_keras_reads(keras_network, draw):
    rng = stream(19, "reading", epoch=0, index=0)
    texts = random_texts(rng, 1_000 if draw is draw_captchas else 100)
    pictures, onnx_network = draw(texts, rng), reading.onnx_network()
    right = 0
    for start in range(0, len(texts), 100):
        some = slice(start, start + 100)
        ours, theirs = onnx_network(pictures[some]), keras_network(pictures[some])
        assert ours.shape == (100, 16, 37) and ours.dtype == np.float32
        assert np.abs(ours - theirs).max() < 1e-4
        answers = [[reading.decode(c).text for c in columns] for columns in (ours, theirs)]
        assert answers[0] == answers[1]
        right += sum(a == b for a, b in zip(answers[0], texts[some], strict=True))
    assert right > (0.96 if draw is draw_captchas else 0.7) * len(texts)


def test_the_onnx_file_is_made_from_these_weights():
    stamp = sha256(MODELS / "ctc.keras").encode()
    assert stamp in (MODELS / "ctc.onnx").read_bytes(), "run `make export`"


@needs_onnx
def test_equal_weights_give_equal_bytes():
    assert export.export(MODELS / "ctc.keras") == (MODELS / "ctc.onnx").read_bytes()


@needs_onnx
def test_a_network_of_another_size_is_exported_and_a_gru_is_refused():
    from notebooks_py.ch3_ctc import build_ctc

    small = build_ctc(classes=10, width=192, filters=(4, 8), convs=1)
    content = export.to_onnx(small, alphabet="0123456789").SerializeToString()
    assert export.distance(content, small) < 1e-4
    with pytest.raises(ValueError, match="is a Bidirectional, which has no place in here"):
        export.to_onnx(build_ctc(filters=(4, 8), rnn=(4,)))


def test_an_onnx_file_of_other_weights_is_not_used(tmp_path, capsys):
    home = tmp_path / "models"
    home.mkdir()
    assert reading.onnx_network(home) is None and not capsys.readouterr().err
    content = (MODELS / "ctc.onnx").read_bytes()
    (home / "ctc.onnx").write_bytes(content)
    assert reading.onnx_network(home)  # without weights beside it, there is nothing to compare
    (home / "ctc.keras").write_bytes(b"others")
    assert reading.onnx_network(home) is None
    said = "so Keras reads; `make export` makes it anew\n"
    path = home / "ctc.onnx"
    assert capsys.readouterr().err == f"{path} was not made from this ctc.keras, {said}"
    path.write_bytes(content[:10_000])
    assert reading.onnx_network(home) is None
    assert capsys.readouterr().err == f"{path} is damaged, {said}"


def test_without_onnx_runtime_keras_reads(keras_network, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(reading, "keras_network", lambda: keras_network)
    monkeypatch.setattr(reading, "network", functools.cache(reading.network.__wrapped__))
    assert reading.network() is keras_network and read_captcha(PIXELS).text == EASY


def test_the_command_reads_what_it_can(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(saved(CAPTCHA))
    Path("b.gif").write_bytes(saved(CAPTCHA, "GIF"))
    Path("empty.png").touch()
    assert main(["a.png", "b.gif"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["a.png", EASY], ["b.gif", EASY]]
    assert all(60 <= int(line.split()[2]) <= 100 and line.endswith(" %") for line in lines)
    assert main(["empty.png", "a.png", "none.png"]) == 1
    out, err = capsys.readouterr()
    assert out == f"{lines[0]}\n"
    assert err == "empty.png: there is nothing in it\nnone.png: there is no such file\n"
    assert main(["--json", "empty.png", "a.png"]) == 1
    refused, read = map(json.loads, capsys.readouterr().out.splitlines())
    assert refused == {"file": "empty.png", "error": "empty.png: there is nothing in it"}
    alternatives = [*map(dict, read_captcha("a.png").alternatives)]
    assert (read["file"], read["text"], read["alternatives"]) == ("a.png", EASY, alternatives)
    assert read["confidence"] == read_captcha("a.png").confidence


def test_the_command_says_what_weights_know_and_miss(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0 and "The weights know one style" in capsys.readouterr().out
    missing = Missing("there is no models/ctc.json; `git checkout models` brings it back")
    monkeypatch.setattr(reading, "network", Mock(side_effect=missing))
    (tmp_path / "a.png").write_bytes(saved(CAPTCHA))
    with pytest.raises(SystemExit, match="^captcha_reader: there is no models/ctc.json; `git"):
        main([str(tmp_path / "a.png")])
    with pytest.raises(Missing, match="there is no models/ctc.json"):
        reading.keras_network(tmp_path / "models")


def test_reading_with_onnx_runtime_needs_no_tensorflow(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(CAPTCHA))
    code = "import sys; from captcha_reader.__main__ import main; main(sys.argv[1:]); "
    code += "print([name for name in ('keras', 'tensorflow') if name in sys.modules])"
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=MODELS.parent)
    assert (run.returncode, run.stderr) == (0, "") and run.stdout.splitlines()[1] == "[]"
    assert run.stdout.startswith(f"{tmp_path / 'a.png'}  {EASY}  ")
