"""Fast drawing: a bank of glyphs that the captcha package drew, composed by the package's rules.

Two thirds of the time that the package takes for a picture goes into glyphs that it throws away. A
bank keeps them. Every glyph is drawn in the colour of its captcha: the package thins the edges of
strokes, more so in dark colours, and a glyph that is coloured afterwards has other strokes.
"""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
from captcha.image import ImageCaptcha
from PIL import Image, ImageDraw, ImageFilter

from captcha_reader.drawing import Color, Masked, add_arc, add_dots, mask_of, paste, seeded_library
from captcha_reader.texts import ALPHABET, HEIGHT, WIDTH, check


class GlyphBank:
    """Draws captchas of any size several times as fast as the package, from glyphs that it drew.

    `seed` decides all that is random in the bank. It holds `copies` glyphs of each character in
    each of `colors` random colours (twice as many if the character stands twice in `alphabet`), and
    100 blanks. Dots and arcs are drawn anew for each captcha. Make a new bank after some tens of
    thousands of captchas, so that new shapes keep coming. `fonts` are paths of TrueType files;
    without any, the package's own font is used. A bank can be pickled, so another process can draw
    from it.
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
        self.blanks = [self.glyph(painter, " ", self.colors[0]) for _ in range(100)]

    def glyph(self, painter: ImageCaptcha, character: str, color: Color) -> Masked:
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
        if "" in texts:
            raise ValueError("'' has no character to draw: give texts of at least one")
        check(texts, "".join(self.glyphs[0]))
        return np.stack([np.asarray(self._captcha(text, rng, (width, height))) for text in texts])

    def scribble(self, rng: random.Random, width: int, height: int) -> np.ndarray:
        """Draw a captcha without a text: uint8 RGB, shape (height, width, 3)."""
        return np.asarray(self._captcha("", rng, (width, height)))

    def _captcha(self, text: str, rng: random.Random, size: tuple[int, int]) -> Image.Image:
        background = tuple(rng.randint(238, 255) for _ in range(3))
        color = rng.randrange(len(self.colors))
        glyphs = []
        for character in text:
            if rng.random() > 0.5:
                glyphs.append(rng.choice(self.blanks))
            glyphs.append(rng.choice(self.glyphs[color][character]))
        picture = paste(glyphs, len(text), background, rng, size).resize(size)
        add_dots(picture, self.colors[color], rng)
        add_arc(picture, self.colors[color], rng)
        return picture.filter(ImageFilter.SMOOTH)
