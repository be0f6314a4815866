"""Fast drawing: a bank of glyphs that the captcha package drew, composed by the package's rules.

Two thirds of the time that the package takes for a picture goes into glyphs that it throws away. A
bank keeps them. Every glyph is drawn in the colour of its captcha: the package thins the edges of
strokes, more so in dark colours, and a glyph that is coloured afterwards has other strokes.
"""

import random
import types
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from captcha_reader.drawing import CLASSIC, Color, add_arc, add_dots, mask_of, seeded_library
from captcha_reader.texts import ALPHABET, HEIGHT, WIDTH


class GlyphBank:
    """Draws captchas of any size several times as fast as the package, from glyphs that it drew.

    The bank is made from `seed` alone: `colors` random colours, in each of them every character
    of `alphabet` `copies` times (a character that stands twice in it twice as often), and 100
    widths of blanks. Dots and arcs are drawn anew for each captcha. Make a new bank after some ten
    thousand captchas, and shapes never end. `fonts` are paths of TrueType files; without any, the
    package's own font is used. A bank can be pickled, so another process can draw from it.
    """

    def __init__(
        self,
        seed: int | str,
        alphabet: str = ALPHABET,
        colors: int = 60,
        copies: int = 3,
        fonts: Sequence[str] = (),
    ):
        rng = random.Random(f"bank/{seed}")
        library = seeded_library(rng)
        painter = library.ImageCaptcha(fonts=list(fonts) or None)
        self.colors = [library.random_color(10, 200, rng.randint(220, 255)) for _ in range(colors)]
        self.glyphs = [
            {
                character: [self.glyph(painter, character, color) for _ in range(copies * count)]
                for character, count in Counter(alphabet).items()
            }
            for color in self.colors
        ]
        self.blanks = [self.glyph(painter, " ", self.colors[0])[0].width for _ in range(100)]

    def glyph(
        self, painter: types.SimpleNamespace, character: str, color: Color
    ) -> tuple[Image.Image, Image.Image]:
        """Let an `ImageCaptcha` of the package draw a character; return it and its mask."""
        canvas = ImageDraw.Draw(Image.new("RGB", (1, 1)))
        glyph = painter._draw_character(character, canvas, color)
        return glyph.convert("RGB"), mask_of(glyph)

    def draw(
        self, texts: Sequence[str], rng: random.Random, width: int = WIDTH, height: int = HEIGHT
    ) -> np.ndarray:
        """Draw each text: uint8 RGB, shape (len(texts), height, width, 3).

        Raises:
            ValueError: a text is empty, or a character is not in the alphabet of this bank.
        """
        alphabet = self.glyphs[0]
        for text in texts:
            if not text:
                raise ValueError("'' has no character to draw: give texts of at least one")
            for character in text:
                if character not in alphabet:
                    raise ValueError(
                        f"{character!r} in {text!r} is not in the alphabet {''.join(alphabet)!r} "
                        "of this bank"
                    )
        return np.stack([np.asarray(self._captcha(text, rng, (width, height))) for text in texts])

    def scribble(self, rng: random.Random, width: int, height: int) -> np.ndarray:
        """Draw a captcha without a text: uint8 RGB, shape (height, width, 3)."""
        return np.asarray(self._captcha("", rng, (width, height)))

    def _captcha(self, text: str, rng: random.Random, size: tuple[int, int]) -> Image.Image:
        background = tuple(rng.randint(238, 255) for _ in range(3))
        color = rng.randrange(len(self.colors))
        pieces = []  # pairs of a width, and a glyph with its mask; a blank has only a width
        for character in text:
            if rng.random() > 0.5:
                pieces.append((rng.choice(self.blanks), None))
            glyph, mask = rng.choice(self.glyphs[color][character])
            pieces.append((glyph.width, (glyph, mask)))
        width, height = size
        text_width = sum(w for w, _ in pieces)
        average = int(text_width / max(1, len(text)))
        picture = Image.new("RGB", (max(text_width, width), height), background)
        x = int(average * 0.1)
        for w, piece in pieces:
            if piece:
                picture.paste(piece[0], (x, int((height - piece[0].height) / 2)), piece[1])
            x += w + rng.randint(-int(0.25 * average), 0)
        if text_width > width:
            picture = picture.resize(size)
        add_dots(picture, self.colors[color], rng)
        add_arc(picture, self.colors[color], rng, CLASSIC)
        return picture.filter(ImageFilter.SMOOTH)
