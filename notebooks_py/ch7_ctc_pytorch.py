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
# # 7. Write the sequence model again in PyTorch
#
# *Lesson 7 of 8 · 40 minutes · needs 3, 4 and PyTorch · trains a minute*
#
# At the end of this lesson you have written the model of lesson 3 and its training loop in plain
# PyTorch, seen it learn all 36 characters in about a minute, and know where PyTorch and Keras differ
# without saying so. You need [lesson 3](ch3_ctc.ipynb), which explains CTC, and PyTorch
# (`make setup-torch` adds it); a CPU is enough. The optimizer is that of [lesson 4](ch4_gpu_training.ipynb).

# %%
import math
import os

# Idle threads of PyTorch sleep, which leaves room for other work. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import torch._dynamo  # before TensorFlow (lesson 3), or PyTorch for CUDA crashes
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from captcha_reader.drawing import draw_wide, stream
from captcha_reader.texts import ALPHABET, HEIGHT, WIDE_WIDTH, encode, random_texts

# %% [markdown]
# One seed for everything, and two numbers that say how long the training takes.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 200  # batches in an epoch
# EPOCHS = 3

# %% [markdown]
# ## Wider pictures
#
# The original has a [twin in
# PyTorch](https://github.com/ypwhs/captcha_break/blob/master/ctc_pytorch.ipynb) of its CTC network,
# which read 99.57 % of 12,800 captchas, its best result. Its pictures are 192 pixels wide instead of 128,
# and so are ours. What difference does that make?

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# from captcha_reader.drawing import draw_captchas, stages
# from captcha_reader.outputs import show_captchas
#
# texts = random_texts(stream(SEED, "wide", epoch=0, index=0), 200)
# narrow = [draw_captchas([texts[i]], stream(SEED, "wide", 1, i))[0] for i in range(4)]
# wide = [draw_wide([texts[i]], stream(SEED, "wide", 1, i))[0] for i in range(4)]
# padded = np.pad(narrow, [(0, 0), (0, 0), (32, 32), (0, 0)], constant_values=255)
# show_captchas([*padded, *wide], 2 * texts[:4], title="The same letters in 128 and in 192 pixels")
# plt.show()
# for width in (128, 192):
#     size = width, HEIGHT
#     drawn = [stages(texts[i], stream(SEED, "wide", 1, i), size) for i in range(200)]
#     squeezed = sum(captcha.pictures["pasted"].width > width for captcha in drawn)
#     print(f"{width} pixels: {squeezed} of 200 texts have to be squeezed")

# %% [markdown]
# In 128 pixels nearly every text has to be squeezed, in 192 about one in three. That is another task, so
# compare results on wide pictures only with each other.
#
# ## Batches by name
#
# A picture in PyTorch has its channels first. Ours has one: ink, by the formula of lesson 2.
#
# A data set is anything with `__getitem__`. Here an item is a whole batch, because in lesson 1 it is a
# *batch* that has a name.

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
# *What* the loader asks for comes from a sampler, and a list of names is a good one. `batch_size=None`
# says that an item is a batch already. For training, a bank of glyphs draws (lesson 4).

# %% tags=["active-ipynb"]
# from functools import partial
#
# from captcha_reader.bank import GlyphBank
# from captcha_reader.texts import decode
#
# bank = GlyphBank(SEED)
# data = CaptchaBatches(32, SEED, draw=partial(bank.draw, width=WIDE_WIDTH))
# names = [(0, 0), (0, 1), (1, 0), (0, 0)]
# loader = DataLoader(data, batch_size=None, sampler=names)
# for name, (ink, labels) in zip(names, loader, strict=True):
#     print(f"epoch {name[0]}, batch {name[1]}:", *decode(labels[:5] - 1), tuple(ink.shape))
# figure, axes = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
# image = axes.imshow(ink[0, 0], cmap="gray_r", vmin=0, vmax=1)
# figure.colorbar(image, label="ink", shrink=0.7)
# axes.set(title=decode(labels[:1] - 1)[0], xlabel="x (pixels)", ylabel="y (pixels)")
# plt.show()

# %% [markdown]
# The darker, the more ink. Another epoch has other captchas, and the first name, asked again, gives the
# first batch again.
#
# A word on workers. With `num_workers=2` two processes draw, each with a *copy* of the data set. If our data set
# counted its epochs, the copies would not hear of it, and the network would see the same pictures in every
# epoch, without any error. A name comes with each request, so no copy can be out of date.
#
# ## The network
#
# The blocks of lesson 2, in the same loop. But a layer has to be told how many channels come in, so we
# keep track of them.

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
# A network is a class: `__init__` makes the layers, and `forward` connects them, in Python that runs
# anew for each batch. `flatten` and `permute` turn the last feature map on its side: one vector for
# each column, the **columns first**, as PyTorch's CTC and its LSTM (a relative of lesson 3's GRU) want it.

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
                nn.init.kaiming_uniform_(part.weight, nonlinearity="relu")  # Keras: he_uniform

    def forward(self, pictures):
        x = self.blocks(pictures)  # (n, filters, rows, columns)
        x = x.flatten(1, 2).permute(2, 0, 1)  # (columns, n, features)
        if self.lstm:
            x, _ = self.lstm(x)
        return self.logits(x)


SLIM = {"filters": (24, 48, 96, 192), "convs": 2}  # as in lesson 4


# %% [markdown]
# The small one of lesson 3, the slim one of lesson 4, and one of the size of the original's twin, with two
# convolutions in each of five blocks and two LSTMs:

# %% tags=["active-ipynb"]
# small, slim = CTCNet(), CTCNet(**SLIM)
# full = CTCNet((32, 64, 128, 256, 256), 2, stride=1, tall=1, norms="every", channels=3, lstm=128)
# for name, network, channels in [("small", small, 1), ("slim", slim, 1), ("original", full, 3)]:
#     count = sum(weights.numel() for weights in network.parameters())
#     logits = network(torch.zeros(2, channels, HEIGHT, WIDE_WIDTH))
#     print(f"{name}: {count:,} parameters, logits {tuple(logits.shape)}")

# %% [markdown]
# The first two have 24 columns, the last one 12. (Keras counts more parameters for the same networks: its
# count includes the running averages of batch normalisation. The original of lesson 3 has GRUs where its twin
# has LSTMs.)
#
# ## The loss
#
# `F.ctc_loss` wants log-probabilities; given logits, it would compute nonsense without a word. For
# each captcha it wants two lengths: how many steps to read, and how many labels to expect. And its own
# mean divides each loss by the length of the text, so we take the losses one by one (`"none"`) and
# average them as Keras does.

# %%
def ctc_loss(logits, labels):
    """Return the mean CTC loss, in nats for a captcha, of logits (steps, n, classes)."""
    steps, n, _ = logits.shape
    lengths = torch.full((n,), steps), torch.full((n,), labels.shape[1])
    return F.ctc_loss(logits.log_softmax(-1), labels, *lengths, blank=0, reduction="none").mean()


# %% [markdown]
# The toy of lesson 3: six steps, three classes. Do three ways give one number?

# %% tags=["active-ipynb"]
# from notebooks_py import ch3_ctc as lesson3
#
# logits = np.random.default_rng(SEED).normal(size=(6, 3)).astype("float32")
# steps_first = torch.from_numpy(logits)[:, None]
# chances = steps_first.softmax(-1)[:, 0].numpy()
# for label in [[1, 2], [1, 1], [2, 1, 2]]:
#     ours = ctc_loss(steps_first, torch.tensor([label])).item()
#     by_keras = float(lesson3.keras.losses.ctc(np.array([label]), logits[None])[0])
#     by_hand = lesson3.loss_by_hand(chances, label)
#     text = lesson3.spell(label, "AB")
#     print(f"{text:3}  {by_hand:.4f} by hand, {by_keras:.4f} by Keras, {ours:.4f} by PyTorch")
# print("AAAA in six steps:", ctc_loss(steps_first, torch.tensor([[1, 1, 1, 1]])).item())

# %% [markdown]
# They do. A text that doesn't fit has no alignment, and an infinite loss.
#
# ## From logits to text
#
# Greedy decoding in two lines: the best class of each column, one of each run of equals, no blanks.

# %%
def greedy(logits, alphabet=ALPHABET):
    """Read n texts off logits (steps, n, len(alphabet) + 1)."""
    paths = [torch.unique_consecutive(path).tolist() for path in logits.argmax(-1).T]
    return ["".join(alphabet[label - 1] for label in path if label) for path in paths]


# %% [markdown]
# ## The optimizer
#
# Lesson 4 explains Muon: a kernel is a matrix, and its step is the momentum, made orthogonal by five steps of a
# polynomial. PyTorch has it, too (`torch.optim.Muon`), for variables of two dimensions alone, and refuses
# our kernels. In plain PyTorch it is two dozen lines.

# %%
def orthogonal(matrix):
    """Return nearly the orthogonal matrix nearest to one: five Newton-Schulz steps.

    The coefficients are Keller Jordan's, https://kellerjordan.github.io/posts/muon/.
    """
    x = matrix / (matrix.norm() + 1e-7)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov's momentum; a kernel (out, in, height, width) is a matrix, `out` high."""

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
# ## The loop
#
# Here is what `fit` did for you. For each batch: compute the loss, forget the old gradients (PyTorch
# *adds* new ones to them), compute new ones, take a step, move the rate. As in lesson 4, Muon moves the kernels of
# convolutions, AdamW moves the rest at 0.15 times the rate, and the rate climbs and falls once.

# %%
def recipe(model, steps, rate=0.02):
    """Return Muon and AdamW, and for each of them one cycle of its rate over `steps` steps."""
    kernels = [weights for weights in model.parameters() if weights.ndim == 4]
    others = [weights for weights in model.parameters() if weights.ndim == 1]
    last = [weights for weights in model.parameters() if weights.ndim in (2, 3)]
    groups = [{"params": last, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    climb = max(1, steps // 20)

    def share(step):
        fall = (step - climb) / max(1, steps - climb)
        return step / climb if step < climb else (1 + math.cos(math.pi * min(1, fall))) / 2

    adamw = torch.optim.AdamW(groups, lr=0.15 * rate, betas=(0.9, 0.99))
    optimizers = [Muon(kernels, rate), adamw]
    return optimizers, [torch.optim.lr_scheduler.LambdaLR(x, share) for x in optimizers]


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
# `train` is a generator: it trains only while somebody takes its losses, as `list` does below.
#
# We use a GPU if there is one of NVIDIA's. (On Apple's, PyTorch may [lack
# CTC](https://github.com/pytorch/pytorch/issues/153976); there the CPU is enough.)

# %% tags=["active-ipynb"]
# torch.manual_seed(SEED)
# model = CTCNet().to("cuda" if torch.cuda.is_available() else "cpu")
# names = [(epoch, index) for epoch in range(EPOCHS) for index in range(STEPS)]
# batches = tqdm(DataLoader(data, batch_size=None, sampler=names), leave=False)
# losses = list(train(model, batches, *recipe(model, len(names))))
# print(f"{EPOCHS} epochs of {STEPS} batches, {EPOCHS * STEPS * 32:,} pictures")

# %% [markdown]
# No picture came twice, so each loss is one on captchas not yet seen.

# %% tags=["active-ipynb", "trained"]
# smooth = np.convolve(losses, np.ones(20) / 20, mode="valid")
# figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
# axes.plot(losses, color="tab:blue", alpha=0.3, label="a batch")
# axes.plot(np.arange(len(smooth)) + 19, smooth, color="tab:blue", label="mean of the last 20")
# axes.axhline(4 * np.log(36), color="gray", ls=":", label="four characters, guessed")
# axes.set(title="The loss falls", xlabel="batches of 32", ylabel="CTC loss (nats)", ylim=(0, 25))
# axes.legend()
# plt.show()
# print(f"{len(losses)} losses, four characters guessed: {4 * np.log(36):.1f}")

# %% [markdown]
# The short shelf above the dotted line is a plateau as in lesson 3, a short one, though ink is 1. Below the line the
# network tells characters apart.
#
# ## Read
#
# A reader takes pictures as bytes, as everywhere in these lessons. It switches to `eval` mode (more on
# that in a moment), and `inference_mode` spares the bookkeeping for gradients.

# %%
@torch.inference_mode()
def read_pictures(model, pictures):
    """Read uint8 pictures (n, 64, width, 3), a hundred at a time."""
    device = next(model.parameters()).device
    model.eval()
    parts = to_ink(pictures).split(100)
    return [text for part in parts for text in greedy(model(part.to(device)))]

# %% [markdown]
# The test set `wide-1k` has the same thousand captchas for everybody, drawn by the package itself. Here
# are its first twelve; green is right.

# %% tags=["active-ipynb", "trained"]
# from captcha_reader.scores import difference, share
# from captcha_reader.testsets import draw_test_set
#
# batches = list(draw_test_set("wide-1k"))
# pictures = np.concatenate([part for part, _ in batches])
# texts = [text for _, part in batches for text in part]
# answers = read_pictures(model, pictures)
# right = sum(answer == text for answer, text in zip(answers, texts, strict=True))
# title = f"wide-1k after a minute of training: {share(right, len(texts))}"
# show_captchas(pictures[:12], texts, answers, title=title)
# plt.show()
# print("truth:", *texts[:12])
# assert right > 0.6 * len(texts) or EPOCHS * STEPS < 600, f"only {right} right"

# %% [markdown]
# The title counts captchas that were read right to the last character.
#
# ## Two modes
#
# In training, batch normalisation uses the mean of *this* batch; in reading, a running average. Keras
# chooses for each call. A PyTorch network *is* in one of two modes, `train()` or `eval()`, until
# you switch. To forget `eval()` is easy, and nothing complains. What does it cost? We read the thousand
# captchas in both modes, in batches of several sizes. A copy reads, because in train mode even reading
# changes the running averages.

# %% tags=["active-ipynb", "machine"]
# import copy
#
# from captcha_reader.scores import wilson
#
# sizes, counts = [1, 3, 10, 100], {"train()": [], "eval()": []}
# for mode, size in [(mode, size) for mode in counts for size in sizes]:
#     network = copy.deepcopy(model).train(mode == "train()").cpu()
#     with torch.inference_mode():
#         parts = to_ink(pictures).split(size)
#         predictions = [text for part in parts for text in greedy(network(part))]
#     counts[mode].append(sum(a == b for a, b in zip(predictions, texts, strict=True)))
# figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
# for mode, rights in counts.items():
#     low, high = 100 * np.transpose([wilson(right, 1_000) for right in rights])
#     axes.fill_between(sizes, low, high, alpha=0.2)
#     axes.semilogx(sizes, [right / 10 for right in rights], "o-", label=mode)
# axes.set(title="A network left in train mode (n = 1,000)", ylabel="read right (%)")
# axes.set(xlabel="captchas read at once", xticks=sizes, xticklabels=sizes)
# axes.legend()
# plt.show()
# assert max(counts["eval()"]) - min(counts["eval()"]) <= 2

# %% [markdown]
# In eval mode a captcha is read the same, whatever lies beside it. In train mode it is not, and alone, where the
# mean is one captcha's, fewer are read right. (The bands are 95 % intervals.)
#
# How fast does the running average follow? Both call that `momentum`, and mean opposite things:

# %% tags=["active-ipynb"]
# ones = np.ones((8, 1), "float32")
# ours, theirs = nn.BatchNorm1d(1), lesson3.layers.BatchNormalization()
# ours(torch.from_numpy(ones))
# theirs(ones, training=True)
# print(f"after one batch of ones: PyTorch {ours.running_mean.item():.2f}", end=", ")
# print(f"Keras {float(theirs.moving_mean[0]):.2f}")

# %% [markdown]
# PyTorch's 0.1 is the share of the new batch, Keras' 0.99 that of the old average. So PyTorch's
# default is Keras' 0.9, which the small networks of lessons 2 and 3 had to ask for: their trainings are short.
#
# ## Keep the weights
#
# `state_dict` has tensors by name: the parameters and the *buffers*, such as running averages, which no
# gradient changes. The architecture is not in it, so build the network first, then load.
# `weights_only=True` refuses a file with anything but tensors.
#
# Finished weights come the same way. `models/pytorch.pt` is a slim network, trained from nothing by one command.

# %% tags=["active-ipynb"]
# from captcha_reader.outputs import fresh_folder
# from captcha_reader.weights import MODELS, available, check_weights, read_results
#
# torch.save(model.state_dict(), fresh_folder("ch7_ctc_pytorch") / "pytorch.pt")
# if available("pytorch"):
#     results = read_results("pytorch")
#     path = check_weights(MODELS / "pytorch.pt", results["sha256"])
#     network = CTCNet(**SLIM)
#     network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
#     right = sum(a == b for a, b in zip(read_pictures(network, pictures), texts, strict=True))
#     print(f"`{results['command']}`: {results['pictures']:,} captchas of training")
#     for name, counted in results["scores"].items():
#         print(f"{name}: {share(counted['right'], counted['n'])}")
#     ours = results["scores"]["wide-10k"]["right"], 10_000
#     print(f"wide-10k against the original: {difference(*ours, 12_745, 12_800)}")
#     assert abs(right - results["scores"]["wide-1k"]["right"]) <= 3  # processors round differently

# %% [markdown]
# The last line compares with the original's 99.57 %, with the interval of the difference. (`judge` decided which
# network is the finished one, so it is no test.)
#
# To *go on* with a training, also store the `state_dict` of the optimizers and of the cycles.
#
# ## Several processes, several machines
#
# `torchrun` starts the same program several times, and `DistributedDataParallel`, wrapped around the network,
# averages the gradients of all of them in each step. So every process has to draw *other* captchas, and only one may
# write. `torchrun --nproc-per-node 2 -m tools.train --model=pytorch` trains this lesson's network so:
# process `r` of `n` draws the batches `r`, `r + n`, `r + 2n`, ... of smaller batches that have the same names in any
# case. Each process normalises by the mean of its own part, so the weights are nearly, not quite, those of one process.
#
# ---
#
# ## What you learned
#
# The loop that `fit` hides: loss, `zero_grad`, `backward`, clip, step, rate. And these are the places where
# somebody who moves from one library to the other stumbles, often without any error:
#
# | | Keras, lessons 2 and 3 | PyTorch |
# | --- | --- | --- |
# | pictures | (n, height, width, channels) | (n, channels, height, width) |
# | logits of a sequence | (n, steps, classes) | (steps, n, classes) |
# | a kernel | (height, width, in, out) | (out, in, height, width) |
# | padding, steps of two | `"same"`: one pixel right and below | `1`: on all four sides |
# | a layer's inputs | counted by Keras | given by you |
# | CTC takes | labels, then logits | log-probabilities, labels, two lengths |
# | its mean over a batch | of the losses | of loss divided by text length |
# | the blank | class 0 | class 0, or another that you name |
# | the training loop | `fit` | yours |
# | first weights of a convolution | `he_uniform`, asked for in lesson 2 | smaller ones, unless you ask |
# | training or reading | set by each call | a switch that stays |
# | `momentum` of batch normalisation | share of the past, 0.99 | share of the present, 0.1 |
#
# ## On your own
#
# 1. Count the parameters of the two LSTMs in the large network by hand. One direction of one LSTM that
#    reads `a` numbers and keeps `h` has `4 * h * (a + h + 2)`. *Expected: 1,052,672, as in
#    `full.lstm.parameters()`.* [Solution](solutions.ipynb#lesson-7-exercise-1)
# 2. Take PyTorch's own mean in `ctc_loss`: `reduction="mean"`, without `.mean()`. *Expected: losses a
#    quarter as large.* [Solution](solutions.ipynb#lesson-7-exercise-2)
# 3. Delete `model.zero_grad()` and train again. *Expected: no error, and a loss that leaves its shelf
#    later.* [Solution](solutions.ipynb#lesson-7-exercise-3)
#
# ## Further reading
#
# - [torch.nn.CTCLoss](https://docs.pytorch.org/docs/stable/generated/torch.nn.CTCLoss.html): every
#   argument, and a note on what a GPU computes in another order each time.
# - [Training a classifier](https://docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html):
#   PyTorch's own first loop, on another task.
# - [Reproducibility](https://docs.pytorch.org/docs/stable/notes/randomness.html): what a seed
#   promises in PyTorch and what it doesn't.
# - [Serialization semantics](https://docs.pytorch.org/docs/stable/notes/serialization.html): what is in
#   a `.pt` file, and why `weights_only` matters.
#
# Next: [8. Read captchas of your own](ch8_own_captchas.ipynb) · [Solutions](solutions.ipynb)
