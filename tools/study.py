"""Measure what lessons 4, 5 and 8 show: `make study WHAT=bank`, ablation, heads, stages, tuning.

The functions below say what each of them measures. bank and stages take minutes, tuning half an
hour, ablation and heads hours: there, what is finished is not trained again, and what was stopped
goes on. A training lies in a folder that is named by its settings and by the code that made it.
"""

import argparse
import hashlib
import itertools
import json
import math
import random
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib import font_manager
from PIL import Image, ImageDraw

from captcha_reader import weights
from captcha_reader.bank import GlyphBank
from captcha_reader.drawing import draw_captchas, mask_of, stream
from captcha_reader.practice import Ahead, Practice
from captcha_reader.scores import share
from captcha_reader.testsets import draw_test_set
from captcha_reader.texts import (
    HEIGHT,
    PREVIEW_HEIGHT,
    PREVIEW_WIDTH,
    WIDTH,
    ctc_labels,
    encode,
    random_texts,
)
from tools import options, runs
from tools.lessons import write

LEAST = 64  # captchas: one batch
RUNS = Path("build/study")  # where trainings lie
NEW_BANK = 1_000  # captchas from one bank
VALID = 2_000  # held-out captchas that a network of tuning reads
CURVE = 1_000  # as many for each epoch of stages
LABELS = (200, 1_000, 5_000)  # labelled pictures of another style
RECIPE = {  # `changes` of `fit` below replace these
    "kind": "ctc",
    "network": {},
    "recipe": {},
    "practice": {},
    "precision": "mixed_bfloat16",
}
VARIANTS = {  # what is changed of it
    "the recipe": {},
    "AdamW instead of Muon": {"recipe": {"muon": False}},
    "a norm behind each convolution": {"network": {"norms": "every"}},
    "paper is 1": {"network": {"ink": False}},
    "batches of 128": {"practice": {"batch": 128}, "recipe": {"rate": 0.03}},
    "no practice of O and 0": {"practice": {"hard": 0.0}},
    "more practice of O and 0": {"practice": {"hard": 0.5}},
    "clipped at 1": {"recipe": {"clip": 1.0}},
    "no weight decay": {"recipe": {"decay": 0.0}},
    "constant rate": {"recipe": {"fall": False}},
    "full precision": {"precision": "float32"},
    "classic captchas alone": {"practice": {"sizes": 0.0}},
}
LAST = {  # what the last step's weights read, without their average, costs no training
    "the recipe": "last weights",
    "constant rate": "constant rate, last weights",
}
CLASSIC = {"practice": {"sizes": 0.0}}
HEADS = {
    "four heads": CLASSIC | {"kind": "cnn"},
    "CTC": CLASSIC,
    "CTC with a GRU": CLASSIC | {"network": {"rnn": (128,)}},
}


def write_results(out: Path, results: dict) -> None:
    """Write what was measured, and on which machine."""
    runs.write_json(out, results | {"machine": runs.hardware()})


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
        if start % NEW_BANK == 0:
            draw = PAINTERS[painter](f"{seed}/{start}")
        rng = stream(seed, painter, epoch=len(texts), index=start)
        answers += ch4.read_pictures(network, draw(texts[start : start + 100], rng, *size))
    return answers


def right(answers: list[str], texts: list[str]) -> int:
    """Count the texts that were read as they are."""
    return sum(a == b for a, b in zip(answers, texts, strict=True))


def mistaken(texts: list[str], answers: list[str], is_: str, read_as: str) -> list[int]:
    """Count a character that was read as another, and how often it occurs, in answers of four."""
    whole = [pair for pair in zip(texts, answers, strict=True) if len(pair[1]) == 4]
    pairs = [pair for text, answer in whole for pair in zip(text, answer, strict=True)]
    return [pairs.count((is_, read_as)), sum(character == is_ for character, _ in pairs)]


def apart(k1: int, n1: int, k2: int, n2: int) -> float:
    """Return z of the two-proportion test; beyond 2.58 in one of 100 pairs of equal shares."""
    pooled = (k1 + k2) / (n1 + n2)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    return (k1 / n1 - k2 / n2) / spread if spread else 0.0


def drawing_speed(seed: int, count: int = 200, repeats: int = 5) -> dict:
    """Time package and bank in turns: captchas in a second of one core's time."""
    rng, start = random.Random(seed), time.process_time()
    draws, rows = {"package": draw_captchas, "bank": GlyphBank(seed).draw}, []
    seconds = time.process_time() - start
    for _ in range(repeats):
        rows.append({})
        for name, draw in draws.items():
            texts, start = random_texts(rng, count), time.process_time()
            draw(texts, rng)
            rows[-1][name] = count / (time.process_time() - start)
    speeds = pd.DataFrame(rows)
    ratio = round(float((speeds.bank / speeds.package).median()), 2)
    medians = speeds.median().round(1).to_dict()
    return medians | {"ratio": ratio, "seconds to make a bank": round(seconds, 2)}


def bank(out: Path, pictures: int, seeds: list[int]) -> None:
    """Compare captchas of the package with those of a bank, and of a bank of white glyphs."""
    speed = drawing_speed(seeds[0])
    print(f"captchas a second of one core: {speed}", flush=True)
    network, results = weights.finished("ctc")
    rng = stream(seeds[0], "bank", epoch=0, index=0)
    uniform = random_texts(rng, pictures)
    letters = list("O0" * pictures)
    rng.shuffle(letters)
    hard = ["".join(letters[i : i + 4]) for i in range(0, len(letters), 4)]
    counts = {}
    for size in ((WIDTH, HEIGHT), (PREVIEW_WIDTH, PREVIEW_HEIGHT)):
        painters = counts[f"{size[0]}x{size[1]}"] = {}
        for name in PAINTERS:
            easy, difficult = (
                answers_to(network, texts, name, size, seeds[0]) for texts in (uniform, hard)
            )
            painters[name] = {
                "right": [right(easy, uniform), pictures],
                "0 as O": mistaken(hard, difficult, "0", "O"),
                "O as 0": mistaken(hard, difficult, "O", "0"),
                "O and 0 alone": [right(difficult, hard), len(hard)],
            }
            print(f"{name}, {size[0]}x{size[1]}")
            for what, count in painters[name].items():
                z = apart(*count, *painters["by the package"][what])
                verdict = "within chance" if abs(z) < 2.58 else "different"
                print(f"  {what:14}{share(*count)}  z = {z:.1f}, {verdict}", flush=True)
    judge = {"name": "ctc", "sha256": results["sha256"]}
    write_results(out, {"network": judge, "pictures": counts, "speed": speed})


def fit(seed: int, pictures: int, changes: dict):
    """Train by the changed recipe, or go on in the folder of these settings.

    Return the folder, which gets log.csv and in backup the last weights, the network with averaged
    weights, and 16 of its batches.
    """
    import keras

    from captcha_reader.training import check_backup
    from notebooks_py import ch4_gpu_training as ch4

    settings = {"seed": seed, "pictures": pictures} | RECIPE | changes
    name = hashlib.sha256(json.dumps([settings, runs.code_hash()]).encode()).hexdigest()[:16]
    folder, job = RUNS / name, Practice(seed, **settings["practice"])
    kind, steps = ch4.KINDS[settings["kind"]], round(pictures / job.batch)
    with runs.locked(folder), Ahead(job) as draw:
        runs.write_json(folder / runs.RUN, {"settings": settings, "steps": steps})
        check_backup(folder / "backup")
        keras.backend.clear_session()  # which forgets the precision, too
        keras.mixed_precision.set_dtype_policy(settings["precision"])
        keras.utils.set_random_seed(seed)
        model = kind["build"](**ch4.SLIM | settings["network"])
        ch4.compile_recipe(model, steps, **settings["recipe"])
        data = ch4.PracticeSequence(job, draw, kind["labels"])
        ch4.fit_recipe(model, data, steps, {}, folder)
        sample = [data[index][0] for index in range(16)]
    return folder, model, sample


def trainings(variants: dict, judge: str, out: Path, pictures: int, seeds: list[int]) -> None:
    """Train each variant with each seed; write what it reads of the set `judge` when it is done."""
    import keras

    from captcha_reader.training import settle_norms
    from notebooks_py import ch4_gpu_training as ch4

    batches = list(draw_test_set(judge))
    recipe = RECIPE | {"network": ch4.SLIM, "recipe": {"rate": ch4.RATE}}
    header = {"recipe": recipe, "pictures": pictures, "code": runs.code_hash()}
    header = json.loads(json.dumps(header))  # tuples become lists
    results = json.loads(out.read_text()) if out.exists() else header | {"rows": []}
    if results != results | header:
        raise ValueError(f"{out} holds rows of another recipe, number of pictures or code: "
                         "move it away, or use OUT=another-file")  # fmt: skip

    def row_of(model, **facts) -> dict:
        keras.mixed_precision.set_dtype_policy("float32")
        counts = [right(ch4.read_pictures(model, pictures), texts) for pictures, texts in batches]
        n = sum(len(texts) for _, texts in batches)
        row = facts | {"right": sum(counts), "n": n, "classic": sum(counts[:100])}
        print(f"{facts['name']}, seed {facts['seed']}: {share(row['right'], n)}", flush=True)
        return row

    for seed, (name, changes) in itertools.product(seeds, variants.items()):
        if any((row["name"], row["seed"]) == (name, seed) for row in results["rows"]):
            print(f"{name}, seed {seed}: is in {out}")
            continue
        folder, model, sample = fit(seed, pictures, changes)
        log = pd.read_csv(folder / "log.csv").drop_duplicates("epoch", keep="last")
        facts = {"seed": seed, "seconds": round(log.seconds.sum())}
        facts["parameters"] = model.count_params()
        rows = [row_of(model, name=name, **facts)]
        if name in LAST:
            model.load_weights(folder / "backup" / "latest.weights.h5")
            settle_norms(model, sample)
            rows.append(row_of(model, name=LAST[name], **facts))
        results["rows"] += rows
        write_results(out, results)


def two_stages(model, data, valid: dict, folder: Path):
    """Train as the original did: until the loss stops falling, then on from the best weights."""
    import keras
    import numpy as np

    from notebooks_py import ch3_ctc as ch3
    from notebooks_py.ch1_captcha_preview import SetEpoch

    ((pictures, y, texts),) = valid["classic"]
    best, logs, done = folder / "best.weights.h5", [], 0
    watch = [SetEpoch(data), ch3.Evaluate(pictures, texts)]
    keep = keras.callbacks.ModelCheckpoint(best, save_best_only=True, save_weights_only=True)
    valid = pictures.astype("float32") / 255, y
    for rate, end in ((1e-3, max(1, data.epochs * 2 // 3)), (1e-4, data.epochs)):
        model.compile(keras.optimizers.Adam(rate, amsgrad=True), keras.losses.CTC())
        stop = [] if logs else [keras.callbacks.EarlyStopping(patience=3)]
        arguments = {"validation_data": valid, "callbacks": [*watch, keep, *stop], "verbose": 2}
        history = model.fit(data, initial_epoch=done, epochs=end, shuffle=False, **arguments)
        logs.append(pd.DataFrame(history.history).assign(epoch=np.array(history.epoch), rate=rate))
        done = history.epoch[-1] + 1
        model.load_weights(best)
    return pd.concat(logs)


def one_cycle(model, data, valid: dict, folder: Path):
    """Train by the recipe of lesson 4."""
    from notebooks_py import ch4_gpu_training as ch4

    an_epoch = data.practice.steps
    steps = data.epochs * an_epoch
    cycle = ch4.compile_recipe(model, steps)
    ch4.fit_recipe(model, data, steps, valid, folder)
    log = pd.read_csv(folder / "log.csv")
    return log.assign(rate=[float(cycle(an_epoch * (epoch + 1))) for epoch in log.epoch])


def stages(out: Path, pictures: int, seeds: list[int]) -> None:
    """Train lesson 3's small network in two stages and in one cycle, on the same captchas."""
    from notebooks_py import ch3_ctc as ch3
    from notebooks_py import ch4_gpu_training as ch4

    rng = stream(seeds[0], "valid", epoch=0, index=0)
    texts = random_texts(rng, CURVE)
    valid = {"classic": [(draw_captchas(texts, rng), ctc_labels(texts), texts)]}
    epoch, logs = min(2_048, pictures), []  # short, for a curve with many points
    for recipe, train in {"two stages": two_stages, "one cycle": one_cycle}.items():
        print(recipe, flush=True)
        data = ch4.PracticeSequence(Practice(seeds[0], 32, sizes=0.0, hard=0.0, epoch=epoch))
        data.epochs = max(2, pictures // (32 * data.steps))
        with tempfile.TemporaryDirectory() as folder:
            log = train(ch3.small_ctc(seeds[0]), data, valid, Path(folder))
        logs.append(log.assign(recipe=recipe, pictures=(log.epoch + 1) * 32 * data.practice.steps))
    columns = ["recipe", "epoch", "pictures", "rate", "loss", "val_loss", "val_acc"]
    write(out, pd.concat(logs)[columns].to_csv(index=False, float_format="%.5g"))


def tuning(out: Path, pictures: int, seeds: list[int]) -> None:
    """Learn another style from few pictures, from finished weights and from nothing."""
    import keras

    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py import ch8_own_captchas as ch8

    seed, font = seeds[0], font_manager.findfont("DejaVu Serif:bold")

    def draw(split: str, count: int) -> tuple:
        rng = stream(seed, split, epoch=8, index=0)
        texts = random_texts(rng, count)
        return ch8.draw_foreign(texts, rng, font), texts

    start, results = weights.finished("ctc")
    (X, texts), (unseen, truth), rows = draw("train", max(LABELS)), draw("valid", VALID), {}
    for name in ("finished weights", "finished weights, not moved", "from nothing"):
        rows[name] = {}
        for count in LABELS:
            keras.utils.set_random_seed(seed)
            model = ch4.build_ctc(**ch4.SLIM)
            if name != "from nothing":
                model.set_weights(start.get_weights())
            known, labels = X[:count].astype("float32") / 255, encode(texts[:count]) + 1
            moved = name != "finished weights, not moved"
            ch8.fine_tune(model, known, labels, pictures // 32, seed, moved)
            answers = [
                x for i in range(0, VALID, 50) for x in ch4.read_pictures(model, unseen[i : i + 50])
            ]
            rows[name][count] = right(answers, truth)
            print(f"{name}, {count}: {share(rows[name][count], VALID)}", flush=True)
    write_results(
        out, {"start": results["sha256"], "n": VALID, "pictures": pictures, "right": rows}
    )


STUDIES = {  # what measures it, where it goes, and with how many pictures
    "bank": (bank, "models/bank.json", 10_000),
    "ablation": (partial(trainings, VARIANTS, "judge-20k"), "models/ablation.json", 100_000),
    "heads": (partial(trainings, HEADS, "judge-classic-10k"), "models/heads.json", 100_000),
    "stages": (stages, "models/stages.csv", 61_440),
    "tuning": (tuning, "models/tuning.json", 19_200),
}


def whole_numbers(text: str) -> list[int]:
    """Read whole numbers with commas between them."""
    return [options.whole(number) for number in text.split(",")]


def main() -> int:
    """Measure what the command line says."""
    parser = options.parser("study", "Repeat a comparison of lessons 4, 5 and 8.")
    add = parser.add_argument
    unset = argparse.SUPPRESS
    add("--what", choices=STUDIES, required=True, default=unset, help="what to compare")
    add(
        "--pictures", type=options.positive, default=unset, help="captchas, if not as many as usual"
    )
    add("--seeds", type=whole_numbers, default="2019,2020", help="bank, stages, tuning: the first")
    add("--out", type=Path, default=unset, help="a file; models/WHAT.json or .csv if not")
    given = parser.parse_args()
    study, out, pictures = STUDIES[given.what]
    out, pictures = getattr(given, "out", Path(out)), getattr(given, "pictures", pictures)
    if pictures < LEAST:
        parser.error(f"--pictures={pictures} is less than one batch of {LEAST}")
    with options.quietly():
        import keras  # noqa: F401
    study(out, pictures, given.seeds)
    print(f"written: {out}")
    return 0


if __name__ == "__main__":
    runs.end_with(main)
