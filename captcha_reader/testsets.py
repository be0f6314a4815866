"""Test sets with names: the name decides every picture, and a fingerprint confirms it.

The pictures are as they are drawn; each network scales them by its own rule.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib import cbook
from PIL import Image

from captcha_reader.drawing import draw_captchas, draw_modern, draw_wide, random_size, stream
from captcha_reader.texts import (
    LENGTH,
    LONGEST,
    ctc_labels,
    encode,
    longest_text,
    random_texts,
    texts_of_any_length,
)

Batch = tuple[np.ndarray, list[str]]


def of_four(draw: Callable) -> Callable[[random.Random, int], Batch]:
    """Return a function that draws `count` captchas of four characters with `draw`."""

    def batch(rng: random.Random, count: int) -> Batch:
        texts = random_texts(rng, count)
        return draw(texts, rng), texts

    return batch


def in_any_size(rng: random.Random, count: int) -> Batch:
    """Draw captchas of one random size, of 1 to 6 characters, with the package."""
    width, height = random_size(rng)
    texts = texts_of_any_length(rng, count, longest_text(width, height))
    return draw_captchas(texts, rng, width, height), texts


def with_nothing(rng: random.Random, count: int) -> Batch:
    """Draw pictures in which no text can be read, by other code than that of the practice.

    They are captchas of the package, mirrored, turned by 180 degrees, or in lower case; hills,
    fractals, gradients and noise.
    """
    width, height = random_size(rng)
    pictures = []
    for _ in range(count):
        kind = rng.randrange(6)
        if kind < 3:
            # These look like no character when mirrored or turned by 180 degrees; no capitals.
            letters = ("4679CFGKPQR", "4CFGJKPRT", "adefhnrt")[kind]
            captcha = draw_captchas(["".join(rng.sample(letters, 4))], rng, width, height)[0]
            pictures.append((captcha[:, ::-1], captcha[::-1, ::-1], captcha)[kind])
        else:
            gray = (hills, _fractal, _gradient)[kind - 3](rng, width, height)
            ink, page = ([rng.randint(0, 255) for _ in range(3)] for _ in range(2))
            share = gray[..., None] / 255
            pictures.append((share * page + (1 - share) * ink).round().astype(np.uint8))
    return np.stack(pictures), [""] * count


def hills(rng: random.Random, width: int, height: int) -> np.ndarray:
    """Return heights of a landscape from Matplotlib: float64 (height, width), from 0 to 255."""
    with cbook.get_sample_data("jacksboro_fault_dem.npz") as data:
        ground = data["elevation"].astype(float)
    top, left = rng.randrange(ground.shape[0] - height), rng.randrange(ground.shape[1] - width)
    part = ground[top : top + height, left : left + width]
    return 255 * (part - part.min()) / np.ptp(part)


def _fractal(rng: random.Random, width: int, height: int) -> np.ndarray:
    x, y, side = rng.uniform(-1.5, 0.3), rng.uniform(-1, 1), rng.uniform(0.05, 1)
    whole = Image.effect_mandelbrot((width, height), (x, y, x + side, y + side / 2), 100)
    return np.asarray(whole, float)


def _gradient(rng: random.Random, width: int, height: int) -> np.ndarray:
    gradient = rng.choice((Image.linear_gradient, Image.radial_gradient))("L")
    gradient = gradient.rotate(rng.choice((0, 90, 180, 270))).resize((width, height))
    noise = np.array([rng.gauss(0, 1) for _ in range(width * height)]).reshape(height, width)
    return np.clip(np.asarray(gradient) + rng.choice((0, 20, 60)) * noise, 0, 255)


@dataclass(frozen=True)
class TestSet:
    """The recipe of a test set: each of its `parts` is (batches, captchas in a batch, draw).

    Batch i of part k is what `draw` makes from the stream (0, split, k, i); all captchas of a batch
    have one size. `length` is the greatest number of characters.
    """

    __test__ = False  # pytest would take it for a test
    parts: tuple[tuple[int, int, Callable[[random.Random, int], Batch]], ...]
    length: int = LENGTH
    split: str = "test"

    @property
    def n(self) -> int:
        return sum(batches * count for batches, count, _ in self.parts)


CLASSIC = of_four(draw_captchas)
WIDE = of_four(draw_wide)
MODERN = of_four(draw_modern)
DEFAULT = of_four(partial(draw_captchas, width=160, height=60))  # the package's default
PREVIEW = of_four(partial(draw_captchas, width=170, height=80))  # as in lesson 1
TEST_SETS = {  # the smaller sets are the beginning of the larger
    "classic-100": TestSet(((1, 100, CLASSIC),)),
    "classic-1k": TestSet(((10, 100, CLASSIC),)),
    "classic-10k": TestSet(((100, 100, CLASSIC),)),
    "classic-100k": TestSet(((1_000, 100, CLASSIC),)),
    "wide-1k": TestSet(((10, 100, WIDE),)),
    "wide-10k": TestSet(((100, 100, WIDE),)),
    "modern-1k": TestSet(((10, 100, MODERN),)),
    "modern-10k": TestSet(((100, 100, MODERN),)),
    "default-1k": TestSet(((10, 100, DEFAULT),)),
    "default-10k": TestSet(((100, 100, DEFAULT),)),
    "preview-1k": TestSet(((10, 100, PREVIEW),)),
    "preview-10k": TestSet(((100, 100, PREVIEW),)),
    "sizes-1k": TestSet(((50, 20, in_any_size),), LONGEST),
    "sizes-10k": TestSet(((500, 20, in_any_size),), LONGEST),
    "nothing-1k": TestSet(((50, 20, with_nothing),), LONGEST),
    # These decide which of two networks ships; what is published is counted on the others.
    "judge-20k": TestSet(((100, 100, CLASSIC), (500, 20, in_any_size)), LONGEST, "judge"),
    "judge-classic-10k": TestSet(((100, 100, CLASSIC),), LENGTH, "judge"),
    "judge-wide-10k": TestSet(((100, 100, WIDE),), LENGTH, "judge"),
}
FINGERPRINTS = {
    "classic-100": "71884431e8de06111ba3d26d52ba7af8dcf15c67b00f91ad1fd8b54d59658fb8",
    "classic-1k": "621278a28c830a640f317e7bde21626b6a76ca01a0652036c43684e5350027dc",
    "classic-10k": "763b58b8532d93fed54323fa70da344d2ca9c5a83110f6c2b196f9732cd05957",
    "classic-100k": "ff09bdf2a7254b4caea6ced15a15ecfb487f784d553e25d3f9de94be9eb340be",
    "wide-1k": "e84a9d0abe9404ea6d5cd7e6b8a1c06c74bc4f306d1d1b32ee7246c308ab371d",
    "wide-10k": "0977d37f533fb0bae7ded2338ae8465ddf141e30f4dc660dcb69bf438637e56c",
    "modern-1k": "71b23059d72b4add8c829a730d88872870a2d8090988e79e7d2624e9a14a2b79",
    "modern-10k": "5cb38d5469413ba7c1a3a3b93ed4757c5e5fe47d59da78a917b66bd5fa0950e8",
    "default-1k": "7b469b103bf496ee1ff4f7afbd23aadcffdfd828f05eb7c98bd0291b0bbfc7e2",
    "default-10k": "56e4d87c3ff297eb5336da23e689dfa660da03a9f4cb8dd66ef345c70e37de79",
    "preview-1k": "890c680101c3fa67876fc0564f5a849c3026a9f917c9f1d28aaa6bb9df6c7a01",
    "preview-10k": "2b8dce8a664b3f2050e53d819decf0cf0bae562cbab0e301e5018f590c2f7585",
    "sizes-1k": "04c17563ba1c8fc63083af1642efb28053fce5fb0f60aee74f5da3e69ade7325",
    "sizes-10k": "0b3f05f8ea6a419616694e4c0f6b724fd75aaf4e490f9652227f45301390a2a3",
    "nothing-1k": "84cf43c9b45a9710b827ab006164e68e3915656e6c3f1cd85b995e714dcbdff1",
    "judge-20k": "3b1f8315868380b61453d59847b59a6fb04ab1308915427398330fb9ee15f702",
    "judge-classic-10k": "5bc3daa36c4b0eee21a0576cf38e8ae51a2be52dd453cb837a6ef763cab17779",
    "judge-wide-10k": "3dc0e86f67514ea2567669e4f34decdb00dc6c62dce94a556221240c7e53f78e",
}


def draw_test_set(test_set: str) -> Iterator[Batch]:
    """Draw a named test set: batches of uint8 pictures (count, height, width, 3) and their texts.

    All pictures of a batch have one size. They come from streams from which no training draws.

    Raises:
        ValueError: no test set has this name.
        RuntimeError: at the end, if these are not the pictures and texts of its fingerprint.
    """
    if test_set not in TEST_SETS:
        raise ValueError(f"no test set {test_set!r}: there are {', '.join(TEST_SETS)}")
    return _batches(test_set)


def _batches(test_set: str) -> Iterator[Batch]:
    recipe, digest = TEST_SETS[test_set], hashlib.sha256()
    for part, (batches, count, draw) in enumerate(recipe.parts):
        for index in range(batches):
            pictures, texts = draw(stream(0, recipe.split, part, index), count)
            labels = encode(texts) if recipe.length == LENGTH else ctc_labels(texts)
            batch = hashlib.sha256()
            for array in (pictures, labels):
                batch.update(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
            digest.update(batch.hexdigest().encode())
            yield pictures, texts
    if digest.hexdigest() != FINGERPRINTS[test_set]:
        raise RuntimeError(
            f"these are not the captchas of {test_set}: their SHA-256 is {digest.hexdigest()}, "
            f"expected {FINGERPRINTS[test_set]}; install the pinned packages (requirements.lock)"
        )
