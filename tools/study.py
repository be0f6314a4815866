"""Measure what lessons show: `make study WHAT=bank`, ablation, heads, kinds, tuning.

The functions below say what each of them measures. bank and kinds take minutes, the others hours:
there, what is finished is not trained again, and what was stopped goes on. A training lies in a
folder that is named by its settings and by the code that made it.
"""

import contextlib
import io
import itertools
import json
import random
import tempfile
import warnings
from functools import partial
from operator import eq
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from captcha_reader import __main__ as command
from captcha_reader import weights
from captcha_reader.bank import GlyphBank
from captcha_reader.drawing import draw_captchas, mask_of, stream
from captcha_reader.folders import alphabet_of, read_folder
from captcha_reader.practice import Ahead, Practice
from captcha_reader.reading import scale
from captcha_reader.scores import evaluate, share
from captcha_reader.styles import STYLES, draw_style
from captcha_reader.texts import ALPHABET, random_texts
from tools import kinds, options, runs
from tools.lessons import digest

RUNS = Path("build/study")  # where trainings lie
SIZES = ((128, 64), (170, 80))  # of classic captchas, and of those in lesson 1
VALID = 1_000  # held-out captchas that a network of tuning reads
LABELS = (200, 1_000, 5_000)  # labelled pictures of another style
SVG = Path("build/svg-captcha")  # 6,000 pictures that tools/svg_captcha.js draws there
TUNING = {  # whether it goes on from finished weights, and how far pictures are moved
    "finished weights": (True, 1.0),
    "finished weights, not moved": (True, 0.0),
    "from nothing": (False, 1.0),
}
RECIPE = {"kind": "ctc", "network": {}, "recipe": {}, "practice": {}, "precision": "mixed_bfloat16"}
CLASSIC = {"practice": {"sizes": 0.0}}
VARIANTS = {
    "the recipe": {},
    "AdamW instead of Muon": {"recipe": {"muon": False}},
    "a norm after each convolution": {"network": {"norms": "every"}},
    "paper is 1": {"network": {"ink": False}},
    "batches of 128": {"practice": {"batch": 128}, "recipe": {"rate": 0.03}},
    "no practice of O and 0": {"practice": {"hard": 0.0}},
    "more practice of O and 0": {"practice": {"hard": 0.5}},
    "clipped at 1": {"recipe": {"clip": 1.0}},
    "no weight decay": {"recipe": {"decay": 0.0}},
    "constant rate": {"recipe": {"fall": False}},
    "full precision": {"precision": "float32"},
    "classic captchas alone": CLASSIC,
}
LAST = {  # what the last step's weights read, without their average, costs no training
    "the recipe": "last weights",
    "constant rate": "constant rate, last weights",
}
PLAIN = CLASSIC | {"precision": "float32"}  # not every processor has fast 16 bits
HEADS = {
    "four heads": PLAIN | {"kind": "cnn"},
    "CTC": PLAIN,
    "CTC with a GRU": PLAIN | {"network": {"rnn": (128,)}},
}


class WhiteBank(GlyphBank):
    """The counter-example: glyphs drawn in white and coloured afterwards, as strong as theirs."""

    def glyph(self, painter, character, color):
        canvas = ImageDraw.Draw(Image.new("RGB", (1, 1)))
        white = painter._draw_character(character, canvas, (255, 255, 255, 255))
        colored = white.copy()
        colored.paste(color[:3], (0, 0, *white.size))
        strength = mask_of(colored).getpixel((0, 0)) / 255
        return colored.convert("RGB"), white.convert("L").point(lambda level: level * strength)


PAINTERS = {
    "by the package": lambda seed: draw_captchas,
    "by a glyph bank": lambda seed: GlyphBank(seed).draw,
    "by a bank of white glyphs": lambda seed: WhiteBank(seed).draw,
}


def answers_to(network, texts: list[str], painter: str, size: tuple, seed: int) -> list[str]:
    """Let a network read each text as the painter draws it, a new bank for each 1,000."""
    from notebooks_py import ch4_gpu_training as ch4

    answers = []
    for start in range(0, len(texts), 100):
        if start % 1_000 == 0:
            draw = PAINTERS[painter](f"{seed}/{start}")
        rng = stream(seed, painter, epoch=len(texts), index=start)
        answers += ch4.read_pictures(network, draw(texts[start : start + 100], rng, *size))
    return answers


def mistaken(texts: list[str], answers: list[str], is_: str, read_as: str) -> list[int]:
    """Count a character that was read as another, and how often it occurs, in answers of four."""
    whole = [pair for pair in zip(texts, answers, strict=True) if len(pair[1]) == 4]
    pairs = [pair for text, answer in whole for pair in zip(text, answer, strict=True)]
    return [pairs.count((is_, read_as)), sum(character == is_ for character, _ in pairs)]


def bank(pictures: int, seed: int) -> dict:
    """Compare captchas of the package with those of a bank, and of a bank of white glyphs."""
    network, results = weights.finished("ctc")
    rng = stream(seed, "bank", epoch=0, index=0)
    uniform = random_texts(rng, pictures)
    hard = random_texts(rng, pictures // 2, "O0")
    counts = {}
    for size in SIZES:
        painters = counts[f"{size[0]}x{size[1]}"] = {}
        for name in PAINTERS:
            easy = answers_to(network, uniform, name, size, seed)
            difficult = answers_to(network, hard, name, size, seed)
            painters[name] = {
                "right": [sum(map(eq, easy, uniform)), pictures],
                "0 as O": mistaken(hard, difficult, "0", "O"),
                "O as 0": mistaken(hard, difficult, "O", "0"),
                "O and 0 alone": [sum(map(eq, difficult, hard)), len(hard)],
            }
            print(f"{name}, {size[0]}x{size[1]}")
            for what, count in painters[name].items():
                print(f"  {what:14}{share(*count)}", flush=True)
    return {"network": {"name": "ctc", "sha256": results["sha256"]}, "pictures": counts}


def rows_of(name: str, changes: dict, judge: str, pictures: int, seed: int) -> list[dict]:
    """Train by the changed recipe, or go on in the folder of these settings, and read `judge`.

    The folder gets log.csv, backup, and a file of what this returns, so that it is not done again.
    """
    import keras

    from captcha_reader.training import settle_norms
    from notebooks_py import ch4_gpu_training as ch4
    from tools.networks import NETWORKS

    settings = {"seed": seed, "pictures": pictures} | RECIPE | changes
    folder = RUNS / digest([settings, runs.code_hash()])[:16]
    job = Practice(seed, **settings["practice"])
    if (finished := folder / f"{judge}.json").exists():
        return json.loads(finished.read_text())["rows"]
    kind, steps = NETWORKS[settings["kind"]], round(pictures / job.batch)
    with runs.locked(folder), Ahead(job) as draw:
        runs.write_json(folder / runs.RUN, {"settings": settings, "steps": steps})
        keras.backend.clear_session()  # which forgets the precision, too
        keras.mixed_precision.set_dtype_policy(settings["precision"])
        keras.utils.set_random_seed(seed)
        model = kind["build"](**ch4.SLIM | settings["network"])
        ch4.compile_recipe(model, steps, loss=kind["loss"], **settings["recipe"])
        data = ch4.PracticeSequence(job, draw, kind["labels"])
        ch4.fit_recipe(model, data, steps, {}, folder, decode=kind["decode"])
        facts = {"seed": seed, "seconds": round(runs.read_log(folder).seconds.sum())}
        facts["parameters"] = model.count_params()
        read = partial(ch4.read_pictures, model, decode=kind["decode"])
        rows = [{"name": name} | facts | evaluate(read, judge).record()]
        if name in LAST:
            data.epoch = 0  # the same sample, whenever the run goes on
            model.load_weights(folder / "backup" / "latest.weights.h5")
            settle_norms(model, [data[index][0] for index in range(16)])
            rows.append({"name": LAST[name]} | facts | evaluate(read, judge).record())
        runs.write_json(finished, {"rows": rows})
    return rows


def trainings(variants: dict, judge: str, pictures: int, seed: int) -> dict:
    """Train each variant with this seed and the next, and count what it reads of the judge's."""
    rows = []
    for each, (name, changes) in itertools.product((seed, seed + 1), variants.items()):
        for row in rows_of(name, changes, judge, pictures, each):
            print(f"{row['name']}, seed {each}: {share(row['right'], row['n'])}", flush=True)
            rows.append(row)
    facts = {"recipe": RECIPE, "variants": variants, "pictures": pictures}
    return facts | {"code": runs.code_hash(), "rows": rows}


def people(pictures: int, seed: int) -> dict:
    """Count what the command line reads right in `pictures` files of each of the kinds."""
    rows, network = {}, {"name": "ctc", "sha256": weights.read_results("ctc")["sha256"]}
    for name, draw in kinds.PICTURES.items():
        drawn = [draw(stream(seed, "kinds", 0, index)) for index in range(pictures)]
        with tempfile.TemporaryDirectory() as folder:
            for index, (picture, _) in enumerate(drawn):
                picture.save(Path(folder, f"{index:06}.png"))
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                command.main(["--json", folder])
        readings = map(json.loads, printed.getvalue().splitlines())
        pairs = zip(readings, drawn, strict=True)
        wrong = [read["confidence"] or 0 for read, (_, text) in pairs if read["text"] != text]
        surer = {f"wrong, surer than {p} %": sum(100 * x > p for x in wrong) for p in (50, 70, 90)}
        rows[name] = {"right": pictures - len(wrong), "n": pictures} | surer
        print(f"{name:34} {share(rows[name]['right'], pictures)}", *surer.values(), flush=True)
    return {"network": network, "rows": rows, "code": runs.code_hash()}


def styles(seed: int) -> dict[str, tuple]:
    """Return pictures of one width, texts and alphabet of each style that tuning learns."""
    drawn = {}
    for style in ("lower case", "noisy digits"):
        rng = stream(seed, style, epoch=8, index=0)
        alphabet, length, *_ = STYLES[style]
        texts = random_texts(rng, max(LABELS) + VALID, alphabet, length)
        drawn[style] = scale(draw_style(style, texts, rng)), texts, alphabet
    with warnings.catch_warnings(action="ignore"):  # names that differ in case alone
        pictures, texts = read_folder(SVG)
    places = random.Random(seed).sample(range(len(texts)), max(LABELS) + VALID)
    texts = [texts[i] for i in places]
    drawn[SVG.name] = np.stack([pictures[i] for i in places]), texts, alphabet_of(texts)
    return drawn


def tuning(pictures: int, seed: int) -> dict:
    """Learn other styles from few pictures, as `make tune` does, with a third of its batches."""
    import keras

    from notebooks_py import ch3_ctc as ch3
    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py import ch8_own_captchas as ch8

    start, results = weights.finished("ctc")
    rows = []
    for (style, (X, texts, alphabet)), (name, (known, far)), labels in itertools.product(
        styles(seed).items(), TUNING.items(), LABELS
    ):
        steps = round(pictures / 32 * (labels / min(LABELS)) ** 0.5)
        row = {"style": style, "name": name, "labels": labels, "steps": steps}
        folder = RUNS / digest([row, seed, results["sha256"], runs.code_hash()])[:16]
        if not (finished := folder / "row.json").exists():
            with runs.locked(folder):
                runs.write_json(folder / runs.RUN, row)
                keras.utils.set_random_seed(seed)
                model = ch4.build_ctc(len(alphabet), **ch4.SLIM)
                if known:
                    model.set_weights(ch8.with_alphabet(start, ALPHABET, alphabet).get_weights())
                data = ch8.own_captchas(X[:labels], texts[:labels], alphabet, seed, far)
                ch8.fine_tune(model, data, steps, folder)
                answers = []
                for i in range(max(LABELS), len(texts), 50):
                    answers += ch3.read_ctc(model, X[i : i + 50], alphabet)
                right = sum(map(eq, answers, texts[max(LABELS) :]))
                seconds = round(runs.read_log(folder).seconds.sum())
                runs.write_json(finished, row | {"n": VALID, "right": right, "seconds": seconds})
        rows.append(json.loads(finished.read_text()))
        right, seconds = rows[-1]["right"], rows[-1]["seconds"]
        print(f"{style}, {name}, {labels}: {share(right, VALID)}, {seconds} s", flush=True)
    return {"start": results["sha256"], "code": runs.code_hash(), "rows": rows}


STUDIES = {  # what measures it, and with how many pictures
    "bank": (bank, 10_000),
    "ablation": (partial(trainings, VARIANTS, "judge-20k"), 100_000),
    "heads": (partial(trainings, HEADS, "judge-classic-10k"), 100_000),
    "kinds": (people, 1_000),
    "tuning": (tuning, 4_288),
}


def main() -> None:
    """Run the study that the command line names."""
    parser = options.parser("study", "Repeat a comparison of lessons 4 and 8.")
    add = parser.add_argument
    batch = options.number(int, 64, float("inf"), "at least one batch of 64")
    add("--what", choices=STUDIES, required=True, help="what to compare")
    add("--pictures", type=batch, help="captchas, if not as usual")
    add("--seed", type=options.whole, default=2019, help="ablation, heads: and the next")
    add("--out", type=options.path, help="a file; models/WHAT.json if not")
    given = parser.parse_args()
    study, usual = STUDIES[given.what]
    pictures, out = given.pictures or usual, given.out or Path("models", f"{given.what}.json")
    if out.is_dir():
        parser.error(f"--out={out} is a folder; name a file, as in OUT={out / given.what}.json")
    if given.what == "tuning" and not SVG.exists():
        parser.error(f"there is no {SVG}: tools/svg_captcha.js draws it, and says how")
    options.import_keras()
    results = study(pictures, given.seed)
    runs.write_json(out, results | {"machine": runs.hardware()})
    print(f"written: {out}")


if __name__ == "__main__":
    options.end_with(main)
