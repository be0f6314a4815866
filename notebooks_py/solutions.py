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
# # Solutions
#
# Here are the exercises of the lessons, solved. Try each one yourself first. Under every heading is
# one exercise; to run it, run the three code cells before the first one, and what its text names.
# The trainings are short, so that all of them together take a minute or two. Lesson 7 needs PyTorch
# (`make setup-torch`).

# %% tags=["active-ipynb"]
# import contextlib
# import functools
# import os
# import random
#
# os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
#
# with contextlib.suppress(ImportError):  # where PyTorch is installed, it comes before TensorFlow
#     from notebooks_py import ch7_ctc_pytorch as ch7
#
# import keras
# import matplotlib.pyplot as plt
# import numpy as np
# from matplotlib import font_manager
#
# from captcha_reader.bank import GlyphBank
# from captcha_reader.drawing import draw_captchas, draw_glyph, stages, stream
# from captcha_reader.outputs import show_captchas
# from captcha_reader.practice import Practice
# from captcha_reader.scores import share, wilson
# from captcha_reader.texts import HEIGHT, LENGTH, WIDE_WIDTH, WIDTH, ctc_labels, random_texts
# from captcha_reader.weights import finished, read_log
# from notebooks_py.ch1_captcha_preview import CaptchaSequence
# from notebooks_py.ch2_cnn import CLASSES, FILTERS, build_cnn
# from notebooks_py.ch3_ctc import SMALL, build_ctc, decode_ctc, lattice, read_ctc, small_ctc
# from notebooks_py.ch4_gpu_training import compile_recipe
# from notebooks_py.ch6_o0o0 import count_right, measure, thicken, try_threshold
# from notebooks_py.ch8_own_captchas import draw_foreign, fine_tune

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # as in the lessons
# STEPS = 100  # batches of a training

# %% tags=["active-ipynb"]
# DIGITS = "0123456789"
# bank, network = GlyphBank(SEED), finished("ctc")[0]
#
#
# def train(model, steps, **options):
#     """Train a compiled network on batches of 32 captchas; return the loss of each batch."""
#     data = CaptchaSequence(32, steps, SEED, draw=bank.draw, **options)
#     return [float(model.train_on_batch(*data[i], return_dict=True)["loss"]) for i in range(steps)]
#
#
# def plot_losses(losses, title):
#     """Draw a curve for each name: each point is the mean of ten batches."""
#     figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
#     for name, values in losses.items():
#         axes.plot(np.convolve(values, np.ones(10) / 10, "valid"), label=name)
#     axes.set(title=title, xlabel="batches of 32", ylabel="loss", ylim=(0, None))
#     axes.legend()
#     plt.show()
#
#
# def plot_right(right, n):
#     """Draw how many of n captchas were read right: a bar for each name."""
#     figure, axes = plt.subplots(figsize=(7, 0.4 * len(right) + 0.8), layout="constrained")
#     axes.bar_label(axes.barh(list(right), right.values()), padding=3)
#     axes.set(title=f"Read right, of {n}", xlim=(0, 1.1 * n))
#     axes.invert_yaxis()
#     plt.show()
#
#
# def count(model, pictures, texts, strategy="greedy"):
#     """Count the captchas that a network reads entirely right."""
#     answers = decode_ctc(model(pictures / 255), strategy=strategy)
#     return sum(answer == text for answer, text in zip(answers, texts, strict=True))

# %% [markdown]
# ## lesson 1 exercise 1
#
# Which stage gets stronger for six characters? The squeeze: before it they are half as wide again,
# and all have to fit into the same picture. The number of dots stays, and so do arc and filter.

# %% tags=["active-ipynb"]
# widths = {}
# for length in (4, 6):
#     rng = stream(SEED, "six characters", epoch=0, index=length)
#     texts = random_texts(rng, 200, length=length)
#     widths[length] = np.mean([stages(text, rng).pictures["pasted"].width for text in texts])
#     print(f"{length} characters: {widths[length]:.0f} pixels, to be squeezed into {WIDTH}")
# assert widths[4] > WIDTH and abs(widths[6] / widths[4] - 1.5) < 0.1

# %% [markdown]
# ## lesson 1 exercise 2
#
# Labels of digits are four arrays, one for each position. A row has a column for each digit.

# %% tags=["active-ipynb"]
# pictures, labels = CaptchaSequence(128, 1, SEED, alphabet=DIGITS)[0]
# print([head.shape for head in labels])

# %% [markdown]
# ## lesson 1 exercise 3
#
# What does the warp do to ten drawings of a letter? It makes ten shapes. Each is stretched into the
# box in its title, which depends on the font size alone, so there are three boxes.

# %% tags=["active-ipynb"]
# rng = random.Random(SEED)
# glyphs = [draw_glyph("A", (0, 0, 0, 255), rng) for _ in range(10)]
# shapes = [np.asarray(glyph.rotated) for glyph in glyphs] + [np.asarray(g.warped) for g in glyphs]
# boxes = [f"{glyph.box[0]}x{glyph.box[1]}" for glyph in glyphs]
# figure = show_captchas(shapes, 10 * ["turned"] + boxes, columns=10, title="A, turned and warped")
# figure.set_size_inches(10, 3)
# plt.show()
# print("boxes:", *sorted(set(boxes)))
# assert len({shape.tobytes() for shape in shapes[10:]}) == 10

# %% [markdown]
# ## lesson 2 exercise 1
#
# The parameters of `build_cnn(ink=False)` by hand:

# %% tags=["active-ipynb"]
# total, channels = 0, 3
# for filters in FILTERS:
#     for a, b in ((channels, filters), (filters, filters)):  # two convolutions in each block
#         total += (9 * a * b + b) + 4 * b  # and a normalisation behind each
#     channels = filters
# features = channels * (HEIGHT // 2**5) * (WIDTH // 2**5)  # five poolings halve both sides
# total += LENGTH * (features * CLASSES + CLASSES)
# print(f"{total:,} by hand, {build_cnn(ink=False).count_params():,} by Keras")
# assert total == build_cnn(ink=False).count_params()

# %% [markdown]
# ## lesson 2 exercise 2
#
# Six heads have the parameters of two heads more; the blocks before them know nothing of the
# length.

# %% tags=["active-ipynb"]
# four, six = build_cnn(ink=False), build_cnn(length=6, ink=False)
# added, head = six.count_params() - four.count_params(), six.layers[-1].count_params()
# print(f"{added:,} are added, {head:,} for each head")
# assert added == 2 * head

# %% [markdown]
# ## lesson 2 exercise 3
#
# With `A` and `B` among the digits, or with paper = 1, the network learns more slowly. (More
# classes are harder to guess, so each loss is divided by that of a blind guess.)

# %% tags=["active-ipynb"]
# losses = {}
# tasks = [("digits", DIGITS, True), ("and A, B", DIGITS + "AB", True), ("paper", DIGITS, False)]
# for name, alphabet, ink in tasks:
#     keras.utils.set_random_seed(SEED)
#     model = build_cnn(len(alphabet), ink=ink, momentum=0.9, **SMALL)
#     model.compile(keras.optimizers.Adam(3e-3, amsgrad=True), "categorical_crossentropy")
#     guessed = LENGTH * np.log(len(alphabet))
#     losses[name] = np.array(train(model, STEPS, alphabet=alphabet)) / guessed
# plot_losses(losses, "Losses, as shares of a blind guess")
# digits, *others = [np.mean(values[-20:]) for values in losses.values()]
# assert STEPS < 100 or digits < min(others)

# %% [markdown]
# ## lesson 3 exercise 1
#
# How many equal characters can be read in 192 pixels? Each but the last needs a blank behind it.
# For one character more the lattice has no path, and the probability is 0.

# %% tags=["active-ipynb"]
# steps, classes = build_ctc(width=WIDE_WIDTH).output.shape[1:]
# equal = np.full((steps, classes), 1 / classes)  # all answers equally likely
# most = max(n for n in range(1, steps) if lattice(equal, [1] * n)[-2:, -1].sum() > 0)
# print(f"{steps} steps, up to {most} equal characters")
# assert most == (steps + 1) // 2

# %% [markdown]
# ## lesson 3 exercise 2
#
# Train longer with paper = 1. The plateau, a loss a little above that of four guessed characters,
# is over after a hundred batches; then the loss falls as in the other trainings.

# %% tags=["active-ipynb"]
# own = small_ctc(SEED, ink=False, rate=1e-3)
# losses = train(own, 3 * STEPS, labels="ctc")  # ten times 400 in the lesson
# plot_losses({"paper is 1": losses}, "The plateau ends")
# assert STEPS < 100 or np.mean(losses[30:60]) > LENGTH * np.log(CLASSES) > 2 * losses[-1]

# %% [markdown]
# ## lesson 3 exercise 3
#
# Beam search adds up all paths of a text, which helps a network that is not sure, such as `own` of
# the last exercise. A finished one gives nearly all probability to a single path and gains next to
# nothing.

# %% tags=["active-ipynb"]
# rng = stream(SEED, "beam", epoch=0, index=0)
# texts = random_texts(rng, 500)
# pictures, right = draw_captchas(texts, rng), {}
# for name, model in {"own": own, "finished": network}.items():
#     for way in ("greedy", "beam_search"):
#         right[f"{name}, {way}"] = count(model, pictures, texts, way)
# plot_right(right, len(texts))
# assert right["own, beam_search"] >= right["own, greedy"] - 5
# assert abs(right["finished, beam_search"] - right["finished, greedy"]) < 5

# %% [markdown]
# ## lesson 4 exercise 1
#
# To stop a training and go on, type `make train MODEL=ctc BUDGET=20min`, Ctrl-C, and the same
# again. It names its folder, and the column `epoch` of the `log.csv` there counts up without a gap.
# An epoch stands there twice if Ctrl-C came after its row was written and before its weights were
# saved.
#
# ## lesson 4 exercise 2
#
# The learning rate of 10,000 steps with a peak of 0.01 has the lesson's shape, half as high.

# %% tags=["active-ipynb"]
# figure, axes = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
# for steps, peak in ((1_000, 0.02), (10_000, 0.01)):
#     cycle = compile_recipe(small_ctc(SEED), steps, peak)
#     rates = np.array([float(cycle(steps * percent / 100)) for percent in range(101)])
#     axes.plot(rates, label=f"{steps:,} steps, peak {peak}")
#     assert abs(rates[5] - peak) < 1e-6 and abs(rates[100]) < 1e-6
# axes.set(title="One shape", xlabel="part of the run (%)", ylabel="learning rate")
# axes.legend()
# plt.show()

# %% [markdown]
# ## lesson 4 exercise 3
#
# If all captchas are hard ones, three quarters of the characters are put there on purpose as `O` or
# `0`. Chance adds a few among the others.

# %% tags=["active-ipynb"]
# practice = Practice(SEED, sizes=0, hard=1, colors=1)  # the bank of one colour is quickly made
# text = "".join(text for number in range(10) for text in practice(number)[1])
# pair = (text.count("O") + text.count("0")) / len(text)
# print(f"{pair:.0%} of {len(text):,} characters")
# assert 0.73 < pair < 0.79

# %% [markdown]
# ## lesson 5 exercise 1
#
# After a run of lesson 2, put `path = "../build/lessons/ch2_cnn/run-001/cnn.csv"` into the last
# cell of lesson 5. The panels of what is right have four curves, one for each head. A captcha is
# right only where all four heads are, so their curves lie above the share of whole captchas.
#
# ## lesson 5 exercise 2
#
# With `n = 100_000`, a hundred times as many captchas, the spread of the fifteen networks is a
# tenth: it goes with the square root.

# %% tags=["active-ipynb"]
# n = 100_000
# right = 100 * np.random.default_rng(SEED).binomial(n, 0.95, size=15) / n
# print(f"from {right.min():.2f} to {right.max():.2f} % right")
# assert np.abs(right - 95).max() < 0.2

# %% [markdown]
# ## lesson 5 exercise 3
#
# Where does the cycle overtake the two stages? Early, and once: at first its average remembers
# random weights.

# %% tags=["active-ipynb"]
# log = read_log("stages").set_index("pictures")
# losses = {recipe: rows.val_loss for recipe, rows in log.groupby("recipe")}
# ahead = losses["one cycle"].to_numpy() < losses["two stages"].to_numpy()
# seen = losses["one cycle"].index
# print(f"behind up to {seen[~ahead].max():,} captchas, ahead from {seen[ahead].min():,} on")
# assert seen[~ahead].max() < seen[ahead].min()

# %% [markdown]
# ## lesson 6 exercise 1
#
# With 20 drawings of each string instead of 100, and the same share of them right, whiskers are
# more than twice as long: they go with the square root.

# %% tags=["active-ipynb"]
# right = count_right(network, "O0", 20, SEED).values()
# short, long = (np.mean([np.ptp(wilson(n * k // 20, n)) for k in right]) for n in (100, 20))
# print(f"about {long / short:.0f} times as long")
# assert 2 < long / short < 2.4

# %% [markdown]
# ## lesson 6 exercise 2
#
# One threshold for all font sizes is right less often. Small glyphs have thicker strokes for their
# size, so a small `O` can have as large a share of ink as a large zero.

# %% tags=["active-ipynb"]
# rng = stream(SEED, "glyphs", epoch=0, index=0)
# glyphs = [glyph for _ in range(500) for glyph in stages("0O0O", rng).glyphs]
# sizes = np.array([glyph.font_size for glyph in glyphs])
# zero = np.array([glyph.character == "0" for glyph in glyphs])
# ink, right = np.array([measure(glyph)["ink / (ink + hole)"] for glyph in glyphs]), []
# for size in ({42}, {50}, {56}, {42, 50, 56}):
#     part = np.isin(sizes, list(size))
#     hits, n = try_threshold(ink[part], zero[part])
#     right.append(hits / n)
#     print(f"{sorted(size)} points: {share(hits, n)} right, share of ink {ink[part].mean():.2f}")
# assert right[3] < np.mean(right[:3]) - 0.05

# %% [markdown]
# ## lesson 6 exercise 3
#
# Thickened by a pixel, hardly a `1` becomes an `I`, or an `I` a `1`: their difference is in the
# shape. (Some captchas lose one of the four.) Nearly every `OOOO` is read with a zero in it.

# %% tags=["active-ipynb"]
# shown, texts, answers, mixed = [], [], [], {}
# for text, other in (("1111", "I"), ("IIII", "1"), ("OOOO", "0")):
#     pictures = draw_captchas([text] * 20, stream(SEED, text, epoch=0, index=0))
#     thick = [thicken(picture, 2) for picture in pictures]
#     read = read_ctc(network, np.stack(thick))
#     mixed[text] = sum(other in answer for answer in read)
#     shown, texts, answers = shown + thick[:4], texts + 4 * [text], answers + read[:4]
# show_captchas(shown, texts, answers, title="A pixel thicker")
# plt.show()
# assert max(mixed["1111"], mixed["IIII"]) <= 4 < 16 <= mixed["OOOO"]

# %% [markdown]
# ## lesson 7 exercise 1
#
# The parameters of the two LSTMs by hand:

# %% tags=["active-ipynb"]
# filters, size = (32, 64, 128, 256, 256), 128
# reads = [filters[-1] * HEIGHT // 2**5, 2 * size]  # a column; both directions of the first LSTM
# by_hand = sum(2 * 4 * size * (a + size + 2) for a in reads)
# full = ch7.CTCNet(filters, convs=2, stride=1, tall=1, channels=3, lstm=size)
# counted = sum(weights.numel() for weights in full.lstm.parameters())
# print(f"{by_hand:,} by hand, {counted:,} by PyTorch")
# assert by_hand == counted

# %% [markdown]
# ## lesson 7 exercise 2
#
# PyTorch's own mean divides each loss by the length of its text, four.

# %% tags=["active-ipynb"]
# import torch
#
# torch.manual_seed(SEED)
# logits, labels = torch.randn(24, 32, CLASSES + 1), torch.randint(1, CLASSES + 1, (32, LENGTH))
# lengths = torch.full((32,), 24), torch.full((32,), LENGTH)
# mean = ch7.F.ctc_loss(logits.log_softmax(-1), labels, *lengths, blank=0, reduction="mean")
# print(f"the lesson's loss is {ch7.ctc_loss(logits, labels) / mean:.2f} times as large")

# %% [markdown]
# ## lesson 7 exercise 3
#
# Without `zero_grad` there is no error. All gradients of the past are added up, so the network
# follows old directions, and its loss leaves the shelf later.

# %% tags=["active-ipynb"]
# draw, losses = functools.partial(bank.draw, width=WIDE_WIDTH), {}
# for name in ("with zero_grad", "without"):
#     ch7.torch.manual_seed(SEED)
#     model, data = ch7.CTCNet(), ch7.CaptchaBatches(32, SEED, draw=draw)
#     if name == "without":
#         model.zero_grad = lambda: None
#     batches = (data[0, index] for index in range(2 * STEPS))
#     losses[name] = list(ch7.train(model, batches, *ch7.recipe(model, 2 * STEPS)))
# plot_losses(losses, "Gradients that are never forgotten")
# usual, other = (np.mean(values[-50:]) for values in losses.values())
# assert STEPS < 100 or usual < other

# %% [markdown]
# ## lesson 8 exercise 1
#
# The network never practised seven characters, but it asks every column the same question, and
# wider pictures have more columns.

# %% tags=["active-ipynb"]
# rng = stream(SEED, "seven", epoch=0, index=0)
# texts = random_texts(rng, 100, length=7)
# pictures = draw_captchas(texts, rng, width=256)
# right, shown = count(network, pictures, texts), pictures[:6]
# title = f"{right} of {len(texts)} are right"
# show_captchas(shown, texts, read_ctc(network, shown), columns=3, title=title)
# plt.show()
# assert right > 70

# %% [markdown]
# ## lesson 8 exercise 2
#
# Unless its pictures are moved, the network soon knows them by heart and reads fewer others right.
# (Here the other style is drawn without a folder.)

# %% tags=["active-ipynb"]
# def tuned(pictures, texts, moved=True):
#     """Return the finished network after a training on these pictures."""
#     keras.utils.set_random_seed(SEED)
#     X, model = pictures.astype("float32") / 255, finished("ctc")[0]
#     fine_tune(model, X, ctc_labels(texts), STEPS, SEED, moved)
#     return model
#
#
# rng = stream(SEED, "foreign", epoch=0, index=0)
# said = random_texts(rng, 400)
# style = draw_foreign(said, rng, font_manager.findfont("DejaVu Serif:bold"))
# new, right = tuned(style[:200], said[:200]), {}
# for name, model in {"moved": new, "as it is": tuned(style[:200], said[:200], False)}.items():
#     right[f"{name}: those of the training"] = count(model, style[:200], said[:200])
#     right[f"{name}: others"] = count(model, style[200:], said[200:])
# plot_right(right, 200)
# assert STEPS < 100 or right["as it is: others"] < right["moved: others"]

# %% [markdown]
# ## lesson 8 exercise 3
#
# Trained on the other style alone, the network (`new` of the last exercise) forgets much of lesson
# 1, and the more so the longer the training. With a hundred old pictures among the new ones it
# keeps most.

# %% tags=["active-ipynb"]
# rng, right = stream(SEED, "old style", epoch=0, index=0), {}
# texts = random_texts(rng, 300)
# pictures = draw_captchas(texts, rng)
# both = tuned(np.concatenate([style[:200], pictures[:100]]), said[:200] + texts[:100])
# for name, model in {"before": network, "new style alone": new, "both": both}.items():
#     right[f"{name}: lesson 1"] = count(model, pictures[100:], texts[100:])
#     right[f"{name}: other style"] = count(model, style[200:], said[200:])
# plot_right(right, 200)
# assert STEPS < 100 or right["new style alone: lesson 1"] < right["both: lesson 1"]
