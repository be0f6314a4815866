"""Train a network without a notebook: `make train MODEL=ctc BUDGET=20min`.

The same command goes on where it was stopped. Nothing of Jupyter or TensorFlow is needed:
`PYTHONPATH=. KERAS_BACKEND=jax python tools/train.py MODEL=ctc SIZE=full BUDGET=5000000`.
"""

import contextlib
import json
import os
import platform
import re
import sys
import time
from functools import partial
from importlib import metadata
from pathlib import Path

import h5py
import options
import pandas as pd
from filelock import FileLock, Timeout

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.scores import evaluate
from captcha_reader.texts import encode, one_hot, random_texts
from captcha_reader.weights import sha256

with options.quietly():
    import keras

    from notebooks_py import ch4_gpu_training as ch4

DEFAULTS = {
    "MODEL": "ctc",  # or cnn, or pytorch for the network of lesson 7, 192x64
    "SIZE": "slim",  # or full, the original's
    "BUDGET": "20min",  # minutes, or a number of pictures
    "OUT": "",  # a folder; the default is build/train/MODEL-SIZE
    "SEED": "2019",
    "START": "",  # a file whose weights this run trains further, or their blocks under another head
    "RATE": "0.003",  # the peak of the learning rate
    "HARD": "0.5,0.2",  # share of captchas with many O and 0: first, and in the last fifth
    "BATCH": "64",
    "WORKERS": "2",  # threads that draw
    "PRECISION": "auto",
}
ALLOWED = {
    "MODEL": "cnn|ctc|pytorch one of cnn, ctc, pytorch",
    "SIZE": "full|slim one of full, slim",
    "BUDGET": r"[1-9]\d*(min)? minutes as in 20min, or pictures as in 300000",
    "SEED": options.WHOLE,
    "RATE": r"0\.\d*[1-9]\d* a number between 0 and 1, such as 0.003",
    "HARD": r"(0(\.\d+)?|1),(0(\.\d+)?|1) two numbers between 0 and 1, such as 0.5,0.2",
    "BATCH": options.POSITIVE,
    "WORKERS": options.POSITIVE,
    "PRECISION": "auto|float32|mixed_bfloat16 one of auto, float32, mixed_bfloat16",
}
EPOCH = 200  # steps: short, since an interruption costs at most one epoch
VALID = 1_000  # held-out captchas to watch a run by


def hardware() -> dict:
    """Return what a number depends on: processor, cores, device, backend and versions."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*: (.+)", told, re.M)
    cpu = model[1] if model else platform.processor() or platform.machine()
    names = ("keras", "tensorflow", "jax", "torch", "captcha", "pillow", "numpy")
    installed = {d.name.lower(): d.version for d in metadata.distributions() if d.name}
    return {
        "device": keras.distribution.list_devices()[0].split(":")[0].upper(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "backend": keras.backend.backend(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in names if name in installed},
    }


def build(chosen: dict):
    """Build the network that the options name."""
    size = ch4.SLIM if chosen["SIZE"] == "slim" else ch4.FULL[chosen["MODEL"]]
    return ch4.KINDS[chosen["MODEL"]]["build"](**size)


def new_model(chosen: dict, steps: int):
    """Build and compile the network, with the weights of START if it is given."""
    keras.utils.set_random_seed(int(chosen["SEED"]))
    model = build(chosen)
    if chosen["START"]:
        earlier = keras.models.load_model(chosen["START"], compile=False)
        pairs = zip(*([x for x in m.layers if x.weights] for m in (model, earlier)), strict=False)
        for layer, other in pairs:
            if [w.shape for w in layer.weights] == [w.shape for w in other.weights]:
                layer.set_weights(other.get_weights())
    ch4.compile_recipe(model, steps, float(chosen["RATE"]))
    return model


def plan(chosen: dict, seconds_a_step) -> tuple[int, int]:
    """Return the number of epochs and of steps in each that the budget pays for."""
    batch = int(chosen["BATCH"])
    if chosen["BUDGET"].endswith("min"):
        step = 1.1 * seconds_a_step()  # a tenth for banks and held-out captchas
        total = int(chosen["BUDGET"][:-3]) * 60 / step
        print(f"{batch / step:.0f} captchas a second: {total * batch:,.0f} in {chosen['BUDGET']}")
    else:
        total = int(chosen["BUDGET"]) / batch
    steps = max(1, min(EPOCH, round(total)))
    return max(1, round(total / steps)), steps


def open_run(out: Path, chosen: dict, seconds_a_step) -> tuple[int, int]:
    """Start a run in a folder, or find the same one there; return its epochs and steps."""
    note = out / "run.json"
    settings = {name: value for name, value in chosen.items() if name not in ("OUT", "WORKERS")}
    if not note.exists():
        if chosen["START"] and not Path(chosen["START"]).is_file():
            raise ValueError(f"START={chosen['START']} is no file")
        epochs, steps = plan(chosen, seconds_a_step)
        run = {"settings": settings, "epochs": epochs, "steps": steps}
        (draft := out / "run.json.new").write_text(json.dumps(run))
        draft.replace(note)
    run = json.loads(note.read_text())
    for name, value in settings.items():
        if run["settings"][name] != value:
            held = f"{out} holds a run with {name}={run['settings'][name]}, not {value}"
            raise ValueError(f"{held}: use that to go on with it, or OUT=another-folder")
    if (out / "results.json").exists():
        raise ValueError(f"{out} holds a finished run: use OUT=another-folder")
    return run["epochs"], run["steps"]


def check_backup(folder: Path) -> None:
    """Raise a ValueError if no saved state can be read; one torn in the first epoch just goes."""
    names = ("latest.weights.h5", "latest.weights.h5.bkp")
    states = [folder / name for name in names if (folder / name).exists()]
    for state in states:
        with contextlib.suppress(OSError), h5py.File(state):
            return
    if len(states) == 2:
        raise ValueError(f"the backup in {folder} is damaged: start anew with OUT=another-folder")
    for state in states:
        state.unlink()


def held_out(seed: int, count: int, labels: str = "ctc") -> tuple:
    """Draw held-out captchas with the package: X and y as for `fit`, and the texts."""
    rng = stream(seed, "valid", epoch=0, index=0)
    texts = random_texts(rng, count)
    X, places = draw_captchas(texts, rng).astype("float32") / 255, encode(texts)
    return X, places + 1 if labels == "ctc" else one_hot(places), texts


def train(chosen: dict, out: Path) -> dict:
    """Train as the options say, write model.keras, and return what came out."""
    keras.mixed_precision.set_dtype_policy(chosen["PRECISION"])
    seed, batch = int(chosen["SEED"]), int(chosen["BATCH"])
    labels = ch4.KINDS[chosen["MODEL"]]["labels"]
    hard = tuple(float(share) for share in chosen["HARD"].split(","))

    def make_data(steps: int, epochs: int) -> ch4.PracticeSequence:
        more = {"labels": labels, "workers": int(chosen["WORKERS"])}
        return ch4.PracticeSequence(batch, steps, seed, epochs=epochs, hard=hard, **more)

    def seconds_a_step() -> float:  # with a network that is thrown away
        model, data = new_model(chosen, 1_000), make_data(12, 1)
        model.fit(data, shuffle=False, verbose=0)
        start = time.perf_counter()
        model.fit(data, shuffle=False, verbose=0)
        return (time.perf_counter() - start) / 12

    epochs, steps = open_run(out, chosen, seconds_a_step)
    check_backup(out / "backup")
    valid = held_out(seed, VALID, labels)
    with ch4.every_device():
        model = new_model(chosen, epochs * steps)
    print(f"{epochs} epochs of {steps} batches of {batch}, in {out}", flush=True)
    ch4.fit_recipe(model, make_data(steps, epochs), valid, out)
    keras.mixed_precision.set_dtype_policy("float32")  # whoever reads may lack half precision
    finished = build(chosen)
    finished.set_weights(model.get_weights())  # the average, with which the training ends
    finished.save(out / "model.keras")
    score = evaluate(lambda pictures: ch4.read(finished, pictures), "classic-1k")
    print(score)
    seen = {"pictures": epochs * steps * batch, "parameters": model.count_params()}
    return {"model": chosen["MODEL"], **seen, "classic-1k": score.right}


def write_results(chosen: dict, out: Path, results: dict) -> None:
    """Write results.json: what came out, from what, and on which machine."""
    log = pd.read_csv(out / "log.csv").drop_duplicates("epoch", keep="last")
    weights = out / ("model.pt" if chosen["MODEL"] == "pytorch" else "model.keras")
    start = sha256(Path(chosen["START"])) if chosen["START"] else None
    facts = {"size": chosen["SIZE"], "settings": chosen, "start": start}
    facts |= {"seconds": round(float(log.seconds.sum())), "sha256": sha256(weights)}
    results = hardware() | facts | results
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"written: {weights}, results.json, log.csv")


def main() -> int:
    """Train with a lock on the folder; 3 if Ctrl-C stopped it, so that a script can tell."""
    chosen = options.read(sys.argv[1:], "train", DEFAULTS, ALLOWED)
    if chosen["PRECISION"] == "auto":
        chosen["PRECISION"] = ch4.best_precision()
    out = Path(chosen["OUT"] or f"build/train/{chosen['MODEL']}-{chosen['SIZE']}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            if chosen["MODEL"] == "pytorch":
                import train_torch

                results = train_torch.train(chosen, out, partial(open_run, out, chosen), VALID)
            else:
                results = train(chosen, out)
            write_results(chosen, out, results)
    except Timeout:
        raise SystemExit(f"train: another process trains in {out}: wait, or use OUT=") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"train: {error}") from error
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from {out}")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
