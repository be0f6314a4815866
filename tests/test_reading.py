"""Pictures of every kind are read, or refused with a reason."""

import contextlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import saved
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captcha_reader import reading
from captcha_reader.__main__ import main
from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.reading import UnreadablePicture, read_captcha, read_captchas, to_pixels
from captcha_reader.texts import ALPHABET, encode
from captcha_reader.weights import MODELS

EASY = "7XKM"
PIXELS = draw_captchas([EASY], stream(1, "reading", epoch=0, index=0))[0]
CAPTCHA = Image.fromarray(PIXELS)
GREY = CAPTCHA.convert("L")
DEEP = Image.fromarray(np.asarray(GREY, np.uint16) * 257)  # 16 bits a pixel
EXIF = Image.Exif()
EXIF[0x0112] = 6  # the tag of orientation

# What is given, what the network should see, and how far each pixel may be from it on average.
KINDS = {
    "array": (PIXELS, PIXELS, 0),
    "grey array": (np.asarray(GREY), GREY, 0),
    "grey array with an axis": (np.asarray(GREY)[:, :, None], GREY, 0),
    "RGBA array": (np.asarray(CAPTCHA.convert("RGBA")), PIXELS, 0),
    **{kind: (saved(CAPTCHA, kind), PIXELS, 0) for kind in ("PNG", "BMP", "PPM", "TIFF")},
    "WebP": (saved(CAPTCHA, "WEBP", lossless=True), PIXELS, 0),
    "of a phone": (saved(CAPTCHA, "MPO", save_all=True, append_images=[CAPTCHA]), PIXELS, 6),
    "LA": (saved(GREY.convert("LA")), GREY, 0),
    "GIF": (saved(CAPTCHA.quantize(200), "GIF"), PIXELS, 2),
    "16 bits": (saved(DEEP), GREY, 0),
    "32 bits": (DEEP.convert("I"), GREY, 0),
    "32 bits for 8": (GREY.convert("I"), GREY, 0),
    "fractions": (Image.fromarray(np.asarray(GREY, np.float32) / 255), GREY, 0),
    "CMYK": (saved(CAPTCHA.convert("CMYK"), "JPEG", quality=95), PIXELS, 4),
    "three times as large": (saved(CAPTCHA.convert("RGBA").resize((384, 192))), PIXELS, 2),
    "turned by EXIF": (saved(CAPTCHA.transpose(Image.Transpose.ROTATE_90), exif=EXIF), PIXELS, 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_brought_to_what_the_network_knows(kind):
    picture, expected, tolerance = KINDS[kind]
    pixels = to_pixels(picture)
    assert (pixels.shape, pixels.dtype) == ((64, 128, 3), np.uint8)
    if isinstance(expected, Image.Image):
        expected = np.asarray(expected.convert("RGB"))
    assert np.abs(pixels - expected.astype(float)).mean() <= tolerance
    read = read_captcha(picture)
    assert read.text == EASY and read.confidence > 0.9


def test_what_is_transparent_is_white():
    palette = CAPTCHA.quantize(200)
    behind = palette.getpixel((0, 0))
    hidden = np.asarray(palette) == behind
    assert (to_pixels(saved(palette, "GIF", transparency=behind))[hidden] == 255).all()
    image = CAPTCHA.convert("RGBA")
    image.putalpha(GREY.point(lambda level: 255 * (level < 200)))
    hidden = np.asarray(GREY) >= 200
    assert np.array_equal(to_pixels(image), np.where(hidden[..., None], 255, PIXELS))


@pytest.mark.parametrize(("size", "width"), [
    ((128, 64), 128), ((170, 80), 136), ((160, 60), 168), ((33, 16), 136), ((31, 16), 128),
    ((90, 100), 64), ((500, 50), 320), ((1, 1), 64), ((2_000, 1), 320),
])  # fmt: skip
def test_files_and_arrays_of_every_size_are_scaled_alike(size, width):
    picture = CAPTCHA.resize(size)
    pixels = to_pixels(saved(picture))
    assert np.array_equal(pixels, picture.resize((width, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(reading.scale(np.asarray(picture)[None])[0], pixels)


def test_many_captchas_of_many_sizes_are_read_in_order():
    def probabilities(pictures):
        """Read in each picture the character whose number its pixels have."""
        columns = np.zeros((len(pictures), pictures.shape[2] // 8, 37))
        columns[:, 1:, 0] = columns[range(len(pictures)), 0, pictures[:, 0, 0, 0] + 1] = 1
        return columns

    pictures = [np.full((64, 100 + i * i % 90, 3), i % 36, np.uint8) for i in range(202)]
    readings = read_captchas(pictures, reading.Network(probabilities, ALPHABET))
    assert [read.text for read in readings] == [ALPHABET[i % 36] for i in range(202)]


REFUSED = {
    "bytes: .*no picture .*PNG, JPEG, GIF": b"hello, world",
    "damaged": saved(CAPTCHA)[:2_000],
    "animated": saved(GREY, "GIF", save_all=True, append_images=[CAPTCHA]),
    "float64 .*64, 128, 3.* uint8": PIXELS / 255,
    "uint8 .*1, 64, 128, 3.* width": PIXELS[None],
    "NoneType: give a path, bytes": None,
    "none.png: No such file": MODELS / "none.png",
    "models: Is a directory": str(MODELS),
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
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_read_or_refused(content, changes, end):
    content = bytearray(content)
    for place, value in changes:  # often where the headers are
        content[int(place * (len(content) - 1))] = value
    with contextlib.suppress(UnreadablePicture):
        read = read_captcha(bytes(content[: round(end * len(content))]))
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
    read = reading.to_reading(columns, ALPHABET)
    assert len(read.alternatives) == len(read.text) > 4
    texts = [read.text[:-1] + character for character in ALPHABET]
    each = reading.chances(columns, encode(texts, length=len(read.text)) + 1)
    best = sorted(zip(each / each.sum(), ALPHABET, strict=True), reverse=True)[:3]
    assert [*read.alternatives[-1]] == [character for _, character in best]
    assert [*read.alternatives[-1].values()] == pytest.approx([x for x, _ in best], abs=1e-6)


def test_the_command_reads_what_it_can(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    CAPTCHA.save("a.png")
    Image.new("RGB", (170, 80), "white").save("white.png")
    Path("empty.png").touch()
    read, nothing = read_captchas(["a.png", "white.png"])
    assert main(["empty.png", "a.png", "none.png", "white.png"]) == 1
    out, err = capsys.readouterr()
    lines = [("a.png", EASY, read), ("white.png", "(nothing)", nothing)]
    assert out.splitlines() == [f"{a}  {b}  {100 * c.confidence:.0f} %" for a, b, c in lines]
    assert [line.split(":")[0] for line in err.splitlines()] == ["empty.png", "none.png"]
    assert main(["--json", "a.png", "empty.png"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"file": "a.png", **vars(read), "alternatives": [*read.alternatives]}
    assert second["file"] == "empty.png" and "no picture" in second["error"]


def test_reading_needs_no_tensorflow(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(CAPTCHA))
    code = "import sys; sys.modules |= {'keras': None, 'tensorflow': None}; "
    code += "from captcha_reader.__main__ import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=MODELS.parent)
    assert EASY in run.stdout and run.stderr == ""
