"""Pictures as people have them: captchas changed in the ways that come up most, and what is none.

`make study WHAT=kinds` counts how they are read; the test of the page reads some of each.
"""

import json
import random
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.practice import LOWER_CASE, slant
from captcha_reader.scores import share
from captcha_reader.testsets import hills
from captcha_reader.texts import random_texts
from tools import runs

Kind = Callable[[random.Random], tuple[Image.Image, str]]


def captcha(rng: random.Random, width: int = 128, height: int = 64, length: int = 4) -> tuple:
    """Draw a captcha by the package, and return it with its text."""
    texts = random_texts(rng, 1, length=length)
    return Image.fromarray(draw_captchas(texts, rng, width, height)[0]), texts[0]


def changed(change: Callable[[Image.Image], Image.Image]) -> Kind:
    """Return what draws a classic captcha and changes it."""

    def draw(rng: random.Random) -> tuple[Image.Image, str]:
        picture, text = captcha(rng)
        return change(picture), text

    return draw


def stencil(picture: Image.Image, ink: str) -> Image.Image:
    """Lay a captcha's darkness into the alpha channel of one colour."""
    clear = Image.new("RGBA", picture.size, ink)
    clear.putalpha(ImageOps.autocontrast(ImageOps.invert(picture.convert("L"))))
    return clear


def margin(width: int) -> Kind:
    """Return what draws a captcha with a white margin of so many pixels."""
    return changed(lambda picture: ImageOps.expand(picture, width, "white"))


def lower_case(rng: random.Random) -> tuple[Image.Image, str]:
    """Draw four small letters, two of which look like no capital: no text that is known."""
    text = rng.choices(LOWER_CASE, k=2) + rng.choices(string.ascii_lowercase, k=2)
    return Image.fromarray(draw_captchas(["".join(text)], rng)[0]), ""


def blank(rng: random.Random) -> tuple[Image.Image, str]:
    """Return a picture of one colour."""
    return Image.new("RGB", (128, 64), tuple(rng.choices(range(256), k=3))), ""


def landscape(rng: random.Random) -> tuple[Image.Image, str]:
    """Return hills as seen from above, the nearest that Matplotlib has to another photo."""
    return Image.fromarray(hills(rng, 128, 64).astype(np.uint8)), ""


KINDS: dict[str, Kind] = {
    "as drawn": captcha,
    "white ink on a transparent ground": changed(lambda picture: stencil(picture, "white")),
    "black ink on a transparent ground": changed(lambda picture: stencil(picture, "black")),
    "a white margin of 8 pixels": margin(8),
    "a white margin of 16 pixels": margin(16),
    "light on dark": changed(ImageOps.invert),
    "scaled to 64x32": changed(lambda picture: picture.resize((64, 32))),
    "drawn at 200x80": lambda rng: captcha(rng, 200, 80),
    "six characters at 128x64": lambda rng: captcha(rng, length=6),
    "turned by 5 degrees": changed(lambda x: Image.fromarray(slant(np.asarray(x), 5))),
    "lower case": lower_case,
    "blank": blank,
    "a landscape": landscape,
}


def study(pictures: int, seed: int) -> dict:
    """Count how the command line reads so many pictures of each kind."""
    rows = {}
    for name, draw in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            truth = {}
            for index in range(pictures):
                picture, text = draw(stream(seed, "kinds", 0, index))
                picture.save(path := Path(folder, f"{index:05}.png"))
                truth[str(path)] = text
            command = [sys.executable, "-m", "captcha_reader", "--json", folder]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        answers = [json.loads(line) for line in lines.splitlines()]
        wrong = [x["confidence"] or 0 for x in answers if x["text"] != truth[x["file"]]]
        surer = {f"wrong, surer than {p} %": sum(100 * x > p for x in wrong) for p in (50, 70, 90)}
        rows[name] = {"right": len(answers) - len(wrong), "n": len(answers)} | surer
        print(f"{name:34} {share(rows[name]['right'], len(answers))}", *surer.values(), flush=True)
    return {"rows": rows, "code": runs.code_hash()}
