"""Pictures as people have them: captchas changed in the ways that come up most, and what is none.

`make study WHAT=kinds` counts how they are read; the test of the page reads some of each.
"""

import io
import random
import string
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from captcha_reader.drawing import Size, draw_captchas
from captcha_reader.practice import LOWER_CASE, slant
from captcha_reader.testsets import hills
from captcha_reader.texts import random_texts

Draw = Callable[[random.Random], tuple[Image.Image, str]]


def captcha(change: Callable = Image.Image.copy, size: Size = (128, 64), length: int = 4) -> Draw:
    """Return a function that draws a captcha, changes it, and returns it with its text."""

    def draw(rng: random.Random) -> tuple[Image.Image, str]:
        (text,) = random_texts(rng, 1, length=length)
        return change(Image.fromarray(draw_captchas([text], rng, *size)[0])), text

    return draw


def stencil(picture: Image.Image, ink: str) -> Image.Image:
    """Lay a captcha's darkness into the alpha channel of one colour."""
    clear = Image.new("RGBA", picture.size, ink)
    clear.putalpha(ImageOps.autocontrast(ImageOps.invert(picture.convert("L"))))
    return clear


def lower_case(rng: random.Random) -> tuple[Image.Image, str]:
    """Draw four small letters, two of which look like no capital: no text that is known."""
    text = rng.choices(LOWER_CASE, k=2) + rng.choices(string.ascii_lowercase, k=2)
    return Image.fromarray(draw_captchas(["".join(text)], rng)[0]), ""


PICTURES: dict[str, Draw] = {
    "as drawn": captcha(),
    "white ink on a transparent ground": captcha(lambda x: stencil(x, "white")),
    "black ink on a transparent ground": captcha(lambda x: stencil(x, "black")),
    "a white margin of 8 pixels": captcha(lambda x: ImageOps.expand(x, 8, "white")),
    "a white margin of 16 pixels": captcha(lambda x: ImageOps.expand(x, 16, "white")),
    "a black line in a white margin": captcha(
        lambda x: ImageOps.expand(ImageOps.expand(x, 2, "black"), 10, "white")
    ),
    "light on dark": captcha(ImageOps.invert),
    "scaled to 64x32": captcha(lambda x: x.resize((64, 32))),
    "drawn at 200x80": captcha(size=(200, 80)),
    "six characters at 128x64": captcha(length=6),
    "turned by 5 degrees": captcha(lambda x: Image.fromarray(slant(np.asarray(x), 5))),
    "JPEG of quality 50": captcha(
        lambda x: x.save(file := io.BytesIO(), "JPEG", quality=50) or Image.open(file)
    ),
    "lower case": lower_case,
    "blank": lambda rng: (Image.new("RGB", (128, 64), tuple(rng.choices(range(256), k=3))), ""),
    # Hills as seen from above, the nearest that Matplotlib has to another photo.
    "a landscape": lambda rng: (Image.fromarray(hills(rng, 128, 64).astype(np.uint8)), ""),
}
