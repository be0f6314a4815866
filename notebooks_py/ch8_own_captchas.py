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
# # 8. Read captchas of your own
#
# *Lesson 8 of 8 · 35 minutes · needs 4 · trains a minute*
#
# At the end of this lesson you read pictures of any size with one call, you have taught it a style that it had never seen from two hundred labelled
# pictures, and you can take it with you, into a program without Keras or into a web page. You need
# [lesson 4](ch4_gpu_training.ipynb); a CPU is enough.

# %%
import math
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from PIL import Image, ImageDraw, ImageFont

from captcha_reader.drawing import draw_wide, stream
from captcha_reader.texts import ALPHABET, HEIGHT, WIDE_WIDTH, WIDTH, random_texts
from captcha_reader.training import settle_norms
from notebooks_py.ch3_ctc import build_ctc, read_ctc
from notebooks_py.ch4_gpu_training import SLIM, compile_recipe


# %% [markdown]
# A seed, and the length of the one training in this lesson.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures
# STEPS = 250  # batches of the fine-tuning

# %% [markdown]
# ## One picture
#
# `read_captcha` takes a file, bytes, a PIL image or an array, of any size and kind, and returns the text
# and how sure the network is. (On the command line: `python -m captcha_reader captcha.png`.) We give it one
# captcha in four forms.

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# from captcha_reader.drawing import draw_captchas
# from captcha_reader.outputs import fresh_folder, show_captchas
# from captcha_reader.reading import read_captcha
#
# FOLDER = fresh_folder("ch8_own_captchas")
# captcha = Image.fromarray(draw_captchas(["H3LP"], stream(SEED, "one", 0, 2))[0])
# (FOLDER / "imgs").mkdir()
# captcha.save(FOLDER / "imgs" / "captcha.png")  # for the README
# changed = {
#     "as drawn": captcha,
#     "three times as large": captcha.resize((384, 192)),
#     "grey": captcha.convert("L"),
#     "upside down": captcha.rotate(180),
# }
# print(f"{len(changed)} pictures of H3LP")

# %% [markdown]
# And what does it read?

# %% tags=["active-ipynb"]
# titles = []
# for name, picture in changed.items():
#     picture.save(path := FOLDER / f"{name}.png")
#     reading = read_captcha(path)
#     answer = f"{reading.text or '(nothing)'}, {reading.confidence:.0%} sure"
#     print(f"{name:21} {picture.size[0]}x{picture.size[1]}  {answer}")
#     titles.append(f"{name}\n{answer}")
# forms = [np.asarray(picture.convert("RGB")) for picture in changed.values()]
# show_captchas(forms, titles, columns=2, title="One captcha, four files")
# plt.show()

# %% [markdown]
# Three times as large or grey, it is read the same: every picture is scaled to a height of 64. Upside down it
# finds little, and is not sure of that: it has practised that such pictures have nothing to read (lesson 4).
#
# ## Any size, any length
#
# The four heads of lesson 2 read four characters. The network of lesson 3 asks every column the same
# question, so nothing in its weights knows how long a text is, or how wide a picture. And by the recipe of
# lesson 4 it has practised both. `read_pictures` scales pictures to a height of 64, as `read_captcha` does.

# %% tags=["active-ipynb"]
# from captcha_reader.weights import finished
# from notebooks_py.ch4_gpu_training import read_pictures
#
# network = finished("ctc")[0]
# figure, grid = plt.subplots(2, 4, figsize=(9, 2.8), layout="constrained")
# for i, axes in enumerate(grid.flat):
#     rng = stream(SEED, "lengths", epoch=0, index=i)
#     width, height = (100, 50) if i < 4 else (240, 80)
#     text = random_texts(rng, 1, length=2 + i % 4 if i < 4 else 3 + i % 4)[0]
#     picture = draw_captchas([text], rng, width, height)
#     (answer,) = read_pictures(network, picture)
#     axes.imshow(picture[0])
#     axes.axis("off")
#     axes.set_title(answer, color="green" if answer == text else "crimson", family="monospace")
# figure.suptitle("Two to five characters at 100x50, three to six at 240x80")
# plt.show()
# print("columns:", *(network(np.zeros((1, 64, width, 3))).shape[1] for width in (128, 192)))

# %% [markdown]
# A picture that is half as wide again gets half as many columns more. How well does it read each length? We count
# captchas of 192x64, and what we count on a hundred of each has wide whiskers.

# %%
def right_by_length(model: keras.Model, lengths, count: int, seed: int) -> dict[int, int]:
    """Return how many of `count` captchas of each length, drawn by the package, are read right."""
    right = dict.fromkeys(lengths, 0)
    for length in lengths:
        rng = stream(seed, "lengths", epoch=1, index=length)
        texts = random_texts(rng, count, length=length)
        for start in range(0, count, 50):
            part = texts[start : start + 50]
            answers = read_ctc(model, draw_wide(part, rng))
            right[length] += sum(a == b for a, b in zip(answers, part, strict=True))
    return right


# %% tags=["active-ipynb"]
# from captcha_reader.scores import share
#
# for length, count in right_by_length(network, range(2, 7), 100, SEED).items():
#     print(f"{length} characters: {share(count, 100)}")

# %% [markdown]
# Longer texts have more characters to get wrong. A batch for training needs labels in rows of equal length, so
# `ctc_labels` fills short texts up with 0, the blank: Keras' loss looks at a row up to there.

# %% tags=["active-ipynb"]
# from captcha_reader.texts import ctc_labels
#
# print(ctc_labels(["A0", "7XKM12", ""]))

# %% [markdown]
# ## Other alphabets, other fonts
#
# Both are arguments of the bank that draws. What can go wrong is better seen before a training than as
# `nan` after an hour: too few columns for equal neighbours (`AAAAAA` needs eleven), a wrong number of
# classes, or a font that lacks a character and draws the same empty box for all that it lacks.

# %%
def check_task(model: keras.Model, width: int, alphabet: str, length: int, font: str) -> None:
    """Raise a ValueError if a network can't learn texts of up to `length` characters in a font.

    Its pictures are `width` pixels wide and 64 high.
    """
    _, columns, classes = model.compute_output_shape((1, HEIGHT, width, 3))
    if columns < 2 * length - 1:
        raise ValueError(f"{length} equal characters need {2 * length - 1} columns, not {columns}")
    if classes != len(alphabet) + 1:
        raise ValueError(f"{len(alphabet)} characters and a blank, but {classes} classes")
    letters = ImageFont.truetype(font, 40)
    box = bytes(letters.getmask("\uffff"))  # no font has this character: it shows the empty box
    lacking = [c for c in alphabet if bytes(letters.getmask(c)) in (b"", box)]
    if lacking:
        raise ValueError(f"the font {letters.getname()[0]} has no {' '.join(lacking)}")


# %% [markdown]
# Lower case and digits, without those that look alike, in a font with serifs (small feet); and three mistakes
# that `check_task` finds:

# %% tags=["active-ipynb"]
# from matplotlib import font_manager
#
# from captcha_reader.bank import GlyphBank
#
# LOWER, font = "abcdefghijkmnpqrstuvwxyz23456789", font_manager.findfont("DejaVu Serif")
# check_task(build_ctc(len(LOWER), **SLIM), WIDE_WIDTH, LOWER, 6, font)
# bank = GlyphBank(SEED, LOWER, colors=8, copies=1, fonts=[font])
# words = ["stream", "reader", "serifs", "number"]
# show_captchas(
#     bank.draw(words, stream(SEED, "words", 0, 0), WIDE_WIDTH),
#     words,
#     title="Another alphabet and font",
# )
# plt.show()
# strange = ALPHABET[:-1] + "愛"
# for alphabet, length in ((ALPHABET, 13), (LOWER, 6), (strange, 6)):
#     try:
#         check_task(network, WIDE_WIDTH, alphabet, length, font)
#     except ValueError as error:
#         print(error)

# %% [markdown]
# ## A folder of labelled pictures
#
# Put your captchas into a folder. A name begins with the text, as in `7KQ2_001.png`; or a `labels.csv` has the
# columns `file` and `text`. Here we draw some in a style that our network has never seen: another font, each
# letter in a colour of its own, and lines across. (You can skip how they are drawn.)

# %%
def draw_foreign(texts: list[str], rng, font: str) -> np.ndarray:
    """Draw texts of four characters in another style: uint8 RGB (n, 64, 128, 3)."""
    pictures = []
    for text in texts:
        page = Image.new("RGB", (WIDTH, HEIGHT), tuple(rng.choices(range(200, 256), k=3)))
        for place, character in enumerate(text):
            letter, size = Image.new("L", (50, 50)), rng.randint(26, 36)
            shape = ImageFont.truetype(font, size)
            ImageDraw.Draw(letter).text((25, 25), character, 255, shape, anchor="mm")
            letter = letter.rotate(rng.uniform(-35, 35), Image.Resampling.BICUBIC)
            corner = 28 * place - 3 + rng.randint(-3, 3), rng.randint(0, 14)
            page.paste(tuple(rng.choices(range(170), k=3)), corner, letter)
        for _ in range(4):
            ends = [(rng.randint(0, WIDTH), rng.randint(0, HEIGHT)) for _ in range(2)]
            ImageDraw.Draw(page).line(ends, tuple(rng.choices(range(200), k=3)), 2)
        pictures.append(np.asarray(page))
    return np.stack(pictures)


# %% [markdown]
# A folder of 250 of them, with two files that don't belong there:

# %% tags=["active-ipynb"]
# from captcha_reader.folders import BadFiles, read_folder, split
#
# BOLD = font_manager.findfont("DejaVu Serif:bold")
# (folder := FOLDER / "foreign").mkdir()
# rng = stream(SEED, "foreign", epoch=0, index=0)
# texts = random_texts(rng, 250)
# for i, (text, picture) in enumerate(zip(texts, draw_foreign(texts, rng, BOLD), strict=True)):
#     Image.fromarray(picture).save(folder / f"{text}_{i:03}.png")
# strangers = [folder / "notes.txt", folder / "7kq2_251.png"]
# strangers[0].write_text("pictures from Tuesday")
# Image.fromarray(picture).save(strangers[1])
# try:
#     read_folder(folder)
# except BadFiles as error:
#     print(str(error).replace(str(folder), "foreign"))

# %% [markdown]
# All that is wrong is listed at once, and nothing is left out in silence. Without the two it works. All
# pictures are stretched to 128x64, which is fine for four characters. `split` takes a fifth of the *texts*
# for testing, so that no text, and no picture, is on both sides.

# %% tags=["active-ipynb"]
# for path in strangers:
#     path.unlink()
# pictures, texts = read_folder(folder)
# train, test = split(texts, share=0.2, seed=SEED)
# truth = [texts[i] for i in test]
# model = finished("ctc")[0]
# before = read_ctc(model, pictures[test])
# show_captchas(pictures[test[:6]], truth[:6], before[:6], 3, "Another style, before")
# plt.show()
# print(f"{len(train)} pictures to learn from, {len(test)} to test, read right so far: ", end="")
# print(sum(a == b for a, b in zip(before, truth, strict=True)))

# %% [markdown]
# ## Fine-tuning
#
# The finished weights know strokes, corners and how to read from left to right; what they have to learn is a
# new look. So we go on from them with lesson 4's recipe. With few pictures a network soon knows them by
# heart, so each time they are moved, turned and scaled a little, by three layers.

# %%
def fine_tune(model: keras.Model, X, y, steps: int, seed: int, moved: bool = True) -> None:
    """Train a CTC network on float32 pictures in [0, 1] and CTC labels, in batches of 32."""
    moves = [
        layers.RandomTranslation(0.06, 0.06, fill_mode="nearest", seed=seed),
        layers.RandomRotation(0.02, fill_mode="nearest", seed=seed + 1),
        layers.RandomZoom(0.1, 0.1, fill_mode="nearest", seed=seed + 2),
    ]
    picture = x = keras.Input(X.shape[1:])
    for move in moves if moved else []:
        x = move(x)
    pupil = keras.Model(picture, model(x), name="ctc")  # the same weights, behind the moves
    epochs = max(1, round(32 * steps / len(X)))
    compile_recipe(pupil, epochs * math.ceil(len(X) / 32))
    pupil.fit(X, y, batch_size=32, epochs=epochs, verbose=0)
    settle_norms(model, [X[:500]])  # as in lesson 4: fit ends with the average

# %% [markdown]
# A minute later:

# %% tags=["active-ipynb", "trained"]
# keras.utils.set_random_seed(SEED)
# X, y = pictures[train].astype("float32") / 255, ctc_labels([texts[i] for i in train])
# fine_tune(model, X, y, STEPS, SEED)
# after = read_ctc(model, pictures[test])
# right = sum(a == b for a, b in zip(after, truth, strict=True))
# title = f"After about {STEPS} batches from {len(train)} pictures: {share(right, len(test))}"
# show_captchas(pictures[test[:6]], truth[:6], after[:6], 3, title)
# plt.show()
# print(f"{len(test)} pictures to test")
# assert STEPS < 200 or right > len(test) / 3

# %% [markdown]
# From none to more than half of them, with 200 labels. `model.save("mine.keras")` keeps what it has learned.
#
# How many labels do you need, and what would it be without finished weights, or without the moves? `make
# study WHAT=tuning` trained on 200, 1,000 and 5,000 pictures, with about 600 batches each instead of our 250, and
# read 2,000 others. (It began with earlier weights than those above.)

# %% tags=["active-ipynb"]
# from captcha_reader.weights import measured
#
# tuning = measured("tuning")
# figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
# for (name, counts), style in zip(tuning["right"].items(), ("o-", "s--", "^:"), strict=True):
#     seen = [int(number) for number in counts]
#     axes.plot(seen, [100 * c / tuning["n"] for c in counts.values()], style, label=name)
#     for number, count in counts.items():
#         print(f"{name:28} {int(number):5,} pictures: {share(count, tuning['n'])}")
# axes.set(xscale="log", title="Labels needed for another style", ylabel="read right (%)")
# axes.set(xticks=seen, xticklabels=[f"{n:,}" for n in seen], xlabel="labelled pictures")
# axes.minorticks_off()
# axes.legend()
# plt.show()

# %% [markdown]
# With 200 labels both matter: without the weights, or without the moves, next to nothing is read right. With
# 1,000 the moves no longer matter. With 5,000 they are in the way: with them, the finished weights read no more
# than a network that began with nothing (and was given moved pictures, too). Without them, they read most.
#
# ## Take it with you
#
# [ONNX](https://onnx.ai) is a file format for networks that many programs run. `make export` wrote
# `models/ctc.onnx`: uint8 pictures go in, so nobody has to remember to divide by 255, and for
# each column the probabilities come out, and the likeliest class. ONNX Runtime reads it, without Keras and TensorFlow.

# %% tags=["active-ipynb"]
# import onnxruntime
#
# from captcha_reader.weights import MODELS
# from notebooks_py.ch3_ctc import collapse, spell
#
# session = onnxruntime.InferenceSession(MODELS / "ctc.onnx", providers=["CPUExecutionProvider"])
# rng = stream(SEED, "onnx", epoch=0, index=0)
# asked = random_texts(rng, 100)
# drawn = draw_captchas(asked, rng)
# probabilities, classes = session.run(None, {"pictures": drawn})
# answers = [spell(collapse(path)) for path in classes]
# figure = show_captchas(drawn[:12], asked, answers, 6, "Read by the finished network")
# figure.savefig(FOLDER / "imgs" / "reading.png", dpi=80)
# plt.show()
# print(f"{answers[0]}: {classes[0]}")

# %% [markdown]
# The numbers are the sixteen answers in the first picture, 0 for the blank. Does Keras say the same?

# %% tags=["active-ipynb"]
# keras_model = finished("ctc")[0]
# with keras.device("cpu"):  # a GPU may round more coarsely
#     logits = keras_model.predict_on_batch(drawn.astype("float32") / 255)
# theirs = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
# same = sum(a == b for a, b in zip(answers, read_ctc(keras_model, drawn), strict=True))
# print(f"same texts: {same} of {len(asked)}")
# assert np.abs(probabilities - theirs).max() < 1e-4

# %% [markdown]
# And how fast is it, one picture at a time?

# %% tags=["active-ipynb", "machine"]
# from notebooks_py.ch4_gpu_training import median_milliseconds
#
# one, first = {"pictures": drawn[:1]}, drawn[:1].astype("float32") / 255
# times = {
#     "ONNX Runtime": median_milliseconds(lambda: session.run(None, one), 20),
#     "Keras": median_milliseconds(lambda: keras_model.predict_on_batch(first), 20),
# }
# figure, axes = plt.subplots(figsize=(6.5, 1.8), layout="constrained")
# axes.barh(list(times), times.values())
# axes.set(title="One captcha on this machine", xlabel="milliseconds, median of 20")
# plt.show()

# %% [markdown]
# ONNX Runtime answers sooner, and it starts without TensorFlow. It runs in browsers, too:
# `make demo` opens a page on your machine that reads the captchas you drop on it, and shows the sixteen
# answers under the picture. No picture leaves the page.
#
# That was the last lesson. You have drawn captchas, read them in two ways, trained for real, found what is
# hard, and taken the network with you. Use it on captchas that you drew or own.
#
# ---
#
# ## What you learned
#
# - CTC reads any length: weights know neither the width of a picture nor the length of a text.
# - Check a task before you train: columns, classes, and whether the font has the characters.
# - Finished weights pay where labels are few, and so does moving pictures about. Try with and without.
# - An ONNX file runs without Keras.
#
# ## On your own
#
# 1. Read captchas of seven characters, 256 pixels wide. *Expected: most are read right, though the network never
#    practised seven.* [Solution](solutions.ipynb#lesson-8-exercise-1)
# 2. Fine-tune `finished("ctc")[0]` on the folder with `moved=False`. *Expected: fewer pictures are read right.*
#    [Solution](solutions.ipynb#lesson-8-exercise-2)
# 3. Let the fine-tuned network read the captchas of lesson 1. *Expected: it has forgotten about half of them; put
#    some into the folder, and it keeps them.* [Solution](solutions.ipynb#lesson-8-exercise-3)
#
# ## Further reading
#
# - [Transfer learning in Keras](https://keras.io/guides/transfer_learning/): freezing layers, and when it pays.
# - [Image augmentation layers](https://keras.io/api/layers/preprocessing_layers/image_augmentation/): the
#   others, and what they do.
# - [ONNX Runtime for the web](https://onnxruntime.ai/docs/tutorials/web/): how a page runs a network.
#
# This was the last lesson · [Solutions](solutions.ipynb)
