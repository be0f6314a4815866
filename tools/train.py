"""Train a network from nothing: `make train MODEL=ctc` is how models/ctc.keras was made.

The same command goes on where it was stopped. Nothing of Jupyter or TensorFlow is needed:
`PYTHONPATH=. KERAS_BACKEND=jax python -m tools.train --model=ctc --size=full --budget=5000000`.

Keras is imported inside the functions: processes that draw import this file, and need none.
"""

import contextlib
import functools
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from captcha_reader.drawing import draw_captchas, draw_wide, stream
from captcha_reader.practice import EPOCH, Ahead, Practice
from captcha_reader.reading import scale
from captcha_reader.testsets import in_any_size
from captcha_reader.texts import (
    HEIGHT,
    WIDE_WIDTH,
    WIDTH,
    ctc_labels,
    encode,
    one_hot,
    random_texts,
)
from captcha_reader.weights import sha256
from tools import options, runs

BUDGETS = {"ctc": "8000000", "cnn": "4000000", "pytorch": "4000000"}  # captchas
DEFAULTS = {
    "MODEL": "ctc",  # or cnn, or pytorch for the network of lesson 7, 192x64
    "SIZE": "slim",  # or full, the original's
    "BUDGET": "",  # captchas, or minutes as in 20min; the default is that of the finished network
    "SEED": "2019",
    "SIZES": "",  # share of batches in any size; ctc 0.5, the others 0
    "HARD": "0.2",  # share of captchas with many O and 0
    "BATCH": "64",
    "RATE": "0.02",  # the peak of Muon's learning rate
    "PRECISION": "auto",  # half precision where the device computes in it
    "OUT": "",  # a folder; the default is named by the settings, in build/train
    "WORKERS": "1",  # processes that draw; with 0 the training does it itself
}
SHARE = r"0(\.\d+)?|1(\.0+)? a number between 0 and 1, such as 0.2"
ALLOWED = {
    "MODEL": "cnn|ctc|pytorch one of cnn, ctc, pytorch",
    "SIZE": "full|slim one of full, slim",
    "BUDGET": r"|[1-9]\d*(min)? minutes as in 20min, or captchas as in 300000",
    "SEED": options.WHOLE,
    "SIZES": f"|{SHARE}",
    "HARD": SHARE,
    "BATCH": options.POSITIVE,
    "RATE": r"0\.\d*[1-9]\d* a number between 0 and 1, such as 0.02",
    "PRECISION": "auto|float32|mixed_bfloat16 one of auto, float32, mixed_bfloat16",
    "WORKERS": options.WHOLE,
}
VALID = 5_000  # held-out captchas of each kind that are read after each epoch
QUICK = 1_000  # as many where the budget is in minutes


def settle(chosen: dict) -> dict:
    """Return the settings of a run: what decides its captchas and weights, all of it filled in."""
    settings = {name: value for name, value in chosen.items() if name not in ("OUT", "WORKERS")}
    model = settings["MODEL"]
    settings["PROCESSES"] = os.environ.get("WORLD_SIZE", "1")  # torchrun's, which share batches
    settings["BUDGET"] = settings["BUDGET"] or BUDGETS[model]
    settings["SIZES"] = settings["SIZES"] or ("0.5" if model == "ctc" else "0")
    if model != "ctc" and float(settings["SIZES"]):
        raise ValueError(f"SIZES={settings['SIZES']}: {model} has one size, so SIZES must be 0")
    if int(settings["SEED"]) >= 2**32:
        raise ValueError(f"SEED={settings['SEED']} must be less than {2**32}")
    if int(settings["BATCH"]) > EPOCH:
        raise ValueError(f"BATCH={settings['BATCH']} must be at most {EPOCH}, one epoch")
    if settings["BUDGET"].isdecimal() and int(settings["BUDGET"]) < int(settings["BATCH"]):
        raise ValueError(f"BUDGET={settings['BUDGET']} is less than one batch: use at least "
                         f"{settings['BATCH']} captchas, or a smaller BATCH=")  # fmt: skip
    return settings


def folder(settings: dict) -> Path:
    """Name a folder by the settings: those that are not the default's stand in it."""
    usual = settle(DEFAULTS | {"MODEL": settings["MODEL"]}) | {"PROCESSES": "1"}
    first = [settings[name] for name in ("MODEL", "SIZE", "BUDGET", "SEED")]
    names = ("SIZES", "HARD", "BATCH", "RATE", "PROCESSES")
    others = [f"{x.lower()}{settings[x]}" for x in names if settings[x] != usual[x]]
    return Path("build/train") / "-".join([*first, *others, settings["PRECISION"]])


def program(settings: dict) -> str:
    """Return how a command for these settings begins."""
    processes = int(settings["PROCESSES"])
    if processes == 1:
        return "make train"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return f"torchrun --nnodes {processes // here} --nproc-per-node {here} -m tools.train"


def practice(settings: dict) -> Practice:
    """Return what the network of these settings practises."""
    return Practice(
        int(settings["SEED"]),
        int(settings["BATCH"]),
        (WIDE_WIDTH if settings["MODEL"] == "pytorch" else WIDTH, HEIGHT),
        sizes=float(settings["SIZES"]),
        hard=float(settings["HARD"]),
        epoch=EPOCH,
    )


def held_out(settings: dict) -> dict:
    """Draw held-out captchas with the package, for `captcha_reader.training.Average`."""
    seed, count = int(settings["SEED"]), QUICK if settings["BUDGET"].endswith("min") else VALID
    draw = draw_wide if settings["MODEL"] == "pytorch" else draw_captchas

    def batches(kind: int, size: int, draw_batch) -> list[tuple]:
        """Draw `count` captchas, and put those that are equally wide for the network together."""
        by_width = {}
        for index in range(count // size):
            pictures, texts = draw_batch(stream(seed, "valid", kind, index), size)
            for picture, text in zip(scale(pictures), texts, strict=True):
                by_width.setdefault(picture.shape[1], []).append((picture, text))
        found = []
        for pairs in by_width.values():
            for start in range(0, len(pairs), 200):
                pictures, texts = zip(*pairs[start : start + 200], strict=True)
                four_heads = settings["MODEL"] == "cnn"
                labels = one_hot(encode(texts)) if four_heads else ctc_labels(texts)
                found.append((np.stack(pictures), labels, list(texts)))
        return found

    def classic(rng, size: int) -> tuple:
        texts = random_texts(rng, size)
        return draw(texts, rng), texts

    found = {"classic": batches(0, 100, classic)}
    return found | ({"sizes": batches(1, 20, in_any_size)} if float(settings["SIZES"]) else {})


def plan(settings: dict, began: float, seconds_a_step) -> dict:
    """Return how many steps the budget pays for, to the nearest.

    Minutes are those of the whole command, from `began`: a few seconds are kept for its end.
    """
    batch, budget = int(settings["BATCH"]), settings["BUDGET"]
    if budget.isdecimal():
        return {"steps": round(int(budget) / batch)}
    seconds = seconds_a_step()
    left = 60 * int(budget[:-3]) - (time.perf_counter() - began) - 10
    steps = max(1, round(left / seconds))
    print(f"{batch / seconds:.0f} captchas a second: {steps * batch:,} in {budget}", flush=True)
    return {"steps": steps}


def build(settings: dict):
    """Build the Keras network that the settings name."""
    from notebooks_py import ch4_gpu_training as ch4

    size = ch4.SLIM if settings["SIZE"] == "slim" else ch4.FULL[settings["MODEL"]]
    return ch4.KINDS[settings["MODEL"]]["build"](**size)


def train_keras(settings: dict, out: Path, workers: int, open_run) -> dict:
    """Train as the settings say, write model.keras, and return the record of the run."""
    import keras

    from captcha_reader.training import check_backup
    from notebooks_py import ch4_gpu_training as ch4

    keras.mixed_precision.set_dtype_policy(settings["PRECISION"])
    valid = functools.cache(lambda: held_out(settings))

    def new_model(steps: int):
        keras.utils.set_random_seed(int(settings["SEED"]))
        with ch4.every_device():
            model = build(settings)
            ch4.compile_recipe(model, steps, float(settings["RATE"]))
        return model

    stack = contextlib.ExitStack()
    job = practice(settings)
    draw = stack.enter_context(Ahead(job, workers)) if workers else job
    data = ch4.PracticeSequence(job, draw, ch4.KINDS[settings["MODEL"]]["labels"])

    def seconds_a_step() -> float:
        """Time a network that is thrown away, and the reading after each epoch."""
        model, data.steps = new_model(1_000), 20
        for _ in range(2):  # the first time it is compiled
            start = time.perf_counter()
            model.fit(data, shuffle=False, verbose=0)
        step = (time.perf_counter() - start) / data.steps
        average = ch4.Average(valid(), ch4.KINDS[settings["MODEL"]]["decode"], [], out / "none")
        start = time.perf_counter()
        average.read(model)
        data.steps = data.practice.steps
        return step + (time.perf_counter() - start) / data.practice.steps

    with stack:
        record = open_run(seconds_a_step)
        check_backup(out / "backup")
        model = new_model(record["steps"])
        print(f"{record['steps']:,} batches of {settings['BATCH']}, in {out}", flush=True)
        ch4.fit_recipe(model, data, record["steps"], valid(), out)
    keras.mixed_precision.set_dtype_policy("float32")  # whoever reads may lack half precision
    finished = build(settings)
    finished.set_weights(model.get_weights())  # the average, with which the training ends
    finished.save(out / "model.keras")
    device = keras.distribution.list_devices()[0].split(":")[0].upper()
    return record | {
        "device": device,
        "backend": keras.backend.backend(),
        "parameters": model.count_params(),
        "sha256": sha256(out / "model.keras"),
    }


def main() -> int:
    """Train with a lock on the folder; 3 if Ctrl-C stopped it, so that a script can tell."""
    began = time.perf_counter()
    chosen = options.read(sys.argv[1:], "train", DEFAULTS, ALLOWED)
    try:
        settings = settle(chosen)
        command = " ".join([program(settings), *sys.argv[1:]])
        if settings["MODEL"] == "pytorch":
            from tools.train_torch import RANK, train
        else:
            RANK, train = 0, train_keras
            with options.quietly():
                import keras  # noqa: F401
        if settings["PRECISION"] == "auto":
            settings["PRECISION"] = runs.best_precision(settings["MODEL"] == "pytorch")
        out = Path(chosen["OUT"]) if chosen["OUT"] else folder(settings)

        def open_run(seconds_a_step) -> dict:
            def planned() -> dict:
                return plan(settings, began, seconds_a_step)

            return runs.open_run(out, settings, command, planned)

        with runs.locked(out) if RANK == 0 else contextlib.nullcontext():
            record = train(settings, out, int(chosen["WORKERS"]), open_run)
            if RANK > 0:
                return 0
            log = pd.read_csv(out / "log.csv").drop_duplicates("epoch", keep="last")
            pictures = record["steps"] * int(settings["BATCH"])
            results = {"pictures": pictures, "seconds": round(float(log.seconds.sum()))}
            runs.finish_run(out, record, results)
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"train: {error}") from error
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was")
        return 3
    right = f"{100 * log.val_acc.iloc[-1]:.1f} % of held-out captchas read right"
    print(f"{pictures:,} captchas in {results['seconds']:,} seconds of training; {right}")
    print(f"written: {out}/model.*, {runs.RESULTS}, log.csv")
    return 0


if __name__ == "__main__":
    runs.end_with(main)
