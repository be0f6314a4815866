# %% [markdown]
# # 4. Train for real, with or without a GPU
#
# *Lesson 4 of 8 · 40 minutes · needs 3 · trains for seconds*
#
# By the end of this lesson you will know where the time of a training step goes, what our recipe is made of, how to
# interrupt and resume a training run, and how to use one or several GPUs. A CPU is enough: the long runs were made
# beforehand, by `make train` and `make study`.

# %% tags=["hide-input"]
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # "A GPU, or several" says why

import math
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops

from captcha_reader.bank import GlyphBank
from captcha_reader.outputs import progress
from captcha_reader.practice import Practice
from captcha_reader.reading import scale
from captcha_reader.scores import share
from captcha_reader.texts import ctc_labels
from captcha_reader.training import Average, Resume, settle_norms
from notebooks_py.ch1_captcha_preview import CaptchaSequence, SetEpoch
from notebooks_py.ch3_ctc import build_ctc, decode_ctc

# %% [markdown]
# You may change these two numbers.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 30  # batches in an epoch

# %% [markdown]
# ## Where does the time go?
#
# Our long runs use the network `SLIM`, whose early blocks, where pictures are large, have few filters.

# %%
SLIM = {"filters": (24, 48, 96, 192), "stride": 2, "norms": "once"}


def median_milliseconds(action, repeats: int = 5) -> float:
    """Call `action()` once to warm up, then `repeats` times; return the median, in milliseconds."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[1:]))


# %% [markdown]
# We time both parts of a step: drawing a batch by the package or by a bank of glyphs, and learning from it with batch
# normalisation after every convolution or once in a block.

# %% tags=["active-ipynb", "machine"]
# import matplotlib.pyplot as plt
#
# times = {}
# package = CaptchaSequence(64, 1, SEED, labels="ctc")
# bank = CaptchaSequence(64, 1, SEED, labels="ctc", draw=GlyphBank(SEED).draw)
# for name, captchas in {"the package": package, "a bank": bank}.items():
#     times[f"draw 64: {name}"] = median_milliseconds(lambda captchas=captchas: captchas[0])
# batch = bank[0]
# for name, norms in {"after each convolution": "every", "once a block": "once"}.items():
#     model = build_ctc(**SLIM | {"norms": norms})
#     model.compile("adam", keras.losses.CTC())
#     step = median_milliseconds(lambda model=model: model.train_on_batch(*batch))
#     times[f"a step: norms {name}"] = step
# figure, axes = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
# axes.barh(list(times), times.values(), color=["tab:orange", "tab:orange", "tab:blue", "tab:blue"])
# axes.set(title="A batch of 64 on this machine", xlabel="milliseconds, median of 5")
# axes.invert_yaxis()
# plt.show()

# %% [markdown]
# The blue bars differ in the normalisation alone, so our blocks normalise just once, after the pooling, where fewer
# pixels are left. And `make train` draws in another process while the network learns.
#
# ## Draw several times as fast
#
# Most of the package's time goes into letters that are thrown away after one picture. A `GlyphBank` keeps a few of
# every character in each of sixty colours. In a long run a new bank takes over after 16,000 captchas or more, so that
# no letter is learned by heart. Which row is the package's?

# %% tags=["active-ipynb"]
# from captcha_reader.drawing import draw_captchas, stream
# from captcha_reader.outputs import show_captchas
# from captcha_reader.texts import random_texts
#
# rng = stream(SEED, "bank", epoch=0, index=0)
# drawn = random_texts(rng, 5)
# examples = [*draw_captchas(drawn, rng), *GlyphBank(SEED).draw(drawn, rng)]
# show_captchas(
#     examples, 2 * drawn, columns=5, title="One row by the package, one by a bank of glyphs"
# )
# plt.show()

# %% [markdown]
# <details><summary>The answer</summary>The upper one.</details>
#
# `0` and `O` differ too little for the eye to judge. So a finished network reads captchas of these two alone, from the
# package, from our bank, and from a simpler bank, which draws glyphs in white and colours them afterwards, and so misses
# that the package makes dark strokes thinner.

# %% tags=["active-ipynb"]
# from captcha_reader.weights import available, read_results
#
# if available("bank"):
#     for name, counts in read_results("bank")["pictures"]["128x64"].items():
#         print(name)
#         for what in ("0 as O", "O as 0", "O and 0 alone"):
#             label = "all four right" if what == "O and 0 alone" else what
#             print(f"    {label:14} {share(*counts[what])}")

# %% [markdown]
# With our bank the network confuses the two as often as with the package, within what chance allows. With the white bank
# it takes `O` for `0` far more often, and `0` for `O` less often. So training may use our bank, but test sets never do.
#
# ## The recipe
#
# ### Practise on captchas as people meet them
#
# Half of the batches hold the main task, 128x64 with four characters. In the other half, sizes are random, texts have up
# to six characters, some captchas have a margin or a slant, and one picture in twenty has *nothing to read*: noise, dots
# and an arc, a photo, or a captcha that is mirrored, upside down or in lower case. Its label is the empty text. All
# pictures of a batch are drawn in one shape and scaled to a height of 64. And what is hard needs more practice: in a
# fifth of the captchas (in our long runs, in half) most characters are `O` or `0`.
#
# In the figure, batches 0 and 5 are of the main task, and by chance three pictures have nothing to read. Even in such
# batches a fifth of the captchas have other sizes and lengths, so that the means of batch normalisation fit both kinds.

# %% tags=["active-ipynb"]
# practice = Practice(SEED)
# figure, grid = plt.subplots(4, 4, figsize=(8, 3.6), layout="constrained")
# for row, number in zip(grid, [0, 1, 5, 6], strict=True):
#     pictures, texts = practice(number)
#     row[0].set_ylabel(f"batch {number}")
#     for axes, picture, text in zip(row, pictures, texts, strict=False):
#         axes.imshow(picture)
#         axes.set(xticks=[], yticks=[])
#         axes.set_title(text or "(nothing)", family="monospace")
# figure.suptitle("The first captchas of four batches")
# plt.show()
# print(practice)

# %% [markdown]
# For `fit`, the practice becomes a `PyDataset`:

# %%
class PracticeSequence(keras.utils.PyDataset):
    """Batches of a `Practice` for `fit`: X, float32 (batch, 64, width, 3) in [0, 1], and labels.

    `draw(number)` draws a batch: the practice itself, or an `Ahead` that has it drawn by another
    process, and `labels(texts)` turns texts into labels. An epoch has `steps` batches.
    """

    def __init__(self, practice, draw=None, labels=ctc_labels):
        super().__init__()
        self.practice, self.draw, self.labels = practice, draw or practice, labels
        self.epoch, self.steps = 0, practice.steps

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        pictures, texts = self.draw(self.epoch * self.practice.steps + index)
        return pictures.astype("float32") / 255, self.labels(texts)


# %% [markdown]
# Pictures to be read are scaled, too:

# %%
def read_pictures(model: keras.Model, pictures: np.ndarray, decode=decode_ctc) -> list[str]:
    """Read uint8 pictures (n, height, width, 3) of any size; `decode` turns outputs into texts."""
    pictures = scale(pictures, model.input_shape[2])
    return decode(model.predict_on_batch(pictures.astype("float32") / 255))


# %% [markdown]
# The finished network of lesson 3 is `SLIM`, trained on such batches. Does it read the five captchas that the package
# drew above?

# %% tags=["active-ipynb"]
# from captcha_reader.weights import finished
#
# original, slim = build_ctc(rnn=(128, 128), ink=False), build_ctc(**SLIM)
# print(f"{original.count_params():,} parameters in the original, {slim.count_params():,} here")
# if available("ctc"):
#     print("drawn:", *drawn)
#     print("read: ", *read_pictures(finished("ctc")[0], np.stack(examples[:5])))

# %% [markdown]
# ### Muon
#
# An *optimizer* turns gradients into steps. Adam treats every weight on its own. But the weights of a convolution, its
# *kernel*, form a matrix, which turns the `h * w * in` numbers under the window into `out` channels. The gradient of
# this matrix is often dominated by a few directions, and steps along these make the filters alike.
# [Muon](https://kellerjordan.github.io/posts/muon/) takes the *momentum*, an average of the latest gradients, and
# replaces it by the nearest *orthogonal* matrix, in which every filter has length 1 and a scalar product of 0 with the
# others, as far as its shape allows. So the step is equally long in all directions. Five Newton-Schulz iterations, of
# three matrix products each, come near enough to this matrix.
#
# Keras has Muon, but only for matrices: without a warning, it would leave our convolutions to AdamW, which is Adam with
# weight decay (see below). So the first method lets kernels in, the second flattens them to matrices, and the third
# scales the step by the shape of the matrix. Biases, norms and the last layer stay with AdamW.

# %%
class Muon(keras.optimizers.Muon):
    """Keras' Muon, also for kernels of convolutions: matrices (height * width * in, out)."""

    def _should_use_adamw(self, variable):
        last = any(name in variable.path for name in self.exclude_layers)
        return len(variable.shape) < 2 or last

    def zeropower_via_newtonschulz5(self, x, steps):
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(super().zeropower_via_newtonschulz5(matrix, steps), x.shape)

    def lr_adjust(self, x):
        return x * max(1, x.shape[-1] / math.prod(x.shape[:-1])) ** 0.5


# %% [markdown]
# Take the momentum of four 3x3 filters, two of which are nearly alike. Here are the scalar products of any two of them,
# before and after Muon:

# %% tags=["active-ipynb"]
# momentum = np.random.default_rng(SEED).normal(size=(3, 3, 1, 4)).astype("float32")
# momentum[..., 1] = momentum[..., 0] + 0.1 * momentum[..., 1]
# step = Muon().zeropower_via_newtonschulz5(ops.convert_to_tensor(momentum), 5)
# for name, values in {"momentum": momentum, "step of Muon": ops.convert_to_numpy(step)}.items():
#     filters = values.reshape(9, 4)
#     print(name, (filters.T @ filters).round(1), sep="\n")

# %% [markdown]
# The step has roughly ones on the diagonal and zeros elsewhere.
#
# ### One cycle, averaged
#
# - *One cycle.* The learning rate climbs for a short while, because the first gradients of a random network point
#   anywhere. Then it falls to zero along half a cosine, so that the weights come to rest.
# - *Weight decay.* Each step also shrinks the weights a little, so that none grows without need.
# - *Average.* While the rate is high, the weights jump about near a minimum. Their moving average lies closer to it.

# %%
RATE = 0.02  # of Muon at its peak


def compile_recipe(
    model, steps: int, rate=RATE, loss=None, muon=True, fall=True, decay=0.01, clip=None
):
    """Compile for `steps` steps of Muon, or AdamW, with one cycle of the learning rate.

    The rate climbs to `rate` in a twentieth of the steps and falls to 0 along half a cosine, unless
    `fall` is False. AdamW's rate is 0.15 times Muon's. Kernels decay, biases and norms don't.
    Weights are averaged over a tenth of the run, at most 500 steps. The usual `loss` is CTC's.
    """
    climb = max(1, steps // 20)
    ratio = 0.15  # AdamW's rate for each of Muon's
    peak = rate if muon else ratio * rate
    cycle = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - climb), warmup_target=peak, warmup_steps=climb
    )
    options = {
        "learning_rate": cycle if fall else peak, "weight_decay": decay, "global_clipnorm": clip,
        "use_ema": True, "ema_momentum": min(0.998, 1 - 10 / max(20, steps)),
    }  # fmt: skip
    if muon:
        options |= {"adam_lr_ratio": ratio, "adam_weight_decay": ratio * decay, "adam_beta_2": 0.99}
        optimizer = Muon(**options, exclude_layers=["logits", *model.output_names])
    else:
        optimizer = keras.optimizers.AdamW(**options, beta_2=0.99)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, loss or keras.losses.CTC())
    return cycle


# %% [markdown]
# For a thousand steps the rate looks like this:

# %% tags=["active-ipynb"]
# cycle = compile_recipe(slim, steps=1_000)
# rates = [float(cycle(step)) for step in range(0, 1_001, 10)]
# figure, axes = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
# axes.plot(range(0, 1_001, 10), rates)
# axes.set(title="One rise, one fall", xlabel="step", ylabel="learning rate")
# plt.show()

# %% [markdown]
# While the rate is high, the averaged weights read better, but going on from them would undo the latest steps. So after
# each epoch the callback `Average` tests the averaged weights on held-out captchas and saves them, and training goes on
# with the latest ones. (The running averages of batch normalisation belong to the latest weights, so `settle_norms`
# measures them anew for the average.)
#
# ## Stop, and go on
#
# Long training runs get interrupted. Keras' `BackupAndRestore` saves the weights and the optimizer after each epoch and
# goes on from there, so a run never loses more than one epoch, and ours are short. Our `Resume` is that callback, made
# safe against a stop in the middle of saving.

# %%
def fit_recipe(
    model,
    data: PracticeSequence,
    steps: int,
    held_out,
    folder: Path,
    callbacks=(),
    decode=decode_ctc,
):
    """Train a compiled model for `steps` steps, or go on with the run in `folder`.

    `held_out` are captchas to read after each epoch, as `Average` wants them. At the end the model
    has the averaged weights. The folder, which has to exist, gets the log, log.csv, and the same
    network, averaged.keras.
    """
    data.epoch = 0  # the same sample, whenever the run goes on
    sample = [data[index][0] for index in range(min(16, steps))]
    average = Average(held_out, decode, sample, folder / "averaged.keras")
    log = keras.callbacks.CSVLogger(folder / "log.csv", append=True)
    resume = Resume(folder, data.practice.steps)
    callbacks = [SetEpoch(data), average, log, resume, progress(), *callbacks]
    whole, rest = divmod(steps, data.practice.steps)
    for epochs, batches in ((whole, data.practice.steps), (whole + 1, rest)):
        data.steps = batches
        if epochs and batches:  # whole epochs, then what is left
            model.fit(data, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=0)
    settle_norms(model, sample)  # when fit ends, Keras puts the average into the weights

# %% [markdown]
# Does it work? A tiny network trains for two epochs without a break. A second run is stopped in the middle of the
# second epoch, as if by Ctrl-C, and then resumed.

# %% tags=["active-ipynb"]
# from captcha_reader.outputs import fresh_folder
#
# FOLDER = fresh_folder("ch4_gpu_training")
# texts = random_texts(rng, 128)
# held_out = {"classic": [(draw_captchas(texts, rng), ctc_labels(texts), texts)]}
# short = PracticeSequence(Practice(SEED, epoch=64 * STEPS))
#
#
# class Stop(keras.callbacks.Callback):
#     def on_train_batch_end(self, batch, logs=None):
#         if self.model.optimizer.iterations == STEPS + STEPS // 2:
#             raise KeyboardInterrupt
#
#
# def tiny_run(name, callbacks=()):
#     keras.utils.set_random_seed(SEED)
#     model = build_ctc(filters=(8, 16, 16, 32), convs=1, stride=2, norms="once")
#     compile_recipe(model, 2 * STEPS)
#     (folder := FOLDER / name).mkdir(exist_ok=True)
#     fit_recipe(model, short, 2 * STEPS, held_out, folder, callbacks)
#     return model.get_weights()
#
#
# whole = tiny_run("whole")
# try:
#     tiny_run("stopped", [Stop()])
# except KeyboardInterrupt:
#     print(f"stopped after {STEPS + STEPS // 2} of {2 * STEPS} steps")
# resumed = tiny_run("stopped")
# apart = max(np.abs(a - b).max() for a, b in zip(whole, resumed, strict=True))
# print(f"the largest difference between {len(whole)} arrays of weights: {apart}")

# %% [markdown]
# Not a bit is different, because the lost half of the epoch is repeated with the same captchas. (A GPU adds numbers in
# another order each time, so there the weights are only close.)
#
# ## A GPU, or several
#
# Keras uses a GPU if it finds one. TensorFlow then reserves all of its memory, unless *memory growth* is switched on
# beforehand, as this lesson does by `TF_FORCE_GPU_ALLOW_GROWTH=true`.
#
# Several GPUs share each batch: each computes a part of it, and the gradients are added up. `make train` does this with
# TensorFlow's `MirroredStrategy`, or with Keras' `DataParallel` on JAX. For several machines there is PyTorch's
# `torchrun` (lesson 7).
#
# **Half precision.** With the policy `mixed_bfloat16` layers compute with 16 bits, while the weights and the loss keep
# their 32. Training is then faster on processors with `avx512_bf16` or `amx_bf16` and on NVIDIA's GPUs since 2020.
# Elsewhere it can be many times slower, so `make train` checks the device first.
#
# ## Which ingredient pays?
#
# An *ablation* changes one ingredient, trains on the same number of captchas, and counts the errors on the 20,000
# captchas of `judge-20k`, which also chooses the finished network. Each dot is one run, with two seeds for each variant.
# The figure shows the three variants that differ most from the recipe, and below it stands how many more or fewer errors
# the others make. (The 95 % intervals are for both runs together, and say nothing about other seeds. `last weights`
# means without the average. The recipe computes in 16 bits here, `full precision` in 32. Batches of 128 have a higher
# rate, too.)

# %% tags=["active-ipynb"]
# from collections import Counter
#
# from captcha_reader.outputs import plot_errors
# from captcha_reader.scores import difference
#
# if available("ablation"):
#     ablation = read_results("ablation")
#     rows, wrong, n = ablation["rows"], Counter(), Counter()
#     for row in rows:
#         wrong[row["name"]] += row["n"] - row["right"]
#         n[row["name"]] += row["n"]
#     base, *others = sorted(wrong, key=lambda name: abs(wrong[name] - wrong["the recipe"]))
#     figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
#     title = f"One ingredient changed, {ablation['pictures']:,} captchas of training"
#     plot_errors(axes, [row for row in rows if row["name"] in (base, *others[-3:])], title)
#     plt.show()
#     for name in others[:-3]:
#         print(f"{name:30} {difference(wrong[name], n[name], wrong[base], n[base])}")

# %% [markdown]
# Three variants stand out with both seeds. With classic captchas alone there are more than twice as many errors, since
# half of the held-out captchas have other sizes. With a constant rate, the last weights make at least half as many
# errors again, but the average is as good as the recipe: a falling rate and an average do the same job. And without
# Muon there are a third more errors. Of the others, colours instead of ink (`paper is 1`), batches of 128 and more
# practice of `O` and `0` cost about half a point each, and the rest can't be told apart from the recipe.
#
# But a short comparison can't decide about a long run: more practice of `O` and `0` costs errors here, but a network that
# has seen far more captchas mostly confuses just these two (lesson 6), so our long runs had more of it.
#
# ## Which head wins?
#
# Four heads, CTC, and CTC with a GRU learned from the same classic captchas, with two seeds each.

# %% tags=["active-ipynb"]
# if available("heads"):
#     heads = read_results("heads")
#     figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
#     title = f"Three kinds of heads, {heads['pictures']:,} captchas of training"
#     plot_errors(axes, heads["rows"], title)
#     plt.show()

# %% [markdown]
# After such short runs, CTC makes far fewer errors than four heads, perhaps because its columns share their weights,
# while each of the four heads has to learn every letter for itself. With a GRU there are a few more errors, but this
# difference may be chance.
#
# ---
#
# ## What you learned
#
# - Measure where a step's time goes. A bank of glyphs saves most of the drawing, and one norm for each block is enough.
# - Muon gives convolutions steps that are orthogonal.
# - A long run of many short epochs, saved after each, can be stopped at any time.
# - Change one ingredient at a time, and report how long the runs were and how many seeds they had.
#
# ## On your own
#
# 1. Train a network of your own with `make train MODEL=ctc BUDGET=20min`, stop it with Ctrl-C, and type the same
#    command again. *Expected: it goes on, and loses at most one epoch.* [Solution](solutions.ipynb#lesson-4-exercise-1)
# 2. Draw the learning rate of a run of 10,000 steps with a peak of 0.01. *Expected: the same shape, half as high.*
#    [Solution](solutions.ipynb#lesson-4-exercise-2)
# 3. Look at the texts of `Practice(SEED, sizes=0, hard=1)`. *Expected: about three quarters of the characters are `O`
#    or `0`.* [Solution](solutions.ipynb#lesson-4-exercise-3)
#
# ## Further reading
#
# - [A bag of tricks for image classification](https://arxiv.org/abs/1812.01187), He and others, 2018: an ablation.
# - [Averaging weights leads to wider optima](https://arxiv.org/abs/1803.05407), Izmailov and others, 2018.
# - [Keras: distributed training with TensorFlow](https://keras.io/guides/distributed_training_with_tensorflow/).
# - [Mixed precision in Keras](https://keras.io/api/mixed_precision/): what is 16 bits and what is not.
#
# Next: [5. Read loss curves](ch5_loss_curves.ipynb) · [Solutions](solutions.ipynb)
