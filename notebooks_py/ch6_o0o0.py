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
# # 6. Tell O from 0
#
# *Lesson 6 of 8 · 40 minutes · needs 3 · trains nothing*
#
# At the end of this lesson you know whether the finished network can tell `O` from `0` or only
# guesses, which cue survives the warp, and how to find out by an experiment whether the network
# follows that cue. You also know where its errors are, and whether it knows when it is wrong. You need
# [lesson 3](ch3_ctc.ipynb); nothing is trained, and a CPU is enough.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import itertools
from collections import Counter
from collections.abc import Sequence

import keras
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from captcha_reader.drawing import Glyph, draw_captchas, mask_of, stream
from captcha_reader.scores import wilson
from captcha_reader.texts import ALPHABET, BLANK, LENGTH
from notebooks_py.ch3_ctc import decode_ctc, read_ctc


def slash(texts: Sequence[str]) -> list[str]:
    """Write zero with a slash, for titles and labels."""
    return [text.replace("0", "Ø") for text in texts]


# %% [markdown]
# One number decides the pictures, and one how many captchas we search for errors.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # any whole number
# STEPS = 40  # batches of 100 captchas

# %% [markdown]
# ## Knowledge or luck?
#
# The original tutorial ends with a question: can its network really tell `O0O0`, or does it guess? Here
# are twelve captchas of `O` and `0` alone, in any order. Read them yourself before you look at the titles,
# the answers of the finished network. (Where this lesson shows what was drawn or read, zero has a slash.)

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# from captcha_reader.outputs import show_captchas
# from captcha_reader.texts import random_texts
# from captcha_reader.weights import finished
#
# model, results = finished("ctc")
# rng = stream(SEED, "O0O0", epoch=0, index=0)
# texts = random_texts(rng, 12, "O0")
# pictures = draw_captchas(texts, rng)
# answers = read_ctc(model, pictures)
# show_captchas(pictures, slash(texts), slash(answers), title="O and zero, as the network reads them")
# plt.show()
# print(f"{results['parameters']:,} parameters, {results['pictures']:,} captchas of training")

# %% [markdown]
# Green is right in all four places; a red title says what was read, and what was drawn.
#
# Now all sixteen strings of `O` and `0`, each drawn many times.

# %%
def count_right(model: keras.Model, pair: str, drawings: int, seed: int) -> dict[str, int]:
    """Draw each text over two characters `drawings` times; count how often each is read right."""
    right = {}
    for index, text in enumerate(map("".join, itertools.product(pair, repeat=LENGTH))):
        rng = stream(seed, f"pair {pair}", epoch=0, index=index)
        right[text] = read_ctc(model, draw_captchas([text] * drawings, rng)).count(text)
    return right


# %% [markdown]
# A coin would get one string in sixteen right.

# %% tags=["active-ipynb"]
# from captcha_reader.scores import share
#
# drawings = 100  # of each string
# right = count_right(model, "O0", drawings, SEED)
# total, n = sum(right.values()), drawings * len(right)
# bars = 100 * np.array(list(right.values())) / drawings
# ends = 100 * np.array([wilson(count, drawings) for count in right.values()]).T
# figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
# axes.bar(
#     slash(map(" ".join, right)), bars, yerr=np.abs(ends - bars), capsize=3, color="lightsteelblue"
# )
# axes.axhline(100 / 16, color="crimson", ls=":", label="a fair coin: 1 in 16")
# axes.set(xlabel="what was drawn", ylabel="read right (%)", ylim=(0, 122), yticks=range(0, 101, 20))
# axes.set_title(f"O0O0 against a coin: {share(total, n)}")
# axes.tick_params("x", labelfontfamily="monospace", labelrotation=60)
# axes.legend(loc="upper left")
# plt.show()
# print(f"{len(right)} strings, {n} drawings, of which a coin gets {n / 16:.0f} right")
# assert wilson(total, n)[0] > 5 / 16

# %% [markdown]
# The whiskers are 95 % intervals, and most of them overlap: a single high bar means little. But every bar
# stands far above the dotted line: this is knowledge, of a network that practised this pair (lesson 4).
# And still, such captchas are read right less often than ordinary ones.
#
# ## What is left to see
#
# How can anybody tell them apart? In the font, both have the same stroke, and `0` is narrower than `O`. But the
# captcha package cuts each glyph out, turns it, **stretches it into a box of one width**, and moves the corners. So
# width hardly says anything. The narrower glyph is stretched more, and its stroke with it: the zero's becomes thicker.
#
# As a number: what share of the area within the outline is ink? The rest is the *hole*: pixels with ink
# above, below, to the left and to the right. An exact stretch keeps this share, and it differs already in the font.

# %%
def ink_and_hole(glyph: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels of an RGBA `O` or `0` are pasted into a captcha, and which lie within."""
    ink = np.asarray(mask_of(glyph)) > 0
    above, left = (np.logical_or.accumulate(ink, axis) for axis in (0, 1))  # or this pixel itself
    below, right = (np.flip(np.logical_or.accumulate(np.flip(ink, a), a), a) for a in (0, 1))
    return ink, above & below & left & right & ~ink


def measure(glyph: Glyph) -> dict[str, float]:
    """Return the width of a warped glyph's ink, and ink / (ink + hole)."""
    ink, hole = ink_and_hole(glyph.warped)
    columns = np.flatnonzero(ink.any(axis=0))
    return {"width": np.ptp(columns) + 1, "ink / (ink + hole)": ink.sum() / (ink | hole).sum()}


# %% [markdown]
# `stages`, from lesson 1, takes captchas apart. Here are a zero and an O of 56 points, each with the median share
# of its kind: from the font, then only stretched into the box, and last as the package pastes them.

# %% tags=["active-ipynb"]
# from matplotlib.colors import ListedColormap
#
# from captcha_reader.drawing import stages
#
# rng = stream(SEED, "two glyphs", epoch=0, index=0)
# many = [glyph for _ in range(40) for glyph in stages("0O0O", rng).glyphs if glyph.font_size == 56]
# many.sort(key=lambda glyph: measure(glyph)["ink / (ink + hole)"])
# figure, row = plt.subplots(1, 6, figsize=(9.5, 3.3), layout="constrained", sharex=True, sharey=True)
# for first, character in enumerate("0O"):
#     kind = [glyph for glyph in many if glyph.character == character]
#     glyph = kind[len(kind) // 2]
#     ways = {"font": glyph.ink, "stretched": glyph.ink.resize(glyph.box), "warped": glyph.warped}
#     for axes, (name, picture) in zip(row[first::2], ways.items(), strict=True):
#         ink, hole = ink_and_hole(picture)
#         axes.imshow(ink + 2 * hole, cmap=ListedColormap(["white", "tab:blue", "moccasin"]))
#         axes.set_title(f"{slash(character)[0]}, {name}\n{ink.sum() / (ink | hole).sum():.1%}")
#         axes.axis("off")
#     print(f"{character}: {glyph.ink.width} pixels wide in the font, box {glyph.box[0]}")
# figure.suptitle("Ink (blue), hole (yellow), and the share of ink", y=1.08)
# plt.show()

# %% [markdown]
# In the font the strokes are alike, and the O is wider. Stretched, both fill the same box. Warped, the zero
# still has the larger share of ink. (With larger pictures come soft edges. They count as ink, so both shares
# grow.)
#
# These are two glyphs. Now take one number and a threshold: above it we say `0`, and below it `O`, or the other
# way round. How often is that right?

# %%
def try_threshold(numbers: np.ndarray, zero: np.ndarray) -> tuple[int, int]:
    """Choose the best threshold on the first half; return right answers, and all, on the second.

    `zero` says which of the numbers belong to a 0; the others belong to an O.
    """
    half = len(numbers) // 2
    right = {t: np.mean((numbers[:half] > t) == zero[:half]) for t in np.unique(numbers[:half])}
    best = max(right, key=lambda t: abs(right[t] - 0.5))
    says_zero = (numbers[half:] > best) == (right[best] > 0.5)
    return int(np.sum(says_zero == zero[half:])), len(says_zero)


# %% [markdown]
# Now 1,500 captchas taken apart, with four glyphs each:

# %% tags=["active-ipynb"]
# rng = stream(SEED, "glyphs", epoch=0, index=0)
# glyphs = [glyph for _ in range(1_500) for glyph in stages("0O0O", rng).glyphs]
# sizes = np.array([glyph.font_size for glyph in glyphs])
# zero = np.array([glyph.character == "0" for glyph in glyphs])
# values = [measure(glyph) for glyph in glyphs]
# numbers = {name: np.array([value[name] for value in values]) for name in values[0]}
# for name, size in itertools.product(numbers, (42, 50, 56)):
#     one = sizes == size
#     print(f"{name:18}, {size} points: {share(*try_threshold(numbers[name][one], zero[one]))} right")

# %% [markdown]
# The width is hardly better than a coin. The share of ink is right for most glyphs, least often for small ones.
# Both as histograms, for one size:

# %% tags=["active-ipynb"]
# one = sizes == 56
# figure, row = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
# for axes, (name, all_values) in zip(row, numbers.items(), strict=True):
#     bins = np.arange(23, 37) - 0.5 if name == "width" else np.linspace(0.58, 0.72, 43)
#     for character, color, sort in (("Ø", "tab:blue", one & zero), ("O", "tab:orange", one & ~zero)):
#         axes.hist(all_values[sort], bins, alpha=0.6, color=color, label=character)
#     axes.set(title=f"{name}, 56 points", xlabel="pixels" if name == "width" else "share")
#     axes.set_ylabel("glyphs")
#     axes.legend()
# plt.show()
# right, n = try_threshold(*(values[one] for values in (numbers["ink / (ink + hole)"], zero)))
# assert right > 0.8 * n

# %% [markdown]
# Left, one hill lies on the other. Right, there are two hills, and where they overlap, the number cannot
# decide.
#
# ## Does the network use it?
#
# That a cue *exists* does not mean that the network follows it. To find out, we change the cue and
# as little else as possible, and watch the answers. If thick strokes say `0`, an `O` with thicker strokes should
# become a `0`, and a `0` with thinner strokes an `O`. If width says nothing, a captcha made narrower
# should be read as before.

# %%
def thicken(picture: np.ndarray, quarters: int) -> np.ndarray:
    """Make all strokes thicker (or thinner, below 0) by this many quarter pixels on each side."""
    if not quarters:
        return picture
    height, width = picture.shape[:2]
    large = np.asarray(Image.fromarray(picture).resize((4 * width, 4 * height)))
    pick = np.minimum if quarters > 0 else np.maximum
    for axis in abs(quarters) * (0, 1):
        large = pick(large, pick(np.roll(large, 1, axis), np.roll(large, -1, axis)))
    return np.asarray(Image.fromarray(large).resize((width, height)))


def narrow(picture: np.ndarray, factor: float) -> np.ndarray:
    """Squeeze a picture to `factor` of its width, and fill it up with paper on both sides."""
    image = Image.fromarray(picture)
    page = Image.new("RGB", image.size, tuple(int(c) for c in np.median(picture, axis=(0, 1))))
    width = round(factor * image.width)
    page.paste(image.resize((width, image.height)), ((image.width - width) // 2, 0))
    return np.asarray(page)


# %% [markdown]
# Four times as large, each pixel takes the darkest value around it, and strokes grow; with the brightest
# they shrink. (So do the dots and the arc.) A captcha that says `OØOP`, changed:

# %% tags=["active-ipynb"]
# picture = draw_captchas(["O0OP"], stream(SEED, "O0OP", epoch=0, index=36))[0]
# changed = {f"{q / 2:+} pixels": thicken(picture, q) for q in (-2, -1, 0, 1, 2)}
# changed["width 87 %"] = narrow(picture, 26 / 30)
# answers = read_ctc(model, np.stack(list(changed.values())))
# titles = [f"{name}: {a}" for name, a in zip(changed, slash(answers), strict=True)]
# show_captchas(list(changed.values()), titles, columns=3, title="Other strokes, and what is read")
# plt.show()
# print(f"{len(changed)} versions of O0OP")

# %% [markdown]
# Half a pixel more, and each `O` becomes a zero; half a pixel less, and the zero becomes an `O`. Narrower, it is
# read as before. (We looked at forty drawings and chose a clear case. In three of the others, narrowing changed
# the answer.) A chosen example shows no rule. Now with numbers: how many of the drawn `O`, and of the drawn `0`, are
# read as `0`?

# %%
def called_zero(model: keras.Model, pictures: np.ndarray, texts: Sequence[str]) -> list[int]:
    """Count how many of the drawn O, and of the drawn 0, are read as 0."""
    answers = [answer.ljust(LENGTH)[:LENGTH] for answer in read_ctc(model, pictures)]
    pairs = Counter(zip("".join(texts), "".join(answers), strict=True))
    return [pairs["O", "0"], pairs["0", "0"]]


def plot_share(axes: Axes, row: int, right: int, n: int) -> None:
    """Plot a share in per cent, and its 95 % interval, in one row of a figure."""
    axes.plot(100 * np.array(wilson(right, n)), [row, row], color="tab:blue", lw=3)
    axes.plot(100 * right / n, row, "o", color="tab:blue")


def plot_called_zero(axes: Axes, x: Sequence[float], counts: list[list[int]], n: int) -> None:
    """Plot what `called_zero` counts, out of n each, with 95 % intervals."""
    for drawn, color, row in zip("OØ", ("tab:orange", "tab:blue"), np.array(counts).T, strict=True):
        low, high = np.transpose([wilson(count, n) for count in row])
        axes.fill_between(x, 100 * low, 100 * high, color=color, alpha=0.3)
        axes.plot(x, 100 * row / n, "o-", color=color, label=f"drawn {drawn}")


# %% [markdown]
# We draw 160 captchas, ten of each of the sixteen strings, and change all of them.

# %% tags=["active-ipynb"]
# texts = 10 * ["".join(letters) for letters in itertools.product("O0", repeat=LENGTH)]
# pictures = draw_captchas(texts, stream(SEED, "changed", epoch=0, index=0))
# quarters, factors, n = range(-3, 4), (0.75, 26 / 30, 1), 320
# thick = [called_zero(model, np.stack([thicken(p, q) for p in pictures]), texts) for q in quarters]
# thinned_zero, thickened_o = thick[1][1], thick[5][0]  # by one pixel
# slim = [called_zero(model, np.stack([narrow(p, f) for p in pictures]), texts) for f in factors]
# figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
# plot_called_zero(left, np.array(quarters) / 2, thick, n)
# plot_called_zero(right, factors, slim, n)
# left.set(title="Other strokes", xlabel="thicker by (pixels)", ylabel="read as zero (%)")
# right.set(title="Narrower captchas", xlabel="width (factor)", ylim=(-3, 103))
# left.legend(title=f"of {n} characters each")
# plt.show()
# print(f"{len(texts)} captchas, each read {len(thick) + len(slim)} times")
# assert thinned_zero < n / 2 < thickened_o  # a thickened O is a 0 more often than a thinned 0
# assert np.abs(np.subtract(slim[1], slim[2])).max() < 0.15 * n  # width hardly matters

# %% [markdown]
# Left: with strokes thinner by a pixel, most of the zeros are no longer read as `0`; with strokes thicker by
# a pixel, most of the `O` are. (Thicker still, both curves fall; perhaps holes close.) Right: a width of
# 26/30, the very difference between the two in the font, changes next to nothing, although upright strokes
# get thinner by it, too. So the network follows neither the width of letters nor the thickness of strokes in
# pixels. Our number fits best: how much of a letter is ink, which no squeezing changes. Is that *all* it
# uses? We do not know. With unchanged strokes it is right more often than our single number was, so it sees
# more than that, or measures it better.
#
#
# ## All errors
#
# Back to ordinary captchas. This time we also want to know how sure the network is. The CTC loss of
# lesson 3 is minus the logarithm of a text's probability, so `exp(-loss)` of its own answer is the
# probability that the network gives it.

# %%
def read_surely(model: keras.Model, pictures: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Read uint8 pictures; return the answers and the probability that the network gives each."""
    logits = model.predict_on_batch(pictures.astype("float32") / 255)
    answers = decode_ctc(logits)
    labels = np.full(logits.shape[:2], BLANK, dtype="int32")
    for row, answer in zip(labels, answers, strict=True):
        row[: len(answer)] = [ALPHABET.index(character) + 1 for character in answer]
    return answers, np.exp(-keras.ops.convert_to_numpy(keras.losses.ctc(labels, logits)))

# %% [markdown]
# We read the beginning of the test set `classic-10k`.

# %% tags=["active-ipynb"]
# from captcha_reader.testsets import draw_test_set
#
# texts, answers, sure = [], [], []
# for pictures, truth in itertools.islice(draw_test_set("classic-10k"), STEPS):
#     read, chance = read_surely(model, pictures)
#     texts, answers, sure = [*texts, *truth], [*answers, *read], [*sure, *chance]
# text = "".join(texts)
# print(f"{len(texts):,} captchas with {len(text):,} characters")
# print(f"{text.count('O') + text.count('0'):,} of the characters are O or 0,")
# print(f"in {sum('O' in text or '0' in text for text in texts):,} of the captchas")

# %% [markdown]
# A *confusion matrix* counts for each true character (row) what was read (column). Right answers stand
# on the diagonal. We leave them out, and all characters that were never part of an error, and
# answers of another length, which cannot be compared place by place.

# %% tags=["active-ipynb"]
# pairs = list(zip(texts, answers, strict=True))
# errors = [
#     (drawn, read)
#     for text, answer in pairs
#     if len(answer) == LENGTH
#     for drawn, read in zip(text, answer, strict=True)
#     if drawn != read
# ]
# counts = Counter(errors)
# names = sorted({"O", "0"}.union(*counts), key=("0O" + ALPHABET).index)
# matrix = np.array([[counts[drawn, read] for read in names] for drawn in names])
# print(f"{len(ALPHABET) * (len(ALPHABET) - 1):,} different errors are possible")
# assert STEPS < 40 or counts["0", "O"] + counts["O", "0"] > 0.3 * len(errors)

# %% [markdown]
# Which of those have happened?

# %% tags=["active-ipynb"]
# figure, axes = plt.subplots(figsize=(5.8, 5.4), layout="constrained")
# axes.imshow(np.sqrt(matrix), cmap="Blues")
# for row, column in np.argwhere(matrix):
#     color = "white" if matrix[row, column] > matrix.max() / 3 else "black"
#     axes.text(column, row, matrix[row, column], ha="center", va="center", color=color)
# axes.set_xticks(range(len(names)), slash(names), family="monospace")
# axes.set_yticks(range(len(names)), slash(names), family="monospace")
# axes.set(xlabel="read as", ylabel="drawn")
# ours, ones = (sum(counts[pair] for pair in (p, p[::-1])) for p in (("O", "0"), ("1", "I")))
# others = sum(len(answer) != LENGTH for answer in answers)
# title = f"{len(errors)} wrong characters: O and Ø {ours}, 1 and I {ones}"
# axes.set_title(f"{title}\n(not shown: {others} answers of another length)")
# plt.show()
# assert matrix.trace() == 0 and matrix.sum() == len(errors)

# %% [markdown]
# Two cells in the corner stand out: zero read as `O`, and `O` read as zero. All else is scattered.
#
# What would be left if nobody cared about `O` against `0`? And where in the captcha are the errors?

# %% tags=["active-ipynb"]
# place_wrong = [100_000 - n for n in results["scores"]["classic-100k"]["right_by_position"]]
# figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.4), layout="constrained")
# left.bar(range(1, 5), place_wrong)
# left.set(title="Wrong in all of classic-100k", ylabel="characters")
# left.set(xlabel="position", xticks=range(1, 5))
# right.locator_params(axis="x", nbins=4)
# scores, merges = {}, {"as read": {}, "O = Ø": {"0": "O"}, "1 = I, too": {"0": "O", "1": "I"}}
# for row, (name, merge) in enumerate(merges.items()):
#     same = str.maketrans(merge)
#     count = sum(text.translate(same) == answer.translate(same) for text, answer in pairs)
#     scores[f"{name}\n{count:,} right"] = count
#     plot_share(right, row, count, len(pairs))
# right.set_yticks(range(3), list(scores))
# right.set(title=f"Captchas read right, n = {len(pairs):,}", xlabel="%", ylim=(2.5, -0.5))
# plt.show()
# print("wrong at each position:", *place_wrong)
# assert sorted(scores.values()) == list(scores.values()) and min(place_wrong) == place_wrong[0]

# %% [markdown]
# Left: the first position, with a single neighbour, has the fewest errors. (The last has one neighbour, too, but
# a character too many or too few counts against all places behind it.) Right: if `O` and `0` were one, many
# errors would be gone; `1` and `I` change next to nothing. Whoever wants fewer errors has to work on `O` and
# `0`, which is why lesson 4 practises this pair.
#
# ## Does it know when it is wrong?
#
# We sort the answers by the probability that the network gave them, and count how many were right. If
# it gives a hundred answers 80 % each, and about 80 of them are right, it is *calibrated*.

# %% tags=["active-ipynb"]
# sure, correct = np.minimum(sure, 1), np.array([text == answer for text, answer in pairs])
# edges, labels = [0, 0.6, 0.8, 0.95, 0.99, 1], []
# figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
# for row, (low, high) in enumerate(itertools.pairwise(edges)):
#     inside = (sure > low) & (sure <= high)
#     wrong = np.sum(inside & ~correct)
#     labels.append(f"{low:.0%} to {high:.0%}: {inside.sum():,} captchas, {wrong} wrong")
#     if inside.any():
#         plot_share(axes, row, int(correct[inside].sum()), int(inside.sum()))
#         axes.plot(100 * sure[inside].mean(), row, "D", ms=10, mfc="none", color="black")
# axes.set_yticks(range(len(labels)), labels)
# axes.set(ylabel="the network gives its answer", xlabel="%", xlim=(0, 103))
# axes.set_title("Right (dots), and the network's own estimate (diamonds)")
# plt.show()
# again, avoided = np.sum(sure <= 0.99), np.sum(~correct & (sure <= 0.99))
# print(
#     f"asked again: {again} of {len(sure):,} captchas; errors avoided: {avoided} of {sum(~correct)}"
# )

# %% [markdown]
# Where a diamond lies on the bar of its dot, the network's own estimate is honest. The top row has most of
# the captchas, and hardly any of them is wrong; the lower a row, the larger the share of errors. So a
# program can do what a person would: ask for another captcha when its answer is not in the top row. The printed line
# says how often it would ask, and how many errors it would avoid.
#
# ---
#
# ## What you learned
#
# - A right answer is evidence only against a chance of being right: count, and compare with a coin.
# - Width does not survive a warp that stretches every glyph into the same box; the share of ink
#   within the outline does.
# - To learn whether a network follows a cue, change the cue and as little else as possible, and watch.
# - A confusion matrix shows what to work on, and a calibrated network knows when to ask again.
#
# ## On your own
#
# 1. Set `drawings` to 20. *Expected: whiskers more than twice as long.* [Solution](solutions.ipynb#lesson-6-exercise-1)
# 2. Use `try_threshold` on all three sizes at once. *Expected: the share of ink is right less often,
#    because small glyphs have thicker strokes: whoever does not know the size knows less.*
#    [Solution](solutions.ipynb#lesson-6-exercise-2)
# 3. Thicken `"1111"` and `"IIII"` by a pixel. *Expected: they stay what they are; their
#    difference is in the shape.* [Solution](solutions.ipynb#lesson-6-exercise-3)
#
# ## Further reading
#
# - [The original tutorial](https://github.com/ypwhs/captcha_break) (in Chinese): its last section asks
#   the question of this lesson.
# - [On calibration of modern neural networks](https://arxiv.org/abs/1706.04599), Guo and others, 2017: when
#   you should not take a network's probabilities at face value, and one number that mends them.
# - [Shortcut learning in deep neural networks](https://arxiv.org/abs/2004.07780), Geirhos and others,
#   2020: networks that are right for the wrong reason, and how experiments like ours find out.
#
# Next: [7. Write the sequence model again in PyTorch](ch7_ctc_pytorch.ipynb) · [Solutions](solutions.ipynb)
