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
# # 1. Draw captchas and turn them into training data
#
# *Lesson 1 of 8 · 25 minutes · needs a little Python · trains nothing*
#
# At the end of this lesson you have an endless, reproducible stream of captchas in the shape that
# a network wants, and you know what makes them hard to read. You need a little Python and NumPy; no
# GPU, no data set, and running it all takes a minute.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import random

import keras
import numpy as np

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.texts import ALPHABET, LENGTH, encode, one_hot, random_texts


# %% [markdown]
# Random captchas grow out of one visible number. Change it and run all, and you get others; leave it, and you get
# exactly the ones on this page.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # the year of the tutorial that this one grew out of

# %% [markdown]
# ## One captcha
#
# A captcha is a text that people can read and programs should not. The package `captcha` draws ours: four
# of 36 characters, the digits and the capital letters.

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# picture = draw_captchas(["R2D2"], random.Random(SEED), width=170, height=80)[0]
# figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained")
# axes.imshow(picture)
# axes.set(title="R2D2", xlabel="x (pixels)", ylabel="y (pixels)")
# plt.show()
# print(f"{len(ALPHABET)} characters, {len(ALPHABET) ** LENGTH:,} different texts")
# print(f"a picture: {picture.shape} {picture.dtype}")

# %% [markdown]
# Letters lean, overlap and change size; dots and an arc try to pass for parts of them. `draw_captchas`
# takes its random numbers from the generator that we hand it, `random.Random(SEED)`.
#
# ## A page of them
#
# Here are 24, at 128x64 pixels: large enough to read, and quick to compute with.

# %% tags=["active-ipynb"]
# from captcha_reader.outputs import fresh_folder, show_captchas
#
# rng = stream(SEED, "preview", epoch=0, index=0)
# texts = random_texts(rng, 24)
# pictures = draw_captchas(texts, rng)
# figure = show_captchas(pictures, texts, columns=6, title="24 captchas and their texts")
# figure.set_size_inches(9.4, 4.4)
# folder = fresh_folder("ch1_captcha_preview") / "imgs"
# folder.mkdir()
# figure.savefig(folder / "captchas.png", dpi=90)
# plt.show()
# print(" ".join(texts))

# %% [markdown]
# Cover the titles and try to read them. Most are easy. But who can tell `0` from `O`? Lesson 6
# tries.
#
# A network trains on *batches* of captchas; a fixed number of batches is an *epoch*. `stream` gives each
# batch its own generator, seeded by a *name* of four parts: seed, split, epoch and batch number.

# %% tags=["active-ipynb"]
# for name in [("train", 0, 0), ("train", 0, 1), ("train", 1, 0), ("valid", 0, 0), ("train", 0, 0)]:
#     split, epoch, index = name
#     print(f"{split}, epoch {epoch}, batch {index}:", random_texts(stream(SEED, *name), 5))

# %% [markdown]
# The same name gives the same captchas, in whatever order they are asked for. A different name gives
# different ones: pictures for training and pictures for testing never come from the same stream.
#
# ## The anatomy of a captcha
#
# What happens between the text and the picture? `stages` draws one captcha and keeps all that the
# package throws away.

# %% tags=["active-ipynb"]
# from captcha_reader.drawing import stages
#
# anatomy = stages("W0O7", random.Random(6))
# for glyph in anatomy.glyphs:
#     print(
#         f"{glyph.character}: {glyph.font_size} points, turned by {glyph.angle:.0f} degrees, "
#         f"ink {glyph.ink.width}x{glyph.ink.height}, stretched into {glyph.box[0]}x{glyph.box[1]}"
#     )

# %% [markdown]
# First the letters. Each is drawn in one of three sizes, turned by up to 30 degrees, and warped: its
# box is stretched, and the four corners move.

# %% tags=["active-ipynb"]
# steps = {"as the font has it": "ink", "turned": "rotated", "warped": "warped"}
# figure, grid = plt.subplots(3, 4, figsize=(5.6, 4.7), layout="constrained")
# for row, (title, step) in zip(grid, steps.items(), strict=True):
#     row[0].set_ylabel(title)
#     for axes, glyph in zip(row, anatomy.glyphs, strict=True):
#         axes.imshow(letter := getattr(glyph, step))
#         axes.set(xticks=[], yticks=[], xlim=(-5, 65), ylim=(65, -5))
#         axes.set_title(f"{glyph.character}, {letter.width}x{letter.height}", fontsize=9)
# figure.suptitle("Four letters: drawn, turned, warped")
# plt.show()
# print("sizes of all letters:", sorted({glyph.font_size for glyph in anatomy.glyphs}))

# %% [markdown]
# Follow the zero (second) and the `O` (third) down their columns. The font draws the zero narrower, but
# the warp stretches both into the same box. (Here the zero still looks smaller: it was
# turned and bent in other ways.) Lesson 6 measures what is left of the difference.
#
# Then the letters are put together.

# %% tags=["active-ipynb"]
# theirs = draw_captchas(["W0O7"], random.Random(6))[0]
# figure, grid = plt.subplots(2, 3, figsize=(9, 3), layout="constrained")
# panels = {**anatomy.pictures, "by the package": theirs}
# widest = max(np.shape(stage)[1] for stage in panels.values())
# for axes, (title, stage) in zip(grid.flat, panels.items(), strict=True):
#     axes.imshow(stage)
#     axes.set(xlim=(0, widest), xticks=[], yticks=[])  # all to one scale
#     height, width = np.shape(stage)[:2]
#     axes.set_title(f"{title}, {width}x{height}")
# figure.suptitle("One captcha, five stages, and the package's own")
# plt.show()
# different = np.sum(np.asarray(anatomy.pictures["smoothed"]) != theirs)
# print(f"bytes that differ from the package's picture: {different}")

# %% [markdown]
# *Pasted*: side by side, with a space before about half of them, each sliding back over its neighbour by
# up to a quarter of a letter. *Squeezed*: what is wider than the picture is made to fit. Then 30 *dots*,
# an *arc*, and a filter that makes edges *smooth*. The last stage is the package's own picture, byte
# for byte.
#
# ## Why captcha 0.7.0?
#
# Versions `0.3` to `0.7.0` draw the captchas that the [original
# tutorial](https://github.com/ypwhs/captcha_break) read 98.26 % and 99.21 % of. The newer 0.7.1 can't be
# seeded, and by a slip in a formula it moves the corners of letters less: another task, whose results
# must not be compared with those.

# %% tags=["active-ipynb"]
# from captcha_reader.drawing import CLASSIC, MODERN, draw_glyph
#
# figure, grid = plt.subplots(2, 7, figsize=(9, 3.2), layout="constrained")
# for row, name, version in zip(grid, ("0.7.0", "0.7.1"), (CLASSIC, MODERN), strict=True):
#     row[0].set_ylabel(f"captcha {name}")
#     for i, axes in enumerate(row):
#         axes.imshow(draw_glyph("A", (0, 0, 0, 255), random.Random(i), version).warped)
#         axes.set(xticks=[], yticks=[])
#     shifts = [version.shifts(30, 42, random.Random(i)) for i in range(20_000)]
#     print(f"{name}: corners move {np.abs(shifts)[:, 0].mean():.1f} pixels sideways, on average")
# figure.suptitle("The same seven turned letters, warped by two versions")
# plt.show()

# %% [markdown]
# Compare each letter with the one below it. The third stands straighter in the lower row, and the printed means say
# it for all. (`MODERN` draws as 0.7.1 does, from our generator.)
#
# ## From text to labels, and back
#
# A network answers with numbers, so each character becomes its place in the alphabet. The first
# network of this tutorial has four outputs, one for each position, and each answers with 36
# probabilities. The right answer is a row with a single 1, called *one-hot*.

# %% tags=["active-ipynb"]
# from captcha_reader.texts import decode_heads
#
# labels = encode(["A0Z9"])
# heads = one_hot(labels)
# print("places:", labels.tolist())
# print("one-hot: ", len(heads), "arrays of shape", heads[0].shape)
# print("the first has its 1 at", heads[0][0].argmax(), "and all of them say", decode_heads(heads))

# %% [markdown]
# `encode` refuses what is not in the alphabet, and says so:

# %% tags=["active-ipynb"]
# try:
#     encode(["a0Z9"])
# except ValueError as error:
#     print("ValueError:", error)

# %% [markdown]
# ## Two ways to feed training
#
# **Draw once.** Draw tens of thousands of pictures, store them, train on them again and again. The
# network never waits. But the set has an end, and what is seen often is learned by heart.
#
# **Draw on the fly.** Draw each batch just before it is needed. No picture comes twice, and nothing
# needs to be stored. But somebody has to draw quickly enough.

# %% tags=["active-ipynb"]
# size = pictures[0].size
# print(f"one picture: {size:,} bytes, as float32 {4 * size:,}")
# print(f"100,000 pictures drawn once: {100_000 * size / 1e9:.1f} GB")
# print(f"a batch of 128 on the fly: {128 * 4 * size / 1e6:.1f} MB")

# %% [markdown]
# We draw on the fly; lesson 4 makes it fast.
#
# ## `CaptchaSequence`
#
# In Keras, a data set that is made while training runs is a `PyDataset`: it knows how many batches
# an epoch has, and how to make batch number `index`. Several threads may ask for batches, in any
# order. Ours asks `stream` for the generator with the right name, draws texts, then pictures, and
# divides the bytes by 255. Labels come in two kinds: `"one-hot"` for the four heads of lesson 2, and
# `"ctc"`, whole numbers from 1 to 36, for lesson 3, which needs the 0 for itself.

# %%
class CaptchaSequence(keras.utils.PyDataset):
    """Endless captchas in epochs of `steps` batches; (seed, split, epoch, index) decide each batch.

    A batch is (X, y). X is float32 (batch_size, height, width, 3) in [0, 1]. For labels="one-hot",
    y is `length` arrays float32 (batch_size, len(alphabet)); for labels="ctc" it is int32
    (batch_size, length) with values 1..len(alphabet). `draw(texts, rng)` makes uint8 pictures;
    `workers` and `use_multiprocessing` go to Keras.
    """

    def __init__(
        self, batch_size, steps, seed, split="train", labels="one-hot",
        alphabet=ALPHABET, length=LENGTH, draw=draw_captchas, **workers,
    ):  # fmt: skip
        super().__init__(**workers)
        self.batch_size, self.steps, self.seed, self.split = batch_size, steps, seed, split
        self.labels, self.alphabet, self.length, self.draw = labels, alphabet, length, draw
        self.epoch = 0

    def __len__(self):
        return self.steps

    def texts(self, rng: random.Random) -> list[str]:
        return random_texts(rng, self.batch_size, self.alphabet, self.length)

    def __getitem__(self, index):
        rng = stream(self.seed, self.split, self.epoch, index)
        texts = self.texts(rng)
        X = self.draw(texts, rng).astype("float32") / 255
        places = encode(texts, self.alphabet, self.length)
        y = places + 1 if self.labels == "ctc" else one_hot(places, len(self.alphabet))
        return X, y


# %% [markdown]
# A first batch, just as a network gets it: pictures are (batch, height, width, colour).

# %% tags=["active-ipynb"]
# data = CaptchaSequence(batch_size=128, steps=10, seed=SEED)
# X, y = data[0]
# show_captchas(X[:5], decode_heads(y)[:5], columns=5, title="Titles decoded from the labels")
# plt.show()
# print(f"X: {X.shape} {X.dtype}, values {X.min():.2f} to {X.max():.2f}")
# print(f"y: {len(y)} arrays {y[0].shape} {y[0].dtype}")
# print("as CTC labels:", CaptchaSequence(1, 1, SEED, labels="ctc")[0][1].tolist())

# %% [markdown]
# Every picture shows its title, so pictures and labels belong together. The CTC labels 24, 29, 15, 14 are
# the first of them, `NSED`: each place, and one more.
#
# ## A new epoch, new pictures
#
# When an epoch ends, the data set has to move on, or the network would see the same pictures again.
# A *callback*, code that Keras calls during training, tells it. (With `shuffle=True`, Keras' default, `fit` would
# mix the order of the batches by Python's global `random`, and nobody's seed would decide a run.)

# %%
class SetEpoch(keras.callbacks.Callback):
    """Tells a `CaptchaSequence` which epoch begins; use it with `fit(..., shuffle=False)`."""

    def __init__(self, data: CaptchaSequence):
        super().__init__()
        self.data = data

    def on_epoch_begin(self, epoch, logs=None):
        self.data.epoch = epoch

# %% [markdown]
# By hand:

# %% tags=["active-ipynb"]
# for epoch in range(3):
#     SetEpoch(data).on_epoch_begin(epoch)
#     print(f"epoch {epoch} begins with", " ".join(decode_heads(data[0][1])[:5]))

# %% [markdown]
# On workers: `CaptchaSequence(..., workers=4)` draws in four threads. With
# `use_multiprocessing=True` Keras starts processes, and those must be able to *import* the class: take
# it from `notebooks_py.ch1_captcha_preview`, as all lessons do, not from a cell of your notebook.
#
# ---
#
# ## What you learned
#
# - A captcha is made in steps: letters drawn, turned, warped, pasted over each other, squeezed, then
#   dots, an arc and a blur.
# - Data is reproducible if each batch depends on a *name* alone, and nothing is shared.
# - `CaptchaSequence` gives pictures as float32 in [0, 1] and labels as four one-hot arrays, or as
#   whole numbers for CTC.
#
# ## On your own
#
# 1. Draw captchas of six characters instead of four. Which stage gets stronger? *Expected: the squeeze.
#    Six letters need half as much room again, and become narrow.* [Solution](solutions.ipynb#lesson-1-exercise-1)
# 2. Make a `CaptchaSequence` with the alphabet `"0123456789"` and look at the shape of each array of labels.
#    *Expected: four arrays of `(batch, 10)`.* [Solution](solutions.ipynb#lesson-1-exercise-2)
# 3. Draw the same letter ten times with `draw_glyph` and show what the warp does to it.
#    *Expected: ten shapes, all in boxes of one of three sizes.* [Solution](solutions.ipynb#lesson-1-exercise-3)
#
# ## Further reading
#
# - [captcha on GitHub](https://github.com/lepture/captcha): the package. `image.py` is short, and you
#   now know what each part is for.
# - [The original tutorial](https://github.com/ypwhs/captcha_break) (in Chinese): from this package to
#   the finished network on one page.
# - [keras.utils.PyDataset](https://keras.io/api/utils/python_utils/#pydataset-class): the rules for
#   data sets with workers.
#
# Next: [2. Read captchas with a convolutional network](ch2_cnn.ipynb) · [Solutions](solutions.ipynb)
