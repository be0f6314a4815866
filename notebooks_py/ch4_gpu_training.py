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
# # Train on a GPU, and keep it busy
#
# ## What you'll do
#
# - ask which device your network runs on, and share a GPU's memory politely
# - measure how fast captchas reach the network with no worker, two workers and four
# - draw a set of captchas once, and read it again many times as fast
# - take a training step apart, and compare it with what your machine could do
# - build the training that `make train` runs for hours, and stop it in the middle
#
# ## What you'll learn
#
# - what a GPU speeds up, and what it leaves exactly as slow as before
# - how to find out whether a network is waiting for its data
# - what makes training quick: a slim network, and a learning rate with a plan
# - what has to be saved so that a run can be killed at any moment and lose nothing but a minute
#
# ## What you'll need
#
# - [Lesson 1](ch1_captcha_preview.ipynb), [lesson 2](ch2_cnn.ipynb) and [lesson 3](ch3_ctc.ipynb);
#   a GPU is welcome and not needed: on a CPU every cell runs as well
#
# ---

# %%
import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import json
import math
import multiprocessing
import os
import platform
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path

# %% [markdown]
# Keras reads its settings when it is imported, so they come first.

# %%
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

# %% [markdown]
# And what earlier lessons have built:

# %%
from notebooks_py.ch1_captcha_preview import (
    CaptchaSequence,
    check_index,
    decode,
    decode_heads,
    encode,
    fingerprint,
)
from notebooks_py.ch2_cnn import (
    Score,
    build_cnn,
    check_settings,
    evaluate,
    open_run,
    read_heads,
    replace_text,
    save_model,
    wilson,
)
from notebooks_py.ch3_ctc import build_ctc, compile_ctc, ctc_loss, decode_ctc, read_ctc


# %% [markdown]
# Two numbers: the seed, and how many batches we time.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 16  # batches in each measurement

# %% [markdown]
# ## Which device?
#
# Keras places a network on the first GPU if the backend can see one, and on the CPU otherwise. No
# line of lesson 2 has to change. So the question is only whether a GPU is *seen*: a driver that is
# too old, or a TensorFlow without CUDA libraries, silently leaves you on the CPU.

# %%
def device() -> str:
    """Return the device that Keras computes on, such as "GPU (gpu:0, one of 2)" or "CPU"."""
    devices = keras.distribution.list_devices()  # GPUs (or TPUs) if there are any, else CPUs
    kind = devices[0].split(":")[0].upper()
    if kind == "CPU":
        return "CPU"
    return f"{kind} ({devices[0]}{f', one of {len(devices)}' if len(devices) > 1 else ''})"


# %% [markdown]
# These lessons print nothing that depends on your machine, because their printed outputs are
# compared with ours, word by word. What depends on the machine goes into pictures. This one is
# yours:

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, axes = plt.subplots(figsize=(7, 1.2), layout="constrained")
# axes.text(0.5, 0.5, f"{device()}, backend {keras.backend.backend()}", ha="center", fontsize=15)
# axes.set_title("The device that this notebook computes on")
# axes.axis("off")
# plt.show()
# print("Keras sees a CPU or a GPU:", device().split()[0] in ("CPU", "GPU"))

# %% [markdown]
# If it says CPU although there is a GPU in your machine, the README tells how to install TensorFlow
# with CUDA.
#
# ## Share the memory
#
# TensorFlow takes *all* memory of a GPU at its first operation, whether it needs it or not. Then a
# second notebook on the same GPU fails. The original tutorial asks TensorFlow to take memory step
# by step instead; this is the same trick with today's functions. It has to come before the first
# operation on the GPU.

# %%
def grow_memory() -> str:
    """Ask the backend to take GPU memory as it needs it; return a sentence about what was done.

    Raises:
        RuntimeError: TensorFlow has used the GPU already, so it is too late.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        if os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "").lower() == "false":
            return "JAX takes memory as it needs it: XLA_PYTHON_CLIENT_PREALLOCATE is false"
        return "JAX decides at its start: set XLA_PYTHON_CLIENT_PREALLOCATE=false before that"
    if backend != "tensorflow":
        return f"{backend} takes GPU memory as it needs it: nothing to do"
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError as error:
            raise RuntimeError(
                f"{gpu.name} is in use already: restart the kernel, and call grow_memory() first"
            ) from error
    return f"TensorFlow takes memory as it needs it on {len(gpus)} GPUs"


# %% [markdown]
# We call it here for the sake of the example; in a notebook of your own, do so right after the
# imports.

# %% tags=["active-ipynb"]
# sentence = grow_memory()
# assert "memory" in sentence or "JAX decides" in sentence
# print("asked in time:", bool(sentence))

# %% [markdown]
# On a CPU this does nothing, and says so in `sentence`.
#
# ## Who waits for whom?
#
# A training step has two halves. Somebody draws the pictures: that is work for CPU cores, whatever
# card is in the machine. Then the network computes: that is what a GPU does many times faster. If
# the pictures come too slowly, the fastest GPU stands idle; in the original tutorial, nine tenths
# of each step on a GPU were waiting for pictures.
#
# Workers help, because they draw the next batches while the network computes. To see how much, we
# time an epoch of the same batches with different numbers of workers. The network is tiny, so it
# hardly ever makes anybody wait: what is left is the feeding.

# %%
@functools.cache
def tiny_network(width: int, height: int, classes: int, length: int) -> keras.Model:
    """Build and compile a network that hardly computes anything; only once for each size."""
    inputs = keras.Input((height, width, 3))
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    heads = [keras.layers.Dense(classes, "softmax")(features) for _ in range(length)]
    model = keras.Model(inputs, heads)
    model.compile("sgd", loss="categorical_crossentropy")
    return model


def feeding_speed(data: CaptchaSequence) -> float:
    """Return how many pictures a second reach a tiny network in an epoch of `data`."""
    model = tiny_network(data.width, data.height, len(data.alphabet), data.length)
    model.fit(*data[0], verbose=0)  # the first time Keras compiles, and that is not feeding
    start = time.perf_counter()
    model.fit(data, shuffle=False, verbose=0)
    return data.batch_size * len(data) / (time.perf_counter() - start)


# %% [markdown]
# Three epochs, three bars:

# %% tags=["active-ipynb"]
# speeds = {
#     workers: feeding_speed(CaptchaSequence(32, STEPS, SEED, workers=workers))
#     for workers in (0, 2, 4)
# }
# figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
# axes.bar([str(workers) for workers in speeds], speeds.values())
# axes.set(xlabel="workers (threads)", ylabel="pictures a second")
# axes.set_title(f"Feeding by threads: {STEPS} batches of 32, {os.cpu_count()} CPU cores")
# plt.show()
# print("measured with", ", ".join(map(str, speeds)), "workers")
# assert all(speed > 0 for speed in speeds.values())

# %% [markdown]
# The bars are your machine's. Do not expect four times the speed from four threads: Python lets one
# thread at a time run Python code, and only the parts of Pillow that work outside Python overlap. On
# our two cores threads gained nothing at all; waiting for each other cost more than the overlap
# brought. What does help is processes, which are next.
#
# Does it matter who draws? For the speed, yes; for the data, no:

# %% tags=["active-ipynb"]
# alone, helped = (CaptchaSequence(32, 2, SEED, workers=workers) for workers in (0, 4))
# same = all(np.array_equal(alone[index][0], helped[index][0]) for index in range(2))
# print("the same pictures with any number of workers:", same)
# assert same

# %% [markdown]
# ## Draw once, use often
#
# The first way out: draw the captchas *once*, keep them as bytes on a disk, and let training read
# them. Several processes draw, each for itself, so the number of cores counts in full. The pictures
# go into one large array in a file (`numpy` calls that a memory map), which the operating system
# reads as it is needed.
#
# A set that is half drawn, or was drawn with another seed, would be worse than none. So it is made
# under another name and renamed when it is complete, and it carries its settings and fingerprints
# with it.

# %%
SET_NAMES = ("seed", "split", "alphabet", "length", "width", "height")


def set_settings(source: CaptchaSequence) -> dict:
    """Return what `source` draws, but for the size and number of its batches."""
    return {name: getattr(source, name) for name in SET_NAMES}


# %% [markdown]
# Now the set itself. The settings are written last, in the draft, and then the draft becomes the
# set.

# %%
def render_set(source: CaptchaSequence, folder: Path, processes: int = 2) -> Path:
    """Draw all batches of `source` into a new `folder`, with a progress bar; all of it or nothing.

    The folder gets pictures.npy, uint8 (n, height, width, 3), labels.npy, int32 (n, length), and
    set.json with the settings and the fingerprint of each batch. `processes` draw at once.

    Raises:
        FileExistsError: there is a folder of this name.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists: delete it to draw the set anew, or name another")
    draft, size = folder.with_name(folder.name + ".draft"), source.batch_size
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    shape = (len(source) * size, source.height, source.width, 3)
    pictures = np.lib.format.open_memmap(draft / "pictures.npy", "w+", np.uint8, shape)
    labels, hashes = np.empty((shape[0], source.length), np.int32), []
    for index, (drawn, texts) in enumerate(draw_ahead(source, processes)):
        rows = slice(index * size, (index + 1) * size)
        pictures[rows], labels[rows] = drawn, encode(texts, source.alphabet, source.length)
        hashes.append(fingerprint(drawn, labels[rows]))
    pictures.flush()
    np.save(draft / "labels.npy", labels)
    note = {"pictures": len(labels), "settings": set_settings(source)}
    note |= {"batch_size": size, "fingerprints": hashes}
    replace_text(draft / "set.json", json.dumps(note, indent=1))
    os.replace(draft, folder)
    return folder


# %% [markdown]
# The drawing itself is spread over processes that start afresh ("spawn"), which works on every
# system. They get the data set and the number of a batch, and send back its pictures. To start one
# takes seconds, so a single one is not started at all: then this process draws.

# %%
def draw_ahead(source: CaptchaSequence, processes: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield all batches of `source` in order, drawn by so many processes, with a progress bar."""
    numbers, bar = range(len(source)), {"total": len(source), "desc": "drawing", "unit": "batch"}
    if processes == 1:
        yield from tqdm(map(source.draw, numbers), **bar)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        try:
            yield from tqdm(pool.map(source.draw, numbers), **bar)
        finally:
            pool.shutdown(cancel_futures=True)


# %% [markdown]
# Before a set is used, it has to show its papers: settings, number of pictures, and the fingerprints
# of three batches, at its beginning, middle and end.

# %%
def read_note(folder: Path) -> dict:
    """Return the set.json of a rendered set; FileNotFoundError if there is none in `folder`."""
    if not (folder / "set.json").exists():
        raise FileNotFoundError(f"no set in {folder}: draw one with `make render OUT={folder}`")
    return json.loads((folder / "set.json").read_text())


# %% [markdown]
# Damage is found before it is trained on, at least where it is looked for.

# %%
def open_set(folder: Path, wanted: dict, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures uint8 (n, height, width, 3) and labels (n, length) of the set in `folder`.

    Raises:
        FileNotFoundError: there is no such set.
        ValueError: its settings are not those `wanted`, n is below `least`, or it is damaged.
    """
    note = read_note(folder)
    check_settings(wanted, note["settings"], folder, "set")
    hashes, size = note["fingerprints"], note["batch_size"]
    if least > note["pictures"]:
        raise ValueError(
            f"the set in {folder} has {note['pictures']} pictures, fewer than {least}: "
            "ask for fewer, or render a larger set"
        )
    files = [np.load(folder / name, mmap_mode="r") for name in ("pictures.npy", "labels.npy")]
    for index in (0, len(hashes) // 2, len(hashes) - 1):
        if fingerprint(*(x[index * size : (index + 1) * size] for x in files)) != hashes[index]:
            raise ValueError(
                f"batch {index} in {folder} is damaged: delete the folder, and render the set anew"
            )
    return tuple(files)


# %% [markdown]
# To read the set is then to look up instead of to draw. Everything else, labels included, comes
# from `CaptchaSequence`.

# %%
class RenderedSequence(CaptchaSequence):
    """A `CaptchaSequence` that looks its batches up in the `folder` of a `render_set`.

    The other arguments are those of `CaptchaSequence`. With the batch_size of the set, so is every
    batch, byte for byte; with another one, the same pictures come in batches of that size. The
    errors are those of `CaptchaSequence` and `open_set`.
    """

    def __init__(self, folder: Path, batch_size: int, steps: int, seed: int, **options):
        super().__init__(batch_size, steps, seed, **options)
        self.pictures, self.places = open_set(folder, set_settings(self), steps * batch_size)

    def draw(self, index: int) -> tuple[np.ndarray, list[str]]:
        """Look up batch `index`: uint8 pictures and their texts; IndexError outside 0..steps-1."""
        check_index(index, self.steps)
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return np.array(self.pictures[rows]), decode(self.places[rows], self.alphabet)


# %% [markdown]
# A few seconds of drawing, and the set is there. (`make render` draws large ones, with a process
# for each core.) Are its batches those that would have been drawn on the fly?

# %% tags=["active-ipynb"]
# from notebooks_py.ch1_captcha_preview import fresh_folder
#
# FOLDER = fresh_folder("ch4_gpu_training")
# on_the_fly = CaptchaSequence(32, STEPS, SEED)
# render_set(on_the_fly, FOLDER / "set", processes=1)
# rendered = RenderedSequence(FOLDER / "set", 32, STEPS, SEED)
# same = all(np.array_equal(rendered[i][0], on_the_fly[i][0]) for i in range(STEPS))
# size = (FOLDER / "set" / "pictures.npy").stat().st_size
# print(f"{STEPS * 32} pictures, {size / 1e6:.1f} MB, the same as on the fly: {same}")
# assert same

# %% [markdown]
# A set of other captchas under the same name would be a nasty surprise, so it is refused:

# %% tags=["active-ipynb"]
# try:
#     RenderedSequence(FOLDER / "set", 32, STEPS, SEED + 1)
# except ValueError as error:
#     print("ValueError:", str(error).replace(str(FOLDER), "..."))

# %% [markdown]
# And the speed? The same measurement as above:

# %% tags=["active-ipynb"]
# ways = {"drawn, no worker": on_the_fly, "from the set": rendered}
# ways = {name: feeding_speed(data) for name, data in ways.items()}
# figure, axes = plt.subplots(figsize=(6, 2), layout="constrained")
# axes.barh(list(ways), ways.values())
# axes.set(title="Feeding on the fly and from a set", xlabel="pictures a second")
# plt.show()
# print("measured:", ", ".join(ways))
# assert all(speed > 0 for speed in ways.values())

# %% [markdown]
# Reading costs next to nothing. The price is space, 24,576 bytes for each picture, and that the set
# has an end.
#
# ## A recipe for impatient people
#
# The original's recipe needs millions of pictures. Two things make training quick enough for a
# laptop. The first is a **slim** network, through the arguments of `build_cnn` and `build_ctc`: the
# first convolution halves the picture, and the early blocks, where pictures are large and every
# filter is expensive, have few filters.

# %%
SIZES = {
    "full": {"cnn": {}, "ctc": {}},  # the original's
    "slim": {
        "cnn": {"filters": (24, 48, 96, 192), "convs": 1, "stride": 2},
        "ctc": {"filters": (24, 48, 96, 192), "convs": 1, "stride": 2, "rnn": ()},
    },
}


def build(kind: str, size: str) -> keras.Model:
    """Build the network of a kind ("cnn" or "ctc") and a size ("full" or "slim")."""
    for name, value, allowed in (("size", size, SIZES), ("kind", kind, SIZES["full"])):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: allowed are {', '.join(allowed)}")
    return {"cnn": build_cnn, "ctc": build_ctc}[kind](**SIZES[size][kind])


# %% [markdown]
# How much smaller?

# %% tags=["active-ipynb"]
# for kind in ("cnn", "ctc"):
#     full, slim = (build(kind, size).count_params() for size in ("full", "slim"))
#     print(f"{kind}: {full:,} parameters in full size, {slim:,} slim")

# %% [markdown]
# The slim CTC network does without a GRU: in lesson 3 it learned faster like that.
#
# The second is a **learning rate with a plan**. It climbs for a short while, because the first
# gradients of a random network point anywhere. Then it is large, and at the end it falls to zero
# along half a cosine, so that the weights come to rest. One number has to be known beforehand: how
# many steps there will be.

# %%
def rate_plan(steps: int, peak: float, warmup: float) -> keras.optimizers.schedules.CosineDecay:
    """Return a rate that climbs to `peak` in a share `warmup` of all `steps`, then falls to 0."""
    climb = max(1, round(warmup * steps))
    rest = max(1, steps - climb)
    return keras.optimizers.schedules.CosineDecay(0.0, rest, warmup_target=peak, warmup_steps=climb)


def compile_fast(
    model: keras.Model,
    steps: int,
    peak: float = 2e-3,
    warmup: float = 0.1,
    decay: float = 1e-2,
    fall: bool = True,
) -> None:
    """Compile for `steps` steps of AdamW along `rate_plan`, or at `peak` all the time.

    `decay` pulls the weights of kernels towards zero, those of biases and norms not.
    """
    rate = rate_plan(steps, peak, warmup) if fall else peak
    optimizer = keras.optimizers.AdamW(rate, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, "categorical_crossentropy" if model.name == "cnn" else ctc_loss)


# %% [markdown]
# For a thousand steps it looks like this:

# %% tags=["active-ipynb"]
# plan = rate_plan(1_000, peak=2e-3, warmup=0.1)
# rates = [float(ops.convert_to_numpy(plan(step))) for step in range(0, 1_001, 10)]
# figure, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
# axes.plot(range(0, 1_001, 10), rates)
# axes.set(title="One rise, one fall", xlabel="step", ylabel="learning rate")
# plt.show()
# print(f"start {rates[0]:.4f}, step 100 {rates[10]:.4f}, step 550 {rates[55]:.4f}", end=", ")
# print(f"end {rates[100]:.4f}")

# %% [markdown]
# ## Where the time goes
#
# What has slim bought us? We take one training step apart. Somebody draws; bytes become floats and
# texts become labels; the network computes forward; it computes backward, which is about twice the
# work, and moves its weights.

# %%
def side_by_side(actions: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, list]:
    """Return the seconds that `repeats` calls of each action took, in turn; a first call is free.

    Whatever slows the machine down meanwhile slows all of them: their ratios can be trusted.
    """
    for action in actions.values():
        action()
    seconds = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_seconds(action: Callable[[], object]) -> float:
    """Return the median time of five calls of `action`, after one that does not count."""
    return float(np.median(side_by_side({"": action})[""]))


def step_parts(model: keras.Model, data: CaptchaSequence) -> dict[str, float]:
    """Return the seconds for each picture that each part of a training step on `data` takes."""
    X, y = data[0]
    draw, batch = median_seconds(lambda: data.draw(0)), median_seconds(lambda: data[0])
    forward = median_seconds(lambda: model.test_on_batch(X, y))
    step = median_seconds(lambda: model.train_on_batch(X, y))
    parts = {"draw": draw, "make arrays": batch - draw, "forward": forward}
    parts["backward, update"] = step - forward
    return {name: max(0.0, seconds) / data.batch_size for name, seconds in parts.items()}


# %% [markdown]
# Is that slow or fast? There are two floors that nobody gets below. The processor can do so many
# operations in a second, and memory can move so many bytes. We count what the network needs. A
# kernel is used once at each position of its layer's output, and each use of a weight is two
# operations, a multiplication and an addition.

# %%
def operations(model: keras.Model) -> int:
    """Return the floating-point operations of a forward pass on one picture, in all kernels."""
    total = 0
    for layer in model.layers:
        kernels = [w for w in layer.trainable_weights if w.name.endswith("kernel")]
        positions = math.prod(layer.output.shape[1:-1])
        total += 2 * positions * sum(math.prod(kernel.shape) for kernel in kernels)
    return total


def traffic(model: keras.Model) -> int:
    """Return the bytes that a forward pass on one picture moves if nothing stays in a cache.

    Each layer reads its input and writes its output, four bytes for each number.
    """
    shapes = [
        shape for layer in model.layers[1:] for shape in (layer.input.shape, layer.output.shape)
    ]
    return sum(4 * math.prod(shape[1:]) for shape in shapes)


# %% [markdown]
# The full-size CNN and the slim one:

# %% tags=["active-ipynb"]
# networks = {size: build("cnn", size) for size in ("full", "slim")}
# for size, network in networks.items():
#     print(f"{size}: {operations(network):,} operations, {traffic(network):,} bytes", end=" ")
#     print("for a picture, forward")

# %% [markdown]
# And what does this machine have to offer? We multiply large matrices, which is the best case for
# its arithmetic, and add 1 to a long row of numbers, which does nothing but move them.

# %%
def machine_limits() -> tuple[float, float]:
    """Return the operations and the bytes in a second that the device of Keras reaches."""
    matrix, row = keras.random.normal((1024, 1024)), ops.ones(2**24)

    def multiply() -> None:
        product = matrix
        for _ in range(4):
            product = ops.matmul(product, matrix) / 32
        ops.convert_to_numpy(product[0, 0])

    def move() -> None:
        ops.convert_to_numpy((row + 1)[0])

    return 4 * 2 * 1024**3 / median_seconds(multiply), 2 * 4 * 2**24 / median_seconds(move)


# %% [markdown]
# The parts, and the floors beside them. A training step takes three times the forward pass.

# %% tags=["active-ipynb"]
# arithmetic, memory = machine_limits()
# few = CaptchaSequence(8, 1, SEED)
# figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
# for row, (size, network) in enumerate(networks.items()):
#     compile_fast(network, 10)
#     left = 0.0
#     for place, (name, seconds) in enumerate(step_parts(network, few).items()):
#         label = name if row == 0 else None
#         axes.barh(size, 1e3 * seconds, left=left, color=f"C{place}", label=label)
#         left += 1e3 * seconds
#     floors = [3 * operations(network) / arithmetic, 3 * traffic(network) / memory]
#     for floor, style in zip(floors, ("-", ":"), strict=True):
#         axes.plot([1e3 * floor] * 2, [row - 0.4, row + 0.4], color="black", ls=style)
#     assert left > 0 and min(floors) > 0
# axes.plot([], [], color="black", ls="-", label="floor: operations")
# axes.plot([], [], color="black", ls=":", label="floor: bytes")
# axes.set(title="A training step for one picture, batches of 8", xlabel="milliseconds")
# axes.legend()
# plt.show()
# print(f"{len(networks)} networks, {len(floors)} floors for each")

# %% [markdown]
# The floors are for computing alone, without drawing. In full size nearly all time goes into the
# network, and the floor says that no cleverness would make it quick on a CPU. The slim network needs
# so few operations that drawing becomes a part that counts.
#
# A gap between a bar and its floors is worth a question. On Linux we found one answer in memory.
# TensorFlow asks for room for every intermediate result of a step and gives it back. The C library
# hands large blocks straight back to the system, and gets them again in the next step, page by page
# and filled with zeros: tens of thousands of pages in each step of the slim network, which took more
# than half of its time on our two cores. Three environment variables tell the library to keep what
# it has. The Makefile sets them for all commands; elsewhere, set them before Python starts:
#
# ```sh
# export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456
# ```
#
# ## Training that nothing can stop
#
# In lesson 2 an interrupted run went on from the last finished *epoch*. With hours at stake we want
# more: whatever happens, no more than a minute or so is lost, and the resumed run ends with exactly
# the weights of one that was never stopped.
#
# Because a batch is decided by its name, this is simple: we number the *steps* of the whole run,
# and step 4,711 always trains on batch 4,711. The number of steps that are done, the weights and
# the optimiser's memory are all there is to save.

# %%
class Steps(keras.utils.PyDataset):
    """The batches for steps `first` to `last` - 1 of a run; a source that ends begins again."""

    def __init__(self, source: CaptchaSequence, first: int, last: int):
        super().__init__(workers=source.workers)
        self.source, self.first, self.last = source, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> tuple:
        return self.source[(self.first + index) % len(self.source)]


# %% [markdown]
# What a run is, and how far it has come:

# %%
@dataclasses.dataclass
class Run:
    """A training run in `folder`: `step` of `steps` are done, `rows` are the lines of its log.

    `loss` is the sum of the training losses since the last line, `seconds` the time trained, and
    `lines` the number of lines that the log will have.
    """

    model: keras.Model
    source: CaptchaSequence
    folder: Path
    steps: int
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    rows: list[dict] = dataclasses.field(default_factory=list)
    lines: int = 100

    def mark(self, number: int) -> int:
        """Return the step at which line `number` (from 1) of the log is due."""
        return math.ceil(self.steps * number / min(self.lines, self.steps))


# %% [markdown]
# A state is two files with the number of the step in their names. Keras writes the weights and the
# optimiser under another name; the renaming is the moment when it happened. The state before it is
# kept until then.

# %%
def save_state(run: Run) -> None:
    """Write the run's state to its folder; an interruption leaves the one before it untouched."""
    name = run.folder / f"state-{run.step:08d}"
    progress = {key: getattr(run, key) for key in ("step", "loss", "seconds", "rows")}
    replace_text(name.with_suffix(".json"), json.dumps(progress))
    run.model.save(run.folder / "draft.keras")
    os.replace(run.folder / "draft.keras", name.with_suffix(".keras"))
    for path in run.folder.glob("state-*"):
        if path.stem != name.name:
            path.unlink()


# %% [markdown]
# To go on is to read the newest state.

# %%
def load_state(run: Run) -> None:
    """Put `run` where the newest state in its folder was saved; do nothing if there is none.

    Raises:
        ValueError: the state is damaged.
    """
    run.model.optimizer.build(run.model.trainable_variables)
    states = sorted(run.folder.glob("state-*.keras"))
    if not states:
        return
    try:
        progress = json.loads(states[-1].with_suffix(".json").read_text())
        run.model.load_weights(states[-1])
    except Exception as error:
        raise ValueError(
            f"{states[-1]} is damaged ({type(error).__name__}: {error}): "
            "bring back an intact copy, or start a new run in another folder"
        ) from error
    for key, value in progress.items():
        setattr(run, key, value)


# %% [markdown]
# A callback counts the steps, moves the progress bar, and saves when a minute has passed. If
# somebody asks it to stop, it ends the training after the step at hand.

# %%
class Keeper(keras.callbacks.Callback):
    """Counts the steps of a `Run` while it trains, and saves its state every `every` seconds."""

    def __init__(self, run: Run, bar: tqdm, stop: threading.Event, every: float):
        super().__init__()
        self.run, self.bar, self.stop, self.every = run, bar, stop, every
        self.saved = self.last = time.monotonic()

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.before, self.last = self.run.loss, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        now = time.monotonic()
        self.run.step += 1
        self.run.seconds += now - self.last
        self.last = now
        self.bar.update(self.run.source.batch_size)
        if self.stop.is_set() or now - self.saved > self.every:
            self.saved = now
            self.run.loss = self.before + float(logs["loss"]) * (batch + 1)  # Keras gives the mean
            # To ask for self.model also brings its weights up to date, which JAX keeps elsewhere.
            self.model.stop_training = self.stop.is_set()
            save_state(self.run)


# %% [markdown]
# A hundred times in a run we want to know how good it is: on held-out pictures, which are drawn
# once and kept.

# %%
def held_out(model: keras.Model, X: np.ndarray, y: Sequence[np.ndarray] | np.ndarray) -> dict:
    """Return `val_loss` and `val_acc`, the share of whole texts that are right, on one batch."""
    out = model.predict(X, batch_size=128, verbose=0)
    loss = ops.convert_to_numpy(model.compute_loss(y=y, y_pred=out))
    heads = isinstance(out, list)
    answers = decode_heads(out) if heads else decode_ctc(out)
    truths = decode_heads(y) if heads else decode(y - 1)
    right = np.mean([a == b for a, b in zip(answers, truths, strict=True)])
    return {"val_loss": float(loss), "val_acc": float(right)}


# %% [markdown]
# Each time, the log gets a line. The columns are those of lesson 2 and a few more, so that lesson 5
# can plot it.

# %%
def add_row(run: Run, losses: dict) -> None:
    """Add a line to the run's log: what was trained since the last one, and `losses`."""
    steps = run.step - (run.rows[-1]["step"] if run.rows else 0)
    row = {"epoch": len(run.rows), "stage": 1, "step": run.step}
    row["pictures"] = run.step * run.source.batch_size
    row["seconds"] = round(run.seconds, 1)
    row["learning_rate"] = float(ops.convert_to_numpy(run.model.optimizer.learning_rate))
    run.rows.append({**row, "loss": run.loss / steps, **losses})
    run.loss = 0.0
    text = io.StringIO()
    table = csv.DictWriter(text, run.rows[0])
    table.writeheader()
    table.writerows(run.rows)
    replace_text(run.folder / "log.csv", text.getvalue())


# %% [markdown]
# Now the loop.

# %%
def train(
    run: Run,
    valid: tuple[np.ndarray, Sequence[np.ndarray] | np.ndarray],
    stop: threading.Event | None = None,
    every: float = 60.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> bool:
    """Train until all steps are done, or `stop` is set; return whether they are done.

    A run whose folder holds a state goes on from there. The state is saved every `every` seconds
    and at the end, and log.csv gets its lines. `valid` is a batch of held-out pictures and their
    labels. `callbacks` see each stretch between two lines as a training of its own.
    """
    load_state(run)
    stop, size = stop or threading.Event(), run.source.batch_size
    bar = tqdm(total=run.steps * size, initial=run.step * size, unit=" captchas", unit_scale=True)
    keeper = Keeper(run, bar, stop, every)
    while run.step < run.steps and not stop.is_set():
        first, last, before = run.step, run.mark(len(run.rows) + 1), run.loss
        if first < last:  # equal if a run was killed between its last step and its line
            data, watchers = Steps(run.source, first, last), [keeper, *callbacks]
            history = run.model.fit(data, shuffle=False, verbose=0, callbacks=watchers).history
            run.loss = before + history["loss"][0] * (run.step - first)
        if run.step == last:
            add_row(run, held_out(run.model, *valid))
            bar.set_postfix_str(f"{run.rows[-1]['val_acc']:.1%} right")
    bar.close()
    save_state(run)
    return run.step == run.steps


# %% [markdown]
# Ctrl-C, or a system that shuts down, should stop the run politely: finish the step, save, end. So
# for as long as the training lasts, both signals only set the flag that `train` looks at.

# %%
@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C (SIGINT) and SIGTERM set, instead of what they do otherwise."""
    stop = threading.Event()
    both = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in both]
    try:
        yield stop
    finally:
        for number, handler in zip(both, before, strict=True):
            signal.signal(number, handler)


# %% [markdown]
# Let us see whether it holds. One run is left alone. Its twin is told to stop in the middle, and
# then resumed with a network that knows nothing.

# %% tags=["active-ipynb"]
# def short_run(name, stop=None):
#     keras.utils.set_random_seed(SEED)
#     model = build_ctc(filters=(4, 8, 8, 16), convs=1, stride=2, rnn=())
#     compile_fast(model, 12)
#     source = CaptchaSequence(16, 12, SEED, labels="ctc")
#     (FOLDER / name).mkdir(exist_ok=True)
#     run = Run(model, source, FOLDER / name, steps=12, lines=4)
#     train(run, CaptchaSequence(16, 1, SEED, split="valid", labels="ctc")[0], stop)
#     return run
#
#
# alone = short_run("alone")
# print(f"{alone.step} steps, {len(alone.rows)} lines in the log: {', '.join(alone.rows[0])}")

# %% [markdown]
# And the twin, which is stopped after a few steps and then goes on:

# %% tags=["active-ipynb"]
# class StopLater(threading.Event):  # is set once it has been looked at five times
#     looks = 0
#
#     def is_set(self) -> bool:
#         self.looks += 1
#         return self.looks > 5
#
#
# stopped = short_run("stopped", StopLater())
# print(f"stopped after {stopped.step} steps", end=", ")
# resumed = short_run("stopped")
# pairs = zip(alone.model.get_weights(), resumed.model.get_weights(), strict=True)
# same = all(np.array_equal(a, b) for a, b in pairs)
# print(f"resumed to {resumed.step}, same weights to the last bit: {same}")
# assert same and stopped.step < 12

# %% [markdown]
# ## `make train`
#
# It is made of these parts. What is still missing is what surrounds them.
#
# How many steps fit into half an hour? That depends on the machine, so we ask it: a throwaway copy
# of the network trains for a few steps, and the first ones, in which Keras compiles, don't count.

# %%
def measured_speed(kind: str, size: str, source: CaptchaSequence, steps: int = 16) -> float:
    """Return how many pictures a second this machine trains on, pictures of `source` included."""
    model = build(kind, size)
    compile_fast(model, steps)
    model.fit(Steps(source, 0, 3), shuffle=False, verbose=0)
    start = time.perf_counter()
    model.fit(Steps(source, 3, 3 + steps), shuffle=False, verbose=0)
    return steps * source.batch_size / (time.perf_counter() - start)


# %% [markdown]
# ### Half the bits, if that helps
#
# Numbers of 16 bits instead of 32 take half the memory, and some hardware computes with them much
# faster: NVIDIA's GPUs of the last years, and processors with AVX512-BF16 or AMX. In *mixed
# precision*, layers compute in `bfloat16`, while weights and optimiser stay in `float32`. Other
# hardware has to imitate it, which is many times slower. So we never assume: we take a few steps in
# each, side by side.

# %%
@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Build layers with a Keras dtype policy, "float32" or "mixed_bfloat16", in a `with` block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def one_step(kind: str, size: str, policy: str, data: CaptchaSequence) -> Callable[[], object]:
    """Return a function that trains a new network for one step on the first batch of `data`."""
    with precision(policy):
        model = build(kind, size)
    compile_fast(model, 1_000)
    X, y = data[0]
    return lambda: model.train_on_batch(X, y)


# %% [markdown]
# Mixed precision has to win clearly.

# %%
def fastest_policy(kind: str, size: str, data: CaptchaSequence, gain: float = 1.1) -> str:
    """Return "mixed_bfloat16" if it trains at least `gain` times as fast here, else "float32"."""
    actions = {name: one_step(kind, size, name, data) for name in ("float32", "mixed_bfloat16")}
    plain, mixed = side_by_side(actions).values()
    return "mixed_bfloat16" if np.median(np.divide(plain, mixed)) >= gain else "float32"


# %% [markdown]
# ### More than one GPU
#
# With several GPUs, each of them can hold a copy of the network and take an equal share of every
# batch; their gradients are averaged, so that all copies make the same step. This is called *data
# parallel*, and Keras' backends have an engine for it: `MirroredStrategy` in TensorFlow,
# `DataParallel` for JAX. What is built inside our `with` block is copied to every device.
#
# One detail: batch normalisation takes the mean over a batch, but each device of TensorFlow sees
# only its share. Then two GPUs would train another network than one, unless the shares are told to
# agree on the mean. (JAX computes as if there were one large device, so there nothing is to do.)

# %%
@contextlib.contextmanager
def every_device() -> Iterator[int]:
    """Build and train on all GPUs, or all CPU devices where there is none; give their number."""
    devices = keras.distribution.list_devices()
    backend = keras.backend.backend()
    if len(devices) == 1 or backend not in ("tensorflow", "jax"):
        yield 1
    elif backend == "jax":
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        try:
            yield len(devices)
        finally:
            keras.distribution.set_distribution(before)
    else:
        import tensorflow as tf

        with tf.distribute.MirroredStrategy(devices).scope():
            yield len(devices)


# %% [markdown]
# And for the agreement:

# %%
def share_norms(model: keras.Model, devices: int) -> None:
    """Let batch normalisation see the whole batch on TensorFlow, whose devices see parts of it."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = devices > 1 and keras.backend.backend() == "tensorflow"


def check_shares(batch_size: int, devices: int) -> None:
    """Raise a ValueError unless a batch can be shared equally between the devices."""
    if batch_size % devices:
        raise ValueError(
            f"a batch of {batch_size} can't be shared equally between {devices} devices: "
            f"use a multiple of {devices}, such as {devices * math.ceil(batch_size / devices)}"
        )


# %% [markdown]
# On a laptop, all of this does nothing. (The tests of this repository split a CPU into two virtual
# devices, and see that they compute the same losses as one.)
#
# ### All together
#
# What comes out is a model without the optimiser's memory and a file with everything that somebody
# needs to know who wants to believe its accuracy.

# %%
PACKAGES = ("keras", "tensorflow", "jax", "captcha", "pillow", "numpy")


def processor() -> str:
    """Return the name of the CPU as the system gives it."""
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def hardware() -> dict:
    """Return what a measurement was made on, and with which versions."""
    installed = {package.metadata["Name"].lower() for package in metadata.distributions()}
    return {
        "device": device(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "backend": keras.backend.backend(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES if name in installed},
    }


# %% [markdown]
# And what made the model:

# %%
def provenance(run: Run) -> dict:
    """Return what made a model: how far, how long, on what, with which versions."""
    return {
        "pictures": run.step * run.source.batch_size,
        "seconds": round(run.seconds),
        "parameters": run.model.count_params(),
        **hardware(),
    }


# %% [markdown]
# The checksum of the weights is there, too: a file that was changed by a single byte is another
# one.

# %%
def write_results(run: Run, model: keras.Model, settings: dict, score: Score) -> dict:
    """Write model.keras and results.json to the run's folder; return what is in the latter."""
    weights = save_model(model, run.folder / "model.keras")
    low, high = wilson(score.right, score.n)
    results = {
        **{"test_set": score.test_set, "n": score.n, "right": score.right},
        "interval": [round(low, 5), round(high, 5)],
        "right_by_position": list(score.right_by_position),
        **{"settings": settings, **provenance(run)},
        "bytes": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    replace_text(run.folder / "results.json", json.dumps(results, indent=1) + "\n")
    return results


# %% [markdown]
# All of it together is what `make train` calls. A folder that holds a run is never overwritten: it
# goes on with `resume`, or you name another. However it was trained, the finished network is a plain
# one in `float32`, which computes the same everywhere, and that is the one we test.

# %%
VALID = 512  # held-out pictures to watch a run by


def new_network(kind: str, size: str, policy: str, devices: int, seed: int) -> keras.Model:
    """Build a network with weights from `seed`, for so many devices, in a precision."""
    keras.utils.set_random_seed(seed)
    with precision(policy):
        model = build(kind, size)
    share_norms(model, devices)
    return model


# %% [markdown]
# A resumed run keeps its precision, whatever would be faster on the machine that it woke up on.

# %%
def earlier_precision(folder: Path) -> str:
    """Return the precision of the run in `folder`, "float32" if there is none."""
    note = folder / "run.json"
    return json.loads(note.read_text()).get("precision", "float32") if note.exists() else "float32"


def finish(run: Run, settings: dict, test_set: str) -> dict:
    """Test the plain network with the weights of a run that is done; write the results down."""
    kind = settings["model"]
    model = build(kind, settings["size"])
    model.set_weights(run.model.get_weights())
    read = read_heads if kind == "cnn" else read_ctc
    score = evaluate(lambda pictures: read(model, pictures), test_set)
    print(score)
    return write_results(run, model, settings, score)


# %% [markdown]
# From the first step to the last file:

# %%
def full_training(
    kind: str,
    size: str,
    source: CaptchaSequence,
    steps: int,
    folder: Path,
    *,
    resume: bool = False,
    test_set: str = "classic-10k",
) -> dict | None:
    """Train, evaluate and write down: the results, or None if a signal stopped the training.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: as `open_run` and `load_state`.
    """
    policy = earlier_precision(folder) if resume else fastest_policy(kind, size, source)
    settings = {"model": kind, "size": size, "steps": steps, "precision": policy}
    settings |= {"batch_size": source.batch_size, **set_settings(source)}
    open_run(folder, settings, resume)
    valid = CaptchaSequence(VALID, 1, source.seed, split="valid", labels=source.labels)[0]
    with stop_on_signals() as stop, every_device() as devices:
        check_shares(source.batch_size, devices)
        run = Run(new_network(kind, size, policy, devices, source.seed), source, folder, steps)
        compile_fast(run.model, steps)
        if not train(run, valid, stop):
            return None
    return finish(run, settings, test_set)


# %% [markdown]
# ## Which ingredient pays?
#
# A recipe should hold nothing that does not help. To find out, we change one ingredient at a time,
# train each variant on the same captchas, and read the same held-out ones. A recipe is a kind of
# network, changed arguments of its `build_...`, the size of a batch, and a way to compile.

# %%
@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way to train a slim network of a `kind`; `changes` go to `build_cnn` or `build_ctc`.

    The rate falls, or not; with `adam`, lesson 3's optimiser at that rate replaces the recipe's.
    """

    kind: str = "ctc"
    changes: dict = dataclasses.field(default_factory=dict)
    batch: int = 32
    fall: bool = True
    adam: float | None = None

    def build(self, steps: int) -> keras.Model:
        """Return a new network, compiled for so many steps."""
        arguments = {**SIZES["slim"][self.kind], **self.changes}
        model = {"cnn": build_cnn, "ctc": build_ctc}[self.kind](**arguments)
        if self.adam:
            compile_ctc(model, self.adam)
        else:
            compile_fast(model, steps, fall=self.fall)
        return model


# %% [markdown]
# The recipe itself, and six others that differ in one thing:

# %%
RECIPES = {
    "the recipe": {},
    "batches of 128": {"batch": 128},
    "constant rate": {"fall": False},
    "Adam at 1e-3": {"adam": 1e-3},
    "with a GRU": {"changes": {"rnn": (128,)}},
    "two convolutions a block": {"changes": {"convs": 2}},
    "four heads": {"kind": "cnn"},
}


# %% [markdown]
# One more ingredient needs no training of its own. *Weight averaging* keeps a running mean of the
# weights beside them. While the rate is high, the weights jump around a good place, and their mean
# may be nearer to it than they are. A callback can do that next to any recipe, and read with both.

# %%
class Averages(keras.callbacks.Callback):
    """Keeps a running mean of the weights; `rows` get its accuracy at the end of each `fit`.

    The mean reaches back over about `window` pictures.
    """

    def __init__(self, valid: tuple, batch: int, window: int = 16_000):
        super().__init__()
        self.valid, self.share, self.mean, self.rows = valid, batch / window, None, []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        weights = self.model.get_weights()
        if self.mean is None:
            self.mean = weights
        pairs = zip(self.mean, weights, strict=True)
        self.mean = [mean + self.share * (weight - mean) for mean, weight in pairs]

    def on_train_end(self, logs: dict | None = None) -> None:
        own = self.model.get_weights()
        self.model.set_weights(self.mean)
        self.rows.append(held_out(self.model, *self.valid))
        self.model.set_weights(own)


# %% [markdown]
# A run of a recipe, and what we write down about it:

# %%
def try_recipe(name: str, source: CaptchaSequence, valid: tuple, folder: Path) -> dict:
    """Train recipe `name` from scratch on all of `source`; return its row of the table.

    The row has `right`, how many of the `n` held-out captchas are right after a quarter, a half,
    three quarters and all of the `pictures`, `right_averaged` for averaged weights, and the speed.
    """
    recipe = Recipe(**RECIPES[name])
    keras.utils.set_random_seed(source.seed)
    model = recipe.build(len(source))
    run = Run(model, source, folder, len(source), lines=4)
    averages = Averages(valid, recipe.batch)
    train(run, valid, callbacks=[averages])
    n, rows = len(valid[0]), {"right": run.rows, "right_averaged": averages.rows}
    return {
        **{"recipe": name, "parameters": model.count_params(), "n": n},
        "pictures": [row["pictures"] for row in run.rows],
        **{key: [round(n * row["val_acc"]) for row in these] for key, these in rows.items()},
        "pictures_a_second": round(run.step * source.batch_size / run.seconds, 1),
        **hardware(),
    }


# %% [markdown]
# ## What a machine can do
#
# The bars in this lesson are single measurements on a busy machine. `make bench` measures with more
# care: everything in turn, at least five times, and as ratios, which hold where seconds do not.

# %%
def compare(actions: dict[str, Callable[[], object]], pictures: int, repeats: int = 5) -> dict:
    """Return the speed of actions that handle so many `pictures`, measured side by side.

    `pictures_a_second` has medians; `ratio` the medians of how many times as fast an action was as
    the first one in the same round.
    """
    seconds = side_by_side(actions, repeats)
    first = seconds[next(iter(seconds))]
    return {
        "repeats": repeats,
        "pictures_a_second": {
            name: round(pictures / float(np.median(times)), 1) for name, times in seconds.items()
        },
        "ratio": {
            name: round(float(np.median(np.divide(first, times))), 3)
            for name, times in seconds.items()
        },
    }

# %% [markdown]
# ## What a GPU would change
#
# If you have read this far on a CPU, you have missed nothing: the bars above would look the same on
# a machine with a GPU and the same processor. What changes is the network's half of the step. On a
# CPU the network of lesson 2 takes far longer to compute than its pictures take to be drawn, so
# feeding does not matter. On a GPU it is the other way round. There are two ways out: draw the
# pictures once and keep them, as above, or draw them on the GPU itself.
#
# ---
#
# ## What you learned
#
# - Keras uses a GPU without being asked, if the backend sees one; look before you train for hours.
# - A GPU speeds up the network and nothing else: somebody still has to draw the pictures.
# - Workers draw ahead. They change the speed, never the data.
# - A set that is drawn once feeds any network; it must be complete or absent, and say what it is.
# - A step that takes much longer than its floors is worth a question: ours spent half its time on
#   memory that went back and forth.
# - With numbered batches, a run is its step, its weights and its optimiser, and can be killed any
#   time.
#
# ## On your own
#
# 1. Time `workers=1`. *Expected: about the same as no worker, because Keras uses the training
#    thread for both.*
# 2. Replace the tiny network by `build_cnn()` of lesson 2 and compare zero with four workers again.
#    *Expected: on a CPU the bars come out nearly equal, since the network takes most of the time;
#    on a GPU they differ more than above.*
# 3. Use `use_multiprocessing=True`. *Expected: slower here. The processes are started anew for
#    every epoch, which only pays if epochs are long.*
#
# ## Further reading
#
# - [Limiting GPU memory growth](https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth):
#   TensorFlow's own page on the trick, with its variants.
# - [What the GIL is](https://docs.python.org/3/glossary.html#term-global-interpreter-lock): why
#   four Python threads are not four times as fast.
# - [keras.utils.PyDataset](https://keras.io/api/utils/python_utils/#pydataset-class): what
#   `workers` and `max_queue_size` mean exactly.
