# %% [markdown]
# # 7. Write the sequence model again in PyTorch
#
# *Lesson 7 of 8 · 35 minutes · needs 3, 4 and PyTorch · trains for a minute*
#
# By the end of this lesson you will have written the model of lesson 3 and its training loop in plain PyTorch, trained
# it for about a minute, and found out where PyTorch and Keras differ without warning. [Lesson 3](ch3_ctc.ipynb)
# explains CTC, and [lesson 4](ch4_gpu_training.ipynb) the optimizer. `make setup-torch` adds PyTorch; a CPU is enough.

# %% tags=["hide-input"]
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from captcha_reader.drawing import draw_wide, stream
from captcha_reader.texts import ALPHABET, HEIGHT, WIDE_WIDTH, encode, random_texts

# %% [markdown]
# You may change these three numbers.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 200  # batches in an epoch
# EPOCHS = 3

# %% [markdown]
# ## Wider pictures
#
# The original's best result, 99.57 % of 12,800 captchas read right, comes from a [twin of its CTC network in
# PyTorch](https://github.com/ypwhs/captcha_break/blob/master/ctc_pytorch.ipynb). This twin reads pictures 192 pixels
# wide instead of 128, and so does our network. What difference does the width make?

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# from captcha_reader.drawing import stages
# from captcha_reader.outputs import show_captchas
#
# texts, pictures = random_texts(stream(SEED, "wide", epoch=0, index=0), 200), []
# for width in (128, 192):
#     size, margin = (width, HEIGHT), (WIDE_WIDTH - width) // 2
#     drawn = [stages(texts[i], stream(SEED, "wide", 1, i), size).pictures for i in range(200)]
#     for stage in drawn[:4]:
#         sides = [(0, 0), (margin, margin), (0, 0)]
#         pictures.append(np.pad(stage["smoothed"], sides, constant_values=255))
#     squeezed = sum(stage["pasted"].width > width for stage in drawn)
#     print(f"{width} pixels: {squeezed} of 200 texts have to be squeezed")
# show_captchas(pictures, 2 * texts[:4], title="The same letters in 128 and in 192 pixels")
# plt.show()

# %% [markdown]
# At 192 pixels far fewer texts have to be squeezed, so results on wide captchas can be compared only with each other.
#
# ## Batches by name
#
# In PyTorch, the channels of a picture come first. Our pictures have one channel, ink (lesson 2). A data set is
# anything with `__getitem__`. Here an item is a whole batch, because it is the *batch* that has a name (lesson 1).

# %%
LUMA = np.array([0.299, 0.587, 0.114], "float32")  # how bright red, green, blue look: BT.601


def to_ink(pictures: np.ndarray) -> torch.Tensor:
    """Turn uint8 pictures (n, height, width, 3) into ink, float32 (n, 1, height, width)."""
    return torch.from_numpy(1 - pictures @ LUMA / 255).unsqueeze(1)


class CaptchaBatches(Dataset):
    """Endless captchas: the item (epoch, index) is a whole batch, and this name decides it.

    A batch is ink, float32 (size, 1, height, width), and labels, int64 (size, 4) with values 1 to
    36, since 0 is the blank. `draw(texts, rng)` makes uint8 pictures.
    """

    def __init__(self, size, seed, split="train", draw=draw_wide):
        self.size, self.seed, self.split, self.draw = size, seed, split, draw

    def __getitem__(self, name):
        epoch, index = name
        rng = stream(self.seed, self.split, epoch, index)
        texts = random_texts(rng, self.size)
        ink = to_ink(self.draw(texts, rng))
        return ink, torch.from_numpy(encode(texts)).long() + 1


# %% [markdown]
# A `DataLoader` asks the data set for the items in its *sampler*, here a list of names. `batch_size=None` says that an
# item is already a batch. A bank of glyphs draws the captchas (lesson 4).

# %% tags=["active-ipynb"]
# from functools import partial
#
# from captcha_reader.bank import GlyphBank
# from captcha_reader.texts import decode
#
# data = CaptchaBatches(32, SEED, draw=partial(GlyphBank(SEED).draw, width=WIDE_WIDTH))
# names = [(0, 0), (0, 1), (1, 0), (0, 0)]
# loader = DataLoader(data, batch_size=None, sampler=names)
# for (epoch, index), (ink, labels) in zip(names, loader, strict=True):
#     print(f"epoch {epoch}, batch {index}:", *decode(labels[:5] - 1), tuple(ink.shape))

# %% [markdown]
# The same name gives the same batch again. The epoch is part of the name because with `num_workers=2` two processes
# draw, each with its own *copy* of the data set, and these copies would not notice that a new epoch has begun.
#
# ## The network
#
# The blocks are those of lesson 2, except that a PyTorch layer has to be told how many channels come in.

# %%
def blocks(channels, filters, convs, stride, tall, norms):
    """Return one block for each number in `filters`, as in lesson 2; `channels` come in."""
    parts = []
    for i, n in enumerate(filters):
        for j in range(convs):
            parts.append(nn.Conv2d(channels, n, 3, stride if i == j == 0 else 1, padding=1))
            if norms == "every":
                parts.append(nn.BatchNorm2d(n))
            if norms == "every" or j < convs - 1:
                parts.append(nn.ReLU())
            channels = n
        parts.append(nn.MaxPool2d(2 if i < len(filters) - tall else (2, 1)))
        if norms == "once":
            parts += [nn.BatchNorm2d(n), nn.ReLU()]
    return nn.Sequential(*parts)


# %% [markdown]
# A network is a class: `__init__` makes the layers, and `forward` connects them, in plain Python that runs for every
# batch. `flatten` and `permute` turn the channels of the last block into one vector for each column. The **columns come
# first**, as PyTorch's CTC loss and its LSTM (a relative of lesson 3's GRU) expect.

# %%
class CTCNet(nn.Module):
    """The sequence model: pictures (n, channels, 64, width) to logits (steps, n, 37).

    `filters`, `convs`, `stride`, `tall` and `norms` are those of lessons 2 and 3. `lstm` is the
    size of two bidirectional LSTMs, one upon the other; 0 leaves them out.
    """

    def __init__(
        self, filters=(24, 48, 96, 128), convs=1, stride=2, tall=2, norms="once", channels=1, lstm=0
    ):
        super().__init__()
        self.blocks = blocks(channels, filters, convs, stride, tall, norms)
        features = filters[-1] * (HEIGHT // stride // 2 ** len(filters))
        self.lstm = nn.LSTM(features, lstm, 2, bidirectional=True) if lstm else None
        self.logits = nn.Linear(2 * lstm if lstm else features, len(ALPHABET) + 1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(part.weight, nonlinearity="relu")  # as he_uniform

    def forward(self, pictures):
        x = self.blocks(pictures)  # (n, filters, rows, columns)
        x = x.flatten(1, 2).permute(2, 0, 1)  # (columns, n, features)
        if self.lstm:
            x, _ = self.lstm(x)
        return self.logits(x)


SLIM = {"filters": (24, 48, 96, 192), "convs": 2}  # as in lesson 4


# %% [markdown]
# `CTCNet()` has the layers of the small network of lesson 3, and `CTCNet(**SLIM)` those of the slim one of lesson 4, now
# with 24 columns for 192 pixels.
#
# ## The loss
#
# `F.ctc_loss` expects log-probabilities; given logits, it computes nonsense without a warning. It also wants to know
# the number of steps and of labels for each captcha. Its own mean divides each loss by the length of the text, so we
# take the losses one by one (`"none"`) and average them as Keras does.

# %%
def ctc_loss(logits, labels):
    """Return the mean CTC loss, in nats for a captcha, of logits (steps, n, classes)."""
    steps, n, _ = logits.shape
    lengths = torch.full((n,), steps), torch.full((n,), labels.shape[1])
    return F.ctc_loss(logits.log_softmax(-1), labels, *lengths, blank=0, reduction="none").mean()


# %% [markdown]
# Does PyTorch give the same losses as Keras for the toy example of lesson 3, with six steps? And what about `AAAA`,
# which needs seven?

# %% tags=["active-ipynb"]
# from notebooks_py import ch3_ctc as lesson3
#
# logits = np.random.default_rng(SEED).normal(size=(6, 3)).astype("float32")
# for label in [[1, 2], [1, 1], [2, 1, 2], [1, 1, 1, 1]]:
#     ours = ctc_loss(torch.from_numpy(logits)[:, None], torch.tensor([label])).item()
#     by_keras = float(lesson3.keras.losses.ctc(np.array([label]), logits[None])[0])
#     print(f"{lesson3.spell(label, 'AB'):4}  {by_keras:.2f} by Keras, {ours:.2f} by PyTorch")

# %% [markdown]
# The first three losses agree. In six steps `AAAA` has no alignment, so PyTorch's loss is infinite, while that of
# Keras on TensorFlow is merely large.
#
# ## The optimizer
#
# Muon (lesson 4) treats a kernel as a matrix and makes its momentum orthogonal. `torch.optim.Muon` takes only
# two-dimensional parameters, so we write our own:

# %%
def orthogonal(matrix):
    """Return roughly the orthogonal matrix nearest to `matrix`: five Newton-Schulz steps.

    The coefficients are Keller Jordan's, https://kellerjordan.github.io/posts/muon/.
    """
    x = matrix / (matrix.norm() + 1e-7)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov's momentum; a kernel's matrix has a row for each channel that it makes."""

    def __init__(self, kernels, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(kernels, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            rate, share = group["lr"], group["momentum"]
            for kernel in group["params"]:
                momentum = self.state[kernel].setdefault("momentum", torch.zeros_like(kernel))
                momentum.mul_(share).add_(kernel.grad)
                rows = (kernel.grad + share * momentum).flatten(1)
                step = orthogonal(rows) * max(1, rows.shape[0] / rows.shape[1]) ** 0.5
                kernel.mul_(1 - rate * group["weight_decay"])
                kernel.sub_(rate * step.view_as(kernel))


# %% [markdown]
# As in lesson 4, Muon moves the kernels of convolutions, and AdamW the rest at 0.15 times the rate. Both rates climb
# and fall once. (For this lesson's short run, we leave out the average of the weights.)

# %%
def recipe(model, steps, rate=0.02):
    """Return Muon and AdamW, and for each of them one cycle of its rate over `steps` steps."""
    biases, matrices, kernels = ([x for x in model.parameters() if x.ndim == n] for n in (1, 2, 4))
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": biases, "weight_decay": 0.0}]
    climb = max(1, steps // 20)

    def share(step):
        fall = (step - climb) / max(1, steps - climb)
        return step / climb if step < climb else (1 + math.cos(math.pi * min(1, fall))) / 2

    adamw = torch.optim.AdamW(groups, lr=0.15 * rate, betas=(0.9, 0.99))
    optimizers = [Muon(kernels, rate), adamw]
    return optimizers, [torch.optim.lr_scheduler.LambdaLR(x, share) for x in optimizers]


# %% [markdown]
# ## The loop
#
# For each batch, `fit` did this for you: compute the loss, clear the old gradients (PyTorch would *add* the new ones to
# them), compute new ones, take a step, and set the next rate.

# %%
def train(model, batches, optimizers, cycles):
    """Take a step for each of the batches, pairs of ink and labels; yield the losses."""
    device = next(model.parameters()).device
    model.train()
    for ink, labels in batches:
        loss = ctc_loss(model(ink.to(device)), labels.to(device))
        model.zero_grad()
        loss.backward()
        for part in (*optimizers, *cycles):
            part.step()
        yield loss.item()


# %% [markdown]
# `train` is a generator: it trains only while something takes its losses, as `list` does below. The network runs on an
# NVIDIA GPU if there is one. (On Apple's, PyTorch may [lack CTC](https://github.com/pytorch/pytorch/issues/153976).) No
# picture comes twice, so each loss is that of new captchas.

# %% tags=["active-ipynb", "trained"]
# from tqdm import tqdm
#
# torch.manual_seed(SEED)
# model = CTCNet().to("cuda" if torch.cuda.is_available() else "cpu")
# names = [(epoch, index) for epoch in range(EPOCHS) for index in range(STEPS)]
# batches = tqdm(DataLoader(data, batch_size=None, sampler=names), leave=False)
# losses = list(train(model, batches, *recipe(model, len(names))))
# figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
# axes.plot(losses, label="loss of a batch")
# axes.axhline(4 * math.log(36), color="gray", ls=":", label="four characters, guessed")
# axes.set(title="A minute of training", xlabel="batches of 32", ylabel="CTC loss (nats)")
# axes.set_ylim(0, 25)
# axes.annotate("plateau", (70, 15.8), (110, 19), arrowprops={"arrowstyle": "->"})
# axes.legend()
# plt.show()

# %% [markdown]
# Just above the dotted line lies the plateau of lesson 3; below the line, the network tells characters apart.
#
# ## Read
#
# Greedy decoding takes two lines. `read_pictures` switches to `eval` mode (see below), and `inference_mode` skips the
# bookkeeping for gradients.

# %%
def greedy(logits, alphabet=ALPHABET):
    """Read n texts off logits (steps, n, len(alphabet) + 1)."""
    paths = [torch.unique_consecutive(path).tolist() for path in logits.argmax(-1).T]
    return ["".join(alphabet[label - 1] for label in path if label) for path in paths]


@torch.inference_mode()
def read_pictures(model, pictures):
    """Read uint8 pictures (n, 64, width, 3), a hundred at a time."""
    device = next(model.parameters()).device
    model.eval()
    parts = to_ink(pictures).split(100)
    return [text for part in parts for text in greedy(model(part.to(device)))]

# %% [markdown]
# Here are the first twelve of a thousand captchas that the package draws, after a quarter of lesson 3's batches:

# %% tags=["active-ipynb", "trained"]
# from captcha_reader.scores import share
#
# rng = stream(SEED, "show", epoch=0, index=0)
# texts = random_texts(rng, 1_000)
# pictures = draw_wide(texts, rng)
# answers = read_pictures(model, pictures)
# right = sum(answer == text for answer, text in zip(answers, texts, strict=True))
# title = f"After a minute, all 36 characters: {share(right, len(texts))}"
# show_captchas(pictures[:12], texts, answers, title=title)
# plt.show()

# %% [markdown]
# ## Two modes
#
# In training, batch normalisation uses the mean of *this* batch; in reading, a running average. Keras chooses between
# them at each call, while a PyTorch network stays in one of two modes, `train()` or `eval()`, until you switch. What
# does it cost to forget `eval()`? (We read with a copy, because in train mode even reading changes the running
# averages.)

# %% tags=["active-ipynb", "machine"]
# import copy
#
# from captcha_reader.outputs import plot_shares
#
# sizes, counts = [1, 3, 10, 100], []
# for size in sizes:
#     network = copy.deepcopy(model).cpu().train()
#     with torch.inference_mode():
#         logits = [network(part) for part in to_ink(pictures).split(size)]
#     answers = [text for part in logits for text in greedy(part)]
#     counts.append(sum(answer == text for answer, text in zip(answers, texts, strict=True)))
# figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
# plot_shares(axes, sizes, counts, len(texts), "left in train mode")
# axes.axhline(100 * right / len(texts), color="gray", ls=":", label="in eval mode")
# axes.set(title="A thousand captchas, read in train mode", ylabel="read right (%)", xscale="log")
# axes.set(xlabel="captchas read at once", xticks=sizes, xticklabels=sizes)
# axes.legend()
# plt.show()

# %% [markdown]
# Forgetting `eval()` costs most when each captcha is read alone, because the mean is then that of a single picture.
#
# ## Keep the weights
#
# A `state_dict` holds tensors by name: the parameters, and *buffers* such as running averages. It does not hold the
# architecture, so build the network first. With `weights_only=True` only tensors and plain values are loaded, so a file
# from a stranger can't run code. `models/pytorch.pt` is a slim network, trained with averaged weights and extra
# practice of `O` and `0` (lesson 4). It reads the same twelve captchas:

# %% tags=["active-ipynb"]
# from captcha_reader.outputs import fresh_folder
# from captcha_reader.scores import difference
# from captcha_reader.weights import MODELS, available, read_results
#
# torch.save(model.state_dict(), fresh_folder("ch7_ctc_pytorch") / "pytorch.pt")
# if available("pytorch"):
#     results = read_results("pytorch")
#     network = CTCNet(**SLIM)
#     weights = torch.load(MODELS / "pytorch.pt", map_location="cpu", weights_only=True)
#     network.load_state_dict(weights)
#     figure = show_captchas(pictures[:12], texts, read_pictures(network, pictures[:12]))
#     figure.suptitle(f"After {results['pictures']:,} captchas of training")
#     plt.show()
#     print(f"`{results['command']}`")
#     for name, score in results["scores"].items():
#         print(f"{name}: {share(score['right'], score['n'])}")
#     ours = results["scores"]["wide-10k"]["right"], 10_000
#     print(f"wide-10k against the original: {difference(*ours, 12_745, 12_800)}")

# %% [markdown]
# The `wide` test sets are drawn like our thousand captchas. In the last line, 0 lies outside the interval, so the
# original is a little better, and this is unlikely to be chance. It saw nearly six times as many captchas in training.
#
# To *resume* training, also store the `state_dict` of the optimizers and cycles.
#
# ## Several processes, several machines
#
# `torchrun` starts the same program several times, and `DistributedDataParallel`, wrapped around the network, averages
# the gradients of all processes in each step. So each process has to draw *different* captchas: of `n` processes,
# process `r` draws the batches `r`, `r + n`, `r + 2n`, ... Only one may write files.
# `torchrun --nproc-per-node 2 -m tools.train --model=pytorch` trains this lesson's network in this way. For two machines,
# type it on both with `--nnodes 2 --node-rank 0` (on the other, `1`) and `--master-addr` with the address of the first.
# The loop is in [train_torch.py](../tools/train_torch.py).
#
# ---
#
# ## What you learned
#
# `fit` hides a short loop: loss, `zero_grad`, `backward`, step, rate. These differences trip up anyone who moves
# between the two libraries, often without an error:
#
# | | Keras, lessons 2 and 3 | PyTorch |
# | --- | --- | --- |
# | pictures | (n, height, width, channels) | (n, channels, height, width) |
# | logits of a sequence | (n, steps, classes) | (steps, n, classes) |
# | a kernel | (height, width, in, out) | (out, in, height, width) |
# | padding, with a stride of two | `"same"`: one pixel right and below | `1`: on all four sides |
# | CTC takes | labels, then logits | log-probabilities, labels, two lengths |
# | a text that does not fit | a large, finite loss (on TensorFlow) | an infinite loss |
# | mean loss of a batch | mean of the losses | mean of loss divided by text length |
# | initial weights of a convolution | `he_uniform`, asked for in lesson 2 | smaller ones, unless you ask |
# | training or reading | set by each call | a switch that stays |
# | batch normalisation: `momentum` | share of the old average, 0.99 | share of the new batch, 0.1 |
# | batch normalisation: `epsilon` | `1e-3` | `1e-5` |
#
# ## On your own
#
# 1. Build a network like the original's twin, `CTCNet((32, 64, 128, 256, 256), convs=2, stride=1, tall=1,
#    norms="every", channels=3, lstm=128)`, and count the parameters of its two LSTMs by hand. One direction of one LSTM
#    that reads `a` numbers and keeps `h` has `4 * h * (a + h + 2)` parameters. *Expected: 1,052,672, as in its
#    `lstm.parameters()`.* [Solution](solutions.ipynb#lesson-7-exercise-1)
# 2. Take PyTorch's own mean in `ctc_loss`: `reduction="mean"`, without `.mean()`. *Expected: losses a
#    quarter as large.* [Solution](solutions.ipynb#lesson-7-exercise-2)
# 3. Delete `model.zero_grad()` and train again. *Expected: no error, and a loss that stays higher.*
#    [Solution](solutions.ipynb#lesson-7-exercise-3)
#
# ## Further reading
#
# - [torch.nn.CTCLoss](https://docs.pytorch.org/docs/stable/generated/torch.nn.CTCLoss.html): every argument.
# - [Training a classifier](https://docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html): PyTorch's own
#   first loop.
# - [Reproducibility](https://docs.pytorch.org/docs/stable/notes/randomness.html): what a seed promises in PyTorch.
# - [Serialization semantics](https://docs.pytorch.org/docs/stable/notes/serialization.html): what is in a `.pt` file.
#
# Next: [8. Read captchas of your own](ch8_own_captchas.ipynb) · [Solutions](solutions.ipynb)
