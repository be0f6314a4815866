"""Captchas in styles that the finished network has never seen, to try fine-tuning on.

"colours": each letter in a colour of its own, lines across. "lower case": five letters and digits
on a wave, close together. "noisy digits": small ones on a speckled ground.
"""

import random
import string

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from captcha_reader.texts import ALPHABET

STYLES = {  # characters, their number, width and height, font
    "colours": (ALPHABET, 4, (128, 64), "DejaVu Serif:bold"),
    "lower case": ("abcdefghijkmnpqrstuvwxyz23456789", 5, (200, 60), "DejaVu Sans:italic"),
    "noisy digits": (string.digits, 4, (96, 34), "DejaVu Sans Mono"),
}


def draw_style(style: str, texts: list[str], rng: random.Random) -> np.ndarray:
    """Draw n texts in a style: uint8 RGB (n, height, width, 3)."""
    _, _, size, font = STYLES[style]
    path = font_manager.findfont(font)
    draw = {"colours": _colours, "lower case": _lower_case, "noisy digits": _noisy_digits}[style]
    return np.stack([draw(text, rng, size, path) for text in texts])


def _color(rng: random.Random, low: int, high: int) -> tuple[int, ...]:
    return tuple(rng.choices(range(low, high), k=3))


def _letter(character: str, path: str, size: int, degrees: float) -> Image.Image:
    """Draw a character in the middle of a mask of 50x50 pixels."""
    mask = Image.new("L", (50, 50))
    font = ImageFont.truetype(path, size)
    ImageDraw.Draw(mask).text((25, 25), character, 255, font, anchor="mm")
    return mask.rotate(degrees, Image.Resampling.BICUBIC)


def _colours(text: str, rng: random.Random, size: tuple, path: str) -> np.ndarray:
    page = Image.new("RGB", size, _color(rng, 200, 256))
    for place, character in enumerate(text):
        letter = _letter(character, path, rng.randint(26, 36), rng.uniform(-35, 35))
        corner = 28 * place - 3 + rng.randint(-3, 3), rng.randint(0, 14)
        page.paste(_color(rng, 0, 170), corner, letter)
    for _ in range(4):
        ends = [(rng.randint(0, size[0]), rng.randint(0, size[1])) for _ in range(2)]
        ImageDraw.Draw(page).line(ends, _color(rng, 0, 200), 2)
    return np.asarray(page)


def _lower_case(text: str, rng: random.Random, size: tuple, path: str) -> np.ndarray:
    width, height = size
    page, ink = Image.new("RGB", size, (245, 245, 240)), _color(rng, 0, 110)
    left = rng.randint(5, 40)
    for character in text:
        page.paste(ink, (left, rng.randint(-2, 10)),
                   _letter(character, path, 40, rng.uniform(-10, 10)))  # fmt: skip
        left += rng.randint(22, 27)
    ends = [(0, rng.randint(10, 50)), (width, rng.randint(10, 50))]
    ImageDraw.Draw(page).line(ends, ink, 3)
    phase, wave = rng.uniform(0, 6.3), rng.uniform(50, 90)
    shift = np.round(5 * np.sin(2 * np.pi * np.arange(width) / wave + phase)).astype(int)
    rows = np.clip(np.arange(height)[:, None] + shift, 0, height - 1)
    return np.asarray(page)[rows, np.arange(width)]


def _noisy_digits(text: str, rng: random.Random, size: tuple, path: str) -> np.ndarray:
    page, left = Image.new("RGB", size, _color(rng, 150, 240)), rng.randint(-9, 1)
    for character in text:
        letter = _letter(character, path, rng.randint(20, 26), rng.uniform(-20, 20))
        page.paste(_color(rng, 0, 140), (left, rng.randint(-12, -5)), letter)
        left += rng.randint(17, 22)
    noise = np.random.default_rng(rng.getrandbits(32))
    picture = page + noise.normal(0, 25, (*size[::-1], 3))
    specks = noise.random(size[::-1]) < 0.08
    picture[specks] = noise.integers(0, 256, (specks.sum(), 3))
    return np.clip(picture, 0, 255).astype(np.uint8)
