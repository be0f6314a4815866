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
# # Read loss curves
#
# ## What you'll do
#
# - plot a training log: loss on a linear and on a logarithmic axis, accuracy, learning rate
# - smooth a noisy curve, and find its spikes
#
# ## What you'll learn
#
# - what a curve that looks flat may be hiding
# - what a spike in the validation loss means, and when to worry
#
# ## What you'll need
#
# - [Lesson 4](ch4_gpu_training.ipynb), whose long trainings wrote the logs; a CPU is enough
#
# ---

# %%
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pandas as pd
from matplotlib.axes import Axes

from notebooks_py.ch1_captcha_preview import CaptchaSequence
from notebooks_py.ch2_cnn import MODELS, build_cnn, compile_cnn, read_log, train_in_stages


# %% [markdown]
# The parameters are those of a short training of our own, at the end.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 25  # batches in an epoch
# EPOCHS = 8  # epochs at the first learning rate; half as many follow at a tenth of it

# %% [markdown]
# ## Where the log comes from
#
# The finished models of this repository come with the logs of their trainings, `models/*.csv`. What
# you see below are hours of a computer's work. A model may have been trained in several *runs*, each
# of which went on from the weights of the one before, with a learning rate that rises anew.

# %%
def finished_logs() -> dict[str, pd.DataFrame]:
    """Return the training logs in models/, by name; ValueError as `read_log`."""
    return {path.stem: read_log(path) for path in sorted(MODELS.glob("*.csv"))}


# %% [markdown]
# We read the sequence model's:

# %% tags=["active-ipynb"]
# from notebooks_py.ch1_captcha_preview import fresh_folder
#
# FOLDER = fresh_folder("ch5_loss_curves")
# name, log = "ctc", finished_logs()["ctc"]
# captchas, runs = log.pictures.max(), log.stage.unique().tolist()
# print(f"{name}: {len(log)} lines, {captchas:,} captchas, runs {runs}")

# %% [markdown]
# A log is a table with a row for each time that somebody looked: after some thousand captchas here,
# after each epoch in lesson 2. `stage` is the number of the run. These are its most important
# columns:

# %% tags=["active-ipynb"]
# columns = ["stage", "pictures", "learning_rate", "loss", "val_loss"]
# print(log[columns].dtypes.to_string())
# assert log[columns].notna().all(axis=None)
# assert (log.loss > 0).all() and (log.val_loss > 0).all()

# %% [markdown]
# ## Two axes, two stories
#
# We draw every curve with the same function. It marks where the next run begins, because there the
# learning rate changes at once.

# %%
def progress(log: pd.DataFrame) -> tuple[pd.Series, str]:
    """Return how far training was at each row of a log, and in what: captchas or epochs."""
    if "pictures" in log:
        return log.pictures / 1_000, "thousands of captchas"
    return log.epoch + 1, "epoch"


def plot_losses(axes: Axes, log: pd.DataFrame, scale: str = "linear") -> None:
    """Draw training and validation loss, and mark where a new stage begins.

    Raises:
        ValueError: the log has no finished epoch, or lacks a column.
    """
    missing = {"epoch", "stage", "loss", "val_loss"} - set(log.columns)
    if missing or log.empty:
        what = f"lacks {', '.join(sorted(missing))}" if missing else "has no finished epoch"
        raise ValueError(f"this log {what}: give a log of train_in_stages with at least one epoch")
    done, unit = progress(log)
    axes.plot(done, log.loss, label="training")
    axes.plot(done, log.val_loss, label="held-out")
    before = done.shift()
    for number, place in enumerate(log.index[log.stage.diff() > 0]):
        label = None if number else "a new stage"  # one line of the legend for all of them
        axes.axvline((before[place] + done[place]) / 2, color="gray", ls=":", label=label)
    axes.set(yscale=scale, xlabel=unit, ylabel="loss (nats)", title=f"Loss, {scale} axis")
    axes.legend()


# %% [markdown]
# Accuracy columns have many names: the CNN logs one for each head, the CTC model a single
# `val_acc`. We take all that are measured on held-out pictures.

# %%
def plot_accuracies(axes: Axes, log: pd.DataFrame) -> list[str]:
    """Draw every held-out accuracy of a log in percent; return the names of their columns."""
    names = [name for name in log.columns if name.startswith("val_") and "acc" in name]
    done, unit = progress(log)
    for name in names:
        axes.plot(done, 100 * log[name], label=name.removeprefix("val_"))
    axes.set(xlabel=unit, ylabel="right (%)", title="Accuracy on held-out pictures")
    axes.set_ylim(0, 100)
    if names:
        axes.legend()
    return names


# %% [markdown]
# Four pictures of one log:

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, grid = plt.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
# plot_losses(grid[0, 0], log)
# plot_losses(grid[0, 1], log, "log")
# accuracies = plot_accuracies(grid[1, 0], log)
# done, unit = progress(log)
# grid[1, 1].plot(done, log.learning_rate, color="black")
# grid[1, 1].set(xlabel=unit, ylabel="learning rate", title="Learning rate")
# figure.suptitle(f"Training log: {name}")
# (FOLDER / "imgs").mkdir(exist_ok=True)
# figure.savefig(FOLDER / "imgs" / "vis.png", dpi=80)
# plt.show()
# print("accuracies:", ", ".join(accuracies))
# rates = log.learning_rate
# print(f"learning rate: at most {rates.max():.4f}, at the end {rates.iloc[-1]:.4f}")

# %% [markdown]
# The two upper pictures show the same numbers. On the linear axis, the long training seems to be
# over after its first steep fall: all the rest lies on the bottom. The logarithmic axis gives each
# halving of the loss the same height, so a loss that goes from 0.02 to 0.01 looks like the
# improvement that it is: half of the errors are gone. Compare with the learning rate: whenever it
# is high, the curves are wild, and when it falls, they fall with it.
#
# At the end the training loss lies far above the held-out one, which is unusual. Here it is no
# mistake: the last run practised `0` and `O` more often than they occur in held-out captchas (lesson
# 4), and those are hard. Two losses can only be compared if both are measured on the same thing.
#
# ## Noise and trend
#
# A curve jitters from row to row. To see where it is going, average over the last few rows.
# The average runs a little behind, so look at both.

# %%
def smooth(values: pd.Series, span: float = 5) -> pd.Series:
    """Return the exponential moving average with weights (1 - 2 / (span + 1)) ** age.

    Raises:
        ValueError: `span` is below 1.
    """
    if span < 1:
        raise ValueError(f"span={span}: the average needs a span of at least 1 row")
    return values.ewm(span=span).mean()


# %% [markdown]
# The held-out loss, before and after:

# %% tags=["active-ipynb"]
# figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
# axes.plot(done, log.val_loss, color="lightgray", label="raw")
# axes.plot(done, smooth(log.val_loss), label="smoothed over 5 rows")
# axes.set(title="Held-out loss, raw and smoothed", xlabel=unit, ylabel="loss (nats)", yscale="log")
# axes.legend()
# plt.show()
# steps = log.val_loss.diff().abs().mean(), smooth(log.val_loss).diff().abs().mean()
# print("the smoothed curve moves less from row to row:", bool(steps[1] < steps[0]))

# %% [markdown]
# ## Spikes
#
# Sometimes the loss on held-out pictures jumps up for a single row and comes back, while the
# training loss goes its way undisturbed. Two things come together. At a high learning rate one
# unlucky update can move the weights a long way; and batch normalisation's running averages, which
# only held-out pictures see, need a while to follow. In the published runs of the original tutorial
# this happened late: a loss of 2.56 at the 16th epoch of the CNN. A spike is no reason to stop,
# which is why early stopping has patience; and it is the reason to keep the *best* weights instead
# of the last.

# %%
def find_spikes(losses: pd.Series, factor: float = 1.2) -> list[int]:
    """Return the places where a loss is more than `factor` times the best one before it."""
    best_before = losses.cummin().shift()
    return [place for place, high in enumerate(losses > factor * best_before) if high]


# %% [markdown]
# A test on a curve that we can check by eye: 1.9 is more than 1.2 times the 1.0 before it, 1.1 is
# not. In our log, each run is looked at by itself, since a new one begins above the best of the last.

# %% tags=["active-ipynb"]
# print("spikes at places", find_spikes(pd.Series([3.0, 2.0, 1.0, 1.1, 1.9, 0.9, 0.8])))
# spikes = [i for _, run in log.groupby("stage") for i in run.index[find_spikes(run.val_loss)]]
# figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
# axes.plot(done, log.val_loss)
# axes.plot(done[spikes], log.val_loss[spikes], "rv", label="spike")
# axes.set(title=f"{len(spikes)} spikes in the held-out loss", xlabel=unit, ylabel="loss (nats)")
# axes.set(yscale="log")
# plt.show()
# assert set(spikes) <= set(find_spikes(log.val_loss))

# %% [markdown]
# Red triangles are rows whose held-out loss is a fifth worse than the best before them in their run.
# In the later runs nearly every row is one at first: a rate that rises anew throws the network out of
# the place where it had come to rest. As the rate falls, the triangles go.
#
# ## A log of your own
#
# The same functions draw every log of these lessons. Here is one that you can watch being made: a
# slim network with four heads and an easy task, captchas of only four different letters.

# %%
def short_run(seed: int, steps: int, epochs: int, folder: Path) -> pd.DataFrame:
    """Train a slim CNN on an easy task in two stages, and return its log."""
    keras.utils.set_random_seed(seed)
    letters = "AKX7"  # four instead of 36, so that a minute shows a whole training
    model = build_cnn(
        classes=len(letters), filters=(16, 32, 64, 128), convs=1, stride=2, momentum=0.9
    )
    data = CaptchaSequence(32, steps, seed, alphabet=letters, workers=4)
    valid = CaptchaSequence(128, 2, seed, split="valid", alphabet=letters)
    stages = [(2e-3, epochs), (2e-4, max(1, epochs // 2))]
    return train_in_stages(model, compile_cnn, data, valid, folder, stages)

# %% [markdown]
# In its second stage the learning rate is a tenth, and stays there.

# %% tags=["active-ipynb"]
# own = short_run(SEED, STEPS, EPOCHS, FOLDER)
# figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
# plot_losses(left, own, "log")
# heads = plot_accuracies(right, own)
# figure.suptitle("A short run: four heads, four letters")
# plt.show()
# print(f"{len(own)} epochs, accuracies:", ", ".join(heads))
# assert (own.loss > 0).all() and own.stage.max() == 2

# %% [markdown]
# The heads of the first and the last character are ahead: those have only one neighbour to overlap
# with.
#
# ## What to look for
#
# | you see | it means | do this |
# | --- | --- | --- |
# | both curves flat at blind guessing | the network has not found the task yet | wait; if it lasts, lower the learning rate |
# | training falls, held-out rises and stays up | it learns its pictures by heart | more data; here every epoch is new, so look for a bug |
# | single spikes of the held-out loss | a high learning rate, and averages that lag behind | keep the best weights, or let the rate fall |
# | both curves flat, far below the start | this learning rate has given what it can | a smaller one |
#
# ---
#
# ## What you learned
#
# - A logarithmic axis shows improvements that a linear one hides.
# - Smoothing shows the trend; the raw curve shows the risk. Look at both.
# - Spikes come from large steps and lagging averages; patience and best weights make them harmless.
#
# ## On your own
#
# 1. Plot the log of your run of lesson 2: `read_log(Path("../build/lessons/ch2_cnn/run-001"))`.
#    *Expected: after a flat beginning, the held-out curve falls below the training curve, because
#    the training loss is an average over an epoch in which the network was still worse.*
# 2. Call `smooth` with a span of 1, and then of 50. *Expected: the raw curve, and a curve that
#    hardly moves and comes far too late.*
# 3. Look for spikes with a `factor` of 2. *Expected: fewer, and none at the end of a run, where the
#    rate is small.*
#
# ## Further reading
#
# - [CS231n: babysitting the learning process](https://cs231n.github.io/neural-networks-3/#baby):
#   the classic collection of curves and their diagnoses.
# - [pandas: exponentially weighted
#   windows](https://pandas.pydata.org/docs/user_guide/window.html#exponentially-weighted-window):
#   the exact weights behind `ewm`.
