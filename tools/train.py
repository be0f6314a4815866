"""Train a network from nothing: `make train MODEL=ctc` is how models/ctc.keras was made.

The same command goes on where it was stopped. TensorFlow is not needed:
`PYTHONPATH=. KERAS_BACKEND=jax python -m tools.train --model=ctc --size=full --budget=5000000`.

Keras is imported inside the functions: processes that draw import this file, and need none.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from captcha_reader.drawing import stream
from captcha_reader.practice import EPOCH, Ahead, Practice
from captcha_reader.reading import scale
from captcha_reader.testsets import CLASSIC, WIDE, in_any_size
from captcha_reader.texts import HEIGHT, WIDE_WIDTH, WIDTH, ctc_labels
from captcha_reader.weights import sha256
from tools import options, runs
from tools.evaluate import FINISHED

VALID = 5_000  # held-out captchas of each kind that are read after each epoch
QUICK = 1_000  # as many where the budget is in minutes
DEFAULTS = {  # of each model; O and 0 are most of what is left to learn in a long run
    "cnn": {"budget": 1_800_000, "sizes": 0.0, "hard": 0.5, "bank": EPOCH},
    "ctc": {"budget": 4_000_000, "sizes": 0.5, "hard": 0.5, "bank": EPOCH // 4},
    "pytorch": {"budget": 1_000_000, "sizes": 0.0, "hard": 0.5, "bank": EPOCH},
}


def captchas_or_minutes(text: str) -> int | str:
    """Read captchas, "300000", as a number, and minutes, "20min", as they are."""
    number = text.removesuffix("min")
    if not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither captchas nor minutes, as in 20min")
    return int(text) if text == number else text


def make_parser(words: list[str]) -> argparse.ArgumentParser:
    """Return the parser of a command line; its defaults are those of the model named there."""
    parser = options.parser("train", "Train a network from nothing, or go on after a stop.")
    add, share = parser.add_argument, options.share
    precisions = "auto", "float32", "mixed_bfloat16"
    add("--model", default="ctc", choices=DEFAULTS, help="four heads, CTC, or that of lesson 7")
    add("--size", default="slim", choices=("slim", "full"), help="full is the original's")
    add("--budget", type=captchas_or_minutes, help="captchas, or minutes as in 20min")
    add("--seed", default=2019, type=options.whole, help="decides captchas and first weights")
    add("--sizes", type=share, help="share of batches in any size; only for ctc")
    add("--hard", type=share, help="share of captchas with many O and 0")
    add("--bank", type=options.positive, help="captchas from one bank of glyphs")
    add("--batch", default=64, type=options.positive, help="captchas in a batch")
    add("--rate", default=0.02, type=share, help="the peak of Muon's learning rate")
    add("--precision", default="auto", choices=precisions, help="auto: 16 bits if they are fast")
    add("--out", type=options.path, help="the run's folder; without it, one in build/train")
    add("--workers", type=options.whole, default=1, help="processes that draw; 0: draw in this one")
    processes = int(os.environ.get("WORLD_SIZE", 1))  # torchrun's, which share each batch
    model = parser.parse_args([word for word in words if word not in ("-h", "--help")]).model
    parser.set_defaults(processes=processes, **DEFAULTS[model])
    return parser


def read_options(words: list[str]) -> tuple[dict, Path | None, int]:
    """Return the settings of a command line, its folder, if it names one, and its workers."""
    parser = make_parser(words)
    given = parser.parse_args(words)
    batch, budget = given.batch, given.budget
    if given.model != "ctc" and given.sizes:
        parser.error(f"--sizes={given.sizes}: {given.model} reads one size, so leave it at 0")
    if batch > EPOCH:
        parser.error(f"--batch={batch} has to be at most {EPOCH}, one epoch")
    if batch % given.processes:
        parser.error(f"--batch={batch} can't be shared evenly by {given.processes} processes")
    if isinstance(budget, int) and budget < batch:
        parser.error(f"--budget={budget} is less than one batch of {batch}: take more captchas")
    if isinstance(budget, str) and given.processes > 1:
        parser.error(f"--budget={budget}: several processes need a number of captchas")
    if given.model != "pytorch" and given.processes > 1:
        parser.error(f"--model={given.model}: torchrun shares the training of pytorch alone")
    settings = vars(given)
    return settings, settings.pop("out"), settings.pop("workers")


def command(settings: dict) -> str:
    """Return what a person types for these settings."""
    usual = make_parser([f"--model={settings['model']}"]).get_default
    changed = {name: x for name, x in settings.items() if name == "model" or x != usual(name)}
    if settings["processes"] == 1:
        return " ".join(["make train", *(f"{name.upper()}={x}" for name, x in changed.items())])
    torchrun = f"torchrun --nproc-per-node {settings['processes']} -m tools.train"
    return " ".join([torchrun, *(f"--{name}={x}" for name, x in changed.items())])


def practice(settings: dict) -> Practice:
    """Return what the network of these settings practises."""
    size = WIDE_WIDTH if settings["model"] == "pytorch" else WIDTH, HEIGHT
    decided = {name: settings[name] for name in ("seed", "batch", "sizes", "hard", "bank")}
    return Practice(**decided, size=size, epoch=EPOCH)


def held_out(settings: dict, labels: Callable = ctc_labels) -> dict:
    """Draw held-out captchas with the package, for `captcha_reader.training.Average`."""
    count = QUICK if isinstance(settings["budget"], str) else VALID

    def batches(kind: int, size: int, draw: Callable) -> list[tuple]:
        """Draw `count` captchas, and put those that are equally wide for the network together."""
        by_width = {}
        for index in range(count // size):
            pictures, texts = draw(stream(settings["seed"], "valid", kind, index), size)
            pictures = scale(pictures)
            by_width.setdefault(pictures.shape[2], []).extend(zip(pictures, texts, strict=True))
        drawn = []
        for pairs in by_width.values():
            for start in range(0, len(pairs), 200):
                pictures, texts = zip(*pairs[start : start + 200], strict=True)
                drawn.append((np.stack(pictures), labels(texts), list(texts)))
        return drawn

    classic = batches(0, 100, WIDE if settings["model"] == "pytorch" else CLASSIC)
    sizes = {"sizes": batches(1, 20, in_any_size)} if settings["sizes"] else {}
    return {"classic": classic} | sizes


def build(settings: dict):
    """Build the Keras network that the settings name."""
    from tools.networks import NETWORKS

    kind = NETWORKS[settings["model"]]
    return kind["build"](**kind[settings["size"]])


def seconds_a_step(model, data) -> float:
    """Return how many seconds a step of training takes, with a compiled network."""
    import keras

    times = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: times.append(time.perf_counter())
    )
    data.steps = 40
    model.fit(data, shuffle=False, verbose=0, callbacks=[clock])
    data.steps = data.practice.steps
    return (times[-1] - times[19]) / 20  # it is compiled in the first batches


def train_keras(settings: dict, out: Path, workers: int, typed: str) -> dict:
    """Train as the settings say, write model.keras, and return the record of the run."""
    import keras

    from captcha_reader.training import every_device
    from notebooks_py import ch4_gpu_training as ch4
    from tools.networks import NETWORKS

    keras.mixed_precision.set_dtype_policy(settings["precision"])
    job, kind = practice(settings), NETWORKS[settings["model"]]

    def new_model(steps: int):
        keras.utils.set_random_seed(settings["seed"])
        with every_device():
            model = build(settings)
            ch4.compile_recipe(model, steps, settings["rate"], kind["loss"])
        return model

    with Ahead(job, workers) if workers else contextlib.nullcontext(job) as draw:
        data = ch4.PracticeSequence(job, draw, kind["labels"])
        record = runs.open_run(out, settings, typed, lambda: seconds_a_step(new_model(1_000), data))
        model = new_model(record["steps"])
        print(f"{record['steps']:,} batches of {settings['batch']}, in {out}", flush=True)
        held = held_out(settings, kind["labels"])
        ch4.fit_recipe(model, data, record["steps"], held, out, decode=kind["decode"])
    keras.mixed_precision.set_dtype_policy("float32")  # whoever reads may lack half precision
    finished = build(settings)
    finished.set_weights(model.get_weights())  # the average, with which the training ends
    finished.save(out / "model.keras")
    device = keras.distribution.list_devices()[0].split(":")[0].upper()
    return record | {"device": device, "parameters": model.count_params()}


def main() -> None:
    """Train, with a lock on the folder."""
    settings, out, workers = read_options(sys.argv[1:])
    typed = command(settings)
    if settings["model"] == "pytorch":
        from tools.train_torch import RANK, train

        backend = "torch"
    else:
        RANK, train, backend = 0, train_keras, options.import_keras().backend.backend()
    if settings["precision"] == "auto":
        settings["precision"] = runs.best_precision(backend)
    out = out or Path("build/train", "-".join(map(str, settings.values())))
    with runs.locked(out) if RANK == 0 else contextlib.nullcontext():
        record = train(settings, out, workers, typed)
        if RANK > 0:
            return
        log, weights = runs.read_log(out), out / f"model{FINISHED[settings['model']]}"
        pictures, seconds = record["steps"] * settings["batch"], round(float(log.seconds.sum()))
        record |= {"backend": backend, "sha256": sha256(weights)}
        runs.write_json(out / runs.RESULTS, record | {"pictures": pictures, "seconds": seconds})
    right = f"{100 * log.val_acc.iloc[-1]:.1f} % of held-out captchas read right"
    print(f"{pictures:,} captchas in {seconds:,} seconds of training; {right}")
    print(f"written: {weights}, {runs.RESULTS}, log.csv")


if __name__ == "__main__":
    options.end_with(main)
