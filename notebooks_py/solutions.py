"""Worked solutions of the exercises at the end of the lessons, three for each, in their order.

Try an exercise yourself first. `ch3_2_paper_for_longer` solves the second exercise of lesson 3.
Call it in a notebook or in Python: it returns what it found, or a figure.

    from notebooks_py.solutions import ch3_2_paper_for_longer
    losses = ch3_2_paper_for_longer()

Where something is trained, `steps` says for how many batches; the default takes a few minutes on a
laptop. The functions of lesson 7 need PyTorch.
"""

# ruff: noqa: E402, because Keras reads its settings when it is imported
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import functools
import random
from collections.abc import Sequence
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure

from captcha_reader.bank import GlyphBank
from captcha_reader.drawing import draw_captchas, draw_glyph, stages, stream
from captcha_reader.outputs import ROOT
from captcha_reader.practice import Practice
from captcha_reader.scores import wilson
from captcha_reader.texts import HEIGHT, LENGTH, WIDE_WIDTH, WIDTH, ctc_labels, random_texts
from captcha_reader.weights import finished, read_log
from notebooks_py.ch1_captcha_preview import CaptchaSequence
from notebooks_py.ch2_cnn import CLASSES, FILTERS, build_cnn, read_heads
from notebooks_py.ch3_ctc import SMALL, build_ctc, decode_ctc, lattice, read_ctc, small_ctc
from notebooks_py.ch4_gpu_training import compile_recipe
from notebooks_py.ch5_loss_curves import plot_log
from notebooks_py.ch6_o0o0 import count_right, measure, thicken, try_threshold
from notebooks_py.ch8_own_captchas import draw_foreign, fine_tune

SEED = 2019  # as in the lessons
DIGITS = "0123456789"


def matches(answers: Sequence[str], texts: Sequence[str]) -> int:
    """Count the texts that are read entirely right."""
    return sum(answer == text for answer, text in zip(answers, texts, strict=True))


def teach(model: keras.Model, steps: int, seed: int, **more) -> list[float]:
    """Train a compiled network on batches of 32 captchas from a bank; return the loss of each."""
    data = CaptchaSequence(32, steps, seed, **more)
    data.draw = GlyphBank(seed, data.alphabet).draw
    batches = (data[index] for index in range(steps))
    return [float(model.train_on_batch(*batch, return_dict=True)["loss"]) for batch in batches]


# --- lesson 1: draw captchas ---------------------------------------------------------------------


def ch1_1_six_characters(captchas: int = 200, seed: int = SEED) -> dict[int, float]:
    """Take captchas of four and of six characters apart: how wide are they before the squeeze?

    About 180 pixels and half as much again, which have to fit into 128: the squeeze gets stronger.
    There are 30 dots and one arc as before, and the filter is the same.
    """
    widths = {}
    for length in (4, 6):
        rng = stream(seed, "six characters", epoch=0, index=length)
        texts = random_texts(rng, captchas, length=length)
        pasted = [stages(text, rng).pictures["pasted"] for text in texts]
        widths[length] = float(np.mean([picture.width for picture in pasted]))
    return widths


def ch1_2_labels_of_digits(batch_size: int = 128, seed: int = SEED) -> list[tuple[int, ...]]:
    """Make batches of digits: the labels are four arrays (batch, 10), one column for each digit."""
    data = CaptchaSequence(batch_size, steps=1, seed=seed, alphabet=DIGITS)
    pictures, labels = data[0]
    return [head.shape for head in labels]


def ch1_3_one_letter_ten_times(letter: str = "A", seed: int = SEED) -> Figure:
    """Draw a letter ten times, turned and then warped: ten shapes.

    The warp brings each of them into the box of its font size, so a title has one of three sizes.
    """
    rng = random.Random(seed)
    figure, grid = plt.subplots(2, 10, figsize=(10, 3.2), layout="constrained")
    for above, below in grid.T:
        glyph = draw_glyph(letter, (0, 0, 0, 255), rng)
        above.imshow(glyph.rotated)
        below.imshow(glyph.warped)
        below.set_title(f"{glyph.box[0]}x{glyph.box[1]}")
        for axes in (above, below):
            axes.set(xticks=[], yticks=[])
    figure.suptitle(f"{letter}, turned and warped")
    return figure


# --- lesson 2: four heads ------------------------------------------------------------------------


def ch2_1_parameters_by_hand() -> int:
    """Count the parameters of the original's CNN by hand: 2,653,360, as Keras counts them."""
    total, channels = 0, 3
    for filters in FILTERS:
        for a, b in ((channels, filters), (filters, filters)):  # two convolutions in each block
            total += (9 * a * b + b) + 4 * b  # and a normalisation behind each
        channels = filters
    features = channels * (HEIGHT // 2**5) * (WIDTH // 2**5)  # five poolings halve both sides
    return total + LENGTH * (features * CLASSES + CLASSES)


def ch2_2_six_heads() -> tuple[int, int]:
    """Build the CNN with six heads: how many parameters are added, and how many has one head?

    Two heads of 73,764 are added. The blocks before them know nothing of the length.
    """
    four, six = build_cnn(ink=False), build_cnn(length=6, ink=False)
    return six.count_params() - four.count_params(), six.layers[-1].count_params()


def ch2_3_harder_tasks(
    steps: int = 400, captchas: int = 1_000, seed: int = SEED
) -> dict[str, tuple[float, int]]:
    """Train the small network of the lesson on digits, on two letters more, and with paper = 1.

    Returns for each the mean loss of the last tenth, as a share of blind guessing, and how many of
    1,000 captchas are read right then. Both changes make it learn more slowly.
    """
    found = {}
    more = DIGITS + "AB"
    tasks = [("digits", DIGITS, True), ("A and B, too", more, True), ("paper", DIGITS, False)]
    for name, alphabet, ink in tasks:
        keras.utils.set_random_seed(seed)
        model = build_cnn(len(alphabet), ink=ink, momentum=0.9, **SMALL)
        model.compile(keras.optimizers.Adam(3e-3, amsgrad=True), "categorical_crossentropy")
        losses = teach(model, steps, seed, alphabet=alphabet)
        rng = stream(seed, "show", epoch=0, index=0)
        texts = random_texts(rng, captchas, alphabet)
        answers = read_heads(model, draw_captchas(texts, rng), alphabet)
        last = np.mean(losses[-max(1, steps // 10) :]) / (LENGTH * np.log(len(alphabet)))
        found[name] = float(last), matches(answers, texts)
    return found


# --- lesson 3: CTC -------------------------------------------------------------------------------


def ch3_1_wider_pictures() -> tuple[int, int]:
    """Build the network for 192 pixels: how many steps, and how many equal characters at most?

    24 steps. The lattice has a path for 12 equal characters, which need 11 blanks, and none for 13.
    """
    steps, classes = build_ctc(width=WIDE_WIDTH).output.shape[1:]
    equal = np.full((steps, classes), 1 / classes)  # all answers equally likely
    most = max(n for n in range(1, steps) if lattice(equal, [1] * n)[-2:, -1].sum() > 0)
    return steps, most


def ch3_2_paper_for_longer(steps: int = 2_000, rate: float = 1e-3, seed: int = SEED) -> list[float]:
    """Train the network with paper = 1 for ten times as long; return the loss of each batch.

    The plateau, a loss between 15 and 16, is over after a hundred batches, and after 2,000 the
    loss is 0.5: paper = 1 costs time.
    """
    return teach(small_ctc(seed, ink=False, rate=rate), steps, seed, labels="ctc")


def ch3_3_beam_search(
    steps: int = 600, captchas: int = 1_000, seed: int = SEED
) -> dict[str, dict[str, int]]:
    """Decode what a network of our own and a finished one answer, greedily and by beam search.

    Returns how many captchas are read right. The beam adds up the paths of a text, which helps a
    network that is not sure; a finished one puts nearly all its probability on one path.
    """
    own = small_ctc(seed)
    teach(own, steps, seed, labels="ctc")
    rng = stream(seed, "beam", epoch=0, index=0)
    texts = random_texts(rng, captchas)
    X, right = draw_captchas(texts, rng).astype("float32") / 255, {}
    for name, model in {"own": own, "finished": finished("ctc")[0]}.items():
        logits = model.predict(X, verbose=0)
        ways = ("greedy", "beam_search")
        right[name] = {way: matches(decode_ctc(logits, strategy=way), texts) for way in ways}
    return right


# --- lesson 4: training for real -----------------------------------------------------------------


def ch4_1_stop_and_go_on(folder: Path) -> dict[str, int]:
    """Stop a training, go on, and look into its log: is an epoch missing, or there twice?

    In a terminal, with Ctrl-C in between:

        make train MODEL=ctc BUDGET=20min
        make train MODEL=ctc BUDGET=20min

    `folder` is the one that the command names. No epoch is missing, and at most one for each
    Ctrl-C was trained twice. (tests/test_train.py
    interrupts a run in many ways, and it ends with the same weights, bit by bit.)
    """
    epochs = pd.read_csv(folder / "log.csv").epoch
    missing = set(range(epochs.max() + 1)) - set(epochs)
    twice = int(epochs.duplicated().sum())
    return {"epochs": epochs.nunique(), "missing": len(missing), "twice": twice}


def ch4_2_a_long_cycle(seed: int = SEED) -> Figure:
    """Draw the rate of 10,000 steps with a peak of 0.01: the lesson's curve, half as high."""
    figure, axes = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
    for steps, peak in ((1_000, 0.02), (10_000, 0.01)):
        cycle = compile_recipe(small_ctc(seed), steps, peak)
        part = np.linspace(0, 1, 101)  # of the run
        rates = [float(cycle(step)) for step in steps * part]
        axes.plot(100 * part, rates, label=f"{steps:,} steps, peak {peak}")
    axes.set(title="One shape", xlabel="part of the run (%)", ylabel="learning rate")
    axes.legend()
    return figure


def ch4_3_practise_one_pair(batches: int = 20, seed: int = SEED) -> float:
    """Let every captcha be crowded, `Practice(seed, sizes=0, hard=1)`: how much is O or 0?

    In each place with probability 3/4, and by chance in two of 36 of the other places: 76 %.
    """
    practice = Practice(seed, sizes=0, hard=1)
    text = "".join(text for number in range(batches) for text in practice(number)[1])
    return (text.count("O") + text.count("0")) / len(text)


# --- lesson 5: loss curves -----------------------------------------------------------------------


def ch5_1_a_log_of_your_own(
    path: Path = ROOT / "build/lessons/ch2_cnn/run-001/cnn.csv",
) -> Figure:
    """Plot the log that lesson 2 left: each of the four heads has an accuracy of its own."""
    return plot_log(pd.read_csv(path), "My run of lesson 2")


def ch5_2_more_captchas(n: int = 100_000, seed: int = SEED) -> np.ndarray:
    """Ask the fifteen networks 100,000 captchas each, and return what is right, in per cent.

    All of them are within 0.2 points of 95 %: with a hundred times as many captchas the spread is a
    tenth.
    """
    return 100 * np.random.default_rng(seed).binomial(n, 0.95, size=15) / n


def ch5_3_cycle_over_stages() -> pd.Series:
    """Divide the held-out loss of the cycle by that of the two stages, row by row.

    The index counts captchas. The cycle is behind for the first 8,192 and ahead from 10,240 on.
    """
    log = read_log("stages").set_index("pictures")
    losses = {recipe: rows.val_loss for recipe, rows in log.groupby("recipe")}
    return losses["one cycle"] / losses["two stages"]


# --- lesson 6: O and 0 ---------------------------------------------------------------------------


def ch6_1_longer_whiskers(
    drawings: Sequence[int] = (100, 20), seed: int = SEED
) -> dict[int, float]:
    """Draw each string 100 and 20 times: how long are the whiskers, in points, on average?

    A fifth of the drawings makes them more than twice as long: the square root of five is 2.2.
    """
    model, lengths = finished("ctc")[0], {}
    for n in drawings:
        right = count_right(model, "O0", n, seed)
        lengths[n] = float(100 * np.mean([np.ptp(wilson(count, n)) for count in right.values()]))
    return lengths


def ch6_2_all_sizes_at_once(
    captchas: int = 1_500, seed: int = SEED
) -> dict[str, tuple[float, float]]:
    """Tell 0 from O by the share of ink, for each font size and for all at once.

    Returns how often that is right, and the mean share of ink. Small glyphs have more of it, so one
    threshold for all sizes is right less often.
    """
    rng = stream(seed, "glyphs", epoch=0, index=0)
    glyphs = [glyph for _ in range(captchas) for glyph in stages("0O0O", rng).glyphs]
    sizes = np.array([glyph.font_size for glyph in glyphs])
    zero = np.array([glyph.character == "0" for glyph in glyphs])
    ink = np.array([measure(glyph)["ink / (ink + hole)"] for glyph in glyphs])
    found = {}
    for name, some in {"all": sizes > 0, **{str(s): sizes == s for s in (42, 50, 56)}}.items():
        right, n = try_threshold(ink[some], zero[some])
        found[name] = right / n, float(ink[some].mean())
    return found


def ch6_3_thicker_one_and_i(drawings: int = 100, seed: int = SEED) -> dict[str, dict[str, int]]:
    """Thicken "1111" and "IIII" by a pixel, and "OOOO" for comparison.

    Returns how many are read right before and after, and how many have the other character in them
    then. A few get lost, mostly since one of the four is, but hardly a 1 becomes an I, or an I a 1.
    Of the O none stays.
    """
    model, found = finished("ctc")[0], {}
    for text, other in (("1111", "I"), ("IIII", "1"), ("OOOO", "0")):
        pictures = draw_captchas([text] * drawings, stream(seed, text, epoch=0, index=0))
        before = read_ctc(model, pictures)
        after = read_ctc(model, np.stack([thicken(picture, 2) for picture in pictures]))
        found[text] = {"before": before.count(text), "after": after.count(text)}
        found[text]["mixed up"] = sum(other in answer for answer in after)
    return found


# --- lesson 7: PyTorch ---------------------------------------------------------------------------


def ch7_1_lstms_by_hand() -> tuple[int, int]:
    """Count the parameters of the two LSTMs by hand, and let PyTorch count: 1,052,672."""
    from notebooks_py.ch7_ctc_pytorch import CTCNet

    filters, size = (32, 64, 128, 256, 256), 128
    reads = [filters[-1] * HEIGHT // 2**5, 2 * size]  # a column; both directions of the first LSTM
    by_hand = sum(2 * 4 * size * (a + size + 2) for a in reads)
    full = CTCNet(filters, convs=2, stride=1, tall=1, channels=3, lstm=size)
    return by_hand, sum(weights.numel() for weights in full.lstm.parameters())


def ch7_2_the_other_mean(seed: int = SEED) -> tuple[float, float]:
    """Compare the lesson's loss with PyTorch's own mean, which divides by the length: a quarter."""
    import torch

    from notebooks_py.ch7_ctc_pytorch import F, ctc_loss

    torch.manual_seed(seed)
    steps, n, classes = 24, 32, CLASSES + 1
    logits, labels = torch.randn(steps, n, classes), torch.randint(1, classes, (n, LENGTH))
    lengths = torch.full((n,), steps), torch.full((n,), LENGTH)
    own = F.ctc_loss(logits.log_softmax(-1), labels, *lengths, blank=0, reduction="mean")
    return ctc_loss(logits, labels).item(), own.item()


def ch7_3_without_zero_grad(steps: int = 600, seed: int = SEED) -> dict[str, list[float]]:
    """Train with and without `zero_grad`, and return the losses.

    There is no error. All gradients of the past are added up, so the network follows old
    directions, and its loss leaves the shelf later.
    """
    import torch

    from notebooks_py import ch7_ctc_pytorch as ch7

    draw, losses = functools.partial(GlyphBank(seed).draw, width=WIDE_WIDTH), {}
    for name in ("with zero_grad", "without"):
        torch.manual_seed(seed)
        model, data = ch7.CTCNet(), ch7.CaptchaBatches(32, seed, draw=draw)
        optimizers, cycles = ch7.recipe(model, steps)
        if name == "without":
            model.zero_grad = lambda: None
        batches = (data[0, index] for index in range(steps))
        losses[name] = list(ch7.train(model, batches, optimizers, cycles))
    return losses


# --- lesson 8: captchas of your own --------------------------------------------------------------


def ch8_1_seven_characters(captchas: int = 100, seed: int = SEED) -> int:
    """Read seven characters in 256 pixels with the finished weights; return how many are right.

    The network never practised seven, but every column is asked the same question.
    """
    model = finished("ctc")[0]
    rng = stream(seed, "seven", epoch=0, index=0)
    texts = random_texts(rng, captchas, length=7)
    return matches(read_ctc(model, draw_captchas(texts, rng, width=256)), texts)


def foreign(split: str, count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Draw captchas in the lesson's other style, and return them with their texts."""
    rng = stream(seed, f"foreign {split}", epoch=0, index=0)
    texts = random_texts(rng, count)
    return draw_foreign(texts, rng, font_manager.findfont("DejaVu Serif:bold")), texts


@functools.cache
def fine_tuned(count: int, steps: int, seed: int, old: int = 0, moved: bool = True) -> keras.Model:
    """Train the finished network on `count` captchas in the other style, and `old` of lesson 1."""
    (pictures, texts), model = foreign("train", count, seed), finished("ctc")[0]
    if old:
        rng = stream(seed, "old style", epoch=0, index=0)
        kept = random_texts(rng, old)
        pictures, texts = np.concatenate([pictures, draw_captchas(kept, rng)]), texts + kept
    keras.utils.set_random_seed(seed)
    fine_tune(model, pictures.astype("float32") / 255, ctc_labels(texts), steps, seed, moved)
    return model


def ch8_2_not_moved(
    steps: int = 250, count: int = 200, unseen: int = 500, seed: int = SEED
) -> dict[str, tuple[float, int]]:
    """Fine-tune on moved pictures and on pictures as they are.

    Returns the loss on the pictures of the training, and how many unseen ones are read right.
    Without moves the network learns its pictures by heart: a far lower loss, fewer others right.
    """
    (pictures, texts), found = foreign("train", count, seed), {}
    others, truth = foreign("test", unseen, seed)
    for name, moved in {"moved": True, "as they are": False}.items():
        model = fine_tuned(count, steps, seed, moved=moved)
        logits = model.predict(pictures.astype("float32") / 255, verbose=0)
        loss = float(keras.losses.CTC()(ctc_labels(texts), logits))
        found[name] = loss, matches(read_ctc(model, others), truth)
    return found


def ch8_3_keep_the_old_style(
    steps: int = 250, count: int = 200, old: int = 100, unseen: int = 500, seed: int = SEED
) -> dict[str, tuple[int, int]]:
    """Fine-tune on another style alone, and with some captchas of lesson 1 among its pictures.

    Returns how many unseen captchas of lesson 1 and of the other style are read right. Alone, the
    new style makes the network forget most of the old one; with a few old pictures it keeps most.
    """
    networks = {
        "before": finished("ctc")[0],
        "the new style alone": fine_tuned(count, steps, seed, moved=True),  # made in ch8_2
        "both": fine_tuned(count, steps, seed, old),
    }
    rng = stream(seed, "show", epoch=0, index=0)
    asked = random_texts(rng, unseen)
    tests = [(draw_captchas(asked, rng), asked), foreign("test", unseen, seed)]
    return {
        name: tuple(matches(read_ctc(model, X), truth) for X, truth in tests)
        for name, model in networks.items()
    }
