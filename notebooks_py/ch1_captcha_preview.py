# %% [markdown]
# # 1. Draw captchas and turn them into training data
#
# *Lesson 1 of 8 · 20 minutes · needs a little Python · no training*
#
# By the end of this lesson you will have an endless, reproducible stream of captchas in the shape that a network needs,
# and you will know what makes captchas hard to read.

# %% tags=["hide-input"]
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import random

import keras
import numpy as np

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.texts import ALPHABET, LENGTH, encode, one_hot, random_texts


# %% [markdown]
# From here on you need the whole repository: `captcha_reader` is its small library, and `notebooks_py` holds the
# lessons as modules. One number, the *seed*, decides all captchas of this lesson.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # the year of the tutorial that this one grew out of

# %% [markdown]
# ## One captcha
#
# A captcha is a picture of a text that people should be able to read and programs should not. The package `captcha`
# draws ours: four characters out of 36, the digits and the capital letters.

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
# The letters lean, touch and differ in size, and the dots and the arc can be mistaken for parts of letters.
#
# ## A page of them
#
# Here are 24 captchas of 128x64 pixels: 128 wide and 64 high. (In arrays, the height comes first.)

# %% tags=["active-ipynb"]
# from captcha_reader.outputs import show_captchas
#
# rng = stream(SEED, "preview", epoch=0, index=0)
# texts = random_texts(rng, 24)
# pictures = draw_captchas(texts, rng)
# figure = show_captchas(pictures, texts, columns=6, title="24 captchas and their texts")
# figure.set_size_inches(9.4, 4.4)
# plt.show()

# %% [markdown]
# Cover the titles and try to read the captchas. Can you tell `0` from `O`? Lesson 6 is about this pair.
#
# A network trains on *batches* of captchas. Our supply never ends, so for us an *epoch* is simply a fixed number of
# batches. `stream` gives each batch its own random generator, seeded by a *name* of four parts: the seed, the *split*
# (what the captchas are for), the epoch and the number of the batch. Here are the first five texts of some batches:

# %% tags=["active-ipynb"]
# for name in [("train", 0, 0), ("train", 0, 1), ("train", 1, 0), ("valid", 0, 0), ("train", 0, 0)]:
#     split, epoch, index = name
#     print(f"{split}, epoch {epoch}, batch {index}:", random_texts(stream(SEED, *name), 5))

# %% [markdown]
# The same name gives the same captchas, in whatever order we ask for them. Training and testing never share a name.
#
# ## The anatomy of a captcha
#
# `stages` draws a captcha and keeps every step. Each letter is drawn in one of three sizes, turned by up to 30 degrees,
# and *warped*: stretched into a box whose corners are moved at random.

# %% tags=["active-ipynb", "hide-input"]
# from captcha_reader.drawing import stages
#
# anatomy = stages("W0O7", random.Random(6))
# figure, grid = plt.subplots(3, 4, figsize=(5.6, 4.9), layout="constrained")
# for column, glyph in zip(grid.T, anatomy.glyphs, strict=True):
#     steps = {
#         f"{glyph.character}, {glyph.font_size} points": glyph.ink,
#         f"turned by {glyph.angle:.0f}°": glyph.rotated,
#         f"warped, {glyph.box[0]}x{glyph.box[1]}": glyph.warped,
#     }
#     for axes, (title, letter) in zip(column, steps.items(), strict=True):
#         axes.imshow(letter)
#         axes.set(xticks=[], yticks=[], xlim=(-5, 65), ylim=(65, -5))
#         axes.set_title(title, fontsize=9)
# figure.suptitle("Four characters: drawn, turned, warped")
# plt.show()

# %% [markdown]
# The font draws the zero (second column) narrower than the `O` (third), but both are stretched into boxes of the same
# size before the corners are moved.
#
# Then each letter is pasted onto the paper through a *mask*, which says how strongly each pixel counts, from 0 to 255.
# The mask is made from the letter's own brightness. (Around the letter the picture is transparent, and counts as
# black.) Here is one letter in four colours; above each mask stands its level on the strokes. Which letter will be
# palest?

# %% tags=["active-ipynb"]
# from PIL import Image
#
# from captcha_reader.drawing import draw_glyph, mask_of
#
# figure, grid = plt.subplots(3, 4, figsize=(5.6, 4.9), layout="constrained")
# colors = [(10, 20, 60), (20, 50, 120), (60, 90, 170), (120, 150, 200)]
# for column, color in zip(grid.T, colors, strict=True):
#     letter = draw_glyph("A", (*color, 255), random.Random(7)).warped
#     mask = mask_of(letter)  # its brightness times 1.97
#     paper = Image.new("RGB", letter.size, (250, 245, 240))
#     paper.paste(letter, mask=mask)
#     level = np.bincount(np.ravel(mask))[1:].argmax() + 1  # the most frequent one but 0
#     steps = {"warped": letter, f"mask {level}": mask, "pasted": paper}
#     for axes, (title, picture) in zip(column, steps.items(), strict=True):
#         axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
#         axes.set(xticks=[], yticks=[])
#         axes.set_title(title, fontsize=9)
# figure.suptitle("One letter in four colours, from dark to bright")
# plt.show()

# %% [markdown]
# <details><summary>The answer</summary>The darkest one! Its mask is as dark as the letter, so much of the paper shows
# through. A black letter would be invisible.</details>
#
# Now we put all the letters together:

# %% tags=["active-ipynb"]
# widths = [stage.width for stage in anatomy.pictures.values()]  # all to one scale
# figure, row = plt.subplots(1, 5, figsize=(11, 1.8), layout="constrained", width_ratios=widths)
# for i, (axes, (title, stage)) in enumerate(zip(row, anatomy.pictures.items(), strict=True), 1):
#     axes.imshow(stage)
#     axes.set_title(f"{i}. {title}, {stage.width}x{stage.height}", loc="left", fontsize=9)
#     axes.axis("off")
# figure.suptitle("From letters to a captcha")
# plt.show()

# %% [markdown]
# *Pasted*: about half of the letters have a space before them, and each slides back over its neighbour by up to a
# quarter of a letter. *Squeezed*: a row that is too wide is made to fit. Then come 30 *dots* and an *arc*, often darker
# than the letters because no mask makes them pale, and a filter that *smooths* all edges.
#
# ## Why captcha 0.7.0?
#
# Judging by its source code, version `0.7.0` draws nearly as the package did for the
# [original tutorial](https://github.com/ypwhs/captcha_break) of 2019, so our results can be compared with the
# tutorial's. The newer `0.7.1` can't be seeded, its arcs end in other places, and because of a slip in a formula the
# corners of its boxes hardly move. How far, on average, do the corners of a 56-point letter move in each version?

# %% tags=["active-ipynb"]
# from captcha_reader.drawing import CLASSIC, MODERN
#
# for name, version in {"0.7.0": CLASSIC, "0.7.1": MODERN}.items():
#     moves = [np.abs(version.shifts(35, 61, random.Random(i))) for i in range(2_000)]
#     print(f"captcha {name}: {np.mean(moves):.1f} pixels in each direction")

# %% [markdown]
# ## From text to labels, and back
#
# A network answers with numbers, so each character becomes its place in the alphabet, counted from 0 (lesson 0 counted
# from 1). The network of lesson 2 has four outputs, called *heads*, one for each position. Each head gives 36
# probabilities, so the right answer is also written as 36 numbers: a 1 at the character's place and 0 elsewhere. Such a
# row is called *one-hot*.

# %% tags=["active-ipynb"]
# from captcha_reader.texts import decode_heads
#
# labels = encode(["A0Z9"])
# heads = one_hot(labels)
# print("places:", labels.tolist())
# print("one-hot:", len(heads), "arrays of shape", heads[0].shape)
# print("the first has its 1 at", heads[0][0].argmax(), "and all of them say", decode_heads(heads))

# %% [markdown]
# ## `CaptchaSequence`
#
# A network that sees the same pictures again and again learns them by heart. So we draw **on the fly**, each batch just
# before it is needed. In Keras, such a data set is a `PyDataset`. Labels are `"one-hot"` for lesson 2, or `"ctc"` for
# lesson 3: there the places are counted from 1, because 0 means "nothing new here".

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
# Here is a first batch:

# %% tags=["active-ipynb"]
# data = CaptchaSequence(batch_size=128, steps=10, seed=SEED)
# X, y = data[0]
# show_captchas(X[:5], decode_heads(y)[:5], columns=5, title="Titles decoded from the labels")
# plt.show()
# print(f"X: {X.shape} {X.dtype}, values {X.min():.2f} to {X.max():.2f}, {X.nbytes / 1e6:.1f} MB")
# print(f"y: {len(y)} arrays {y[0].shape} {y[0].dtype}")
# print("as CTC labels:", CaptchaSequence(1, 1, SEED, labels="ctc")[0][1].tolist())

# %% [markdown]
# The titles agree with the pictures, so the labels are right. The CTC labels are those of the first text, `NSED`.
#
# ## A new epoch, new pictures
#
# When an epoch begins, a *callback*, code that Keras calls during training, moves the data set on to new pictures.
# (`fit` must not shuffle, so that the seed alone decides the order.)

# %%
class SetEpoch(keras.callbacks.Callback):
    """Tells a `CaptchaSequence` which epoch begins; use it with `fit(..., shuffle=False)`."""

    def __init__(self, data: CaptchaSequence):
        super().__init__()
        self.data = data

    def on_epoch_begin(self, epoch, logs=None):
        self.data.epoch = epoch

# %% [markdown]
# We call it by hand, three times:

# %% tags=["active-ipynb"]
# for epoch in range(3):
#     SetEpoch(data).on_epoch_begin(epoch)
#     print(f"epoch {epoch} begins with", " ".join(decode_heads(data[0][1])[:5]))

# %% [markdown]
# ## Two workers or eight
#
# To save time, Keras can draw in eight threads (`workers=8`), and any of them may be ready first. Are the batches still
# the same, and in the same order? We send them through a network that only averages the colours of each captcha:

# %% tags=["active-ipynb"]
# picture = keras.Input((64, 128, 3))
# average = keras.Model(picture, keras.layers.GlobalAveragePooling2D()(picture))
# one, *others = (
#     average.predict(CaptchaSequence(16, 10, SEED, workers=n), verbose=0) for n in (1, 2, 8)
# )
# print(f"{len(one)} captchas, the first with the mean colour", one[0].round(3))
# print("the same with 2 workers, and with 8:", [np.array_equal(one, other) for other in others])

# %% [markdown]
# They are, because each batch depends on its name alone, and Keras hands the batches out in order.
#
# ---
#
# ## What you learned
#
# - The letters of a captcha are drawn, turned, warped, pasted through a mask of their own brightness, and squeezed.
#   Then come dots, an arc and a filter.
# - Data is reproducible if each batch depends on a *name* alone.
# - `CaptchaSequence` gives pictures in [0, 1], and labels as one-hot arrays or as whole numbers for CTC.
#
# ## On your own
#
# 1. Draw captchas of six characters. Which stage gets stronger? *Expected: the squeeze, because six letters need half
#    as much room again.* [Solution](solutions.ipynb#lesson-1-exercise-1)
# 2. Make a `CaptchaSequence` with the alphabet `"0123456789"`. What shape do its labels have? *Expected: four arrays of
#    `(batch, 10)`.* [Solution](solutions.ipynb#lesson-1-exercise-2)
# 3. Draw the same letter ten times with `draw_glyph` and show what the warp does to it. *Expected: ten shapes, in boxes
#    of three sizes.* [Solution](solutions.ipynb#lesson-1-exercise-3)
#
# ## Further reading
#
# - [captcha on GitHub](https://github.com/lepture/captcha): you now know what each part of `image.py` is for.
# - [The original tutorial](https://github.com/ypwhs/captcha_break) (in Chinese).
# - [keras.utils.PyDataset](https://keras.io/api/utils/python_utils/#pydataset-class): data sets with workers.
#
# Next: [2. Read captchas with a convolutional network](ch2_cnn.ipynb) · [Solutions](solutions.ipynb)
