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
# # Train for real, with or without a GPU
#
# Lessons 2 and 3 trained for two minutes. At the end of this lesson you know what hours are spent
# on: who waits for whom, what the parts of our recipe bring in a short run, how to stop and go on, and how to use a GPU,
# several of them, or half precision. You need [lesson 3](ch3_ctc.ipynb). A CPU is enough: the
# long runs were made beforehand, by `make train` and `make study`, and this lesson reads what they found.

# %% tags=["colab", "active-ipynb"]
# import sys
#
# if "google.colab" in sys.modules:  # fetches what Google Colab lacks; elsewhere nothing happens
#     !git clone -q --depth 1 https://github.com/YOUR_NAME/captcha-lessons
#     !pip install -q captcha==0.7.0 keras==3.15.1 onnxruntime==1.32.0
#     sys.path.insert(0, "captcha-lessons")

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # "A GPU, or several" says why

import contextlib
import functools
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from captcha_reader.bank import GlyphBank
from captcha_reader.outputs import progress
from captcha_reader.scores import share, wilson
from captcha_reader.texts import ALPHABET, WIDTH, decode_heads
from captcha_reader.training import Average, Resume, settle_norms
from notebooks_py.ch1_captcha_preview import CaptchaSequence, SetEpoch
from notebooks_py.ch2_cnn import build_cnn
from notebooks_py.ch3_ctc import build_ctc, decode_ctc


# %% [markdown]
# A seed, and the length of the short trainings in this lesson.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 30  # batches in an epoch

# %% [markdown]
# ## Who waits for whom?
#
# A training step needs a batch of pictures and a network that learns from it. We time both on this
# machine: 64 captchas by the package, 64 from a bank of glyphs, and one step of lesson 3's small network.

# %%
def median_milliseconds(action, repeats: int = 5) -> float:
    """Call `action()` once to warm up, then `repeats` times; return the median, in milliseconds."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[1:]))


# %% [markdown]
# We take the median: now and then a machine does something else.

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# from notebooks_py.ch3_ctc import small_ctc
#
# slow = CaptchaSequence(64, 1, SEED, labels="ctc")
# fast = CaptchaSequence(64, 1, SEED, labels="ctc", draw=GlyphBank(SEED).draw)
# model, batch = small_ctc(SEED), fast[0]
# times = {
#     "draw 64, package": median_milliseconds(lambda: slow[0]),
#     "draw 64, bank": median_milliseconds(lambda: fast[0]),
#     "train one step": median_milliseconds(lambda: model.train_on_batch(*batch)),
# }
# figure, axes = plt.subplots(figsize=(6.5, 2.2), layout="constrained")
# axes.barh(list(times), times.values())
# axes.set(title="A batch of 64 on this machine", xlabel="milliseconds, median of 5")
# axes.invert_yaxis()
# plt.show()
# assert times["draw 64, bank"] < times["draw 64, package"]

# %% [markdown]
# Is the first bar longer than the last, as here? Then the network would wait for the package, and with a bank
# it need not. On a GPU the step shrinks and the drawing does not: the author of the original reports steps
# of 117 to 128 ms, of which 110 ms were waiting for pictures.
#
# ## Draw several times as fast
#
# Most of the package's time goes into letters, dots and arcs that are thrown away after one picture. A
# `GlyphBank` keeps them. Once, beforehand, the package itself draws every character a few times in each of sixty
# random colours. Then captchas are composed from these glyphs by the package's own rules. Which row is the
# package's?

# %% tags=["active-ipynb"]
# from captcha_reader.drawing import draw_captchas, stream
# from captcha_reader.outputs import show_captchas
# from captcha_reader.texts import random_texts
#
# rng = stream(SEED, "bank", epoch=0, index=0)
# texts = random_texts(rng, 5)
# pictures = [*draw_captchas(texts, rng), *GlyphBank(SEED).draw(texts, rng)]
# show_captchas(
#     pictures, 2 * texts, columns=5, title="One row by the package, one by a bank of glyphs"
# )
# plt.show()
# print(f"{len(pictures)} captchas, each {pictures[0].shape}")

# %% [markdown]
# The upper one. But the eye is no test. A simpler bank would draw each glyph once, in white, and colour it
# afterwards. To the eye its captchas look the same. Yet the package thins the edges of strokes, more so in
# dark colours, and how much of a letter is ink is what tells `0` from `O` (lesson 6). So a finished network
# judges both banks: does it mistake `0` for `O` as often as on the package's pictures? (Counted in captchas of `O`
# and `0` alone, in answers of four characters.)

# %% tags=["active-ipynb"]
# from captcha_reader.weights import available, measured
#
# if available("bank"):
#     for name, found in measured("bank")["pictures"].items():
#         print(f"{name:22} right {share(found['right'], found['n'])}")
#         for pair in ("0 as O", "O as 0"):
#             print(f"{'':22} {pair} {share(*found[pair])}")

# %% [markdown]
# Our bank agrees with the package in all three numbers, within what chance allows. On captchas of the white
# bank the network takes `O` for `0` far more often, and `0` for `O` less often. Training may use our bank.
# Test sets are always drawn by the package.
#
# ## The recipe
#
# ### Practise what is hard
#
# Most errors of a good network are `O` and `0` (lesson 6 counts them). A pupil who mixes up two letters gets
# more of those to read, and so does our network: in half of the captchas, on average three of four
# characters are `O` or `0`, and towards the end in a fifth. Every epoch has a bank of its own, so that
# shapes never run out. (You can skip the code at first, and look at the texts below it.)

# %%
@functools.lru_cache(maxsize=2)
def fresh_bank(seed: int, epoch: int, width: int) -> GlyphBank:
    """Return the bank of one epoch; it has twenty times as many O and 0 as other characters."""
    return GlyphBank(f"{seed}/{epoch}", ALPHABET + 19 * "O0", width)


class PracticeSequence(CaptchaSequence):
    """Captchas from a new bank in each of `epochs` epochs, with what is hard more often.

    A share of the captchas, `hard[0]` in the first four fifths of the epochs and then `hard[1]`,
    has an O or a 0 in each place with probability 3/4. Other arguments: `CaptchaSequence`.
    """

    lock = threading.Lock()  # without it, two threads would make the same bank twice

    def __init__(self, *args, epochs=1, hard=(0.5, 0.2), width=WIDTH, **more):
        super().__init__(*args, **{"draw": self.draw_from_bank, **more})
        self.epochs, self.hard, self.width = epochs, hard, width

    def draw_from_bank(self, texts, rng):
        with self.lock:
            bank = fresh_bank(self.seed, self.epoch, self.width)
        return bank.draw(texts, rng)

    def texts(self, rng):
        part = self.hard[0] if self.epoch < 0.8 * self.epochs else self.hard[1]
        often = self.alphabet + 53 * "O0"  # 108 of 142 characters
        kinds = [often if rng.random() < part else self.alphabet for _ in range(self.batch_size)]
        return ["".join(rng.choices(kind, k=self.length)) for kind in kinds]


# %% [markdown]
# Sixteen texts of the first batch. Look for those that are crowded with `O` and `0`:

# %% tags=["active-ipynb"]
# data = PracticeSequence(64, STEPS, SEED, labels="ctc", epochs=2, workers=2)
# print(" ".join(data.texts(stream(SEED, "train", 0, 0))[:16]))

# %% [markdown]
# ### A slim network
#
# The first convolution moves by two pixels, and the early blocks, where pictures are large, have few
# filters. `KINDS` says for each kind of network how it is built, taught and read.

# %%
SLIM = {"filters": (24, 48, 96, 192), "stride": 2}
FULL = {"cnn": {}, "ctc": {"rnn": (128, 128)}}  # the original's
KINDS = {
    "cnn": {
        "build": build_cnn,
        "labels": "one-hot",
        "loss": "categorical_crossentropy",
        "decode": decode_heads,
    },
    "ctc": {
        "build": build_ctc,
        "labels": "ctc",
        "loss": keras.losses.CTC(),
        "decode": decode_ctc,
    },
}


def read(model: keras.Model, pictures: np.ndarray) -> list[str]:
    """Read uint8 pictures (n, height, width, 3) with a network of either kind."""
    return KINDS[model.name]["decode"](model.predict_on_batch(pictures.astype("float32") / 255))


# %% [markdown]
# How much smaller? And is it large enough? The finished CTC network of this repository is such a slim one. It
# reads the upper row from above.

# %% tags=["active-ipynb"]
# from captcha_reader.weights import finished
#
# for kind, full in FULL.items():
#     build = KINDS[kind]["build"]
#     original, slim = build(ink=False, **full), build(**SLIM)
#     print(f"{kind}: {original.count_params():,} parameters as in the original,", end=" ")
#     print(f"{slim.count_params():,} slim")
# if available("ctc"):
#     print("drawn:", *texts)
#     print("read: ", *read(finished("ctc")[0], np.stack(pictures[:5])))

# %% [markdown]
# The CNN shrinks to a third of its parameters, the sequence model to a fifth.
#
# ### One cycle, clipped and averaged
#
# Four things in how the weights move:
#
# - *One cycle.* The learning rate climbs for a short while, because the first gradients of a random network
#   point anywhere. Then it is large, and falls to zero along half a cosine, so that the weights come to rest.
# - *Clipping.* If all gradients together, as one vector, are longer than 1, they are shortened to 1: one strange
#   batch can't undo a hundred good ones.
# - *Weight decay.* The optimizer, AdamW, shrinks the weights a little in each step, so that none grows without
#   need.
# - *Average.* It also keeps a moving average of the weights over up to 500 steps. While the rate is
#   high, the weights tumble around a good place; their average lies in the middle of it.

# %%
def compile_recipe(model, steps: int, peak=3e-3, fall=True, clip=1.0):
    """Compile for `steps` steps of AdamW with one cycle of the learning rate, or a constant one.

    The rate climbs to `peak` in a twentieth of the steps and falls to 0 along half a cosine.
    Kernels decay, biases and norms don't. Weights are averaged over a tenth of the run, at most
    500 steps.
    """
    climb = max(1, steps // 20)
    cycle = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - climb), warmup_target=peak, warmup_steps=climb
    )
    optimizer = keras.optimizers.AdamW(
        cycle if fall else peak, weight_decay=0.01, beta_2=0.99, global_clipnorm=clip,
        use_ema=True, ema_momentum=min(0.998, 1 - 10 / max(20, steps)),
    )  # fmt: skip
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, KINDS[model.name]["loss"])
    return cycle


# %% [markdown]
# For a thousand steps the rate looks like this:

# %% tags=["active-ipynb"]
# model = small_ctc(SEED)
# cycle = compile_recipe(model, steps=1_000)
# rates = [float(cycle(step)) for step in range(0, 1_001, 10)]
# figure, axes = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
# axes.plot(range(0, 1_001, 10), rates)
# axes.set(title="One rise, one fall", xlabel="step", ylabel="learning rate")
# plt.show()
# print(f"step 50: {rates[5]:.4f}, step 520: {rates[52]:.4f}, step 1,000: {rates[100]:.4f}")

# %% [markdown]
# The average is for reading, not for learning. So the callback `Average` puts it into the network after each
# epoch, reads held-out captchas, saves it, and puts the network's own weights back. Batch normalisation has
# measured its means and variances with the tumbling weights; for the average `settle_norms` measures them again.
#
# ## Stop, and go on
#
# Long trainings get interrupted. Keras' `BackupAndRestore` saves the weights and the optimizer after each epoch,
# and keeps the save before, in case the power fails while it writes. A long run of many short epochs then
# never loses more than one of them. `Resume` is that callback, with one thing changed: the number of the epoch
# follows from the optimizer's steps, since a power cut can spoil the file that Keras keeps for it. `Average`,
# `settle_norms` and `Resume` are in [training.py](../captcha_reader/training.py); here they are put together.

# %%
def fit_recipe(model, data: PracticeSequence, held_out: tuple, folder: Path, more=()):
    """Train a compiled model on `data`, or go on with the run in `folder`.

    `held_out` is X, y and the texts of captchas to read after each epoch. The folder gets the log,
    log.csv, and the network with averaged weights, averaged.keras.
    """
    data.epoch = 0  # the same sample, whenever the run goes on
    sample = np.concatenate([data[index][0] for index in range(8)])
    decode = KINDS[model.name]["decode"]
    average = Average(*held_out, decode, sample, folder / "averaged.keras")
    log = keras.callbacks.CSVLogger(folder / "log.csv", append=True)
    callbacks = [SetEpoch(data), average, log, Resume(folder, data.steps), progress(), *more]
    model.fit(data, epochs=data.epochs, callbacks=callbacks, shuffle=False, verbose=0)
    settle_norms(model, sample)  # fit ends with the average


# %% [markdown]
# Does it work? A tiny network trains for two epochs without a break. A second one is stopped in the middle
# of the second epoch, as if by Ctrl-C, and a third one finds its folder and goes on.

# %% tags=["active-ipynb"]
# from captcha_reader.outputs import fresh_folder
# from captcha_reader.texts import encode
#
# FOLDER = fresh_folder("ch4_gpu_training")
# texts = random_texts(rng, 128)
# X, y = draw_captchas(texts, rng).astype("float32") / 255, encode(texts) + 1
#
#
# def tiny_run(name, more=()):
#     keras.utils.set_random_seed(SEED)
#     model = build_ctc(filters=(8, 16, 16, 32), convs=1, stride=2)
#     compile_recipe(model, 2 * STEPS)
#     (folder := FOLDER / name).mkdir(exist_ok=True)
#     fit_recipe(model, data, (X, y, texts), folder, more)
#     return model.get_weights()
#
#
# print(f"2 epochs of {STEPS} batches of 64, {len(texts)} held-out captchas")

# %% [markdown]
# Three runs, the second of them stopped:

# %% tags=["active-ipynb"]
# class Stop(keras.callbacks.Callback):
#     def on_train_batch_end(self, batch, logs=None):
#         if self.model.optimizer.iterations == STEPS + STEPS // 2:
#             raise KeyboardInterrupt
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
# assert apart == 0

# %% [markdown]
# Not a bit is different: half an epoch was trained twice, on the same captchas, since epoch and batch
# decide what is drawn. `make train` does just this, and the same command goes on where it was stopped.
#
# ## A GPU, or several
#
# You need not choose a device: Keras takes a GPU if it finds one. (The networks of this repository were
# trained on two cores of a CPU.) TensorFlow takes all of a GPU's memory at once; *memory growth*, switched on
# at the top of this lesson, lets it take only what it needs. It must be set before TensorFlow starts.
#
# Several GPUs share each batch: every one computes a part of it, and the gradients are added up.

# %%
@contextlib.contextmanager
def every_device():
    """Build for all GPUs, or all CPU devices where there is none; give their number."""
    devices = keras.distribution.list_devices()
    if len(devices) > 1 and keras.backend.backend() == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        yield len(devices)
    elif len(devices) > 1 and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.distribute.MirroredStrategy(devices).scope():
            yield len(devices)
    else:
        yield 1


# %% [markdown]
# On a laptop it does nothing, and that is all there is to see here:

# %% tags=["active-ipynb"]
# with every_device() as count:
#     print(f"a network built here trains on {count} device: {keras.distribution.list_devices()}")

# %% [markdown]
# ## Half precision
#
# With `mixed_bfloat16` the layers compute with 16 bits, while the weights and the loss keep 32. It pays
# where the hardware has it: on processors with `avx512_bf16` or `amx_bf16`, and on NVIDIA's GPUs since 2020.
# Elsewhere 16 bits are emulated and slow. So `make train` looks at the processor before it chooses. (On an older
# GPU, such as a T4, say `PRECISION=float32`.)

# %%
def best_precision() -> str:
    """Return "mixed_bfloat16" where the processor has it, and on every GPU, else "float32"."""
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    gpu = any("gpu" in device.lower() for device in keras.distribution.list_devices())
    half = gpu or "avx512_bf16" in flags or "amx_bf16" in flags
    return "mixed_bfloat16" if half else "float32"


# %% [markdown]
# What a policy of this name does:

# %% tags=["active-ipynb"]
# policy = keras.DTypePolicy("mixed_bfloat16")
# print(f"{policy.name}: computes in {policy.compute_dtype}, weights in {policy.variable_dtype}")
# assert best_precision() in (policy.name, "float32")

# %% [markdown]
# ## Which ingredient pays?
#
# Change one thing, train on equally many captchas, and count. Each bar is two trainings together, read on held-out
# captchas, and each dot is one of them. The whiskers are 95 % intervals, which know nothing of what a seed does.

# %%
def plot_errors(axes, rows: pd.DataFrame, title: str) -> None:
    """Draw and print wrong answers: a bar with its Wilson interval for a name, a dot for a seed.

    The rows have columns name, right and n.
    """
    groups = dict(list(rows.groupby("name", sort=False)))
    for place, (name, seeds) in enumerate(groups.items()):
        wrong, n = int((seeds.n - seeds.right).sum()), int(seeds.n.sum())
        low, high = wilson(wrong, n)
        bar, spread = 100 * wrong / n, [[100 * (wrong / n - low)], [100 * (high - wrong / n)]]
        axes.barh(place, bar, xerr=spread, color="tab:blue", capsize=3)
        beside = place + np.linspace(-0.2, 0.2, len(seeds))
        axes.plot(100 - 100 * seeds.right / seeds.n, beside, "o", color="tab:orange")
        print(f"{name:28} {share(wrong, n)}")
    axes.set(title=title, xlabel="captchas not entirely right (%)")
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()

# %% [markdown]
# `last weights` is the recipe's own training, read without its average; and so is `constant rate, last weights`
# that of the constant rate.

# %% tags=["active-ipynb"]
# if available("ablation"):
#     ablation = measured("ablation")
#     print("the recipe:", *ablation["recipe"].split(", "), sep="\n  ")
#     figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
#     title = f"One ingredient changed, {ablation['pictures']:,} captchas of training"
#     print("\nnot entirely right:")
#     plot_errors(axes, pd.DataFrame(ablation["rows"]), title)
#     plt.show()

# %% [markdown]
# Look at the constant rate. Its last weights make about three times the errors, and their average repairs it: a
# falling rate and an average do the same job. (We keep both: the average lets us judge a network and save it
# while the rate is still high.) The other changes all make a few more errors, so few that it may be
# chance: the whiskers overlap. So we can't say that a bank of glyphs, ink, clipping, practice of `O` and `0`, or full
# precision helps here, nor that it doesn't. (A bank draws faster, and ink shortens the plateau of lesson 3.) Our
# finished network saw sixty times as many captchas. What each ingredient brings in so long a run, we have not measured.
#
# ## Which head wins?
#
# Four heads, CTC as above, and CTC with a GRU: the same recipe, captchas and filters, three seeds each, read on
# 10,000 captchas.

# %% tags=["active-ipynb"]
# if available("heads"):
#     heads = measured("heads")
#     figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
#     print("not entirely right:")
#     plot_errors(axes, pd.DataFrame(heads["rows"]), "Three kinds of heads")
#     plt.show()

# %% [markdown]
# CTC without a GRU makes the fewest errors with each of the seeds. Perhaps because its columns share their
# weights: whatever it learns about a letter in one column it knows in all of them, while four heads learn every
# letter four times. A GRU adds half as many parameters again, and no gain: random characters give it little to
# remember. (With 100,000 captchas. The original's GRU saw 5.38 million of them.)
#
# ---
#
# ## What you learned
#
# - On a fast GPU, a step may wait for its pictures; a bank of glyphs draws several times as fast, and must
#   lead to the same errors as the package's drawings.
# - Change one ingredient at a time, and say how long the trainings were and how many seeds they had.
# - Many short epochs and `BackupAndRestore` make a long run that can be stopped at any time.
#
# ## On your own
#
# 1. Train a network of your own with `make train MODEL=ctc BUDGET=20min`, stop it with Ctrl-C, and type
#    the same command again. *Expected: it goes on, and loses at most one epoch.*
# 2. Draw the learning rate of a run of 10,000 steps with a peak of 0.001. *Expected: the same
#    shape, a third as high.*
# 3. Give `PracticeSequence` the alphabet `"0O1I"` and look at its texts. *Expected: three quarters of the
#    characters are `O` or `0`.*
#
# ## Further reading
#
# - [A bag of tricks for image classification](https://arxiv.org/abs/1812.01187), He and others, 2018:
#   an ablation that shows how much small things add up to.
# - [Averaging weights leads to wider optima](https://arxiv.org/abs/1803.05407), Izmailov and others, 2018:
#   why the middle of a tumbling path is a good place.
# - [Keras: distributed training with TensorFlow](https://keras.io/guides/distributed_training_with_tensorflow/):
#   several GPUs, in the words of its authors.
# - [Mixed precision in Keras](https://keras.io/api/mixed_precision/): what is 16 bits and what is not.
