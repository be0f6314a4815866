"""Every figure in the README and in the prose of the lessons equals its source.

A figure is a number with a decimal point, a percent sign, an exponent or at least three digits,
outside of code, formulas and addresses. Each stands in one of the sentences below, which are
written from what the libraries, the lessons and models/*.json say now. A figure that stands in none
of them is an error, and so is a sentence that is not in the text.
"""

import ast
import functools
import importlib.util
import inspect
import math
import re

import comparison
import keras
import lessons
import numpy as np
import plateau
import pytest
import results_table
import setup_env
import tensorflow as tf
from conftest import ROOT
from test_ch4_drawing import REPLAYED

from notebooks_py import ch1_captcha_preview as ch1
from notebooks_py import ch2_cnn as ch2
from notebooks_py import ch3_ctc as ch3
from notebooks_py import ch4_gpu_training as ch4
from notebooks_py import ch5_loss_curves as ch5
from notebooks_py import ch6_o0o0 as ch6

# What others published: the right share in percent and the captchas tested, as the tutorial of 2019
# reports them, and the pictures that it trained on.
PUBLISHED = {"cnn": ("98.26 %", 12_800), "ctc": ("99.21 %", 2_560), "torch": ("99.57 %", 12_800)}
TRAINED = {"cnn": (16 + 13) * 1_000 * 128, "torch": (30 + 15) * 1_000 * 128}  # epochs, batches
RATES, BATCH = ("1e-3", "1e-4"), 128  # of its two stages
PRESENT = 0.1  # the momentum of batch normalisation in PyTorch
NUMBER = re.compile(r"(?<![\w.-])\d+(?:,\d{3})*(?:\.\d+)?(?:e-\d+)?(?:\s?%)?(?!\.?\d)")
NO_PROSE = re.compile(r"```.*?```|`[^`]*`|\$[^$]*\$|\]\([^)]*\)|https?://\S+", re.DOTALL)


LESSONS = {lesson.name: lesson for lesson in lessons.find(ROOT)}


def documents() -> dict[str, str]:
    """The prose of the README and of each lesson, in single lines."""
    found = {"README": (ROOT / "README.md").read_text(encoding="utf-8")}
    for name, lesson in LESSONS.items():
        cells = lesson.read().cells
        found[name] = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return {name: " ".join(text.split()) for name, text in found.items()}


def figures(text: str) -> list[str]:
    """The figures in a text."""
    found = [match.group() for match in NUMBER.finditer(NO_PROSE.sub("@", text))]
    return [number for number in found if len(number) > 2 or re.search(r"[.,%]", number)]


def written(lesson: str, number: float | str) -> float | str:
    """A number that the code of a lesson contains; its demonstrations are code, too."""
    trees = [lessons.parse(cell) for _, cell in lessons.code_cells(LESSONS[lesson].read())]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert float(number) in [node.value for node in nodes], f"{lesson} does not use {number}"
    return number


@functools.cache
def best_blank() -> float:
    """The probability of the blank in the best blind guess, from hundredths."""
    return min((hundredth / 100 for hundredth in range(1, 100)), key=ch3.blind_loss)


def printed(lesson: str, pattern: str) -> str:
    """What the group of a pattern matches in the outputs that a lesson's notebook carries."""
    outputs = [
        out for _, cell in lessons.code_cells(LESSONS[lesson].read()) for out in cell.outputs
    ]
    text = "".join(output.get("text", "") for output in outputs)
    assert (match := re.search(pattern, text)), f"{lesson} does not print {pattern}"
    return match.group(1)


def sentences() -> dict[str, list[str]]:
    """What the prose says with a figure in it, from the sources of the figures."""
    small, large = f"{ch1.WIDTH}x{ch1.HEIGHT}", f"{ch1.PREVIEW_WIDTH}x{ch1.PREVIEW_HEIGHT}"
    classes, length, wide = len(ch1.ALPHABET), ch1.LENGTH, ch2.WIDE_WIDTH
    full, sequence = ch2.build_cnn(), ch3.build_ctc()
    features = full.get_layer("features").output.shape[-1]
    _, steps, rows, channels = sequence.get_layer("columns").output.shape
    past = keras.layers.BatchNormalization().momentum
    library = importlib.util.find_spec("captcha.image").loader.get_source("captcha.image")
    blind, agreed = ch3.blind_loss(best_blank()), length * math.log(classes)
    first, last = setup_env.OLDEST, setup_env.NEWEST
    factor = inspect.signature(ch5.find_spikes).parameters["factor"].default
    greedy = [max(column) for column in ([0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.6, 0.1, 0.3])]
    hundred = len(next(ch2.draw_test_set("classic-100"))[1])
    goal = written("ch6_o0o0", 0.001)
    nine, ten, many, all_of = (written("ch2_cnn", number) for number in (9, 10, 9_000, 10_000))
    assert nine / ten == many / all_of
    return {
        "ch1_captcha_preview": [
            f"We look at them at {large} pixels and train on {small}",
            f"a guess is right once in {classes**length / 1e6:.1f} million times",
            f"squeezed to {ch1.WIDTH} pixels",
            "All versions from 0.3 to",  # their drawing code was compared by hand
            f"on {written('ch1_captcha_preview', 20_000):,} glyphs",
            f"for the seed {written('ch1_captcha_preview', 2019)}",
            f"has {len(library.splitlines())} lines",
        ],
        "ch2_cnn": [
            "VGG, a famous network of 2014",
            f"Where do {full.count_params() / 1e6:.2f} million parameters live?",
            f"a head connects 2x4x256 = {features:,} features",
            f"The original saw {TRAINED['cnn'] / 1e6:.1f} million pictures",
            f"With the usual {past} those look back",
            f"with {written('ch2_cnn', 0.9)} they look back ten",
            f"Adam at {RATES[0]} until",
            f"once more at {RATES[1]}",
            f"bytes from 0 to {np.iinfo(np.uint8).max}",
            f"{nine} of {ten} and {many:,} of {all_of:,} are both {100 * many / all_of:.0f} %",
            "the 95 % interval of Wilson (1927)",
            f"reports, {PUBLISHED['cnn'][0]} on {PUBLISHED['cnn'][1]:,} captchas",
            f"in batches of {hundred} from",
            f"the same, {wide} pixels wide",
            f"pictures, {large}, and then scaled down to {small}",
            f"About {printed('ch2_cnn', r'full size: ([0-9.]+) MB')} MB",
            f"shrink a picture to {features:,} features",
            f"two more heads of {(features + 1) * classes:,} each",
            "fails near 100 %",
        ],
        "ch3_ctc": [
            f"{steps} columns remain, each {rows} high with {channels} channels",
            f"one vector of {rows * channels} numbers",
            f"a memory of {sequence.get_layer('gru1').output.shape[-1] // 2} numbers",
            f"probability {' x '.join(map(str, greedy))} = {math.prod(greedy):.2f}",
            f"blank with {100 * best_blank():.0f} %",
            f"takes the loss from {blind:.1f} to {agreed:.1f}",
            f"two stages, {RATES[0]} and {RATES[1]}, with batches of {BATCH}",
            f"The first {hundred * written('ch3_ctc', 3)} of these predictions",
            f"pictures of {wide}x{ch1.HEIGHT} pixels",
            f"batches of {BATCH} at {RATES[0]}",
            "Graves and others, 2006",
        ],
        "ch4_gpu_training": [
            f"space, {3 * ch1.WIDTH * ch1.HEIGHT:,} bytes for each picture",
            f"{written('ch4_gpu_training', 1.97)} times its brightness",
            f"replay {REPLAYED} captchas",
            "step 4,711 always trains on batch 4,711",  # any number would do
            "the 95 % interval at the end",
            f"Batches of {ch4.RECIPES['batches of 128']['batch']} learn less",
        ],
        "ch5_loss_curves": [
            "from 0.02 to 0.01 looks like",  # an example of a half
            "a loss of 2.56 at the 16th epoch",  # of the original
            f"1.9 is more than {factor} times the 1.0 before it, 1.1 is not",
        ],
        "ch6_o0o0": [
            "The whiskers are 95 % intervals",
            f"far above {100 * 0.5**length:.2f} %",
            f"wider than the {ch1.WIDTH} pixels",
            f"linear up to {written('ch6_o0o0', 1)} %",
            f"What would {100 * (1 - goal):.1f} % take?",
            f"a day or two of such training away, but {100 * (1 - goal):.1f} % is out of sight",
            'says "90 %" should be right nine times of ten',
            f"Draw 3,000 of each glyph instead of {written('ch6_o0o0', 600)}",
            "Draw 200 of each string instead of 20",
            "Guo and others, 2017",
            "(Hestness and others, 2017)",
        ],
        "ch7_ctc_pytorch": [
            f"pictures of {wide}x{ch1.HEIGHT} pixels, half as wide again",
            f"gets {PUBLISHED['torch'][0]} of them right",
            f"more room than in {ch1.WIDTH} pixels",
            f"16 choose 8: {math.comb(16, 8):,}",
            f"a loss of 3.6 in somebody's PyTorch notebook and one of {3.6 * length:.1f}",
            f"PyTorch's default is Keras' {1 - PRESENT}",
            f"{RATES[0]} until the held-out loss",
            f"best weights at {RATES[1]}",
            f"on {TRAINED['torch'] / 1e6:.2f} million pictures",
            f"the training, at {written('ch7_ctc_pytorch', '2e-3')} and then",
            f"drawn {wide} pixels wide",
            "its 95 % interval",
            f"weight of the past, {past} | weight of the present, {PRESENT}",
            f"Read {small} pictures",
            f"the pictures of this lesson, and {PUBLISHED['torch'][0]}",
        ],
        "README": [
            "In brackets the 95 % interval of Wilson",
            " ".join(results_table.table(ROOT).split()),
            f"captcha 0.7.0 at {small}, on which",
            f"is {large}, scaled down",
            f"3.{first[1]}, 3.12 or 3.{last[1]}",
            "native Windows since 2.11",  # TensorFlow's documentation
            f"TensorFlow {'.'.join(tf.__version__.split('.')[:2])} has wheels",
            f"this is Python 3.{last[1] + 1}, but the lessons need 3.{first[1]} to 3.{last[1]}",
            "Chinese tutorial of 2019",
            *(f"| {share} | {n:,} |" for share, n in PUBLISHED.values()),
        ],
    }


@pytest.fixture(scope="module")
def known() -> dict[str, list[str]]:
    return sentences()


@pytest.mark.parametrize("name", documents())
def test_every_figure_equals_its_source(name, known):
    assert problems(documents()[name], known[name]) == []


def test_the_momentum_is_the_one_of_pytorch():
    torch = pytest.importorskip("torch", reason="lesson 7 needs PyTorch: make setup-torch")
    assert torch.nn.BatchNorm2d(1).momentum == PRESENT


def problems(text: str, known: list[str]) -> list[str]:
    """What is wrong with the figures of a text."""
    found = [f"the text does not say: {sentence}" for sentence in known if sentence not in text]
    for sentence in known:
        text = text.replace(sentence, "@")
    return found + [f"a figure without a source: {number}" for number in figures(text)]


def test_a_wrong_figure_a_new_one_and_a_changed_source_are_seen(known):
    text, right = documents()["ch2_cnn"], known["ch2_cnn"]
    assert problems(text, right) == []
    assert problems(text.replace("2.65 million", "2.66 million"), right) == [
        "the text does not say: Where do 2.65 million parameters live?",
        "a figure without a source: 2.66",
    ]
    for more in ("It read 97.1 % of them.", "after 12,000 steps", "in 250 seconds", "at 2e-3"):
        assert len(problems(f"{text} {more}", right)) == 1
    for more in ("`x = 1.5`", "$2.5$", "[a](b/1.5.html)", "captcha 0.7.0", "12 columns", "SHA-256"):
        assert problems(f"{text} {more}", right) == []
    changed = [sentence.replace("10.8 MB", "10.9 MB") for sentence in right]
    assert problems(text, changed) == [
        "the text does not say: About 10.9 MB",
        "a figure without a source: 10.8",
    ]


def test_what_lesson_3_says_about_its_trials():
    runs = ch2.measured("plateau")["runs"]
    for run in runs:
        ch2.check_score(run, ROOT / "models" / "plateau.json")
    few, many, gru = ([run for run in runs if run["trial"] == trial] for trial in plateau.TRIALS)
    assert {run["seed"] for run in few} == {run["seed"] for run in many}
    assert len(few) == len(many) == len(gru) == 2 and len(runs) == 6
    blind, agreed = ch3.blind_loss(best_blank()), ch1.LENGTH * math.log(len(ch1.ALPHABET))
    assert all(run["right"] == 0 and agreed < run["loss"] < blind for run in few)
    assert all(run["loss"] < agreed / 2 for run in many)


def test_what_lesson_4_says_about_the_recipes():
    rows = ch2.measured("ablation")
    wrong = {name: row["n"] - row["right"][-1] for name, row in rows.items()}
    recipe = wrong["the recipe"]
    assert wrong["one convolution a block"] > 2 * recipe
    assert abs(wrong["pooling for the stride"] - recipe) < recipe / 2
    assert min(wrong["more filters"], wrong["with a GRU"], wrong["batches of 128"]) > recipe
    assert min(wrong["constant rate"], wrong["Adam at 1e-3"]) >= 3 * recipe
    for name in ("constant rate", "Adam at 1e-3"):
        assert rows[name]["n"] - rows[name]["right_averaged"][-1] < 1.5 * recipe


def test_what_lesson_4_says_about_the_heads():
    found, source = ch2.measured("comparison"), ROOT / "models" / "comparison.json"
    wrong, seeds = {}, {}
    for run in found["runs"]:
        ch2.check_score(run, source)
        wrong.setdefault(run["head"], []).append(run["n"] - run["right"])
        seeds.setdefault(run["head"], []).append(run["seed"])
    assert list(wrong) == list(comparison.HEADS)
    assert all(len(set(these)) == 3 and these == seeds["CTC"] for these in seeds.values())
    ctc, heads, gru = (wrong[head] for head in ("CTC", "four heads", "CTC with a GRU"))
    assert sum(ctc) / sum(heads) == pytest.approx(3 / 5, abs=0.03)  # two fifths fewer
    assert sum(ctc) / sum(gru) == pytest.approx(1 / 2, abs=0.03)
    assert max(heads) < min(gru)
    apart = max(max(these) - min(these) for these in wrong.values())
    assert min(heads) - max(ctc) > apart
    first = {run["head"]: run for run in found["runs"]}
    begins = {head: [] for head in wrong}  # how many captchas until one half is read
    for run in found["runs"]:
        half = next(i for i, share in enumerate(run["curve"]) if share >= 0.5)
        begins[run["head"]].append(run["seen"][half])
    assert max(begins["CTC"]) < min(begins["CTC with a GRU"])
    assert max(begins["CTC with a GRU"]) < min(begins["four heads"])
    later = [ch2.measured(f"runs/{kind}-slim-300k/results") for kind in ("cnn", "ctc")]
    gaps = [sum(heads) / 3 - sum(ctc) / 3, later[1]["right"] - later[0]["right"]]
    assert gaps[1] < gaps[0] / 2 and {run["n"] for run in later} == {found["runs"][0]["n"]}
    assert min(first, key=lambda head: first[head]["bytes"]) == "CTC"
    assert found["reading"]["one core"]


def test_what_lesson_6_says_about_nine_readers():
    found = ch2.measured("comparison")
    runs, n = found["runs"], found["runs"][0]["n"]
    truth = np.array([text for index in range(n // 100) for text in ch6.asked(index)[0]])
    answers = np.array([run["answers"].split(" ") for run in runs])
    wrong = answers != truth
    together, chance = wrong.sum(axis=0), n * ch6.wrong_together(wrong.mean(axis=1))
    assert len(runs) == 9 and chance[5:].sum() < 5 and (together >= 5).sum() > 200
    hardest = np.flatnonzero(together == 9)
    assert len(hardest) >= 24  # dozens
    merged = np.char.replace(answers[:, hardest], "0", "O")
    pair = (merged == np.char.replace(truth[hardest], "0", "O")).any(axis=0)
    assert pair.mean() > 0.5  # most of those
    assert (answers[:, hardest] == answers[0, hardest]).all(axis=0).mean() > 0.25  # often
    assert printed("ch6_o0o0", "the finished network reads more than half: (.+)") == "True"
    left = {}
    for head in dict.fromkeys(run["head"] for run in runs):
        these = [i for i, run in enumerate(runs) if run["head"] == head]
        left[head] = (np.array(ch6.vote(answers[these])) != truth).mean()
        assert 0.15 < 1 - left[head] / wrong[these].mean() < 0.25  # about a fifth
    nine = (np.array(ch6.vote(answers)) != truth).mean()
    longer = ch2.measured("runs/ctc-slim-300k/results")
    assert longer["pictures"] == 3 * found["pictures"] and longer["n"] == n
    assert 1 - longer["right"] / n < left["CTC"] < nine


def test_what_lesson_6_says_about_more_training():
    names = ("ctc-slim-300k", "ctc-slim-500k", "ctc-slim-740k")
    runs = [ch2.measured(f"runs/{name}/results") for name in names]
    before = [run["settings"].get("start", {"pictures": 0, "seconds": 0}) for run in runs]
    seen = [run["pictures"] + old["pictures"] for run, old in zip(runs, before, strict=True)]
    power, factor = ch6.power_law(seen, [1 - run["right"] / run["n"] for run in runs])
    hours = (runs[-1]["seconds"] + before[-1]["seconds"]) / seen[-1] / 3600
    days = [((1 - goal) / factor) ** (1 / power) * hours / 24 for goal in (0.9921, 0.999)]
    assert 1 <= days[0] <= 2 and days[1] > 100
    assert 3 < 0.5 ** (1 / power) < 10  # times as many captchas to halve the errors


def test_a_source_that_does_not_say_it_is_an_error():
    with pytest.raises(AssertionError, match="ch2_cnn does not use 4242"):
        written("ch2_cnn", 4242)
    with pytest.raises(AssertionError, match="ch2_cnn does not print size: x"):
        printed("ch2_cnn", "size: x")
