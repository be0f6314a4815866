"""What a network practises: batches of captchas by number, drawn in processes of their own.

Some batches are the main task, 128x64 and four characters; in the others captchas have any size
that becomes equally wide when scaled, up to six characters, and now and then a margin, a slant, or
nothing to read. Processes that draw import this module, so it must not import Keras.
"""

import functools
import multiprocessing
import os
import random
import signal
import string
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from matplotlib import cbook
from PIL import Image, ImageFilter, ImageOps

from captcha_reader.bank import GlyphBank
from captcha_reader.drawing import Size, random_size, stream
from captcha_reader.reading import network_width, scale
from captcha_reader.texts import (
    ALPHABET,
    HEIGHT,
    WIDTH,
    longest_text,
    random_texts,
    texts_of_any_length,
)

EPOCH = 64_000  # captchas
# These look like no character when they are mirrored, or turned by 180 degrees.
LOST = {"mirrored": "4679BCDFGKPQR", "turned": "4BCDFGJKPRTUY"}
LOWER_CASE = "abdefghnqrt"  # those that resemble no capital
NOTHING = ("mirrored", "turned", "blank", "scribble", "noise", "stripes", "photo")
NOTHING += 6 * ("lower case",)  # which resembles captchas most


@dataclass(frozen=True)
class Practice:
    """A recipe for training captchas; `seed` and the number of a batch decide all its bytes.

    `size` is the width and height of the main task in pixels, and `batch` a number of captchas.
    An epoch has `epoch` captchas. Every `bank` captchas have a bank of their own, with glyphs in
    `colors` colours.
    `sizes` is the share of batches of any width. Unless it is 0, a fifth of the captchas in the
    other batches have another size, too, so that batch normalisation does not see the main task
    alone. In a share `hard` of all captchas each character becomes O or 0 with probability 3/4. Of
    the captchas in other sizes, a share `margins` has a margin of up to a quarter of the height,
    white or in the colour of the paper, a share `slants` is turned by up to 5 degrees, and a share
    `nothing` has nothing to read. All shares are in [0, 1].
    """

    seed: int
    batch: int = 64
    size: Size = (WIDTH, HEIGHT)
    sizes: float = 0.5
    hard: float = 0.2
    margins: float = 0.25
    slants: float = 0.2
    nothing: float = 0.05
    epoch: int = EPOCH
    bank: int = EPOCH // 4  # more would be learned by heart
    colors: int = 60

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        return self.epoch // self.batch

    def __call__(self, number: int) -> tuple[np.ndarray, list[str]]:
        """Draw a batch: uint8 RGB pictures (batch, 64, width, 3) and what they say."""
        epoch, index = divmod(number, self.steps)
        rng = stream(self.seed, "train", epoch, index)
        bank = fresh_bank(self.seed, number * self.batch // self.bank, self.colors)
        if not self.sizes:
            texts = [self.crowd(text, rng) for text in random_texts(rng, self.batch)]
            return scale(bank.draw(texts, rng, *self.size)), texts
        # Keras' `fit` takes the shapes of all batches from the first two: 128 and 168 wide.
        if index == 1:
            width, main = 168, 0
        elif index == 0 or rng.random() >= self.sizes:
            width, main = network_width(*self.size), 0.8
        else:
            width, main = network_width(*random_size(rng)), 0
        pictures, texts = [], []
        for text in texts_of_any_length(rng, self.batch, longest_text(width, HEIGHT)):
            if rng.random() < main:
                text = self.crowd(random_texts(rng, 1)[0], rng)
                picture = scale(bank.draw([text], rng, *self.size))
            else:
                picture, text = self.draw_in_any_size(text, width, rng, bank)
            pictures.append(picture)
            texts.append(text)
        return np.concatenate(pictures), texts

    def draw_in_any_size(
        self, text: str, width: int, rng: random.Random, bank: GlyphBank
    ) -> tuple[np.ndarray, str]:
        """Draw a text, or nothing to read: uint8 (1, 64, width, 3), and the text or "".

        The captcha is 50 to 100 pixels high, and so wide that it becomes `width` when scaled.
        """
        height, margin = rng.randint(50, 100), rng.random() < self.margins
        x, y = (rng.randint(0, height // 4) if margin else 0 for _ in range(2))
        size = round(width * (height + 2 * y) / HEIGHT) - 2 * x, height
        if rng.random() < self.nothing:
            picture, text = nothing_to_read(rng, bank, size), ""
        else:
            text = self.crowd(text, rng)
            picture = bank.draw([text], rng, *size)[0]
        if margin:
            picture = add_margin(picture, (x, y), rng)
        if rng.random() < self.slants:
            picture = slant(picture, rng.uniform(-5, 5))
        return scale(picture[None], width), text

    def crowd(self, text: str, rng: random.Random) -> str:
        """Return a text, or with probability `hard` one that is crowded with O and 0."""
        if rng.random() >= self.hard:
            return text
        return "".join(rng.choice("O0") if rng.random() < 0.75 else c for c in text)


@dataclass(frozen=True)
class Labelled:
    """Labelled pictures to practise: `batch` at a time, in ever new order, all equally often.

    `pictures` are uint8 (n, 64, width, 3), `texts` say what is in them. `move(picture, rng)` may
    change a picture each time. `seed` and the number of a batch decide what is in it; an epoch has
    `steps` batches.
    """

    pictures: np.ndarray
    texts: list[str]
    seed: int
    move: Callable = lambda picture, rng: picture
    batch: int = 32
    steps: int = 100

    def __call__(self, number: int) -> tuple[np.ndarray, list[str]]:
        """Return a batch: uint8 RGB pictures (batch, 64, width, 3) and what they say."""
        rng, count = stream(self.seed, "own", 0, number), len(self.texts)
        rounds, places = np.divmod(np.arange(self.batch) + number * self.batch, count)
        orders = {x: np.random.default_rng([self.seed, x]).permutation(count) for x in {*rounds}}
        indices = [orders[x][place] for x, place in zip(rounds, places, strict=True)]
        pictures = [self.move(self.pictures[i], rng) for i in indices]
        return np.stack(pictures), [self.texts[i] for i in indices]


@functools.lru_cache(maxsize=2)
def fresh_bank(seed: int, number: int, colors: int) -> GlyphBank:
    """Return one of a seed's banks; it has ten times as many O and 0 as other characters."""
    return GlyphBank(f"{seed}/{number}", ALPHABET + 9 * "O0", colors)


@functools.cache
def lower_case_bank() -> GlyphBank:
    """Return a bank of letters that the network must not take for capitals."""
    return GlyphBank("lower case", LOWER_CASE + string.ascii_lowercase, 100, 2)


@functools.cache
def photo() -> Image.Image:
    """Return the photograph that Matplotlib comes with."""
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return Image.open(file).convert("RGB")


def paper(picture: np.ndarray) -> tuple[int, ...]:
    """Return the colour that most of a captcha has."""
    return tuple(int(level) for level in np.median(picture[::3, ::3], axis=(0, 1)))


def add_margin(picture: np.ndarray, border: Size, rng: random.Random) -> np.ndarray:
    """Put a captcha on a larger page, white or of its own paper."""
    page = paper(picture) if rng.random() < 0.5 else (255, 255, 255)
    return np.asarray(ImageOps.expand(Image.fromarray(picture), border, page))


def slant(picture: np.ndarray, degrees: float) -> np.ndarray:
    """Turn a captcha a little, as a careless scan does."""
    image, bilinear = Image.fromarray(picture), Image.Resampling.BILINEAR
    return np.asarray(image.rotate(degrees, bilinear, fillcolor=paper(picture)))


def nothing_to_read(rng: random.Random, bank: GlyphBank, size: Size) -> np.ndarray:
    """Draw a picture without a text that can be read; `size` is (width, height): uint8 RGB."""
    width, height = size
    kind = rng.choice(NOTHING)
    generator = np.random.default_rng(rng.getrandbits(32))
    if kind in LOST:
        text = rng.choices(LOST[kind], k=2) + rng.choices(ALPHABET, k=rng.randint(1, 3))
        rng.shuffle(text)
        picture = bank.draw(["".join(text)], rng, width, height)[0]
        return picture[:, ::-1] if kind == "mirrored" else picture[::-1, ::-1]
    if kind == "lower case":
        text = rng.choices(LOWER_CASE, k=2) + rng.choices(string.ascii_lowercase, k=2)
        rng.shuffle(text)
        return lower_case_bank().draw(["".join(text)], rng, width, height)[0]
    color = np.array([rng.randint(0, 255) for _ in range(3)], np.uint8)
    if kind == "blank":
        return np.broadcast_to(color, (height, width, 3))
    if kind == "scribble":  # dots and arcs, as on a captcha, and no text
        return bank.scribble(rng, width, height)
    if kind == "noise":  # fine or coarse
        noise = generator.integers(0, 256, (height, width, 3), np.uint8)
        blur = ImageFilter.GaussianBlur(rng.choice((0, 1, 3, 8)))
        return np.asarray(ImageOps.autocontrast(Image.fromarray(noise).filter(blur)))
    if kind == "stripes":
        y, x = np.mgrid[:height, :width]
        angle, wave = rng.uniform(0, np.pi), rng.uniform(4, 60)
        phase = (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wave
        shade = (np.sin(phase) + rng.choice((0, 1)) * np.cos(y * 2 * np.pi / wave))[..., None]
        return np.clip(color * (1 + shade) / 2, 0, 255).astype(np.uint8)
    whole = photo()
    part = rng.uniform(0.1, 1)
    w, h = int(whole.width * part), int(whole.width * part * height / width)
    left, top = rng.randint(0, whole.width - w), rng.randint(0, whole.height - h)
    return np.asarray(whole.resize((width, height), box=(left, top, left + w, top + h)))


class Ahead:
    """Calls `job(number)` in processes of their own, some numbers before they are asked for.

    Numbers are expected one after another, `stride` apart. The result of a number is the same
    whichever process makes it. The job and its results have to be picklable, and a script that uses
    this needs `if __name__ == "__main__":`, because each process imports it. Use it in a `with`
    statement, which ends the processes.
    """

    def __init__(
        self, job: Callable[[int], object], processes: int = 1, ahead: int = 24, stride: int = 1
    ):
        self.job, self.ahead, self.stride = job, ahead, stride
        self.pool = ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), initializer=_end_with_parent
        )
        self.waiting: dict[int, Future] = {}

    def __call__(self, number: int) -> object:
        """Return job(number)."""
        for coming in range(number, number + self.ahead * self.stride, self.stride):
            if coming not in self.waiting:
                self.waiting[coming] = self.pool.submit(self.job, coming)
        result = self.waiting.pop(number).result()
        for passed in [other for other in self.waiting if other < number]:
            self.waiting.pop(passed).cancel()
        return result

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Leave Ctrl-C to the main process, give way to it, and end when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):  # drawing fills the gaps; the network's threads wait for each other
        os.nice(10)

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
