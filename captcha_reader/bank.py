"""Fast drawing: a bank of glyphs that the captcha package drew, composed by the package's rules.

Two thirds of the time that the package takes for a picture goes into glyphs that it throws away. A
bank keeps them. Every glyph is drawn in the colour of its captcha: the package thins the edges of
strokes, more so in dark colours, and a glyph that is coloured afterwards has other strokes.
"""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from captcha_reader.drawing import mask_of, seeded_library
from captcha_reader.texts import ALPHABET, HEIGHT, WIDTH


class GlyphBank:
    """Draws captchas several times as fast as the package, from glyphs that it drew beforehand.

    The bank is made from `seed` alone: `colors` random colours, in each of them every character
    of `alphabet` `copies` times (a character that stands twice in it twice as often), 100 widths
    of blanks, and 1,000 masks of noise. Make a new one after some ten thousand captchas, and shapes
    never end. `fonts` are paths of TrueType files; without any, the package's own font is used.
    """

    def __init__(
        self,
        seed: int | str,
        alphabet: str = ALPHABET,
        width: int = WIDTH,
        height: int = HEIGHT,
        colors: int = 60,
        copies: int = 3,
        fonts: Sequence[str] = (),
    ):
        rng = random.Random(f"bank/{seed}")
        self.size = width, height
        library = seeded_library(rng)
        self.painter = library.ImageCaptcha(width, height, list(fonts) or None)
        self.canvas = ImageDraw.Draw(Image.new("RGB", (1, 1)))
        self.colors = [library.random_color(10, 200, rng.randint(220, 255)) for _ in range(colors)]
        self.glyphs = [
            {
                character: [self._glyph(character, color) for _ in range(copies * count)]
                for character, count in Counter(alphabet).items()
            }
            for color in self.colors
        ]
        self.blanks = [self._glyph(" ", self.colors[0])[0].width for _ in range(100)]
        self.noise = [self._noise() for _ in range(1_000)]

    def _glyph(self, character: str, color: tuple[int, ...]) -> tuple[Image.Image, Image.Image]:
        glyph = self.painter._draw_character(character, self.canvas, color)
        return glyph.convert("RGB"), mask_of(glyph)

    def _noise(self) -> Image.Image:
        mask = Image.new("L", self.size)
        self.painter.create_noise_dots(mask, 255)
        return self.painter.create_noise_curve(mask, 255)

    def draw(self, texts: Sequence[str], rng: random.Random) -> np.ndarray:
        """Draw each text: uint8 RGB, shape (len(texts), height, width, 3).

        Raises:
            ValueError: a character is not in the alphabet of this bank.
        """
        for text in texts:
            for character in text:
                if character not in self.glyphs[0]:
                    raise ValueError(
                        f"{character!r} in {text!r} is not in the alphabet "
                        f"{''.join(self.glyphs[0])!r} of this bank"
                    )
        return np.stack([np.asarray(self._captcha(text, rng)) for text in texts])

    def _captcha(self, text: str, rng: random.Random) -> Image.Image:
        background = tuple(rng.randint(238, 255) for _ in range(3))
        color = rng.randrange(len(self.colors))
        pieces = []  # pairs of a glyph and its mask; a blank is its width
        for character in text:
            if rng.random() > 0.5:
                pieces.append((rng.choice(self.blanks), None))
            glyph, mask = rng.choice(self.glyphs[color][character])
            pieces.append((glyph.width, (glyph, mask)))
        width, height = self.size
        text_width = sum(w for w, _ in pieces)
        average = int(text_width / len(text))
        picture = Image.new("RGB", (max(text_width, width), height), background)
        x = int(average * 0.1)
        for w, piece in pieces:
            if piece:
                picture.paste(piece[0], (x, int((height - piece[0].height) / 2)), piece[1])
            x += w + rng.randint(-int(0.25 * average), 0)
        if text_width > width:
            picture = picture.resize(self.size)
        picture.paste(self.colors[color][:3], mask=rng.choice(self.noise))
        return picture.filter(ImageFilter.SMOOTH)
