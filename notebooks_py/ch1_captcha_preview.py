# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     notebook_metadata_filter: jupytext,kernelspec,-all
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Draw captchas and turn them into training data
#
# ## What you'll do
#
# - draw one captcha, and then a whole page of them
# - follow a single picture from clean letters to the noisy result
# - build `CaptchaSequence`, the data set of this tutorial, and check that it repeats to the last
#   byte
#
# ## What you'll learn
#
# - which six steps make a captcha hard to read, and how strong each of them is
# - how to make random data that is the same for one worker, four threads or two processes
# - what the arrays look like that a network is trained with, and how to turn them back into text
#
# ## What you'll need
#
# - Python and a little NumPy; no GPU, no data set to download, about a minute
#
# ---

# %%
import hashlib
import importlib.util
import multiprocessing
import os
import random
import string
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from captcha.image import DEFAULT_FONTS
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import notebooks_py

# %% [markdown]
# Everything random in this lesson grows out of one visible number. Change it, run all, and you get
# other captchas; leave it, and you get exactly the ones on this page.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # the year of the tutorial that this one grew out of

# %% [markdown]
# ## The alphabet and the sizes
#
# Our captchas have four characters out of 36: the digits and the capital letters. We look at them
# at 170x80 pixels and train on 128x64, which is large enough to read and quick to compute.

# %%
ALPHABET = string.digits + string.ascii_uppercase
LENGTH = 4
PREVIEW_WIDTH, PREVIEW_HEIGHT = 170, 80
WIDTH, HEIGHT = 128, 64


# %% [markdown]
# How many different captchas does that make?

# %% tags=["active-ipynb"]
# print(ALPHABET)
# print(f"{len(ALPHABET)} characters, {len(ALPHABET) ** LENGTH:,} different texts of {LENGTH}")

# %% [markdown]
# That is why nobody reads captchas by looking them up: a guess is right once in 1.7 million times.
#
# ## One captcha
#
# The package `captcha` draws the pictures. It takes its random numbers from Python's global
# `random`, which everybody else in the program uses too, so no seed could hold for long. We load a
# *private copy* of its module instead and put a stream of our own in the place of `random`. Nothing
# is shared, so nothing can interfere.

# %%
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


# %% [markdown]
# With that, drawing is one line for each text. The result is a plain array of bytes.

# %%
def draw_captchas(
    texts: Sequence[str], rng: random.Random, width: int = WIDTH, height: int = HEIGHT
) -> np.ndarray:
    """Draw each text with the captcha library: uint8 RGB, shape (len(texts), height, width, 3).

    Raises:
        ValueError: there is no text, or one of them is empty.
    """
    if len(texts) == 0 or "" in texts:
        raise ValueError(f"cannot draw {list(texts)!r}: give at least one text, none of them empty")
    painter = seeded_library(rng).ImageCaptcha(width, height)
    return np.stack([np.asarray(painter.generate_image(text)) for text in texts])


# %% [markdown]
# Here is the first one. `random.Random(SEED)` is a stream of random numbers that belongs to us
# alone.

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# text = "".join(random.Random(SEED).choices(ALPHABET, k=LENGTH))
# picture = draw_captchas([text], random.Random(SEED), PREVIEW_WIDTH, PREVIEW_HEIGHT)[0]
#
# figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained")
# axes.imshow(picture)
# axes.set(title=text, xlabel="x (pixels)", ylabel="y (pixels)")
# plt.show()
# print(f"{text}: shape {picture.shape}, {picture.dtype}, {picture.min()} to {picture.max()}")

# %% [markdown]
# The title is the text that was drawn. Letters lean, overlap and change size; dots and an arc in
# the same colour as the text try to pass for parts of it.
#
# ## A stream with a name
#
# Training needs millions of captchas, and we want each of them to be the same tomorrow. So we give
# every batch a *name*: what it is for (`split`), the seed, the epoch and its index. The name is the
# seed of the batch's own stream. Python hashes a text seed with SHA-512, so different names give
# unrelated streams, on every platform alike. And because `train`, `valid` and the test sets are
# different names, none of them ever shares a stream with another.

# %%
def stream(seed: int, split: str, epoch: int, index: int) -> random.Random:
    """Return the random stream of one batch: equal arguments, equal stream, on every machine."""
    return random.Random(f"{split}/{seed}/{epoch}/{index}")


def random_texts(
    rng: random.Random, count: int, alphabet: str = ALPHABET, length: int = LENGTH
) -> list[str]:
    """Draw `count` texts of `length` characters, each character equally likely."""
    return ["".join(rng.choices(alphabet, k=length)) for _ in range(count)]


# %% [markdown]
# A lesson also makes files: pictures, logs, weights. They go into a fresh folder below `build/`, a
# new one for each run, so that no run ever overwrites another.

# %%
def fresh_folder(lesson: str) -> Path:
    """Make and return a new folder `run-001`, `run-002`, ... for this lesson's files.

    They lie in the repository's `build/lessons/<lesson>`, or below `$LESSONS_OUT` if that is set.
    """
    home = Path(notebooks_py.__file__).parents[1] / "build" / "lessons"
    parent = Path(os.environ.get("LESSONS_OUT", home)) / lesson
    number = 1
    while True:
        folder = parent / f"run-{number:03d}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


# %% [markdown]
# Let us look at a whole page of them.

# %% tags=["active-ipynb"]
# rng = stream(SEED, "preview", epoch=0, index=0)
# texts = random_texts(rng, 24)
# pictures = draw_captchas(texts, rng)
#
# figure, grid = plt.subplots(4, 6, figsize=(10, 4.2), layout="constrained")
# for axes, text, picture in zip(grid.flat, texts, pictures, strict=True):
#     axes.imshow(picture)
#     axes.set_title(text, family="monospace")
#     axes.axis("off")
# figure.suptitle("24 captchas, 128x64 pixels each, with their texts")
# (FOLDER := fresh_folder("ch1_captcha_preview") / "imgs").mkdir()
# figure.savefig(FOLDER / "captchas.png", dpi=110)
# plt.show()
# print(" ".join(texts))

# %% [markdown]
# Try to read them before you look at the titles. Most are easy; but who can tell `0` from `O`?
# Lesson 6 is about exactly that pair.
#
# ## The anatomy of a captcha
#
# What makes these pictures hard to read? To find out we draw one ourselves, following the library
# step by step and keeping what it throws away. First a single character: it is drawn in one of
# three font sizes, rotated by up to 30 degrees, and warped by moving the corners of its box.

# %%
def classic_shifts(w: int, h: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Return how far captcha 0.7.0 moves the corners of a w x h glyph: x1, y1, x2, y2 in pixels."""
    dx, dy = w * rng.uniform(0.1, 0.3), h * rng.uniform(0.2, 0.3)
    return tuple(int(rng.uniform(-d, d)) for d in (dx, dy, dx, dy))


def warp_glyph(rotated: Image.Image, size: tuple[int, int], shifts: Sequence[int]) -> Image.Image:
    """Stretch a rotated RGBA glyph by the shifts, then map its four moved corners onto `size`."""
    (w, h), (x1, y1, x2, y2) = size, shifts
    w2, h2 = w + abs(x1) + abs(x2), h + abs(y1) + abs(y2)
    corners = (x1, y1, -x1, h2 - y2, w2 + x2, h2 + y2, w2 - x2, -y1)
    return rotated.resize((w2, h2)).transform((w, h), Image.Transform.QUAD, corners)


# %% [markdown]
# Both are used by the function that makes one glyph and returns its three stages.

# %%
Shifts = Callable[[int, int, random.Random], tuple[int, int, int, int]]


def draw_glyph(
    character: str, color: tuple[int, ...], rng: random.Random, shifts: Shifts = classic_shifts
) -> dict[str, Image.Image]:
    """Draw one character as the library's `_draw_character` does; RGBA pictures by stage."""
    font = rng.choice([ImageFont.truetype(DEFAULT_FONTS[0], size) for size in (42, 50, 56)])
    canvas = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    w, h = (int(end) for end in canvas.multiline_textbbox((1, 1), character, font=font)[2:])
    dx, dy = rng.randint(0, 4), rng.randint(0, 6)
    glyph = Image.new("RGBA", (w + dx, h + dy))
    ImageDraw.Draw(glyph).text((dx, dy), character, font=font, fill=color)
    glyph = glyph.crop(glyph.getbbox())
    rotated = glyph.rotate(rng.uniform(-30, 30), Image.Resampling.BILINEAR, expand=True)
    warped = warp_glyph(rotated, (w, h), shifts(w, h, rng))
    return {"glyph": glyph, "rotated": rotated, "warped": warped}


# %% [markdown]
# Four characters, three stages each, drawn in black so that nothing distracts from their shapes.

# %% tags=["active-ipynb"]
# rng = stream(SEED, "anatomy", epoch=0, index=0)
# stages = [draw_glyph(character, (0, 0, 0, 255), rng) for character in "W0O7"]
#
# figure, grid = plt.subplots(3, 4, figsize=(7, 5.6), layout="constrained")
# for row, name in zip(grid, ["glyph", "rotated", "warped"], strict=True):
#     row[0].set_ylabel(name, fontsize=12)
#     for axes, stage in zip(row, stages, strict=True):
#         axes.imshow(stage[name])
#         axes.set_title(f"{stage[name].width}x{stage[name].height} pixels", fontsize=9)
#         axes.set(xticks=[], yticks=[])
# figure.suptitle("Four characters: drawn, rotated, warped")
# plt.show()
# print("warped sizes:", [stage["warped"].size for stage in stages])

# %% [markdown]
# Each column is one character on its way down. Look at the second and third: `0` is a little
# narrower than `O`, and that is all that tells them apart in this font. The warp then changes
# widths by more than that.
#
# The characters now go onto a background, next to each other. About half the time a blank glyph
# goes in between, and every character slides back over its neighbour by up to a quarter of the
# average width.

# %%
def paste_glyphs(
    glyphs: Sequence[Image.Image],
    characters: int,
    background: tuple[int, int, int],
    rng: random.Random,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Image.Image:
    """Paste RGBA glyphs (blanks included) side by side on an RGB picture at least `size` wide."""
    text_width = sum(glyph.width for glyph in glyphs)
    picture = Image.new("RGB", (max(text_width, size[0]), size[1]), background)
    average = int(text_width / characters)
    x = int(average * 0.1)
    for glyph in glyphs:
        mask = glyph.convert("L").point([int(level * 1.97) for level in range(256)])
        picture.paste(glyph, (x, int((size[1] - glyph.height) / 2)), mask)
        x += glyph.width + rng.randint(-int(0.25 * average), 0)
    return picture


# %% [markdown]
# If that is wider than the picture, it is squeezed: four wide characters end up narrower than four
# slim ones. Then come 30 dots and one arc in the colour of the text.

# %%
Ends = Callable[[int, random.Random], tuple[int, int]]


def add_dots(picture: Image.Image, color: tuple[int, ...], rng: random.Random) -> Image.Image:
    """Return a copy with the library's 30 dots: lines one pixel long and three wide."""
    picture = picture.copy()
    for _ in range(30):
        x, y = rng.randint(0, picture.width), rng.randint(0, picture.height)
        ImageDraw.Draw(picture).line(((x, y), (x - 1, y - 1)), fill=color, width=3)
    return picture


def classic_ends(w: int, rng: random.Random) -> tuple[int, int]:
    """Return where captcha 0.7.0's arc begins and ends, across a picture w pixels wide."""
    return rng.randint(0, int(w / 5)), rng.randint(w - int(w / 5), w)


def add_arc(
    picture: Image.Image, color: tuple[int, ...], rng: random.Random, ends: Ends = classic_ends
) -> Image.Image:
    """Return a copy with the library's arc, the lower half of a wide ellipse."""
    picture = picture.copy()
    w, h = picture.size
    left, right = ends(w, rng)
    top = rng.randint(int(h / 5), h - int(h / 5))
    bottom = rng.randint(top, h - int(h / 5))
    end, start = rng.randint(160, 200), rng.randint(0, 20)
    ImageDraw.Draw(picture).arc((left, top, right, bottom), start, end, fill=color)
    return picture


# %% [markdown]
# One function runs through all of it. The colours come first: a light background, a darker colour
# for everything else.

# %%
def dissect(
    text: str,
    rng: random.Random,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    shifts: Shifts = classic_shifts,
    ends: Ends = classic_ends,
) -> dict[str, Image.Image]:
    """Draw a captcha exactly as captcha 0.7.0 does; RGB pictures by stage, in order.

    What another version does otherwise is an argument: how far it moves the corners of a glyph, and
    where its arc begins and ends.
    """
    background = tuple(rng.randint(238, 255) for _ in range(3))
    opacity = rng.randint(220, 255)
    color = (*(rng.randint(10, 200) for _ in range(3)), opacity)
    glyphs = []
    for character in text:
        if rng.random() > 0.5:
            glyphs.append(draw_glyph(" ", color, rng, shifts)["warped"])
        glyphs.append(draw_glyph(character, color, rng, shifts)["warped"])
    stages = {"pasted": paste_glyphs(glyphs, len(text), background, rng, size)}
    stages["squeezed"] = stages["pasted"].resize(size)
    stages["dots"] = add_dots(stages["squeezed"], color, rng)
    stages["arc"] = add_arc(stages["dots"], color, rng, ends)
    stages["smoothed"] = stages["arc"].filter(ImageFilter.SMOOTH)
    return stages


# %% [markdown]
# Is it really the library's way? We draw the same text from the same stream with the library
# itself, and compare every byte. (Resizing a picture to the size it has changes nothing, so one
# line covers both cases.)

# %% tags=["active-ipynb"]
# ours = dissect("W0O7", stream(SEED, "anatomy", epoch=0, index=1))
# theirs = draw_captchas(["W0O7"], stream(SEED, "anatomy", epoch=0, index=1))[0]
# print("our last stage equals the library's picture:", np.array_equal(ours["smoothed"], theirs))
# assert np.array_equal(ours["smoothed"], theirs)

# %% [markdown]
# They are equal, so the pictures between the first line of code and the last are the true stages.

# %% tags=["active-ipynb"]
# figure, rows = plt.subplots(5, 1, figsize=(6, 10), layout="constrained")
# for axes, (name, stage) in zip(rows, ours.items(), strict=True):
#     axes.imshow(stage)
#     axes.set(title=f"{name} ({stage.width}x{stage.height})", xticks=[], yticks=[])
# figure.suptitle("One captcha, five stages")
# plt.show()
# print({name: stage.size for name, stage in ours.items()})

# %% [markdown]
# From top to bottom: the characters side by side; squeezed to 128 pixels; with dots; with the arc;
# smoothed. Smoothing looks harmless to us, but it removes the sharp edges that would have told a
# thin stroke from a dot.
#
# ## Why captcha 0.7.0 is pinned
#
# All versions from 0.3 to 0.7.0 draw the captchas that you have just seen, and the published
# results that we want to match were measured on those. Version 0.7.1 draws from `secrets`, which
# nobody can seed. In the rewrite a pair of brackets went missing: where 0.7.0 takes a range of `w *
# uniform(0.1, 0.3)`, 0.7.1 takes `w * U * (0.3 - 0.1) + 0.1`, and the `+ 0.1` now adds a tenth of a
# *pixel* instead of a tenth of the width.

# %%
def modern_shifts(w: int, h: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Return how far captcha 0.7.1 (commit 6e26be4) moves the corners of a w x h glyph."""
    dx = w * rng.random() * (0.3 - 0.1) + 0.1
    dy = h * rng.random() * (0.3 - 0.2) + 0.2
    return tuple(int(rng.uniform(-d, d)) for d in (dx, dy, dx, dy))


# %% [markdown]
# We measure both on 20,000 glyphs of 30x42 pixels, the size of the largest `O`.

# %% tags=["active-ipynb"]
# moved = {
#     "0.7.0": [classic_shifts(30, 42, rng) for _ in range(20_000)],
#     "0.7.1": [modern_shifts(30, 42, rng) for _ in range(20_000)],
# }
# mean = {version: np.abs(shifts).mean(axis=0) for version, shifts in moved.items()}
# for version, (x1, y1, x2, y2) in mean.items():
#     print(f"{version}: mean shift {(x1 + x2) / 2:.2f} across, {(y1 + y2) / 2:.2f} down (pixels)")

# %% [markdown]
# Across, 0.7.1 moves corners less than half as far; down, hardly at all. What does that look like?

# %% tags=["active-ipynb"]
# versions = {"0.7.0": classic_shifts, "0.7.1": modern_shifts}
# figure, grid = plt.subplots(2, 7, figsize=(10, 3.4), layout="constrained")
# for row, (version, shifts) in zip(grid, versions.items(), strict=True):
#     row[0].set_ylabel(f"captcha {version}")
#     for column, axes in enumerate(row):
#         stage = draw_glyph("A", (0, 0, 0, 255), random.Random(f"{SEED}/{column}"), shifts)
#         axes.imshow(stage["warped"])
#         axes.set(xticks=[], yticks=[])
# figure.suptitle("The same seven rotated letters, warped by 0.7.0 (top) and by 0.7.1 (bottom)")
# plt.show()
# assert all(mean["0.7.1"] < mean["0.7.0"])
# print("0.7.1 moves every corner less, on average:", all(mean["0.7.1"] < mean["0.7.0"]))

# %% [markdown]
# The letters in the lower row are calmer: an easier task. A result measured on 0.7.1 must therefore
# not be compared with one measured on 0.7.0. It has a second slip, too: its arc may end early,
# because the right end is drawn from the whole width and no longer from its last fifth.
#
# With both slips in place of the originals, `dissect` draws what 0.7.1 would, and from a stream
# that has a seed. Lesson 2 makes a test set of such pictures.

# %%
def modern_ends(w: int, rng: random.Random) -> tuple[int, int]:
    """Return where captcha 0.7.1's arc begins and ends, across a picture w pixels wide."""
    return rng.randint(0, int(w / 5)), rng.randint(int(w / 5), w)


def draw_modern(
    texts: Sequence[str], rng: random.Random, width: int = WIDTH, height: int = HEIGHT
) -> np.ndarray:
    """Draw each text as captcha 0.7.1 does: uint8 RGB, shape (len(texts), height, width, 3)."""
    size, slips = (width, height), (modern_shifts, modern_ends)
    return np.stack([np.asarray(dissect(text, rng, size, *slips)["smoothed"]) for text in texts])


# %% [markdown]
# The same text from the same stream, drawn by both versions:

# %% tags=["active-ipynb"]
# pair = [draw(["W0O7"], stream(SEED, "anatomy", 0, 1))[0] for draw in (draw_captchas, draw_modern)]
# figure, row = plt.subplots(1, 2, figsize=(8, 2.4), layout="constrained")
# for axes, version, picture in zip(row, moved, pair, strict=True):
#     axes.imshow(picture)
#     axes.set(title=f"captcha {version}", xticks=[], yticks=[])
# figure.suptitle("The same random numbers, two versions of the library")
# plt.show()
# print("bytes that differ:", int((pair[0] != pair[1]).sum()), "of", pair[0].size)

# %% [markdown]
# Right, the letters are bent less, and here the arc ends early, too.
#
# ## From text to labels, and back
#
# A network answers with numbers, so each character becomes its place in the alphabet. Anything else
# is an error: a character that silently turned into the wrong class would teach the network
# nonsense, and nobody would notice.

# %%
def check_text(text: str, alphabet: str = ALPHABET, length: int = LENGTH) -> None:
    """Raise a ValueError unless `text` has exactly `length` characters, all from `alphabet`."""
    for character in text:
        if character not in alphabet:
            raise ValueError(
                f"{character!r} in {text!r} is not in the alphabet {alphabet!r}: "
                "write the text with these characters, or pass another alphabet="
            )
    if len(text) != length:
        what = "is empty" if text == "" else f"has {len(text)} characters"
        raise ValueError(
            f"the text {text!r} {what}, but labels here have {length}: "
            f"give {length} characters of {alphabet!r}, or pass another length="
        )


# %% [markdown]
# `encode` and `decode` are each other's inverse. `one_hot` turns places into rows with a single 1,
# one array for each position of the captcha, which is what the four heads of the first network
# learn from.

# %%
def encode(texts: Sequence[str], alphabet: str = ALPHABET, length: int = LENGTH) -> np.ndarray:
    """Turn n texts into places in the alphabet, int32 (n, length); ValueError as `check_text`."""
    for text in texts:
        check_text(text, alphabet, length)
    places = [[alphabet.index(character) for character in text] for text in texts]
    return np.array(places, dtype=np.int32).reshape(len(texts), length)


def decode(labels: np.ndarray, alphabet: str = ALPHABET) -> list[str]:
    """Turn places in the alphabet, (n, length), back into n texts; ValueError for other places."""
    labels = np.asarray(labels)
    outside = labels[(labels < 0) | (labels >= len(alphabet))]
    if outside.size:
        raise ValueError(
            f"label {outside[0]} is outside 0..{len(alphabet) - 1}, the places in {alphabet!r}: "
            "decode needs characters only (take CTC's blank away first)"
        )
    return ["".join(alphabet[place] for place in row) for row in labels]


# %% [markdown]
# The heads of a network give probabilities; the most likely character of each position makes the
# text.

# %%
def one_hot(labels: np.ndarray, classes: int = len(ALPHABET)) -> tuple[np.ndarray, ...]:
    """Turn places (n, length) into `length` float32 arrays (n, classes) with a 1 in each row."""
    rows = np.eye(classes, dtype=np.float32)
    return tuple(rows[column] for column in np.asarray(labels).T)


def decode_heads(heads: Sequence[np.ndarray], alphabet: str = ALPHABET) -> list[str]:
    """Read n texts off one array (n, len(alphabet)) of scores or one-hot rows for each position."""
    return decode(np.stack([np.argmax(head, axis=-1) for head in heads], axis=-1), alphabet)


# %% [markdown]
# A round trip, and a text that does not belong:

# %% tags=["active-ipynb"]
# labels = encode(["A0Z9", "O0O0"])
# heads = one_hot(labels)
# print(f"{labels.tolist()} -> {len(heads)} arrays {heads[0].shape} -> {decode_heads(heads)}")
# try:
#     encode(["a0Z9"])
# except ValueError as error:
#     print("ValueError:", error)

# %% [markdown]
# Note what happens to the small `a`: the error names the character, the alphabet and the way out.
#
# ## Pictures for a network
#
# Networks like small numbers, so bytes 0..255 become 32-bit floats 0..1.

# %%
def to_input(pictures: np.ndarray, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Turn uint8 RGB pictures (n, height, width, 3) into float32 in [0, 1], same shape.

    Raises:
        ValueError: another shape or another dtype.
    """
    pictures = np.asarray(pictures)
    expected = (height, width, 3)
    if pictures.ndim != 4 or pictures.shape[1:] != expected:
        raise ValueError(
            f"pictures have shape {pictures.shape}, expected (n, {height}, {width}, 3): "
            "resize them, and give a single picture as picture[None]"
        )
    if pictures.dtype != np.uint8:
        raise ValueError(
            f"pictures have dtype {pictures.dtype}, expected uint8 (0 to 255): "
            "pass the bytes as they were drawn; to_input itself divides by 255"
        )
    return pictures.astype(np.float32) / 255


# %% [markdown]
# ## Two ways to feed training
#
# **Rendered once.** Draw tens of thousands of pictures, store them, and train on them again and
# again. The network never waits for a picture, which is pleasant when you try many settings on the
# same data. But the set has an end, and a network that sees the same pictures many times learns
# them by heart.
#
# **On the fly.** Draw each batch just before it is needed, while the network works on the one
# before. There is no end to the data, no picture comes twice, and nothing has to be stored. But
# somebody has to draw quickly enough.

# %% tags=["active-ipynb"]
# bytes_each = WIDTH * HEIGHT * 3
# print(f"one picture: {bytes_each:,} bytes as uint8, {4 * bytes_each:,} as float32")
# print(f"100,000 pictures rendered once: {100_000 * bytes_each / 1e9:.1f} GB as uint8")
# print(f"one batch of 128 on the fly: {128 * 4 * bytes_each / 1e6:.1f} MB as float32")

# %% [markdown]
# We draw on the fly; lesson 4 builds the other way and measures both.
#
# ## `CaptchaSequence`
#
# Keras draws batches in the background if the data set is a `keras.utils.PyDataset`: a class that
# knows how many batches an epoch has and how to make batch number `index`. With `workers=4` four
# **threads** draw at once, which is what we use. `use_multiprocessing=True` starts **processes**
# instead. Those get a copy of the data set, and where a fresh Python is started for them ("spawn",
# the way of Windows and macOS) they must be able to *import* its class. A class that was typed into
# a notebook cannot be imported, and Keras would wait for its workers for ever.

# %%
def check_importable(module: str, start_method: str) -> None:
    """Raise a RuntimeError if worker processes started this way cannot import from `module`."""
    if module == "__main__" and start_method != "fork":
        raise RuntimeError(
            f"this class was defined in a notebook, where worker processes started by "
            f"{start_method!r} cannot find it: import it (from notebooks_py.ch1_captcha_preview "
            "import CaptchaSequence), or use threads (use_multiprocessing=False)"
        )


# %% [markdown]
# This is the error that would come instead of endless waiting:

# %% tags=["active-ipynb"]
# try:
#     check_importable("__main__", "spawn")
# except RuntimeError as error:
#     print("RuntimeError:", error)

# %% [markdown]
# Now the class itself. All that decides about a batch is its name, so the order in which workers
# ask does not matter, nor does their number. The labels come in two kinds: `"one-hot"` for the
# network with four heads, and `"ctc"`, whole numbers from 1 to 36, for the sequence model of lesson
# 3, which needs the 0 for itself. What a data set is asked for is checked when it is made, not an
# hour later.

# %%
def check_workers(kind: type, processes: bool) -> None:
    """Raise as `check_importable` if this program's worker processes could not import `kind`."""
    if processes and not hasattr(sys.modules["__main__"], "__file__"):
        chosen = multiprocessing.get_start_method(allow_none=True)
        method = chosen or multiprocessing.get_all_start_methods()[0]
        check_importable(kind.__module__, method)


def check_request(labels: str, batch_size: int, steps: int) -> None:
    """Raise a ValueError unless `labels` is a kind that we have and both sizes are positive."""
    if labels not in ("one-hot", "ctc"):
        raise ValueError(f"labels={labels!r}: allowed are 'one-hot' and 'ctc'")
    if batch_size < 1 or steps < 1:
        raise ValueError(f"batch_size={batch_size}, steps={steps}: both must be at least 1")


def check_index(index: int, steps: int) -> None:
    """Raise an IndexError unless an epoch of `steps` batches has a batch `index`."""
    if not 0 <= index < steps:
        raise IndexError(f"batch {index} of {steps}: allowed are 0..{steps - 1}")


def targets(
    texts: Sequence[str], labels: str, alphabet: str = ALPHABET
) -> tuple[np.ndarray, ...] | np.ndarray:
    """Return what a network should answer to pictures of these texts, all of one length.

    For labels="one-hot" an array float32 (n, len(alphabet)) for each position; for labels="ctc"
    int32 (n, length) with values 1..len(alphabet). The errors are those of `encode`.
    """
    places = encode(texts, alphabet, len(texts[0]))
    return places + 1 if labels == "ctc" else one_hot(places, len(alphabet))


# %% [markdown]
# The class itself is then short.

# %%
class CaptchaSequence(keras.utils.PyDataset):
    """Endless captchas in epochs of `steps` batches; (seed, split, epoch, index) decide each batch.

    A batch is `(X, y)`. X is float32 (batch_size, height, width, 3) in [0, 1]. For labels="one-hot"
    y is `length` arrays float32 (batch_size, len(alphabet)); for labels="ctc" it is int32
    (batch_size, length) with values 1..len(alphabet). `SetEpoch` moves on to new pictures.

    Each character of a text is drawn from `alphabet + extra`: with extra="00", the 0 comes three
    times as often as the others.

    `workers`, `use_multiprocessing` and `max_queue_size` go to `keras.utils.PyDataset`.

    Raises:
        ValueError: an unknown kind of labels, a size below 1, or `extra` beyond the alphabet.
        RuntimeError: processes could not import this class (see `check_importable`).
    """

    def __init__(
        self,
        batch_size: int,
        steps: int,
        seed: int,
        *,
        split: str = "train",
        labels: str = "one-hot",
        alphabet: str = ALPHABET,
        extra: str = "",
        length: int = LENGTH,
        width: int = WIDTH,
        height: int = HEIGHT,
        **workers,
    ):
        super().__init__(**workers)
        check_workers(type(self), self.use_multiprocessing)
        check_request(labels, batch_size, steps)
        check_text(extra, alphabet, len(extra))
        self.batch_size, self.steps, self.seed, self.split = batch_size, steps, seed, split
        self.labels, self.alphabet, self.extra, self.length = labels, alphabet, extra, length
        self.width, self.height, self.epoch = width, height, 0

    def __len__(self) -> int:
        return self.steps

    def draw(self, index: int) -> tuple[np.ndarray, list[str]]:
        """Draw batch `index`: uint8 pictures and their texts; IndexError outside 0..steps-1."""
        check_index(index, self.steps)
        rng = stream(self.seed, self.split, self.epoch, index)
        texts = random_texts(rng, self.batch_size, self.alphabet + self.extra, self.length)
        return draw_captchas(texts, rng, self.width, self.height), texts

    def __getitem__(self, index: int) -> tuple[np.ndarray, tuple[np.ndarray, ...] | np.ndarray]:
        X, texts = self.draw(index)
        return to_input(X, self.width, self.height), targets(texts, self.labels, self.alphabet)


# %% [markdown]
# A first batch, exactly as a network gets it. Its labels are decoded back into text for the titles.

# %% tags=["active-ipynb"]
# data = CaptchaSequence(batch_size=128, steps=10, seed=SEED)
# X, y = data[0]
# figure, row = plt.subplots(1, 5, figsize=(10, 1.5), layout="constrained")
# for axes, picture, text in zip(row, X[:5], decode_heads(y)[:5], strict=True):
#     axes.imshow(picture)
#     axes.set_title(text, family="monospace")
#     axes.axis("off")
# figure.suptitle("The first five of a batch of 128, titles decoded from the labels")
# plt.show()
# print(f"X: {X.shape} {X.dtype}, values {X.min():.2f} to {X.max():.2f}")
# print(f"y: {len(y)} arrays of {y[0].shape} {y[0].dtype}")
# print("as CTC labels:", CaptchaSequence(1, 1, SEED, labels="ctc")[0][1].tolist())

# %% [markdown]
# Every picture shows its title, so pictures and labels belong together.
#
# ## A new epoch, new pictures
#
# When an epoch ends, the data set has to move on, or the network would see the same pictures again.
# A callback sets the number of the epoch, in the process that trains. (A counter inside the data
# set is not enough: it counts wrongly as soon as workers fetch ahead, and starts from zero when
# training is continued.)

# %%
class SetEpoch(keras.callbacks.Callback):
    """Tells a `CaptchaSequence` which epoch begins; use it with `fit(..., shuffle=False)`."""

    def __init__(self, data: CaptchaSequence):
        super().__init__()
        self.data = data

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.data.epoch = epoch


# %% [markdown]
# ## The fingerprint of a data set
#
# How do we know that the stream is the same on your machine as on ours? We boil it down to a
# fingerprint: a SHA-256 hash over every byte of the pictures and the labels. One changed pixel
# changes it beyond recognition.

# %%
FIRST_BATCH = "3370d29413c56423dc1e10e8ccac27267d39476accc43bb65f5cfef22260c0a6"


def fingerprint(*arrays: np.ndarray) -> str:
    """Return the SHA-256, in hexadecimal, over dtype, shape and bytes of the arrays in order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

# %% [markdown]
# `FIRST_BATCH` is the fingerprint of the first batch for the seed 2019. If your installation draws
# a single pixel differently (another Pillow, say), the next cell stops here and now, and not three
# lessons later with a puzzling result.

# %% tags=["active-ipynb"]
# pictures, texts = CaptchaSequence(batch_size=128, steps=1, seed=2019).draw(0)
# found = fingerprint(pictures, encode(texts))
# print(found)
# assert found == FIRST_BATCH, f"these pictures differ from ours: {found}, expected {FIRST_BATCH}"

# %% [markdown]
# Now the hard test. Four threads draw eight batches in reverse order, while a fifth thread keeps
# taking numbers from the global `random`. Not a byte may change.

# %% tags=["active-ipynb"]
# import threading
# from multiprocessing.pool import ThreadPool
#
# data = CaptchaSequence(batch_size=16, steps=8, seed=SEED)
# calm = [fingerprint(data[index][0]) for index in range(8)]
#
# stop = threading.Event()
# noise = iter(lambda: stop.wait(0.001) or random.random(), True)
# nuisance = threading.Thread(target=list, args=[noise])
# nuisance.start()
# with ThreadPool(4) as pool:
#     busy = pool.map(lambda index: fingerprint(data[index][0]), reversed(range(8)), chunksize=1)
# stop.set()
# nuisance.join()
# assert busy[::-1] == calm
# print("four threads, reverse order, a noisy neighbour: same batches:", busy[::-1] == calm)

# %% [markdown]
# And the other direction: another epoch, another seed or another split must give other pictures.

# %% tags=["active-ipynb"]
# others = [CaptchaSequence(16, 8, SEED + 1), CaptchaSequence(16, 8, SEED, split="valid")]
# others.append(CaptchaSequence(16, 8, SEED))
# others[-1].epoch = 1
# hashes = {calm[0], *(fingerprint(other[0][0]) for other in others)}
# print(f"{len(hashes)} different batches from 4 different names")
# assert len(hashes) == 4

# %% [markdown]
# ---
#
# ## What you learned
#
# - A captcha is made in six steps: rotation, warp, overlap and squeeze, dots, arc, smoothing. You
#   have drawn one by hand that equals the library's to the last byte.
# - Data is reproducible if every batch depends on a *name* alone, and if nothing is shared between
#   those who draw.
# - `CaptchaSequence` gives pictures as float32 in [0, 1] and labels as four one-hot arrays, or as
#   whole numbers for CTC.
#
# ## On your own
#
# 1. Draw captchas of six characters instead of four (`length=6`). Which step gets stronger?
#    *Expected: the squeeze; the letters become narrow, and many pictures can hardly be read.*
# 2. Make a `CaptchaSequence` with the alphabet `"0123456789"` and look at the shape of its labels.
#    *Expected: four arrays of `(batch, 10)`.*
# 3. Call `dissect` with the text `"IIII"`, and then with `"WWWW"`. Which of them is squeezed?
#    *Expected: in this font all characters are nearly as wide, so both may be; what decides is how
#    many blanks were drawn.*
#
# ## Further reading
#
# - [captcha on GitHub](https://github.com/lepture/captcha): the source of the library. `image.py`
#   has 249 lines, and you now know every one of them.
# - [The original tutorial](https://github.com/ypwhs/captcha_break) (in Chinese): where this series
#   comes from.
# - [keras.utils.PyDataset](https://keras.io/api/utils/python_utils/#pydataset-class): the rules for
#   data sets with workers, in its authors' words.
