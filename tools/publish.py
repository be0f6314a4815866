"""Make a trained network the finished one of its kind: `make publish RUN=build/train/ctc-slim`.

RUN is a folder of `make train`. Writes models/ctc.keras (or cnn), its log and its results, and the
table in the README, but only if the network is better than the one that is there. Without RUN it
only writes the table (`make table`).
"""

import json
import sys
from pathlib import Path

import lessons
import options
import pandas as pd

DEFAULTS = {"RUN": ""}
SETS = ("classic-1k", "classic-10k", "classic-100k", "modern-10k", "preview-10k")
WIDE = ("wide-1k", "wide-10k")  # what the network of lesson 7 reads
JUDGES = ("classic-100k", "wide-10k")  # the set that decides which of two networks is better
LOG = ["epoch", "run", "pictures", "seconds", "loss", "val_loss", "val_acc"]
MADE = ("settings", "start", "pictures", "seconds", "device", "cpu", "cores", "backend", "python",
        "versions", "sha256")  # fmt: skip
BEGIN, END = "<!-- from models/*.json by `make table` -->", "<!-- end of the table -->"
TITLES = {"cnn": "CNN with four softmax heads", "ctc": "CNN and CTC"}
TWIN = "ctc_pytorch"


def history(run: Path, home: Path) -> tuple[list[dict], pd.DataFrame]:
    """Return how the network of a run was made: all runs that led to it, and one log of them.

    What it started from is a finished network beside `home` (a results file), or an earlier run.
    """
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    log = pd.read_csv(run / "log.csv").drop_duplicates("epoch", keep="last")
    log["run"], log["seconds"] = 1, log.seconds.cumsum()
    log["pictures"] = (log.epoch + 1) * results["pictures"] // len(log)
    if results["start"] is None:
        return [results], log[LOG]
    for found in sorted(home.parent.glob("*.json")):
        current = json.loads(found.read_text(encoding="utf-8"))
        if current.get("sha256") == results["start"]:
            runs, before = current["runs"], pd.read_csv(found.with_suffix(".csv"))
            break
    else:
        runs, before = history(Path(results["settings"]["START"]).parent, home)
        if runs[-1]["sha256"] != results["start"]:
            raise ValueError(f"{run} did not start from what {results['settings']['START']} is now")
    last = before.iloc[-1]
    shift = {"epoch": last.epoch + 1, **last[["run", "pictures", "seconds"]]}
    for column, value in shift.items():
        log[column] += value
    log = log.astype({"epoch": int, "run": int, "pictures": int}).round({"seconds": 1})
    return [*runs, results], pd.concat([before[LOG], log[LOG]])


def share(score: dict) -> str:
    """A score as the table shows it."""
    low, high = (f"{100 * end:.2f}" for end in score["interval"])
    return f"{100 * score['right'] / score['n']:.2f} % ({low} to {high})"


def table(root: Path) -> str:
    """Return the table of the finished networks in `root`/models."""
    lines = [
        f"| model | parameters | trained on | hours | {' | '.join(f'`{x}`' for x in SETS[1:])} |",
        "| --- " * (3 + len(SETS)) + "|",
    ]
    for path in (root / "models" / f"{name}.json" for name in TITLES):
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            cells = [
                f"{TITLES[path.stem]}, {found['size']}",
                f"{found['parameters']:,}",
                f"{found['pictures']:,} captchas",
                f"{found['seconds'] / 3600:.1f} ({found['runs'][-1]['device']})",
                *(share(found["scores"][test_set]) for test_set in SETS[1:]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    if (path := root / "models" / f"{TWIN}.json").exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        lines += [
            "",
            f"Lesson 7's network in PyTorch reads wider captchas, 192x64, an easier task: "
            f"{share(found['scores']['wide-10k'])} of `wide-10k` after "
            f"{found['pictures']:,} captchas and {found['seconds'] / 3600:.1f} hours "
            f"({found['runs'][-1]['device']}).",
        ]
    return "\n".join(lines)


def write_table(root: Path) -> bool:
    """Write the table between the two marks of the README; whether that changed anything."""
    path = root / "README.md"
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"publish: README.md needs the lines {BEGIN!r} and {END!r}")
    return lessons.write(path, f"{before}{BEGIN}\n{table(root)}\n{END}{after}")


def publish(run: Path, root: Path) -> bool:
    """Make the network of a run the finished one of its kind in `root`; False if not better."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    home = root / "models" / f"{results['model']}.json"
    runs, log = history(run, home)
    from evaluate import FINISHED, reader

    from captcha_reader.scores import evaluate
    from captcha_reader.weights import check_weights

    sets, suffix = WIDE if results["model"] == TWIN else SETS, FINISHED[results["model"]]
    weights = check_weights(run / f"model{suffix}", results["sha256"])
    read, scores = reader(weights, results["size"]), {}
    for name in sorted(sets, key=lambda name: name not in JUDGES):
        scores[name] = evaluate(read, name).record()
        if name in JUDGES and home.exists():
            old = json.loads(home.read_text(encoding="utf-8"))["scores"][name]["right"]
            print(f"{home.name} has {old:,} of {name}, this network {scores[name]['right']:,}")
            if scores[name]["right"] <= old:
                return False
    told = {
        **{name: results[name] for name in ("model", "size")},
        "scores": {name: scores[name] for name in sets},
        **{name: sum(run[name] for run in runs) for name in ("pictures", "seconds")},
        "parameters": results["parameters"],
        "bytes": weights.stat().st_size,
        "sha256": results["sha256"],
        "runs": [{name: run.get(name) for name in MADE} for run in runs],
    }
    lessons.write(home.with_suffix(suffix), weights.read_bytes())
    lessons.write(home.with_suffix(".csv"), log.to_csv(index=False))
    lessons.write(home, json.dumps(told, indent=1) + "\n")
    return True


def main() -> int:
    """Publish a run, if one is given, and write the table; 1 if it is not better."""
    chosen = options.read(sys.argv[1:], "publish", DEFAULTS, {})
    if chosen["RUN"]:
        options.import_quietly()
    try:
        if chosen["RUN"] and not publish(Path(chosen["RUN"]), lessons.ROOT):
            print("publish: not better, so everything stays as it is")
            return 1
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"publish: {error}") from error
    if chosen["RUN"]:
        print("next: make export, and make refresh for the lessons that read models/")
    print("README.md changed" if write_table(lessons.ROOT) else "README.md is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
