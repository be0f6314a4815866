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
# # Read captchas with a convolutional network
#
# ## What you'll do
#
# - build the network of the original tutorial, layer by layer, and count its parameters by hand
# - train a slim version of it for two or three minutes and watch the loss fall on pictures it has
#   never seen
# - measure honestly how many captchas it gets entirely right, and what one like it reads that was
#   trained for longer
#
# ## What you'll learn
#
# - how one network gives four answers at once
# - how to train so that an interruption costs you nothing
# - why an accuracy is worth little without its `n` and its interval
#
# ## What you'll need
#
# - [Lesson 1](ch1_captcha_preview.ipynb), which draws the data; a CPU is enough here
#
# ---

# %%
from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import PIL.Image
from keras import layers
from tqdm import tqdm

# %% [markdown]
# And from lesson 1:

# %%
import notebooks_py
from notebooks_py.ch1_captcha_preview import (
    ALPHABET,
    HEIGHT,
    LENGTH,
    PREVIEW_HEIGHT,
    PREVIEW_WIDTH,
    WIDTH,
    CaptchaSequence,
    SetEpoch,
    decode_heads,
    draw_captchas,
    draw_modern,
    encode,
    fingerprint,
    random_texts,
    stream,
    to_input,
)

# %% [markdown]
# pandas reads logs, pydot draws diagrams, Matplotlib draws pictures. They are loaded only where they
# are needed, so that a machine which only trains can do without. `TYPE_CHECKING` is true for editors
# alone, which then know the types.

# %%
if TYPE_CHECKING:
    import pandas as pd
    import pydot
    from matplotlib.figure import Figure


# %% [markdown]
# One seed for everything, and two numbers that say how long the training in this lesson takes.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 100  # batches in an epoch
# EPOCHS = 4  # epochs at the first learning rate; one more follows at a tenth of it

# %% [markdown]
# ## The network
#
# The first half looks at the picture. Five *blocks*, each two 3x3 convolutions followed by 2x2 max
# pooling, find strokes, then corners, then pieces of letters; each block halves the picture and (up
# to the fourth) doubles the number of filters. This is the plan of VGG, a famous network of 2014.
# Batch normalisation after every convolution keeps the numbers in a healthy range, which lets ten
# layers learn at once.
#
# The second half answers. All features of the last block go to four *heads*, one for each position
# of the captcha. A head is a softmax over the 36 characters: 36 probabilities that add up to one.
# The heads share everything before them, and know nothing of each other.

# %%
def conv_block(
    x: keras.KerasTensor,
    name: str,
    filters: int,
    convs: int,
    kernel: int,
    stride: int,
    init: str,
    momentum: float,
) -> keras.KerasTensor:
    """Apply `convs` times convolution, batch normalisation and ReLU; the first takes `stride`."""
    for i in range(1, convs + 1):
        x = layers.Conv2D(
            filters,
            kernel,
            strides=stride if i == 1 else 1,
            padding="same",
            kernel_initializer=init,
            name=f"{name}_conv{i}",
        )(x)
        x = layers.BatchNormalization(momentum=momentum, name=f"{name}_norm{i}")(x)
        x = layers.Activation("relu", name=f"{name}_relu{i}")(x)
    return x


# %% [markdown]
# Every choice is an argument, and the defaults are the original's. Change one here and all lessons
# follow. (The heads compute in `float32`, whatever the rest of a network uses: lesson 4 tries less.)

# %%
def build_cnn(
    width: int = WIDTH,
    height: int = HEIGHT,
    length: int = LENGTH,
    classes: int = len(ALPHABET),
    filters: Sequence[int] = (32, 64, 128, 256, 256),
    convs: int = 2,
    kernel: int = 3,
    stride: int = 1,
    init: str = "he_uniform",
    momentum: float = 0.99,
) -> keras.Model:
    """Build the CNN with one softmax head for each position, named c1, c2, ...

    Args:
        width, height: size of the pictures, float32 (batch, height, width, 3) in [0, 1].
        length, classes: number of heads and of classes for each head.
        filters: filters of the convolutions, one number for each block.
        convs, kernel, init: convolutions in a block, their side and their initialiser.
        stride: of the first convolution; 2 halves the picture before any other layer sees it.
        momentum: of batch normalisation's running averages.

    Returns:
        An uncompiled model with `length` outputs of shape (batch, classes).

    Raises:
        ValueError: the picture is too small to be halved by every block.
    """
    least = stride * 2 ** len(filters)
    if min(width, height) < least:
        raise ValueError(
            f"{width}x{height} pixels are too few for stride {stride} and {len(filters)} halvings: "
            f"use at least {least} pixels on each side, or fewer filters="
        )
    x = inputs = keras.Input((height, width, 3), name="picture")
    for number, count in enumerate(filters, 1):
        first = stride if number == 1 else 1
        x = conv_block(x, f"block{number}", count, convs, kernel, first, init, momentum)
        x = layers.MaxPooling2D(2, name=f"block{number}_pool")(x)
    x = layers.Flatten(name="features")(x)
    heads = [
        layers.Dense(classes, "softmax", dtype="float32", name=f"c{i}")(x)
        for i in range(1, length + 1)
    ]
    return keras.Model(inputs, heads, name="cnn")


# %% [markdown]
# Let us build it in its full size and check two numbers that the original gives or implies.

# %% tags=["active-ipynb"]
# keras.utils.set_random_seed(SEED)
# full = build_cnn()
# print(f"parameters: {full.count_params():,}")
# print("last feature map:", full.get_layer("block5_pool").output.shape[1:])
# assert full.count_params() == 2_653_360
# assert full.get_layer("block5_pool").output.shape[1:] == (2, 4, 256)

# %% [markdown]
# The last feature map is 2 high and 4 wide. One more block would leave a single row of two cells:
# it is time to stop. Where do 2.65 million parameters live? Keras' summary tells.

# %% tags=["active-ipynb"]
# full.summary(line_length=88)

# %% [markdown]
# Can we get the total by hand? A 3x3 convolution from `a` to `b` channels has `9*a*b` weights and
# `b` biases; batch normalisation keeps four numbers for each channel; a head connects 2x4x256 =
# 2,048 features with 36 classes.

# %% tags=["active-ipynb"]
# channels = [3, 32, 32, 64, 64, 128, 128, 256, 256, 256, 256]
# convolutions = sum(9 * a * b + b for a, b in zip(channels, channels[1:], strict=False))
# normalisations = sum(4 * b for b in channels[1:])
# heads = LENGTH * (2 * 4 * 256 * len(ALPHABET) + len(ALPHABET))
# print(f"{convolutions:,} + {normalisations:,} + {heads:,}", end=" = ")
# print(f"{convolutions + normalisations + heads:,}")
# assert convolutions + normalisations + heads == full.count_params()

# %% [markdown]
# Nine of ten parameters are in the convolutions, and most of those in the last two blocks.
#
# A picture says it shorter. Keras draws it with the program `dot` from Graphviz. If `dot` is not
# installed, you see the diagram that comes with the repository.

# %%
COLORS = {"Conv2D": "lightblue", "MaxPooling2D": "moccasin", "Dense": "palegreen"}


def layer_graph(model: keras.Model) -> pydot.Dot:
    """Return a graph of the model's layers with their output shapes, one column for each block."""
    graph = keras.utils.model_to_dot(model, dpi=75)
    graph.set("splines", "true")  # Keras asks for right angles, which crash some Graphviz versions
    graph.set("nodesep", 0.35)
    graph.set("ranksep", 0.2)
    layer_of = {str(id(layer)): layer for layer in model.layers}  # Keras' names of the nodes
    for node in graph.get_nodes():
        if layer := layer_of.get(node.get_name()):
            kind, shape = type(layer).__name__, " x ".join(map(str, layer.output.shape[1:]))
            node.set("label", f"{layer.name}\n{kind}\n{shape}")
            for key, value in {"shape": "box", "style": "filled", "margin": "0.08,0.04"}.items():
                node.set(key, value)
            node.set("fillcolor", COLORS.get(kind, "white"))
    for edge in graph.get_edges():
        ends = (layer_of[str(end)] for end in (edge.get_source(), edge.get_destination()))
        source, target = (layer.name.split("_")[0] for layer in ends)
        if source != target and target.startswith("block"):
            edge.set("constraint", "false")  # the next block starts at the top again
    return graph


# %% [markdown]
# The picture is a file in this run's folder, and `make refresh` copies it to `imgs/`.

# %%
def diagram(model: keras.Model, folder: Path) -> Path:
    """Draw `layer_graph` to `folder`/imgs/NAME.png with Graphviz, and return that path.

    Without the program `dot`, draw nothing and return the path of the committed imgs/NAME.png.
    """
    if shutil.which("dot") is None:
        return Path(notebooks_py.__file__).parents[1] / "imgs" / f"{model.name}.png"
    path = folder / "imgs" / f"{model.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    layer_graph(model).write(path, format="png")
    return path


# %% [markdown]
# Here it is, for the full-size network.

# %% tags=["active-ipynb"]
# from IPython.display import Image
#
# from notebooks_py.ch1_captcha_preview import fresh_folder
#
# FOLDER = fresh_folder("ch2_cnn")
# print(f"{len(full.layers)} layers from {full.layers[0].name} to {full.output_names}")
# Image(filename=diagram(full, FOLDER))

# %% [markdown]
# Each column is a block: blue convolutions, orange poolings. From left to right the picture shrinks
# and the channels grow, and at the end one vector fans out to four green heads.
#
# ## How long would it take?
#
# The original saw 3.7 million pictures on a GPU. Without one that takes the better part of a day,
# or more. So this lesson trains a *slim* network: the same function with one convolution in a block
# instead of two, fewer filters, one block less, and a first convolution that moves in steps of two,
# so that everything after it works on a quarter of the pixels. It learns visibly within minutes.

# %% tags=["active-ipynb"]
# keras.utils.set_random_seed(SEED)
# model = build_cnn(filters=(24, 48, 96, 128), convs=1, stride=2, momentum=0.9)
# print(f"slim: {model.count_params():,} parameters instead of {full.count_params():,}")
# print("last feature map:", model.get_layer("block4_pool").output.shape[1:])

# %% [markdown]
# Why another `momentum`? While it trains, batch normalisation uses the averages of the batch at
# hand; afterwards, when it reads a single captcha, it uses *running* averages. With the usual 0.99
# those look back a hundred steps and lag behind in a short run; with 0.9 they look back ten.
#
# ## Training that survives an interruption
#
# The recipe is the original's, in two stages: Adam at 1e-3 until the loss on validation pictures
# has not improved for a few epochs, then from the best weights once more at 1e-4.

# %%
STAGES = ((1e-3, 100), (1e-4, 100))  # learning rate, and the largest number of epochs at it


def compile_cnn(model: keras.Model, learning_rate: float) -> None:
    """Compile a network with softmax heads: Adam with AMSGrad, cross-entropy, accuracies."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate, amsgrad=True),
        loss="categorical_crossentropy",
        metrics=["accuracy"] * len(model.outputs),
    )


# %% [markdown]
# Full training takes hours, and hours get interrupted. Four Keras callbacks do the work, and their
# *order* makes it safe. Each epoch first saves its complete state (weights and optimiser) to a file
# of its own, then, if it is the best so far, to another one, and only then writes its line to the
# log. So a line in the log means: this epoch is safe on disk. Whatever is not in the log did not
# happen, and no file that the log relies on is ever overwritten.

# %%
def checkpoint(folder: Path, kind: str, epoch: int) -> Path:
    """Return the file of the state after `epoch` (counted from 0); kind is "epoch" or "best"."""
    return folder / f"{kind}-{epoch + 1:04d}.keras"


def tidy(folder: Path) -> None:
    """Delete the checkpoints that the log no longer needs: all but the last and the best."""
    losses = read_log(folder).val_loss
    needed = {checkpoint(folder, "epoch", len(losses) - 1)}
    needed.add(checkpoint(folder, "best", int(losses.idxmin())))
    for file in [*folder.glob("epoch-*.keras"), *folder.glob("best-*.keras")]:
        if file not in needed:
            file.unlink()


# %% [markdown]
# A process that is killed while it writes may leave half a line. `read_log` returns finished epochs
# only.

# %%
def read_log(path: Path) -> pd.DataFrame:
    """Read a training log, one row for each finished epoch; half a last line does not count.

    `path` is the CSV file, or the folder of a run with the file log.csv in it.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: the file is not a log of `train_in_stages`, or has lost epochs.
    """
    import pandas as pd

    path = Path(path) / "log.csv" if Path(path).is_dir() else Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no training log {path}: name the folder of an earlier run")
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    log = pd.read_csv(io.StringIO("".join(lines) or "epoch,stage,val_loss\n"))
    if not {"epoch", "stage", "val_loss"} <= set(log.columns):
        raise ValueError(
            f"{path} is no log of these lessons: it has the columns {list(log.columns)}, "
            "expected epoch, stage, val_loss and others"
        )
    if list(log.epoch) != list(range(len(log))):
        raise ValueError(f"{path} has the epochs {list(log.epoch)}, expected 0, 1, 2 and so on")
    return log


# %% [markdown]
# `EarlyStopping` forgets everything when a process ends: how good the best epoch was, and how many
# have passed since. Both stand in the log, so a small subclass reads them from there.

# %%
def waited(losses: Sequence[float]) -> int:
    """Return how many epochs have passed since the best one; 0 if there are none."""
    return len(losses) - 1 - int(np.argmin(losses)) if len(losses) else 0


class PatientStopping(keras.callbacks.EarlyStopping):
    """`EarlyStopping` on the validation loss that remembers the epochs before an interruption."""

    def __init__(self, patience: int, earlier: Sequence[float]):
        super().__init__(monitor="val_loss", patience=patience)
        self.earlier = list(earlier)

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        if self.earlier:
            self.best, self.wait = min(self.earlier), waited(self.earlier)


# %% [markdown]
# Progress is shown by tqdm, which has a callback for Keras.

# %%
def progress_bars() -> keras.callbacks.Callback:
    """Return a callback that shows epochs and batches as plain tqdm bars."""
    with warnings.catch_warnings(action="ignore"):  # it looks for notebook widgets in vain
        from tqdm.keras import TqdmCallback
    return TqdmCallback(tqdm_class=tqdm, verbose=1)


# %% [markdown]
# Now the callbacks, in the order that matters.

# %%
def stage_callbacks(
    folder: Path, data: CaptchaSequence, stage: int, rate: float, patience: int, log: pd.DataFrame
) -> list[keras.callbacks.Callback]:
    """Return the callbacks for one stage of training; `log` holds the epochs finished before."""
    mark = {"stage": stage, "learning_rate": rate}
    return [
        SetEpoch(data),
        keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: tidy(folder) if epoch else None,
            on_epoch_end=lambda epoch, logs: logs.update(mark),
        ),
        PatientStopping(patience, log[log.stage == stage].val_loss),
        keras.callbacks.ModelCheckpoint(folder / "epoch-{epoch:04d}.keras"),
        keras.callbacks.ModelCheckpoint(
            folder / "best-{epoch:04d}.keras",
            save_best_only=True,
            initial_value_threshold=None if log.empty else log.val_loss.min(),
        ),
        keras.callbacks.CSVLogger(folder / "log.csv", append=True),
        progress_bars(),
    ]


# %% [markdown]
# A run that is continued must be the *same* run: same data, same network, same learning rates. We
# note them at the start, and compare when we continue.

# %%
def replace_text(path: Path, text: str) -> None:
    """Write `text` to `path`, all of it or nothing, whatever happens meanwhile."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text)
    os.replace(draft, path)


def write_json(path: Path, content: object) -> None:
    """Write `content` as JSON to `path`, as `replace_text` does; make its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(content, indent=1) + "\n")


def check_settings(settings: dict, before: dict, folder: Path, what: str = "run") -> None:
    """Raise a ValueError that names the first of the `settings` that was another one `before`.

    `what` is in the `folder`: a run, a set of pictures.
    """
    for name in sorted({*settings, *before}):
        if settings.get(name) != before.get(name):
            raise ValueError(
                f"{name} is {settings.get(name)!r}, but the {what} in {folder} has "
                f"{before.get(name)!r}: use that value, or make a new {what} in another folder"
            )


# %% [markdown]
# With these two, a folder is either the beginning of a new run or the place where an old one goes
# on, and never a mixture.

# %%
def open_run(folder: Path, settings: dict, resume: bool) -> None:
    """Start a run in `folder`, or make sure that the run there is the same one and can go on.

    Raises:
        FileExistsError: the folder holds a run already, and resume is False.
        FileNotFoundError: the folder holds no run, and resume is True.
        ValueError: the run in the folder has other settings.
    """
    note, log = folder / "run.json", folder / "log.csv"
    if note.exists() and not resume:
        raise FileExistsError(f"{folder} holds a run: pass resume=True, or another folder")
    if resume and not note.exists():
        raise FileNotFoundError(f"no run to resume in {folder}: pass resume=False to start one")
    if resume:
        check_settings(json.loads(json.dumps(settings)), json.loads(note.read_text()), folder)
        # Cut off half a last line before anything is appended.
        whole, newline, _ = log.read_text().rpartition("\n")
        replace_text(log, whole + newline)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(log, "")
        write_json(note, settings)


# %% [markdown]
# What makes a run this run and no other? These:

# %%
def run_settings(
    model: keras.Model, data: CaptchaSequence, valid: CaptchaSequence, rates: Sequence[float]
) -> dict:
    """Return what makes a training run this run and no other."""
    names = [
        "batch_size",
        "steps",
        "seed",
        "split",
        "labels",
        "alphabet",
        "length",
        "width",
        "height",
    ]
    settings = {"parameters": model.count_params(), "learning rates": list(rates)}
    for kind, sequence in {"data": data, "valid": valid}.items():
        settings |= {f"{kind}.{name}": getattr(sequence, name) for name in names}
    return settings


# %% [markdown]
# Before a stage goes on, the network has to be where the log ends. At the beginning of a later
# stage these are the best weights so far and a fresh optimiser; in the middle of a stage, the last
# state with its optimiser.

# %%
def prepare(
    model: keras.Model,
    compile_at: Callable[[keras.Model, float], None],
    rate: float,
    folder: Path,
    log: pd.DataFrame,
    stage: int,
) -> None:
    """Compile `model` for a stage, in the state that the log says."""
    begun = (log.stage == stage).any()
    if stage > 1 and not begun:
        model.load_weights(checkpoint(folder, "best", log.val_loss.idxmin()))
    compile_at(model, rate)
    if begun:
        model.optimizer.build(model.trainable_variables)
        model.load_weights(checkpoint(folder, "epoch", len(log) - 1))


# %% [markdown]
# And the training itself. For each stage it looks into the log: is the stage over, half done, or
# yet to begin?

# %%
def is_over(log: pd.DataFrame, stage: int, epochs: int, patience: int) -> bool:
    """Return whether a stage of at most `epochs` epochs needs no more of them."""
    losses = log[log.stage == stage].val_loss
    return len(losses) >= epochs or waited(losses) >= patience or (log.stage > stage).any()


# %% [markdown]
# If it is not over, `fit` does what is left of it.

# %%
def train_in_stages(
    model: keras.Model,
    compile_at: Callable[[keras.Model, float], None],
    data: CaptchaSequence,
    valid: CaptchaSequence,
    folder: Path,
    stages: Sequence[tuple[float, int]] = STAGES,
    patience: int = 3,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> pd.DataFrame:
    """Train at one learning rate after the other, each from the best weights so far.

    After an interruption call it again with the same arguments and resume=True: every epoch in
    `folder`/log.csv is kept, and training goes on as if nothing had happened.

    Args:
        model: has the best weights at the end.
        compile_at: compiles the model for a learning rate.
        data, valid: training data (new pictures in every epoch) and validation data.
        folder: gets log.csv, run.json and the checkpoints.
        stages: learning rate and largest number of epochs of each stage.
        patience: epochs without a better validation loss after which a stage ends.
        resume: go on with the run in `folder` instead of starting one.
        callbacks: more callbacks, called before those that write to disk.

    Returns:
        The log, one row for each epoch (see `read_log`).

    Raises:
        FileExistsError, FileNotFoundError, ValueError: see `open_run`.
    """
    open_run(folder, run_settings(model, data, valid, [rate for rate, _ in stages]), resume)
    for stage, (rate, epochs) in enumerate(stages, 1):
        log = read_log(folder)
        if is_over(log, stage, epochs, patience):
            continue
        prepare(model, compile_at, rate, folder, log, stage)
        model.fit(
            data,
            validation_data=valid,
            initial_epoch=len(log),
            epochs=int((log.stage < stage).sum()) + epochs,
            callbacks=[*callbacks, *stage_callbacks(folder, data, stage, rate, patience, log)],
            shuffle=False,
            verbose=0,
        )
    tidy(folder)
    log = read_log(folder)
    model.load_weights(checkpoint(folder, "best", log.val_loss.idxmin()))
    return log


# %% [markdown]
# ## Watch it learn
#
# Training and validation pictures come from two streams with different names, so no validation
# picture is ever trained on. Four threads draw while the network computes. First, what does the
# untrained network think of the validation pictures?

# %% tags=["active-ipynb"]
# data = CaptchaSequence(batch_size=32, steps=STEPS, seed=SEED, workers=4)
# valid = CaptchaSequence(batch_size=128, steps=4, seed=SEED, split="valid")
# compile_cnn(model, 1e-3)
# untrained = model.evaluate(valid, verbose=0, return_dict=True)["loss"]
# print(f"blind guessing: {LENGTH} x ln {len(ALPHABET)} = {LENGTH * math.log(len(ALPHABET)):.2f}")
# assert untrained > 10

# %% [markdown]
# Someone who gives all 36 characters the same probability has a loss of ln 36 for each of the four
# positions. The network starts near that. Now the training, at twice the original's learning rates,
# because the run is short: a bar shows the progress, and the log holds the result.

# %% tags=["active-ipynb"]
# stages = [(2e-3, EPOCHS), (2e-4, 1)]
# log = train_in_stages(model, compile_cnn, data, valid, FOLDER, stages)
# print(f"{len(log)} epochs of {STEPS} batches, {len(log) * STEPS * 32:,} pictures")
# print("learning rates:", log.learning_rate.tolist())

# %% [markdown]
# What does the log say? We draw the loss on training pictures and on held-out ones.

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
# axes.plot(log.epoch + 1, log.loss, "o-", label="training pictures")
# axes.plot([0, *(log.epoch + 1)], [untrained, *log.val_loss], "s-", label="held-out pictures")
# axes.axhline(LENGTH * math.log(len(ALPHABET)), color="gray", ls=":", label="blind guessing")
# axes.set(title="The loss falls", xlabel="epoch", ylabel="cross-entropy, four heads (nats)")
# axes.legend()
# plt.show()
# print("held-out loss below the untrained network's:", log.val_loss.min() < untrained)
# blind = LENGTH * math.log(len(ALPHABET))
# print("held-out loss below blind guessing, by more than 1:", log.val_loss.min() < blind - 1)

# %% [markdown]
# For an epoch or two nothing seems to happen: the losses lie above blind guessing or just below it.
# Then the network finds out what a character is, and the loss drops, on pictures that it has never
# seen just as on those it trains with. That is the beauty of endless data: it cannot be learned by
# heart.
#
# What if the lights had gone out in between? Then the same call with `resume=True` goes on after
# the last epoch in the log. Here all epochs are done, so it only loads the best weights.

# %% tags=["active-ipynb"]
# again = train_in_stages(model, compile_cnn, data, valid, FOLDER, stages, resume=True)
# print("nothing lost, nothing trained twice:", again.equals(log))
# assert again.equals(log)

# %% [markdown]
# ## Read one captcha
#
# A reader takes pictures as they come, bytes from 0 to 255, and answers with texts. It finds the
# size that the network wants in the network itself.

# %%
def read_heads(model: keras.Model, pictures: np.ndarray, alphabet: str = ALPHABET) -> list[str]:
    """Read uint8 pictures (n, height, width, 3) with the heads; ValueError as `to_input`."""
    height, width = model.input_shape[1:3]
    return decode_heads(model.predict_on_batch(to_input(pictures, width, height)), alphabet)


# %% [markdown]
# Beside each picture we want to see the truth and the answer.

# %%
def show_answers(
    figure: Figure, pictures: np.ndarray, texts: Sequence[str], answers: Sequence[str]
) -> None:
    """Show pictures (n, height, width, 3) in two rows, titles green if the answer is right."""
    grid = figure.subplots(2, -(-len(pictures) // 2), squeeze=False)
    for axes, picture, text, read in zip(grid.flat, pictures, texts, answers, strict=False):
        axes.imshow(picture)
        axes.set_title(f"truth {text}, read {read}", color="green" if read == text else "crimson")
    for axes in grid.flat:
        axes.axis("off")


# %% [markdown]
# Eight fresh captchas:

# %% tags=["active-ipynb"]
# rng = stream(SEED, "show", epoch=0, index=0)
# texts = random_texts(rng, 8)
# pictures = draw_captchas(texts, rng)
# figure = plt.figure(figsize=(9, 3.2), layout="constrained")
# show_answers(figure, pictures, texts, read_heads(model, pictures))
# figure.suptitle("Eight captchas: truth and prediction")
# plt.show()
# print("truth:", " ".join(texts))

# %% [markdown]
# Green titles are right, red ones have at least one wrong character. After so little training
# nearly all are red. But compare letter by letter: one or two of four are often right, and someone
# who guesses gets one of four right in every ninth captcha.
#
# ## How good is it, really?
#
# A captcha counts only if *all* its characters are right; that is what a door that opens or stays
# shut cares about. And a percentage alone says little: 9 of 10 and 9,000 of 10,000 are both 90 %,
# but one of them may be luck. So we give `n`, and the 95 % interval of Wilson (1927): the range of
# true accuracies for which such a count is no surprise.

# %%
def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval for `right` successes out of `n`; z=1.96 means 95 %.

    Formula: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927), in the form of Brown, Cai and DasGupta, Statistical Science 16 (2001), eq. (4).

    Raises:
        ValueError: unless n is at least 1 and `right` is between 0 and n.
    """
    if not (n >= 1 and 0 <= right <= n):
        raise ValueError(f"{right} right out of {n}: need n of at least 1, and 0 <= right <= n")
    p = right / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half))


# %% [markdown]
# The same share of right answers, and how much it is worth:

# %% tags=["active-ipynb"]
# for right, n in [(9, 10), (9_000, 10_000), (12_577, 12_800)]:
#     low, high = wilson(right, n)
#     print(f"{right:,} of {n:,}: {right / n:.2%}, 95 % interval {low:.2%} to {high:.2%}")

# %% [markdown]
# The last line is the result that the original tutorial reports, 98.26 % on 12,800 captchas: the
# mark to beat.
#
# A result is also worth little if nobody can repeat it. So a test set has a *name*, which decides
# every picture in it. Sets are drawn in batches of 100 from the stream `test`. That name is a part
# of every random seed (lesson 1), and training draws from `train`: so no captcha of a test set is
# ever trained on. The sets have the same texts, drawn in four ways:
#
# - `classic`: by captcha 0.7.0, as everywhere in these lessons. The smaller sets are the beginning
#   of the larger ones.
# - `wide`: the same, 192 pixels wide; lesson 7 reads those.
# - `modern`: by 0.7.1, whose letters are warped less.
# - `preview`: in the size of lesson 1's pictures, 170x80, and then scaled down to 128x64.

# %%
WIDE_WIDTH = 192


def draw_wide(texts: Sequence[str], rng: random.Random) -> np.ndarray:
    """Draw each text with the captcha library: uint8 RGB, shape (len(texts), 64, 192, 3)."""
    return draw_captchas(texts, rng, WIDE_WIDTH)


def draw_preview(texts: Sequence[str], rng: random.Random) -> np.ndarray:
    """Draw each text at 170x80, and scale it: uint8 RGB, shape (len(texts), 64, 128, 3)."""
    large = draw_captchas(texts, rng, PREVIEW_WIDTH, PREVIEW_HEIGHT)
    scaled = [PIL.Image.fromarray(picture).resize((WIDTH, HEIGHT)) for picture in large]
    return np.stack([np.asarray(picture) for picture in scaled])


# %% [markdown]
# With each set we keep its fingerprint, a SHA-256 over its batches. Whoever has drawn a set to its
# end knows that it was the right one: another version of a library, or another font, would be an
# error, and not a number that nobody can explain.

# %%
TEST_SETS = {  # captchas, and what draws them
    "classic-100": (100, draw_captchas),
    "classic-1k": (1_000, draw_captchas),
    "classic-10k": (10_000, draw_captchas),
    "classic-100k": (100_000, draw_captchas),
    "wide-1k": (1_000, draw_wide),
    "wide-10k": (10_000, draw_wide),
    "modern-1k": (1_000, draw_modern),
    "modern-10k": (10_000, draw_modern),
    "preview-1k": (1_000, draw_preview),
    "preview-10k": (10_000, draw_preview),
}

# %% [markdown]
# Their fingerprints, as we drew them:

# %%
FINGERPRINTS = {
    "classic-100": "71884431e8de06111ba3d26d52ba7af8dcf15c67b00f91ad1fd8b54d59658fb8",
    "classic-1k": "621278a28c830a640f317e7bde21626b6a76ca01a0652036c43684e5350027dc",
    "classic-10k": "763b58b8532d93fed54323fa70da344d2ca9c5a83110f6c2b196f9732cd05957",
    "classic-100k": "ff09bdf2a7254b4caea6ced15a15ecfb487f784d553e25d3f9de94be9eb340be",
    "wide-1k": "e84a9d0abe9404ea6d5cd7e6b8a1c06c74bc4f306d1d1b32ee7246c308ab371d",
    "wide-10k": "0977d37f533fb0bae7ded2338ae8465ddf141e30f4dc660dcb69bf438637e56c",
    "modern-1k": "71b23059d72b4add8c829a730d88872870a2d8090988e79e7d2624e9a14a2b79",
    "modern-10k": "5cb38d5469413ba7c1a3a3b93ed4757c5e5fe47d59da78a917b66bd5fa0950e8",
    "preview-1k": "2c085185e91aa66c356abaae96d63776b41006407c741758c8975cdc0942e3bd",
    "preview-10k": "178fd633c99179e7fffc919ce86924ed4f999250c9ea32b8a74013e84f5647db",
}


# %% [markdown]
# Drawing a set checks its name first, and its fingerprint last.

# %%
def draw_test_set(test_set: str) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Draw a named test set: batches of 100 uint8 pictures (100, 64, width, 3) and their texts.

    Raises:
        ValueError: no test set has this name.
        RuntimeError: at the end, if these are not the pictures and texts of its fingerprint.
    """
    if test_set not in TEST_SETS:
        raise ValueError(f"no test set {test_set!r}: there are {', '.join(TEST_SETS)}")
    return drawn_batches(test_set)


def drawn_batches(test_set: str) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield the batches of `draw_test_set`."""
    (n, draw), digest = TEST_SETS[test_set], hashlib.sha256()
    for index in range(n // 100):
        rng = stream(0, "test", epoch=0, index=index)
        texts = random_texts(rng, 100)
        pictures = draw(texts, rng)
        digest.update(fingerprint(pictures, encode(texts)).encode())
        yield pictures, texts
    if digest.hexdigest() != FINGERPRINTS[test_set]:
        raise RuntimeError(
            f"these are not the captchas of {test_set}: their SHA-256 is {digest.hexdigest()}, "
            f"expected {FINGERPRINTS[test_set]}; install the pinned packages (requirements.lock)"
        )


# %% [markdown]
# The result of an evaluation is a small object that knows what it means.

# %%
@dataclasses.dataclass(frozen=True)
class Score:
    """How many of `n` captchas of a test set were read right, entirely and at each position."""

    test_set: str
    n: int
    right: int
    right_by_position: tuple[int, ...]

    def __str__(self) -> str:
        low, high = wilson(self.right, self.n)
        return (
            f"{self.test_set}: {self.right:,} of {self.n:,} right, "
            f"{self.right / self.n:.2%} (95 % interval {low:.2%} to {high:.2%})"
        )

    def record(self) -> dict:
        """Return the score as it is written down, with its interval and the set's fingerprint."""
        interval = [round(end, 5) for end in wilson(self.right, self.n)]
        more = {"interval": interval, "fingerprint": FINGERPRINTS[self.test_set]}
        by_position = list(self.right_by_position)
        return {**dataclasses.asdict(self), "right_by_position": by_position, **more}


# %% [markdown]
# And the evaluation takes anybody who reads: a function from pictures to texts.

# %%
def evaluate(
    read: Callable[[np.ndarray], list[str]], test_set: str = "classic-1k", length: int = LENGTH
) -> Score:
    """Count what `read` gets right on a test set, with a progress bar.

    `read` turns uint8 pictures (n, height, width, 3) into n texts of any length; a captcha is right
    only if the whole text is. Raises ValueError for an unknown test set.
    """
    n, right, by_position = 0, 0, np.zeros(length, dtype=int)
    batches = tqdm(draw_test_set(test_set), total=TEST_SETS[test_set][0] // 100, desc=test_set)
    for pictures, texts in batches:
        for text, answer in zip(texts, read(pictures), strict=True):
            hits = [a == b for a, b in zip(text, answer.ljust(length), strict=False)]
            by_position += hits
            right += text == answer
            n += 1
        batches.set_postfix_str(f"{right / n:.2%}")
    return Score(test_set, n, right, tuple(by_position.tolist()))


# %% [markdown]
# Before we trust it, we test it with readers whose score we know: one that always answers `0000`,
# and one that answers nothing at all.

# %% tags=["active-ipynb"]
# print("always 0000 ->", evaluate(lambda pictures: ["0000"] * len(pictures), "classic-100"))
# print("nothing     ->", evaluate(lambda pictures: [""] * len(pictures), "classic-100"))

# %% [markdown]
# Nobody is right by accident, and zero of a hundred still leaves nearly four in a hundred possible.
# Now our network, on ten times as many.

# %% tags=["active-ipynb"]
# score = evaluate(lambda pictures: read_heads(model, pictures))
# low, high = wilson(score.right, score.n)
# by_position = np.array(score.right_by_position) / score.n
# figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
# axes.bar(range(1, LENGTH + 1), 100 * by_position, label="this network")
# axes.axhline(100 / len(ALPHABET), color="gray", ls=":", label="blind guessing")
# axes.set(
#     xlabel="position", ylabel="right characters (%)", xticks=range(1, LENGTH + 1), ylim=(0, 100)
# )
# axes.set_title(
#     f"{score.right / score.n:.1%} of captchas right ({low:.1%} to {high:.1%}, n = {score.n:,})"
# )
# axes.legend()
# plt.show()
# print("every position is read better than by guessing:", bool((by_position > 1 / 36).all()))
# print("the four together are harder than each alone:", score.right / score.n < by_position.min())

# %% [markdown]
# The bars are single characters, the title counts whole captchas. Four characters have to be right
# at once, which is why the number in the title is so much smaller. The outer positions tend to be
# easier: they have only one neighbour to overlap with.
#
# ## Keep the model
#
# A checkpoint carries three more numbers for every weight, Adam's memory. Somebody who only wants
# to read captchas does not need them, so we save a bare copy.

# %%
def save_model(model: keras.Model, path: Path) -> Path:
    """Save architecture and weights, no optimiser state, as a .keras file; all of it or nothing."""
    bare = type(model).from_config(model.get_config())
    bare.set_weights(model.get_weights())
    draft = Path(path).with_name("draft-" + Path(path).name)
    bare.save(draft)
    os.replace(draft, path)
    return Path(path)


# %% [markdown]
# How large is the file, and does a loaded copy read the same?

# %% tags=["active-ipynb"]
# size = save_model(full, FOLDER / "full.keras").stat().st_size
# print(f"full size: {size / 1e6:.1f} MB, {size / full.count_params():.1f} bytes a parameter")
# save_model(model, FOLDER / "slim.keras")
# loaded = keras.models.load_model(FOLDER / "slim.keras")
# same = read_heads(loaded, pictures) == read_heads(model, pictures)
# print("the loaded copy reads the same texts:", same)
# assert same

# %% [markdown]
# About 10.8 MB: four bytes for each parameter and a little for names. With the optimiser's memory
# it would be four times as much.
#
# ## Hand it on
#
# This lesson had two minutes to train. Somebody who had hours (lesson 4 tells how) will want to
# hand the weights on, with a file beside them that says what came out: `models/cnn.keras` and
# `models/cnn.json`, for example. Two files can be mixed up, and a download can be damaged, so both
# are checked before anything is believed: each score by what must be true of any score, and the
# weights by their SHA-256.

# %%
MODELS = Path(notebooks_py.__file__).parents[1] / "models"


def check_score(score: dict, source: Path) -> None:
    """Raise a ValueError that names `source` unless a `Score.record` agrees with itself."""
    name, n, right = score["test_set"], score["n"], score["right"]
    if name not in TEST_SETS or n != TEST_SETS[name][0]:
        raise ValueError(f"{source}: no test set {name!r} of {n} captchas")
    expected = Score(name, n, right, tuple(score["right_by_position"])).record()
    for what, value in expected.items():
        if score.get(what) != value:
            raise ValueError(f"{source}: {what} of {name} is {score.get(what)}, expected {value}")
    if right > min(score["right_by_position"]):
        raise ValueError(f"{source}: {name} has more captchas right than characters at a position")


# %% [markdown]
# And the file beside it:

# %%
def check_weights(path: Path, sha256: str, source: Path) -> None:
    """Raise unless `path` is the file that `source` describes.

    Raises:
        FileNotFoundError: there is no `path`.
        ValueError: its SHA-256 is another one.
    """
    if not path.exists():
        raise FileNotFoundError(f"no {path}, which {source} describes: get it with `git checkout`")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} is damaged or not the one of {source}: its SHA-256 is {found}, "
            f"expected {sha256}"
        )


# %% [markdown]
# Whatever is wrong has a name:

# %%
def finished(name: str, folder: Path = MODELS) -> tuple[keras.Model, dict]:
    """Load a finished network, "cnn" or "ctc", and what its results file says about it.

    Raises:
        FileNotFoundError: `folder` has no `name`.keras or no `name`.json.
        ValueError: one of the two is damaged, or they don't belong together.
    """
    weights, source = folder / f"{name}.keras", folder / f"{name}.json"
    if not source.exists():
        raise FileNotFoundError(f"no {source}: get it with `git checkout`")
    try:
        results = json.loads(source.read_text())
        scores, sha256 = results["scores"], results["sha256"]
        for score in scores.values():
            check_score(score, source)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{source} is damaged: {error!r}") from error
    check_weights(weights, sha256, source)
    return keras.models.load_model(weights, compile=False), results


# %% [markdown]
# We hand our slim network on, and look at what arrives. Then one byte of it gets lost on the way.

# %% tags=["active-ipynb"]
# weights = save_model(model, FOLDER / "mine.keras")
# sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
# note = {"scores": {score.test_set: score.record()}, "sha256": sha256}
# write_json(FOLDER / "mine.json", note)
# network, results = finished("mine", FOLDER)
# pairs = zip(network.get_weights(), model.get_weights(), strict=True)
# same = all(np.array_equal(ours, sent) for ours, sent in pairs)
# print("the same weights arrive:", same, "with scores on", *results["scores"])
# weights.write_bytes(weights.read_bytes()[:-1] + b"?")
# try:
#     finished("mine", FOLDER)
# except ValueError as error:
#     print("ValueError: mine.keras", str(error).split("mine.keras")[1].split(" or ")[0])

# %% [markdown]
# A score that can't be true is refused just as a byte that changed: an interval that is not
# Wilson's, more captchas right than there are, or a test set with another fingerprint.
#
# ## With more patience
#
# And this repository's own? `models/cnn.keras` is a network of the same kind, four blocks of two
# convolutions and four heads. It was trained for more than an hour, with lesson 4's recipe. The same
# eight captchas:

# %% tags=["active-ipynb"]
# network, results = finished("cnn")
# answers = read_heads(network, pictures)
# figure = plt.figure(figsize=(9, 3.2), layout="constrained")
# show_answers(figure, pictures, texts, answers)
# figure.suptitle(f"The same captchas, after {results['pictures']:,} captchas of training")
# plt.show()
# print("truth:", " ".join(texts), " read:", " ".join(answers))

# %% [markdown]
# How often is it right? We count the test set again, and compare with the results file. The two may
# differ by a captcha or two, if your processor rounds otherwise than ours.

# %%
def as_told(score: Score, results: dict) -> str:
    """Return a line on a count made now beside the one in `results`, and a line for other sets."""
    told = results["scores"]
    same = abs(score.right - told[score.test_set]["right"]) <= 3
    first = f"{score.test_set}: {told[score.test_set]['right']:,} in the results file, now "
    keys = [field.name for field in dataclasses.fields(Score)]
    others = [str(Score(*(told[name][key] for key in keys))) for name in told]
    return "\n".join([first + ("the same" if same else f"{score.right:,}"), *others])


# %% [markdown]
# The larger sets take longer, so we only show what was counted.

# %% tags=["active-ipynb"]
# score = evaluate(lambda pictures: read_heads(network, pictures))
# print(as_told(score, results))

# %% [markdown]
# `make evaluate MODEL=cnn SET=classic-10k` counts any of them again. `modern` is read more easily,
# though the network has never seen such captchas: their letters are warped less. `preview` is
# harder: its captchas are drawn for a larger picture, and shrinking one blurs its dots and letters.
#
# Not everything that took hours is a network. The lessons also show measurements that we made once
# and kept, each with the command that repeats it, the machine and the versions. A lesson that finds
# no such file shows nothing, rather than a number from memory.

# %%
def measured(name: str) -> dict:
    """Return what is in models/`name`.json of this repository; nothing if there is no such file."""
    path = MODELS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}

# %% [markdown]
# ---
#
# ## What you learned
#
# - Five blocks of convolutions shrink a picture to 2,048 features, and four softmax heads read one
#   character each.
# - An epoch counts when its line is in the log; state first, log second, and an interruption costs
#   no finished epoch.
# - Exact match over a named test set, with `n` and a Wilson interval, is a result that others can
#   check.
#
# ## On your own
#
# 1. Continue this training: call `train_in_stages` with `resume=True` and more epochs, `[(2e-3,
#    EPOCHS), (2e-4, 4)]`. *Expected: the log grows by up to three epochs, and the held-out loss
#    goes on falling.*
# 2. Build the network for captchas of six characters, `build_cnn(length=6)`, and compute its number
#    of parameters first. *Expected: two more heads of 73,764 each.*
# 3. Set `momentum=0.99` for the slim network and train again. *Expected: the held-out loss stays
#    above blind guessing for longer, although the training loss falls just as before.*
#
# ## Further reading
#
# - [CS231n: convolutional networks](https://cs231n.github.io/convolutional-networks/): the clearest
#   introduction to what a convolution sees and how sizes follow.
# - [The Keras functional API](https://keras.io/guides/functional_api/): how to build models with
#   several outputs.
# - [Interval estimation for a binomial proportion](https://doi.org/10.1214/ss/1009213286): why the
#   textbook interval fails near 100 %, which is just where we want to be.
