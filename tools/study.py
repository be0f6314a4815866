"""Measure what lessons 4, 5 and 8 show: `make study WHAT=bank`, ablation, heads, stages...

The functions below say what each of them measures. bank and stages take minutes, lengths and tuning
half an hour, ablation and heads hours: there, what is finished is not trained again, and what was
stopped goes on.
"""

import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path

import options
import pandas as pd
from matplotlib import font_manager
from train import hardware, held_out

from captcha_reader import weights
from captcha_reader.bank import GlyphBank
from captcha_reader.drawing import draw_captchas, draw_wide, mask_of, stream
from captcha_reader.scores import evaluate, share
from captcha_reader.texts import ALPHABET, WIDE_WIDTH, encode, random_texts

with options.quietly():
    import keras

    from notebooks_py import ch3_ctc as ch3
    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py import ch8_own_captchas as ch8
    from notebooks_py.ch1_captcha_preview import SetEpoch

DEFAULTS = {
    "WHAT": "",
    "PICTURES": "0",  # 0: as many as the study usually takes
    "SEEDS": "2019,2020,2021",  # all but ablation and heads take the first
    "OUT": "",  # a file; the default is models/bank.json, ..., models/stages.csv
    "RUNS": "build/study",  # a folder for trainings
    "SET": "classic-10k",  # what the networks of heads read
}
ALLOWED = {
    "WHAT": "bank|ablation|heads|stages|lengths|tuning "
    "one of bank, ablation, heads, stages, lengths, tuning",
    "PICTURES": options.WHOLE,
    "SEEDS": options.WHOLES,
}
PRACTISED = ALPHABET + 19 * "O0"  # what the banks of lesson 4 are made of
NEW_BANK = 1_000  # captchas from one bank
VALID = 2_000  # held-out captchas that a network reads
LABELS = (200, 1_000, 5_000)  # labelled pictures of another style
RECIPE = (
    "AdamW 3e-3, one cycle, clipped at 1, averaged, a new bank for each epoch, much O and 0, "
    "ink = 1, batches of 64, full precision"
)
VARIANTS = {  # arguments of `fit` below
    "the recipe": {},
    "paper is 1": {"network": {"ink": False}},
    "no practice of O and 0": {"data": {"hard": (0, 0)}},
    "constant rate": {"recipe": {"fall": False}},
    "no clipping": {"recipe": {"clip": None}},
    "half precision": {"precision": "mixed_bfloat16"},
    "drawn by the package": {"data": {"draw": draw_captchas}},
}
LAST = {  # what the last step's weights read, without their average, costs no training
    "the recipe": "last weights",
    "constant rate": "constant rate, last weights",
}
HEADS = {"four heads": {"kind": "cnn"}, "CTC": {}, "CTC with a GRU": {"network": {"rnn": (128,)}}}


def write(out: Path, found: dict) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found | {"machine": hardware()}, indent=1) + "\n")


class WhiteBank(GlyphBank):
    """The counter-example: glyphs drawn in white and coloured afterwards, as strong as theirs."""

    def _glyph(self, character, color):
        white = self.painter._draw_character(character, self.canvas, (255, 255, 255, 255))
        colored = white.copy()
        colored.paste(color[:3], (0, 0, *white.size))
        strength = mask_of(colored).getpixel((0, 0)) / 255
        return colored.convert("RGB"), white.convert("L").point(lambda level: level * strength)


PAINTERS = {
    "by the package": lambda seed: draw_captchas,
    "by a glyph bank": lambda seed: GlyphBank(seed, PRACTISED).draw,
    "by a bank of white glyphs": lambda seed: WhiteBank(seed, PRACTISED).draw,
}


def answers_to(network, texts: list[str], painter: str, seed: int) -> list[str]:
    """Let a network read each text as the painter draws it, a new bank for each 1,000."""
    answers = []
    for start in range(0, len(texts), 100):
        if start % NEW_BANK == 0:
            draw = PAINTERS[painter](f"{seed}/{start}")
        rng = stream(seed, painter, epoch=len(texts), index=start)
        answers += ch4.read(network, draw(texts[start : start + 100], rng))
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
    found = speeds.median().round(1).to_dict()
    return {**found, "ratio": ratio, "seconds to make a bank": round(seconds, 2)}


def bank(chosen: dict, out: Path, pictures: int, seeds: list[int]) -> None:
    """Compare captchas of the package with those of a bank, and of a bank of white glyphs."""
    speed = drawing_speed(seeds[0])
    print(f"captchas a second of one core: {speed}", flush=True)
    network, results = weights.finished("ctc")
    rng = stream(seeds[0], "bank", epoch=0, index=0)
    uniform = random_texts(rng, pictures)
    letters = list("O0" * pictures)
    rng.shuffle(letters)
    hard = ["".join(letters[i : i + 4]) for i in range(0, len(letters), 4)]
    found, theirs = {}, None
    for name in PAINTERS:
        easy, difficult = (answers_to(network, x, name, seeds[0]) for x in (uniform, hard))
        counts = {
            "right": [right(easy, uniform), pictures],
            "0 as O": mistaken(hard, difficult, "0", "O"),
            "O as 0": mistaken(hard, difficult, "O", "0"),
            "O and 0 alone": [right(difficult, hard), len(hard)],
        }
        theirs = theirs or counts  # the package comes first
        for what, count in counts.items():
            z = apart(*count, *theirs[what])
            verdict = "chance" if abs(z) < 2.58 else "another thing"
            print(f"{name:26}{what:14}{share(*count)}  z = {z:.1f}, {verdict}", flush=True)
        found[name] = {"n": pictures, **counts, "right": counts["right"][0]}
    network = {"name": "ctc", "sha256": results["sha256"]}
    write(out, {"network": network, "pictures": found, "speed": speed})


def fit(
    folder, seed, pictures, kind="ctc", network=None, recipe=None, data=None, precision="float32"
):
    """Train by the recipe with some arguments changed, or go on in `folder`; return the log."""
    folder.mkdir(parents=True, exist_ok=True)
    keras.backend.clear_session()  # which forgets the precision, too
    keras.mixed_precision.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    build, labels, _, decode = ch4.KINDS[kind].values()
    X, y, texts = held_out(seed, VALID, labels)
    model = build(**ch4.SLIM | (network or {}))
    epochs = min(5, pictures // 64)
    steps = pictures // 64 // epochs
    ch4.compile_recipe(model, epochs * steps, **recipe or {})
    more = {"labels": labels, "epochs": epochs, "workers": 2} | (data or {})
    sequence = ch4.PracticeSequence(64, steps, seed, **more)

    def read_with_last_weights(epoch, logs):  # `val_acc` is read with averaged ones
        answers = decode(model.predict(X, batch_size=100, verbose=0))
        logs["last"] = right(answers, texts) / VALID

    both = keras.callbacks.LambdaCallback(on_epoch_end=read_with_last_weights)
    log = keras.callbacks.CSVLogger(folder / "both.csv", append=True)
    ch4.fit_recipe(model, sequence, (X, y, texts), folder, [both, log])
    log = pd.read_csv(folder / "both.csv").drop_duplicates("epoch", keep="last")
    return log.assign(pictures=(log.epoch + 1) * steps * 64, parameters=model.count_params())


def ablation_row(log, folder: Path, test_set: str) -> dict:
    right, last = (round(log[name].iloc[-1] * VALID) for name in ("val_acc", "last"))
    return {"n": VALID, "right": right, "last": last}


def heads_row(log, folder: Path, test_set: str) -> dict:
    path = folder / "averaged.keras"
    network = keras.models.load_model(path, compile=False)
    score = evaluate(lambda pictures: ch4.read(network, pictures), test_set).record()
    return score | {"bytes": path.stat().st_size}


def trainings(chosen: dict, out: Path, pictures: int, seeds: list[int]) -> None:
    """Train each variant or head with each seed; write a row when it is done."""
    is_ablation = chosen["WHAT"] == "ablation"
    found = {"recipe": RECIPE, "pictures": pictures, "rows": []}
    if out.exists():
        found = json.loads(out.read_text())
        if (found["recipe"], found["pictures"]) != (RECIPE, pictures):
            held = f"{found['pictures']} pictures each by the recipe {found['recipe']!r}"
            raise SystemExit(f"study: {out} holds {held}: move it away, or use OUT=another-file")
    for seed in seeds:
        for name, changes in (VARIANTS if is_ablation else HEADS).items():
            key = {"name": name, "seed": seed}
            if any(key.items() <= row.items() for row in found["rows"]):
                print(f"{name}, seed {seed}: is in {out}")
                continue
            print(f"{name}, seed {seed}", flush=True)
            folder = Path(chosen["RUNS"]) / f"{name.replace(' ', '-')}-{seed}-{pictures}"
            log = fit(folder, seed, pictures, **changes)
            facts = {"seconds": round(log.seconds.sum()), "parameters": int(log.parameters[0])}
            row = {**key, "pictures": int(log.pictures.max()), **facts}
            row |= (ablation_row if is_ablation else heads_row)(log, folder, chosen["SET"])
            found["rows"].append(row)
            if is_ablation and name in LAST:
                found["rows"].append(row | {"name": LAST[name], "right": row["last"]})
            write(out, found)
            print(share(row["right"], row["n"]), flush=True)


def two_stages(model, data, valid: tuple, folder: Path):
    """Train as the original did: until the loss stops falling, then on from the best weights."""
    X, y, texts = valid
    best, logs, done = folder / "best.weights.h5", [], 0
    watch = [SetEpoch(data), ch3.Evaluate((255 * X).round().astype("uint8"), texts)]
    keep = keras.callbacks.ModelCheckpoint(best, save_best_only=True, save_weights_only=True)
    for rate, end in ((1e-3, max(1, data.epochs * 2 // 3)), (1e-4, data.epochs)):
        model.compile(keras.optimizers.Adam(rate, amsgrad=True), keras.losses.CTC())
        stop = [] if logs else [keras.callbacks.EarlyStopping(patience=3)]
        options = {"validation_data": (X, y), "callbacks": [*watch, keep, *stop], "verbose": 2}
        history = model.fit(data, initial_epoch=done, epochs=end, shuffle=False, **options)
        logs.append(pd.DataFrame(history.history).assign(epoch=history.epoch, rate=rate))
        done = history.epoch[-1] + 1
        model.load_weights(best)
    return pd.concat(logs)


def one_cycle(model, data, valid: tuple, folder: Path):
    """Train by the recipe of lesson 4."""
    cycle = ch4.compile_recipe(model, data.epochs * data.steps)
    ch4.fit_recipe(model, data, valid, folder)
    log = pd.read_csv(folder / "log.csv")
    return log.assign(rate=[float(cycle(data.steps * (epoch + 1))) for epoch in log.epoch])


def stages(chosen: dict, out: Path, pictures: int, seeds: list[int]) -> None:
    """Train lesson 3's small network in two stages and in one cycle, on the same captchas."""
    steps = max(1, min(64, pictures // 64))
    epochs, valid, logs = max(2, pictures // (32 * steps)), held_out(seeds[0], 1_000), []
    for recipe, train in {"two stages": two_stages, "one cycle": one_cycle}.items():
        print(recipe, flush=True)
        more = {"labels": "ctc", "epochs": epochs, "hard": (0, 0), "workers": 2}
        data = ch4.PracticeSequence(32, steps, seeds[0], **more)
        with tempfile.TemporaryDirectory() as folder:
            log = train(ch3.small_ctc(seeds[0]), data, valid, Path(folder))
        logs.append(log.assign(recipe=recipe, pictures=(log.epoch + 1) * 32 * steps))
    columns = ["recipe", "epoch", "pictures", "rate", "loss", "val_loss", "val_acc"]
    out.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(logs)[columns].to_csv(out, index=False, float_format="%.5g")


def lengths(chosen: dict, out: Path, pictures: int, seeds: list[int]) -> None:
    """Let the finished CTC network read 3 to 6 characters, train it on these, and read again."""
    seed, each, folder = seeds[0], range(3, 7), Path(chosen["RUNS"]) / "lengths"
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(seed)
    model, (start, results) = ch4.build_ctc(width=WIDE_WIDTH, **ch4.SLIM), weights.finished("ctc")
    model.set_weights(start.get_weights())
    found = {"before": ch8.right_by_length(model, each, VALID, seed)}
    print(f"before: {found['before']} of {VALID}", flush=True)
    steps = min(200, pictures // 64)
    epochs = round(pictures / 64 / steps)
    valid = ch8.AnyLength(VALID // 2, 1, seed, "valid", draw=draw_wide, hard=(0, 0))
    unseen = (*valid[0], valid.texts(stream(seed, "valid", 0, 0)))
    keras.mixed_precision.set_dtype_policy(ch4.best_precision())
    trained = ch4.build_ctc(width=WIDE_WIDTH, **ch4.SLIM)
    trained.set_weights(model.get_weights())
    ch4.compile_recipe(trained, epochs * steps, 1e-3)
    data = ch8.AnyLength(64, steps, seed, epochs=epochs, hard=(0.5, 0.2), workers=2)
    ch4.fit_recipe(trained, data, unseen, folder)
    keras.mixed_precision.set_dtype_policy("float32")  # which the network that reads has
    model.set_weights(trained.get_weights())
    found["after"] = ch8.right_by_length(model, each, VALID, seed)
    print(f"after: {found['after']} of {VALID}")
    log = pd.read_csv(folder / "log.csv").drop_duplicates("epoch", keep="last")
    facts = {"pictures": epochs * steps * 64, "seconds": round(log.seconds.sum())}
    curve = {"seen": [64 * steps * (e + 1) for e in log.epoch], "curve": log.val_acc.tolist()}
    write(out, {"start": results["sha256"], "n": VALID, "right": found, **facts, **curve})


def tuning(chosen: dict, out: Path, pictures: int, seeds: list[int]) -> None:
    """Learn another style from few pictures, from finished weights and from nothing."""
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
            answers = [x for i in range(0, VALID, 50) for x in ch4.read(model, unseen[i : i + 50])]
            rows[name][count] = right(answers, truth)
            print(f"{name}, {count}: {share(rows[name][count], VALID)}", flush=True)
    write(out, {"start": results["sha256"], "n": VALID, "pictures": pictures, "right": rows})


STUDIES = {  # what measures it, where it goes, and with how many pictures
    "bank": (bank, "models/bank.json", 10_000),
    "ablation": (trainings, "models/ablation.json", 100_000),
    "heads": (trainings, "models/heads.json", 100_000),
    "stages": (stages, "models/stages.csv", 61_440),
    "lengths": (lengths, "models/lengths.json", 64_000),
    "tuning": (tuning, "models/tuning.json", 19_200),
}


def main() -> None:
    chosen = options.read(sys.argv[1:], "study", DEFAULTS, ALLOWED)
    study, out, pictures = STUDIES[chosen["WHAT"]]
    out, seeds = Path(chosen["OUT"] or out), [int(seed) for seed in chosen["SEEDS"].split(",")]
    study(chosen, out, int(chosen["PICTURES"]) or pictures, seeds)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
