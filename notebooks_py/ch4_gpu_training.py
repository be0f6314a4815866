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
# # Train on a GPU, and keep it busy
#
# ## What you'll do
#
# - ask which device your network runs on, and share a GPU's memory politely
# - measure how fast captchas reach the network with no worker, two workers and four
# - draw a set of captchas once, and read it again many times as fast
# - let the device draw, with every step of the library rebuilt from array operations
# - take a training step apart, and compare it with what your machine could do
# - build the training that `make train` runs for hours, and stop it in the middle
# - compare recipes, and three kinds of heads with three seeds each
#
# ## What you'll learn
#
# - what a GPU speeds up, and what it leaves exactly as slow as before
# - how to find out whether a network is waiting for its data
# - what makes training quick: a slim network, and a learning rate with a plan
# - what has to be saved so that a run can be killed at any moment and lose nothing but a minute
#
# ## What you'll need
#
# - [Lesson 1](ch1_captcha_preview.ipynb), [lesson 2](ch2_cnn.ipynb) and [lesson 3](ch3_ctc.ipynb);
#   a GPU is welcome and not needed: on a CPU every cell runs as well
#
# ---

# %%
import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import math
import multiprocessing
import os
import platform
import random
import re
import shutil
import signal
import threading
import time
import types

# %%
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path

# %% [markdown]
# Keras reads its settings when it is imported, so they come first.

# %%
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from captcha.image import DEFAULT_FONTS
from keras import ops
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

# %% [markdown]
# And what earlier lessons have built:

# %%
from notebooks_py.ch1_captcha_preview import (
    ALPHABET,
    HEIGHT,
    LENGTH,
    WIDTH,
    CaptchaSequence,
    check_index,
    decode,
    decode_heads,
    encode,
    fingerprint,
    random_texts,
    seeded_library,
    stream,
    targets,
)
from notebooks_py.ch2_cnn import (
    Score,
    build_cnn,
    check_settings,
    check_weights,
    evaluate,
    open_run,
    read_heads,
    replace_text,
    save_model,
    write_json,
)
from notebooks_py.ch3_ctc import build_ctc, compile_ctc, ctc_loss, decode_ctc, read_ctc


# %% [markdown]
# Two numbers: the seed, and how many batches we time.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 16  # batches in each measurement

# %% [markdown]
# ## Which device?
#
# Keras places a network on the first GPU if the backend can see one, and on the CPU otherwise. No
# line of lesson 2 has to change. So the question is only whether a GPU is *seen*: a driver that is
# too old, or a TensorFlow without CUDA libraries, silently leaves you on the CPU.

# %%
def device() -> str:
    """Return the device that Keras computes on, such as "GPU (gpu:0, one of 2)" or "CPU"."""
    devices = keras.distribution.list_devices()  # GPUs (or TPUs) if there are any, else CPUs
    kind = devices[0].split(":")[0].upper()
    if kind == "CPU":
        return "CPU"
    return f"{kind} ({devices[0]}{f', one of {len(devices)}' if len(devices) > 1 else ''})"


# %% [markdown]
# These lessons print nothing that depends on your machine, because their printed outputs are
# compared with ours, word by word. What depends on the machine goes into pictures. This one is
# yours:

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, axes = plt.subplots(figsize=(7, 1.2), layout="constrained")
# axes.text(0.5, 0.5, f"{device()}, backend {keras.backend.backend()}", ha="center", fontsize=15)
# axes.set_title("The device that this notebook computes on")
# axes.axis("off")
# plt.show()
# print("Keras sees a CPU or a GPU:", device().split()[0] in ("CPU", "GPU"))

# %% [markdown]
# If it says CPU although there is a GPU in your machine, the README tells how to install TensorFlow
# with CUDA.
#
# ## Share the memory
#
# TensorFlow takes *all* memory of a GPU at its first operation, whether it needs it or not. Then a
# second notebook on the same GPU fails. The original tutorial asks TensorFlow to take memory step
# by step instead; this is the same trick with today's functions. It has to come before the first
# operation on the GPU.

# %%
def grow_memory() -> str:
    """Ask the backend to take GPU memory as it needs it; return a sentence about what was done.

    Raises:
        RuntimeError: TensorFlow has used the GPU already, so it is too late.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        if os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "").lower() == "false":
            return "JAX takes memory as it needs it: XLA_PYTHON_CLIENT_PREALLOCATE is false"
        return "JAX decides at its start: set XLA_PYTHON_CLIENT_PREALLOCATE=false before that"
    if backend != "tensorflow":
        return f"{backend} takes GPU memory as it needs it: nothing to do"
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError as error:
            raise RuntimeError(
                f"{gpu.name} is in use already: restart the kernel, and call grow_memory() first"
            ) from error
    return f"TensorFlow takes memory as it needs it on {len(gpus)} GPUs"


# %% [markdown]
# We call it here for the sake of the example; in a notebook of your own, do so right after the
# imports.

# %% tags=["active-ipynb"]
# sentence = grow_memory()
# assert "memory" in sentence or "JAX decides" in sentence
# print("asked in time:", bool(sentence))

# %% [markdown]
# On a CPU this does nothing, and says so in `sentence`.
#
# ## Who waits for whom?
#
# A training step has two halves. Somebody draws the pictures: that is work for CPU cores, whatever
# card is in the machine. Then the network computes: that is what a GPU does many times faster. If
# the pictures come too slowly, the fastest GPU stands idle; in the original tutorial, nine tenths
# of each step on a GPU were waiting for pictures.
#
# Workers help, because they draw the next batches while the network computes. To see how much, we
# time an epoch of the same batches with different numbers of workers. The network is tiny, so it
# hardly ever makes anybody wait: what is left is the feeding.

# %%
@functools.cache
def tiny_network(width: int, height: int, classes: int, length: int) -> keras.Model:
    """Build and compile a network that hardly computes anything; only once for each size."""
    inputs = keras.Input((height, width, 3))
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    heads = [keras.layers.Dense(classes, "softmax")(features) for _ in range(length)]
    model = keras.Model(inputs, heads)
    model.compile("sgd", loss="categorical_crossentropy")
    return model


def feeding_speed(data: CaptchaSequence) -> float:
    """Return how many pictures a second reach a tiny network in an epoch of `data`."""
    model = tiny_network(data.width, data.height, len(data.alphabet), data.length)
    model.fit(*data[0], verbose=0)  # the first time Keras compiles, and that is not feeding
    start = time.perf_counter()
    model.fit(data, shuffle=False, verbose=0)
    return data.batch_size * len(data) / (time.perf_counter() - start)


# %% [markdown]
# Three epochs, three bars:

# %% tags=["active-ipynb"]
# speeds = {
#     workers: feeding_speed(CaptchaSequence(16, STEPS, SEED, workers=workers))
#     for workers in (0, 2, 4)
# }
# figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
# axes.bar([str(workers) for workers in speeds], speeds.values())
# axes.set(xlabel="workers (threads)", ylabel="pictures a second")
# axes.set_title(f"Feeding by threads: {STEPS} batches of 16, {os.cpu_count()} CPU cores")
# plt.show()
# print("measured with", ", ".join(map(str, speeds)), "workers")
# assert all(speed > 0 for speed in speeds.values())

# %% [markdown]
# The bars are your machine's. Do not expect four times the speed from four threads: Python lets one
# thread at a time run Python code, and only the parts of Pillow that work outside Python overlap. On
# our two cores threads gained nothing at all; waiting for each other cost more than the overlap
# brought. What does help is processes, which are next.
#
# Does it matter who draws? For the speed, yes; for the data, no:

# %% tags=["active-ipynb"]
# alone, helped = (CaptchaSequence(32, 2, SEED, workers=workers) for workers in (0, 4))
# same = all(np.array_equal(alone[index][0], helped[index][0]) for index in range(2))
# print("the same pictures with any number of workers:", same)
# assert same

# %% [markdown]
# ## Draw once, use often
#
# The first way out: draw the captchas *once*, keep them as bytes on a disk, and let training read
# them. Several processes draw, each for itself, so the number of cores counts in full. The pictures
# go into one large array in a file (`numpy` calls that a memory map), which the operating system
# reads as it is needed.
#
# A set that is half drawn, or was drawn with another seed, would be worse than none. So it is made
# under another name and renamed when it is complete, and it carries its settings and fingerprints
# with it.

# %%
SET_NAMES = ("seed", "split", "alphabet", "length", "width", "height")


def set_settings(source: CaptchaSequence) -> dict:
    """Return what `source` draws, but for the size and number of its batches."""
    more = {"drawn as": source.version} if hasattr(source, "version") else {}
    more |= {"extra": source.extra} if source.extra else {}
    return {name: getattr(source, name) for name in SET_NAMES} | more


# %% [markdown]
# Now the set itself. The settings are written last, in the draft, and then the draft becomes the
# set.

# %%
def render_set(source: CaptchaSequence, folder: Path, processes: int = 2) -> Path:
    """Draw all batches of `source` into a new `folder`, with a progress bar; all of it or nothing.

    The folder gets pictures.npy, uint8 (n, height, width, 3), labels.npy, int32 (n, length), and
    set.json with the settings and the fingerprint of each batch. `processes` draw at once.

    Raises:
        FileExistsError: there is a folder of this name.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists: delete it to draw the set anew, or name another")
    draft, size = folder.with_name(folder.name + ".draft"), source.batch_size
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    shape = (len(source) * size, source.height, source.width, 3)
    pictures = np.lib.format.open_memmap(draft / "pictures.npy", "w+", np.uint8, shape)
    labels, hashes = np.empty((shape[0], source.length), np.int32), []
    for index, (drawn, texts) in enumerate(draw_ahead(source, processes)):
        rows = slice(index * size, (index + 1) * size)
        pictures[rows], labels[rows] = drawn, encode(texts, source.alphabet, source.length)
        hashes.append(fingerprint(drawn, labels[rows]))
    pictures.flush()
    np.save(draft / "labels.npy", labels)
    note = {"pictures": len(labels), "settings": set_settings(source)}
    note |= {"batch_size": size, "fingerprints": hashes}
    write_json(draft / "set.json", note)
    os.replace(draft, folder)
    return folder


# %% [markdown]
# The drawing itself is spread over processes that start afresh ("spawn"), which works on every
# system. They get the data set and the number of a batch, and send back its pictures. To start one
# takes seconds, so a single one is not started at all: then this process draws.

# %%
def draw_ahead(source: CaptchaSequence, processes: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield all batches of `source` in order, drawn by so many processes, with a progress bar."""
    numbers, bar = range(len(source)), {"total": len(source), "desc": "drawing", "unit": "batch"}
    if processes == 1:
        yield from tqdm(map(source.draw, numbers), **bar)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        try:
            yield from tqdm(pool.map(source.draw, numbers), **bar)
        finally:
            pool.shutdown(cancel_futures=True)


# %% [markdown]
# Before a set is used, it has to show its papers: settings, number of pictures, and the fingerprints
# of three batches, at its beginning, middle and end.

# %%
def read_note(folder: Path) -> dict:
    """Return the set.json of a rendered set; FileNotFoundError if there is none in `folder`."""
    if not (folder / "set.json").exists():
        raise FileNotFoundError(f"no set in {folder}: draw one with `make render OUT={folder}`")
    return json.loads((folder / "set.json").read_text())


# %% [markdown]
# Damage is found before it is trained on, at least where it is looked for.

# %%
def open_set(folder: Path, wanted: dict, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures uint8 (n, height, width, 3) and labels (n, length) of the set in `folder`.

    Raises:
        FileNotFoundError: there is no such set.
        ValueError: its settings are not those `wanted`, n is below `least`, or it is damaged.
    """
    note = read_note(folder)
    check_settings(wanted, note["settings"], folder, "set")
    hashes, size = note["fingerprints"], note["batch_size"]
    if least > note["pictures"]:
        raise ValueError(
            f"the set in {folder} has {note['pictures']} pictures, fewer than {least}: "
            "ask for fewer, or render a larger set"
        )
    files = [np.load(folder / name, mmap_mode="r") for name in ("pictures.npy", "labels.npy")]
    for index in (0, len(hashes) // 2, len(hashes) - 1):
        if fingerprint(*(x[index * size : (index + 1) * size] for x in files)) != hashes[index]:
            raise ValueError(
                f"batch {index} in {folder} is damaged: delete the folder, and render the set anew"
            )
    return tuple(files)


# %% [markdown]
# To read the set is then to look up instead of to draw. Everything else, labels included, comes
# from `CaptchaSequence`.

# %%
class RenderedSequence(CaptchaSequence):
    """A `CaptchaSequence` that looks its batches up in the `folder` of a `render_set`.

    The other arguments are those of `CaptchaSequence`. With the batch_size of the set, so is every
    batch, byte for byte; with another one, the same pictures come in batches of that size. The
    errors are those of `CaptchaSequence` and `open_set`.
    """

    def __init__(self, folder: Path, batch_size: int, steps: int, seed: int, **options):
        super().__init__(batch_size, steps, seed, **options)
        self.pictures, self.places = open_set(folder, set_settings(self), steps * batch_size)

    def draw(self, index: int) -> tuple[np.ndarray, list[str]]:
        """Look up batch `index`: uint8 pictures and their texts; IndexError outside 0..steps-1."""
        check_index(index, self.steps)
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return np.array(self.pictures[rows]), decode(self.places[rows], self.alphabet)


# %% [markdown]
# A few seconds of drawing, and the set is there. (`make render` draws large ones, with a process
# for each core.) Are its batches those that would have been drawn on the fly?

# %% tags=["active-ipynb"]
# from notebooks_py.ch1_captcha_preview import fresh_folder
#
# FOLDER = fresh_folder("ch4_gpu_training")
# on_the_fly = CaptchaSequence(16, STEPS, SEED)
# render_set(on_the_fly, FOLDER / "set", processes=1)
# rendered = RenderedSequence(FOLDER / "set", 16, STEPS, SEED)
# same = all(np.array_equal(rendered[i][0], on_the_fly[i][0]) for i in range(STEPS))
# size = (FOLDER / "set" / "pictures.npy").stat().st_size
# print(f"{STEPS * 16} pictures, {size / 1e6:.1f} MB, the same as on the fly: {same}")
# assert same

# %% [markdown]
# A set of other captchas under the same name would be a nasty surprise, so it is refused:

# %% tags=["active-ipynb"]
# try:
#     RenderedSequence(FOLDER / "set", 16, STEPS, SEED + 1)
# except ValueError as error:
#     print("ValueError:", str(error).replace(str(FOLDER), "..."))

# %% [markdown]
# And the speed? The same measurement as above:

# %% tags=["active-ipynb"]
# ways = {"drawn, no worker": on_the_fly, "from the set": rendered}
# ways = {name: feeding_speed(data) for name, data in ways.items()}
# figure, axes = plt.subplots(figsize=(6, 2), layout="constrained")
# axes.barh(list(ways), ways.values())
# axes.set(title="Feeding on the fly and from a set", xlabel="pictures a second")
# plt.show()
# print("measured:", ", ".join(ways))
# assert all(speed > 0 for speed in ways.values())

# %% [markdown]
# Reading costs next to nothing. The price is space, 24,576 bytes for each picture, and that the set
# has an end.
#
# ## Draw on the device
#
# The second way out: let the device draw. A captcha is made of two things. Chance decides about a
# hundred numbers, its *plan*: which font, which angle, where each dot goes. What follows is
# arithmetic on pixels, and arithmetic is what a GPU is made for. So we draw the plan with numpy,
# all captchas of a batch at once, and the pixels inside the training step.
#
# The library's drawing is Pillow's: rotate, stretch, warp, paste, squeeze, add noise, smooth. We
# follow it step by step, and where Pillow rounds to whole bytes, so do we. Is it worth the trouble?
# A network trained on captchas that only look alike may learn what the library never draws.
#
# ### The glyphs
#
# What a font contributes is fixed, so we ask for it once: for each character in each size the bytes
# of its ink, how large that is, and the box that the library warps it into.

# %%
@dataclasses.dataclass(frozen=True)
class Glyphs:
    """Each character of `alphabet` in each of so many `fonts`; glyph = character * fonts + font.

    `ink` is uint8 (glyphs, width, height), 0 to 255, of which glyph i fills `sizes`[i] = (w, h);
    `boxes` (glyphs, 2) are the library's boxes, and `blanks` (fonts,) the widths of a space.
    """

    alphabet: str
    fonts: int
    ink: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    blanks: np.ndarray


def glyph_box(character: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Return (w, h) of the box that the library warps a character into."""
    canvas = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return tuple(int(end) for end in canvas.multiline_textbbox((1, 1), character, font=font)[2:])


# %% [markdown]
# A font that lacks a character draws a little box in its place, the same for all that it lacks.
# Nobody should train on those.

# %%
def glyph_ink(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """Return how much of each pixel a character covers, uint8 (width, height), cut to its ink.

    Raises:
        ValueError: the font has no such glyph.
    """

    def drawn(text: str) -> Image.Image:
        picture = Image.new("L", tuple(size + 8 for size in glyph_box(character, font)))
        ImageDraw.Draw(picture).text((4, 4), text, font=font, fill=255)
        return picture

    picture = drawn(character)
    if picture.getbbox() is None or picture == drawn("\U0010fffe"):  # which no font has
        raise ValueError(
            f"the font {font.path} has no glyph for {character!r}: "
            "take another font, or leave the character out of the alphabet"
        )
    return np.asarray(picture.crop(picture.getbbox())).T


# %% [markdown]
# All of them, in one table:

# %%
def read_glyphs(
    alphabet: str = ALPHABET,
    fonts: Sequence[str] = tuple(DEFAULT_FONTS),
    sizes: Sequence[int] = (42, 50, 56),
) -> Glyphs:
    """Return the glyphs of each font in each size; ValueError if one is missing."""
    loaded = [ImageFont.truetype(font, size) for font in fonts for size in sizes]
    pairs = [(character, font) for character in alphabet for font in loaded]
    inks = [glyph_ink(*pair) for pair in pairs]
    extent = np.array([ink.shape for ink in inks])
    room = extent.max(axis=0)
    padded = [np.pad(ink, np.stack([0 * room, room - ink.shape], axis=1)) for ink in inks]
    boxes = np.array([glyph_box(*pair) for pair in pairs])
    blanks = np.array([glyph_box(" ", font)[0] for font in loaded])
    return Glyphs(alphabet, len(loaded), np.stack(padded), extent, boxes, blanks)


# %% [markdown]
# ### The plan
#
# Now chance. These are the library's draws, in numpy and for a whole batch: a uniform whole number
# where the library takes `randint`, and so on. First what belongs to the text. (Lesson 1 showed how
# version 0.7.1 warps differently.)

# %%
def plan_shifts(boxes: np.ndarray, rng: np.random.Generator, version: str = "0.7.0") -> np.ndarray:
    """Return x1, y1, x2, y2, how far corners of boxes (..., 2) move, as whole pixels (..., 4)."""
    if version not in ("0.7.0", "0.7.1"):
        raise ValueError(f"version={version!r}: allowed are '0.7.0' and '0.7.1'")
    low, span = np.array([0.1, 0.2]), np.array([0.2, 0.1])
    chance = rng.random(boxes.shape)
    old = version == "0.7.0"
    reach = boxes * (low + span * chance) if old else boxes * chance * span + low
    return np.trunc(np.tile(reach, 2) * rng.uniform(-1, 1, (*boxes.shape[:-1], 4))).astype(int)


# %% [markdown]
# All blanks and characters of a text side by side have a width, and its share for each character
# decides how far they may slide over each other.

# %%
def piece_widths(
    places: np.ndarray, fonts: np.ndarray, blanks: np.ndarray, glyphs: Glyphs
) -> np.ndarray:
    """Return the widths of blank and box for characters (n, length): (n, length, 2), in pixels."""
    boxes = glyphs.boxes[places * glyphs.fonts + fonts, 0]
    return np.stack([np.where(blanks >= 0, glyphs.blanks[blanks], 0), boxes], axis=-1)


def plan_text(
    places: np.ndarray, rng: np.random.Generator, glyphs: Glyphs, version: str = "0.7.0"
) -> dict[str, np.ndarray]:
    """Return the draws for the characters at `places` (n, length) of the alphabet.

    All are (n, length) or (n, length, k): fonts; blanks, the font of the space before a character
    or -1; angles in degrees; shifts as `plan_shifts`; slides (0 or less) of space and character.
    """
    fonts, blanks = rng.integers(glyphs.fonts, size=(2, *places.shape))
    blanks = np.where(rng.random(places.shape) > 0.5, blanks, -1)
    widths = piece_widths(places, fonts, blanks, glyphs)
    average = widths.sum(axis=(1, 2)) // places.shape[1]
    slides = -rng.integers((average // 4)[:, None, None] + 1, size=widths.shape)
    boxes = glyphs.boxes[places * glyphs.fonts + fonts]
    return {
        **{"places": places, "fonts": fonts, "blanks": blanks},
        "angles": rng.uniform(-30, 30, places.shape),
        "shifts": plan_shifts(boxes, rng, version),
        "slides": np.where(widths > 0, slides, 0),
    }


# %% [markdown]
# Then what belongs to the picture: colours, dots and the arc.

# %%
def plan_noise(
    n: int, rng: np.random.Generator, width: int, height: int, version: str = "0.7.0"
) -> dict[str, np.ndarray]:
    """Return the draws for n pictures: ink (n, 4), paper (n, 3), dots (n, 30, 2), arc (n, 6).

    The ink is red, green, blue, opacity, and the arc x1, y1, x2, y2, start and end in degrees.
    """
    fifth, down = width // 5, height // 5
    x1, y1 = rng.integers(0, fifth + 1, n), rng.integers(down, height - down + 1, n)
    x2 = rng.integers(width - fifth if version == "0.7.0" else fifth, width + 1, n)
    y2 = rng.integers(y1, height - down + 1)
    start, end = rng.integers(0, 21, n), rng.integers(160, 201, n)
    colour, opacity = rng.integers(10, 201, (n, 3)), rng.integers(220, 256, (n, 1))
    return {
        "ink": np.concatenate([colour, opacity], axis=1),
        "paper": rng.integers(238, 256, (n, 3)),
        "dots": rng.integers(0, [width + 1, height + 1], (n, 30, 2)),
        "arc": np.stack([x1, y1, x2, y2, start, end], axis=1),
    }


# %% [markdown]
# What can't be drawn is refused before anything is: a character that is not there, and a picture
# that would cut letters off or squeeze them beyond reading.

# %%
def check_room(glyphs: Glyphs, length: int, width: int, height: int) -> None:
    """Raise a ValueError unless so many characters fit: whole, and at least 8 pixels wide each."""
    least = (8 * length, int(glyphs.sizes[:, 1].max()))
    if width < least[0] or height < least[1]:
        raise ValueError(
            f"{width}x{height} pixels are too few for {length} characters of these fonts: use at "
            f"least {least[0]}x{least[1]}, or smaller font sizes"
        )


def draw_plan(
    texts: Sequence[str],
    rng: np.random.Generator,
    glyphs: Glyphs,
    width: int = WIDTH,
    height: int = HEIGHT,
    version: str = "0.7.0",
) -> dict[str, np.ndarray]:
    """Return the plan of n texts of equal length: the draws of `plan_text` and `plan_noise`.

    Raises:
        ValueError: no text, a character that is not among the glyphs, texts of different lengths,
            too few pixels, or another version than 0.7.0 and 0.7.1.
    """
    if not texts:
        raise ValueError("texts is empty: a plan needs at least one text")
    places = encode(texts, glyphs.alphabet, len(texts[0]))
    check_room(glyphs, places.shape[1], width, height)
    text = plan_text(places, rng, glyphs, version)
    return text | plan_noise(len(texts), rng, width, height, version)


# %% [markdown]
# Three captchas, and how many numbers decide about each:

# %% tags=["active-ipynb"]
# GLYPHS = read_glyphs()
# plan = draw_plan(["O0O0", "W1W1", "2019"], np.random.default_rng(SEED), GLYPHS)
# print({name: draws.shape[1:] for name, draws in plan.items()})
# print("numbers for a captcha:", sum(draws[0].size for draws in plan.values()))

# %% [markdown]
# ### From draws to geometry
#
# Some steps are quick and have to be exact, so they are done once for each glyph, still by numpy:
# where does a turned glyph come from? `Image.rotate` maps each pixel of the result back into the
# glyph, and makes the result just large enough for its corners. We keep the map in whole numbers,
# in units of 2**-20 pixels, so that every device finds the same pixel.

# %%
def rotations(sizes: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps (..., 6) of Pillow's `rotate(angle, expand=True)` and its sizes (..., 2).

    A pixel with its middle at (x, y) comes from a*x + b*y + c, d*x + e*y + f for a map a, ..., f.
    """
    w, h = np.moveaxis(sizes, -1, 0)
    angles = -np.radians(angles)
    cos, sin = np.cos(angles), np.sin(angles)

    def back(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return cos * x + sin * y, cos * y - sin * x

    corners = [back((x - 0.5) * w, (y - 0.5) * h) for x in (0, 1) for y in (0, 1)]
    xs, ys = (np.stack([corner[i] for corner in corners]) for i in (0, 1))
    xs, ys = xs + w / 2, ys + h / 2
    extent = [np.ceil(v.max(axis=0)) - np.floor(v.min(axis=0)) for v in (xs, ys)]
    c, f = back(-extent[0] / 2, -extent[1] / 2)
    maps = np.broadcast_arrays(cos, sin, c + w / 2, -sin, cos, f + h / 2)
    return np.stack(maps, axis=-1), np.stack(extent, axis=-1).astype(int)


# %% [markdown]
# The warp maps the box to four moved corners of the stretched glyph: the position in the glyph is
# a0 + a1*x + a2*y + a3*x*y, once across and once down. With everything multiplied by 4*w*h and
# twice the middle of a pixel, which is odd, for x and y, all of it is whole numbers.

# %%
def warps(boxes: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return maps (..., 8) from boxes (..., 2) as just explained, and the stretched sizes (..., 2).

    The first four numbers of a map are for across, the others for down.
    """
    (w, h), (x1, y1, x2, y2) = np.moveaxis(boxes, -1, 0), np.moveaxis(shifts, -1, 0)
    w2, h2 = w + abs(x1) + abs(x2), h + abs(y1) + abs(y2)
    corners = ((x1, -x1, w2 + x2, w2 - x2), (y1, h2 - y2, h2 + y2, -y1))
    maps = [
        (4 * w * h * nw, 2 * h * (ne - nw), 2 * w * (sw - nw), se - sw - ne + nw)
        for nw, sw, se, ne in corners
    ]
    return np.stack([*maps[0], *maps[1]], axis=-1), np.stack([w2, h2], axis=-1)


# %% [markdown]
# An arc is the outline of an ellipse between two angles. Pillow cuts it along a straight line at
# each end, the normal of the ellipse there.

# %%
def arc_cuts(arc: np.ndarray) -> np.ndarray:
    """Return the lines a*x + b*y + c = 0 that cut off the start and end of arcs (n, 6): (n, 2, 3).

    Pixels with a positive value are kept. x and y count half pixels from the middle of the ellipse.
    """
    x1, y1, x2, y2, *ends = arc.T.astype(float)
    a, b = x2 - x1, y2 - y1
    cuts = []
    for sign, degrees in zip((1, -1), ends, strict=True):
        sin, cos = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
        line = np.stack([-a * sin, b * cos, (a * a - b * b) * sin * cos], axis=-1)
        cuts.append(sign * np.where(np.abs(line) < 1e-9, 0, line))
    return np.stack(cuts, axis=1)


# %% [markdown]
# All numbers that a device needs, and no more:

# %%
def lay_out(plan: dict[str, np.ndarray], glyphs: Glyphs, height: int) -> dict[str, np.ndarray]:
    """Return what `CaptchaRenderer` draws from: int32 and float32 arrays, n captchas each."""
    glyph = plan["places"] * glyphs.fonts + plan["fonts"]
    sizes, boxes = glyphs.sizes[glyph], glyphs.boxes[glyph]
    turn, turned = rotations(sizes, plan["angles"])
    warp, stretched = warps(boxes, plan["shifts"])
    widths = piece_widths(plan["places"], plan["fonts"], plan["blanks"], glyphs)
    total = widths.sum(axis=(1, 2))
    steps = (widths + plan["slides"]).reshape(len(glyph), -1)
    left = (total // glyph.shape[1] * 0.1).astype(int)[:, None] + np.cumsum(steps, axis=1) - steps
    top = ((height - boxes[..., 1]) / 2).astype(int)
    whole = {
        **{"glyph": glyph, "size": sizes, "turned": turned, "box": boxes, "stretched": stretched},
        **{"turn": np.round(turn * 2**20), "warp": warp, "total": total, "top": top},
        **{"left": left[:, 1::2], "dots": plan["dots"], "arc": plan["arc"]},
    }
    numbers = {"ink": plan["ink"], "paper": plan["paper"], "cuts": arc_cuts(plan["arc"])}
    return {name: value.astype(np.int32) for name, value in whole.items()} | {
        name: value.astype(np.float32) for name, value in numbers.items()
    }


# %% [markdown]
# ### Turn, stretch, warp
#
# From here on everything is an operation of the device, on arrays of whole numbers. We keep pictures
# as Pillow does: a pixel is four bytes in one number of 32 bits, red, green, blue and opacity. To
# fetch a pixel is slow and to calculate with it is quick, so one fetch should bring all of it. (The
# axes are columns, then rows.)

# %%
def by_255(values: keras.KerasTensor) -> keras.KerasTensor:
    """Return values / 255, for whole numbers 0..255**2, int32, rounded as Pillow's `MULDIV255`."""
    values = values + 128
    return ops.right_shift(values + ops.right_shift(values, 8), 8)


def pack(values: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    """Return up to four arrays of whole numbers 0..255 as the bytes of one int32 array."""
    return sum(ops.left_shift(ops.cast(v, "int32"), 8 * i) for i, v in enumerate(values))


def unpack(packed: keras.KerasTensor, i: int) -> keras.KerasTensor:
    """Return byte `i` of int32 numbers, 0..255, int32; byte 0 is the lowest."""
    return ops.bitwise_and(ops.right_shift(packed, 8 * i), 255)


def per_glyph(values: keras.KerasTensor) -> list[keras.KerasTensor]:
    """Split numbers (n, length, k) into k arrays (n * length, 1, 1)."""
    values = ops.reshape(values, (-1, values.shape[-1]))
    return [values[:, i, None, None] for i in range(values.shape[-1])]


# %% [markdown]
# A turned pixel is a mixture of the four pixels around the place that it comes from. A glyph's pixels
# are single bytes, so these four fit in one number, too.

# %%
def neighbours(ink: np.ndarray, sizes: np.ndarray) -> keras.KerasTensor:
    """Return the four pixels around each corner of a pixel, packed, (glyphs * (w+1) * (h+1),).

    Beyond the edge of a glyph, its edge goes on.
    """
    x, y = (np.arange(-1, extent) for extent in ink.shape[1:])
    right, low = (sizes[:, i, None] - 1 for i in (0, 1))
    xs = [np.clip(x + step, 0, right)[:, :, None] for step in (0, 1)]
    ys = [np.clip(y + step, 0, low)[:, None, :] for step in (0, 1)]
    glyph = np.arange(len(ink))[:, None, None]
    corners = [ink[glyph, x, y] for y in ys for x in xs]
    return ops.convert_to_tensor(np.stack(corners, axis=-1).view("<i4").reshape(-1))


# %% [markdown]
# The map says where each pixel of the turned glyph comes from, in which pixel and where in it.

# %%
def origins(layout: dict, extent: Sequence[int]) -> tuple[keras.KerasTensor, ...]:
    """Return x, y, and the parts after them in 1/2048 pixels, of what is turned; and if it exists.

    All five are (glyphs, width, height) for an `extent` of (width, height). Pixel (x, y) has the
    middle of pixel (x - 1, y - 1) of the glyph in its lower right corner.
    """
    a, b, c, d, e, f = per_glyph(layout["turn"])
    (w, h), (wide, high) = per_glyph(layout["size"]), per_glyph(layout["turned"])
    x, y = (2 * ops.arange(size, dtype="int32") + 1 for size in extent)
    x = x[:, None]
    u, v = a * x + (b * y + 2 * c), d * x + (e * y + 2 * f)  # in units of 2**-21 pixels
    exists = (u >= 0) & (u < w * 2**21) & (v >= 0) & (v < h * 2**21)
    exists = exists & (x < 2 * wide) & (y < 2 * high)
    u, v = (ops.right_shift(value + 2**20, 10) for value in (u, v))  # now of 2**-11 pixels
    parts = [ops.bitwise_and(value, 2047) for value in (u, v)]
    return ops.right_shift(u, 11), ops.right_shift(v, 11), *parts, exists


# %% [markdown]
# This is the first of ten steps, from a layout to a picture. Each gets what the step before it
# made, the layout, and the tables that all captchas share.

# %%
def cover(_: None, layout: dict, tables: types.SimpleNamespace) -> tuple[keras.KerasTensor, ...]:
    """Return the four old pixels, packed, for each turned one, and the two parts of `origins`."""
    x, y, right, down, exists = origins(layout, tables.turned)
    place = (ops.reshape(layout["glyph"], (-1, 1, 1)) * tables.grid[0] + x) * tables.grid[1] + y
    covered = ops.take(tables.neighbours, ops.where(exists, place, 0))
    return ops.where(exists, covered, 0), right, down


# %% [markdown]
# Colours are mixed as they will be seen, that is multiplied by their opacity. Between two steps,
# Pillow takes the opacity out again, and puts it in for the next, which loses a little where there
# is nearly none. It is these losses that make the edges of the library's letters so rough.

# %%
def without_opacity(values: keras.KerasTensor, opacity: keras.KerasTensor) -> keras.KerasTensor:
    """Return values * 255 / opacity, whole numbers 0..255, as Pillow's `rgbA2rgba` rounds them."""
    divisor = ops.cast(ops.maximum(opacity, 1), "float32")
    # Half a unit more, so that a quotient that a device rounds is on the right side all the same.
    quotient = ops.floor((ops.cast(255 * values, "float32") + 0.5) / divisor)
    quotient = ops.cast(ops.minimum(quotient, 255), "int32")
    return ops.where((opacity == 0) | (opacity == 255), values, quotient)


def turn(
    before: tuple[keras.KerasTensor, ...], layout: dict, tables: types.SimpleNamespace
) -> keras.KerasTensor:
    """Return the turned glyphs, packed, (glyphs, width, height)."""
    covered, right, down = before
    ink = ops.repeat(ops.cast(layout["ink"], "int32"), layout["glyph"].shape[1], axis=0)
    *colours, opacity = per_glyph(ink[:, None])
    corners = [by_255(unpack(covered, i) * opacity) for i in range(4)]

    def mix(corners: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        upper, lower = (corners[i] * (2048 - right) + corners[i + 1] * right for i in (0, 2))
        return ops.right_shift(upper * (2048 - down) + lower * down, 22)

    mixed = mix(corners)
    colours = [mix([by_255(corner * colour) for corner in corners]) for colour in colours]
    colours = [by_255(without_opacity(colour, mixed) * mixed) for colour in colours]
    return pack([*colours, mixed])


# %% [markdown]
# Stretch. Pillow's `resize` makes each new pixel from a few old ones, weighted by a smooth curve
# (bicubic, the one with a = -0.5). The weights depend on two sizes only, so they are a table too.
# We keep them in units of 2**-15: then all products and sums are exact in `float32`.

# %%
def bicubic_weights(before: int, after: int, taps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first old pixel (after,) for each new one, and weights (after, taps) from there.

    The formulas are those of `precompute_coeffs` in Pillow's Resample.c.
    """
    if before == after:  # Pillow leaves such an axis alone
        return np.arange(after), np.eye(1, taps).repeat(after, axis=0)
    scale = max(before / after, 1.0)
    middle = (np.arange(after) + 0.5) * before / after
    first = np.maximum((middle - 2 * scale + 0.5).astype(int), 0)
    last = np.minimum((middle + 2 * scale + 0.5).astype(int), before)
    pixels = first[:, None] + np.arange(taps)
    x = np.abs(pixels - middle[:, None] + 0.5) / scale
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0)) * (pixels < last[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    return first, np.round(weights * 2**15) / 2**15


# %% [markdown]
# Every captcha has its own sizes. So we keep the weights for all pairs of sizes.

# %%
class Resizer:
    """Resizes an axis from and to different sizes, all within given ranges (both ends included).

    No size is more than `shrink` times as long before as after.
    """

    def __init__(self, before: tuple[int, int], after: tuple[int, int], shrink: float):
        self.before, self.after = before, after
        taps = math.floor(4 * max(shrink, 1)) + 1
        sizes = [range(least, most + 1) for least, most in (before, after)]
        pairs = list(itertools.product(*sizes))
        first = np.zeros((len(pairs), after[1]), np.int32)
        weights = np.zeros((len(pairs), after[1], taps), np.float32)
        for row, (i, o) in enumerate(pairs):
            first[row, :o], weights[row, :o] = bicubic_weights(i, o, taps)
        self.first, self.weights = ops.convert_to_tensor(first), ops.convert_to_tensor(weights)

    def pick(
        self, before: keras.KerasTensor, after: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return what `bicubic_weights` returns, for each of the pairs of sizes (n,), (n,)."""
        pair = (before - self.before[0]) * (self.after[1] - self.after[0] + 1)
        pair = pair + after - self.after[0]
        return ops.take(self.first, pair, axis=0), ops.take(self.weights, pair, axis=0)


# %% [markdown]
# The rest is multiplying and adding, for all four bytes of a pixel.

# %%
def weighted(pairs: Iterable[tuple[keras.KerasTensor, keras.KerasTensor]]) -> keras.KerasTensor:
    """Return the sum of packed pixels times weights, rounded to bytes, packed."""
    sums = [0.0] * 4
    for packed, weight in pairs:
        parts = [ops.cast(unpack(packed, i), "float32") for i in range(4)]
        sums = [total + weight * part for total, part in zip(sums, parts, strict=True)]
    return pack([ops.clip(ops.floor(total + 0.5), 0, 255) for total in sums])


def resize(
    packed: keras.KerasTensor,
    resizer: Resizer,
    before: keras.KerasTensor,
    after: keras.KerasTensor,
) -> keras.KerasTensor:
    """Resize axis 1 of packed pixels (n, size, k) from sizes (n,) to sizes (n,)."""
    first, weights = resizer.pick(before, after)
    n, size, k = ops.shape(packed)[0], *packed.shape[1:]
    lines, start = ops.reshape(packed, (-1, k)), size * ops.arange(n, dtype="int32")[:, None]
    return weighted(
        (
            ops.take(lines, start + ops.minimum(first + tap, size - 1), axis=0),
            weights[..., tap, None],
        )
        for tap in range(weights.shape[2])
    )


def stretch(
    before: keras.KerasTensor, layout: dict, tables: types.SimpleNamespace
) -> keras.KerasTensor:
    """Return the glyphs stretched across, packed, (glyphs, width, height)."""
    was, becomes = (ops.reshape(layout[name][..., 0], (-1,)) for name in ("turned", "stretched"))
    return resize(before, tables.across, was, becomes)


# %% [markdown]
# That was across. The library stretches down as well, then it warps, and each pixel of the box takes
# the nearest one of the stretched glyph. Most of that is thrown away. So we turn it round: first we
# ask which pixels the boxes want, and at the same time move them to their height in the picture.

# %%
def nearest(layout: dict, tables: types.SimpleNamespace) -> tuple[keras.KerasTensor, ...]:
    """Return columns and rows in the stretched glyphs for pixels of the boxes, and if they exist.

    All three are (glyphs, width, height), for the widest box and the height of the picture.
    """
    (w, h), maps = per_glyph(layout["box"]), per_glyph(layout["warp"])
    limits = per_glyph(layout["stretched"])
    x = ops.arange(tables.box_width, dtype="int32")[:, None]
    y = ops.arange(tables.height, dtype="int32") - ops.reshape(layout["top"], (-1, 1, 1))
    exists, (u, v) = (x < w) & (y >= 0) & (y < h), (2 * x + 1, 2 * y + 1)
    found = []
    for (a, b, c, d), limit in zip((maps[:4], maps[4:]), limits, strict=True):
        place = ops.cast(a + b * u + v * (c + d * u), "float32") + 0.5  # never near a whole number
        place = ops.cast(ops.floor(place / ops.cast(4 * w * h, "float32")), "int32")
        exists = exists & (place >= 0) & (place < limit)
        found.append(place)
    return *found, exists


# %% [markdown]
# That is what a step of its own finds out. What is used often should be computed once.

# %%
def find(
    before: keras.KerasTensor, layout: dict, tables: types.SimpleNamespace
) -> tuple[keras.KerasTensor, ...]:
    """Return `before`, and where each pixel of the boxes is in it.

    That is: the column among those of all glyphs, or -1; the row among those of all glyphs; and for
    the rows of all glyphs the first pixel that they are made of, and their weights (taps, rows).
    """
    columns, rows, exists = nearest(layout, tables)
    was, becomes = (ops.reshape(layout[name][..., 1], (-1,)) for name in ("turned", "stretched"))
    first, weights = tables.down.pick(was, becomes)
    glyph = ops.reshape(ops.arange(ops.shape(rows)[0], dtype="int32"), (-1, 1, 1))
    columns = ops.where(exists, glyph * before.shape[1] + columns, -1)
    rows = ops.where(exists, glyph * first.shape[1] + rows, 0)
    weights = ops.reshape(ops.transpose(weights, (2, 0, 1)), (weights.shape[2], -1))
    return before, columns, rows, ops.reshape(first, (-1,)), weights


# %% [markdown]
# And only those are stretched down.

# %%
def warp(
    before: tuple[keras.KerasTensor, ...], layout: dict, tables: types.SimpleNamespace
) -> keras.KerasTensor:
    """Return the warped glyphs, packed, (glyphs, width, height); 0 where there is nothing."""
    stretched, columns, rows, first, weights = before
    high, pixels = stretched.shape[2], ops.reshape(stretched, (-1,))
    start, first = ops.maximum(columns, 0) * high, ops.take(first, rows)
    warped = weighted(
        (
            ops.take(pixels, start + ops.minimum(first + tap, high - 1)),
            ops.take(weights[tap], rows),
        )
        for tap in range(weights.shape[0])
    )
    return ops.where(columns >= 0, warped, 0)


# %% [markdown]
# What a glyph carries along now is its colour, and how strongly that will be pasted: 1.97 times its
# brightness, which is why dark captchas are so faint. The numbers of the brightness are Pillow's,
# for red, green and blue.

# %%
def colour(
    before: keras.KerasTensor, layout: dict, tables: types.SimpleNamespace
) -> keras.KerasTensor:
    """Return colours and, in place of opacity, strengths, packed, (glyphs, width, height)."""
    colours = [without_opacity(unpack(before, i), unpack(before, 3)) for i in range(3)]
    red, green, blue = colours
    light = ops.right_shift(19595 * red + 38470 * green + 7471 * blue + 2**15, 16)
    strengths = ops.floor(1.97 * ops.cast(light, "float32") + 0.005)
    return pack([*colours, ops.minimum(strengths, 255)])


# %% [markdown]
# ### Paste, squeeze, add noise, smooth
#
# The glyphs are pasted one after the other, because a later one covers an earlier one. A line of the
# canvas is a column of the picture, so that a glyph is a few whole lines.

# %%
def paste(
    before: keras.KerasTensor, layout: dict, tables: types.SimpleNamespace
) -> keras.KerasTensor:
    """Return the canvases, packed, (n, canvas width, height)."""
    wide, high = before.shape[1:]
    n, length = ops.shape(layout["left"])[0], layout["left"].shape[1]
    glyphs = ops.reshape(before, (-1, length, wide, high))
    room, paper = tables.canvas + wide, ops.cast(layout["paper"], "int32")
    lines = ops.repeat(pack([paper[:, i] for i in range(3)]), room)
    lines = ops.repeat(lines[:, None], high, axis=1)
    start = room * ops.arange(n, dtype="int32")[:, None] + ops.arange(wide, dtype="int32")
    for i in range(length):
        place, strength = start + layout["left"][:, i : i + 1], unpack(glyphs[:, i], 3)
        below, mixed = ops.take(lines, place, axis=0), []
        for k in range(3):
            mixture = unpack(below, k) * (255 - strength) + unpack(glyphs[:, i], k) * strength
            mixed.append(by_255(mixture))
        mixed = ops.reshape(pack(mixed), (-1, high))
        lines = ops.scatter_update(lines, ops.reshape(place, (-1, 1)), mixed)
    return ops.reshape(lines, (-1, room, high))[:, : tables.canvas]


# %% [markdown]
# A canvas that is wider than the picture is squeezed, with the same weights as above. A text that
# is narrow enough stays as it is.

# %%
def squeeze(
    before: keras.KerasTensor, layout: dict, tables: types.SimpleNamespace
) -> keras.KerasTensor:
    """Return pictures without noise, packed, (n, width, height)."""
    was = ops.maximum(layout["total"], tables.width)
    return resize(before, tables.squeeze, was, ops.full_like(was, tables.width))


# %% [markdown]
# Each dot is the same little shape, and each ellipse comes from a table: Pillow draws both once, and
# we note their pixels.

# %%
def dot_shape() -> np.ndarray:
    """Return the pixels of the library's dot at (0, 0), int32 (pixels, 2)."""
    picture = Image.new("L", (21, 21))
    ImageDraw.Draw(picture).line(((10, 10), (9, 9)), fill=1, width=3)
    return np.argwhere(np.asarray(picture).T).astype(np.int32) - 10


def ellipse_table(width: int, height: int) -> np.ndarray:
    """Return the outlines of ellipses 0..width by 0..height: int32 (ellipses, pixels, 2).

    Ellipse a * (height + 1) + b is a wide and b high; what is left of its row is far outside.
    """
    outlines = []
    for a in range(width + 1):
        for b in range(height + 1):
            picture = Image.new("L", (a + 1, b + 1))
            ImageDraw.Draw(picture).arc((0, 0, a, b), 0, 360, fill=1)
            outlines.append(np.argwhere(np.asarray(picture).T))
    table = np.full((len(outlines), max(map(len, outlines)), 2), -(2**14), np.int32)
    for row, outline in zip(table, outlines, strict=True):
        row[: len(outline)] = outline
    return table


# %% [markdown]
# Of an ellipse, only the pixels between the two cuts are drawn. Pillow rounds the crossing of a cut
# with a row of pixels, and so do we.

# %%
def arc_pixels(layout: dict, tables: types.SimpleNamespace) -> keras.KerasTensor:
    """Return the pixels of the arcs, int32 (n, pixels, 2); those left out are far outside."""
    x1, y1, x2, y2, _, end = (layout["arc"][:, i, None] for i in range(6))
    a, b = x2 - x1, y2 - y1
    outline = ops.take(tables.ellipses, (a * (tables.highest + 1) + b)[:, 0], axis=0)
    px, py = outline[..., 0], outline[..., 1]
    y = ops.cast(2 * py - b, "float32")
    kept = []
    for i in (0, 1):
        p, q, r = (layout["cuts"][:, i, j, None] for j in range(3))
        crossing = -(q * y + r) / ops.where(p == 0, 1.0, p)
        crossing = ops.cast(ops.clip(ops.round(crossing), -(2**14), 2**14), "int32")
        crossing = ops.floor_divide(crossing + a, 2)
        sideways = ops.where(p > 0, px >= crossing, px <= crossing)
        kept.append(ops.where(p == 0, q * y + r >= 0, sideways))
    low, high = y >= 0, y <= 0
    kept = ops.where(end > 180, (low & kept[0]) | (high & kept[1]), low & kept[0] & kept[1])
    return ops.where(kept[..., None], outline + ops.stack([x1, y1], axis=-1), -1)


# %% [markdown]
# All pixels of dots and arcs together:

# %%
def add_noise(
    before: keras.KerasTensor, layout: dict, tables: types.SimpleNamespace
) -> keras.KerasTensor:
    """Return `before` with dots and arcs in the colour of the ink."""
    n, width, height = ops.shape(before)[0], tables.width, tables.height
    dots = layout["dots"][:, :, None] + tables.dot
    dots = ops.reshape(dots, (-1, dots.shape[1] * dots.shape[2], 2))
    drawn = ops.concatenate([dots, arc_pixels(layout, tables)], axis=1)
    x, y = drawn[..., 0], drawn[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = ops.where(inside, x * height + y, width * height)  # one place more, for what is outside
    place = place + (width * height + 1) * ops.arange(n, dtype="int32")[:, None]
    place = ops.reshape(place, (-1, 1))
    ones = ops.ones_like(place[:, 0], dtype="float32")
    hits = ops.scatter(place, ones, (n * (width * height + 1),))
    hits = ops.reshape(hits, (-1, width * height + 1))[:, :-1]
    hits = ops.reshape(hits, (-1, width, height))
    *ink, _ = per_glyph(ops.cast(layout["ink"], "int32")[:, None])
    return ops.where(hits > 0, pack(ink), before)


# %% [markdown]
# Last, every pixel but those at the border is averaged with its neighbours, itself counting five
# times. And the axes get their usual order.

# %%
def smooth(
    before: keras.KerasTensor, layout: dict, tables: types.SimpleNamespace
) -> keras.KerasTensor:
    """Return the pictures (n, height, width, 3) after Pillow's SMOOTH filter."""
    channels = []
    for channel in (ops.transpose(unpack(before, i), (0, 2, 1)) for i in range(3)):
        rows = channel[:, :-2] + channel[:, 1:-1] + channel[:, 2:]
        nine = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
        mean = ops.cast(2 * (nine + 4 * channel[:, 1:-1, 1:-1]) + 13, "float32") / 26
        inner = ops.cast(ops.floor(mean), "int32")
        channels.append(ops.slice_update(channel, (0, 1, 1), inner))
    return ops.cast(ops.stack(channels, axis=-1), "float32")


# %% [markdown]
# ### The layer
#
# All these steps become one program, made by a compiler named XLA, which TensorFlow and JAX share:
# what lies between two operations need not travel to memory and back.

# %%
@functools.cache
def compiled(function: Callable) -> Callable:
    """Return `function`, compiled by XLA where the backend has it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    if backend == "jax":
        import jax

        return jax.jit(function)
    return function


# %% [markdown]
# That can be too much of a good thing. XLA merges what it can, and a value that is wanted in five
# places it would rather compute five times than keep. Our ten steps in one piece take more than twice
# as long as one after the other (`make bench` measures it, see below). So we build walls between
# them, out of a question whose answer we know and the compiler doesn't.

# %%
DRAWING = (cover, turn, stretch, find, warp, colour, paste, squeeze, add_noise, smooth)


def walled(step: Callable, before: object, layout: dict, tables: types.SimpleNamespace) -> object:
    """Return step(before, layout, tables); a compiler can't merge its work with that of others."""

    def nothing() -> object:  # of the same shapes; it is never computed
        return keras.tree.map_structure(ops.zeros_like, step(before, layout, tables))

    impossible = ops.any(layout["total"] < 0)
    return ops.cond(impossible, nothing, lambda: step(before, layout, tables))


# %% [markdown]
# What all captchas share is computed once:

# %%
def drawing_tables(glyphs: Glyphs, length: int, width: int, height: int) -> types.SimpleNamespace:
    """Return what all captchas of a size share: tables, and the largest sizes of each stage."""
    check_room(glyphs, length, width, height)
    boxes = np.stack([glyphs.boxes.min(axis=0), glyphs.boxes.max(axis=0)], axis=1)
    turned = rotations(glyphs.sizes[:, None], np.linspace(-30, 30, 601)[None])[1]
    most = ((turned.max(axis=1) + 1) / glyphs.boxes).max(axis=0)  # a glyph gets wider than its box
    turned = np.stack([turned.min(axis=(0, 1)) - 1, turned.max(axis=(0, 1)) + 1], axis=1)
    stretched = boxes + [0, 2] * (0.3 * boxes).astype(int)
    canvas = max(width, length * int(boxes[0, 1] + glyphs.blanks.max()))
    ellipse = height - 2 * (height // 5)  # the highest
    return types.SimpleNamespace(
        **{"width": width, "height": height, "canvas": canvas, "box_width": int(boxes[0, 1])},
        **{"turned": turned[:, 1].tolist(), "grid": [side + 1 for side in glyphs.ink.shape[1:]]},
        neighbours=neighbours(glyphs.ink, glyphs.sizes),
        across=Resizer(turned[0].tolist(), stretched[0].tolist(), most[0]),
        down=Resizer(turned[1].tolist(), stretched[1].tolist(), most[1]),
        squeeze=Resizer((width, canvas), (width, width), canvas / width),
        **{"dot": dot_shape(), "highest": ellipse, "ellipses": ellipse_table(width, ellipse)},
    )


# %% [markdown]
# The layer holds the tables and calls the steps.

# %%
@keras.saving.register_keras_serializable("lessons")
class CaptchaRenderer(keras.layers.Layer):
    """Draws captchas from a `lay_out`: whole numbers 0..255, float32 (n, height, width, 3).

    Raises:
        ValueError: a font lacks a character, or the pictures are too small (see `check_room`).
    """

    def __init__(
        self,
        alphabet: str = ALPHABET,
        length: int = LENGTH,
        width: int = WIDTH,
        height: int = HEIGHT,
        fonts: Sequence[str] = tuple(DEFAULT_FONTS),
        sizes: Sequence[int] = (42, 50, 56),
        **layer,
    ):
        super().__init__(**{"dtype": "float32", "trainable": False, **layer})
        self.fonts, self.sizes = list(fonts), tuple(sizes)
        self.glyphs = read_glyphs(alphabet, fonts, sizes)
        self.tables = drawing_tables(self.glyphs, length, width, height)

    def call(self, layout: dict) -> keras.KerasTensor:
        return compiled(self.draw)(layout)

    def draw(self, layout: dict) -> keras.KerasTensor:
        return self.stages(layout)["smooth"]

    def stages(self, layout: dict) -> dict[str, keras.KerasTensor]:
        """Return the pictures after each step, by its name."""
        stages, last = {}, None
        for step in DRAWING:
            last = stages[step.__name__] = walled(step, last, layout, self.tables)
        return stages

    def compute_output_spec(self, layout: dict) -> keras.KerasTensor:
        shape = (layout["ink"].shape[0], self.tables.height, self.tables.width, 3)
        return keras.KerasTensor(shape, "float32")


# %% [markdown]
# One captcha, step by step. The last picture is the library's own, drawn with the very same random
# numbers: we let it draw first, with a stand-in for `random` that notes what it gives, and sort the
# notes into a plan.

# %%
class Recorder:
    """Stands in for the module `random`, draws from a stream, and notes each draw."""

    def __init__(self, rng: random.Random):
        self.rng, self.notes = rng, []

    def note(self, draw: float) -> float:
        self.notes.append(draw)
        return draw

    def random(self) -> float:
        return self.note(self.rng.random())

    def uniform(self, low: float, high: float) -> float:
        return self.note(self.rng.uniform(low, high))

    def randint(self, low: int, high: int) -> int:
        return self.note(self.rng.randint(low, high))

    def choice(self, options: Sequence) -> object:
        return options[self.note(self.rng.randrange(len(options)))]


# %% [markdown]
# The order of the draws is the library's.

# %%
def sort_notes(places: Sequence[int], notes: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the plan of one captcha from all draws of captcha 0.7.0's `generate_image`."""
    draws = iter(notes)
    *paper, opacity, red, green, blue = (next(draws) for _ in range(7))
    text = {name: [] for name in ("fonts", "blanks", "angles", "shifts")}

    def piece() -> tuple[int, float, list[int]]:
        font, _, _, angle, _, _, *shifts = (next(draws) for _ in range(10))
        return font, angle, [int(shift) for shift in shifts]

    for _ in places:
        text["blanks"].append(piece()[0] if next(draws) > 0.5 else -1)
        for name, value in zip(("fonts", "angles", "shifts"), piece(), strict=True):
            text[name].append(value)
    slides = [[next(draws) if blank >= 0 else 0, next(draws)] for blank in text["blanks"]]
    dots = [[next(draws), next(draws)] for _ in range(30)]
    x1, x2, y1, y2, end, start = draws
    plan = {"places": places, **text, "slides": slides, "ink": [red, green, blue, opacity]}
    plan |= {"paper": paper, "dots": dots, "arc": [x1, y1, x2, y2, start, end]}
    return {name: np.array(value)[None] for name, value in plan.items()}


# %% [markdown]
# With that, captchas and their plan:

# %%
def record_captchas(
    texts: Sequence[str], rng: random.Random, renderer: CaptchaRenderer
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Let the library draw: return pictures, uint8 (n, height, width, 3), and their plan."""
    size, pictures, plans = (renderer.tables.width, renderer.tables.height), [], []
    for text in texts:
        recorder = Recorder(rng)
        painter = seeded_library(recorder).ImageCaptcha(*size, renderer.fonts, renderer.sizes)
        pictures.append(np.asarray(painter.generate_image(text)))
        places = encode([text], renderer.glyphs.alphabet, len(text))[0]
        plans.append(sort_notes(places, recorder.notes))
    together = {name: np.concatenate([plan[name] for plan in plans]) for name in plans[0]}
    return np.stack(pictures), together


# %% [markdown]
# Let us see.

# %% tags=["active-ipynb"]
# def bytes_in_a_row(packed):  # all glyphs or captchas in a row, their bytes last
#     row = np.concatenate(np.array(packed)).T
#     return np.stack([row >> 8 * i & 255 for i in range(4)], axis=-1)
#
#
# renderer = CaptchaRenderer()
# pictures, plan = record_captchas(["W0O7"], random.Random(SEED), renderer)
# stages = compiled(renderer.stages)(lay_out(plan, renderer.glyphs, HEIGHT))
# shown = {"turn": "turn (opacity)", "stretch": "stretch (opacity)", "colour": "warp (colour)"}
# shown |= {name: name for name in ("paste", "squeeze", "add_noise")}
# views = {title: bytes_in_a_row(stages[name]) for name, title in shown.items()}
# views = {k: v[..., 3] if "opacity" in k else v[..., :3] for k, v in views.items()}
# views |= {"smooth": np.array(stages["smooth"][0]), "the library's": pictures[0]}
# apart = np.abs(views["smooth"] - pictures[0])
# print(f"equal bytes: {np.mean(apart == 0):.1%}, on average {apart.mean():.2f} grey levels apart")
# assert apart.mean() < 0.6

# %% [markdown]
# And the pictures:

# %% tags=["active-ipynb"]
# figure, grid = plt.subplots(2, 4, figsize=(11, 3.6), layout="constrained")
# for axes, (name, view) in zip(grid.flat, views.items(), strict=True):
#     axes.imshow(view.astype(np.uint8), cmap="gray_r")
#     axes.set(title=name, xticks=[], yticks=[])
# figure.suptitle("W0O7 drawn by the device, step by step, and by the library")
# plt.show()
# print("from left to right:", ", ".join(views))

# %% [markdown]
# From left to right, the glyphs find their shapes; the paste is wide, with blanks in between, and
# gets squeezed; dots and arc come on top. In the last two pictures nearly all bytes are equal, and
# the others hardly differ. The tests replay 500 captchas like this one, and make sure that our own
# plans are drawn from the same distributions as the library's.
#
# For training, a data set draws the plans, and the network gets the layer in front of it.

# %%
class PlannedSequence(CaptchaSequence):
    """A `CaptchaSequence` of the same texts whose batches hold a `lay_out` in place of pictures.

    `version` is that of the captcha library whose warp is drawn, "0.7.0" or "0.7.1". The other
    arguments are those of `CaptchaSequence`. The errors are those of it and of `CaptchaRenderer`.
    """

    def __init__(
        self, batch_size: int, steps: int, seed: int, *, version: str = "0.7.0", **options
    ):
        super().__init__(batch_size, steps, seed, **options)
        self.version = version
        self.renderer = CaptchaRenderer(self.alphabet, self.length, self.width, self.height)

    def __getitem__(self, index: int) -> tuple[dict, tuple[np.ndarray, ...] | np.ndarray]:
        check_index(index, self.steps)
        rng = stream(self.seed, self.split, self.epoch, index)
        texts = random_texts(rng, self.batch_size, self.alphabet + self.extra, self.length)
        chance, glyphs = np.random.default_rng(rng.getrandbits(128)), self.renderer.glyphs
        plan = draw_plan(texts, chance, glyphs, self.width, self.height, self.version)
        return lay_out(plan, glyphs, self.height), targets(texts, self.labels, self.alphabet)


# %% [markdown]
# Any network that reads pictures can then be trained on plans; its weights stay its own.

# %%
def learner(model: keras.Model, source: CaptchaSequence) -> keras.Model:
    """Return the model to train on batches of `source`: it draws first if they hold plans."""
    if not isinstance(source, PlannedSequence):
        return model
    layout = source[0][0]
    inputs = {k: keras.Input(v.shape[1:], dtype=str(v.dtype), name=k) for k, v in layout.items()}
    return keras.Model(inputs, model(source.renderer(inputs) / 255), name=model.name)


# %% [markdown]
# ### Would a network notice?
#
# Replaying shows that pixels are right, and the tests compare what chance decides. There is a third
# judge, and a strict one: a network that is trained for nothing else but to tell the two kinds of
# pictures apart. If it is right about as often as a coin, there is nothing to be seen.

# %%
def tell_apart(ours: np.ndarray, theirs: np.ndarray, seed: int, epochs: int = 8) -> tuple[int, int]:
    """Return how many of the held-out pictures a small network sorts right, and how many there are.

    Both are uint8 (n, height, width, 3) with the same n. The last fifth of each is held out.
    """
    keras.utils.set_random_seed(seed)
    layers, held = keras.layers, len(ours) // 5
    judge = keras.Sequential([layers.Rescaling(1 / 255)])
    for count in (16, 32, 32):
        judge.add(layers.Conv2D(count, 3, 2, use_bias=False))
        judge.add(layers.BatchNormalization(momentum=0.9))
        judge.add(layers.Activation("relu"))
    judge.add(layers.GlobalMaxPooling2D())
    judge.add(layers.Dense(1))
    judge.compile(keras.optimizers.Adam(2e-3), keras.losses.BinaryCrossentropy(from_logits=True))
    X = np.concatenate([ours[:-held], theirs[:-held]])
    kept = np.concatenate([ours[-held:], theirs[-held:]])
    y = np.repeat([0.0, 1.0], len(ours) - held)[:, None]
    judge.fit(X, y, batch_size=32, epochs=epochs, verbose=0)
    said = judge.predict(kept, batch_size=256, verbose=0)[:, 0] > 0
    return int(np.sum(said == np.repeat([False, True], held))), 2 * held


# %% [markdown]
# We asked all three (`make prove`), and kept what came out in a file. The model is one from the end
# of this lesson. In all its training it has seen nothing but captchas
# that the device drew. It reads captchas of the library, the same ones replayed, and others that the
# device planned as well. Then the judge: once as it is, and once on pictures that were not smoothed,
# to see that it can be trusted.

# %% tags=["active-ipynb"]
# from notebooks_py.ch2_cnn import MODELS, measured, read_log, wilson
#
# proof = measured("drawing")
# for name, right in proof["right"].items():
#     low, high = proof["interval"][name]
#     print(f"{name:10} {right:,} of {proof['n']:,} read right ({low:.2%} to {high:.2%})")
# for name, (right, n) in proof["told_apart"].items():
#     low, high = wilson(right, n)
#     print(f"{name:10} {right / n:.1%} of {n:,} told from the library's", end=" ")
#     print(f"({low:.1%} to {high:.1%})")

# %% [markdown]
# The three counts differ by a handful. Whoever learned from the device's captchas reads the library's
# just as well, which is what matters. And the judge, who is never wrong about pictures that were not
# smoothed, might as well have thrown a coin.
#
# ## A recipe for impatient people
#
# The original's recipe needs millions of pictures. Two things make training quick enough for a
# laptop. The first is a **slim** network, through the arguments of `build_cnn` and `build_ctc`: the
# first convolution halves the picture, and the early blocks, where pictures are large and every
# filter is expensive, have few filters.

# %%
LABELS = {"cnn": "one-hot", "ctc": "ctc"}  # of a `CaptchaSequence`, for each kind of network
SIZES = {
    "full": {"cnn": {}, "ctc": {}},  # the original's
    "slim": {
        "cnn": {"filters": (24, 48, 96, 192), "stride": 2},
        "ctc": {"filters": (24, 48, 96, 192), "stride": 2, "rnn": ()},
    },
    "gru": {"ctc": {"filters": (24, 48, 96, 192), "stride": 2, "rnn": (128,)}},
}


def build(kind: str, size: str, **changes) -> keras.Model:
    """Build the network of a kind ("cnn" or "ctc") and a size ("full", "slim"; "gru" for ctc).

    `changes` go to `build_cnn` or `build_ctc`, in place of the arguments that make the size.
    """
    if size not in SIZES:
        raise ValueError(f"size={size!r}: allowed are {', '.join(SIZES)}")
    if kind not in SIZES[size]:
        raise ValueError(f"kind={kind!r}: size {size!r} is there for {', '.join(SIZES[size])}")
    return {"cnn": build_cnn, "ctc": build_ctc}[kind](**SIZES[size][kind] | changes)


def reader_of(model: keras.Model) -> Callable[[np.ndarray], list[str]]:
    """Return the function from uint8 pictures to texts that suits a network of `build`."""
    read = read_heads if isinstance(model.output, list) else read_ctc
    return functools.partial(read, model)


# %% [markdown]
# How much smaller?

# %% tags=["active-ipynb"]
# for kind in ("cnn", "ctc"):
#     full, slim = (build(kind, size).count_params() for size in ("full", "slim"))
#     print(f"{kind}: {full:,} parameters in full size, {slim:,} slim")

# %% [markdown]
# The slim CTC network does without a GRU. Whether that is wise is measured below.
#
# The second is a **learning rate with a plan**. It climbs for a short while, because the first
# gradients of a random network point anywhere. Then it is large, and at the end it falls to zero
# along half a cosine, so that the weights come to rest. One number has to be known beforehand: how
# many steps there will be.

# %%
def rate_plan(steps: int, peak: float, warmup: float) -> keras.optimizers.schedules.CosineDecay:
    """Return a rate that climbs to `peak` in a share `warmup` of all `steps`, then falls to 0."""
    climb = max(1, round(warmup * steps))
    rest = max(1, steps - climb)
    return keras.optimizers.schedules.CosineDecay(0.0, rest, warmup_target=peak, warmup_steps=climb)


def compile_fast(
    model: keras.Model,
    steps: int,
    peak: float = 2e-3,
    warmup: float = 0.1,
    decay: float = 1e-2,
    fall: bool = True,
) -> None:
    """Compile for `steps` steps of AdamW along `rate_plan`, or at `peak` all the time.

    `decay` pulls the weights of kernels towards zero, those of biases and norms not.
    """
    rate = rate_plan(steps, peak, warmup) if fall else peak
    optimizer = keras.optimizers.AdamW(rate, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    # A first step that has to make the optimiser's variables is traced twice by TensorFlow.
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "categorical_crossentropy" if model.name == "cnn" else ctc_loss)


# %% [markdown]
# For a thousand steps it looks like this:

# %% tags=["active-ipynb"]
# plan = rate_plan(1_000, peak=2e-3, warmup=0.1)
# rates = [float(ops.convert_to_numpy(plan(step))) for step in range(0, 1_001, 10)]
# figure, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
# axes.plot(range(0, 1_001, 10), rates)
# axes.set(title="One rise, one fall", xlabel="step", ylabel="learning rate")
# plt.show()
# print(f"start {rates[0]:.4f}, step 100 {rates[10]:.4f}, step 550 {rates[55]:.4f}", end=", ")
# print(f"end {rates[100]:.4f}")

# %% [markdown]
# ## Where the time goes
#
# What has slim bought us? We take one training step apart. Somebody draws; bytes become floats and
# texts become labels; the network computes forward; it computes backward, which is about twice the
# work, and moves its weights.

# %%
def side_by_side(actions: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, list]:
    """Return the seconds that `repeats` calls of each action took, in turn; a first call is free.

    Whatever slows the machine down meanwhile slows all of them: their ratios can be trusted.
    """
    for action in actions.values():
        action()
    seconds = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_seconds(action: Callable[[], object]) -> float:
    """Return the median time of five calls of `action`, after one that does not count."""
    return float(np.median(side_by_side({"": action})[""]))


def step_parts(model: keras.Model, data: CaptchaSequence) -> dict[str, float]:
    """Return the seconds for each picture that each part of a training step on `data` takes."""
    X, y = data[0]
    draw, batch = median_seconds(lambda: data.draw(0)), median_seconds(lambda: data[0])
    forward = median_seconds(lambda: model.test_on_batch(X, y))
    step = median_seconds(lambda: model.train_on_batch(X, y))
    parts = {"draw": draw, "make arrays": batch - draw, "forward": forward}
    parts["backward, update"] = step - forward
    return {name: max(0.0, seconds) / data.batch_size for name, seconds in parts.items()}


# %% [markdown]
# Is that slow or fast? There are two floors that nobody gets below. The processor can do so many
# operations in a second, and memory can move so many bytes. We count what the network needs. A
# kernel is used once at each position of its layer's output, and each use of a weight is two
# operations, a multiplication and an addition.

# %%
def operations(model: keras.Model) -> int:
    """Return the floating-point operations of a forward pass on one picture, in all kernels."""
    total = 0
    for layer in model.layers:
        kernels = [w for w in layer.trainable_weights if w.name.endswith("kernel")]
        positions = math.prod(layer.output.shape[1:-1])
        total += 2 * positions * sum(math.prod(kernel.shape) for kernel in kernels)
    return total


def traffic(model: keras.Model) -> int:
    """Return the bytes that a forward pass on one picture moves if nothing stays in a cache.

    Each layer reads its input and writes its output, four bytes for each number.
    """
    shapes = [
        shape for layer in model.layers[1:] for shape in (layer.input.shape, layer.output.shape)
    ]
    return sum(4 * math.prod(shape[1:]) for shape in shapes)


# %% [markdown]
# The full-size CNN and the slim one:

# %% tags=["active-ipynb"]
# networks = {size: build("cnn", size) for size in ("full", "slim")}
# for size, network in networks.items():
#     print(f"{size}: {operations(network):,} operations, {traffic(network):,} bytes", end=" ")
#     print("for a picture, forward")

# %% [markdown]
# And what does this machine have to offer? We multiply large matrices, which is the best case for
# its arithmetic, and add 1 to a long row of numbers, which does nothing but move them.

# %%
def machine_limits() -> tuple[float, float]:
    """Return the operations and the bytes in a second that the device of Keras reaches."""
    matrix, row = keras.random.normal((1024, 1024)), ops.ones(2**24)

    def multiply() -> None:
        product = matrix
        for _ in range(4):
            product = ops.matmul(product, matrix) / 32
        ops.convert_to_numpy(product[0, 0])

    def move() -> None:
        ops.convert_to_numpy((row + 1)[0])

    return 4 * 2 * 1024**3 / median_seconds(multiply), 2 * 4 * 2**24 / median_seconds(move)


# %% [markdown]
# The parts, and the floors beside them. A training step takes three times the forward pass.

# %% tags=["active-ipynb"]
# arithmetic, memory = machine_limits()
# few = CaptchaSequence(4, 1, SEED)
# figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
# for row, (size, network) in enumerate(networks.items()):
#     compile_fast(network, 10)
#     left = 0.0
#     for place, (name, seconds) in enumerate(step_parts(network, few).items()):
#         label = name if row == 0 else None
#         axes.barh(size, 1e3 * seconds, left=left, color=f"C{place}", label=label)
#         left += 1e3 * seconds
#     floors = [3 * operations(network) / arithmetic, 3 * traffic(network) / memory]
#     for floor, style in zip(floors, ("-", ":"), strict=True):
#         axes.plot([1e3 * floor] * 2, [row - 0.4, row + 0.4], color="black", ls=style)
#     assert left > 0 and min(floors) > 0
# axes.plot([], [], color="black", ls="-", label="floor: operations")
# axes.plot([], [], color="black", ls=":", label="floor: bytes")
# axes.set(title="A training step for one picture, batches of 4", xlabel="milliseconds")
# axes.legend()
# plt.show()
# print(f"{len(networks)} networks, {len(floors)} floors for each")

# %% [markdown]
# The floors are for computing alone, without drawing. In full size nearly all time goes into the
# network, and the floor says that no cleverness would make it quick on a CPU. The slim network needs
# so few operations that drawing becomes a part that counts.
#
# A gap between a bar and its floors is worth a question. On Linux we once found an answer in memory.
# TensorFlow asks for room for every intermediate result of a step and gives it back. The C library
# hands large blocks straight back to the system, and gets them again in the next step, page by page
# and filled with zeros: tens of thousands of pages in each step of a slim network. On one machine
# that took a quarter of its time. On the next one it made no difference, so measure before you
# believe (`make bench` does, see below). Three environment variables tell the library to keep what
# it has. The Makefile sets them for all commands; elsewhere, set them before Python starts:
#
# ```sh
# export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456
# ```
#
# ## Training that nothing can stop
#
# In lesson 2 an interrupted run went on from the last finished *epoch*. With hours at stake we want
# more: whatever happens, no more than a minute or so is lost, and the resumed run ends with exactly
# the weights of one that was never stopped.
#
# Because a batch is decided by its name, this is simple: we number the *steps* of the whole run,
# and step 4,711 always trains on batch 4,711. The number of steps that are done, the weights and
# the optimiser's memory are all there is to save.

# %%
class Steps(keras.utils.PyDataset):
    """The batches for steps `first` to `last` - 1 of a run; a source that ends begins again."""

    def __init__(self, source: CaptchaSequence, first: int, last: int):
        super().__init__(workers=source.workers)
        self.source, self.first, self.last = source, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple:
        return self.source[(self.first + index) % len(self.source)]


# %% [markdown]
# What a run is, and how far it has come:

# %%
@dataclasses.dataclass
class Run:
    """A training run in `folder`: `step` of `steps` are done, `rows` are the lines of its log.

    `loss` is the sum of the training losses since the last line, `seconds` the time trained, and
    `lines` the number of lines that the log will have. `reader` reads pictures with the weights of
    `model`, if that itself can't.
    """

    model: keras.Model
    source: CaptchaSequence
    folder: Path
    steps: int
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    rows: list[dict] = dataclasses.field(default_factory=list)
    lines: int = 100
    reader: keras.Model | None = None

    def mark(self, number: int) -> int:
        """Return the step at which line `number` (from 1) of the log is due."""
        return math.ceil(self.steps * number / min(self.lines, self.steps))


# %% [markdown]
# A state is two files with the number of the step in their names. Keras writes the weights and the
# optimiser under another name; the renaming is the moment when it happened. The state before it is
# kept until then.

# %%
def save_state(run: Run) -> None:
    """Write the run's state to its folder; an interruption leaves the one before it untouched."""
    name = run.folder / f"state-{run.step:08d}"
    progress = {key: getattr(run, key) for key in ("step", "loss", "seconds", "rows")}
    write_json(name.with_suffix(".json"), progress)
    run.model.save(run.folder / "draft.keras")
    os.replace(run.folder / "draft.keras", name.with_suffix(".keras"))
    for path in run.folder.glob("state-*"):
        if path.stem != name.name:
            path.unlink()


# %% [markdown]
# To go on is to read the newest state.

# %%
def load_state(run: Run) -> None:
    """Put `run` where the newest state in its folder was saved; do nothing if there is none.

    Raises:
        ValueError: the state is damaged.
    """
    run.model.optimizer.build(run.model.trainable_variables)
    states = sorted(run.folder.glob("state-*.keras"))
    if not states:
        return
    try:
        progress = json.loads(states[-1].with_suffix(".json").read_text())
        run.model.load_weights(states[-1])
    except Exception as error:
        raise ValueError(
            f"{states[-1]} is damaged ({type(error).__name__}: {error}): "
            "bring back an intact copy, or start a new run in another folder"
        ) from error
    for key, value in progress.items():
        setattr(run, key, value)


# %% [markdown]
# A callback counts the steps, moves the progress bar, and saves when a minute has passed. If
# somebody asks it to stop, it ends the training after the step at hand. And if somebody closes the
# lid of the laptop, the hours until it is opened again are no training.

# %%
PAUSE = 60.0  # seconds that a step may take; whoever takes longer has slept


class Keeper(keras.callbacks.Callback):
    """Counts the steps of a `Run` while it trains, and saves its state every `every` seconds."""

    def __init__(self, run: Run, bar: tqdm, stop: threading.Event, every: float):
        super().__init__()
        self.run, self.bar, self.stop, self.every = run, bar, stop, every
        self.saved = self.last = time.monotonic()

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.before, self.last = self.run.loss, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        now = time.monotonic()
        self.run.step += 1
        self.run.seconds += min(now - self.last, PAUSE)
        self.last = now
        self.bar.update(self.run.source.batch_size)
        if self.stop.is_set() or now - self.saved > self.every:
            self.saved = now
            self.run.loss = self.before + float(logs["loss"]) * (batch + 1)  # Keras gives the mean
            # To ask for self.model also brings its weights up to date, which JAX keeps elsewhere.
            self.model.stop_training = self.stop.is_set()
            save_state(self.run)


# %% [markdown]
# A hundred times in a run we want to know how good it is: on held-out pictures, which are drawn
# once and kept.

# %%
def held_out(model: keras.Model, X: np.ndarray, y: Sequence[np.ndarray] | np.ndarray) -> dict:
    """Return `val_loss` and `val_acc`, the share of whole texts that are right, on one batch."""
    out = model.predict(X, batch_size=128, verbose=0)
    loss = ops.convert_to_numpy(model.compute_loss(y=y, y_pred=out))
    heads = isinstance(out, list)
    answers = decode_heads(out) if heads else decode_ctc(out)
    truths = decode_heads(y) if heads else decode(y - 1)
    right = np.mean([a == b for a, b in zip(answers, truths, strict=True)])
    return {"val_loss": float(loss), "val_acc": float(right)}


# %% [markdown]
# Each time, the log gets a line. The columns are those of lesson 2 and a few more, so that lesson 5
# can plot it.

# %%
def add_row(run: Run, losses: dict) -> None:
    """Add a line to the run's log: what was trained since the last one, and `losses`."""
    steps = run.step - (run.rows[-1]["step"] if run.rows else 0)
    row = {"epoch": len(run.rows), "stage": 1, "step": run.step}
    row["pictures"] = run.step * run.source.batch_size
    row["seconds"] = round(run.seconds, 1)
    row["learning_rate"] = float(ops.convert_to_numpy(run.model.optimizer.learning_rate))
    run.rows.append({**row, "loss": run.loss / steps, **losses})
    run.loss = 0.0
    text = io.StringIO()
    table = csv.DictWriter(text, run.rows[0])
    table.writeheader()
    table.writerows(run.rows)
    replace_text(run.folder / "log.csv", text.getvalue())


# %% [markdown]
# Now the loop.

# %%
def train(
    run: Run,
    valid: tuple[np.ndarray, Sequence[np.ndarray] | np.ndarray],
    stop: threading.Event | None = None,
    every: float = 60.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> bool:
    """Train until all steps are done, or `stop` is set; return whether they are done.

    A run whose folder holds a state goes on from there. The state is saved every `every` seconds
    and at the end, and log.csv gets its lines. `valid` is a batch of held-out pictures and their
    labels. `callbacks` see each stretch between two lines as a training of its own.
    """
    load_state(run)
    stop, size = stop or threading.Event(), run.source.batch_size
    bar = tqdm(total=run.steps * size, initial=run.step * size, unit=" captchas", unit_scale=True)
    keeper = Keeper(run, bar, stop, every)
    while run.step < run.steps and not stop.is_set():
        first, last, before = run.step, run.mark(len(run.rows) + 1), run.loss
        if first < last:  # equal if a run was killed between its last step and its line
            data, watchers = Steps(run.source, first, last), [keeper, *callbacks]
            history = run.model.fit(data, shuffle=False, verbose=0, callbacks=watchers).history
            run.loss = before + history["loss"][0] * (run.step - first)
        if run.step == last:
            add_row(run, held_out(run.reader or run.model, *valid))
            bar.set_postfix_str(f"{run.rows[-1]['val_acc']:.1%} right")
    bar.close()
    save_state(run)
    return run.step == run.steps


# %% [markdown]
# Ctrl-C, or a system that shuts down, should stop the run politely: finish the step, save, end. So
# for as long as the training lasts, both signals only set the flag that `train` looks at.

# %%
@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C (SIGINT) and SIGTERM set, instead of what they do otherwise."""
    stop = threading.Event()
    both = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in both]
    try:
        yield stop
    finally:
        for number, handler in zip(both, before, strict=True):
            signal.signal(number, handler)


# %% [markdown]
# Let us see whether it holds. One run is left alone. Its twin is told to stop in the middle, and
# then resumed with a network that knows nothing.

# %% tags=["active-ipynb"]
# def short_run(name, stop=None):
#     keras.utils.set_random_seed(SEED)
#     model = build_ctc(filters=(4, 8), convs=1, stride=4, rnn=())
#     compile_fast(model, 12)
#     source = CaptchaSequence(16, 12, SEED, labels="ctc")
#     (FOLDER / name).mkdir(exist_ok=True)
#     run = Run(model, source, FOLDER / name, steps=12, lines=4)
#     train(run, CaptchaSequence(16, 1, SEED, split="valid", labels="ctc")[0], stop)
#     return run
#
#
# alone = short_run("alone")
# print(f"{alone.step} steps, {len(alone.rows)} lines in the log: {', '.join(alone.rows[0])}")

# %% [markdown]
# And the twin, which is stopped after a few steps and then goes on:

# %% tags=["active-ipynb"]
# class StopLater(threading.Event):  # is set once it has been looked at five times
#     looks = 0
#
#     def is_set(self) -> bool:
#         self.looks += 1
#         return self.looks > 5
#
#
# stopped = short_run("stopped", StopLater())
# print(f"stopped after {stopped.step} steps", end=", ")
# resumed = short_run("stopped")
# pairs = zip(alone.model.get_weights(), resumed.model.get_weights(), strict=True)
# same = all(np.array_equal(a, b) for a, b in pairs)
# print(f"resumed to {resumed.step}, same weights to the last bit: {same}")
# assert same and stopped.step < 12

# %% [markdown]
# ## `make train`
#
# It is made of these parts. What is still missing is what surrounds them.
#
# How many steps fit into half an hour? That depends on the machine, so we ask it: a throwaway copy
# of the network trains for a few steps, and the first ones, in which Keras compiles, don't count.

# %%
def measured_speed(kind: str, size: str, source: CaptchaSequence, steps: int = 16) -> float:
    """Return how many pictures a second this machine trains on, pictures of `source` included."""
    model = learner(build(kind, size), source)
    compile_fast(model, steps)
    model.fit(Steps(source, 0, 3), shuffle=False, verbose=0)
    start = time.perf_counter()
    model.fit(Steps(source, 3, 3 + steps), shuffle=False, verbose=0)
    return steps * source.batch_size / (time.perf_counter() - start)


# %% [markdown]
# ### Half the bits, if that helps
#
# Numbers of 16 bits instead of 32 take half the memory, and some hardware computes with them much
# faster: NVIDIA's GPUs of the last years, and processors with AVX512-BF16 or AMX. In *mixed
# precision*, layers compute in `bfloat16`, while weights and optimiser stay in `float32`. Other
# hardware has to imitate it, which is many times slower. So we never assume: we take a few steps in
# each, side by side.

# %%
@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Build layers with a Keras dtype policy, "float32" or "mixed_bfloat16", in a `with` block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def one_step(kind: str, size: str, policy: str, data: CaptchaSequence) -> Callable[[], object]:
    """Return a function that trains a new network for one step on the first batch of `data`."""
    with precision(policy):
        model = learner(build(kind, size), data)
    compile_fast(model, 1_000)
    X, y = data[0]
    return lambda: model.train_on_batch(X, y)


# %% [markdown]
# Mixed precision has to win clearly.

# %%
def fastest_policy(kind: str, size: str, data: CaptchaSequence, gain: float = 1.1) -> str:
    """Return "mixed_bfloat16" if it trains at least `gain` times as fast here, else "float32"."""
    actions = {name: one_step(kind, size, name, data) for name in ("float32", "mixed_bfloat16")}
    plain, mixed = side_by_side(actions).values()
    return "mixed_bfloat16" if np.median(np.divide(plain, mixed)) >= gain else "float32"


# %% [markdown]
# ### More than one GPU
#
# With several GPUs, each of them can hold a copy of the network and take an equal share of every
# batch; their gradients are averaged, so that all copies make the same step. This is called *data
# parallel*, and Keras' backends have an engine for it: `MirroredStrategy` in TensorFlow,
# `DataParallel` for JAX. What is built inside our `with` block is copied to every device.
#
# One detail: batch normalisation takes the mean over a batch, but each device of TensorFlow sees
# only its share. Then two GPUs would train another network than one, unless the shares are told to
# agree on the mean. (JAX computes as if there were one large device, so there nothing is to do.)

# %%
@contextlib.contextmanager
def every_device() -> Iterator[int]:
    """Build and train on all GPUs, or all CPU devices where there is none; give their number."""
    devices = keras.distribution.list_devices()
    backend = keras.backend.backend()
    if len(devices) == 1 or backend not in ("tensorflow", "jax"):
        yield 1
    elif backend == "jax":
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        try:
            yield len(devices)
        finally:
            keras.distribution.set_distribution(before)
    else:
        import tensorflow as tf

        with tf.distribute.MirroredStrategy(devices).scope():
            yield len(devices)


# %% [markdown]
# And for the agreement:

# %%
def share_norms(model: keras.Model, devices: int) -> None:
    """Let batch normalisation see the whole batch on TensorFlow, whose devices see parts of it."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = devices > 1 and keras.backend.backend() == "tensorflow"


def check_shares(batch_size: int, devices: int) -> None:
    """Raise a ValueError unless a batch can be shared equally between the devices."""
    if batch_size % devices:
        raise ValueError(
            f"a batch of {batch_size} can't be shared equally between {devices} devices: "
            f"use a multiple of {devices}, such as {devices * math.ceil(batch_size / devices)}"
        )


# %% [markdown]
# On a laptop, all of this does nothing. (The tests of this repository split a CPU into two virtual
# devices, and see that they compute the same losses as one.)
#
# ### All together
#
# What comes out is a model without the optimiser's memory and a file with everything that somebody
# needs to know who wants to believe its accuracy.

# %%
PACKAGES = ("keras", "tensorflow", "jax", "captcha", "pillow", "numpy")


def processor() -> str:
    """Return the name of the CPU as the system gives it."""
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def hardware() -> dict:
    """Return what a measurement was made on, and with which versions."""
    installed = {package.metadata["Name"].lower() for package in metadata.distributions()}
    return {
        "device": device(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "backend": keras.backend.backend(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES if name in installed},
    }


# %% [markdown]
# And what made the model:

# %%
def provenance(run: Run) -> dict:
    """Return what made a model: how far, how long, on what, with which versions."""
    return {
        "pictures": run.step * run.source.batch_size,
        "seconds": round(run.seconds),
        "parameters": run.model.count_params(),
        **hardware(),
    }


# %% [markdown]
# The checksum of the weights is there, too: a file that was changed by a single byte is another
# one.

# %%
def write_results(run: Run, model: keras.Model, settings: dict, score: Score) -> dict:
    """Write model.keras and results.json to the run's folder; return what is in the latter."""
    weights = save_model(model, run.folder / "model.keras")
    results = {
        **score.record(),
        **{"settings": settings, **provenance(run)},
        "bytes": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    write_json(run.folder / "results.json", results)
    return results


# %% [markdown]
# All of it together is what `make train` calls. A folder that holds a run is never overwritten: it
# goes on with `resume`, or you name another. However it was trained, the finished network is a plain
# one in `float32`, which computes the same everywhere, and that is the one we test.

# %%
VALID = 512  # held-out pictures to watch a run by


def new_network(kind: str, size: str, policy: str, devices: int, seed: int) -> keras.Model:
    """Build a network with weights from `seed`, for so many devices, in a precision."""
    keras.utils.set_random_seed(seed)
    with precision(policy):
        model = build(kind, size)
    share_norms(model, devices)
    return model


# %% [markdown]
# A resumed run keeps its precision, whatever would be faster on the machine that it woke up on.

# %%
def run_precision(folder: Path, kind: str, size: str, data: CaptchaSequence) -> str:
    """Return the precision of the run in `folder`; measure it if the run has none yet."""
    note = folder / "precision.txt"
    if not note.exists():
        replace_text(note, fastest_policy(kind, size, data))
    return note.read_text()


# %% [markdown]
# A run need not begin at zero. With `start`, it takes the weights of a finished one, and trains
# them further on captchas that those have not seen (with another seed). So the results have to tell
# what came before.

# %%
def earlier_training(start: Path) -> dict:
    """Return the pictures and seconds that went into the weights `start`, and their checksum.

    Raises:
        FileNotFoundError: `start` or the results.json beside it is missing.
        ValueError: the weights are not those of that results.json.
    """
    note = start.with_name("results.json")
    for path in (start, note):
        if not path.exists():
            raise FileNotFoundError(f"no {path}: start from a model.keras with its results.json")
    results = json.loads(note.read_text())
    check_weights(start, results["sha256"], note)
    before = results["settings"].get("start", {"pictures": 0, "seconds": 0})
    return {
        "pictures": results["pictures"] + before["pictures"],
        "seconds": results["seconds"] + before["seconds"],
        "sha256": results["sha256"],
    }


# %% [markdown]
# At the end, the plain network is tested.

# %%
def finish(run: Run, settings: dict, test_set: str) -> dict:
    """Test the plain network with the weights of a run that is done; write the results down."""
    model = build(settings["model"], settings["size"])
    model.set_weights(run.model.get_weights())
    score = evaluate(reader_of(model), test_set)
    print(score)
    return write_results(run, model, settings, score)


# %% [markdown]
# From the first step to the last file:

# %%
def full_training(
    kind: str,
    size: str,
    source: CaptchaSequence,
    steps: int,
    folder: Path,
    *,
    resume: bool = False,
    peak: float = 2e-3,
    start: Path | None = None,
    test_set: str = "classic-10k",
) -> dict | None:
    """Train, evaluate and write down: the results, or None if a signal stopped the training.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: as `open_run`, `load_state` and
            `earlier_training`.
    """
    settings = {"model": kind, "size": size, "steps": steps, "peak": peak}
    settings |= {"batch_size": source.batch_size, **set_settings(source)}
    settings |= {"start": earlier_training(start)} if start else {}
    open_run(folder, settings, resume)
    policy = run_precision(folder, kind, size, source)
    valid = CaptchaSequence(VALID, 1, source.seed, split="valid", labels=source.labels)[0]
    with stop_on_signals() as stop, every_device() as devices:
        check_shares(source.batch_size, devices)
        reader = new_network(kind, size, policy, devices, source.seed)
        if start:
            reader.load_weights(start)
        run = Run(learner(reader, source), source, folder, steps, reader=reader)
        for model in dict.fromkeys((reader, run.model)):  # one or two
            compile_fast(model, steps, peak)
        if not train(run, valid, stop):
            return None
    return finish(run, settings | {"precision": policy}, test_set)


# %% [markdown]
# ## Which ingredient pays?
#
# A recipe should hold nothing that does not help. To find out, we change one ingredient at a time,
# train each variant on the same captchas, and read the same held-out ones. A recipe is a kind of
# network, changed arguments of its `build_...`, the size of a batch, and a way to compile.

# %%
@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way to train a slim network of a `kind`; `changes` go to `build_cnn` or `build_ctc`.

    The rate falls, or not; with `adam`, lesson 3's optimiser at that rate replaces the recipe's.
    """

    kind: str = "ctc"
    changes: dict = dataclasses.field(default_factory=dict)
    batch: int = 32
    fall: bool = True
    adam: float | None = None

    def build(self, steps: int) -> keras.Model:
        """Return a new network, compiled for so many steps."""
        model = build(self.kind, "slim", **self.changes)
        if self.adam:
            compile_ctc(model, self.adam)
        else:
            compile_fast(model, steps, fall=self.fall)
        return model


# %% [markdown]
# The recipe itself, and others that differ in one thing:

# %%
RECIPES = {
    "the recipe": {},
    "one convolution a block": {"changes": {"convs": 1}},
    "more filters": {"changes": {"filters": (32, 64, 128, 256)}},
    "pooling for the stride": {"changes": {"filters": (8, 24, 48, 96, 192), "stride": 1}},
    "with a GRU": {"changes": {"rnn": (128,)}},
    "four heads": {"kind": "cnn"},
    "batches of 128": {"batch": 128},
    "constant rate": {"fall": False},
    "Adam at 1e-3": {"adam": 1e-3},
}


# %% [markdown]
# One more ingredient needs no training of its own. *Weight averaging* keeps a running mean of the
# weights beside them. While the rate is high, the weights jump around a good place, and their mean
# may be nearer to it than they are. A callback can do that next to any recipe, and read with both.

# %%
class Averages(keras.callbacks.Callback):
    """Keeps a running mean of the weights; `rows` get its accuracy at the end of each `fit`.

    The mean reaches back over about `window` pictures.
    """

    def __init__(self, valid: tuple, batch: int, window: int = 16_000):
        super().__init__()
        self.valid, self.share, self.mean, self.rows = valid, batch / window, None, []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        weights = self.model.get_weights()
        if self.mean is None:
            self.mean = weights
        pairs = zip(self.mean, weights, strict=True)
        self.mean = [mean + self.share * (weight - mean) for mean, weight in pairs]

    def on_train_end(self, logs: dict | None = None) -> None:
        own = self.model.get_weights()
        self.model.set_weights(self.mean)
        self.rows.append(held_out(self.model, *self.valid))
        self.model.set_weights(own)


# %% [markdown]
# A run of a recipe, and what we write down about it:

# %%
def try_recipe(name: str, source: CaptchaSequence, valid: tuple, folder: Path) -> dict:
    """Train recipe `name` from scratch on all of `source`; return its row of the table.

    The row has `right`, how many of the `n` held-out captchas are right after a quarter, a half,
    three quarters and all of the `pictures`, and `right_averaged` for averaged weights.
    """
    recipe = Recipe(**RECIPES[name])
    keras.utils.set_random_seed(source.seed)
    model = recipe.build(len(source))
    run = Run(model, source, folder, len(source), lines=4)
    averages = Averages(valid, recipe.batch)
    train(run, valid, callbacks=[averages])
    n, rows = len(valid[0]), {"right": run.rows, "right_averaged": averages.rows}
    return {
        **{"recipe": name, "parameters": model.count_params(), "n": n},
        "pictures": [row["pictures"] for row in run.rows],
        **{key: [round(n * row["val_acc"]) for row in these] for key, these in rows.items()},
        **hardware(),
    }


# %% [markdown]
# These trainings take hours on a laptop, so we ran them for you (`make ablation`).
#
# For each recipe: its parameters, how many of the held-out captchas are right after each quarter of
# the training, the 95 % interval at the end, and, last, what averaged weights would have read. In the
# picture, averaged weights are dotted.

# %% tags=["active-ipynb"]
# ablation = measured("ablation")
# figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
# for name, row in ablation.items():
#     share = 100 * np.array(row["right"]) / row["n"]
#     averaged = 100 * np.array(row["right_averaged"]) / row["n"]
#     thousands = np.array(row["pictures"]) / 1_000
#     (line,) = axes.plot(thousands, share, marker="o", label=name)
#     axes.plot(thousands, averaged, ls=":", color=line.get_color())
#     low, high = wilson(row["right"][-1], row["n"])
#     print(f"{name:24}{row['parameters']:>9,}", *(f"{x:6.1f}" for x in share), "%", end=" ")
#     print(f"({100 * low:.1f} to {100 * high:.1f} %), averaged {averaged[-1]:.1f} %")
# axes.set(xlabel="thousands of captchas trained on", ylabel="right (%)", ylim=(0, 100))
# axes.set_title(f"{len(ablation)} recipes, read {row['n']:,} held-out captchas")
# axes.legend(fontsize=8)
# plt.show()

# %% [markdown]
# One run each, so small differences mean nothing. The large ones do. A second convolution in each
# block more than halves the speed, and is worth it: the errors that remain after the same number of
# captchas are less than half as many. Pooling where the recipe has its stride reads as well, at two
# thirds of the speed. More filters and a GRU cost time, too, and are behind after so few captchas:
# more weights have to be found first. Batches of 128 learn less from the same captchas, since they
# make a quarter of the steps.
#
# The rate has to fall: where it stays high to the end, the errors are three times as many or more.
# But see what averaging does there. It nearly makes up for it, since a mean of weights that jump
# around a place is much like weights that come to rest in it. Where the rate falls anyway, the
# averages drag old weights along at first, are ahead half-way in most rows, and bring nothing more at
# the end. One of the two is enough, and the recipe does without averages.
#
# The zigzag on the way is no learning and forgetting. While weights move quickly, the running means
# of batch normalisation lag behind them, and held-out captchas are read with old means.
#
# ### Three heads, three seeds
#
# Four softmax heads, CTC, or CTC with a GRU? People have opinions, and their networks differ in
# everything else, too. So here is a comparison in which only the end of the network differs: the same
# blocks of convolutions, the same captchas in the same order, the same recipe and number of steps. And
# each three times, with another seed for the first weights and the captchas, to see how much is luck
# (`make comparison`).

# %% tags=["active-ipynb"]
# import pandas as pd
#
# found = measured("comparison")
# heads = {run["head"]: [] for run in found["runs"]}
# for run in found["runs"]:
#     heads[run["head"]].append(run)
# table = {}
# for head, runs in heads.items():
#     right = np.array([run["right"] / run["n"] for run in runs])
#     row = {f"right, seed {run['seed']}": f"{run['right'] / run['n']:.2%}" for run in runs}
#     row |= {"mean": f"{right.mean():.2%}", "apart": f"{np.ptp(right):.2%}"}
#     row |= {"parameters": f"{runs[0]['parameters']:,}", "MB": round(runs[0]["bytes"] / 1e6, 2)}
#     table[head] = row | {"ms a captcha": round(found["reading"]["milliseconds"][head], 2)}
# print(f"trained on {found['pictures']:,} captchas each, asked {runs[0]['n']:,}")
# print(pd.DataFrame(table).T.to_string())

# %% [markdown]
# The same as a picture. Left, how each of the nine learned; right, how well it reads in the end, and how
# fast, on one core of a CPU.

# %% tags=["active-ipynb"]
# figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
# for color, (head, runs) in zip(("tab:blue", "tab:orange", "tab:green"), heads.items(), strict=True):
#     for run in runs:
#         seen, curve = np.array(run["seen"]) / 1_000, 100 * np.array(run["curve"])
#         left.plot(seen, curve, color=color, lw=0.8)
#     wrong = 100 * np.array([1 - run["right"] / run["n"] for run in runs])
#     ends = 100 * (1 - np.array([run["interval"] for run in runs]).T[::-1])
#     across = found["reading"]["milliseconds"][head] * (1 + 0.01 * np.arange(-1, len(runs) - 1))
#     bars = {"yerr": np.abs(ends - wrong), "fmt": "o", "capsize": 4, "color": color}
#     right.errorbar(across, wrong, **bars, label=head)
# left.set(title="On the way", xlabel="thousands of captchas", ylabel="held-out right (%)")
# right.set(title=f"In the end, {run['n']:,} captchas", xlabel="milliseconds a captcha")
# right.set(ylabel="wrong (%)", ylim=(0, None))
# right.legend()
# plt.show()
# print("seeds:", sorted({run["seed"] for run in found["runs"]}), "whiskers: 95 % intervals")

# %% [markdown]
# The three points of a head have one time, and are moved apart so that you can see the whiskers. CTC
# without a GRU makes two fifths fewer errors than four heads and half as many as with the GRU, and it
# is the smallest of the three. Its lead is larger than what the seeds of any head differ by, so this
# is no luck. And it is ahead from the start: four heads begin to read last, perhaps since none of them
# learns from what the other three see. The GRU begins earlier than they do, and still ends last.
#
# Now for what this does *not* say. These trainings are short. Below, after three times as many
# captchas, four heads are much nearer to CTC; and in the original, trained on many times as many, the
# network with a GRU read more than the four heads. The blocks, their strides and the rate were chosen
# with the CTC network, so that another head might do better with other ones. And the times are one
# processor's: on a GPU they are others.
#
# ## What a machine can do
#
# The bars in this lesson are single measurements on a busy machine. `make bench` measures with more
# care: everything in turn, at least five times, and as ratios, which hold where seconds do not.

# %%
def compare(actions: dict[str, Callable[[], object]], pictures: int, repeats: int = 5) -> dict:
    """Return the speed of actions that handle so many `pictures`, measured side by side.

    `pictures_a_second` has medians; `ratio` the medians of how many times as fast an action was as
    the first one in the same round.
    """
    seconds = side_by_side(actions, repeats)
    first = seconds[next(iter(seconds))]
    return {
        "repeats": repeats,
        "pictures_a_second": {
            name: round(pictures / float(np.median(times)), 1) for name, times in seconds.items()
        },
        "ratio": {
            name: round(float(np.median(np.divide(first, times))), 3)
            for name, times in seconds.items()
        },
    }

# %% [markdown]
# This is what it found on ours. In each group, the first bar is 1, and the others say how many times
# as fast something else is.

# %% tags=["active-ipynb"]
# bench = measured("bench")
# groups = {name: found["ratio"] for name, found in bench["groups"].items()}
# figure, grid = plt.subplots(4, 2, figsize=(10, 10), layout="constrained")
# for axes, (group, ratios) in zip(grid.flat, groups.items(), strict=False):
#     axes.barh(list(ratios), ratios.values())
#     axes.set(title=group, xlabel="times as fast as the first")
#     axes.invert_yaxis()
#     print(f"{group}:", ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
# for axes in grid.flat[len(groups) :]:
#     axes.axis("off")
# plt.show()
# print("measured on:", ", ".join(str(value) for value in bench["hardware"].values()))

# %% [markdown]
# Threads share one Python, so they hardly help (*feeding*), not even beside a network that computes
# (*training*); processes do. Nothing beats a set that is drawn already, but a network that draws for
# itself comes close, and its captchas never end. On the same cores the device draws more than three
# times as fast as the library, and most of that is owed to the walls (*drawing*). Half precision
# would be a mistake on this processor.
#
# ### What comes of it
#
# These are ours, all trained with `make train`, and all slim:
#
# - `ctc-slim-device`, from scratch on captchas that the device drew;
# - `ctc-slim-300k`, from scratch on a rendered set; `ctc-slim-500k`, which took its weights further
#   (`START=`), with a new rise and fall of the rate; and `ctc-slim-740k`, further still, with more
#   `0` and `O` than chance would give (`EXTRA=`);
# - `cnn-slim-300k`, four heads, from scratch, and `cnn-slim-450k`, which took its weights further.

# %% tags=["active-ipynb"]
# names = [f"ctc-slim-{x}" for x in ("device", "300k", "500k", "740k")]
# names += [f"cnn-slim-{x}" for x in ("300k", "450k")]
# long = {name: measured(f"runs/{name}/results") for name in names}
# figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
# for name, run in long.items():
#     log, before = read_log(MODELS / "runs" / name / "log.csv"), run["settings"].get("start")
#     pictures = (before["pictures"] if before else 0) + log.pictures
#     axes.plot(pictures / 1_000, 100 * log.val_acc, label=name)
#     right, n, (low, high) = run["right"], run["n"], run["interval"]
#     print(f"{name}: {right:,} of {n:,} right, {right / n:.2%} ({low:.2%} to {high:.2%})", end=", ")
#     print(f"trained for {run['seconds'] / 60:.0f} minutes")
# axes.set(xlabel="thousands of captchas", ylabel="right (%)", ylim=(0, 100))
# axes.set_title(f"{len(long)} runs: held-out captchas read on the way")
# axes.legend()
# plt.show()
# print(f"{long['ctc-slim-740k']['parameters']:,} parameters, a step of it", end=" ")
# print(f"{groups['networks']['ctc, slim']:.1f} times as fast as one of the original's CNN")

# %% [markdown]
# The curves are wild as long as the rate is high, with the same zigzag as above. As the rate falls,
# they come to rest, and the last errors go.
#
# ### Practise what is hard
#
# Most of the errors that are left are `0` read as `O`, or `O` as `0` (lesson 6). They are two of 36
# characters, so most captchas teach nothing about them. `EXTRA=0O0O` puts each of the letters that it
# names into the bag from which training draws once more for each time that it is named: `ctc-slim-740k`
# was trained with six of each more. What of the test set? It stays as it is, and so does the stream of
# captchas that it comes from: what is practised must never change what is asked.

# %% tags=["active-ipynb"]
# before, after = long["ctc-slim-500k"], long["ctc-slim-740k"]
# extra, n = after["settings"]["extra"], len(ALPHABET)
# share = (2 + len(extra)) / (n + len(extra))
# print(f"0 and O: {2 / n:.1%} of what training draws, {share:.1%} with EXTRA={extra}")
# print(f"wrong: {before['n'] - before['right']} before, {after['n'] - after['right']} after")

# %% [markdown]
# Fewer are wrong. Did the mixture do that, or the longer training? One run cannot tell, and we have not
# made the other one. Watch the other characters, too: who practises one thing neglects the rest.
#
# ## What a GPU would change
#
# If you have read this far on a CPU, you have missed nothing: the bars above would look the same on
# a machine with a GPU and the same processor. What changes is the network's half of the step. On a
# CPU the network of lesson 2 takes far longer to compute than its pictures take to be drawn, so
# feeding does not matter. On a GPU it is the other way round, and you have seen both ways out: draw
# the pictures once and keep them (`FEED=folder`), or let the GPU draw (`FEED=device`).
#
# ---
#
# ## What you learned
#
# - Keras uses a GPU without being asked, if the backend sees one; look before you train for hours.
# - A GPU speeds up the network and nothing else: somebody still has to draw the pictures.
# - Workers draw ahead. They change the speed, never the data.
# - A set that is drawn once feeds any network; it must be complete or absent, and say what it is.
# - What chance decides about a picture is small. Send that, and let the device do the arithmetic.
# - A step that takes much longer than its floors is worth a question, and the answer may be another
#   one on the next machine.
# - A compiler that merges everything can do too much of it: measure, and put up walls.
# - With numbered batches, a run is its step, its weights and its optimiser, and can be killed any
#   time.
# - Whoever compares networks changes one thing, and repeats it with other seeds.
#
# ## On your own
#
# 1. Time `workers=1`. *Expected: about the same as no worker, because Keras uses the training
#    thread for both.*
# 2. Replace the tiny network by `build_cnn()` of lesson 2 and compare zero with four workers again.
#    *Expected: on a CPU the bars come out nearly equal, since the network takes most of the time;
#    on a GPU they differ more than above.*
# 3. Use `use_multiprocessing=True`. *Expected: slower here. The processes are started anew for
#    every epoch, which only pays if epochs are long.*
#
# ## Further reading
#
# - [Limiting GPU memory growth](https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth):
#   TensorFlow's own page on the trick, with its variants.
# - [What the GIL is](https://docs.python.org/3/glossary.html#term-global-interpreter-lock): why
#   four Python threads are not four times as fast.
# - [keras.utils.PyDataset](https://keras.io/api/utils/python_utils/#pydataset-class): what
#   `workers` and `max_queue_size` mean exactly.
