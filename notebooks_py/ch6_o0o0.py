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
# # Tell O from 0, or find out why you can't
#
# ## What you'll do
#
# - let a network read `O0OP` and `O0O0`, and ask how sure it is of each character
# - test it on all 16 strings of `O` and `0` against a fair coin
# - lay the two glyphs over each other, and measure what is left to tell them apart
#
# ## What you'll learn
#
# - how to get a probability for each character out of a CTC model
# - how to tell knowledge from luck
# - which cue separates `0` from `O`, and what the warp does to it
#
# ## What you'll need
#
# - [Lesson 3](ch3_ctc.ipynb), whose model reads here; a CPU is enough
#
# ---

# %%
import itertools
import os
import random
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops

import notebooks_py
from notebooks_py.ch1_captcha_preview import (
    ALPHABET,
    CaptchaSequence,
    draw_glyph,
    encode,
    to_input,
)
from notebooks_py.ch2_cnn import train_in_stages
from notebooks_py.ch3_ctc import build_ctc, compile_ctc, ctc_loss


# %% [markdown]
# The last two numbers matter only as long as there is no finished model (see below).

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 100  # batches in an epoch
# EPOCHS = 3  # epochs of the short training

# %% [markdown]
# ## A reader
#
# If the repository has a finished model, `models/ctc.keras`, it reads here. If not, the lesson
# trains a slim one for a minute, and says so. Such a model is a beginner: take its answers about
# `O` and `0` for guesses.

# %%
def finished_model() -> keras.Model | None:
    """Return the finished CTC model of the repository, or None if there is none."""
    path = Path(notebooks_py.__file__).parents[1] / "models" / "ctc.keras"
    return keras.models.load_model(path, compile=False) if path.exists() else None


def beginner(seed: int, steps: int, epochs: int, folder: Path) -> keras.Model:
    """Train a slim CTC model for a short time, and return it."""
    keras.utils.set_random_seed(seed)
    model = build_ctc(filters=(16, 32, 64, 128), convs=1, stride=2, rnn=(), momentum=0.9)
    data = CaptchaSequence(16, steps, seed, labels="ctc", workers=4)
    valid = CaptchaSequence(128, 1, seed, labels="ctc", split="valid")
    train_in_stages(model, compile_ctc, data, valid, folder, [(2e-3, epochs)])
    return model


# %% [markdown]
# Which of the two do we have here?

# %% tags=["active-ipynb"]
# from notebooks_py.ch1_captcha_preview import fresh_folder
#
# model = finished_model()
# if model is None:
#     print("no finished model: a beginner reads, and its answers are guesses")
#     model = beginner(SEED, STEPS, EPOCHS, fresh_folder("ch6_o0o0"))
# else:
#     print("the finished model reads")
# print("steps and classes:", model.output_shape[1:])

# %% [markdown]
# ## How sure is it?
#
# A CTC model gives probabilities for columns, not for characters. But its loss gives a probability
# for any *text*: `exp(-loss)`. So we can ask: if the other three characters are as they are, which
# of the 36 should stand here? That makes 36 texts that differ in one place; their probabilities,
# divided by their sum, are the answer.

# %%
def position_probabilities(
    model: keras.Model, picture: np.ndarray, text: str, alphabet: str = ALPHABET
) -> np.ndarray:
    """Return for each position of `text` the probability of each character, given the others.

    By Bayes' rule, with every text equally likely before the picture is seen: the probability of
    character c at position i is P(text with c at i) / sum over all characters.

    Args:
        model: a model of `build_ctc`.
        picture: uint8, (height, width, 3).
        text: what to vary, over `alphabet`; usually the truth.

    Returns:
        float, (len(text), len(alphabet)); each row adds up to 1.

    Raises:
        ValueError: as `to_input`, `encode` and `ctc_loss`.
    """
    height, width = model.input_shape[1:3]
    logits = model.predict_on_batch(to_input(picture[None], width, height))
    labels = encode([text], alphabet, len(text)) + 1
    rows = []
    for position in range(len(text)):
        candidates = np.repeat(labels, len(alphabet), axis=0)
        candidates[:, position] = np.arange(1, len(alphabet) + 1)
        loss = ctc_loss(candidates, np.repeat(logits, len(alphabet), axis=0))
        rows.append(ops.convert_to_numpy(ops.softmax(-loss)))
    return np.stack(rows)


# %% [markdown]
# The two captchas of the original tutorial: `O0OP`, which its model read, and `O0O0`, which it read
# now and then.

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# from notebooks_py.ch1_captcha_preview import draw_captchas, stream
# from notebooks_py.ch3_ctc import read_ctc
#
# cases = ["O0OP", "O0O0"]
# pictures = draw_captchas(cases, stream(SEED, "cases", epoch=0, index=0))
# answers = read_ctc(model, pictures)
# chances = [position_probabilities(model, *case) for case in zip(pictures, cases, strict=True)]
# assert all(np.allclose(chance.sum(axis=1), 1, atol=1e-4) for chance in chances)
# print("asked about", cases, "at", [chance.shape for chance in chances])

# %% [markdown]
# Left the pictures, right what the model thinks of `O`, `0` and all the rest together at each
# position.

# %% tags=["active-ipynb"]
# letter, digit = ALPHABET.index("O"), ALPHABET.index("0")
# figure, grid = plt.subplots(2, 2, figsize=(9, 4.6), layout="constrained")
# for (left, right), picture, case, answer, chance in zip(
#     grid, pictures, cases, answers, chances, strict=True
# ):
#     left.imshow(picture)
#     left.set_title(f"truth {case}, read {answer or 'nothing'}", family="monospace")
#     left.axis("off")
#     shares = {"O": chance[:, letter], "0": chance[:, digit]}
#     shares["other"] = 1 - shares["O"] - shares["0"]
#     bottom = np.zeros(4)
#     for name, share in shares.items():
#         right.bar(range(4), 100 * share, bottom=100 * bottom, label=name)
#         bottom += share
#     right.set(title="Probability at each position", ylabel="%", xticks=range(4), ylim=(0, 100))
#     right.set_xticklabels(list(case), family="monospace")
#     right.legend(loc="lower right")
# plt.show()
# print("every bar adds up to 100 %:", bool(np.allclose(bottom, 1, atol=1e-4)))

# %% [markdown]
# A model that knows paints its bars in one colour. Where `O` and `0` share a bar half and half, it
# knows only that it is one of the two. A beginner often hasn't even got that far.
#
# ## Knowledge or luck?
#
# One right answer proves nothing. So we take all 16 strings of four letters `O` and `0`, draw each
# many times, and ask at each position only: which of the two is more likely? Somebody who tosses a
# fair coin is right at half of the positions, and gets one string in 16 entirely right.

# %%
def choose(model: keras.Model, pictures: np.ndarray, options: str = "O0") -> list[str]:
    """Read pictures whose four characters are all from `options`: the most probable such text each.

    Args:
        model: a model of `build_ctc` over the default alphabet.
        pictures: uint8, (n, height, width, 3).
        options: the characters that are possible; all texts of them are compared.
    """
    texts = ["".join(letters) for letters in itertools.product(options, repeat=4)]
    labels = encode(texts) + 1
    height, width = model.input_shape[1:3]
    logits = model.predict_on_batch(to_input(pictures, width, height))
    loss = ctc_loss(np.tile(labels, (len(logits), 1)), np.repeat(logits, len(texts), axis=0))
    best = ops.convert_to_numpy(loss).reshape(len(logits), len(texts)).argmin(axis=1)
    return [texts[place] for place in best]


# %% [markdown]
# Sixteen strings, twenty drawings each:

# %% tags=["active-ipynb"]
# DRAWINGS = 20
# strings = ["".join(letters) for letters in itertools.product("O0", repeat=4)]
# right = {}
# for index, string in enumerate(strings):
#     pictures = draw_captchas([string] * DRAWINGS, stream(SEED, "coin", epoch=0, index=index))
#     right[string] = sum(answer == string for answer in choose(model, pictures))
# total, n = sum(right.values()), DRAWINGS * len(strings)
# print(f"{len(strings)} strings, {n} drawings; a coin gets {n / len(strings):.0f} of them right")
# assert 0 <= total <= n

# %% [markdown]
# How often was each string entirely right? With a coin, each would be at the dotted line, give or
# take.

# %% tags=["active-ipynb"]
# from notebooks_py.ch2_cnn import wilson
#
# figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
# shares = np.array([right[string] / DRAWINGS for string in strings])
# ends = np.array([wilson(right[string], DRAWINGS) for string in strings]).T
# errors = np.abs(ends - shares)
# axes.bar(strings, 100 * shares, yerr=100 * errors, capsize=3, color="lightsteelblue")
# axes.axhline(100 / 16, color="crimson", ls=":", label="a fair coin: 1 in 16")
# low, high = wilson(total, n)
# axes.set_title(f"{total} of {n} right: {total / n:.1%} (95 % interval {low:.1%} to {high:.1%})")
# axes.set(ylabel="right (%)", ylim=(0, 105), xlabel="what was drawn")
# axes.legend()
# axes.set_xticks(range(16), strings, family="monospace")
# plt.show()
# print("drawings of each string:", DRAWINGS, " bars:", len(shares))

# %% [markdown]
# The whiskers are 95 % intervals, and with twenty drawings they are long: a single high bar means
# little. Look at the title: only if its whole interval lies above 6.25 %, the model knows more than
# a coin.
#
# ## What is left to see
#
# Now to the glyphs themselves. We draw both in the largest of the three font sizes, before anything
# has happened to them.

# %%
def glyphs(character: str, count: int, seed: int) -> dict[str, list[np.ndarray]]:
    """Draw a character `count` times in black; its ink (0 to 255) as it was drawn and warped.

    Returns:
        {"glyph": [...], "warped": [...]}: uint8 arrays (height, width), one for each drawing.
    """
    stages = [
        draw_glyph(character, (0, 0, 0, 255), random.Random(f"{seed}/{character}/{number}"))
        for number in range(count)
    ]
    return {
        name: [np.asarray(stage[name])[..., 3] for stage in stages] for name in ("glyph", "warped")
    }


def ink_width(ink: np.ndarray) -> int:
    """Return over how many columns the ink of a glyph reaches; 0 for a blank."""
    columns = np.flatnonzero(ink.max(axis=0) > 127)
    return int(columns[-1] - columns[0] + 1) if columns.size else 0


# %% [markdown]
# Three font sizes give three heights. We compare `O` and `0` of the same size.

# %% tags=["active-ipynb"]
# drawn = {character: glyphs(character, 600, SEED) for character in "O0"}
# heights = sorted({glyph.shape[0] for glyph in drawn["O"]["glyph"]})
# largest = {
#     character: next(glyph for glyph in kinds["glyph"] if glyph.shape[0] == heights[-1])
#     for character, kinds in drawn.items()
# }
# for character, ink in largest.items():
#     print(f"{character}: {ink_width(ink)} pixels wide, {ink.shape[0]} high")

# %% [markdown]
# As high, but a little narrower: that is the whole difference. To see it, we lay one glyph over the
# other.

# %%
def overlay(red: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Put two glyphs (uint8 ink) on one white page, centred, the first in red, the second in blue.

    Returns:
        Float RGB (height, width, 3) in [0, 1], as large as the larger of each side.
    """
    h, w = (max(a, b) for a, b in zip(red.shape, blue.shape, strict=True))
    page = np.zeros((2, h, w))
    for layer, ink in zip(page, (red, blue), strict=True):
        y, x = (h - ink.shape[0]) // 2, (w - ink.shape[1]) // 2
        layer[y : y + ink.shape[0], x : x + ink.shape[1]] = ink / 255
    return np.stack([1 - page[1], 1 - page.max(axis=0), 1 - page[0]], axis=-1)


# %% [markdown]
# Before the warp, and after two different ones:

# %% tags=["active-ipynb"]
# large = {
#     c: [n for n, glyph in enumerate(drawn[c]["glyph"]) if glyph.shape[0] == heights[-1]]
#     for c in "O0"
# }
# pairs = {"before the warp": (largest["O"], largest["0"])}
# for number in (0, 1):
#     pairs[f"warped, pair {number + 1}"] = [drawn[c]["warped"][large[c][number]] for c in "O0"]
# figure, row = plt.subplots(1, 3, figsize=(9, 3.6), layout="constrained")
# for axes, (title, pair) in zip(row, pairs.items(), strict=True):
#     axes.imshow(overlay(*pair))
#     axes.set(title=f"{title}\nO {ink_width(pair[0])}, 0 {ink_width(pair[1])} pixels wide")
#     axes.set(xticks=[], yticks=[])
# figure.suptitle("O in red, 0 in blue, both in black")
# plt.show()
# print({title: [ink_width(ink) for ink in pair] for title, pair in pairs.items()})

# %% [markdown]
# Before the warp there is a thin red rim on both sides. After it, the rims are wherever chance puts
# them, and the `0` can be the wider one.
#
# Is there a width at which you could be sure? We call everything narrower than some threshold a `0`
# and everything else an `O`, and look for the threshold that is right most often.

# %%
def best_threshold(zeros: np.ndarray, letters: np.ndarray) -> tuple[int, float]:
    """Return the width below which a glyph should be called 0, and the share that gets right.

    Args:
        zeros, letters: widths in pixels, whole numbers, of drawings of `0` and of `O`.
    """
    thresholds = np.arange(1, max(zeros.max(), letters.max()) + 2)
    below, above = zeros < thresholds[:, None], letters >= thresholds[:, None]
    right = (below.mean(axis=1) + above.mean(axis=1)) / 2
    return int(thresholds[right.argmax()]), float(right.max())

# %% [markdown]
# Left the drawings in the largest size alone, right those in all three sizes.

# %% tags=["active-ipynb"]
# widths = {c: np.array([ink_width(ink) for ink in drawn[c]["warped"]]) for c in "O0"}
# sorts = {"largest size": {c: widths[c][large[c]] for c in "O0"}, "all sizes": widths}
# figure, row = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharex=True)
# for axes, (sort, these) in zip(row, sorts.items(), strict=True):
#     for character, color in (("0", "tab:blue"), ("O", "tab:red")):
#         axes.hist(these[character], bins=range(10, 45), alpha=0.5, color=color, label=character)
#     axes.set(title=f"Widths after the warp, {sort}", xlabel="pixels", ylabel="drawings")
#     axes.legend(prop={"family": "monospace"})
#     threshold, share = best_threshold(these["0"], these["O"])
#     print(f"{sort}: 0 if narrower than {threshold} pixels is right {share:.0%} of the time")
#     assert share >= 0.5
# plt.show()

# %% [markdown]
# The hills overlap almost entirely. Width alone, without knowing font size and warp, is only a
# little better than the coin. A reader can do better if it uses more than the width: the height
# betrays the font size, and the shape of the strokes betrays the rotation. And the squeeze of the
# whole picture has to be guessed from the other letters. That is what a good model has to learn,
# and why `0` and `O` are the last errors to go.
#
# So was the original's model able to tell them apart, or was it guessing? The test above answers
# this for any model: draw many, count, and compare with a coin.
#
# ---
#
# ## What you learned
#
# - The CTC loss turns into a probability for any text, and so into one for each character.
# - A right answer is evidence only against a chance of being right: count, and compare with a coin.
# - `0` and `O` differ by a few pixels in width, and rotation and warp change the width by more than
#   that.
#
# ## On your own
#
# 1. Repeat the coin test with `1` and `I` (`choose(model, pictures, "1I")`). *Expected: easier than
#    `O` and `0`, once the model can read at all; look at the two glyphs to see why.*
# 2. Draw 3,000 of each glyph instead of 600. *Expected: the hills get smoother, and overlap as much
#    as before: more drawings do not add a cue.*
# 3. Draw 200 of each string instead of 20. *Expected: the whiskers shrink to about a third.*
#
# ## Further reading
#
# - [The original tutorial](https://github.com/ypwhs/captcha_break) (in Chinese): its last section
#   asks whether the model can really tell `O0O0`, and leaves the answer open.
# - [On calibration of modern neural networks](https://arxiv.org/abs/1706.04599), Guo and others,
#   2017: why you should not take a network's probabilities at face value.
