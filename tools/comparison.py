"""Compare three ways to answer: `make comparison`; nine trainings, hours on a laptop.

Four heads, CTC, and CTC with a GRU: the same blocks of convolutions, the same captchas in the same
order, the same optimiser and number of steps, three seeds. A training that was interrupted goes on.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import options

DEFAULTS = {
    "OUT": "models/comparison.json",
    "RUNS": "build/comparison",  # a folder for the trainings
    "PICTURES": "100000",
    "SEEDS": "2019,2020,2021",
    "SET": "classic-10k",
    "REPEATS": "5",
}
ALLOWED = {
    "OUT": r".+\.json a file that ends in .json",
    "PICTURES": options.POSITIVE,
    "SEEDS": options.WHOLES,
    "REPEATS": options.POSITIVE,
}
HEADS = {  # the options of `make train`
    "four heads": ("cnn", "slim"),
    "CTC": ("ctc", "slim"),
    "CTC with a GRU": ("ctc", "gru"),
}


def train(head: str, seed: str, folder: Path, pictures: str) -> None:
    """Train one network to its end, or go on with it; SystemExit if it did not get there."""
    kind, size = HEADS[head]
    words = [f"MODEL={kind}", f"SIZE={size}", f"SEED={seed}", f"OUT={folder}"]
    words += [f"BUDGET={pictures}", "FEED=device", f"RESUME={int((folder / 'run.json').exists())}"]
    print(f"{head}, seed {seed}", flush=True)
    command = [sys.executable, str(Path(__file__).with_name("train.py")), *words]
    if code := subprocess.run(command).returncode:
        raise SystemExit(code)


def read_all(folder: Path, test_set: str, pictures: int) -> dict:
    """Return a run's score on a test set, with its answers one after the other, a space between.

    They are kept beside the weights, so that each network has to read the set only once. `curve` is
    the share of held-out captchas that it read right after so many `seen` in training.

    Raises:
        ValueError: the run had another number of pictures, or its weights are damaged.
    """
    from notebooks_py.ch2_cnn import check_weights, read_log, write_json

    results = json.loads((folder / "results.json").read_text())
    batch = results["settings"]["batch_size"]
    if not pictures <= results["pictures"] < pictures + batch:
        raise ValueError(
            f"PICTURES={pictures}, but the run in {folder} had {results['pictures']}: use that, or "
            "RUNS=another-folder"
        )
    check_weights(folder / "model.keras", results["sha256"], folder / "results.json")
    kept = folder / f"{test_set}.json"
    if not (row := read_before(kept, results["sha256"])):
        told = ("pictures", "seconds", "parameters", "bytes", "device", "cpu", "versions", "sha256")
        row = count(folder / "model.keras", test_set) | {name: results[name] for name in told}
        write_json(kept, row)
    log = read_log(folder / "log.csv")
    return row | {"seen": log.pictures.tolist(), "curve": log.val_acc.round(4).tolist()}


def read_before(kept: Path, sha256: str) -> dict:
    """Return what `kept` says about the network with this SHA-256; nothing if it does not."""
    from notebooks_py.ch2_cnn import check_score

    try:
        row = json.loads(kept.read_text())
        check_score(row, kept)
        return row if row["sha256"] == sha256 else {}
    except (FileNotFoundError, KeyError, ValueError):
        return {}


def count(weights: Path, test_set: str) -> dict:
    """Let a network read a test set; return its score and its answers."""
    import keras

    from notebooks_py.ch2_cnn import evaluate
    from notebooks_py.ch4_gpu_training import reader_of

    read, answers = reader_of(keras.models.load_model(weights, compile=False)), []

    def note(pictures) -> list[str]:
        answers.extend(read(pictures))
        return answers[-len(pictures) :]

    score = evaluate(note, test_set).record()
    return score | {"answers": " ".join(answers)}


def reading_time(repeats: int) -> dict:
    """Measure on one CPU core how long each network takes to read a captcha, side by side."""
    if hasattr(os, "sched_setaffinity"):  # before the backend counts the cores
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import functools

    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch4_gpu_training import build, compare, hardware, reader_of

    pictures, _ = CaptchaSequence(100, 1, seed=0).draw(0)
    actions = {
        head: functools.partial(reader_of(build(*kind)), pictures) for head, kind in HEADS.items()
    }
    found = compare(actions, len(pictures), repeats)
    seconds = {head: 1 / speed for head, speed in found["pictures_a_second"].items()}
    milliseconds = {head: round(1000 * value, 2) for head, value in seconds.items()}
    one = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 1
    return {"milliseconds": milliseconds, **found, "one core": one, **hardware()}


def main() -> None:
    chosen = options.read(sys.argv[1:], "comparison", DEFAULTS, ALLOWED)
    out, home, seeds = Path(chosen["OUT"]), Path(chosen["RUNS"]), chosen["SEEDS"].split(",")
    pictures = int(chosen["PICTURES"])
    folders = {
        (head, seed): home / f"{head.replace(' ', '-')}-{seed}" for seed in seeds for head in HEADS
    }
    for (head, seed), folder in folders.items():
        if not (folder / "results.json").exists():
            train(head, seed, folder, chosen["PICTURES"])
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        time = process.submit(reading_time, int(chosen["REPEATS"])).result()
    from notebooks_py.ch2_cnn import write_json

    runs = [
        {"head": head, "seed": int(seed), **read_all(folder, chosen["SET"], pictures)}
        for (head, seed), folder in folders.items()
    ]
    results = {"pictures": pictures, "reading": time, "runs": runs}
    write_json(out, results)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
