# %% [markdown]
# # Train for real, with or without a GPU
#
# Lessons 2 and 3 trained for two minutes. At the end of this half hour you know what hours are spent
# on: who waits for whom, which ingredients of a recipe pay, how to stop and go on, and what a GPU,
# several of them or half precision change. You need [lesson 3](ch3_ctc.ipynb). A CPU is enough: the
# long runs were made beforehand, by `make train` and `make study`, and this lesson reads their logs.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib
import functools
import time
from pathlib import Path

import keras
import numpy as np

from captcha_reader.bank import GlyphBank
from captcha_reader.outputs import progress
from captcha_reader.texts import ALPHABET, decode_heads
from notebooks_py.ch1_captcha_preview import CaptchaSequence, SetEpoch
from notebooks_py.ch2_cnn import build_cnn
from notebooks_py.ch3_ctc import build_ctc, decode_ctc

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 30  # batches in an epoch

# %% [markdown]
# ## Who waits for whom?
#
# A training step needs a batch of pictures and a network that learns from it. We time both on this
# machine: 64 captchas by the package, 64 from a bank of glyphs, and one step of a small network.

# %%
def median_milliseconds(action, repeats: int = 5) -> float:
    """Call `action()` once to warm up, then `repeats` times; return the median, in milliseconds."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[1:]))

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
# On a laptop the step is the longer bar, or not much shorter, and a thread that draws beside it is
# enough. On a GPU the step shrinks and the drawing does not: the author of the original reports steps of
# 117 to 128 ms, of which 110 ms were waiting for pictures. That is why the upper bar matters.
#
# ## Draw six times as fast
#
# Two thirds of the package's time go into letters that are thrown away after one picture. A
# `GlyphBank` keeps them. The package itself draws every character a few times in sixty random colours;
# then a captcha is composed by the package's own rules. Can you tell which is which?

# %% tags=["active-ipynb"]
# from captcha_reader.drawing import draw_captchas, stream
# from captcha_reader.outputs import show_captchas
# from captcha_reader.texts import random_texts
#
# rng = stream(SEED, "bank", epoch=0, index=0)
# texts = random_texts(rng, 10)
# pictures = [*draw_captchas(texts[:5], rng), *GlyphBank(SEED).draw(texts[5:], rng)]
# show_captchas(pictures, texts, columns=5, title="Top: the package. Bottom: a bank of glyphs")
# plt.show()
# print(f"{len(pictures)} captchas, each {pictures[0].shape}")

# %% [markdown]
# Looks can deceive, though. A bank of *white* glyphs that are coloured afterwards looks the same, too. But
# the package thins the edges of strokes, more so in dark colours, and stroke thickness is all that
# tells `0` from `O` (lesson 6). So the test is not the eye, it is a finished network: on which pictures does
# it mistake `0` for `O` as often as on the package's?

# %% tags=["active-ipynb"]
# from captcha_reader.scores import share
# from captcha_reader.weights import measured
#
# for name, found in measured("bank")["pictures"].items():
#     print(f"{name:22} right {share(found['right'], found['n'])}")
#     for pair in ("0 as O", "O as 0"):
#         print(f"{'':22} {pair} {share(*found[pair])}")

# %% [markdown]
# The bank in the captcha's own colours agrees with the package in all three numbers, within what chance
# allows; the white one does not. (`make study WHAT=bank` counts again.) Training may use banks.
# Test sets are always drawn by the package.
#
# ## The recipe
#
# ### Practise what is hard
#
# Most errors of a good network are `O` and `0`. A pupil who mixes up two letters gets more of those to
# read, and so does our network: in half of the captchas, three of four characters are `O` or `0`,
# and towards the end in a fifth. Every epoch has a bank of its own, so that shapes never run out.

# %%
@functools.lru_cache(maxsize=2)
def fresh_bank(seed: int, epoch: int) -> GlyphBank:
    """Return the bank of one epoch; O and 0 are in it six times as often as other characters."""
    return GlyphBank(f"{seed}/{epoch}", ALPHABET + 5 * "O0")


class PracticeSequence(CaptchaSequence):
    """Captchas from a new bank in each of `epochs` epochs, with what is hard more often.

    A share of the captchas, `hard[0]` in the first four fifths of the epochs and then `hard[1]`, has
    an O or a 0 in three of four places. All other arguments are those of `CaptchaSequence`.
    """

    def __init__(self, *args, epochs=1, hard=(0.5, 0.2), **more):
        super().__init__(*args, **{"draw": self.draw_from_bank, **more})
        self.epochs, self.hard = epochs, hard

    def draw_from_bank(self, texts, rng):
        return fresh_bank(self.seed, self.epoch).draw(texts, rng)

    def texts(self, rng):
        share = self.hard[0] if self.epoch < 0.8 * self.epochs else self.hard[1]
        often = self.alphabet + 53 * "O0"
        kinds = [often if rng.random() < share else self.alphabet for _ in range(self.batch_size)]
        return ["".join(rng.choices(kind, k=self.length)) for kind in kinds]

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
KINDS = {  # how to build it, its labels, its loss, how to decode its outputs
    "cnn": (build_cnn, "one-hot", "categorical_crossentropy", decode_heads),
    "ctc": (build_ctc, "ctc", keras.losses.CTC(), decode_ctc),
}


def read(model: keras.Model, pictures: np.ndarray) -> list[str]:
    """Read uint8 pictures (n, height, width, 3) with a network of either kind."""
    return KINDS[model.name][3](model.predict_on_batch(pictures.astype("float32") / 255))

# %% tags=["active-ipynb"]
# for kind, full in {"cnn": {}, "ctc": {"rnn": (128, 128)}}.items():
#     build = KINDS[kind][0]
#     print(f"{kind}: {build(ink=False, **full).count_params():,} parameters in the original,", end=" ")
#     print(f"{build(**SLIM).count_params():,} slim")

# %% [markdown]
# ### One cycle, clipped and averaged
#
# The learning rate climbs for a short while, because the first gradients of a random network point
# anywhere. Then it is large, and falls to zero along half a cosine, so that the weights come to rest. A
# gradient longer than 1 is shortened: one strange batch can't undo a hundred good ones. And the
# optimizer keeps a moving *average* of the weights over some hundred steps. While the rate is high, the
# weights tumble around a good place; their average lies in the middle of it.

# %%
def compile_recipe(model, steps: int, peak=3e-3, fall=True, average=0.998, clip=1.0):
    """Compile for `steps` steps of AdamW with one cycle of the learning rate, or a constant one.

    The rate climbs to `peak` in a twentieth of the steps and falls to 0 along half a cosine. Kernels
    decay, biases and norms don't. `average` is the share of the past in the averaged weights.
    """
    climb = max(1, steps // 20)
    cycle = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - climb), warmup_target=peak, warmup_steps=climb
    )
    optimizer = keras.optimizers.AdamW(
        cycle if fall else peak, weight_decay=0.01, beta_2=0.99, global_clipnorm=clip,
        use_ema=True, ema_momentum=average,
    )  # fmt: skip
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, KINDS[model.name][2])
    return cycle

# %% tags=["active-ipynb"]
# model = small_ctc(SEED)
# cycle = compile_recipe(model, steps=1_000)
# rates = [float(cycle(step)) for step in range(0, 1_001, 10)]
# figure, axes = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
# axes.plot(range(0, 1_001, 10), rates)
# axes.set(title="One rise, one fall", xlabel="step", ylabel="learning rate")
# plt.show()
# print(f"step 50: {rates[5]:.4f}, step 525: {rates[52]:.4f}, step 1,000: {rates[100]:.4f}")

# %% [markdown]
# The average is for reading, not for learning, so a callback puts it into the network after each epoch,
# reads held-out captchas, saves it, and puts the network's own weights back.

# %%
class Average(keras.callbacks.Callback):
    """After each epoch, logs how the averaged weights read held-out captchas, and saves them.

    `X`, `y` are the captchas as a `CaptchaSequence` gives them, `texts` what they say. The log gets
    val_loss, val_acc (the share of whole texts) and seconds; the network is in `path`.
    """

    def __init__(self, X, y, texts: list[str], path: Path):
        super().__init__()
        self.X, self.y, self.texts, self.path = X, y, texts, path

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        model, own = self.model, self.model.get_weights()
        model.optimizer.finalize_variable_values(model.trainable_variables)
        outputs = model.predict(self.X, batch_size=100, verbose=0)
        pairs = zip(KINDS[model.name][3](outputs), self.texts, strict=True)
        logs["val_loss"] = float(model.compute_loss(y=self.y, y_pred=outputs))
        logs["val_acc"] = np.mean([answer == text for answer, text in pairs])
        logs["seconds"] = time.perf_counter() - self.start
        bare = type(model).from_config(model.get_config())  # without the optimizer's memory
        bare.set_weights(model.get_weights())
        bare.save(self.path)
        model.set_weights(own)

# %% [markdown]
# ## Stop, and go on
#
# Hours get interrupted. Keras' `BackupAndRestore` saves the weights and the optimizer after each epoch,
# and the one before in case the power fails while it writes. A long run of many short epochs then never
# loses more than one of them. One thing we add: the optimizer knows best how many steps it has made.

# %%
class Resume(keras.callbacks.BackupAndRestore):
    """Saves the state after each epoch of `steps` steps, and goes on from it when fit begins."""

    def __init__(self, folder: Path, steps: int):
        super().__init__(folder / "backup", double_checkpoint=True, delete_checkpoint=False)
        self.steps = steps

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.model._initial_epoch = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations)) // self.steps


def fit_recipe(model, data: PracticeSequence, average: Average, folder: Path, more=()):
    """Train a compiled model on `data`, or go on with the run in `folder`; the log is log.csv."""
    log = keras.callbacks.CSVLogger(folder / "log.csv", append=True)
    callbacks = [SetEpoch(data), average, log, Resume(folder, data.steps), progress(), *more]
    return model.fit(data, epochs=data.epochs, callbacks=callbacks, shuffle=False, verbose=0)

# %% [markdown]
# A GPU, or several


# %%
@contextlib.contextmanager
def every_device():
    """Build and train on all GPUs, or on all CPU devices where there is no GPU; give their number."""
    devices = keras.distribution.list_devices()
    if len(devices) > 1 and keras.backend.backend() == "jax":
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        yield len(devices)
        keras.distribution.set_distribution(before)
    elif len(devices) > 1 and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.distribute.MirroredStrategy(devices).scope():
            yield len(devices)
    else:
        yield 1

# %%
def best_precision() -> str:
    """Return "mixed_bfloat16" where the device computes with it, else "float32"."""
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    gpu = any("gpu" in device.lower() for device in keras.distribution.list_devices())
    half = gpu or "avx512_bf16" in flags or "amx_bf16" in flags
    return "mixed_bfloat16" if half else "float32"
