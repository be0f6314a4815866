"""Every claim in words has something that confirms it.

A claim is a fraction, a multiple, a comparison such as "most" or "fewer", a time in numbers, an
alternative text, or a number that an exercise expects, in the prose of the README or of a lesson.
`CLAIMS` has words around each, and behind them what is computed here, True or False; or the test
that shows it; or, where it takes people or hours, the reason to believe it. If a test reports a
new sentence, add words of it here; if it misses old words, take them out. (Figures have
test_figures.py.)
"""

import functools
import re

import lessons
import publish
import pytest
import test_figures
from captcha.image import ImageCaptcha
from conftest import ROOT

from captcha_reader.drawing import FONT_SIZES
from captcha_reader.scores import wilson
from captcha_reader.texts import ALPHABET, HEIGHT, LENGTH, PREVIEW_HEIGHT, WIDTH
from captcha_reader.weights import measured, read_log, read_results

NUMBER = (
    r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|sixteen|twenty|\d[\d,.]*)"
)
CLAIM = re.compile(
    rf"""!\[[^]@]+ | \*Expected:(?=[^*]*\d)[^*]+
    | \b(?:(?:an?|{NUMBER})\s)?(?:half|halves|halving|thirds|quarters?|fifths|tenths?|twentieth)\b
    | \ba\s(?:third|fifth)\b | \b(?:doubles?|twice\sas|\w+fold)\b
    | \b(?:{NUMBER}|many|several)\stimes\s(?:as|the|that|slower|\d)
    | \b(?:most|mostly|nearly|hardly|next\sto\snothing|fewer|fewest|faster|slower|far\sless)\b
    | \b(?:more|less)\s(?:than|often|slowly)\b
    | \b{NUMBER}(?:\s\w+)?\s(?:in|(?:out\s)?of)\s{NUMBER}\b
    | \b{NUMBER}\s(?:hundred|thousand|minutes?|hours?|seconds?)\b""",
    re.VERBOSE | re.IGNORECASE,
)
NO_CLAIM = re.compile(  # code, formulas, addresses, and words that give no number
    r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)|https?://\S+|<!--.*?-->|(?:this|the) half hour|half precision"
    r"|(?:first|second) half|third one|at (?:most|least)\b|most (?:often|asked)|\bof (?:one|two)\b",
    re.IGNORECASE,
)
LESSONS = {f"lesson {lesson.number}": lesson for lesson in lessons.find(ROOT)}
READ = {name: lesson.read() for name, lesson in LESSONS.items()}
CODE = {n: "\n".join(c.source for _, c in lessons.code_cells(READ[n])) for n in READ}


def prose(name: str) -> str:
    """The text of the README, without its table of results, or of a lesson, in one line."""
    if name == "README":
        text = test_figures.readme(ROOT)
    else:
        text = "\n".join(cell.source for cell in READ[name].cells if cell.cell_type == "markdown")
    return " ".join(text.replace("```", " ").split())


def code(number: int, text: str) -> bool:
    """Whether the code of a lesson has this in it."""
    return text in CODE[f"lesson {number}"]


def said(number: int, pattern: str) -> list[float]:
    """The numbers that a pattern catches in what a lesson prints, wherever it fits."""
    cells = lessons.code_cells(READ[f"lesson {number}"])
    text = "\n".join(output.get("text", "") for _, cell in cells for output in cell.outputs)
    found = [re.findall(r"\d[\d,.]*", match[0]) for match in re.finditer(pattern, text)]
    return [float(number.replace(",", "")) for numbers in found for number in numbers]


@functools.cache
def wrong(what: str) -> float:
    """The share that the finished network reads wrong, as lesson 4 measured it."""
    found = measured("bank")["pictures"]["by the package"]
    count, n = (found[what], found["n"]) if what == "right" else found[what]
    return count / n if " as " in what else 1 - count / n


def tuned(name: str, labels: int) -> float:
    """The share that a network of lesson 8 reads right after this many labels."""
    return measured("tuning")["right"][name][str(labels)] / measured("tuning")["n"]


def heads(*names: str) -> list[int]:
    """What networks with these heads read right in lesson 4."""
    return [row["right"] for row in measured("heads")["rows"] if row["name"] in names]


def missed(name: str) -> list[int]:
    """How many captchas a row of lesson 4's ablation got wrong, with each seed."""
    rows = [row for row in measured("ablation")["rows"] if row["name"] == name]
    return [row["n"] - row["right"] for row in sorted(rows, key=lambda row: row["seed"])]


def as_the_recipe(*names: str) -> bool:
    """Whether the whiskers of these rows overlap with the recipe's."""
    n = 2 * measured("ablation")["rows"][0]["n"]
    low, high = wilson(sum(missed("the recipe")), n)
    found = [wilson(sum(missed(name)), n) for name in names]
    return all(a < high and low < b for a, b in found)


OTHERS = {row["name"] for row in measured("ablation")["rows"]}
OTHERS -= {"the recipe", "constant rate, last weights"}
WEIGHTS = {row["name"]: row["parameters"] for row in measured("heads")["rows"]}
CLOCK = "by the clock, on two cores; other machines take other times"
JUDGED = "for the reader's eye: a picture beside it shows it"
RULE = "a rule or a task; nothing is measured"
SPEED = measured("bank")["speed"]["ratio"] > 3
FAITHFUL, WHITE = [
    {pair: found[pair][0] / found[pair][1] for pair in ("O as 0", "0 as O")}
    for name, found in measured("bank")["pictures"].items() if name != "by the package"
]  # fmt: skip
WHITE_BANK = WHITE["O as 0"] > 2 * FAITHFUL["O as 0"] and WHITE["0 as O"] < FAITHFUL["0 as O"] / 2
LOWER = 4 * PREVIEW_HEIGHT == 5 * HEIGHT
GREEN = all(code(n, "assert right > 0.6 * len(texts)") for n in (2, 3))
TENTH = all(code(n, "3e-3") and code(n, "3e-4") for n in (2, 3))
# The pairs O0 and 0O among all wrong captchas: two of 36 characters, at four places.
PAIR = (wrong("0 as O") + wrong("O as 0")) * LENGTH / 36 / wrong("right")
TWIN = read_results("ctc_pytorch")["scores"]["wide-10k"]["interval"]
SIZES = said(4, r"(?<=: )[\d,]+ parameters as in the original, [\d,]+ slim")
SLIM = [f"{slim / original:.2f}" for original, slim in zip(SIZES[::2], SIZES[1::2], strict=True)]
MINUTES = [publish.minutes(notebook) for notebook in READ.values()]
CLAIMS = {
    "README": {
        "![Twelve captchas of four characters; above each, what the finished network read: green "
        "if right, else red with the truth": code(8, 'savefig(FOLDER / "imgs" / "reading.png"'),
        "After two minutes of training": CLOCK,
        "most captchas that lesson 2 (digits) and lesson 3": GREEN,
        "most of it TensorFlow": "the size of .venv",
        "size: four minutes": CLOCK, "the rest: ten minutes": CLOCK,
        "Half an hour each": 25 < sum(MINUTES) / len(MINUTES) < 35,
        "8 seconds a line": "test_minutes_are_those_of_words_and_lines",
        "two hundred labels": said(8, r"\d+ pictures to learn from") == [200],
        "a fifth less tall": LOWER,
    },
    "lesson 1": {
        "four of 36 characters": (LENGTH, len(ALPHABET)) == (4, 36),
        "Most are easy": JUDGED,
        "in one of three sizes": len(FONT_SIZES) == 3,
        "boxes of one of three sizes": len(FONT_SIZES) == 3,
        "about half of them": ImageCaptcha.word_space_probability == 0.5,
        "up to a quarter of a letter": ImageCaptcha.word_offset_dx == 0.25,
        "half as much room again": "test_ch1_1_six_characters",
    },
    "lesson 2": {
        "the whole interval of our `classic-100k` is above it":
            read_results("cnn")["scores"]["classic-100k"]["interval"][0] > 0.9826,
        "until it reads most captchas of digits": GREEN, "Most of them are green": GREEN,
        "(two minutes on": CLOCK, "For two minutes": CLOCK,
        "and two minutes.": CLOCK,
        "several times as fast": SPEED,
        "Each block halves both sides":
            said(2, r"map: \(\d+, \d+") == [HEIGHT / 2**5, WIDTH / 2**5],
        "it doubles the number": code(2, "FILTERS = (32, 64, 128, 256, 256)"),
        "fewer filters": code(2, "filters=(24, 48, 96, 128)"),
        "on a quarter of the pixels": code(2, "convs=1, stride=2"),
        "at a tenth of the rate": TENTH, "at a tenth of it": TENTH,
        "three times the original's": code(2, "compile_at(3e-3)"),
        "9 of 10 and 9,000 of 10,000 are both 90 %": 9 / 10 == 9_000 / 10_000,
        "a fifth less tall": LOWER,
        "*Expected: two more heads of 73,764 each.": "test_ch2_2_six_heads",
        "both learn more slowly": "test_ch2_3_harder_tasks",
    },
    "lesson 3": {
        "after two minutes": CLOCK,
        "16 times 37 logits": said(3, r"GRU: .* output \(.*\)")[-2:] == [16, 37],
        "whole interval of our `classic-100k` is above that, with a network a fifth as large":
            read_results("ctc")["scores"]["classic-100k"]["interval"][0] > 0.9921
            and SLIM[1] == "0.21",
        "at three times that rate": code(3, "[(False, 1e-3), (False, 3e-3), (True, 3e-3)]"),
        "a tenth of it": TENTH,
        "hardly any picture": JUDGED, "Most columns say": JUDGED, "most columns say": JUDGED,
        "nearly all zeros": JUDGED,
        "*Expected: 24 steps, so up to 12: 12 characters and 11 blanks.": "test_ch3_1_wider",
        "ten times as many batches": RULE, "gains next to nothing": "test_ch3_3_beam_search",
    },
    "lesson 4": {
        "trained for two minutes": CLOCK,
        "Draw several times as fast": SPEED, "draws several times as fast": SPEED,
        "Most of the package's time": SPEED,
        "Most errors of a good network": PAIR > 0.5,
        "in half of the captchas, on average three of four": code(4, "hard=(0.5, 0.2)"),
        "towards the end in a fifth": code(4, "hard=(0.5, 0.2)"),
        "along half a cosine": RULE, "more than one of them": "test_an_interrupted_run_ends",
        "half an epoch was trained": code(4, "STEPS + STEPS // 2"),
        "a third of its parameters, the sequence model to a fifth": SLIM == ["0.33", "0.21"],
        "about three times the errors": 2.5
            < sum(missed("constant rate, last weights")) / sum(missed("the recipe")) < 3.5,
        "their average repairs it": as_the_recipe("constant rate"),
        "a few more errors": all(sum(missed(x)) > sum(missed("the recipe")) for x in OTHERS),
        "it may be chance": as_the_recipe(*OTHERS),
        "A bank draws faster": SPEED,
        "sixty times as many": round(read_results("ctc")["pictures"] / 1e6) == 6,
        "far more often, and `0` for `O` less often": WHITE_BANK,
        "the fewest errors": min(heads("CTC")) > max(heads("four heads", "CTC with a GRU")),
        "half as many parameters again": 1.4 < WEIGHTS["CTC with a GRU"] / WEIGHTS["CTC"] < 1.6,
        "a third as high": "test_ch4_2_a_long_cycle",
        "three quarters": "test_ch4_3_practise_two_pairs",
    },
    "lesson 5": {
        "every halving of the loss": RULE, "half of the errors": RULE,
        "more often than they occur": code(4, "hard=(0.5, 0.2)"),
        "at a tenth of the rate": set(read_log("stages").rate) >= {1e-3, 1e-4},
        "three times as high": code(4, "peak=3e-3"),
        "*Expected: all within 0.2 points of 95 %.": "test_ch5_2_more_captchas",
        "*Expected: above 1 is the cycle behind, below 1 it is ahead; find where they cross.":
            "test_ch5_3_cycle",
    },
    "lesson 6": {
        "one string in sixteen": 2**LENGTH == 16,
        "most of them overlap": JUDGED,
        "Half a pixel more, and each `O` becomes a zero; half a pixel less": JUDGED,
        "width hardly says anything": max(said(6, r"(?<=: )[\d.]+ %")[:3]) < 60,
        "hardly better than a coin": max(said(6, r"(?<=: )[\d.]+ %")[:3]) < 60,
        "right for most glyphs": min(said(6, r"(?<=: )[\d.]+ %")[3:]) > 70,
        "Four times as large": code(6, "4 * width, 4 * height"),
        "most of the zeros are no longer": code(6, "assert thinned_zero < n / 2 < thickened_o"),
        "most of the `O` are.": code(6, "assert thinned_zero < n / 2 < thickened_o"),
        "changes next to nothing": code(6, "max() < 0.15 * n"),
        "right more often than our single number was, so it sees more than that":
            100 * (1 - wrong("0 as O")) > max(said(6, r"(?<=: )[\d.]+ %")),
        "fewer than one in ten": code(6, "< 0.1 * len(sure)"),
        "avoid most errors": code(6, "> 0.6 * np.sum(~correct)"),
        "`I` change next to nothing": JUDGED,
        "Whoever wants fewer errors": PAIR > 0.5,
        "has the fewest errors": code(6, "min(place_wrong) == place_wrong[0]"),
        "most of the captchas, and hardly any": wrong("right") < 0.05,
        "more than twice as long": (100 / 20) ** 0.5 > 2,
        "right less often": "test_ch6_2_all_sizes_at_once",
    },
    "lesson 7": {
        "nearly every text": said(7, r"(?<=128 pixels: )\d+")[0] > 180,
        "about one in three": 55 < said(7, r"(?<=192 pixels: )\d+")[0] < 76,
        "fewer are read right": JUDGED,
        "lie in our interval": TWIN[0] < 0.9957 < TWIN[1],
        "*Expected: 1,052,672, as in `full.lstm.parameters()`.": "test_ch7_1_lstms_by_hand",
        "losses a quarter as large": "test_ch7_2_the_other_mean",
    },
    "lesson 8": {
        "two hundred labelled pictures": said(8, r"\d+ pictures to learn from") == [200],
        "takes a fifth of the *texts*": code(8, "split(texts, share=0.2"),
        "next to nothing is read right":
            max(tuned(x, 200) for x in ("finished weights, not moved", "from nothing")) < 0.1,
        "one captcha in four forms": RULE, "Three times as large": code(8, "resize((384, 192))"),
        "no more than a network that began": tuned("finished weights", 5_000)
            < tuned("from nothing", 5_000) + 0.01,
        "they read most": tuned("finished weights, not moved", 5_000)
            > max(tuned(name, 5_000) for name in ("finished weights", "from nothing")),
        "From none to about half": code(8, "right > len(test) / 3"),
        "most captchas are read right": "test_ch8_1_seven_characters",
        "fewer pictures are read right":
            tuned("finished weights, not moved", 200) < tuned("finished weights", 200),
        "forgotten about half of them": "test_a_new_style_makes_it_forget_the_old_one",
    },
}  # fmt: skip


def claims(text: str) -> list[re.Match]:
    """The claims of a text in one line, each at its place there."""
    return list(CLAIM.finditer(NO_CLAIM.sub(lambda m: "@" * len(m[0]), text)))


def uncovered(name: str, text: str) -> list[str]:
    """What is wrong with CLAIMS for this text: a claim without an entry, or words of no claim."""
    spans = [m.span() for words in CLAIMS[name] for m in re.finditer(re.escape(words), text)]
    new = [m for m in claims(text) if not any(a <= m.start() and m.end() <= b for a, b in spans)]
    return [
        f"{name} says `{text[max(0, m.start() - 40) : m.end() + 40]}`: add words around `{m[0]}` "
        f"to CLAIMS[{name!r}] in tests/test_claims.py, with what confirms them"
        for m in new
    ] + [
        f"{name} no longer says `{words}`: take it out of CLAIMS in tests/test_claims.py"
        for words in CLAIMS[name]
        if words not in text
    ]


@pytest.mark.parametrize("name", ["README", *LESSONS])
def test_every_claim_in_words_is_confirmed(name, record_property):
    assert uncovered(name, prose(name)) == []
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    for words, reason in CLAIMS[name].items():
        assert reason, f"{name} says `{words}`, and what CLAIMS computes says no"
        if str(reason).startswith("test_"):
            assert f"def {reason}" in tests, f"{name} says `{words}`, and there is no {reason}"
    record_property("claims confirmed", len(CLAIMS[name]))


@pytest.mark.parametrize("name", ["README", *LESSONS])
def test_every_other_claim_is_seen(name, record_property):
    """Each claim by itself is changed to a larger one."""
    text, found = prose(name), claims(prose(name))
    for m in found:
        assert uncovered(name, f"{text[: m.start()]}nine tenths{text[m.end() :]}"), m[0]
    record_property("lies caught", len(found))
