"""Make a trained network the finished one of its kind: `make publish RUNS=first,second`.

RUNS are the folders of `make train` that led to it, in order: each run started from the weights of
the one before. Writes models/ctc.keras (or cnn), its log and its results, and the table in the
README, but only if the network is better than the one that is there.
"""

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import options
import results_table

DEFAULTS = {"RUNS": ""}
ALLOWED = {"RUNS": r"[^,]+(,[^,]+)* one folder or more, with commas between them"}
SETS = ("classic-1k", "classic-10k", "classic-100k", "modern-10k", "preview-10k")
JUDGE = "classic-100k"  # the set that decides which of two networks is better


def read_runs(folders: list[Path]) -> list[dict]:
    """Return the results of the runs; ValueError unless each started from the one before."""
    from notebooks_py.ch2_cnn import check_weights

    runs = [json.loads((folder / "results.json").read_text()) for folder in folders]
    before = None
    for folder, run in zip(folders, runs, strict=True):
        if (split := run["settings"]["split"]) != "train":  # test sets are drawn from "test"
            raise ValueError(f"{folder} trained on the stream {split!r}, allowed is 'train'")
        start = run["settings"].get("start", {}).get("sha256")
        if start != before:
            raise ValueError(f"{folder} started from weights {start}, the run before has {before}")
        before = run["sha256"]
    check_weights(folders[-1] / "model.keras", before, folders[-1] / "results.json")
    return runs


def join_logs(folders: list[Path]) -> str:
    """Return one log in which each run goes on where the one before ended; `stage` numbers them."""
    rows, before = [], {"epoch": 0, "step": 0, "pictures": 0, "seconds": 0.0}
    for stage, folder in enumerate(folders, 1):
        log = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
        for row in log:
            for name, add in before.items():
                row[name] = type(add)(row[name]) + add
            row |= {"stage": stage, "seconds": round(row["seconds"], 1)}
        before = {name: rows_end(log, name) for name in before}
        rows += log
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def rows_end(log: list[dict], name: str) -> int | float:
    """Where a column of a run's log, already shifted, ends: the start of the next run."""
    return log[-1][name] + (1 if name == "epoch" else 0)


def describe(runs: list[dict], scores: dict, weights: Path) -> dict:
    """Return what models/NAME.json says: scores, and how the network was made."""
    from notebooks_py.ch4_gpu_training import SIZES

    last, told = runs[-1], ("pictures", "seconds", "device", "cpu", "cores", "backend", "python")
    kind, size = last["settings"]["model"], last["settings"]["size"]
    return {
        "model": kind,
        "size": size,
        "arguments": SIZES[size][kind],
        "scores": scores,
        "pictures": sum(run["pictures"] for run in runs),
        "seconds": sum(run["seconds"] for run in runs),
        "parameters": last["parameters"],
        "bytes": weights.stat().st_size,
        "sha256": last["sha256"],
        "runs": [
            {name: run[name] for name in ("settings", *told, "versions", "sha256")} for run in runs
        ],
    }


def is_better(scores: dict, results: Path) -> bool:
    """Whether the new scores beat those of the results file that is there, if any."""
    if not results.exists():
        return True
    old = json.loads(results.read_text())["scores"][JUDGE]
    print(f"{results} has {old['right']:,} of {JUDGE}, the new network {scores[JUDGE]['right']:,}")
    return scores[JUDGE]["right"] > old["right"]


def main() -> int:
    """Publish the network; 1 if the one that is there is as good."""
    chosen = options.read(sys.argv[1:], "publish", DEFAULTS, ALLOWED)
    import keras

    from notebooks_py.ch2_cnn import MODELS, evaluate, replace_text, write_json
    from notebooks_py.ch4_gpu_training import reader_of

    folders = [Path(name) for name in chosen["RUNS"].split(",")]
    try:
        runs = read_runs(folders)
        weights = folders[-1] / "model.keras"
        read = reader_of(keras.models.load_model(weights, compile=False))
        scores = {name: evaluate(read, name).record() for name in SETS}
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"publish: {error}") from error
    results = describe(runs, scores, weights)
    home = MODELS / f"{results['model']}.json"
    if not is_better(scores, home):
        print("publish: not better, so everything stays as it is")
        return 1
    draft = home.with_name(f"draft-{results['model']}.keras")
    shutil.copyfile(weights, draft)
    os.replace(draft, home.with_suffix(".keras"))
    replace_text(home.with_suffix(".csv"), join_logs(folders))
    write_json(home, results)
    results_table.write()
    print(f"written: {home}, .keras, .csv and the table in README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
