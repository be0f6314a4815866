# %% [markdown]
# # 6. Tell O from 0
#
# *Lesson 6 of 8 · 35 minutes · needs 3 · no training*
#
# By the end of this lesson you will know whether the finished network can tell `O` from `0` or only guesses, which cue
# survives the warp, and how to test whether the network follows that cue. You will also know what its errors are, and
# whether it knows when it is wrong. You need [lesson 3](ch3_ctc.ipynb); a CPU is enough.

# %% tags=["hide-input"]
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import itertools
from collections import Counter
from collections.abc import Sequence

import keras
import numpy as np
from PIL import Image

from captcha_reader.drawing import Glyph, draw_captchas, mask_of, stream
from captcha_reader.reading import scale
from captcha_reader.texts import ALPHABET, LENGTH, ctc_labels
from notebooks_py.ch3_ctc import decode_ctc, read_ctc


def slash(texts: Sequence[str]) -> list[str]:
    """Write zero with a slash, for titles and labels."""
    return [text.replace("0", "Ø") for text in texts]


# %% [markdown]
# You may change these two numbers.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures
# STEPS = 20  # batches of 100 captchas, to see how sure the network is

# %% [markdown]
# ## Knowledge or luck?
#
# The original tutorial ends with a question: can its network really read `O0O0`, or does it guess? Here are twelve
# captchas of `O` and `0` alone. Cover the titles, which show the finished network's answers, and read them yourself. (In
# titles and labels, zero has a slash.)

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

# %% [markdown]
# Now we draw all sixteen strings of `O` and `0` many times.

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
# from captcha_reader.outputs import plot_shares
# from captcha_reader.scores import share
#
# drawings = 100  # of each string
# right = count_right(model, "O0", drawings, SEED)
# total, n = sum(right.values()), drawings * len(right)
# figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
# plot_shares(axes, slash(map(" ".join, right)), list(right.values()), drawings, fmt="o")
# axes.axhline(100 / 16, color="crimson", ls=":", label="a fair coin: 1 in 16")
# axes.set(xlabel="what was drawn", ylabel="read right (%)", ylim=(0, 105))
# axes.set_title(f"OØOØ against a coin: {share(total, n)}")
# axes.tick_params("x", labelfontfamily="monospace", labelrotation=60)
# axes.legend(loc=(0.76, 0.2))
# plt.show()

# %% [markdown]
# The whiskers are 95 % intervals (lesson 2), and all of them are far above the dotted line. So the network, which
# practised this pair (lesson 4), can tell `O` from `0`. Still, such captchas are harder for it than ordinary ones.
#
# ## What is left to see
#
# How can anybody tell the two apart? In the font, `0` is narrower than `O`, and their strokes are about equally thick.
# But the captcha package turns each glyph, **stretches it into a box that is as wide for `0` as for `O`**, and moves
# the corners. After that, neither the width of a glyph nor the thickness of its strokes says much. What remains is the
# *hole*: in a zero it takes up a smaller share of the area within the outline. The difference is small, but it survives
# the warp.
#
# The rest of this area is ink, and we measure its share. A pixel without ink belongs to the hole if there is ink above,
# below, left and right of it.

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
# Here are a typical zero and a typical `O` of 56 points, from the font to the warp:

# %% tags=["active-ipynb", "hide-input"]
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
# figure.suptitle("Ink (blue), hole (yellow), and the share of ink", y=1.08)
# plt.show()

# %% [markdown]
# Stretched, both fill the same box, but the zero has the smaller hole and the larger share of ink, even after the warp.
#
# These are only two glyphs, so we measure many, and choose a threshold for the width or the share of ink: above it we
# say `0` and below it `O`, or the other way round. How often is that right?

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
# We take 1,500 captchas apart:

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
# figure, row = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
# ranges = np.arange(23, 37) - 0.5, np.linspace(0.58, 0.72, 43)
# for axes, bins, (name, all_values) in zip(row, ranges, numbers.items(), strict=True):
#     for character, kind in (("Ø", zero), ("O", ~zero)):
#         axes.hist(all_values[one & kind], bins, alpha=0.6, label=character)
#     axes.set(title=f"Zero or O by {name}?", xlabel=name, ylabel="glyphs of 56 points")
#     axes.legend()
# plt.show()

# %% [markdown]
# The width is little better than a coin: on the left, the two histograms nearly coincide. The share of ink is right for
# most glyphs, least often for small ones. On the right, a threshold fails only where the histograms overlap.
#
# ## Does the network use this cue?
#
# That a cue *exists* does not mean that the network follows it. To find out, we change the cue and as little else as
# possible. If a small hole says `0`, an `O` with thicker strokes should be read as `0`, a `0` with thinner strokes as
# `O`, and a narrower captcha as before.

# %%
def thicken(picture: np.ndarray, quarters: int) -> np.ndarray:
    """Make strokes thicker (or thinner, below 0): each side moves by `quarters` / 4 pixels."""
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
# To make strokes thicker, we enlarge the picture and give each pixel the darkest value around it; the brightest value
# makes them thinner. Here is `OØOP`, changed in five ways, and what the network reads:

# %% tags=["active-ipynb"]
# picture = draw_captchas(["O0OP"], stream(SEED, "O0OP", epoch=0, index=20))[0]
# changed = {f"{q / 2:+g} pixels": thicken(picture, q) for q in (-2, -1, 0, 1, 2)}
# changed["width 87 %"] = narrow(picture, 26 / 30)
# answers = read_ctc(model, np.stack(list(changed.values())))
# titles = [f"{name}: {a}" for name, a in zip(changed, slash(answers), strict=True)]
# show_captchas(list(changed.values()), titles, columns=3, title="Other strokes, and what is read")
# plt.show()

# %% [markdown]
# Here the strokes change the answer, and the width does not. One captcha is no proof, so we count how many of the drawn
# `O`, and of the drawn `0`, are read as `0`.

# %%
def called_zero(
    model: keras.Model, pictures: np.ndarray, texts: Sequence[str]
) -> list[tuple[int, int]]:
    """Count how many of the drawn O are read as 0, and how many there are; then the same for 0.

    Answers that are not of four characters are left out.
    """
    answers = zip(texts, read_ctc(model, pictures), strict=True)
    whole = [pair for pair in answers if len(pair[1]) == LENGTH]
    drawn, read = ("".join(pair[i] for pair in whole) for i in (0, 1))
    pairs = Counter(zip(drawn, read, strict=True))
    return [(pairs[character, "0"], drawn.count(character)) for character in "O0"]


# %% [markdown]
# We change ten captchas of each of the sixteen strings.

# %% tags=["active-ipynb"]
# texts = 10 * ["".join(letters) for letters in itertools.product("O0", repeat=LENGTH)]
# pictures = draw_captchas(texts, stream(SEED, "changed", epoch=0, index=0))
# quarters, factors = range(-3, 4), (0.75, 26 / 30, 1)
# thick = [called_zero(model, np.stack([thicken(p, q) for p in pictures]), texts) for q in quarters]
# slim = [called_zero(model, np.stack([narrow(p, f) for p in pictures]), texts) for f in factors]
# figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
# for i, name in ((1, "drawn Ø"), (0, "drawn O")):
#     plot_shares(left, np.array(quarters) / 2, *np.transpose(thick)[:, i], name)
#     plot_shares(right, factors, *np.transpose(slim)[:, i], name)
# left.set(title="Other strokes", xlabel="thicker by (pixels)", ylabel="read as zero (%)")
# right.set(title="Narrower captchas", xlabel="width (factor)", ylim=(-3, 103))
# right.legend(title=f"of {np.max(thick)} characters or fewer", loc="center")
# plt.show()

# %% [markdown]
# Left: with strokes thinner by a pixel, most zeros are no longer read as `0`; with strokes thicker by a pixel, most `O`
# are read as `0`. Right: in the font a zero is 26 pixels wide, and an `O` 30. A captcha squeezed by this ratio is read
# nearly as before (a few more `O` become zeros), although its upright strokes get thinner, and even of those squeezed to
# three quarters most `O` remain `O`. So the network relies much less on the width of letters, or on the thickness of
# strokes in pixels, than on the share of the hole, which thicker strokes change and squeezing does not. It probably uses
# something else as well: it reads most strings without a single mistake, while our threshold is wrong about one
# *character* in ten or more.
#
# ## All errors
#
# `models/ctc_errors.csv` holds all captchas of `classic-100k` that the network reads wrong. A *confusion matrix*
# counts, for each true character (row), what was read instead (column). We leave out correct characters (the diagonal)
# and answers of the wrong length.

# %% tags=["active-ipynb", "hide-input"]
# from captcha_reader.weights import read_errors
#
# wrong, n = read_errors("ctc"), results["scores"]["classic-100k"]["n"]
# pairs = [zip(*pair, strict=True) for pair in wrong if len(pair[1]) == LENGTH]
# counts = Counter((drawn, read) for pair in pairs for drawn, read in pair if drawn != read)
# names = sorted(ALPHABET, key=("0O" + ALPHABET).index)  # these two first
# matrix = np.array([[counts[drawn, read] for read in names] for drawn in names])
# figure, axes = plt.subplots(figsize=(8.4, 8.2), layout="constrained")
# axes.imshow(np.log1p(matrix), cmap="Blues")
# for row, column in np.argwhere(matrix):
#     color = "white" if matrix[row, column] > matrix.max() ** 0.6 else "black"
#     text = {"ha": "center", "va": "center", "fontsize": 8, "color": color}
#     axes.text(column, row, matrix[row, column], **text)
# axes.set_xticks(range(len(names)), slash(names), family="monospace")
# axes.set_yticks(range(len(names)), slash(names), family="monospace")
# pair = counts["O", "0"] + counts["0", "O"]
# axes.set(xlabel="read as", ylabel="drawn")
# axes.set_title(f"{matrix.sum():,} wrong characters in {n:,} captchas, {pair:,} of them O and Ø")
# plt.show()
# print(f"not shown: {len(wrong) - len(pairs):,} of {len(wrong):,} wrong answers, of another length")
# same = str.maketrans("0", "O")
# left = sum(text.translate(same) != answer.translate(same) for text, answer in wrong)
# print(f"captchas read right: {share(n - len(wrong), n)}")
# print(f"if O and 0 were one: {share(n - left, n)}")

# %% [markdown]
# Two cells in the corner stand out: zero read as `O`, and `O` as zero. (The shades are logarithmic.) If the two were one
# character, most errors would be gone, so this pair is the one to work on.
#
# ## Does the network know when it is wrong?
#
# The CTC loss of lesson 3 is minus the logarithm of a text's probability. So with the network's own answer as the text,
# `exp(-loss)` says how sure the network is.

# %%
def read_surely(model: keras.Model, pictures: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Read uint8 pictures of one size; return the answers and the network's probability of each."""
    logits = model.predict_on_batch(scale(pictures).astype("float32") / 255)
    answers = decode_ctc(logits)
    labels = ctc_labels(answers, length=logits.shape[1])
    losses = keras.ops.convert_to_numpy(keras.losses.ctc(labels, logits))
    return answers, np.exp(-np.maximum(losses, 0))  # rounding may lead below 0

# %% [markdown]
# A network is *calibrated* if, among answers with a probability of `0.8`, about four in five are right. We read the
# beginning of `classic-10k` and `sizes-10k` and all of `nothing-1k` (lesson 3), and group the answers by how sure the
# network was.

# %% tags=["active-ipynb", "hide-input"]
# from captcha_reader.outputs import plot_calibration
# from captcha_reader.testsets import draw_test_set
#
# batches = {"classic-10k": STEPS, "sizes-10k": 5 * STEPS, "nothing-1k": 5 * STEPS}  # of 100 or 20
# figure, grid = plt.subplots(2, 2, figsize=(9.4, 7.4), layout="constrained")
# for axes, (name, count) in zip(grid.flat, batches.items(), strict=False):
#     correct, sure = [], []
#     for pictures, texts in itertools.islice(draw_test_set(name), count):
#         answers, probabilities = read_surely(model, pictures)
#         correct += [text == answer for text, answer in zip(texts, answers, strict=True)]
#         sure += list(probabilities)
#     plot_calibration(axes, sure, correct)
#     axes.set_title(f"{name}, the first {len(sure):,}")
#     wrong = ~np.array(correct)[np.argsort(sure)]  # the least sure answer first
#     again, avoided = np.sum(np.array(sure) <= 0.99), np.cumsum(wrong)
#     label = f"{name}: {again / len(sure):.1%}, {avoided[again - 1]} of {wrong.sum()}"
#     asked = 100 * np.arange(1, len(sure) + 1) / len(sure)
#     grid[1, 1].plot(asked, 100 * avoided / wrong.sum(), "-o", markevery=[again - 1], label=label)
# grid[1, 1].set_title("If the network asks for another captcha")
# grid[1, 1].set(xlabel="captchas swapped for another (%)", ylabel="errors avoided (%)", xlim=(0, 50))
# grid[1, 1].legend(title="swapped, errors avoided", loc="lower right")
# plt.show()

# %% [markdown]
# On the dotted line, the network would be right exactly as often as it says. Most answers are in the highest group, and
# nearly all of these are right, even at other sizes and where there is nothing to read. If a whisker ended below the
# line, the network would be *overconfident* in this group. None does here, but the lower groups are small. So the
# percentage is a good warning, but not an exact one.
#
# Lower right: a program that is not sure can ask for another captcha, as a person would. The more often it asks,
# starting with the least sure answers, the more errors it avoids. The dots stand for asking whenever the network is at
# most 99 % sure: this avoids all errors here, but swaps one in eight captchas of `classic-10k`, and one in five of
# `sizes-10k`.
#
# ---
#
# ## What you learned
#
# - A few right answers may be luck: count many, and compare with a coin.
# - Width does not survive a warp that stretches every glyph into the same box; the share of ink nearly does.
# - To learn whether a network follows a cue, change the cue and as little else as possible.
# - A confusion matrix shows what to work on, and a calibrated network knows when to ask again.
#
# ## On your own
#
# 1. Are other pairs as hard? Guess first, then call `count_right` with `"1I"`, `"8B"` and `"5S"`, and 20 drawings of
#    each string. *Expected: nearly all are read right.* [Solution](solutions.ipynb#lesson-6-exercise-1)
# 2. Use `try_threshold` on all three sizes at once. *Expected: the share of ink is right less often, because small
#    glyphs have thicker strokes for their size.* [Solution](solutions.ipynb#lesson-6-exercise-2)
# 3. Thicken `"1111"` and `"IIII"` by a pixel. *Expected: neither turns into the other, because these two differ in
#    shape.* [Solution](solutions.ipynb#lesson-6-exercise-3)
#
# ## Further reading
#
# - [On calibration of modern neural networks](https://arxiv.org/abs/1706.04599), Guo and others, 2017: when not to take
#   a network's probabilities at face value, and one number that corrects them.
# - [Shortcut learning in deep neural networks](https://arxiv.org/abs/2004.07780), Geirhos and others, 2020: networks
#   that are right for the wrong reason, and how experiments like ours reveal this.
#
# Next: [7. Write the sequence model again in PyTorch](ch7_ctc_pytorch.ipynb) · [Solutions](solutions.ipynb)
