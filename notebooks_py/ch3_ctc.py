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
# # Read captchas as a sequence
#
# ## What you'll do
#
# - compute CTC by hand on words so short that every possibility fits on the screen
# - build the second network of the original tutorial, which reads a picture column by column
# - train a slim network, watch it wait on a plateau and leave it, and look at each of its 16
#   answers
#
# ## What you'll learn
#
# - how a network can learn the order of the characters when nobody tells it where they are
# - three ways to turn its answers into a text, and what differs
# - what counts as right, and how another way of counting can flatter
#
# ## What you'll need
#
# - [Lesson 1](ch1_captcha_preview.ipynb), which draws the data, and [lesson 2](ch2_cnn.ipynb),
#   whose blocks and training we use again; a CPU is enough here
#
# ---

# %%
from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers, ops

from notebooks_py.ch1_captcha_preview import (
    ALPHABET,
    HEIGHT,
    LENGTH,
    WIDTH,
    CaptchaSequence,
    to_input,
)
from notebooks_py.ch2_cnn import conv_block, show_answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# %% [markdown]
# One seed for everything, and two numbers that say how long the training in this lesson takes.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 100  # batches in an epoch
# EPOCHS = 4  # epochs at the first learning rate; one more follows at a tenth of it

# %% [markdown]
# ## One answer for each column
#
# The network of lesson 2 has four heads, and each of them has to learn for itself where "its"
# character stands. Now we cut the picture into 16 columns from left to right, and *every* column is
# asked the same question: which character do you see? That gives 16 answers for four characters. A
# wide letter fills several columns, and between two letters there may be nothing. So there is one
# more answer, the **blank**: "nothing new here". In Keras it is class 0, and the 36 characters are
# 1 to 36.
#
# To get a text out of 16 answers, *connectionist temporal classification* (CTC) has a rule: first
# merge equal neighbours, then take the blanks away.

# %%
BLANK = 0


def collapse(path: Sequence[int]) -> list[int]:
    """Turn one answer for each step into labels: merge equal neighbours, then drop the blanks."""
    return [int(a) for a, b in zip(path, [BLANK, *path], strict=False) if a not in (b, BLANK)]


def spell(path: Sequence[int], alphabet: str = ALPHABET) -> str:
    """Write answers (0 for the blank, 1..len(alphabet)) as text, with a `-` for each blank."""
    return "".join(("-" + alphabet)[answer] for answer in path)


# %% [markdown]
# Some answers of six columns over the alphabet `AB`, and what they mean:

# %% tags=["active-ipynb"]
# for path in [(0, 1, 1, 0, 2, 0), (1, 2, 2, 2, 2, 2), (1, 0, 1, 1, 0, 2), (0, 0, 0, 0, 0, 0)]:
#     print(f"{spell(path, 'AB')} -> {spell(collapse(path), 'AB')!r}")
# assert collapse((1, 0, 1, 1, 0, 2)) == [1, 1, 2]

# %% [markdown]
# Look at the third: a blank between two `A` makes them two. Without it they would be one. And 16
# blanks are the empty text.
#
# ## All the ways to say AB
#
# A path of answers that collapses to a text is called an *alignment* of it. For a toy we can simply
# try all paths.

# %%
def alignments(label: Sequence[int], steps: int, classes: int) -> list[tuple[int, ...]]:
    """Return every path of `steps` answers 0..classes-1 that collapses to `label`.

    It tries all classes**steps paths, so it is for toys only.
    """
    paths = itertools.product(range(classes), repeat=steps)
    return [path for path in paths if collapse(path) == list(label)]


# %% [markdown]
# In four steps there are 3 x 3 x 3 x 3 = 81 paths of blank, `A` and `B`. These say `AB`:

# %% tags=["active-ipynb"]
# found = alignments([1, 2], steps=4, classes=3)
# print(len(found), "alignments:", " ".join(spell(path, "AB") for path in found))
# assert len(found) == 15

# %% [markdown]
# In every one of them `A` comes before `B`; where they stand is left open. That is the idea of CTC:
# *all* alignments of the right text are right.
#
# ## Why AAAA needs seven steps
#
# Every character takes at least one step. And between two equal neighbours there has to be a blank,
# or they would be merged.

# %%
def steps_needed(label: Sequence[int]) -> int:
    """Return the fewest steps in which `label` can be said: its length + its equal neighbours."""
    return len(label) + sum(a == b for a, b in itertools.pairwise(label))


# %% [markdown]
# Is that right? We count the alignments one step below that number, and at it.

# %% tags=["active-ipynb"]
# from notebooks_py.ch1_captcha_preview import encode
#
# for text in ["ABCD", "ABBC", "AABB", "AAAA"]:
#     label = encode([text], "ABCD")[0] + 1
#     least, classes = steps_needed(label), label.max() + 1
#     few, enough = (alignments(label, steps, classes) for steps in (least - 1, least))
#     print(f"{text}: {len(few)} alignments in {least - 1} steps,", end=" ")
#     print(f"{len(enough)} in {least}: {spell(enough[0], 'ABCD')}")
#     assert (len(few), len(enough)) == (0, 1)

# %% [markdown]
# `AAAA` needs seven steps. Our 16 columns are plenty for any text of four characters.
#
# ## The loss, summed by hand
#
# The network gives 37 numbers for each column, called *logits*; a softmax turns them into
# probabilities. The probability of a path is the product of the probabilities of its answers, the
# probability of a text is the **sum over all its alignments**, and the loss is minus the logarithm
# of that.

# %%
def loss_by_hand(logits: np.ndarray, label: Sequence[int]) -> float:
    """Return the CTC loss of one label for logits (steps, classes), summed over all alignments.

    Formula: Graves et al., "Connectionist temporal classification", ICML 2006, equations (2), (3).
    """
    scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = scores / scores.sum(axis=-1, keepdims=True)
    steps, classes = logits.shape
    total = sum(
        math.prod(float(row[answer]) for row, answer in zip(probabilities, path, strict=True))
        for path in alignments(label, steps, classes)
    )
    return -math.log(total) if total > 0 else math.inf


# %% [markdown]
# Six steps, three classes, random logits: does Keras compute the same?

# %% tags=["active-ipynb"]
# logits = np.random.default_rng(SEED).normal(size=(6, 3)).astype("float32")
# for label in [[1, 2], [1, 1], [2, 1, 2], [1, 1, 2, 2]]:
#     by_hand = loss_by_hand(logits, label)
#     by_keras = float(keras.losses.ctc(np.array([label]), logits[None])[0])
#     print(f"{spell(label, 'AB')}: {by_hand:.4f} by hand, difference below 1e-5:", end=" ")
#     print(abs(by_hand - by_keras) < 1e-5)
#     assert abs(by_hand - by_keras) < 1e-5

# %% [markdown]
# It does. But for 16 columns and 37 classes there are 37 to the power of 16 paths, a number of 26
# digits, so Keras does not list them. It walks from column to column and keeps
# one sum for each place in the text (the *forward algorithm*; the article under *Further reading*
# shows it in moving pictures).
#
# ## A loss that refuses nonsense
#
# What does Keras do with labels that make no sense? We ask it about a character that does not
# exist, about a blank in the middle of a text, and about a text that does not fit.

# %% tags=["active-ipynb"]
# def keras_loss(label):
#     return float(keras.losses.ctc(np.array([label]), logits[None])[0])
#
#
# print("class 4 of 0..2, loss below zero:", keras_loss([3, 4]) < 0)
# print("blank inside a text, loss an ordinary number:", 0 < keras_loss([1, 0, 2]) < 20)
# print("AAAA in 6 steps, loss finite:", math.isfinite(keras_loss([1, 1, 1, 1])))

# %% [markdown]
# Three silent failures: a loss below zero is impossible, and the last one should be infinite, as no
# path says `AAAA` in six steps. With such numbers a network trains, and learns nonsense. So we
# check first. The most likely mistake is the second: forgetting to add 1, so that the character `0`
# becomes the blank.

# %%
def check_labels(labels: np.ndarray, steps: int, classes: int) -> None:
    """Raise a ValueError unless each row of `labels` can be said in `steps` steps.

    Labels are whole numbers (n, length), each 1..classes-1: no blank, not even as padding.
    """
    outside = labels[(labels < 1) | (labels >= classes)]
    if outside.size:
        raise ValueError(
            f"label {outside[0]} is no character: characters are 1..{classes - 1} and 0 is the "
            "blank; add 1 to what encode gives (CaptchaSequence(labels='ctc') does)"
        )
    for row in labels:
        if steps_needed(row) > steps:
            raise ValueError(
                f"the label {row.tolist()} needs {steps_needed(row)} steps (its length, and one "
                f"for each pair of equal neighbours), but the logits have {steps}: "
                "use a wider picture or fewer poolings"
            )


# %% [markdown]
# The values need an array; the shapes are known even before there are values.

# %%
def check_shapes(labels: Sequence, logits: Sequence) -> None:
    """Raise a ValueError unless these shapes are (n, length) and (n, steps >= length, classes).

    A None stands for a size that is not known yet.
    """
    right = len(labels) == 2 and len(logits) == 3
    if not right or (None not in (labels[0], logits[0]) and labels[0] != logits[0]):
        raise ValueError(
            f"labels have shape {tuple(labels)} and logits {tuple(logits)}, expected (n, length) "
            "and (n, steps, classes) with one n: give a single text as labels[None], logits[None]"
        )
    if None not in (labels[1], logits[1]) and labels[1] > logits[1]:
        raise ValueError(
            f"labels of {labels[1]} characters need at least that many steps, but the logits "
            f"have {logits[1]}: use a wider picture or fewer poolings"
        )


# %% [markdown]
# The loss checks what it can see. In arrays, that is everything. While a network trains, it gets
# tensors of a compiled graph, whose shapes are known but whose values are not; there no error can
# be raised about a value. So it gives an impossible text what is due to it, an infinite loss,
# and computes on with a harmless one. You can't overlook that in a log, and no weight is harmed.

# %%
@keras.saving.register_keras_serializable("captcha_lessons")
def ctc_loss(labels, logits):
    """Return the CTC loss of each text in nats, float (n,): `keras.losses.ctc` on checked labels.

    Args:
        labels: whole numbers 1..classes-1, an array or a tensor (n, length); 0 is the blank, and
            there is no padding.
        logits: (n, steps, classes), before any softmax.

    Raises:
        ValueError: as `check_shapes` and, for arrays, `check_labels`. The values of tensors can't
            be looked at in a compiled graph, so there a row that `check_labels` refuses has an
            infinite loss and no gradient.
    """
    arrays, logits = not ops.is_tensor(labels), ops.convert_to_tensor(logits)
    check_shapes(np.shape(labels) if arrays else labels.shape, logits.shape)
    steps, classes = logits.shape[1:]
    if arrays:
        check_labels(np.asarray(labels), steps, classes)
    labels = ops.cast(labels, "int32")
    repeats = ops.sum(ops.cast(labels[:, 1:] == labels[:, :-1], "int32"), axis=-1)
    inside = ops.all((labels >= 1) & (labels < classes), axis=-1)
    possible = inside & (ops.shape(labels)[1] + repeats <= steps)
    harmless = 1 + ops.arange(ops.shape(labels)[1], dtype="int32") % 2
    loss = keras.losses.ctc(ops.where(possible[:, None], labels, harmless), logits)
    return ops.where(possible, loss, np.inf)


# %% [markdown]
# The same questions again, and a wrong shape:

# %% tags=["active-ipynb"]
# for label, these in [([3, 4], logits), ([1, 0, 2], logits), ([1] * 4, logits), ([1, 2], logits[0])]:
#     try:
#         ctc_loss(np.array([label]), these[None])
#     except ValueError as error:
#         print("ValueError:", error)

# %% [markdown]
# ## The network
#
# The five blocks are those of lesson 2, with one change: the last two poolings are 2 high and 1
# wide. They halve the height and leave the width alone, so that 16 columns remain, each 2 high with
# 256 channels. We turn the picture on its side (`Permute`), and each column becomes one vector of
# 512 numbers: a sequence of 16 vectors.
#
# Two *bidirectional GRUs* read this sequence. A GRU is a small recurrent network: it goes from
# column to column with a memory of 128 numbers and decides at each step what to keep. Bidirectional
# means that a second one comes from the right, so that each column hears from both sides. A dense
# layer then gives 37 logits for each column. It has no softmax, because CTC computes its own, which
# is more precise.

# %%
def read_columns(x: keras.KerasTensor, rnn: Sequence[int], classes: int) -> keras.KerasTensor:
    """Turn feature maps (height, width, channels) into logits (width, classes + 1)."""
    height, width, channels = x.shape[1:]
    x = layers.Permute((2, 1, 3), name="columns")(x)
    x = layers.Reshape((width, height * channels), name="sequence")(x)
    for number, size in enumerate(rnn, 1):
        gru = layers.GRU(size, return_sequences=True)
        x = layers.Bidirectional(gru, name=f"gru{number}")(x)
    return layers.Dense(classes + 1, dtype="float32", name="logits")(x)


# %% [markdown]
# Every choice is an argument again, and the defaults are the original's.

# %%
def build_ctc(
    width: int = WIDTH,
    height: int = HEIGHT,
    classes: int = len(ALPHABET),
    filters: Sequence[int] = (32, 64, 128, 256, 256),
    convs: int = 2,
    kernel: int = 3,
    stride: int = 1,
    tall: int = 2,
    rnn: Sequence[int] = (128, 128),
    init: str = "he_uniform",
    momentum: float = 0.99,
) -> keras.Model:
    """Build the sequence model: convolutions, bidirectional GRUs, logits for each column.

    Args:
        width, height: size of the pictures, float32 (batch, height, width, 3) in [0, 1].
        classes: number of characters, without the blank.
        filters, convs, kernel, stride, init, momentum: as in `build_cnn`.
        tall: how many of the last poolings are (2, 1) instead of (2, 2).
        rnn: size of each bidirectional GRU, from first to last; () for none.

    Returns:
        An uncompiled model with one output `logits`, (batch, steps, classes + 1); class 0 is the
        blank, and steps = width / stride / 2**(len(filters) - tall), 16 for the defaults.

    Raises:
        ValueError: the picture is too small for the blocks.
    """
    least = stride * 2 ** (len(filters) - tall), stride * 2 ** len(filters)
    if width < least[0] or height < least[1]:
        raise ValueError(
            f"{width}x{height} pixels are too few for stride {stride}, {len(filters)} blocks and "
            f"tall={tall}: use at least {least[0]}x{least[1]} pixels, or fewer filters="
        )
    x = inputs = keras.Input((height, width, 3), name="picture")
    for number, count in enumerate(filters, 1):
        first = stride if number == 1 else 1
        x = conv_block(x, f"block{number}", count, convs, kernel, first, init, momentum)
        pool = 2 if number <= len(filters) - tall else (2, 1)
        x = layers.MaxPooling2D(pool, name=f"block{number}_pool")(x)
    return keras.Model(inputs, read_columns(x, rnn, classes), name="ctc")


# %% [markdown]
# In its full size:

# %% tags=["active-ipynb"]
# keras.utils.set_random_seed(SEED)
# full = build_ctc()
# print(f"parameters: {full.count_params():,}")
# for name in ["block5_pool", "columns", "sequence", "gru2", "logits"]:
#     print(f"{name}: {full.get_layer(name).output.shape[1:]}")
# assert full.count_params() == 3_157_317
# assert full.output_shape == (None, 16, 37)

# %% [markdown]
# That is the number of the original. The first axis of the output is the batch, the second the 16
# steps, the third the 37 classes. By hand: a GRU of size `u` that reads vectors of `n` numbers has
# three gates, each with `n*u` weights for what it reads, `u*u` for what it remembers, and two
# biases for each of its `u` cells.

# %% tags=["active-ipynb"]
# def gru_parameters(n, u):
#     return 2 * 3 * (n * u + u * u + 2 * u)  # two directions, three gates
#
#
# blocks = sum(layer.count_params() for layer in full.layers if layer.name.startswith("block"))
# grus, dense = gru_parameters(512, 128) + gru_parameters(256, 128), 256 * 37 + 37
# print(f"{blocks:,} in the blocks + {grus:,} + {dense:,} = {blocks + grus + dense:,}")
# assert blocks + grus + dense == full.count_params()

# %% [markdown]
# Three quarters are in the blocks: whatever this network can do, it sees with the same eyes as the
# first one. The diagram:

# %% tags=["active-ipynb"]
# from IPython.display import Image
#
# from notebooks_py.ch1_captcha_preview import draw_captchas, fresh_folder, random_texts, stream
# from notebooks_py.ch2_cnn import diagram
#
# FOLDER = fresh_folder("ch3_ctc")
# print(f"{len(full.layers)} layers from {full.layers[0].name} to {full.output_names[0]}")
# Image(filename=diagram(full, FOLDER))

# %% [markdown]
# Five columns of convolutions as in lesson 2, and below the last one the way from picture to
# sequence.
#
# The original used a layer of its own, `CuDNNGRU`, which ran on NVIDIA GPUs only. Today it is the
# same `GRU`: on a GPU, TensorFlow takes NVIDIA's fast version by itself if the layer's settings are
# the ones which that version knows, and on a CPU the plain one.

# %% tags=["active-ipynb"]
# gru = full.get_layer("gru1").forward_layer
# print("activation:", gru.activation.__name__, "and", gru.recurrent_activation.__name__)
# print("reset_after:", gru.reset_after, " recurrent dropout:", gru.recurrent_dropout)
# assert (gru.activation.__name__, gru.recurrent_activation.__name__) == ("tanh", "sigmoid")
# assert gru.reset_after and gru.use_bias and not gru.unroll and not gru.recurrent_dropout

# %% [markdown]
# ## What can the GRU add?
#
# The original explains its recurrent layers with language: in "I ate a very tasty apple", we guess
# a smudged "ate" from the words around it. That is true of sentences, but not of captchas. Their
# texts are *random*: whoever knows three of the four characters knows nothing about the fourth.
# From one character to the next there is nothing to guess.
#
# What neighbours *can* tell is about the picture. A letter is wider than a column of 8 pixels, and
# it overlaps its neighbours. Columns have to agree which of them names a letter while the others
# stay blank, or a letter would be read twice. And two equal letters in a row need a blank between
# them. For all that it may help to know what the columns left and right have seen. Convolutions
# know their surroundings already, though, so whether a GRU pays is a question for a measurement,
# and below there is one.
#
# ## From logits to text, in three ways
#
# **Greedy**: take the most likely answer of each column, then collapse. That is the most likely
# *path*. But a text has many paths, and several unlikely ones may together beat it. **Beam search**
# follows the best hundred texts from column to column and adds up the paths of each, so it looks
# for the most likely *text*. Neither knows that our captchas have four characters. **Exact** does:
# it finds the most likely path *that collapses to exactly four*.
#
# For that we walk from left to right and remember, for every number of characters so far and every
# last answer, the best path that ends there. A new answer either repeats the last one, or is blank
# (the count stays), or is another character (the count grows by one).

# %%
def advance(score: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move the best paths on by one step.

    Args:
        score: log-probability of the best path, (n, characters so far, last answer).
        step: log-probabilities of the answers of this step, (n, classes).

    Returns:
        The score after this step, and the answer before it on each best path, both of that shape.
    """
    classes = score.shape[2]
    ways = np.full((*score.shape, classes), -np.inf)  # (n, characters now, last answer, answer)
    ways[:, 1:, :, 1:] = score[:, :-1, :, None]  # another character: one more
    ways[:, :, :, BLANK] = score  # a blank
    ways[:, :, range(classes), range(classes)] = score  # the same answer again
    return ways.max(axis=2) + step[:, None, :], ways.argmax(axis=2)


# %% [markdown]
# At the end we take the best path with four characters and follow it back.

# %%
def best_paths(logits: np.ndarray, length: int = LENGTH) -> np.ndarray:
    """Return the most likely path, int (n, steps), among those that collapse to `length` labels.

    `logits` are (n, steps, classes). Raises a ValueError if there is no such path.
    """
    logs = ops.convert_to_numpy(ops.log_softmax(logits)).astype(float)
    n, steps, classes = logs.shape
    score = np.full((n, length + 1, classes), -np.inf)
    score[:, 0, BLANK] = logs[:, 0, BLANK]
    score[:, 1:2, 1:] = logs[:, :1, 1:]
    before = []
    for step in range(1, steps):
        score, back = advance(score, logs[:, step])
        before.append(back)
    if np.isneginf(score[:, length].max(axis=-1)).any():
        raise ValueError(f"no path of {steps} steps has {length} characters: use more steps")
    rows, count = np.arange(n), np.full(n, length)
    path = [score[:, length].argmax(axis=-1)]
    for back in reversed(before):
        last = back[rows, count, path[-1]]
        count = count - ((path[-1] != last) & (path[-1] != BLANK))
        path.append(last)
    return np.stack(path[::-1], axis=1)


# %% [markdown]
# All three behind one name. Logits that don't fit the alphabet are refused, and so are those that
# are no numbers: the largest of 37 NaN would be class 0, and the answer a silent blank.

# %%
STRATEGIES = ("greedy", "beam", "exact")


def check_logits(logits: np.ndarray, classes: int) -> None:
    """Raise a ValueError unless `logits` are finite numbers of shape (n, steps, classes)."""
    if logits.ndim != 3 or logits.shape[2] != classes:
        raise ValueError(
            f"logits have shape {logits.shape}, expected (n, steps, {classes}): one class for each "
            "character and one for the blank; give a single picture's logits as logits[None]"
        )
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinite numbers: the weights or the pictures do, too")


# %% [markdown]
# Now the decoding itself.

# %%
def decode_ctc(
    logits: np.ndarray, strategy: str = "greedy", alphabet: str = ALPHABET, length: int = LENGTH
) -> list[str]:
    """Turn logits (n, steps, len(alphabet) + 1) into n texts.

    "greedy" collapses the most likely path, "beam" looks for the most likely text with a beam of
    100, and "exact" collapses the most likely path that has exactly `length` characters.

    Raises:
        ValueError: another strategy, or as `check_logits` and `best_paths`.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r}: allowed are {', '.join(STRATEGIES)}")
    logits = np.asarray(logits)
    check_logits(logits, len(alphabet) + 1)
    if strategy == "beam":
        steps = np.full(len(logits), logits.shape[1], dtype="int32")
        decoded, _ = ops.ctc_decode(logits, steps, strategy="beam_search", mask_index=BLANK)
        labels = [row[row > 0] for row in ops.convert_to_numpy(decoded)[0]]  # padded with -1
    else:
        paths = logits.argmax(axis=-1) if strategy == "greedy" else best_paths(logits, length)
        labels = [collapse(path) for path in paths]
    return [spell(label, alphabet) for label in labels]


# %% [markdown]
# One prediction, three columns over the alphabet `AB`, and three different answers:

# %% tags=["active-ipynb"]
# columns = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.6, 0.1, 0.3]])  # blank, A, B
# log = np.log(columns)[None]
# for strategy in STRATEGIES:
#     text = decode_ctc(log, strategy, "AB", length=2)[0]
#     likely = math.exp(-loss_by_hand(log[0], encode([text], "AB", len(text))[0] + 1))
#     print(f"{strategy}: {text!r}, as a text it has probability {likely:.3f}")
# print(f"best path with two characters: {spell(best_paths(log, 2)[0], 'AB')}, {0.6 * 0.4 * 0.3:.3f}")
# assert [decode_ctc(log, s, "AB", 2)[0] for s in STRATEGIES] == ["", "A", "AB"]

# %% [markdown]
# In each column the blank is most likely, so greedy reads nothing: its path has probability 0.6 x
# 0.5 x 0.6 = 0.18, and no other path says the empty text. But six paths say `A`, and together they
# are twice as likely: that is what beam search finds. If we *know* that there are two characters,
# both are wrong, and exact gives the best path among those that are left.
#
# Where greedy reads the right number of characters, exact gives the same text: the best path of all
# is then the best of its kind, too.
#
# ## What counts as right?
#
# For us, a captcha is right if the whole text is. The original cut predictions to four characters
# before it compared them, so that a prediction of five characters could count. Here is what that
# does to a reader who adds a character to every second text.

# %% tags=["active-ipynb"]
# truths = random_texts(stream(SEED, "metric", 0, 0), 1_000)
# answers = [text + "X" * (number % 2) for number, text in enumerate(truths)]
# whole = np.mean([answer == text for answer, text in zip(answers, truths, strict=True)])
# cut = np.mean([answer[:4] == text for answer, text in zip(answers, truths, strict=True)])
# print(f"whole text (ours): {whole:.0%} right; cut to four (the original's): {cut:.0%} right")
# assert (whole, cut) == (0.5, 1.0)

# %% [markdown]
# A door with a captcha would stay shut every second time, so we count whole texts, here and in all
# lessons.
#
# ## Reading and watching
#
# A reader as `evaluate` of lesson 2 wants it: bytes in, texts out.

# %%
def read_ctc(
    model: keras.Model,
    pictures: np.ndarray,
    strategy: str = "greedy",
    alphabet: str = ALPHABET,
    length: int = LENGTH,
) -> list[str]:
    """Read uint8 pictures (n, height, width, 3) as n texts with a model of `build_ctc`.

    Raises:
        ValueError: as `to_input` and `decode_ctc`.
    """
    height, width = model.input_shape[1:3]
    logits = model.predict_on_batch(to_input(pictures, width, height))
    return decode_ctc(logits, strategy, alphabet, length)


# %% [markdown]
# Keras can't count whole texts while it trains, so a callback does it at the end of each epoch. It
# writes `val_acc` into the epoch's results, where all callbacks *after* it in the list find it:
# early stopping, checkpoints, the log. Before the first epoch it makes sure that data and network
# belong together; that error would otherwise be an infinite loss.

# %%
def check_data(model: keras.Model, data: CaptchaSequence) -> None:
    """Raise a ValueError unless a CTC `model` can learn every text that `data` may draw."""
    _, steps, classes = model.output_shape
    if data.labels != "ctc":
        raise ValueError(f"labels={data.labels!r}: use CaptchaSequence(..., labels='ctc')")
    if len(data.alphabet) + 1 != classes:
        raise ValueError(
            f"{len(data.alphabet)} characters and the blank need {len(data.alphabet) + 1} logits, "
            f"the model has {classes}: build it with classes={len(data.alphabet)}"
        )
    worst = data.alphabet[0] * data.length
    if steps_needed(worst) > steps:
        raise ValueError(
            f"texts like {worst!r} need {steps_needed(worst)} steps, the model has {steps}: "
            "use wider pictures, fewer poolings or shorter texts"
        )


# %% [markdown]
# And the callback.

# %%
class ReadingAccuracy(keras.callbacks.Callback):
    """Adds `val_acc`, the share of `valid` that is read right as a whole, to each epoch's logs.

    It must stand before the callbacks that are to see it. The pictures are drawn once and kept.
    Raises a ValueError when training begins with data that `check_data` refuses.
    """

    def __init__(self, valid: CaptchaSequence, strategy: str = "greedy"):
        super().__init__()
        self.valid, self.strategy, self.batches = valid, strategy, []

    def on_train_begin(self, logs: dict | None = None) -> None:
        check_data(self.model, self.valid)
        if not self.batches:
            self.batches = [self.valid.draw(index) for index in range(len(self.valid))]

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        how = self.strategy, self.valid.alphabet, self.valid.length
        right = [
            answer == text
            for pictures, texts in self.batches
            for answer, text in zip(read_ctc(self.model, pictures, *how), texts, strict=True)
        ]
        logs["val_acc"] = float(np.mean(right))


# %% [markdown]
# The optimiser is that of lesson 2, with the new loss.

# %%
def compile_ctc(model: keras.Model, learning_rate: float) -> None:
    """Compile a network with CTC logits: Adam with AMSGrad and the checked CTC loss."""
    model.compile(keras.optimizers.Adam(learning_rate, amsgrad=True), loss=ctc_loss)


# %% [markdown]
# ## The plateau
#
# Training with CTC has a well-known stumbling block. At first the network answers "blank" in every
# column, and it can stay there for a long time. Why blank, of all answers? Imagine a reader who
# can't see: it must give every column the same probabilities, `b` for the blank and the rest shared
# by the 36 characters. Which `b` is best? A path with `k` columns that are not blank has a fixed
# probability, and counting these paths is a matter of placing `k` columns in four groups, and the
# blanks in the five gaps around them.

# %%
def blind_loss(
    blank: float, steps: int = 16, length: int = LENGTH, classes: int = len(ALPHABET)
) -> float:
    """Return the CTC loss, for a text without equal neighbours, of the same guess at each step.

    The guess gives the blank the probability `blank`, and each of `classes` characters an equal
    share of the rest.
    """
    share = (1 - blank) / classes
    total = sum(
        math.comb(k - 1, length - 1)  # k steps in `length` groups
        * math.comb(steps - k + length, length)  # the other steps in the gaps around the groups
        * blank ** (steps - k)
        * share**k
        for k in range(length, steps + 1)
    )
    return -math.log(total)


# %% [markdown]
# We check the formula against the sum by hand, on a toy, and look for the best `b`.

# %% tags=["active-ipynb"]
# toy = np.tile(np.log([0.4, 0.3, 0.3]), (6, 1))
# assert abs(blind_loss(0.4, steps=6, length=3, classes=2) - loss_by_hand(toy, [1, 2, 1])) < 1e-9
# best = min(np.arange(0.01, 1, 0.01), key=blind_loss)
# print(f"best blank: {best:.0%}, each character {(1 - best) / 36:.1%}")
# print(f"loss of the best blind guess: {blind_loss(best):.2f}")
# print(f"four blind guesses in four columns agreed on: {LENGTH * math.log(len(ALPHABET)):.2f}")

# %% [markdown]
# The best blind guess is blank with 75 %, a hundred times as much as any character, so its texts
# are all empty. From there a network must first settle *in which columns* it speaks up (which takes
# the loss from 15.8 to 14.3), and then find out *what* to say. As long as it answers blank
# everywhere, every alignment gets a small share of the blame, and it learns little from each
# picture.
#
# To see this happen, a callback reads some held-out pictures every few batches, and notes the loss
# and how many columns answer blank.

# %%
class Watch(keras.callbacks.Callback):
    """Notes (batches, loss, share of blank columns) on fixed pictures every `every` batches."""

    def __init__(self, X: np.ndarray, labels: np.ndarray, every: int):
        super().__init__()
        self.X, self.labels, self.every, self.batches, self.notes = X, labels, every, 0, []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.batches += 1
        if self.batches == 1 or self.batches % self.every == 0:
            logits = self.model.predict_on_batch(self.X)
            loss = ops.convert_to_numpy(ctc_loss(self.labels, logits)).mean()
            blank = np.mean(logits.argmax(axis=-1) == BLANK)
            self.notes.append((self.batches, float(loss), float(blank)))


# %% [markdown]
# ## Watch it learn
#
# As in lesson 2, we train a slim network: the first convolution takes every second pixel
# (`stride=2`), there are four blocks of one convolution with few filters, and no GRU at all. Still
# 16 columns remain, and each answers for itself, from the 49 pixels around it that its convolutions
# see: a letter and some of its neighbours.
#
# The original's recipe has two stages, 1e-3 and 1e-4, with batches of 128. Ours has two as well,
# but for a short run we take smaller batches and twice the rate: more and larger steps from the
# same number of pictures.

# %% tags=["active-ipynb"]
# keras.utils.set_random_seed(SEED)
# model = build_ctc(filters=(16, 32, 64, 128), convs=1, stride=2, rnn=(), momentum=0.9)
# data = CaptchaSequence(batch_size=16, steps=STEPS, seed=SEED, labels="ctc", workers=4)
# valid = CaptchaSequence(batch_size=128, steps=2, seed=SEED, split="valid", labels="ctc")
# X, labels = valid[0]
# print(f"slim: {model.count_params():,} parameters instead of {full.count_params():,}")
# print(f"X: {X.shape} {X.dtype}, labels: {labels.shape} {labels.dtype}, first {labels[0].tolist()}")
# assert model.output_shape == full.output_shape

# %% [markdown]
# The data set gives whole numbers from 1 to 36 this time. Now the training: everything that makes
# it safe against interruptions comes from lesson 2, and our two callbacks are added in front.

# %% tags=["active-ipynb"]
# from notebooks_py.ch2_cnn import train_in_stages
#
# watch = Watch(X[:32], labels[:32], every=20)
# stages = [(2e-3, EPOCHS), (2e-4, 1)]
# history = train_in_stages(
#     model, compile_ctc, data, valid, FOLDER, stages, callbacks=[watch, ReadingAccuracy(valid)]
# )
# print(f"{len(history)} epochs of {STEPS} batches, {len(history) * STEPS * 16:,} pictures")
# print("learning rates:", history.learning_rate.tolist())
# assert "val_acc" in history.columns

# %% [markdown]
# What did `watch` see?

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# batches, losses, blanks = np.array(watch.notes).T
# figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
# top.plot(batches, losses, label="held-out pictures")
# blind, agreed = blind_loss(best), LENGTH * math.log(len(ALPHABET))
# top.axhline(blind, color="crimson", ls=":", label=f"best blind guess: {blind:.1f}")
# top.axhline(agreed, color="gray", ls="--", label=f"columns agreed on, guessing: {agreed:.1f}")
# top.set(title="Down to a plateau, along it, and off", ylabel="CTC loss (nats)", ylim=(0, 30))
# top.legend()
# bottom.plot(batches, 100 * blanks, color="tab:orange")
# bottom.axhline(75, color="gray", ls=":", label="12 of 16 columns")
# bottom.set(title="Columns that answer blank", xlabel="batches", ylabel="%", ylim=(0, 105))
# bottom.legend()
# plt.show()
# print("all losses are finite:", bool(np.isfinite(losses).all()))
# print("the last loss is below the best blind guess:", bool(losses[-1] < blind))

# %% [markdown]
# The first steps are a fall: the network learns at once that blank is the best answer of all, and
# nearly all columns give it. Then comes the plateau, between the two horizontal lines: a few
# columns begin to speak up, but they can hardly tell one character from another. At last the loss
# leaves the plateau: now that answers stand where the characters are, every picture teaches
# something, and the lower curve comes to rest where four of 16 columns speak.
#
# What gets a network past the plateau? More steps, and larger ones: at first CTC tells it little,
# so what counts is how far the weights move, not how many pictures each step sees. And what does a
# GRU add? We tried three ways to train this network, each with two seeds and on equally many
# pictures, and then had a thousand others read (`make plateau`).

# %% tags=["active-ipynb"]
# from notebooks_py.ch2_cnn import measured
#
# runs = measured("plateau")["runs"]
# for name in dict.fromkeys(run["trial"] for run in runs):
#     these = [run for run in runs if run["trial"] == name]
#     losses = ", ".join(f"{run['loss']:.1f}" for run in these)
#     right = ", ".join(str(run["right"]) for run in these)
#     print(f"{name}: {these[0]['steps']} steps; losses {losses}; right {right}")

# %% [markdown]
# Few steps with large batches ended on the plateau, between the two lines of the picture above. Many
# small ones left it, with both seeds. And the GRU? It was ahead with one seed, and had hardly begun to
# read with the other: one more thing to learn, and in a run this short, luck decides when. One run of
# each would have told us either story. (Longer runs are lesson 4's.)
#
# ## The log
#
# The same by epoch, with the share of whole texts from the callback.

# %% tags=["active-ipynb"]
# figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
# left.plot(history.epoch + 1, history.loss, "o-", label="training pictures")
# left.plot(history.epoch + 1, history.val_loss, "s-", label="held-out pictures")
# left.set(title="Loss", xlabel="epoch", ylabel="CTC loss (nats)", xticks=history.epoch + 1)
# left.legend()
# right.plot(history.epoch + 1, 100 * history.val_acc, "s-", color="tab:green")
# right.set(title="Whole texts", xlabel="epoch", ylabel="right, held-out pictures (%)")
# right.set(xticks=history.epoch + 1, ylim=(0, None))
# plt.show()
# shares = history.val_acc.between(0, 1)
# print("val_acc in the log, a share in every epoch:", bool(shares.all()))

# %% [markdown]
# The loss begins to fall long before the first whole text is right: four characters at once are
# hard. The last point belongs to the second stage, with a tenth of the learning rate: smaller steps
# get closer to the best weights nearby.
#
# An interrupted training goes on with `resume=True`, as in lesson 2. Here all is done, so it loads
# the best weights.

# %% tags=["active-ipynb"]
# again = train_in_stages(model, compile_ctc, data, valid, FOLDER, stages, resume=True)
# print("nothing lost, nothing trained twice:", again.equals(history))
# assert again.equals(history)

# %% [markdown]
# ## Sixteen answers under the picture
#
# Now we look at single predictions: under each column what the network answers there.

# %%
def show_readings(
    figure: Figure, pictures: np.ndarray, texts: Sequence[str], paths: np.ndarray
) -> None:
    """Show pictures (n, height, width, 3) with the answer of each column written below them.

    `paths` has the class of each column, (n, columns); blanks are gray.
    """
    show_answers(figure, pictures, texts, [spell(collapse(path)) for path in paths])
    height, width = pictures.shape[1:3]
    for axes, path in zip(figure.axes, paths, strict=False):
        for place, answer in enumerate(path):
            x = (place + 0.5) * width / len(path)
            color = "lightgray" if answer == BLANK else "black"
            axes.text(x, height + 8, spell([answer]), ha="center", va="center", color=color)

# %% [markdown]
# Six fresh captchas:

# %% tags=["active-ipynb"]
# rng = stream(SEED, "show", epoch=0, index=0)
# texts = random_texts(rng, 6)
# pictures = draw_captchas(texts, rng)
# logits = model.predict_on_batch(to_input(pictures))
# paths = logits.argmax(axis=-1)
# figure = plt.figure(figsize=(10, 5.2), layout="constrained")
# show_readings(figure, pictures, texts, paths)
# figure.suptitle("Six captchas, and the most likely answer of each of the 16 columns")
# plt.show()
# print("truth:", " ".join(texts), " answers for each:", paths.shape[1])
# assert [spell(collapse(path)) for path in paths] == read_ctc(model, pictures)

# %% [markdown]
# Black answers are characters, gray ones blanks. Compare truth and prediction letter by letter:
# wrong characters often look like the right ones, such as `O` for `D` or `V` for `U`. A letter that
# is answered by two columns in a row counts once, and a blank or two stand between letters.
#
# And now look at *where* the answers stand: under their letters. Nobody told the network where a
# letter is. It found out, because each column sees only what is around it. CTC itself asks for the
# right order and says nothing about places; a network with a GRU, which carries what it has seen
# along the whole row, may answer anywhere.
#
# ## How good is it, really?
#
# The test set of lesson 2, in our way of counting. We keep the logits, so that we can decode the
# same predictions in other ways afterwards.

# %% tags=["active-ipynb"]
# from notebooks_py.ch2_cnn import evaluate, wilson
#
# kept = []
#
#
# def read_and_keep(pictures):
#     kept.append(model.predict_on_batch(to_input(pictures)))
#     return decode_ctc(kept[-1])
#
#
# score = evaluate(read_and_keep)
# low, high = wilson(score.right, score.n)
# by_position = np.array(score.right_by_position) / score.n
# figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
# axes.bar(range(1, LENGTH + 1), 100 * by_position, label="this network")
# axes.axhline(100 / len(ALPHABET), color="gray", ls=":", label="blind guessing")
# axes.set(xlabel="position", ylabel="right characters (%)", xticks=range(1, 5), ylim=(0, 100))
# axes.set_title(f"{score.right / score.n:.1%} right ({low:.1%} to {high:.1%}, n = {score.n:,})")
# axes.legend()
# plt.show()
# print("more than one captcha in ten is entirely right:", score.right / score.n > 0.1)

# %% [markdown]
# The title counts whole captchas, the bars single characters. That is real reading, after a minute
# or two of training. The bars fall from left to right because a character too many, or one too few,
# moves all the later ones out of their places.
#
# The first 300 of these predictions, decoded and counted in other ways:

# %% tags=["active-ipynb"]
# from notebooks_py.ch2_cnn import draw_test_set
#
# first = list(itertools.islice(draw_test_set("classic-1k"), 3))
# truths = [text for _, texts in first for text in texts]
# answers = {name: decode_ctc(np.concatenate(kept[:3]), name) for name in STRATEGIES}
# answers["greedy, cut to four"] = [answer[:4] for answer in answers["greedy"]]
# shares = {
#     name: np.mean([a == b for a, b in zip(found, truths, strict=True)])
#     for name, found in answers.items()
# }
# figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
# bars = axes.barh(list(shares), [100 * share for share in shares.values()])
# axes.bar_label(bars, fmt="%.1f %%", padding=3)
# axes.set(title=f"The same predictions, {len(truths)} captchas", xlabel="right (%)")
# axes.margins(x=0.2)
# axes.invert_yaxis()
# plt.show()
# four = [(g, e) for g, e in zip(answers["greedy"], answers["exact"], strict=True) if len(g) == 4]
# print("exact always has four characters:", {len(text) for text in answers["exact"]} == {4})
# print("exact equals greedy wherever greedy has four:", all(g == e for g, e in four))

# %% [markdown]
# The first bar is our measure. Beam search gains a little, and exact much more in our run: it
# repairs texts of another length, and a beginner has many of those. Cutting to four can only add,
# namely texts that are too long. We keep greedy, which is simple and quick and says what the
# network says by itself, and our strict way of counting.
#
# ## With more patience
#
# What does the same idea read after hours instead of minutes? The finished weights of this
# repository come from lesson 4, which trains a slim network like the one above (a little wider, two
# convolutions a block) on hundreds of thousands of captchas. The same six captchas:

# %% tags=["active-ipynb"]
# from notebooks_py.ch2_cnn import as_told, finished
#
# network, results = finished("ctc")
# paths = network.predict_on_batch(to_input(pictures)).argmax(axis=-1)
# figure = plt.figure(figsize=(10, 5.2), layout="constrained")
# show_readings(figure, pictures, texts, paths)
# figure.suptitle(f"The same captchas, after {results['pictures']:,} captchas of training")
# plt.show()
# print("read: ", " ".join(spell(collapse(path)) for path in paths))

# %% [markdown]
# The columns are surer of themselves: letters have their place, and blanks stand between them.
#
# How often is it right? The test set again, and what the results file says.

# %% tags=["active-ipynb"]
# score = evaluate(lambda pictures: read_ctc(network, pictures))
# print(as_told(score, results))

# %% [markdown]
# `make evaluate MODEL=ctc SET=classic-10k` counts any of them again. The set `modern-10k`, drawn by
# captcha 0.7.1, is read more easily, though the network has never seen such captchas: their letters
# are warped less. Lesson 6 takes the errors apart.
#
# ---
#
# ## What you learned
#
# - CTC asks every column the same question and counts all alignments of the right text as right, so
#   nobody has to say where the characters are.
# - A text needs as many steps as it has characters, and one more for each pair of equal neighbours.
# - Greedy, beam search and decoding to exactly four characters are three answers to three
#   questions: the best path, the best text, the best path of a known length.
# - On the plateau all columns answer blank, because that is the best guess of a reader who can't
#   see.
#
# ## On your own
#
# 1. Build the network for pictures of 192x64 pixels. How many steps has it, and how many equal
#    characters can it read at most? *Expected: 24 steps, so up to 12: 12 characters and 11 blanks.*
# 2. Train the slim network with the original's batches of 128 at 1e-3, on as many pictures as here.
#    *Expected: it ends on the plateau, and reads nothing.*
# 3. Train it with a GRU, `rnn=(128,)`, and look at the sixteen answers again. *Expected: its
#    answers need not stand under their letters any more: a GRU can carry what it has seen along the
#    whole row.*
#
# ## Further reading
#
# - [Sequence modeling with CTC](https://distill.pub/2017/ctc/): the best explanation of CTC that
#   there is, with the forward algorithm in pictures and a chapter on decoding.
# - [Connectionist temporal classification](https://www.cs.toronto.edu/~graves/icml_2006.pdf),
#   Graves and others, 2006: the paper; its sections 3 and 4 are what we did by hand.
# - [keras.losses.CTC](https://keras.io/api/losses/probabilistic_losses/#ctc-class) and
#   [tf.nn.ctc_loss](https://www.tensorflow.org/api_docs/python/tf/nn/ctc_loss): what they expect.
# - [Keras' OCR example](https://keras.io/examples/vision/captcha_ocr/): a complete CTC model for
#   another kind of captcha.
