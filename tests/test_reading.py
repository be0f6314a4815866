"""Pictures of every kind are read or refused with a reason; ONNX Runtime reads what Keras does."""

import functools
import importlib.util
import json
import math
import re
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import saved
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from captcha_reader import reading
from captcha_reader.__main__ import main
from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.reading import (
    UnreadablePicture,
    network_width,
    read_captcha,
    read_captchas,
    scale,
    to_pixels,
)
from captcha_reader.texts import ALPHABET, encode, random_texts
from captcha_reader.weights import MODELS, Missing, sha256
from tools import export

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


@given(st.integers(1, 5_000), st.integers(1, 5_000))
@example(33, 16)  # 16.5 eights
@example(31, 16)
def test_a_width_is_in_proportion_in_whole_eights_and_a_half_is_rounded_up(width, height):
    eights = math.floor(Fraction(8 * width, height) + Fraction(1, 2))
    assert network_width(width, height) == min(320, max(64, 8 * eights))


@pytest.mark.parametrize(("size", "width"), [
    ((128, 64), 128), ((170, 80), 136), ((160, 60), 168), ((33, 16), 136), ((90, 100), 64),
    ((500, 50), 320), ((1, 1), 64), ((2_000, 1), 320), ((3_000, 4_000), 64),
])  # fmt: skip
def test_files_and_arrays_of_every_size_are_scaled_alike(size, width):
    picture = CAPTCHA.resize(size)
    pixels = to_pixels(saved(picture))
    assert np.array_equal(pixels, picture.resize((width, 64), Image.Resampling.BILINEAR))
    (scaled,) = scale(np.asarray(picture)[None])
    assert np.array_equal(scaled, pixels)
    assert size != (128, 64) or np.array_equal(scaled, PIXELS)  # byte for byte
    # Four heads have one width for all.
    assert scale(np.asarray(picture)[None], 128).shape == (1, 64, 128, 3)
    assert to_pixels(picture, 128).shape == (64, 128, 3)


def test_many_captchas_of_many_sizes_are_read_in_order(monkeypatch):
    seen = []

    def network(pictures):
        """Read in each picture the character whose number its pixels have."""
        seen.append(pictures.shape)
        columns = np.zeros((len(pictures), pictures.shape[2] // 8, 37))
        columns[:, 1:, 0] = columns[range(len(pictures)), 0, pictures[:, 0, 0, 0] + 1] = 1
        return columns

    monkeypatch.setattr(reading, "network", lambda: network)
    sizes = [(64, 128), (80, 170), (50, 170)]
    pictures = [np.full((*sizes[i * i % 3], 3), i % 36, np.uint8) for i in range(2 * 101)]
    texts = [read.text for read in read_captchas(pictures)]
    assert texts == [ALPHABET[i % 36] for i in range(2 * 101)]
    assert {shape[2] for shape in seen} == {128, 136} and len(seen) < 7  # many at a time
    assert max(shape[0] for shape in seen) <= reading.BATCH
    assert read_captchas([]) == []


def header(width: int, height: int) -> bytes:
    """A PNG whose header tells of a picture that the rest does not hold."""
    content = saved(Image.new("L", (1, 1)))
    chunk = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


FRAMES = {"save_all": True, "append_images": [CAPTCHA.rotate(5)]}
REFUSED = {
    "nothing": (b"", "nothing"),
    "a text": (b"hello, world", "no picture .*PNG, JPEG, GIF"),
    "half a PNG": (saved(CAPTCHA)[:2_000], "damaged"),
    "half a JPEG": (saved(CAPTCHA, "JPEG")[:1_500], "damaged"),
    **{
        f"two pictures in a {kind}": (saved(CAPTCHA, kind, **FRAMES), "animated or .* pages")
        for kind in ("GIF", "PNG", "WEBP", "TIFF")
    },
    "too many pixels": (header(6_000, 5_000), "6,000 x 5,000 .*25,000,000"),
    "absurdly many": (header(2**31 - 1, 2**31 - 1), "too large"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_captcha_is_refused_by_name(tmp_path, what):
    content, message = REFUSED[what]
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadablePicture, match=f"^{tmp_path / 'a.png'}: .*{message}"):
        read_captcha(tmp_path / "a.png")
    with pytest.raises(UnreadablePicture, match=f"^bytes: .*{message}"):
        read_captcha(content)


def test_what_is_no_file_is_refused_by_name(tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(30_000_000)
    for name, message in {
        "none.png": "no such file",
        ".": "a folder",
        "a" * 1_000: "File name too long",
        "large.png": "30,000,000 bytes.* 25,000,000",
    }.items():
        with pytest.raises(UnreadablePicture, match=f"^{tmp_path / name}: .*{message}"):
            read_captcha(tmp_path / name)


def test_what_is_no_picture_in_memory_is_refused():
    for picture, message in (
        (PIXELS / 255, "ndarray: float64 .*64, 128, 3.* uint8"),
        (PIXELS[None], "ndarray: uint8 .*1, 64, 128, 3.* width"),
        (PIXELS[:, :, :2], "ndarray: uint8 of shape"),
        (PIXELS[:0], "ndarray: "),
        (Image.new("RGB", (0, 0)), "Image: 0 x 0 pixels"),
        (None, "NoneType: give a path, bytes"),
    ):
        with pytest.raises(UnreadablePicture, match=message):
            read_captcha(picture)


def test_one_error_class_covers_what_pillow_and_the_system_raise(monkeypatch):
    for error in (MemoryError(), SyntaxError("broken PNG file")):
        monkeypatch.setattr(ImageOps, "exif_transpose", Mock(side_effect=error))
        why = str(error) or "MemoryError"
        with pytest.raises(UnreadablePicture, match=f"bytes: .*damaged: {why}"):
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


def test_a_captcha_of_any_size_is_read_surely_and_nothing_where_there_is_nothing():
    for size in ((128, 64), (160, 60), (170, 80), (240, 80)):
        rng = stream(1, "reading", epoch=0, index=0)
        read = read_captcha(draw_captchas([EASY], rng, *size)[0])
        assert (read.text, [*map(next, map(iter, read.alternatives))]) == (EASY, [*EASY])
        assert read.confidence > 0.9
    noise = np.random.default_rng(1).integers(0, 256, (64, 128, 3), np.uint8)
    nothing = [noise, Image.new("RGB", (170, 80), "white"), ImageOps.mirror(CAPTCHA)]
    assert [read.text for read in read_captchas(nothing)] == [""] * 3
    empty = reading.decode(np.eye(37)[[0] * 16])
    assert empty == reading.Reading("", 1.0, ())


@pytest.fixture(scope="module")
def keras_network():
    network = reading.keras_network()

    def on_the_processor(pictures):  # a GPU may round more coarsely
        import keras

        with keras.device("cpu"):
            return network(pictures)

    return on_the_processor


@pytest.mark.parametrize("size", [(128, 64), (170, 80), (100, 50), (340, 100)])
def test_onnx_runtime_reads_what_keras_reads(keras_network, size):
    rng, onnx_network = stream(19, "reading", epoch=0, index=0), reading.onnx_network()
    for _ in range(3):
        pictures = scale(draw_captchas(random_texts(rng, 100), rng, *size))
        ours, theirs = onnx_network(pictures), keras_network(pictures)
        assert ours.shape == (100, network_width(*size) // 8, 37) and ours.dtype == np.float32
        assert np.abs(ours - theirs).max() < 1e-4
        answers = [[reading.decode(c).text for c in columns] for columns in (ours, theirs)]
        assert answers[0] == answers[1]


def test_the_onnx_file_is_made_from_these_weights():
    stamp = sha256(MODELS / "ctc.keras").encode()
    assert stamp in (MODELS / "ctc.onnx").read_bytes(), "run `make export`"


@needs_onnx
def test_equal_weights_give_equal_bytes():
    assert export.export(MODELS / "ctc.keras") == (MODELS / "ctc.onnx").read_bytes()


@needs_onnx
@pytest.mark.parametrize("more", [
    {"norms": "once", "stride": 2}, {"norms": "every", "width": 192, "classes": 10, "ink": False}
])  # fmt: skip
def test_networks_of_free_and_of_one_width_are_exported(more):
    from notebooks_py.ch3_ctc import build_ctc

    small = build_ctc(filters=(4, 8), tall=1, **more)
    rng = np.random.default_rng(1)  # no two norms alike
    small.set_weights([w + rng.normal(0, 0.05, w.shape) for w in small.get_weights()])
    content = export.to_onnx(small).SerializeToString()
    assert export.distance(content, small) < 1e-4
    small.set_weights([1.01 * w for w in small.get_weights()])
    assert export.distance(content, small) > 1e-4  # so a difference would be seen


@needs_onnx
def test_what_cannot_be_exported_is_refused_by_name(tmp_path):
    from notebooks_py.ch3_ctc import build_ctc

    with pytest.raises(ValueError, match="Bidirectional"):
        export.to_onnx(build_ctc(filters=(4, 8), rnn=(4,)))
    build_ctc(10, filters=(4, 8)).save(path := tmp_path / "digits.keras")
    with pytest.raises(ValueError, match="digits.keras has 11 .* 36 characters"):
        export.export(path)


def test_an_onnx_file_of_other_weights_is_not_used(tmp_path, capsys):
    home = tmp_path / "models"
    home.mkdir()
    assert reading.onnx_network(home) is None and not capsys.readouterr().err
    content = (MODELS / "ctc.onnx").read_bytes()
    (home / "ctc.onnx").write_bytes(content)
    assert reading.onnx_network(home)  # without weights beside it, there is nothing to compare
    (home / "ctc.keras").write_bytes(b"others")
    assert reading.onnx_network(home) is None
    assert re.fullmatch(".*ctc.onnx .*this ctc.keras.*`make export`.*\n", capsys.readouterr().err)
    (home / "ctc.onnx").write_bytes(content[:10_000])
    assert reading.onnx_network(home) is None
    assert re.fullmatch(".*ctc.onnx is damaged.*`make export`.*\n", capsys.readouterr().err)


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
    assert [line.split(":")[0] for line in err.splitlines()] == ["empty.png", "none.png"]
    assert main(["--json", "empty.png", "a.png"]) == 1
    refused, read = map(json.loads, capsys.readouterr().out.splitlines())
    assert refused["file"] == "empty.png" and "nothing in it" in refused["error"]
    alternatives = [*map(dict, read_captcha("a.png").alternatives)]
    assert (read["file"], read["text"], read["alternatives"]) == ("a.png", EASY, alternatives)
    assert read["confidence"] == read_captcha("a.png").confidence


def test_the_command_says_what_weights_know_and_miss(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0 and "one style" in capsys.readouterr().out
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
