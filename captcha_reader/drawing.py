"""Captchas from a seed, drawn by the captcha package; and one captcha taken apart."""

import importlib.util
import random
import types
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from captcha.image import DEFAULT_FONTS
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from captcha_reader.texts import HEIGHT, WIDE_WIDTH, WIDTH

FONT_SIZES = (42, 50, 56)  # points, the package's defaults
Size = tuple[int, int]
Color = tuple[int, ...]
Masked = tuple[Image.Image, Image.Image]  # a glyph and its mask


def stream(seed: int, split: str, epoch: int, index: int) -> random.Random:
    """Return the random stream of one batch: equal arguments, equal stream, on every machine."""
    return random.Random(f"{split}/{seed}/{epoch}/{index}")


def seeded_library(rng: random.Random) -> types.ModuleType:
    """Load a private copy of the module `captcha.image` that takes all its random draws from `rng`.

    Raises:
        RuntimeError: the installed captcha does not draw from `random`, so it cannot be seeded.
    """
    spec = importlib.util.find_spec("captcha.image")
    library = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(library)
    if not hasattr(library, "random"):
        raise RuntimeError(
            "the installed captcha draws from `secrets` and cannot be seeded (0.7.1 does); "
            "these lessons need 0.7.0: pip install captcha==0.7.0"
        )
    library.random = rng
    return library


def random_size(rng: random.Random) -> tuple[int, int]:
    """Choose a random width and height in pixels: 50 to 100 high, 1.9 to 3.4 times as wide."""
    height = rng.randint(50, 100)
    return round(height * rng.uniform(1.9, 3.4)), height


def draw_captchas(
    texts: Sequence[str], rng: random.Random, width: int = WIDTH, height: int = HEIGHT
) -> np.ndarray:
    """Draw each text with the captcha package: uint8 RGB, shape (len(texts), height, width, 3).

    Raises:
        ValueError: there is no text, or one of them is empty.
    """
    if len(texts) == 0 or "" in texts:
        raise ValueError(f"cannot draw {list(texts)!r}: give at least one text, none of them empty")
    painter = seeded_library(rng).ImageCaptcha(width, height)
    return np.stack([np.asarray(painter.generate_image(text)) for text in texts])


def draw_wide(texts: Sequence[str], rng: random.Random) -> np.ndarray:
    """Draw each text with the captcha package: uint8 RGB, shape (len(texts), 64, 192, 3)."""
    return draw_captchas(texts, rng, WIDE_WIDTH)


def draw_modern(texts: Sequence[str], rng: random.Random) -> np.ndarray:
    """Draw each text as captcha 0.7.1 does: uint8 RGB, shape (len(texts), 64, 128, 3)."""
    pictures = [stages(text, rng, version=MODERN).pictures["smoothed"] for text in texts]
    return np.stack([np.asarray(picture) for picture in pictures])


@dataclass(frozen=True)
class Version:
    """What differs between versions of the package: corners of glyphs, and the ends of the arc."""

    modern: bool

    def shifts(self, w: int, h: int, rng: random.Random) -> tuple[int, int, int, int]:
        """Choose how far two corners of a glyph of `w` by `h` pixels move: x, y, x, y."""
        if self.modern:  # captcha commit 6e26be4: the brackets around the range are missing
            dx = w * rng.random() * (0.3 - 0.1) + 0.1
            dy = h * rng.random() * (0.3 - 0.2) + 0.2
        else:
            dx, dy = w * rng.uniform(0.1, 0.3), h * rng.uniform(0.2, 0.3)
        return tuple(int(rng.uniform(-d, d)) for d in (dx, dy, dx, dy))

    def ends(self, w: int, rng: random.Random) -> tuple[int, int]:
        """Choose the left and the right end of the arc, two x, in a picture `w` pixels wide."""
        fifth = int(w / 5)
        return rng.randint(0, fifth), rng.randint(fifth if self.modern else w - fifth, w)


CLASSIC, MODERN = Version(modern=False), Version(modern=True)  # captcha 0.7.0 and 0.7.1


@dataclass(frozen=True)
class Glyph:
    """One character on its way into a captcha; the pictures are RGBA.

    `font_size` is in points, `angle` in degrees (counterclockwise), `box` the width and height in
    pixels that the glyph is stretched into. `ink` is the letter as the font draws it, `rotated` and
    `warped` what becomes of it.
    """

    character: str
    font_size: int
    angle: float
    box: Size
    ink: Image.Image
    rotated: Image.Image
    warped: Image.Image


@dataclass(frozen=True)
class Anatomy:
    """One captcha taken apart: RGB pictures by stage, in order, and its glyphs without blanks."""

    pictures: dict[str, Image.Image]
    glyphs: list[Glyph]


def draw_glyph(
    character: str, color: Color, rng: random.Random, version: Version = CLASSIC
) -> Glyph:
    """Draw one character in an RGBA colour just as the package's `_draw_character` does."""
    font = ImageFont.truetype(DEFAULT_FONTS[0], rng.choice(FONT_SIZES))
    canvas = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    w, h = (int(end) for end in canvas.multiline_textbbox((1, 1), character, font=font)[2:])
    dx, dy = rng.randint(0, 4), rng.randint(0, 6)
    ink = Image.new("RGBA", (w + dx, h + dy))
    ImageDraw.Draw(ink).text((dx, dy), character, font=font, fill=color)
    ink = ink.crop(ink.getbbox())
    angle = rng.uniform(-30, 30)
    rotated = ink.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    x1, y1, x2, y2 = version.shifts(w, h, rng)
    w2, h2 = w + abs(x1) + abs(x2), h + abs(y1) + abs(y2)
    corners = (x1, y1, -x1, h2 - y2, w2 + x2, h2 + y2, w2 - x2, -y1)
    warped = rotated.resize((w2, h2)).transform((w, h), Image.Transform.QUAD, corners)
    return Glyph(character, font.size, angle, (w, h), ink, rotated, warped)


def mask_of(glyph: Image.Image) -> Image.Image:
    """Return how strongly each pixel of an RGBA glyph is pasted: its brightness times 1.97."""
    return glyph.convert("L").point([int(level * 1.97) for level in range(256)])


def stages(
    text: str,
    rng: random.Random,
    size: Size = (WIDTH, HEIGHT),
    version: Version = CLASSIC,
) -> Anatomy:
    """Draw a captcha as the package does and keep every stage; the last is the package's picture.

    The pictures are "pasted" (the glyphs side by side, at least `size` wide), "squeezed" to `size`,
    "dots", "arc" and "smoothed".
    """
    background = tuple(rng.randint(238, 255) for _ in range(3))
    opacity = rng.randint(220, 255)
    color = (*(rng.randint(10, 200) for _ in range(3)), opacity)
    glyphs = []
    for character in text:
        if rng.random() > 0.5:
            glyphs.append(draw_glyph(" ", color, rng, version))
        glyphs.append(draw_glyph(character, color, rng, version))
    pieces = [(glyph.warped, mask_of(glyph.warped)) for glyph in glyphs]
    pasted = paste(pieces, len(text), background, rng, size)
    squeezed = pasted.resize(size)
    dots = add_dots(squeezed.copy(), color, rng)
    arc = add_arc(dots.copy(), color, rng, version)
    pictures = {"pasted": pasted, "squeezed": squeezed, "dots": dots, "arc": arc}
    pictures["smoothed"] = arc.filter(ImageFilter.SMOOTH)
    return Anatomy(pictures, [glyph for glyph in glyphs if glyph.character != " "])


def paste(
    glyphs: Sequence[Masked], characters: int, background: Color, rng: random.Random, size: Size
) -> Image.Image:
    """Paste glyphs and blanks side by side as the package does; return an RGB picture.

    It is as high as `size` and at least as wide. `characters` counts the glyphs without blanks.
    """
    text_width = sum(glyph.width for glyph, _ in glyphs)
    picture = Image.new("RGB", (max(text_width, size[0]), size[1]), background)
    average = int(text_width / max(1, characters))
    x = int(average * 0.1)
    for glyph, mask in glyphs:
        picture.paste(glyph, (x, int((size[1] - glyph.height) / 2)), mask)
        x += glyph.width + rng.randint(-int(0.25 * average), 0)
    return picture


def add_dots(picture: Image.Image, color: Color, rng: random.Random) -> Image.Image:
    """Draw 30 dots into a picture as the package does; return the picture."""
    pen = ImageDraw.Draw(picture)
    for _ in range(30):
        x, y = rng.randint(0, picture.width), rng.randint(0, picture.height)
        pen.line(((x, y), (x - 1, y - 1)), fill=color, width=3)
    return picture


def add_arc(
    picture: Image.Image, color: Color, rng: random.Random, version: Version = CLASSIC
) -> Image.Image:
    """Draw the arc into a picture as a version of the package does; return the picture."""
    w, h = picture.size
    left, right = version.ends(w, rng)
    top = rng.randint(int(h / 5), h - int(h / 5))
    bottom = rng.randint(top, h - int(h / 5))
    end, start = rng.randint(160, 200), rng.randint(0, 20)
    ImageDraw.Draw(picture).arc((left, top, right, bottom), start, end, fill=color)
    return picture
