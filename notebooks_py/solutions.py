# %% [markdown]
# # Solutions
#
# Try each exercise yourself before you look here. To run a solution, run the three cells below
# first, and any exercise that its text names. You need PyTorch (`make setup-torch`).

# %% tags=["active-ipynb"]
# import itertools
# import os
#
# from notebooks_py import ch7_ctc_pytorch as ch7  # PyTorch comes before TensorFlow, or may crash
#
# os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
#
# import keras
# import matplotlib.pyplot as plt
# import numpy as np
# import pandas as pd
#
# from captcha_reader.bank import GlyphBank
# from captcha_reader.drawing import draw_captchas, draw_glyph, stages, stream
# from captcha_reader.outputs import fresh_folder, show_captchas
# from captcha_reader.practice import Practice
# from captcha_reader.scores import share
# from captcha_reader.styles import draw_style
# from captcha_reader.texts import ALPHABET, LENGTH, WIDTH, random_texts
# from captcha_reader.weights import finished, read_log
# from notebooks_py.ch1_captcha_preview import CaptchaSequence
# from notebooks_py.ch2_cnn import CLASSES, FILTERS, build_cnn
# from notebooks_py.ch3_ctc import SMALL, decode_ctc, read_ctc, small_ctc
# from notebooks_py.ch4_gpu_training import compile_recipe
# from notebooks_py.ch6_o0o0 import count_right, measure, thicken, try_threshold
# from notebooks_py.ch8_own_captchas import fine_tune, own_captchas

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # as in the lessons
# STEPS = 100  # batches of a training

# %% tags=["active-ipynb"]
# DIGITS = "0123456789"
# bank, network = GlyphBank(SEED), finished("ctc")[0]
#
#
# def train(model, steps=STEPS, **options):
#     """Train a compiled network on batches of 32 captchas; return the loss of each batch."""
#     data = CaptchaSequence(32, steps, SEED, draw=bank.draw, **options)
#     return [float(model.train_on_batch(*data[i], return_dict=True)["loss"]) for i in range(steps)]
#
#
# def plot_losses(losses, title):
#     """Draw a curve for each name: means of ten batches."""
#     means = pd.DataFrame(losses).rolling(10).mean()
#     means.plot(figsize=(7, 3), title=title, xlabel="batches of 32", ylabel="loss")
#     plt.show()
#
#
# def count(model, pictures, texts, strategy="greedy"):
#     """Count the captchas that a network reads entirely right."""
#     answers = decode_ctc(model(pictures / 255), strategy=strategy)
#     return sum(answer == text for answer, text in zip(answers, texts, strict=True))
#
#
# def plot_right(right, n):
#     """Draw a bar for each name: how many of n captchas were read right."""
#     title = f"Read right, of {n}"
#     axes = pd.Series(right).plot.barh(figsize=(7, 0.5 * len(right) + 0.5), title=title)
#     axes.bar_label(axes.containers[0])
#     plt.show()

# %% [markdown]
# ## lesson 1 exercise 1
#
# The squeeze: six characters are half as wide again as four, and have to fit into the same
# picture. Dots, arc and filter stay as they are.

# %% tags=["active-ipynb"]
# for length in (4, 6):
#     rng = stream(SEED, "width", epoch=0, index=length)
#     texts = random_texts(rng, 200, length=length)
#     width = np.mean([stages(text, rng).pictures["pasted"].width for text in texts])
#     print(f"{length} characters: {width:.0f} pixels, to be squeezed into {WIDTH}")

# %% [markdown]
# ## lesson 1 exercise 2
#
# `CaptchaSequence(128, 1, SEED, alphabet="0123456789")[0][1]` holds four arrays `(128, 10)`: one
# for each position, with a column for each digit.
#
# ## lesson 1 exercise 3
#
# Each of the ten shapes is stretched into the box in its title. For one letter the box depends on
# the font size alone, so there are three boxes. (A `W` or a `Q` has slightly different ones.)

# %% tags=["active-ipynb"]
# rng = stream(SEED, "ten", epoch=0, index=0)
# glyphs = [draw_glyph("A", (0, 0, 0, 255), rng) for _ in range(10)]
# boxes = [f"{glyph.box[0]}x{glyph.box[1]}" for glyph in glyphs]
# figure = show_captchas([np.asarray(glyph.warped) for glyph in glyphs], boxes, columns=10)
# figure.set_size_inches(10, 1.8)
# plt.show()
# print("boxes:", *sorted(set(boxes)))

# %% [markdown]
# ## lesson 2 exercise 1
#
# Each block has two convolutions, each followed by a normalisation, and the four heads read
# channels that are 2 high and 4 wide:

# %% tags=["active-ipynb"]
# channels = [3, *(filters for filters in FILTERS for _ in range(2))]
# total = sum((9 * a * b + b) + 4 * b for a, b in itertools.pairwise(channels))
# total += LENGTH * (channels[-1] * 2 * 4 * CLASSES + CLASSES)
# print(f"{total:,} by hand, {build_cnn(ink=False).count_params():,} by Keras")

# %% [markdown]
# ## lesson 2 exercise 2
#
# Two heads are added to the `total` of the last exercise; the blocks before them do not depend on
# the length.

# %% tags=["active-ipynb"]
# six = build_cnn(length=6, ink=False)
# added, head = six.count_params() - total, six.layers[-1].count_params()
# print(f"{added:,} are added, {head:,} for each head")

# %% [markdown]
# ## lesson 2 exercise 3
#
# Both learn more slowly. (More classes are harder to guess, so each loss is divided by that of a
# blind guess.)

# %% tags=["active-ipynb", "trained"]
# tasks = {"digits": (DIGITS, True), "A, B, too": (DIGITS + "AB", True), "paper": (DIGITS, False)}
# losses = {}
# for name, (alphabet, ink) in tasks.items():
#     keras.utils.set_random_seed(SEED)
#     model = build_cnn(len(alphabet), ink=ink, momentum=0.9, **SMALL)
#     model.compile(keras.optimizers.Adam(3e-3, amsgrad=True), "categorical_crossentropy")
#     guessed = LENGTH * np.log(len(alphabet))
#     losses[name] = np.array(train(model, alphabet=alphabet)) / guessed
# plot_losses(losses, "Losses, as shares of a blind guess")
# assert STEPS < 100 or pd.DataFrame(losses).tail(20).mean().idxmin() == "digits"

# %% [markdown]
# ## lesson 3 exercise 1
#
# `build_ctc(width=192).output.shape[1]` is 24. Each of the equal characters but the last needs a
# blank after it, so 12 of them fit, with 11 blanks.
#
# ## lesson 3 exercise 2
#
# The plateau, a loss a little above that of four guessed characters, is over after a hundred
# batches. Then the loss falls as in the other trainings.

# %% tags=["active-ipynb", "trained"]
# own = small_ctc(SEED, ink=False, rate=1e-3)
# losses = train(own, 2 * STEPS, labels="ctc")
# plot_losses({"paper is 1": losses}, "The plateau ends")
# assert STEPS < 100 or np.mean(losses[30:60]) > LENGTH * np.log(CLASSES) > 1.2 * losses[-1]

# %% [markdown]
# ## lesson 3 exercise 3
#
# Beam search adds up the paths of a text, which may help a network that is not sure, such as `own`
# of the last exercise. A finished one gives nearly all probability to a single path.

# %% tags=["active-ipynb", "trained"]
# rng, right = stream(SEED, "beam", epoch=0, index=0), {}
# texts = random_texts(rng, 200)
# pictures = draw_captchas(texts, rng)
# for name, way in itertools.product(("own", "finished"), ("greedy", "beam_search")):
#     model = own if name == "own" else network
#     right[f"{name}, {way}"] = count(model, pictures, texts, way)
# plot_right(right, len(texts))

# %% [markdown]
# ## lesson 4 exercise 1
#
# In the folder that the command names, the column `epoch` of `log.csv` counts up without a gap. An
# epoch appears twice if you pressed Ctrl-C after its row was written and before its weights were
# saved.
#
# ## lesson 4 exercise 2
#
# The curve has the same shape as in the lesson, half as high.

# %% tags=["active-ipynb"]
# cycle = compile_recipe(small_ctc(SEED), 10_000, rate=0.01)
# rates = pd.Series({step: float(cycle(step)) for step in range(0, 10_001, 100)})
# rates.plot(figsize=(7, 3), title="Half as high", xlabel="step", ylabel="learning rate")
# plt.show()

# %% [markdown]
# ## lesson 4 exercise 3
#
# Three quarters of the characters are chosen to be `O` or `0`, and chance adds a few among the
# others.

# %% tags=["active-ipynb"]
# practice = Practice(SEED, batch=1_000, sizes=0, hard=1, colors=1)  # one colour is quickly made
# text = "".join(practice(0)[1])
# print(f"{(text.count('O') + text.count('0')) / len(text):.0%} of {len(text):,} characters")

# %% [markdown]
# ## lesson 5 exercise 1
#
# After a run of lesson 2, add the cell `plot_log(pd.read_csv(path), "Mine")` at the end of lesson
# 5. The panels of accuracy and errors have four curves, one for each head.
#
# ## lesson 5 exercise 2
#
# At a tenth of the rate, the held-out loss never exceeds twice its lowest value.

# %% tags=["active-ipynb"]
# log = read_log("original_logs")
# high = log.val_loss > 2 * log.groupby("network").val_loss.cummin()
# print(log.assign(high=high).pivot_table("high", "network", "stage", "sum"))

# %% [markdown]
# ## lesson 5 exercise 3
#
# In 35 of 36 cases a character is not `0`, and the fourth power of this share is the probability
# that none of the four is.

# %% tags=["active-ipynb"]
# print(f"{1 - (35 / 36) ** 4:.1%} of all texts")

# %% [markdown]
# ## lesson 6 exercise 1
#
# The other pairs look alike to us, but their characters differ in a stroke or a corner, which
# survives the warp.

# %% tags=["active-ipynb"]
# for pair in ("O0", "1I", "8B", "5S"):
#     right = count_right(network, pair, 20, SEED)
#     print(f"{pair}: {share(sum(right.values()), 20 * len(right))} right")

# %% [markdown]
# ## lesson 6 exercise 2
#
# Small glyphs have thicker strokes for their size, so a small `O` can have as large a share of
# ink as a large zero.

# %% tags=["active-ipynb"]
# rng = stream(SEED, "glyphs", epoch=0, index=0)
# glyphs = [glyph for _ in range(500) for glyph in stages("0O0O", rng).glyphs]
# for sizes in ([42], [50], [56], [42, 50, 56]):
#     part = [glyph for glyph in glyphs if glyph.font_size in sizes]
#     ink = np.array([measure(glyph)["ink / (ink + hole)"] for glyph in part])
#     right = try_threshold(ink, np.array([glyph.character == "0" for glyph in part]))
#     print(f"{sizes} points: {share(*right)} right, share of ink {ink.mean():.2f}")

# %% [markdown]
# ## lesson 6 exercise 3
#
# Hardly any `1` becomes an `I`, or an `I` a `1`, because they differ in shape. But nearly every
# `OOOO` is read with a zero in it.

# %% tags=["active-ipynb"]
# for text, other in (("1111", "I"), ("IIII", "1"), ("OOOO", "0")):
#     pictures = draw_captchas([text] * 20, stream(SEED, text, epoch=0, index=0))
#     answers = read_ctc(network, np.stack([thicken(picture, 2) for picture in pictures]))
#     print(f"{text}: {sum(other in answer for answer in answers)} of 20 are read with {other}")

# %% [markdown]
# ## lesson 7 exercise 1
#
# The first LSTM reads columns of 256 filters and 2 rows; the second reads both directions of the
# first.

# %% tags=["active-ipynb"]
# sizes = {"convs": 2, "stride": 1, "tall": 1, "norms": "every", "channels": 3, "lstm": 128}
# twin = ch7.CTCNet((32, 64, 128, 256, 256), **sizes)
# by_hand = sum(2 * 4 * 128 * (reads + 128 + 2) for reads in (2 * 256, 2 * 128))
# print(f"{by_hand:,} by hand, {sum(x.numel() for x in twin.lstm.parameters()):,} in the network")

# %% [markdown]
# ## lesson 7 exercise 2
#
# PyTorch's own mean divides each loss by the length of its text, which is four.
#
# ## lesson 7 exercise 3
#
# There is no error. But all past gradients are added up, so the network follows old directions,
# and its loss stays higher.

# %% tags=["active-ipynb", "trained"]
# data = ch7.CaptchaBatches(32, SEED, draw=bank.draw)
# batches, losses = [data[0, index] for index in range(STEPS)], {}
# for name in ("with zero_grad", "without"):
#     ch7.torch.manual_seed(SEED)
#     model = ch7.CTCNet()
#     if name == "without":
#         model.zero_grad = lambda: None
#     losses[name] = list(ch7.train(model, batches, *ch7.recipe(model, len(batches))))
# plot_losses(losses, "Gradients that are never forgotten")
# assert STEPS < 100 or pd.DataFrame(losses).tail(20).mean().idxmin() == "with zero_grad"

# %% [markdown]
# ## lesson 8 exercise 1
#
# The network asks every column the same question, and wider pictures have more columns.

# %% tags=["active-ipynb"]
# rng = stream(SEED, "seven", epoch=0, index=0)
# texts = random_texts(rng, 100, length=7)
# print(share(count(network, draw_captchas(texts, rng, width=256), texts), len(texts)), "right")

# %% [markdown]
# ## lesson 8 exercise 2
#
# Unless its pictures are moved, the network soon knows them by heart and reads fewer others
# right.

# %% tags=["active-ipynb", "trained"]
# def tuned(pictures, texts, far=1.0):
#     """Return the finished network after a training on these pictures."""
#     model = finished("ctc")[0]
#     data = own_captchas(pictures, texts, ALPHABET, SEED, far)
#     fine_tune(model, data, STEPS, fresh_folder("solutions"))
#     return model
#
#
# rng = stream(SEED, "foreign", epoch=0, index=0)
# said = random_texts(rng, 400)
# style = draw_style("colours", said, rng)
# new, still = (tuned(style[:200], said[:200], far) for far in (1.0, 0.0))
# networks = {"moved": new, "as they are": still}
# right = {name: count(model, style[200:], said[200:]) for name, model in networks.items()}
# plot_right(right, 200)

# %% [markdown]
# ## lesson 8 exercise 3
#
# Trained on the other style alone, the network (`new` of the last exercise) forgets some of
# lesson 1's style; the longer the training, the more it forgets. With a hundred old pictures
# among the new ones it keeps most. (This training is shorter than that of the lesson.)

# %% tags=["active-ipynb", "trained"]
# rng = stream(SEED, "old style", epoch=0, index=0)
# texts = random_texts(rng, 300)
# pictures = draw_captchas(texts, rng)
# both = tuned(np.concatenate([style[:200], pictures[:100]]), said[:200] + texts[:100])
# networks = {"before": network, "new style alone": new, "both": both}
# right = {name: count(model, pictures[100:], texts[100:]) for name, model in networks.items()}
# plot_right(right, 200)
# assert STEPS < 100 or right["new style alone"] < right["before"]
