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
# At the end of this lesson you can look at the log of a training and say whether it learns, whether
# it is done, and what to change next. You need [lesson 4](ch4_gpu_training.ipynb). Nothing is trained here: we
# read logs of trainings that took hours.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from captcha_reader.scores import share, wilson
from captcha_reader.weights import MODELS, read_log, read_results


# %% [markdown]
# A seed, for one experiment with chance further down.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019

# %% [markdown]
# ## A log
#
# Keras' `CSVLogger` writes a row after every epoch. Here are some from the finished network of lesson 3: the loss
# on the captchas it trained with, and on *held-out* ones that it never trains with. `val_acc` is the share of
# held-out classic captchas that are read right, `val_sizes` that of captchas of any size. One command trained it,
# from nothing.

# %% tags=["active-ipynb"]
# log = read_log("ctc")
# rows = log.iloc[[0, 1, 2, -2, -1]].drop(columns="seconds")
# print(rows.round(3).to_string(index=False))

# %% [markdown]
# ## The same numbers, twice
#
# A logarithmic axis gives every halving of the loss the same height. And beside the captchas that are right we draw
# those that are wrong: from 98 to 99 % right looks like nothing, yet half of the errors are gone.

# %%
def plot_log(log: pd.DataFrame, title: str) -> Figure:
    """Draw a log: loss on two axes, held-out accuracy, and errors.

    The x axis has captchas if the log has `pictures`, else epochs.
    """
    done = log.pictures / 1_000 if "pictures" in log else log.epoch + 1
    right = 100 * log.filter(regex="^val_(.*acc|sizes)")  # several, if there are four heads
    losses = log[["loss", "val_loss"]].set_axis(["training", "held-out"], axis=1)
    figure, grid = plt.subplots(2, 2, figsize=(10, 6), layout="constrained")
    panels = {
        "loss (nats)": (losses, "linear"),
        "loss (nats), logarithmic axis": (losses, "log"),
        "held-out, right (%)": (right, "linear"),
        "held-out, wrong (%), logarithmic axis": (100 - right, "log"),
    }
    for axes, (what, (values, scale)) in zip(grid.flat, panels.items(), strict=True):
        axes.plot(done, values, label=[name.removeprefix("val_") for name in values])
        axes.set(title=what, yscale=scale)
        axes.set_xlabel("thousands of captchas" if "pictures" in log else "epoch")
        axes.legend().set_visible(len(values.columns) > 1)
    figure.suptitle(title)
    return figure

# %% [markdown]
# One log, four times:

# %% tags=["active-ipynb"]
# from captcha_reader.outputs import fresh_folder
#
# figure = plot_log(log, "The finished network of lesson 3")
# folder = fresh_folder("ch5_loss_curves") / "imgs"
# folder.mkdir()
# figure.savefig(folder / "vis.png", dpi=90)
# plt.show()
# results = read_results("ctc")
# counted = results["scores"]["classic-100k"]
# print(f"`{results['command']}`: {results['pictures']:,} captchas")
# print(f"classic-100k: {share(counted['right'], counted['n'])}")

# %% [markdown]
# Watch the panels on the right. What looks like a floor on the left is a slope there: the errors fall until the
# end, where the rate is zero. Captchas of any size are harder than classic ones, since the smallest of them
# cut letters off.
#
# Almost from the start the *training* loss is the higher one. Training practises `O` and `0` more often than they
# occur in held-out captchas, and those are hard; half of its captchas have any size. And it is measured with the
# weights as they tumble, while held-out captchas are read with their average.
#
# ## Two stages, or one cycle
#
# The original trains in two *stages*, each with a rate of its own: Adam at
# 0.001 until the held-out loss has not improved for three epochs, then at a tenth of it from the best weights.
# Our recipe has one cycle instead: the rate climbs quickly and falls to zero. We trained the small
# network of lesson 3 both ways, on the very same captchas (`make study WHAT=stages`).

# %% tags=["active-ipynb"]
# stages = read_log("stages")
# figure, row = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
# for recipe in ("two stages", "one cycle"):
#     rows = stages[stages.recipe == recipe]
#     row[0].plot(rows.pictures / 1_000, rows.rate, label=recipe)
#     row[1].plot(rows.pictures / 1_000, rows.val_loss, label=recipe)
#     row[2].plot(rows.pictures / 1_000, 100 * rows.val_acc, label=recipe)
# row[0].set(title="Learning rate", ylabel="rate")
# row[1].set(title="Held-out loss", ylabel="nats", yscale="log")
# row[2].set(title="Held-out captchas", ylabel="right (%)")
# for axes in row:
#     axes.set_xlabel("thousands of captchas")
#     axes.legend()
# plt.show()
# print(f"each recipe: {len(rows)} epochs, {rows.pictures.max():,} captchas")

# %% [markdown]
# Look at the end of the first stage. The held-out loss goes up and down and gets nowhere: a *plateau*. The
# steps are too long for what is left to learn. Then it goes back to its best weights, at a tenth of the rate,
# and the loss falls at once.
#
# The cycle has no such corner. After its climb the rate falls a little in every epoch, and so does the loss.
# Only at the start it seems behind: the averaged weights that it is read with (lesson 4) still remember the
# random ones.

# %% tags=["active-ipynb"]
# for recipe, rows in stages.groupby("recipe", sort=False):
#     best = rows.loc[rows.val_loss.idxmin()]
#     right = share(round(1_000 * best.val_acc), 1_000)
#     print(f"{recipe:26} best held-out loss {best.val_loss:.2f}, right {right}")

# %% [markdown]
# One training of each, and our recipe also clips, averages, decays, and peaks three times as high: the gap is not
# the cycle's alone. And the cycle has a price: its length is chosen beforehand, while a stage ends when
# its curve says so.
#
# ## Noise
#
# Fifteen imaginary networks are *equally good*: each reads a thousand captchas, and each of them right with a
# probability of 95 %.

# %% tags=["active-ipynb"]
# n = 1_000
# right = np.random.default_rng(SEED).binomial(n, 0.95, size=15)
# low, high = 100 * np.array([wilson(int(k), n) for k in right]).T
# dots = 100 * right / n
# figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
# axes.errorbar(range(1, 16), dots, [dots - low, high - dots], fmt="o")
# axes.axhline(95, color="gray", ls=":", label="the truth")
# axes.set(title="Fifteen equally good networks", xlabel="network", ylabel="right (%)")
# axes.legend()
# plt.show()
# print(f"the luckiest: {share(int(right.max()), n)}")
# print(f"the unluckiest: {share(int(right.min()), n)}")

# %% [markdown]
# The dots differ by luck alone. All whiskers, Wilson's 95 % intervals, contain the truth here. Before you
# believe that one network is a point better than another, test on more captchas.
#
# ## What next?
#
# | you see | it means | do next |
# | --- | --- | --- |
# | both losses flat from the start | the task is not found yet | look at a batch with your own eyes; ink = 1 (lesson 3) |
# | both fall together | it learns | let it run |
# | training falls, held-out does not | it learns its captchas by heart | fresh captchas, or move them about (lesson 8) |
# | both flat at a high rate | the steps are too long | lower the rate, or plan its fall |
# | both flat where the rate is zero | this training is over | a longer one, a larger network, practice of what is hard |
# | two curves cross and cross again | noise | more held-out captchas |
#
# ## A log of your own
#
# Lesson 2 left one in `build/lessons/ch2_cnn/run-001/cnn.csv`, lesson 3 in `.../ch3_ctc/run-001/ctc.csv`,
# and `make train` writes a `log.csv` into its folder in `build/train`. Put its path here. Ours is the finished CNN's.

# %% tags=["active-ipynb"]
# path = MODELS / "cnn.csv"  # yours: "../build/lessons/ch2_cnn/run-001/cnn.csv"
#
# own = pd.read_csv(path)
# plot_log(own, "The finished network of lesson 2")
# plt.show()
# best = own.loc[own.val_loss.idxmin()]
# when = f"{best.pictures:,.0f} captchas" if "pictures" in own else f"{best.epoch + 1:.0f} epochs"
# print(f"{len(own)} rows, the lowest held-out loss is {best.val_loss:.3f}, after {when}")

# %% [markdown]
# Both losses fall to the end, so this network, too, would gain from a longer training.
#
# ---
#
# ## What you learned
#
# - A logarithmic axis shows progress that a linear one hides.
# - Compare two losses if both are measured on the same kind of captchas, with the same weights.
# - A plateau at a high rate ends when the rate falls: in stages, or along one cycle.
# - A point of difference in a thousand captchas may be noise.
#
# ## On your own
#
# 1. Plot the log of your own run of lesson 2. *Expected: four accuracies.*
#    [Solution](solutions.ipynb#lesson-5-exercise-1)
# 2. Let the fifteen networks read `n = 100_000` captchas each. *Expected: all within 0.2 points of 95 %.*
#    [Solution](solutions.ipynb#lesson-5-exercise-2)
# 3. Divide the cycle's `val_loss` by that of the two stages, as arrays (`to_numpy`). *Expected: above 1 is the cycle
#    behind, below 1 it is ahead; find where they cross.* [Solution](solutions.ipynb#lesson-5-exercise-3)
#
# ## Further reading
#
# - [CS231n: babysitting the learning process](https://cs231n.github.io/neural-networks-3/#baby):
#   the classic collection of curves and what they mean.
# - [Cyclical learning rates for training neural networks](https://arxiv.org/abs/1506.01186), Smith, 2017:
#   the idea that a rate should rise before it falls.
