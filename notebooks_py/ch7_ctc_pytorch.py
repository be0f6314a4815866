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
# # Write the CTC model again in PyTorch
#
# ## What you'll do
#
# - feed the captchas of lesson 1 to a PyTorch `DataLoader`, and check that the number of workers
#   changes nothing
# - build the network of the original's PyTorch notebook: convolutions, a bidirectional LSTM, CTC
# - write the training loop by hand, stop it in the middle, and continue to the same last bit
#
# ## What you'll learn
#
# - what `fit` did for you, and what it takes to do it yourself
# - where PyTorch and Keras differ without saying so: axes, blanks, means, momentum, modes
# - what has to be in a checkpoint so that a resumed run is the *same* run
#
# ## What you'll need
#
# - PyTorch: `make setup-torch` adds it to the environment
# - [Lesson 1](ch1_captcha_preview.ipynb) and [lesson 2](ch2_cnn.ipynb); what CTC is, and why it has
#   a blank, is the subject of [lesson 3](ch3_ctc.ipynb)
#
# ---

# %%
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from notebooks_py.ch1_captcha_preview import (
    ALPHABET,
    HEIGHT,
    CaptchaSequence,
    decode,
    encode,
    to_input,
)
from notebooks_py.ch2_cnn import STAGES, WIDE_WIDTH, open_run, read_log, replace_text, waited


# %% [markdown]
# Nothing of Keras is used here but what lessons 1 and 2 bring along: the captchas, the log and the
# test sets. The line about `OMP_WAIT_POLICY` has to come before PyTorch is imported. PyTorch
# computes with one thread for each core, and while one waits for the others it keeps its core busy
# doing nothing. With `passive` it sleeps, and leaves the core to those who draw; on a busy computer
# that makes training many times faster.
#
# One seed decides everything again.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures, the first weights and the dropout
# STEPS = 100  # batches in an epoch
# EPOCHS = 4  # epochs at the first learning rate; one more follows at a tenth of it

# %% [markdown]
# ## Pictures, channels first
#
# The original's PyTorch notebook reads pictures of 192x64 pixels, half as wide again as those of
# the other lessons, and gets 99.57 % of them right, its best result. We do the same.
#
# A picture in Keras has the shape (height, width, 3). PyTorch wants the channels first: (3, height,
# width). `permute` only renames the axes and moves no byte, so what is "channels first" to us still
# lies in memory channels last, which PyTorch's convolutions happen to like.

# %%
def channels_first(pictures: np.ndarray) -> torch.Tensor:
    """Turn an array (n, height, width, 3) into a tensor (n, 3, height, width) of the same bytes."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def to_floats(pictures: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move uint8 pictures to `device`, and only there turn them into float32 in [0, 1]."""
    return pictures.to(device, non_blocking=True).float() / 255


# %% [markdown]
# Bytes travel, floats don't: a batch crosses from a worker process to the trainer, and from there
# perhaps to a GPU, at a quarter of the size.
#
# ## A `Dataset` that goes by name
#
# For PyTorch a data set is anything with a length and square brackets. In most projects an item is
# one example, and the `DataLoader` shuffles and stacks them. Ours is a whole batch, because in
# lesson 1 it is a *batch* that has a name, the pair (epoch, index), and the name decides the batch.
# We ask for it in just that form.

# %%
class CaptchaBatches(Dataset):
    """Endless captchas: item (epoch, index) is one whole batch, and this name decides it.

    A batch is uint8 pictures (batch_size, 3, height, width) and int64 labels (batch_size, length)
    with values 1..len(alphabet). The arguments are those of `CaptchaSequence`, and so are its
    errors; an index outside 0..steps-1 is an IndexError.
    """

    def __init__(
        self,
        batch_size: int,
        steps: int,
        seed: int,
        *,
        split: str = "train",
        width: int = WIDE_WIDTH,
        **sizes,
    ):
        self.source = CaptchaSequence(
            batch_size, steps, seed, split=split, labels="ctc", width=width, **sizes
        )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, name: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        self.source.epoch, index = name
        pictures, texts = self.source.draw(index)
        labels = encode(texts, self.source.alphabet, self.source.length) + 1
        return channels_first(pictures), torch.from_numpy(labels).long()


# %% [markdown]
# A first batch. Matplotlib wants the channels last again, so we turn them back.

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# data = CaptchaBatches(batch_size=16, steps=STEPS, seed=SEED)
# pictures, labels = data[0, 0]
# figure, row = plt.subplots(1, 4, figsize=(10, 1.4), layout="constrained")
# for axes, picture, text in zip(row, pictures, decode(labels[:4] - 1), strict=False):
#     axes.imshow(picture.permute(1, 2, 0))
#     axes.set_title(text, family="monospace")
#     axes.axis("off")
# figure.suptitle("The first four of a batch, 192x64 pixels")
# plt.show()
# print(f"pictures {tuple(pictures.shape)} {pictures.dtype}, labels {tuple(labels.shape)}")
# print("labels of the first:", labels[0].tolist(), "so 0 is free for the blank")

# %% [markdown]
# There is more room than in 128 pixels, and the letters are rarely squeezed: an easier task.
# Results on these pictures and on those of the other lessons must not be compared digit by digit.
#
# ## A `DataLoader` that asks for names
#
# The `DataLoader` spreads work over processes. *What* it asks for comes from a sampler. Ours hands
# out the names of one epoch, in order; `set_epoch` moves on, which is also what PyTorch's own
# sampler for several GPUs calls it.

# %%
class EpochNames(Sampler):
    """Hands out (epoch, 0), (epoch, 1), ... for one epoch of `steps` batches."""

    def __init__(self, steps: int):
        self.steps, self.epoch = steps, 0

    def set_epoch(self, epoch: int) -> None:
        """Move on to the batches of another epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in range(self.steps))


# %% [markdown]
# The name travels with the request, so a worker needs to know nothing but the name. In lesson 1 the
# number of the epoch was stored in the data set. With worker *processes* that live on from epoch to
# epoch (`persistent_workers`), each would keep its own old copy of that number, and the network
# would see the same pictures in every epoch, without any error: a classic PyTorch bug.

# %%
def make_loader(data: CaptchaBatches, workers: int = 0) -> DataLoader:
    """Return a loader of the batches of `data`, in order; `loader.sampler.set_epoch` moves on.

    `workers` processes draw in the background, no more than there are cores; with 0 the program
    itself draws. The batches are the same.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    workers = min(workers, cores)
    return DataLoader(
        data,
        batch_size=None,  # an item is a batch already
        sampler=EpochNames(len(data)),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else every epoch takes a number from the global generator
    )


# %% [markdown]
# The comment on the last line is a trap. A loader draws a seed for its workers at the start of each
# epoch. If it took that from PyTorch's global generator, a change in how we *load* would change the
# dropout in the network. So it gets a generator of its own.
#
# Are the batches the same, whoever draws them?

# %% tags=["active-ipynb"]
# from notebooks_py.ch1_captcha_preview import fingerprint
#
# few = CaptchaBatches(batch_size=8, steps=4, seed=SEED)
# hashes = {}
# for workers in (0, 2):
#     loader = make_loader(few, workers)
#     for epoch in (0, 1):
#         loader.sampler.set_epoch(epoch)
#         hashes[workers, epoch] = [fingerprint(x.numpy(), y.numpy()) for x, y in loader]
# print("0 and 2 workers, same batches:", all(hashes[0, e] == hashes[2, e] for e in (0, 1)))
# print("different batches in two epochs:", len({*hashes[0, 0], *hashes[0, 1]}))
# assert hashes[0, 0] == hashes[2, 0] and hashes[0, 1] == hashes[2, 1]
# assert not {*hashes[0, 0]} & {*hashes[0, 1]}

# %% [markdown]
# ## The network
#
# The convolutions are those of lesson 2, with three changes that the original makes. The last block
# pools only down, not across, so the last feature map is 2 high and 12 wide: twelve columns, from
# left to right. A quarter of its features are dropped at random while training. And the 12 columns
# are read by two layers of a bidirectional LSTM instead of by four heads.

# %%
def conv_block(
    inputs: int, filters: int, convs: int, stride: int, pool: tuple[int, int]
) -> nn.Sequential:
    """`convs` times 3x3 convolution, batch norm and ReLU, the first with `stride`, then pooling."""
    parts = []
    for i in range(convs):
        channels, step = (filters, 1) if i else (inputs, stride)
        parts.append(nn.Conv2d(channels, filters, 3, step, padding=1))
        parts += [nn.BatchNorm2d(filters), nn.ReLU()]
    return nn.Sequential(*parts, nn.MaxPool2d(pool))


def all_blocks(filters: Sequence[int], convs: int, stride: int) -> nn.Sequential:
    """One block for each number of filters: the first takes `stride`, the last pools only down."""
    last = len(filters) - 1
    blocks = []
    for i, (inputs, count) in enumerate(zip((3, *filters), filters, strict=False)):
        pool = (2, 1) if i == last else (2, 2)
        blocks.append(conv_block(inputs, count, convs, 1 if i else stride, pool))
    return nn.Sequential(*blocks)


# %% [markdown]
# In Keras a layer finds out the size of its input by itself. In PyTorch we say it, so we compute
# the size of the last feature map first.

# %%
def last_map(width: int, height: int, blocks: int, stride: int = 1) -> tuple[int, int]:
    """Return columns and rows that `all_blocks` leaves of width x height pixels.

    Raises:
        ValueError: nothing is left.
    """
    columns, rows = width // stride // 2 ** (blocks - 1), height // stride // 2**blocks
    if not (columns and rows):
        raise ValueError(
            f"{width}x{height} pixels are too few for stride {stride}, {blocks} blocks: "
            "use larger pictures, or fewer filters="
        )
    return columns, rows


# %% [markdown]
# `__init__` makes the layers and `forward` connects them, in plain Python that runs anew for each
# batch.

# %%
class CTCNet(nn.Module):
    """Convolutions, a bidirectional LSTM over the columns, and scores for each column.

    The arguments' defaults are the original's. `steps` is the number of columns, T.

    Args:
        filters: filters of the convolutions, one number for each block.
        convs: convolutions in a block.
        stride: of the first convolution; 2 halves the picture before any other layer sees it.
        hidden, layers: size of the LSTM in each direction, and how many lie on top of each other.
        dropout: share of the features that is set to 0 in training.
        width, height: size of the pictures.
        classes: scores for each column, the blank (class 0) included.

    Raises:
        ValueError: the picture is too small to be halved by every block.
    """

    def __init__(
        self,
        filters: Sequence[int] = (32, 64, 128, 256, 256),
        convs: int = 2,
        stride: int = 1,
        hidden: int = 128,
        layers: int = 2,
        dropout: float = 0.25,
        width: int = WIDE_WIDTH,
        height: int = HEIGHT,
        classes: int = len(ALPHABET) + 1,
    ):
        super().__init__()
        self.width, self.height = width, height
        self.steps, rows = last_map(width, height, len(filters), stride)
        self.blocks = all_blocks(filters, convs, stride)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(rows * filters[-1], hidden, layers, bidirectional=True)
        self.scores = nn.Linear(2 * hidden, classes)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Turn float pictures (N, 3, height, width) into logits (T, N, classes)."""
        if pictures.shape[1:] != (3, self.height, self.width):
            raise ValueError(
                f"pictures have shape {tuple(pictures.shape)}, expected "
                f"(n, 3, {self.height}, {self.width}): put the channels first, or resize"
            )
        features = self.dropout(self.blocks(pictures))  # (N, C, rows, T)
        columns = features.flatten(1, 2).permute(2, 0, 1)  # (T, N, C * rows)
        return self.scores(self.lstm(columns)[0])


# %% [markdown]
# We build it in full size. `torch.manual_seed` makes the first weights ours.

# %% tags=["active-ipynb"]
# torch.manual_seed(SEED)
# full = CTCNet()
# features = full.blocks(torch.zeros(2, 3, HEIGHT, WIDE_WIDTH))
# logits = full(torch.zeros(2, 3, HEIGHT, WIDE_WIDTH))
# print("last feature map (N, C, rows, T):", tuple(features.shape))
# print("logits (T, N, classes):", tuple(logits.shape))
# print(f"parameters: {sum(p.numel() for p in full.parameters()):,}")
# assert features.shape == (2, 256, 2, 12) and logits.shape == (12, 2, 37)

# %% [markdown]
# The logits are laid out (T, N, classes): **time first**, then the captchas of the batch. That is
# how PyTorch's LSTM and its CTC loss like it; Keras puts the batch first everywhere. Mix the two
# up, and as long as the sizes happen to fit, nobody complains.
#
# The parameters, by hand once more. Two things differ from Keras. Batch normalisation has two
# *parameters* for each channel; the two running averages are *buffers* and do not count. And an
# LSTM, whose four gates each see the input and the previous state, has two vectors of biases where
# one would do, out of respect for NVIDIA's library.

# %% tags=["active-ipynb"]
# def lstm(inputs: int, hidden: int) -> int:
#     return 2 * 4 * (inputs * hidden + hidden * hidden + 2 * hidden)  # two directions, four gates
#
#
# channels = [3, 32, 32, 64, 64, 128, 128, 256, 256, 256, 256]
# convolutions = sum(9 * a * b + b for a, b in zip(channels, channels[1:], strict=False))
# counts = [convolutions, 2 * sum(channels[1:]), lstm(512, 128), lstm(256, 128), 256 * 37 + 37]
# print(" + ".join(f"{count:,}" for count in counts), "=", f"{sum(counts):,}")
# assert sum(counts) == sum(p.numel() for p in full.parameters())

# %% [markdown]
# ## The loss
#
# `F.ctc_loss` asks for more than Keras' does, and checks less:
#
# - **log-probabilities**, so `log_softmax` comes first; given bare logits it would compute nonsense
#   without a word;
# - the **blank**, class 0 by default, as in Keras;
# - two **lengths** for each captcha: how many columns to read, and how many labels to expect. Ours
#   are always all 12, and all 4;
# - a **reduction**. The default, `"mean"`, divides the loss of each captcha by the length of its
#   label first. We want the loss of a captcha as Keras counts it, so we add up and divide by N.
#
# If a label needs more columns than there are, no path leads to it and the loss is infinite. Two
# equal neighbours need a blank between them, so `AAAA` takes 7 columns. We would rather have an
# error.

# %%
def check_ctc(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise a ValueError unless CTC can read `labels` (N, length) off `logits` (T, N, classes)."""
    if logits.ndim != 3 or labels.ndim != 2 or logits.shape[1] != labels.shape[0]:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}, expected "
            "(T, N, classes) and (N, length): time comes first, then the N captchas"
        )
    steps, _, classes = logits.shape
    outside = labels[(labels < 1) | (labels >= classes)]
    if outside.numel():
        raise ValueError(
            f"label {outside[0]} is outside 1..{classes - 1}: 0 is the blank, so characters "
            "are counted from 1, and the network needs one class more than there are characters"
        )
    needed = labels.shape[1] + (labels[:, 1:] == labels[:, :-1]).sum(1)
    if (needed > steps).any():
        raise ValueError(
            f"the label {labels[needed.argmax()].tolist()} needs {needed.max()} columns, one for "
            f"each character and one between equal neighbours, but there are {steps}: "
            "use wider pictures, or pool less across"
        )


# %% [markdown]
# The check looks at the labels while they are still in main memory. Asking a GPU whether a number
# is too large would make the program wait for it.

# %%
def ctc_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean CTC loss of a batch in nats for each captcha, as `keras.losses.CTC` has it.

    Args:
        logits: (T, N, classes), any float type; the loss is computed in float32.
        labels: int64 (N, length) with values 1..classes-1, on the CPU.

    Raises:
        ValueError: see `check_ctc`.
    """
    check_ctc(logits, labels)
    steps, count, _ = logits.shape
    return (
        F.ctc_loss(
            logits.float().log_softmax(-1),
            labels.to(logits.device),
            input_lengths=torch.full((count,), steps),
            target_lengths=torch.full((count,), labels.shape[1]),
            blank=0,
            reduction="sum",
        )
        / count
    )


# %% [markdown]
# We can check it without a network. Let all 37 classes be equally likely in all 12 columns. Then
# every path has the probability 37 to the power of -12, and the loss only depends on how many paths
# lead to a label. For four different characters there are 16 choose 8: 12,870.

# %% tags=["active-ipynb"]
# uniform = torch.zeros(12, 1, 37)
# label = torch.tensor([[11, 12, 13, 14]])
# by_hand = 12 * math.log(37) - math.log(math.comb(16, 8))
# print(f"by hand {by_hand:.3f}, PyTorch {ctc_loss(uniform, label):.3f}")
# assert abs(by_hand - ctc_loss(uniform, label).item()) < 1e-3
#
# mean = F.ctc_loss(uniform.log_softmax(-1), label, torch.tensor([12]), torch.tensor([4]))
# print(f"PyTorch's own mean: {mean:.3f}, times 4 = {4 * mean:.3f}")

# %% [markdown]
# So a loss of 3.6 in somebody's PyTorch notebook and one of 14.4 in Keras can be the same thing.
#
# And now labels that cannot work:

# %% tags=["active-ipynb"]
# short, aaaa = torch.zeros(6, 1, 37), torch.tensor([[11, 11, 11, 11]])
# lengths = torch.tensor([6]), torch.tensor([4])
# print("F.ctc_loss with 6 columns for AAAA:", F.ctc_loss(short.log_softmax(-1), aaaa, *lengths))
# for logits, label in [(short, aaaa), (uniform, aaaa - 11)]:
#     try:
#         ctc_loss(logits, label)
#     except ValueError as error:
#         print("ValueError:", error)

# %% [markdown]
# ## From scores to text
#
# Greedy decoding in three lines: the best class of each column, one of each run of equals, no
# blanks.

# %%
def greedy(logits: torch.Tensor, alphabet: str = ALPHABET) -> list[str]:
    """Read N texts off logits (T, N, len(alphabet) + 1); ValueError for another shape."""
    if logits.ndim != 3 or logits.shape[2] != len(alphabet) + 1:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}, expected (T, N, {len(alphabet) + 1}): "
            f"the blank and {len(alphabet)} characters, time first"
        )
    texts = []
    for best in logits.argmax(-1).T.cpu():
        kept = torch.unique_consecutive(best)
        texts += decode(kept[kept != 0][None] - 1, alphabet)
    return texts


# %% [markdown]
# By hand: `A A - A B B - - 0 0 0 -` should give `AAB0`.

# %% tags=["active-ipynb"]
# classes = "-" + ALPHABET
# path = torch.tensor([classes.index(c) for c in "AA-ABB--000-"])
# (text,) = greedy(F.one_hot(path, 37).float()[:, None])
# print("AA-ABB--000- ->", text)
# assert text == "AAB0"

# %% [markdown]
# ## Two modes
#
# Dropout and batch normalisation behave differently in training and in use. Keras switches between
# the two by itself. In PyTorch a network *is* in one of two modes until told otherwise: `train()`
# or `eval()`. To forget `eval()` before measuring is the most frequent of all PyTorch mistakes, so
# our readers call it themselves, and `inference_mode` spares the bookkeeping for gradients.

# %%
@torch.inference_mode()
def read_ctc(model: CTCNet, pictures: np.ndarray, alphabet: str = ALPHABET) -> list[str]:
    """Read uint8 pictures (n, height, width, 3) greedily; ValueError as `to_input`."""
    model.eval()
    floats = channels_first(to_input(pictures, model.width, model.height))
    return greedy(model(floats.to(next(model.parameters()).device)), alphabet)


# %% [markdown]
# Is it true? The same picture, twice in each mode:

# %% tags=["active-ipynb"]
# with torch.inference_mode():
#     x = to_floats(pictures[:2], torch.device("cpu"))
#     full.eval()
#     print("eval mode, twice the same:", torch.equal(full(x), full(x)))
#     assert torch.equal(full(x), full(x))
#     full.train()
#     print("train mode, twice the same:", torch.equal(full(x), full(x)))
#     assert not torch.equal(full(x), full(x))

# %% [markdown]
# In train mode even the running averages changed, merely because we looked. They are slower or
# faster according to a number with a treacherous name: `momentum=0.1` in PyTorch is the weight of
# the *new* batch, `momentum=0.99` in Keras that of the *old* average. PyTorch's default is Keras'
# 0.9, so the lag that lesson 2 had to remove does not arise.
#
# ## Who owns the loop
#
# Keras has `fit`. In PyTorch the loop is yours, five lines of it: predict, loss, forget the old
# gradients, compute new ones, step. Everything else below is decoration.
#
# On a GPU we compute most of the network in 16 bits, where its fast units work. `autocast` chooses
# for each operation; `GradScaler` multiplies the loss before the backward pass, so that small
# gradients do not become zero in 16 bits, and divides again before the step. Both switch themselves
# off on a CPU.

# %%
def pick_device() -> torch.device:
    """Return the first GPU that PyTorch's CUDA sees, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_epoch(
    model: CTCNet,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    title: str = "",
) -> float:
    """Train on every batch of the loader once, with a progress bar; return the mean loss.

    Raises:
        FloatingPointError: the mean loss is not a finite number.
    """
    model.train()
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    for pictures, labels in tqdm(loader, desc=title, leave=False):
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            logits = model(to_floats(pictures, device))
        loss = ctc_loss(logits, labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        total += loss.detach()
    mean = total.item() / len(loader)
    if not math.isfinite(mean):
        raise FloatingPointError(f"the training loss is {mean}: use a smaller learning rate")
    return mean


# %% [markdown]
# `loss.detach()` keeps the number and lets go of the graph behind it; without it every step's graph
# would stay in memory until the epoch ends. And `item()` is called once for an epoch, because it
# makes the program wait for the GPU.
#
# Validation is the same without the second half, in the other mode. It also counts captchas that
# are read entirely right.

# %%
@torch.inference_mode()
def validate(model: CTCNet, loader: DataLoader) -> tuple[float, float]:
    """Return the mean loss over the loader's batches, and the share of captchas read right."""
    model.eval()
    device = next(model.parameters()).device
    losses, right = [], []
    for pictures, labels in loader:
        logits = model(to_floats(pictures, device))
        losses.append(ctc_loss(logits, labels).item())
        alphabet = loader.dataset.source.alphabet
        truth = decode(labels - 1, alphabet)
        right += [a == b for a, b in zip(greedy(logits, alphabet), truth, strict=True)]
    return float(np.mean(losses)), float(np.mean(right))


# %% [markdown]
# ## What a run is made of
#
# What does a run need to continue as if nothing had happened? The weights; the optimiser, which has
# three numbers of memory for each weight; the scaler; the best weights so far; the log, which says
# how long we have been waiting for a better one; and the state of the random generators, or the
# next dropout would be another one. The pictures need nothing: they go by name.
#
# Lesson 2 keeps these in several files and takes care of their order. Here they go into *one* file,
# which is replaced in one step. What is in the file has happened; the log beside it is a copy for
# people and for `read_log`.

# %%
class Run:
    """The state of a training run at the end of an epoch, and its file `folder`/state.pt."""

    def __init__(self, model: nn.Module, folder: Path):
        self.model, self.folder, self.rows = model, folder, []
        self.new_stage(STAGES[0][0])
        self.keep_best()

    def new_stage(self, rate: float) -> None:
        """Begin with a fresh optimiser: Adam with AMSGrad, as in lesson 2."""
        self.optimizer = torch.optim.Adam(self.model.parameters(), rate, amsgrad=True)
        kind = next(self.model.parameters()).device.type
        self.scaler = torch.amp.GradScaler(kind, enabled=kind == "cuda")

    def keep_best(self) -> None:
        """Remember the weights (and running averages) as they are now."""
        self.best = {name: value.clone() for name, value in self.model.state_dict().items()}

    def parts(self) -> dict:
        """What can say and set its own state."""
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}


# %% [markdown]
# Writing: the state first, in one step, then the copy for people.

# %%
def save_run(run: Run) -> None:
    """Write state.pt in one step, then log.csv."""
    state = {name: part.state_dict() for name, part in run.parts().items()}
    state |= {"rows": run.rows, "best": run.best}
    state |= {"rng": torch.get_rng_state(), "cuda_rng": torch.cuda.get_rng_state_all()}
    draft = run.folder / "state.pt.new"
    torch.save(state, draft)
    os.replace(draft, run.folder / "state.pt")
    replace_text(run.folder / "log.csv", pd.DataFrame(run.rows).to_csv(index=False))


# %% [markdown]
# Reading is the same backwards, with one more worry: what if the file is not what we think it is?
# `weights_only=True` lets `torch.load` build tensors and plain values and nothing else: the file
# format is Python's pickle, which could otherwise run anything.

# %%
def load_run(run: Run) -> None:
    """Put a run into the state of its file; without a file no epoch was finished.

    Raises:
        ValueError: the file is damaged, or not the state of such a run.
    """
    path = run.folder / "state.pt"
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        run.rows, run.best = state["rows"], state["best"]
        run.new_stage(run.rows[-1]["learning_rate"])
        for name, part in run.parts().items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        if len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
    except Exception as error:
        raise ValueError(
            f"{path} is not the state of this run ({type(error).__name__}): "
            "bring back an intact copy, or start a new run in another folder"
        ) from error
    replace_text(run.folder / "log.csv", pd.DataFrame(run.rows).to_csv(index=False))


# %% [markdown]
# One epoch with everything around it:

# %%
def run_epoch(
    run: Run, stage: int, rate: float, loader: DataLoader, valid_loader: DataLoader
) -> None:
    """Train and validate one epoch, then write it to disk."""
    epoch = len(run.rows)
    loader.sampler.set_epoch(epoch)
    title = f"epoch {epoch + 1}"
    loss = train_epoch(run.model, loader, run.optimizer, run.scaler, title)
    val_loss, val_acc = validate(run.model, valid_loader)
    if all(val_loss < row["val_loss"] for row in run.rows):
        run.keep_best()
    names = ("epoch", "stage", "learning_rate", "loss", "val_loss", "val_acc")
    values = (epoch, stage, rate, loss, val_loss, val_acc)
    run.rows.append(dict(zip(names, values, strict=True)))
    save_run(run)


# %% [markdown]
# And the two stages: 1e-3 until the held-out loss has not improved for a few epochs, then from the
# best weights at 1e-4. `open_run` and `waited` are old friends from lesson 2: the first refuses to
# overwrite a run or to continue it with other settings, the second counts epochs without progress.

# %%
def run_settings(model: CTCNet, loaders: dict[str, DataLoader], rates: Sequence[float]) -> dict:
    """Return what makes a training run this run and no other."""
    names = ["batch_size", "steps", "seed", "split", "alphabet", "length", "width", "height"]
    settings = {"network": str(model), "learning rates": list(rates)}
    for kind, loader in loaders.items():
        source = loader.dataset.source
        settings |= {f"{kind}.{name}": getattr(source, name) for name in names}
    return settings


# %% [markdown]
# `str(model)` is a PyTorch network's list of layers with all sizes: a good description to compare.

# %%
def train(
    model: CTCNet,
    loader: DataLoader,
    valid_loader: DataLoader,
    folder: Path,
    stages: Sequence[tuple[float, int]] = STAGES,
    patience: int = 3,
    resume: bool = False,
) -> pd.DataFrame:
    """Train at one learning rate after the other, each from the best weights so far.

    After an interruption build the same network and the same loaders, call it again with the same
    arguments and resume=True: finished epochs are kept, and training goes on as if nothing had
    happened.

    Args:
        model: on the device to train on; has the best weights at the end.
        loader, valid_loader: training data (new pictures in every epoch) and validation data.
        folder: gets log.csv, run.json and state.pt.
        stages: learning rate and largest number of epochs of each stage.
        patience: epochs without a better validation loss after which a stage ends.
        resume: go on with the run in `folder` instead of starting one.

    Returns:
        The log, one row for each epoch (see `read_log`).

    Raises:
        FileExistsError, FileNotFoundError, ValueError: see `open_run` and `load_run`.
    """
    loaders = {"data": loader, "valid": valid_loader}
    open_run(folder, run_settings(model, loaders, [rate for rate, _ in stages]), resume)
    run = Run(model, folder)
    if resume:
        load_run(run)
    for stage, (rate, epochs) in enumerate(stages, 1):
        losses = [row["val_loss"] for row in run.rows if row["stage"] == stage]
        if any(row["stage"] > stage for row in run.rows):
            continue
        if not losses:
            model.load_state_dict(run.best)
            run.new_stage(rate)
        while len(losses) < epochs and waited(losses) < patience:
            run_epoch(run, stage, rate, loader, valid_loader)
            losses.append(run.rows[-1]["val_loss"])
    model.load_state_dict(run.best)
    return read_log(folder)

# %% [markdown]
# ## Pull the plug
#
# Does it hold? A tiny network trains for two epochs and one more at the lower rate, in one go. Its
# twin stops after the first epoch, forgets everything (other weights, other random numbers), and
# resumes.

# %% tags=["active-ipynb"]
# from notebooks_py.ch1_captcha_preview import fresh_folder
#
# FOLDER = fresh_folder("ch7_ctc_pytorch")
# tiny = [make_loader(CaptchaBatches(4, 2, SEED, split=split)) for split in ("train", "valid")]
#
#
# def tiny_run(name: str, stages: list, seed: int = SEED, resume: bool = False) -> list:
#     torch.manual_seed(seed)
#     twin = CTCNet(filters=(4, 4, 4, 4, 4), convs=1, hidden=8)
#     train(twin, *tiny, FOLDER / name, stages, resume=resume)
#     return list(twin.state_dict().values())
#
#
# whole = tiny_run("whole", [(1e-3, 2), (1e-4, 1)])
# tiny_run("stopped", [(1e-3, 1), (1e-4, 0)])
# resumed = tiny_run("stopped", [(1e-3, 2), (1e-4, 1)], SEED + 1, resume=True)
# same = all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
# print("the stopped twin ends with the same weights, to the last bit:", same)
# assert same

# %% [markdown]
# "To the last bit" holds for one machine and one number of threads on a CPU. On a GPU some of the
# operations add up in an order that changes from run to run, the backward pass of CTC among them:
# PyTorch's documentation marks them as nondeterministic.
#
# ## Watch it learn
#
# A full-size network on 5.76 million pictures took the original an hour and a half on a GPU. We
# train a slim copy for about a minute: a first convolution with stride 2, four blocks of one
# convolution with few filters, one layer of LSTM and no dropout. A batch is small, 16 captchas, so
# that there are many steps. Two processes draw, where there are two cores.

# %% tags=["active-ipynb"]
# torch.manual_seed(SEED)
# slim = {"filters": (16, 32, 64, 128), "convs": 1, "stride": 2, "layers": 1, "dropout": 0.0}
# model = CTCNet(**slim).to(pick_device())
# assert model.steps == full.steps
# loader = make_loader(data, workers=2)
# valid_loader = make_loader(CaptchaBatches(100, 3, SEED, split="valid"))
# untrained, _ = validate(model, valid_loader)
# print(f"slim copy: {sum(p.numel() for p in model.parameters()):,} parameters")
# print("untrained, about as bad as all classes alike:", 25 < untrained < 45)

# %% [markdown]
# Now the training, at 2e-3 and then at a tenth of it.

# %% tags=["active-ipynb"]
# log = train(model, loader, valid_loader, FOLDER / "slim", [(2e-3, EPOCHS), (2e-4, 1)])
# print(f"{len(log)} epochs of {STEPS} batches, {len(log) * STEPS * 16:,} pictures")
# print("columns of the log:", ", ".join(log.columns))
# print("learning rates:", log.learning_rate.tolist())

# %% [markdown]
# Two lines help to read the curve. The upper one we have computed: all classes alike. At the lower
# one, 4 x ln 36, a network knows exactly where the four characters are, and nothing about which.

# %% tags=["active-ipynb"]
# figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
# axes.plot(log.epoch + 1, log.loss, "o-", label="training pictures (mean of the epoch)")
# axes.plot([0, *(log.epoch + 1)], [untrained, *log.val_loss], "s-", label="held-out pictures")
# axes.axhline(by_hand, color="gray", ls="--", label="all classes alike")
# axes.axhline(4 * math.log(36), color="gray", ls=":", label="four characters, any")
# axes.set(title="The plateau, and what lies behind it", xlabel="epoch", ylim=(0, None))
# axes.set_ylabel("CTC loss of a captcha (nats)")
# axes.legend()
# plt.show()
# print("held-out loss below the untrained network's:", log.val_loss.min() < untrained)
# print("below `four characters, any`:", log.val_loss.min() < 4 * math.log(36))

# %% [markdown]
# The fall from the upper line to the lower one is quick. There the network stays for a while: first
# it answers with blanks alone, then it finds out where characters are. Only when it begins to tell
# them apart does the curve leave this plateau, and then it falls fast: every picture now teaches
# something. The last epoch has a tenth of the learning rate, which takes the tremble out.
#
# ## Read captchas
#
# Eight pictures from a stream that nobody has trained on:

# %% tags=["active-ipynb"]
# from notebooks_py.ch1_captcha_preview import draw_captchas, random_texts, stream
#
# rng = stream(SEED, "show", epoch=0, index=0)
# texts = random_texts(rng, 8)
# pictures = draw_captchas(texts, rng, WIDE_WIDTH, HEIGHT)
# answers = read_ctc(model, pictures)
# figure, grid = plt.subplots(2, 4, figsize=(10, 2.9), layout="constrained")
# for axes, picture, text, answer in zip(grid.flat, pictures, texts, answers, strict=True):
#     axes.imshow(picture)
#     axes.set_title(f"truth {text}, read {answer}", color="green" if text == answer else "crimson")
#     axes.axis("off")
# figure.suptitle("Eight captchas: truth and prediction")
# plt.show()
# print("truth:", " ".join(texts))

# %% [markdown]
# Green titles are right. A red one may have fewer than four characters, if no column noticed one of
# them. Four heads cannot make this mistake; CTC can.
#
# ## How good is it?
#
# `evaluate` of lesson 2 does not care who reads, as long as bytes go in and texts come out. The
# test set `wide-1k` has the same thousand texts for everybody, drawn 192 pixels wide.

# %% tags=["active-ipynb"]
# from notebooks_py.ch2_cnn import evaluate, wilson
#
# score = evaluate(lambda pictures: read_ctc(model, pictures), "wide-1k")
# low, high = wilson(score.right, score.n)
# figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
# axes.bar(range(1, 5), [100 * right / score.n for right in score.right_by_position])
# axes.axhline(100 / len(ALPHABET), color="gray", ls=":", label="blind guessing")
# axes.set(xlabel="position", ylabel="right characters (%)", xticks=range(1, 5), ylim=(0, 100))
# share = f"{score.right / score.n:.1%} of captchas right"
# axes.set_title(f"{share} ({low:.1%} to {high:.1%}, n = {score.n:,})")
# axes.legend()
# plt.show()
# print(f"{score.test_set}: n = {score.n:,}")
# better = min(score.right_by_position) / score.n > 1 / len(ALPHABET)
# print("every position is read better than by guessing:", better)

# %% [markdown]
# The title has the share of captchas that were read right to the last character, and its 95 %
# interval. The bars count characters in their place: a character that is missed early moves all the
# later ones out of theirs, which cannot happen with four heads.
#
# ## What is in the file
#
# Everything that the run would need to go on:

# %% tags=["active-ipynb"]
# state = torch.load(FOLDER / "slim" / "state.pt", weights_only=True)
# print("parts:", ", ".join(sorted(state)))
# stages = [(2e-3, EPOCHS), (2e-4, 1)]
# again = train(model, loader, valid_loader, FOLDER / "slim", stages, resume=True)
# print("nothing lost, nothing trained twice:", again.equals(log))
# assert again.equals(log)

# %% [markdown]
# To keep only a reader, `torch.save(model.state_dict(), path)`: the weights, without the class. Who
# loads them builds the network first and then calls `load_state_dict`. A `.keras` file carries the
# architecture along; PyTorch's way leaves it to the code.
#
# ---
#
# ## What you learned
#
# | | Keras | PyTorch |
# | --- | --- | --- |
# | pictures | (N, height, width, 3) | (N, 3, height, width) |
# | sequences, logits | (N, T, classes) | (T, N, classes) |
# | size of a layer's input | found out | given |
# | CTC takes | logits, labels padded with 0 | log-probabilities, labels, two lengths |
# | CTC's mean | over captchas | over captchas, each divided by its label's length |
# | batch normalisation's momentum | weight of the past, 0.99 | weight of the present, 0.1 |
# | training or use | decided for each call | a mode that stays |
# | the loop, the log, resuming | `fit` and callbacks | yours |
# | worker | thread or process, asked for an index | process, asked for what the sampler says |
#
# - A batch with a name needs no memory: any worker can make it, in any order, in any epoch.
# - A run resumes exactly if weights, optimiser, scaler, log and random state are stored *together*.
#
# ## On your own
#
# 1. Return `"mean"` as the reduction in `ctc_loss` and train again. *Expected: losses a quarter as
#    large, and nearly the same curve otherwise, because Adam divides by the size of the gradients.*
# 2. Delete the line `torch.set_rng_state(...)` in `load_run` and pull the plug again. *Expected:
#    the assertion fails; the twin's dropout is another one.*
# 3. Read 128x64 pictures: `CTCNet(width=128)` and `CaptchaBatches(..., width=128)`. How many
#    columns are left, and does `AAAA` fit? *Expected: 8 columns; it does, they need 7.*
#
# ## Further reading
#
# - [The original's PyTorch
#   notebook](https://github.com/ypwhs/captcha_break/blob/master/ctc_pytorch.ipynb): the network and
#   the pictures of this lesson, and 99.57 %.
# - [torch.nn.CTCLoss](https://docs.pytorch.org/docs/stable/generated/torch.nn.CTCLoss.html): every
#   argument, and the note on what is not deterministic.
# - [Automatic mixed precision](https://docs.pytorch.org/docs/stable/amp.html): which operation runs
#   in how many bits, and why the loss is scaled.
# - [Reproducibility](https://docs.pytorch.org/docs/stable/notes/randomness.html): what PyTorch
#   promises and what it doesn't.
