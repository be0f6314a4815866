# %% [markdown]
# # 0. Read captchas, all on one page
#
# *Lesson 0 of 8 · 15 minutes · needs nothing · trains for two minutes*
#
# In a few minutes you will draw twenty thousand captchas, train a network on them, and watch it read captchas that it
# has never seen. You need no GPU and no data set. This page also runs elsewhere: in an empty notebook, on your laptop
# or in Google Colab, run `%pip install captcha==0.7.0 keras tensorflow matplotlib`, and then paste and run its cells.

# %%
# pip install captcha==0.7.0 keras tensorflow matplotlib
import itertools
import math
import random
import string

import keras
import matplotlib.pyplot as plt
import numpy as np
from captcha.image import ImageCaptcha
from keras import layers

# %% [markdown]
# You may change these three numbers. The network sees the captchas in small groups, called *batches*, and changes a
# little after each batch. An *epoch* is one pass through all the captchas.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides every captcha, and the network's first weights
# STEPS = 625  # batches of 32 captchas in an epoch
# EPOCHS = 3  # how often each captcha is seen

# %% [markdown]
# ## Draw
#
# The package `captcha` draws any text; our texts have four characters out of 36. A network needs numbers, so `to_grey`
# turns each picture into 64 x 128 levels of grey.

# %%
ALPHABET = string.digits + string.ascii_uppercase


def draw(count):
    """Return `count` random texts, and the captchas that the package draws of them."""
    texts = ["".join(random.choices(ALPHABET, k=4)) for _ in range(count)]
    painter = ImageCaptcha(width=128, height=64)
    return texts, [painter.generate_image(text) for text in texts]


def show(pictures, answers, texts):
    """Show twelve captchas; above each an answer, green if it is the text, and red if not."""
    figure, grid = plt.subplots(3, 4, figsize=(8, 4), layout="constrained")
    for axes, picture, answer, text in zip(grid.flat, pictures, answers, texts, strict=False):
        title, color = (answer, "green") if answer == text else (f"{answer}, not {text}", "crimson")
        axes.set_title(title, color=color, family="monospace")
        axes.imshow(picture)
        axes.axis("off")
    return figure


def to_grey(pictures):
    """Turn pictures into levels of grey, uint8 (n, 64, 128, 1)."""
    return np.stack([np.asarray(picture.convert("L"))[..., None] for picture in pictures])


# %% [markdown]
# Here are twelve captchas, each below its text.

# %% tags=["active-ipynb"]
# keras.utils.set_random_seed(SEED)
# texts, pictures = draw(12)
# show(pictures, texts, texts).suptitle("Twelve captchas, and what they say")
# plt.show()

# %% [markdown]
# Now we draw twenty thousand, which takes about a minute. Each character becomes a number from 1 to 36; 0 is kept for
# later.

# %% tags=["active-ipynb"]
# texts, pictures = draw(32 * STEPS)
# X = to_grey(pictures)
# y = np.array([[1 + ALPHABET.index(character) for character in text] for text in texts])
# print(f"{len(X):,} pictures; the first says {texts[0]}, as numbers {y[0].tolist()}")

# %% [markdown]
# ## Build
#
# The network has four blocks, which look for larger and larger patterns, from strokes to parts of letters. The first
# divides the height and the width of the picture by four, the second halves both, and the last two halve only the height,
# so 16 columns and 2 rows remain. For each column the network then gives 37 scores, one for each possible answer: the 36
# characters, and "nothing new here", which is number 0.

# %%
def block(filters, stride=1, pool=2):
    """Return one block: look for patterns, keep the strongest, and bring them to one scale."""
    look = layers.Conv2D(filters, 3, stride, padding="same")
    return [look, layers.MaxPooling2D(pool), layers.BatchNormalization(momentum=0.9), layers.ReLU()]


def build():
    """Return the network: grey pictures (n, 64, 128, 1) to answers (n, 16, 37)."""
    return keras.Sequential(
        [
            keras.Input((64, 128, 1)),
            layers.Rescaling(-1 / 255, 1),  # ink becomes 1, and paper 0
            *block(24, stride=2),
            *block(48),
            *block(96, pool=(2, 1)),
            *block(128, pool=(2, 1)),
            layers.Permute((2, 1, 3)),  # columns first, from left to right
            layers.Reshape((16, 256)),
            layers.Dense(37),
        ]
    )


# %% [markdown]
# ## Train
#
# Training reduces the *loss*, a number that says how wrong the answers are. Nobody tells the network in which column a
# character stands: for our loss, called CTC, only the characters and their order count. The *learning rate* says how
# much each batch may change the network. It rises to 0.003 and then falls to zero.

# %% tags=["active-ipynb"]
# model, steps = build(), EPOCHS * STEPS
# rate = keras.optimizers.schedules.CosineDecay(
#     0.0, 0.9 * steps, warmup_target=3e-3, warmup_steps=0.1 * steps
# )
# adam = keras.optimizers.Adam(rate, beta_2=0.99, global_clipnorm=1)
# model.compile(adam, keras.losses.CTC())
# for epoch in range(EPOCHS):
#     model.fit(X, y, batch_size=32, verbose=0)
#     print(f"epoch {epoch + 1} of {EPOCHS}: done")

# %% [markdown]
# ## Read
#
# Take the likeliest answer of each column, merge equal neighbours, drop each "nothing new", and the text remains.

# %%
def read(model, pictures):
    """Return the text that the network reads in each picture."""
    answers = model.predict(to_grey(pictures), verbose=0).argmax(axis=-1)
    merged = [[answer for answer, _ in itertools.groupby(row) if answer] for row in answers]
    return ["".join(ALPHABET[answer - 1] for answer in row) for row in merged]


def wilson(right, n, z=1.96):
    """Return the 95 % interval of Wilson for `right` out of `n`, as shares."""
    middle, half = right + z * z / 2, z * math.sqrt(right * (n - right) / n + z * z / 4)
    return (middle - half) / (n + z * z), (middle + half) / (n + z * z)

# %% [markdown]
# Now the network reads two thousand captchas that it has never seen. A captcha counts as right only if all four
# characters are. Here are the first twelve; a wrong answer is red, and followed by the true text.

# %% tags=["active-ipynb", "trained"]
# texts, pictures = draw(2_000)
# answers = read(model, pictures)
# right = sum(answer == text for answer, text in zip(answers, texts, strict=True))
# low, high = wilson(right, len(texts))
# title = f"{right / len(texts):.1%} read right (95% interval: {low:.1%} to {high:.1%})"
# show(pictures, answers, texts).suptitle(title)
# plt.show()

# %% [markdown]
# Nearly all answers are green. Two thousand other captchas would give a slightly different share, so the heading adds
# Wilson's interval: the true accuracies that fit such a count.
#
# Why does this work? What is in a captcha, what do the blocks see, and how does a network learn where characters are
# when it is told only their order? The next eight lessons take this page apart, and end with a network that reads
# captchas of any size.
#
# ---
#
# Next: [1. Draw captchas and turn them into training data](ch1_captcha_preview.ipynb)
