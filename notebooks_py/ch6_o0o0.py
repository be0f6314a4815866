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
# - take all errors on thousands of captchas apart: which characters, where, how drawn, how sure
# - ask a second network about the same captchas, and work out what more training would bring
#
# ## What you'll learn
#
# - how to get a probability for each character out of a CTC model
# - how to tell knowledge from luck
# - which cue separates `0` from `O`, and what the warp does to it
# - whether a network knows when it does not know
#
# ## What you'll need
#
# - [Lesson 3](ch3_ctc.ipynb), whose model reads here, and the captchas' plans of
#   [lesson 4](ch4_gpu_training.ipynb); a CPU is enough
#
# ---

# %%
import itertools
import os
import random
from collections import Counter
from collections.abc import Sequence

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from keras import ops
from matplotlib.axes import Axes

from notebooks_py.ch1_captcha_preview import (
    ALPHABET,
    decode_heads,
    draw_glyph,
    encode,
    random_texts,
    stream,
    to_input,
)
from notebooks_py.ch2_cnn import wilson
from notebooks_py.ch3_ctc import ctc_loss, decode_ctc
from notebooks_py.ch4_gpu_training import CaptchaRenderer, piece_widths, record_captchas


# %% [markdown]
# Two numbers:

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures
# STEPS = 50  # batches of 100 captchas to take apart

# %% [markdown]
# ## A reader
#
# The finished sequence model of this repository reads here: the slim one of lesson 4, without a
# GRU. What is known about it stands in `models/ctc.json`.

# %% tags=["active-ipynb"]
# from notebooks_py.ch2_cnn import finished, measured
#
# model, results = finished("ctc")
# print(f"{results['parameters']:,} parameters, trained on {results['pictures']:,} captchas")
# score = results["scores"]["classic-100k"]
# print(f"{score['right']:,} of {score['n']:,} captchas of {score['test_set']} read right")

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
# from notebooks_py.ch1_captcha_preview import draw_captchas
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
# knows only that it is one of the two. The other 34 characters get next to nothing.
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
# figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
# shares = np.array([right[string] / DRAWINGS for string in strings])
# ends = np.array([wilson(right[string], DRAWINGS) for string in strings]).T
# errors = np.abs(ends - shares)
# axes.bar(strings, 100 * shares, yerr=100 * errors, capsize=3, color="lightsteelblue")
# axes.axhline(100 / 16, color="crimson", ls=":", label="a fair coin: 1 in 16")
# low, high = wilson(total, n)
# axes.set_title(f"{total} of {n} right: {total / n:.1%} (95 % interval {low:.1%} to {high:.1%})")
# axes.set(ylabel="right (%)", ylim=(0, 125), xlabel="what was drawn")
# axes.set_yticks(range(0, 101, 20))
# axes.legend()
# axes.set_xticks(range(16), strings, family="monospace", fontsize=13)
# plt.show()
# print("drawings of each string:", DRAWINGS, " bars:", len(shares))
# print("more than a coin, beyond doubt:", low > 1 / 16)
# print("each string right in at least half of its drawings:", bool(shares.min() >= 0.5))

# %% [markdown]
# The whiskers are 95 % intervals, and with twenty drawings they are long: a single high bar means
# little. Look at the title: its whole interval lies far above 6.25 %, so the model knows more than a
# coin. But it is not always right either: on such strings, where all four characters are of the
# hard kind, it reads far less than otherwise.
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
# ## All errors on the table
#
# Enough of hand-picked strings. We read thousands of captchas of the test set, and keep for each
# character what was drawn, what was read, and how it had been drawn: lesson 4 can record the plan
# of a captcha, with font, angle and widths. For each captcha we also keep how sure the model was,
# the probability of the text that it gave. (It knows that there are four characters.) For four
# heads, that is a product of four.

# %%
def sure_reading(model: keras.Model, pictures: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Read uint8 pictures (n, height, width, 3): n texts of four, and the probability of each.

    `model` gives the logits of CTC, or the probabilities of four heads.
    """
    height, width = model.input_shape[1:3]
    out = model.predict_on_batch(to_input(pictures, width, height))
    if isinstance(out, list):
        return decode_heads(out), np.prod([head.max(axis=-1) for head in out], axis=0)
    answers = decode_ctc(out, "exact")
    loss = ctc_loss(encode(answers) + 1, out)
    return answers, np.exp(-ops.convert_to_numpy(loss))


# %% [markdown]
# Which captchas? Those of the test sets, of which lesson 2 has told the seed:

# %%
def asked(index: int) -> tuple[list[str], random.Random]:
    """Return the 100 texts of batch `index` of a test set, and the numbers that draw its pictures.

    All test sets of lesson 2 ask for the same texts; see `drawn_batches` there.
    """
    rng = stream(0, "test", epoch=0, index=index)
    return random_texts(rng, 100), rng


# %% [markdown]
# Later we will want a second opinion, so several readers can read the same pictures. One row for
# each reader and character. A picture is squeezed if its text is wider than the 128 pixels; a
# squeeze of 2 means half the width.

# %%
def examine(readers: dict[str, keras.Model], batches: int) -> pd.DataFrame:
    """Let all readers read the first `batches` of 100 captchas of classic-100k.

    The columns: reader, captcha (its number), position (1 to 4), truth, answer, font (its size),
    angle (degrees), squeezed (1 or more), sure (the probability of the reader's whole answer).
    """
    renderer, tables = CaptchaRenderer(), []
    for index in range(batches):
        texts, rng = asked(index)
        pictures, plan = record_captchas(texts, rng, renderer)
        widths = piece_widths(plan["places"], plan["fonts"], plan["blanks"], renderer.glyphs)
        columns = {
            **{"captcha": 100 * index + np.arange(100)[:, None], "position": np.arange(1, 5)},
            "truth": np.array([*ALPHABET])[plan["places"]],
            **{"font": np.array(renderer.sizes)[plan["fonts"]], "angle": plan["angles"]},
            "squeezed": np.maximum(1, widths.sum(axis=(1, 2)) / pictures.shape[2])[:, None],
        }
        for reader, model in readers.items():
            answers, sure = sure_reading(model, pictures)
            columns |= {"reader": reader, "sure": sure[:, None]}
            columns["answer"] = np.array([[*answer] for answer in answers])
            rows = {k: np.broadcast_to(column, (100, 4)).ravel() for k, column in columns.items()}
            tables.append(pd.DataFrame(rows))
    return pd.concat(tables, ignore_index=True)


# %% [markdown]
# This takes a while: the library draws, and the model reads.

# %% tags=["active-ipynb"]
# everything = examine({"ctc": model, "cnn": finished("cnn")[0]}, STEPS)
# everything["wrong"] = everything.truth != everything.answer
# table = everything[everything.reader == "ctc"]
# print(f"{len(table):,} characters of {table.captcha.nunique():,} captchas")
# print("font sizes:", sorted(table.font.unique().tolist()))
# print("angles within 30 degrees:", bool(table.angle.abs().le(30).all()))

# %% [markdown]
# ### Which characters?
#
# A confusion matrix counts for each true character what was read. Nearly all counts stand on the
# diagonal; we take them out, to see the rest.

# %%
def confusion(truth: pd.Series, answer: pd.Series) -> pd.DataFrame:
    """Return how often each character (row) was read as each character (column), 36 x 36."""
    counts = pd.crosstab(truth, answer)
    return counts.reindex(index=[*ALPHABET], columns=[*ALPHABET], fill_value=0)


# %% [markdown]
# Rows are the truth, columns the answers.

# %% tags=["active-ipynb"]
# counts = confusion(table.truth, table.answer)
# assert counts.to_numpy().sum() == len(table)
# errors = counts.to_numpy() * (1 - np.eye(36, dtype=int))
# figure, axes = plt.subplots(figsize=(7, 6.2), layout="constrained")
# image = axes.imshow(np.where(errors, errors, np.nan), cmap="viridis_r")
# axes.set(xticks=range(36), yticks=range(36), xlabel="read as", ylabel="truth")
# axes.set_xticklabels([*ALPHABET], family="monospace", fontsize=8)
# axes.set_yticklabels([*ALPHABET], family="monospace", fontsize=8)
# axes.set_title(f"{errors.sum()} of {len(table):,} characters read wrong")
# axes.grid(color="gainsboro", lw=0.3)
# figure.colorbar(image, label="characters", shrink=0.8)
# plt.show()
# pair = errors[0, ALPHABET.index("O")] + errors[ALPHABET.index("O"), 0]
# print("most errors are 0 for O or O for 0:", bool(pair > errors.sum() / 2))

# %% [markdown]
# Two squares hold most of it: `0` read as `O`, and `O` read as `0`. All other errors together are
# few, and hardly any of them happens more than twice.
#
# What would be left if nobody cared about that pair? And about `1` and `I`?

# %%
def merged_score(table: pd.DataFrame, pairs: str) -> tuple[int, int]:
    """Return right captchas and all, if `pairs` ("0O1I": 0 is O, 1 is I) count as the same."""
    same = str.maketrans(pairs[0::2], pairs[1::2])
    hits = table.truth.str.translate(same) == table.answer.str.translate(same)
    whole = hits.groupby(table.captcha).all()
    return int(whole.sum()), len(whole)


# %% [markdown]
# All three, with their intervals:

# %% tags=["active-ipynb"]
# kinds = {"all 36 characters": "", "0 = O": "0O", "0 = O and 1 = I": "0O1I"}
# scores = [merged_score(table, pairs) for pairs in kinds.values()]
# shares = np.array([100 * right / n for right, n in scores])
# ends = 100 * np.array([wilson(*score) for score in scores]).T
# figure, axes = plt.subplots(figsize=(7, 2.2), layout="constrained")
# axes.errorbar(shares, [*kinds], xerr=np.abs(ends - shares), fmt="o", capsize=4)
# for name, share in zip(kinds, shares, strict=True):
#     axes.annotate(f"{share:.2f} %", (share, name), (0, 7), textcoords="offset points", ha="center")
# axes.set(xlabel="captchas right (%)", ylim=(-0.5, 2.7))
# axes.set_title(f"What two pairs of characters cost (n = {scores[0][1]:,})")
# plt.show()
# print("never fewer right when more is the same:", scores == sorted(scores))

# %% [markdown]
# ### Where, and how drawn?
#
# Position, font size, angle and squeeze: for each, how many of the characters are wrong. We count
# `0` and `O` apart from the others, since they would drown everything else.

# %%
def plot_error_rates(axes: Axes, table: pd.DataFrame, by: pd.Series, label: str) -> int:
    """Draw the share of wrong characters, with intervals, for each value of `by`; the number drawn.

    `table` has truth and wrong; `by` has a value for each row, and `label` is for the axis.
    """
    drawn, pair = 0, table.truth.isin(["0", "O"])
    for name, these, color in (("0 and O", pair, "tab:red"), ("others", ~pair, "tab:blue")):
        groups = table.wrong[these].groupby(by[these], observed=True).agg(["sum", "count"])
        shares = 100 * groups["sum"] / groups["count"]
        ends = np.array([wilson(int(right), int(n)) for right, n in groups.to_numpy()])
        bars = np.abs(100 * ends - shares.to_numpy()[:, None]).T
        axes.errorbar(groups.index.astype(str), shares, bars, fmt="o-", capsize=3, color=color,
                      label=name)  # fmt: skip
        drawn += len(groups)
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlabel=label, ylabel="wrong (%)", ylim=(0, 100))
    axes.legend(fontsize=8)
    return drawn


# %% [markdown]
# The axis is linear up to 1 % and logarithmic above.

# %% tags=["active-ipynb"]
# figure, grid = plt.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
# steep = pd.cut(table.angle.abs(), [0, 10, 20, 30], include_lowest=True)
# narrow = pd.cut(table.squeezed, [1, 1.0001, 1.2, 1.4, 3], right=False)
# names = {c: f"{abs(c.left):.0f} to {c.right:.0f}" for c in steep.cat.categories}
# panels = {"position": table.position, "font size": table.font}
# panels["angle (degrees from upright)"] = steep.map(names)
# names = {c: f"{c.left:.1f} to {c.right:.1f}" for c in narrow.cat.categories}
# panels["squeeze"] = narrow.map({**names, narrow.cat.categories[0]: "none"})
# drawn = [
#     plot_error_rates(axes, table, by, label)
#     for axes, (label, by) in zip(grid.flat, panels.items(), strict=True)
# ]
# figure.suptitle("Wrong characters, by how they were drawn")
# plt.show()
# print("groups in each picture:", drawn)

# %% [markdown]
# `0` and `O` are hard everywhere, and the other characters are not. Look at the whiskers before you
# believe a slope: `0` and `O` are two of 36 characters, so their groups are small.
#
# ## Does it know when it does not know?
#
# A reader that says "90 %" should be right nine times of ten. That is *calibration*: we sort the
# captchas by how sure the model was, and compare with how often it was right.

# %%
def reliability(sure: np.ndarray, right: np.ndarray, edges: np.ndarray) -> pd.DataFrame:
    """Return for each bin of probabilities how many there are, their mean, and the share right.

    Args:
        sure: probabilities in [0, 1], (n,).
        right: whether each was right, (n,).
        edges: of the bins, increasing from 0 to 1; bins without a captcha are left out.
    """
    bins = np.clip(np.digitize(sure, edges) - 1, 0, len(edges) - 2)
    table = pd.DataFrame({"bin": bins, "sure": sure, "right": right})
    return table.groupby("bin").agg(
        n=("sure", "size"), sure=("sure", "mean"), right=("right", "mean")
    )


# %% [markdown]
# And if a captcha may be declined? A person who is not sure asks for another picture. We decline
# the least sure ones first, and count errors among the rest.

# %%
def risk_coverage(sure: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return shares of captchas answered, surest first, and the share wrong among those: (n,) each.

    The risk-coverage curve of El-Yaniv and Wiener, JMLR 11 (2010).
    """
    wrong = ~np.asarray(right, dtype=bool)[np.argsort(-np.asarray(sure), kind="stable")]
    answered = np.arange(1, len(wrong) + 1)
    return answered / len(wrong), wrong.cumsum() / answered


# %% [markdown]
# Both pictures, from the same captchas:

# %% tags=["active-ipynb"]
# whole = table.groupby("captcha").agg(sure=("sure", "first"), wrong=("wrong", "any"))
# bins = reliability(whole.sure.to_numpy(), ~whole.wrong.to_numpy(), np.linspace(0, 1, 11))
# figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
# left.plot([0, 100], [0, 100], color="gray", ls=":", label="as right as it is sure")
# ends = np.array([wilson(round(b.right * b.n), int(b.n)) for b in bins.itertuples()])
# bars = 100 * np.abs(ends - bins.right.to_numpy()[:, None]).T
# left.errorbar(100 * bins.sure, 100 * bins.right, bars, fmt="o", capsize=3, label="this model")
# left.set(title="How often is it right?", xlabel="how sure it is (%)", ylabel="right (%)")
# left.legend()
# answered, risk = risk_coverage(whole.sure.to_numpy(), ~whole.wrong.to_numpy())
# right.plot(100 * answered, 100 * risk)
# right.set(title="Errors among the answers, if it may decline", xlabel="answered (%)")
# right.set(ylabel="wrong (%)", ylim=(0, None))
# plt.show()
# assert bins.n.sum() == len(whole) and risk[-1] == whole.wrong.mean()
# most = risk[int(0.9 * len(risk)) - 1]
# print("declining the least sure tenth leaves fewer errors:", bool(most < risk[-1]))
# off = (bins.right - bins.sure).abs()[bins.n >= 50]
# print("where there are 50 captchas or more, less than 10 points off:", bool((off < 0.1).all()))

# %% [markdown]
# Left, points below the dotted line would be overconfident: the model would say more than it can
# keep. This one's lie on the line, or a little above. It is right about as often as it says it is,
# so it does know when it does not know. Right, what that is good for: the curve is flat for the
# surest captchas, and climbs at the end, because the errors sit where the model is unsure. Whoever
# may decline one captcha in ten has a reader that is almost never wrong.
#
# ## A second opinion
#
# Is what is left a matter of the picture, or of the reader? We ask somebody else. The finished
# network with four heads has never met this one: another head, another seed, other captchas. If a
# picture itself points to a wrong answer, both will give it. If errors are the reader's own, each
# will make its own.

# %%
def agreement(table: pd.DataFrame) -> dict[str, int]:
    """Count captchas by what two readers made of them; `table` as `examine`, with two readers.

    `only` the one or the other is wrong, both give the `same` wrong answer, or `different` ones;
    `surer` counts the captchas where the surer of the two is wrong.
    """
    whole = table.groupby(["captcha", "reader"]).agg(
        truth=("truth", "sum"), answer=("answer", "sum"), sure=("sure", "first")
    )
    answers, sure = whole.answer.unstack(), whole.sure.unstack().to_numpy()
    wrong = (answers != whole.truth.unstack()).to_numpy()
    one, other = answers.to_numpy().T
    both = wrong.all(axis=1)
    counts = {
        f"only {name}": wrong[:, i] & ~wrong[:, 1 - i] for i, name in enumerate(answers.columns)
    }
    counts |= {"same": both & (one == other), "different": both & (one != other)}
    counts["surer"] = wrong[np.arange(len(wrong)), sure.argmax(axis=1)]
    return {name: int(count.sum()) for name, count in counts.items()}


# %% [markdown]
# How many captchas would both get wrong if they failed independently of each other? That is the
# gray line.

# %% tags=["active-ipynb"]
# n, counts = whole.shape[0], agreement(everything)
# errors = [counts[f"only {name}"] + counts["same"] + counts["different"] for name in ("ctc", "cnn")]
# bars = {f"only the {name} wrong": counts[f"only {name}"] for name in ("ctc", "cnn")}
# bars |= {"both, same answer": counts["same"], "both, different": counts["different"]}
# bars["the surer of the two wrong"] = counts["surer"]
# figure, axes = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
# axes.bar_label(axes.barh([*bars], bars.values()), padding=3)
# chance = errors[0] * errors[1] / n
# axes.axvline(chance, color="gray", ls=":", label=f"both wrong, by chance: {chance:.1f}")
# axes.set(title=f"Two readers, {n:,} captchas", xlabel="captchas")
# axes.margins(x=0.1)
# axes.invert_yaxis()
# axes.legend(loc="upper right")
# plt.show()
# print("both wrong more often than by chance:", counts["same"] + counts["different"] > 3 * chance)
# print("the surer one is better than the worse of the two:", counts["surer"] < max(errors))

# %% [markdown]
# Both fail together far more often than strangers would, and then they nearly always give the same
# wrong answer. So most such captchas seem to point to it by themselves, and another seed or another
# head may not help. (But where it is `O` or `0`, there is only one wrong answer to agree on, and both
# networks are made of the same kind of blocks.) The first bar are captchas that
# the better reader gets wrong and the worse one right, so they can be read, or at least guessed: of
# two answers, a coin finds the right one half of the time. And to trust the surer of the two is
# hardly better than to trust the better one always.
#
# ### Nine readers
#
# Lesson 4 trained nine networks for its comparison, three kinds of heads with three seeds each, and
# wrote down all that they answered. So we can also ask how many of them misread the same captcha. If
# each failed for reasons of its own, that would be a matter of chance, and we know which.

# %%
def wrong_together(shares: Sequence[float]) -> np.ndarray:
    """Return the probabilities that 0, 1, ... all readers are wrong, if they fail independently.

    The Poisson binomial distribution; `shares` are the readers' shares of errors, in [0, 1].
    """
    chances = np.ones(1)
    for share in shares:
        chances = np.convolve(chances, (1 - share, share))
    return chances


# %% [markdown]
# And we can let them vote.

# %%
def vote(answers: Sequence[Sequence[str]]) -> list[str]:
    """Return for each captcha the answer that most readers gave; of equally many, the first one.

    Args:
        answers: one row for each reader, with an answer to every captcha.

    Raises:
        ValueError: the rows do not have the same length.
    """
    return [Counter(given).most_common(1)[0][0] for given in zip(*answers, strict=True)]


# %% [markdown]
# The answers, and what was asked. The texts of a test set are cheap: only its pictures take time.

# %% tags=["active-ipynb"]
# nine = measured("comparison")["runs"]
# n = nine[0]["n"]
# truth = [text for index in range(n // 100) for text in asked(index)[0]]
# answers = [run["answers"].split(" ") for run in nine]
# wrong = np.array(answers) != np.array(truth)
# assert (~wrong).sum(axis=1).tolist() == [run["right"] for run in nine]
# print(f"{len(nine)} networks, {n:,} captchas of {nine[0]['test_set']}")

# %% [markdown]
# How large is the share of errors when one network answers (the mean of its three), when the three
# seeds of a head vote, and when all nine do? And of one network again that trained for longer?

# %% tags=["active-ipynb"]
# left_over = {}
# for head in dict.fromkeys(run["head"] for run in nine):
#     these = [i for i, run in enumerate(nine) if run["head"] == head]
#     left_over[f"{head}, one"] = wrong[these].mean()
#     left_over[f"{head}, vote"] = np.mean(np.array(vote([answers[i] for i in these])) != truth)
# left_over["all nine, vote"] = np.mean(np.array(vote(answers)) != truth)
# longer = measured("runs/ctc-slim-300k/results")
# times = longer["pictures"] / measured("comparison")["pictures"]
# left_over[f"CTC, one, {times:.0f} times the training"] = 1 - longer["right"] / longer["n"]
# print(", ".join(f"{name}: {share:.1%}" for name, share in left_over.items()))

# %% [markdown]
# Left, how many of the nine misread a captcha, and how many would by chance. Right, those errors.

# %% tags=["active-ipynb"]
# together, chance = np.bincount(wrong.sum(axis=0), minlength=10), n * wrong_together(wrong.mean(1))
# figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
# left.bar(range(1, 10), together[1:], label="counted")
# left.plot(range(1, 10), chance[1:], "_", color="tab:red", ms=22, mew=2, label="by chance")
# left.set(yscale="log", ylim=(0.5, None), xlabel="networks that misread it", ylabel="captchas")
# left.set(title="Misread together", xticks=range(1, 10))
# left.legend()
# bars = right.barh([*left_over], [100 * share for share in left_over.values()])
# right.bar_label(bars, fmt="%.1f", padding=3)
# right.set(title="Errors, alone and after a vote", xlabel="wrong (%)")
# right.margins(x=0.12)
# right.invert_yaxis()
# plt.show()
# print("misread by all nine:", together[9], "of", n, f"- by chance {chance[9]:.3f}")

# %% [markdown]
# What are the captchas that nobody reads? And has the finished network of this lesson, which trained
# for longer than any of the nine, learned to read them?

# %% tags=["active-ipynb"]
# hardest = np.flatnonzero(wrong.all(axis=0))
# as_one = [len({given[i] for given in answers}) == 1 for i in hardest]
# merged = [{answer[i].replace("0", "O") for answer in answers} for i in hardest]
# pairs = [truth[i].replace("0", "O") in texts for i, texts in zip(hardest, merged, strict=True)]
# drawn, still = np.intersect1d(hardest, table.captcha), table[table.wrong].captcha.unique()
# print(f"{len(hardest)} captchas: {sum(as_one)} times nine times the same wrong answer,", end=" ")
# print(f"{sum(pairs)} times somebody mistook only O and 0")
# reads = (~np.isin(drawn, still)).sum()
# print("of those in its table, the finished network reads more than half:", 2 * reads > len(drawn))

# %% [markdown]
# By chance, hardly any captcha would be misread by five or more of them. Here hundreds are, and dozens
# by all nine. So some captchas are hard for every network, whatever its head and its seed. With most
# of those, somebody mistakes nothing but `O` and `0`; and often all nine agree on one and the same
# wrong answer. Another seed will not help there. More training did: the finished network reads more
# than half of what none of the nine could. To be wrong together is not yet a ceiling.
#
# A vote takes away about a fifth of the errors of each kind, and costs three trainings and three
# readings. Who spends those trainings on one network gets more for them, as the last bar shows, and
# reads in a third of the time. Nor is a vote better with more voters: all nine are worse than the
# three with CTC, since the weaker ones outvote them.
#
# ## What would 99.9 % take?
#
# First, from whom? A captcha has four characters, and on average so many of them are `0` or `O` that
# we can say how often each kind may be wrong, even if nothing else ever were:

# %% tags=["active-ipynb"]
# goal, pair = 0.001, table.truth.isin(["0", "O"])  # of a hundred thousand captchas, a hundred wrong
# figure, axes = plt.subplots(figsize=(7.5, 2), layout="constrained")
# for name, these, share in (("0 and O", pair, 2 / 36), ("the other 34", ~pair, 34 / 36)):
#     wrong, n, allowed = int(table.wrong[these].sum()), int(these.sum()), goal / (4 * share)
#     low, high = wilson(wrong, n)
#     bars = 100 * np.array([[wrong / n - low], [high - wrong / n]])
#     axes.errorbar(100 * wrong / n, name, xerr=bars, fmt="o", capsize=4, color="tab:red")
#     axes.plot(100 * allowed, name, "k|", ms=16, mew=2)
#     print(f"{name}: {allowed:.3%} may be wrong, and now it is more than that:", low > allowed)
# axes.set(xscale="log", xlabel="characters wrong (%)", ylim=(-0.6, 1.6))
# axes.set_title("Now (red), and what 99.9 % would allow if nothing else were wrong (black)")
# plt.show()

# %% [markdown]
# Both kinds would have to get better, and the pair by more. It is not enough to solve `O` against `0`.
#
# Second, how long? Errors of networks often fall like a power of the number of pictures (Hestness and
# others, 2017), which is a straight line if both axes are logarithmic. With a few points, one can
# draw that line on. It is no more than an educated guess: it says what happens if nothing changes.

# %%
def power_law(pictures: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """Return (power, factor) such that the share of errors is about factor * pictures**power.

    A least squares fit to the logarithms.

    Raises:
        ValueError: less than two different numbers of pictures, a share of 0 or less, or errors
            that do not fall.
    """
    if len(set(pictures)) < 2 or min(errors) <= 0:
        raise ValueError(
            f"pictures={list(pictures)}, errors={list(errors)}: a line needs two different numbers "
            "of pictures at least, and errors above 0"
        )
    power, height = np.polyfit(np.log(pictures), np.log(errors), 1)
    if power >= 0:
        raise ValueError(f"errors={list(errors)} do not fall with the pictures")
    return float(power), float(np.exp(height))

# %% [markdown]
# The points are the runs of lesson 4 that led to this model. The goals are the original's mark for
# this kind of network, and ours.

# %% tags=["active-ipynb"]
# names = ("ctc-slim-300k", "ctc-slim-500k", "ctc-slim-740k")
# runs = [measured(f"runs/{name}/results") for name in names]
# seen = [run["pictures"] + run["settings"].get("start", {"pictures": 0})["pictures"] for run in runs]
# errors = np.array([1 - run["right"] / run["n"] for run in runs])
# power, factor = power_law(seen, errors)
# goals = {share: ((1 - share) / factor) ** (1 / power) for share in (0.9921, 1 - goal)}
# for share, pictures in goals.items():
#     hours = results["seconds"] / results["pictures"] * pictures / 3600
#     print(f"{share:.2%} right: {pictures / 1e6:.1f} million captchas, {hours:,.0f} hours like ours")

# %% [markdown]
# The three points, the line through them, and where it reaches the goals:

# %% tags=["active-ipynb"]
# bars = np.abs(1 - np.array([run["interval"] for run in runs]).T[::-1] - errors)
# figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
# axes.errorbar(seen, 100 * errors, 100 * bars, fmt="o", capsize=4, label="three runs")
# line = np.array([seen[0], *goals.values()])
# axes.plot(line, 100 * factor * line**power, color="gray", ls=":", label="if it goes on like that")
# for share, pictures in goals.items():
#     axes.plot(pictures, 100 * (1 - share), "k*")
#     place = {"xytext": (-6, -11), "textcoords": "offset points", "ha": "right"}
#     axes.annotate(f"{share:.2%}", (pictures, 100 * (1 - share)), **place)
# axes.set(xscale="log", yscale="log", ylim=(0.05, 5))
# axes.set(xlabel="captchas trained on", ylabel="wrong (%)")
# axes.set_title(f"Errors against training, {runs[0]['n']:,} captchas of {runs[0]['test_set']}")
# axes.legend()
# plt.show()
# assert errors.tolist() == sorted(errors, reverse=True)

# %% [markdown]
# To halve the errors takes several times as many captchas. The original's mark is a day or two of
# such training away, but 99.9 % is out of sight. It would need a network that loses fewer pixels than
# one with a stride of two at its entrance, perhaps, or larger pictures.
#
# ---
#
# ## What you learned
#
# - The CTC loss turns into a probability for any text, and so into one for each character.
# - A right answer is evidence only against a chance of being right: count, and compare with a coin.
# - `0` and `O` differ by a few pixels in width, and rotation and warp change the width by more than
#   that.
# - Most errors of a good model are that pair, and it is unsure where it is wrong.
# - Two networks that never met fail on the same captchas far more often than by chance.
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
