# %% [markdown]
# # 5. Read loss curves
#
# *Lesson 5 of 8 · 20 minutes · needs 3 and 4 · trains for a minute*
#
# By the end of this lesson you will be able to tell from the log of a training run whether the network learns, whether
# it is done, and what to change next. You will also know five mistakes that raise no error.

# %% tags=["hide-input"]
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from keras import ops
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from captcha_reader.weights import finished, read_log, read_results
from notebooks_py.ch1_captcha_preview import CaptchaSequence, SetEpoch
from notebooks_py.ch3_ctc import decode_ctc, small_ctc


# %% [markdown]
# You may change these two numbers.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019
# EPOCHS = 15  # short ones, of 512 captchas

# %% [markdown]
# ## A clean run
#
# After every epoch, Keras' `CSVLogger` writes the training `loss`, the `val_loss` of *held-out* captchas, and
# `val_acc`, the share of these that is read right (`val_sizes` is for captchas of any size). We plot each twice: on a
# linear axis, the step from 98 to 99 % right looks like nothing, although it halves the errors; on a logarithmic axis
# every halving has the same height.

# %%
def plot_log(log: pd.DataFrame, title: str) -> Figure:
    """Draw a log: loss on two axes, held-out accuracy, and errors.

    The x axis has captchas if the log has `pictures`, else epochs.
    """
    done = log.pictures / 1_000 if "pictures" in log else log.epoch + 1
    right = 100 * log.filter(regex="^val_(.*acc|sizes)")  # several, if there are four heads
    losses = log[["loss", "val_loss"]].set_axis(["training", "held-out"], axis=1)
    figure, grid = plt.subplots(2, 2, figsize=(8, 6), layout="constrained")
    panels = {
        "loss (nats)": (losses, "linear"),
        "loss (nats), logarithmic axis": (losses, "log"),
        "held-out, right (%)": (right, "linear"),
        "held-out, wrong (%), logarithmic axis": (100 - right, "log"),
    }
    for axes, (what, (values, scale)) in zip(grid.flat, panels.items(), strict=True):
        axes.plot(done, values, label=[name.removeprefix("val_") for name in values])
        axes.set(title=what, yscale=scale)
        if scale == "log":
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set(major_formatter="{x:g}", minor_formatter="")
        axes.set_xlabel("thousands of captchas" if "pictures" in log else "epoch")
        axes.legend().set_visible(len(values.columns) > 1)
    figure.suptitle(title)
    return figure


# %% [markdown]
# Here is the log of lesson 3's finished network:

# %% tags=["active-ipynb"]
# from captcha_reader.outputs import fresh_folder
#
# log = read_log("ctc")
# figure = plot_log(log, "The finished network of lesson 3")
# folder = fresh_folder("ch5_loss_curves") / "imgs"
# folder.mkdir()
# figure.savefig(folder / "vis.png", dpi=90)
# plt.show()
# print(f"`{read_results('ctc')['command']}`")
# print(log.iloc[[0, 1, -2, -1]].drop(columns="seconds").round(4).to_string(index=False))

# %% [markdown]
# The curves that look flat on the left still fall on the right. The training loss is higher because its captchas are
# harder, and because held-out captchas are read with averaged weights (lesson 4).
#
# ## The original's own logs
#
# The original tutorial trained each network at a rate of 0.001, and then at a tenth of it. The table lists epochs in
# which no captcha is read right, or the held-out loss is more than six times that of the epoch before (`rise`).

# %% tags=["active-ipynb", "hide-input"]
# names = {"cnn": "Four heads", "ctc": "CTC", "ctc_pytorch": "CTC in PyTorch"}
# original = read_log("original_logs")
# figure, rows = plt.subplots(3, 1, figsize=(7, 8), layout="constrained")
# for axes, (network, name) in zip(rows, names.items(), strict=True):
#     epochs = original[original.network == network].set_index("epoch")
#     axes.semilogy(epochs[["loss", "val_loss"]], label=["training", "held-out"])
#     second = epochs.index[epochs.stage == 2][0]
#     axes.axvline(second - 0.5, color="gray", ls=":", label="a tenth of the rate")
#     axes.set(title=f"{name}, 2019", xlabel="epoch of 128,000 captchas", ylabel="loss (nats)")
#     axes.legend(loc="upper right")
# rows[2].annotate("plateau", (3, 3.7), (7, 1), arrowprops={"arrowstyle": "->"})
# plt.show()
# rise = original.val_loss / original.groupby("network").val_loss.shift()
# original = original.assign(rise=rise.round(1))
# shown = original.query("rise > 6 or val_acc == 0").drop(columns=["stage", "ms_per_step"])
# print(shown.to_string(index=False))
# print("\nlargest rise in each stage:")
# print(original.pivot_table("rise", "network", "stage", "max"))

# %% [markdown]
# **A plateau** fills the first three epochs of the PyTorch network. (PyTorch divides the loss by the four characters of
# a text: 3.73 is the 15 of lesson 3.)
#
# **Spikes** of the held-out loss come later, and with them the accuracy drops. The training loss hardly shows them,
# because it is a mean over a thousand batches, each normalised by its own mean. Probably the last steps before a spike
# went too far, or the running averages used in reading lagged behind the weights. Either would come from too high a
# rate, and at a tenth of it the spikes end. So let the rate fall, average the weights (lesson 4), and keep the *best*
# weights (`ModelCheckpoint`), not the last.
#
# ## Overfitting, and steps that are too long
#
# We train lesson 3's small network three times: on fresh captchas in every epoch, on the same 512 again and again, and
# on fresh ones at a hundred times the learning rate. In which run will the held-out loss be lowest at the end?

# %%
def learn(draw, seed: int, epochs: int, fresh=True, rate=3e-3) -> pd.DataFrame:
    """Train `small_ctc` for short epochs of 512 captchas that `draw` draws; return its log.

    Unless they are `fresh`, all epochs have the same captchas.
    """
    data = CaptchaSequence(32, 16, seed, labels="ctc", draw=draw)
    held_out = CaptchaSequence(256, 1, seed, split="valid", labels="ctc", draw=draw)
    callbacks = [SetEpoch(data)] if fresh else []
    options = {"epochs": epochs, "callbacks": callbacks, "shuffle": False, "verbose": 0}
    model = small_ctc(seed, rate=rate)
    return pd.DataFrame(model.fit(data, validation_data=held_out, **options).history)

# %% tags=["active-ipynb", "trained"]
# from captcha_reader.bank import GlyphBank
#
# bank = GlyphBank(SEED)
# logs = {
#     "fresh captchas": learn(bank.draw, SEED, EPOCHS),
#     "the same 512": learn(bank.draw, SEED, EPOCHS, fresh=False),
#     "rate of 0.3": learn(bank.draw, SEED, EPOCHS, rate=0.3),
# }
# figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True, layout="constrained")
# for name, log in logs.items():
#     left.plot(range(1, EPOCHS + 1), log.loss, label=name)
#     right.plot(range(1, EPOCHS + 1), log.val_loss, label=name)
# left.set(title="Captchas in training", xlabel="epoch of 512 captchas", ylabel="loss (nats)")
# right.set(title="Held-out captchas", xlabel="epoch of 512 captchas", ylim=(0, 25))
# left.legend()
# plt.show()

# %% [markdown]
# With fresh captchas both losses fall together. With the same 512 the training loss falls to nearly nothing, while the
# held-out loss stays high: the network learns its captchas *by heart*, and only the held-out curve shows this
# *overfitting*. At the high rate the steps are too long, and both losses stay near the plateau.
#
# ## Five mistakes that raise no error
#
# **Softmax before a loss that wants logits.** `keras.losses.CTC` applies a softmax itself. What if the network applies
# one, too?

# %% tags=["active-ipynb"]
# from captcha_reader.drawing import draw_captchas, stream
# from captcha_reader.texts import ALPHABET, ctc_labels, random_texts
#
# network, rng = finished("ctc")[0], stream(SEED, "accidents", epoch=0, index=0)
# texts = random_texts(rng, 200)
# X, y = draw_captchas(texts, rng).astype("float32") / 255, ctc_labels(texts)
# logits, ctc = network.predict_on_batch(X), keras.losses.CTC()
# for name, values in {"logits": logits, "softmax": ops.softmax(logits), "zeros": 0 * logits}.items():
#     print(f"{name:8} loss {float(ctc(y, values)):.1f}")

# %% [markdown]
# With two softmaxes, even the finished network's loss is not much lower than with zeros, which make all 37 answers of
# each column equally likely. So the curve stays high and nearly flat, whatever the network learns.
#
# **A character on class 0.** If characters are counted from 0, not from 1, `A0BC` becomes 10, 0, 11, 12. But class 0 is
# the blank, and for Keras the length of a text is the number of labels that are *not 0*. We try three last characters:

# %% tags=["active-ipynb"]
# for last in (12, 30, 35):
#     loss = float(ctc(np.array([[10, 0, 11, last]]), logits[:1]))
#     print(f"labels 10, 0, 11, {last}: loss {loss:.1f}")

# %% [markdown]
# Keras looks at the first three labels alone, and the last character is not learned. Nor can any answer contain a `0`,
# because decoding drops class 0.
#
# **Too few columns.** `AAAA` needs seven (lesson 3), so with six its loss is infinite. PyTorch returns infinity, but
# Keras on TensorFlow a large number, which gets lost in the mean of an epoch. Here all logits are 0:

# %% tags=["active-ipynb"]
# for columns in (8, 7, 6):
#     loss = float(ctc(ctc_labels(["AAAA"]), 0 * logits[:1, :columns]))
#     print(f"AAAA in {columns} columns: loss {loss:.0f}")

# %% [markdown]
# **Workers that all draw the same.** With `use_multiprocessing=True`, each worker process begins with its own copy of
# the data set. What if this data set keeps its own random generator? (We copy with `pickle`, as Python does on macOS and
# Windows.)

# %% tags=["active-ipynb"]
# import pickle
# import random
#
# generator = random.Random(SEED)
# copies = [pickle.loads(pickle.dumps(generator)) for _ in range(3)]  # what three processes get
# print(*("".join(copy.choices(ALPHABET, k=4)) for copy in copies))

# %% [markdown]
# All copies are in the same state, so they draw the same text. Our `stream` depends on the number of the batch instead
# (lesson 1).
#
# **Reading in training mode.** With `training=True`, batch normalisation uses the mean and variance of the batch
# instead of its running averages, so an answer depends on the rest of the batch. Here each captcha is a batch of its
# own:

# %% tags=["active-ipynb"]
# alone = np.stack([network(X[i : i + 1], training=True)[0] for i in range(len(X))])
# for name, values in {"as usual": logits, "in training mode": alone}.items():
#     right = sum(a == b for a, b in zip(decode_ctc(values), texts, strict=True))
#     print(f"{right} of {len(X)} read right {name}")

# %% [markdown]
# More captchas are read wrong. (And these calls changed the running averages, so the network has to be loaded again
# before it is used.)
#
# ## What next?
#
# | you see | it means | do next |
# | --- | --- | --- |
# | both losses on a plateau at the start | it does not read yet, or the steps are too long | look at a batch yourself; ink = 1 (lesson 3); a tenth of the rate |
# | both fall together | it learns | let it run |
# | training falls, held-out does not | overfitting | fresh captchas, or moved ones (lesson 8) |
# | held-out spikes, training does not | probably, steps are too long | lower the rate, average, keep the best |
# | both flat, the rate at zero | the training is over | train longer, take a larger network, or practise more of what is hard |
# | loss and answers do not fit together | perhaps one of the five mistakes | decode the labels and answers of one batch |
#
# ---
#
# ## What you learned
#
# - A logarithmic axis shows progress that a linear one hides.
# - Spikes of the held-out loss end when the learning rate falls.
# - Only held-out captchas show whether a network reads or only knows its captchas by heart.
#
# ## On your own
#
# 1. Plot the log of your own run of lesson 2 with `plot_log(pd.read_csv(path), "Mine")`, where `path` is
#    `"../build/lessons/ch2_cnn/run-001/cnn.csv"`. *Expected: four accuracies, one for each head.*
#    [Solution](solutions.ipynb#lesson-5-exercise-1)
# 2. In how many epochs of the original is the held-out loss more than twice its lowest value so far (`cummin`)?
#    *Expected: some in each first stage, none in a second.*
#    [Solution](solutions.ipynb#lesson-5-exercise-2)
# 3. What share of all texts has a `0`, and so loses a character if `0` is on class 0?
#    *Expected: one in nine or ten.* [Solution](solutions.ipynb#lesson-5-exercise-3)
#
# ## Further reading
#
# - [CS231n: babysitting the learning process](https://cs231n.github.io/neural-networks-3/#baby): the classic collection
#   of curves.
#
# Next: [6. Tell O from 0](ch6_o0o0.ipynb) · [Solutions](solutions.ipynb)
